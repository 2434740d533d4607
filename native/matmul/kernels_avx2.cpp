// The kernels for AVX2 (with FMA and F16C): every x86 machine since 2013 (Intel) or 2015 (AMD).
#include "matmul/vector_avx2.h"

#include "matmul/formats.h"
#include "matmul/kernels.h"
#include "matmul/limits.h"
#include "matmul/packed_tiles.h"
#include "matmul/tiles.h"

namespace selfee {

const Kernels& avx2_kernels() {
    static constexpr Kernels kernels = {"avx2", kRowTile, prepare_tokens, matmul, read_all, multiply_bytes};
    return kernels;
}

}  // namespace selfee
