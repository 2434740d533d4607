// The kernels for AVX-512 with VNNI: Intel servers since 2019, AMD since Zen 4.
#include "matmul/vector_avx512.h"

#include "matmul/formats.h"
#include "matmul/kernels.h"
#include "matmul/limits.h"
#include "matmul/packed_tiles.h"
#include "matmul/tiles.h"

namespace selfee {

const Kernels& avx512_kernels() {
    static constexpr Kernels kernels = {"avx512", kRowTile, prepare_tokens, matmul, read_all, multiply_bytes};
    return kernels;
}

}  // namespace selfee
