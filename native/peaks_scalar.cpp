// What a machine of which nothing is known can do at best.
#include "peaks_body.h"

namespace selfee {

const Peaks& scalar_peaks() { return kPeaks; }

const Peaks& peaks_named(const char* isa) {
#if defined(__x86_64__)
    if (std::strcmp(isa, "avx512") == 0) return avx512_peaks();
    if (std::strcmp(isa, "scalar") != 0) return avx2_peaks();
#endif
    return scalar_peaks();
}

}  // namespace selfee
