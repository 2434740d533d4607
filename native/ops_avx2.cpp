// The operations with AVX2, FMA and F16C.
#include "ops_body.h"

namespace selfee {

const Ops& avx2_ops() { return kOps; }

}  // namespace selfee
