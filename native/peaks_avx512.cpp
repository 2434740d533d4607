// What the machine can do at best with AVX-512.
#include "peaks_body.h"

namespace selfee {

const Peaks& avx512_peaks() { return kPeaks; }

}  // namespace selfee
