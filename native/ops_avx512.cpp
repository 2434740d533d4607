// The operations with AVX-512.
#include "ops_body.h"

namespace selfee {

const Ops& avx512_ops() { return kOps; }

}  // namespace selfee
