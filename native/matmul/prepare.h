// f32 activations -> what the kernels read.  One source for all instruction sets: every operation on a value is exact or
// one rounding, so a compiler that vectorises it cannot change a bit.
#pragma once
#include <cmath>

#include "blocks.h"
#include "matmul/activations.h"

namespace selfee {

// Nearest integer, ties to even, for |v| < 2^22: adding 1.5 * 2^23 leaves the integer in the low bits.
static inline int32_t nearest_int(float v) {
    return int32_t(std::bit_cast<uint32_t>(v + 12582912.0f) & 0x7fffffu) - 0x400000;
}

// The bits of the largest |x|; as integers, infinity is above every number and NaN above infinity.
static inline uint32_t largest_magnitude(const float* x, int count) {
    uint32_t largest = 0;
    for (int v = 0; v < count; ++v) {
        const uint32_t magnitude = std::bit_cast<uint32_t>(x[v]) & 0x7fffffffu;
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
}

// Scale of a block from its largest magnitude. inverse is 0 where the block is zero, too small to tell, or not finite.
struct BlockScale {
    float d, stored_d, inverse;
};

static inline BlockScale block_scale_32(uint32_t magnitude) {
    if (magnitude >= 0x7f800000u) return {NAN, NAN, 0};
    const float amax = std::bit_cast<float>(magnitude), d = amax / 127.0f, stored = half_to_float(float_to_half(d));
    return {d, stored, stored > 0 ? 127.0f / amax : 0};
}

// Of 256 values the largest by magnitude, the first of equals, becomes -128, whatever its sign.
static inline BlockScale block_scale_256(const float* x, uint32_t magnitude) {
    if (magnitude >= 0x7f800000u) return {NAN, NAN, 0};
    int first = 0;
    while ((std::bit_cast<uint32_t>(x[first]) & 0x7fffffffu) != magnitude) ++first;
    const float inverse = -128.0f / x[first];
    if (!(std::fabs(inverse) <= 0x1p127f)) return {0, 0, 0};
    return {1.0f / inverse, 1.0f / inverse, inverse};
}

static inline int32_t quantise_codes(const float* __restrict x, int count, float inverse, int8_t* __restrict codes) {
    int32_t sum = 0;
    if (inverse == 0) {  // x may be infinite: 0 * x would not be 0
        std::memset(codes, 0, size_t(count));
        return 0;
    }
    for (int v = 0; v < count; ++v) {
        const int32_t nearest = nearest_int(x[v] * inverse), q = nearest > 127 ? 127 : nearest;
        codes[v] = int8_t(q);
        sum += q;
    }
    return sum;
}

// Codes of one block, four at a time, to where the panel of their token has them.
static inline void put_codes(const int8_t* codes, int64_t count, PanelPlace place, uint8_t* to) {
    to += 4 * place.at;
    if (place.step == 1)
        std::memcpy(to, codes, size_t(count));
    else
        for (int64_t word = 0; word < count / 4; ++word) std::memcpy(to + 4 * word * place.step, codes + 4 * word, 4);
}

static inline int32_t pair_16(int32_t low, int32_t high) { return int32_t((uint32_t(low) & 0xffffu) | uint32_t(high) << 16); }

// Sums of the codes of 256 columns, for packed weights.
static inline void put_sums_256(const int32_t* sums, int64_t step, int32_t* starts, int32_t* pairs) {
    for (int j = 0; j < kSums16; ++j) starts[j * step] = -4 * sums[j];
    for (int j = 0; j < kPairs16; ++j) pairs[j * step] = pair_16(sums[2 * j], sums[2 * j + 1]);
    for (int j = 0; j < kPairs - kPairs16; ++j)
        pairs[(kPairs16 + j) * step] = pair_16(sums[4 * j] + sums[4 * j + 1], sums[4 * j + 2] + sums[4 * j + 3]);
}

static inline void prepare_token(Activations& a, const float* x, int64_t t) {
    uint8_t* base = a.data();
    auto* scales = reinterpret_cast<float*>(base + a.scales_at);
    auto* isums = reinterpret_cast<int32_t*>(base + a.sums_at);
    auto* fsums = reinterpret_cast<float*>(base + a.sums_at);
    auto* bsums = reinterpret_cast<int16_t*>(base + a.sums_at);
    auto* pairs = reinterpret_cast<int32_t*>(base + a.pairs_at);
    const bool paneled = a.panel > 0;
    const int64_t width = activation_block(a.kind), blocks = a.cols / width;
    // Token after token: a row of codes, and scales as one wide panel.
    const PanelPlace codes_in = paneled ? panel_place(a.n, a.panel, t, a.cols / 4) : PanelPlace{t * a.cols / 4, 1};
    const PanelPlace scales_in = panel_place(a.n, paneled ? a.panel : a.n, t, blocks);
    int8_t codes[256];
    for (int64_t b = 0; b < blocks; ++b, x += width) {
        const uint32_t magnitude = largest_magnitude(x, int(width));
        const PanelPlace codes_at{codes_in.at + b * width / 4 * codes_in.step, codes_in.step};
        const int64_t at = scales_in.at + b * scales_in.step;
        if (a.kind == ActivationKind::Q8_K) {
            const BlockScale scale = block_scale_256(x, magnitude);
            int32_t sums[kSums16];
            for (int j = 0; j < kSums16; ++j) sums[j] = quantise_codes(x + 16 * j, 16, scale.inverse, codes + 16 * j);
            put_codes(codes, width, codes_at, base);
            scales[at] = scale.stored_d;
            if (paneled) {
                const PanelPlace sums_in = panel_place(a.n, a.panel, t, blocks * kSums16);
                const PanelPlace pairs_in = panel_place(a.n, a.panel, t, blocks * kPairs);
                put_sums_256(sums, scales_in.step, isums + sums_in.at + b * kSums16 * sums_in.step,
                             pairs + pairs_in.at + b * kPairs * pairs_in.step);
            } else {
                for (int j = 0; j < kSums16; ++j) bsums[t * (a.cols / 16) + kSums16 * b + j] = int16_t(sums[j]);
            }
            continue;
        }
        const BlockScale scale = block_scale_32(magnitude);
        const int32_t sum = quantise_codes(x, 32, scale.inverse, codes);
        put_codes(codes, width, codes_at, base);
        scales[at] = scale.stored_d;
        if (a.kind == ActivationKind::Q8_0)
            isums[at] = paneled ? -8 * sum : sum;
        else
            fsums[at] = half_to_float(float_to_half(scale.d * float(sum)));
    }
}

static inline void prepare_floats(Activations& a, const float* x, int64_t t) {
    auto* out = reinterpret_cast<float*>(a.data()) + t * int64_t(a.row_bytes / sizeof(float));
    if (a.kind == ActivationKind::F32)
        std::memcpy(out, x, size_t(a.cols) * sizeof(float));
    else
        for (int64_t c = 0; c < a.cols; ++c) out[c] = half_to_float(float_to_half(x[c]));
    std::memset(out + a.cols, 0, a.row_bytes - size_t(a.cols) * sizeof(float));
}

static inline void prepare_tokens(Activations& a, const float* x, int64_t x_stride, int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
        is_quantised(a.kind) ? prepare_token(a, x + t * x_stride, t) : prepare_floats(a, x + t * x_stride, t);
}

}  // namespace selfee
