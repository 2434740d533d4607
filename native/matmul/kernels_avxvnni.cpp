// The kernels for AVX-VNNI: machines without AVX-512 since Alder Lake (Intel, 2021), and Zen 5, which has both.
#include "matmul/vector_avxvnni.h"

#include "matmul/kernels.h"
#include "matmul/multiply.h"

namespace selfee {

const Kernels& avxvnni_kernels() {
    static constexpr Kernels kernels = {"avxvnni", kGroupRows, kPanel, prepare_parts, matmul};
    return kernels;
}

}  // namespace selfee
