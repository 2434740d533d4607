// What the machine can do at best with AVX2.
#include "peaks_body.h"

namespace selfee {

const Peaks& avx2_peaks() { return kPeaks; }

}  // namespace selfee
