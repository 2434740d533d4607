// The operations for a machine of which nothing is known.
#include "ops_body.h"

#include <cstring>

namespace selfee {

const Ops& scalar_ops() { return kOps; }

const Ops& ops_named(const char* isa) {
#if defined(__x86_64__)
    if (std::strcmp(isa, "avx512") == 0) return avx512_ops();
    if (std::strcmp(isa, "scalar") != 0) return avx2_ops();  // AVX-VNNI has nothing for these
#endif
    return scalar_ops();
}

}  // namespace selfee
