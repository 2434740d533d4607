// One entry for every type: packed weights first, then the file's own layout.
#pragma once
#include "matmul/formats.h"
#include "matmul/packed_tiles.h"
#include "matmul/tiles.h"

namespace selfee {
namespace {

static void matmul(const Matrix& w, const Activations& activations, int64_t row_begin, int64_t row_end, float* y,
                   int64_t y_stride) {
    const ActivationView a = view(activations);
    if (w.packed) return multiply_packed(w, a, row_begin, row_end, y, y_stride);
    switch (w.type) {
        case Type::F16: return multiply_floats<FloatF16>(w, a, row_begin, row_end, y, y_stride);
        case Type::BF16: return multiply_floats<FloatBF16>(w, a, row_begin, row_end, y, y_stride);
        case Type::Q4_0: return multiply<FormatQ4_0>(w, a, row_begin, row_end, y, y_stride);
        case Type::Q4_1: return multiply<FormatQ4_1>(w, a, row_begin, row_end, y, y_stride);
        case Type::Q5_0: return multiply<FormatQ5_0>(w, a, row_begin, row_end, y, y_stride);
        case Type::Q5_1: return multiply<FormatQ5_1>(w, a, row_begin, row_end, y, y_stride);
        case Type::Q8_0: return multiply<FormatQ8_0>(w, a, row_begin, row_end, y, y_stride);
        case Type::Q2_K: return multiply<FormatQ2_K>(w, a, row_begin, row_end, y, y_stride);
        case Type::Q3_K: return multiply<FormatQ3_K>(w, a, row_begin, row_end, y, y_stride);
        case Type::Q4_K: return multiply<FormatQ4_K>(w, a, row_begin, row_end, y, y_stride);
        case Type::Q5_K: return multiply<FormatQ5_K>(w, a, row_begin, row_end, y, y_stride);
        case Type::Q6_K: return multiply<FormatQ6_K>(w, a, row_begin, row_end, y, y_stride);
        default: return multiply_floats<FloatF32>(w, a, row_begin, row_end, y, y_stride);
    }
}

}  // namespace
}  // namespace selfee
