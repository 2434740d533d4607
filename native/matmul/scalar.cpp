// The scalar kernels: the definition, run as it stands.
#include "matmul/scalar.h"

#include "matmul/kernels.h"
#include "matmul/prepare.h"

namespace selfee {
namespace {

using Dot = float (*)(const uint8_t* row, const ActivationView& a, int64_t t);

Dot dot_of(Type type) {
    switch (type) {
        case Type::F16: return dot_f16;
        case Type::BF16: return dot_bf16;
        case Type::Q4_0: return dot_32<BlockQ4_0>;
        case Type::Q4_1: return dot_32<BlockQ4_1>;
        case Type::Q5_0: return dot_32<BlockQ5_0>;
        case Type::Q5_1: return dot_32<BlockQ5_1>;
        case Type::Q8_0: return dot_32<BlockQ8_0>;
        case Type::Q2_K: return dot_256<BlockQ2_K>;
        case Type::Q3_K: return dot_256<BlockQ3_K>;
        case Type::Q4_K: return dot_256<BlockQ4_K>;
        case Type::Q5_K: return dot_256<BlockQ5_K>;
        case Type::Q6_K: return dot_256<BlockQ6_K>;
        default: return dot_f32;
    }
}

void matmul(const Matrix& w, const Activations& a, int64_t row_begin, int64_t row_end, float* y, int64_t y_stride) {
    const Dot dot = dot_of(w.type);
    const ActivationView x = view(a);
    for (int64_t r = row_begin; r < row_end; ++r)
        for (int64_t t = 0; t < a.n; ++t) y[t * y_stride + r] = dot(w.data + size_t(r) * w.row_bytes, x, t);
}

}  // namespace

const Kernels& scalar_kernels() {
    static constexpr Kernels kernels = {"scalar", 1, 0, prepare_parts, matmul};
    return kernels;
}

}  // namespace selfee
