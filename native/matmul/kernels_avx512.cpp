// The kernels for AVX-512 with VNNI: Intel servers since 2019, AMD since Zen 4.
#include "matmul/vector_avx512.h"

#include "matmul/kernels.h"
#include "matmul/multiply.h"

namespace selfee {

const Kernels& avx512_kernels() {
    static constexpr Kernels kernels = {"avx512", kGroupRows, kPanel, prepare_parts, matmul};
    return kernels;
}

}  // namespace selfee
