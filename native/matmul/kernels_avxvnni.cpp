// The kernels for AVX-VNNI: Intel since Alder Lake (2021), AMD since Zen 5. Chosen where there is no AVX-512 beside it.
#include "matmul/vector_avxvnni.h"

#include "matmul/kernels.h"
#include "matmul/multiply.h"

namespace selfee {

const Kernels& avxvnni_kernels() {
    static constexpr Kernels kernels = {"avxvnni", kGroupRows, kPanel, prepare_parts, matmul};
    return kernels;
}

}  // namespace selfee
