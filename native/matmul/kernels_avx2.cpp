// The kernels for AVX2 (with FMA and F16C): every x86 machine since 2013 (Intel) or 2015 (AMD).
#include "matmul/vector_avx2.h"

#include "matmul/kernels.h"
#include "matmul/multiply.h"

namespace selfee {

const Kernels& avx2_kernels() {
    static constexpr Kernels kernels = {"avx2", kGroupRows, kPanel, prepare_parts, matmul};
    return kernels;
}

}  // namespace selfee
