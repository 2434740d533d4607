// The meaning of the matmul, one output at a time.  Every fast kernel gives the same bits.
//
// Per block: integers first (exact), then one product of the two scales, one product with the integer, one addition.
// Nothing is contracted except in F32 and BF16, which say fma; F16 x F16 is exact, so there contraction changes nothing.
#pragma once
#include "matmul/activations.h"
#include "matmul/unpack.h"

namespace selfee {

template <class Block>
static float dot_32(const uint8_t* row, const ActivationView& a, int64_t t) {
    constexpr bool has_minimum = requires(Block block) { block.m; };
    const auto* blocks = reinterpret_cast<const Block*>(row);
    Codes32 w;
    float y = 0;
    for (int64_t b = 0; b < a.cols / 32; ++b) {
        unpack(blocks[b], w);
        const int8_t* x = a.codes + t * a.cols + 32 * b;
        int32_t isum = 0;
        for (int v = 0; v < 32; ++v) isum += int32_t(w.q[v]) * int32_t(x[v]);
        float term = (w.d * a.scales[b * a.n + t]) * float(isum);
        if (has_minimum) term = term + w.m * a.fsums[b * a.n + t];
        y = y + term;
    }
    return y;
}

template <class Block>
static float dot_256(const uint8_t* row, const ActivationView& a, int64_t t) {
    constexpr bool has_minimum = requires(Block block) { block.dmin; };
    const auto* blocks = reinterpret_cast<const Block*>(row);
    Codes256 w;
    float y = 0;
    for (int64_t b = 0; b < a.cols / 256; ++b) {
        unpack(blocks[b], w);
        const int8_t* x = a.codes + t * a.cols + 256 * b;
        const int16_t* bsums = a.bsums + t * (a.cols / 16) + 16 * b;
        int32_t isum = 0, msum = 0;
        for (int j = 0; j < 16; ++j) {
            int32_t part = 0;
            for (int v = 16 * j; v < 16 * j + 16; ++v) part += int32_t(w.q[v]) * int32_t(x[v]);
            isum += w.scale[j] * part;
            msum += w.min[j] * bsums[j];
        }
        const float d_x = a.scales[b * a.n + t];
        float term = (w.d * d_x) * float(isum);
        if (has_minimum) term = term - (w.dmin * d_x) * float(msum);
        y = y + term;
    }
    return y;
}

// Floats are summed in 16 lanes (column c in lane c mod 16), the lanes then in halves: 8, 4, 2, 1.
static inline float sum_lanes(float* lanes) {
    for (int half = 8; half >= 1; half /= 2)
        for (int k = 0; k < half; ++k) lanes[k] = lanes[k] + lanes[k + half];
    return lanes[0];
}

template <class Load>
static float dot_floats(Load weight, const ActivationView& a, int64_t t) {
    const float* x = a.floats + t * a.float_stride;
    float lanes[16] = {};
    for (int64_t c = 0; c < a.cols; ++c) lanes[c % 16] = __builtin_fmaf(weight(c), x[c], lanes[c % 16]);
    return sum_lanes(lanes);
}

static inline float dot_f32(const uint8_t* row, const ActivationView& a, int64_t t) {
    return dot_floats([row](int64_t c) { return std::bit_cast<float>(load_u32(row + 4 * c)); }, a, t);
}

static inline float dot_bf16(const uint8_t* row, const ActivationView& a, int64_t t) {
    return dot_floats([row](int64_t c) { return std::bit_cast<float>(uint32_t(load_u16(row + 2 * c)) << 16); }, a, t);
}

static inline float dot_f16(const uint8_t* row, const ActivationView& a, int64_t t) {
    const float* x = a.floats + t * a.float_stride;
    float lanes[16] = {};
    for (int64_t c = 0; c < a.cols; ++c) lanes[c % 16] = lanes[c % 16] + load_half(row + 2 * c) * x[c];
    return sum_lanes(lanes);
}

}  // namespace selfee
