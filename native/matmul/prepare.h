// f32 activations -> what the kernels read, see codes.h.
#pragma once
#include "matmul/activations.h"
#include "matmul/codes.h"

namespace selfee {

// Of 256 values the largest by magnitude, the first of equals, becomes -128, whatever its sign.
static inline BlockScale block_scale_256(const float* x, uint32_t magnitude) {
    if (magnitude >= 0x7f800000u) return {NAN, NAN, 0};
    int first = 0;
    while ((std::bit_cast<uint32_t>(x[first]) & 0x7fffffffu) != magnitude) ++first;
    const float inverse = -128.0f / x[first];
    if (!(std::fabs(inverse) <= 0x1p127f)) return {0, 0, 0};
    return {1.0f / inverse, 1.0f / inverse, inverse};
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

// Blocks [begin, end) of token t, whose values begin at x.
static inline void prepare_token(Activations& a, const float* x, int64_t t, int64_t begin, int64_t end) {
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
    x += begin * width;
    for (int64_t b = begin; b < end; ++b, x += width) {
        const uint32_t magnitude = largest_magnitude(x, int(width));
        const PanelPlace codes_at{codes_in.at + b * width / 4 * codes_in.step, codes_in.step};
        const int64_t at = scales_in.at + b * scales_in.step;
        if (a.kind == ActivationKind::Q8_K) {
            const BlockScale scale = block_scale_256(x, magnitude);
            int32_t sums[kSums16];
            for (int j = 0; j < kSums16; j += 2) quantise_32(x + 16 * j, scale.inverse, codes + 16 * j, sums + j);
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
        int32_t halves[2];
        quantise_32(x, scale.inverse, codes, halves);
        const int32_t sum = halves[0] + halves[1];
        put_codes(codes, width, codes_at, base);
        scales[at] = scale.stored_d;
        if (a.kind == ActivationKind::Q8_0)
            isums[at] = paneled ? -8 * sum : sum;
        else
            fsums[at] = rounded_to_half(scale.d * float(sum));
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

static inline void prepare_parts(Activations& a, const float* x, int64_t x_stride, int64_t begin, int64_t end) {
    const PrepareParts parts = prepare_parts_of(a);
    for (int64_t part = begin; part < end; ++part) {
        const int64_t first = part / parts.slices * parts.tokens, last = first + parts.tokens < a.n ? first + parts.tokens : a.n;
        const int64_t from = part % parts.slices * parts.blocks;
        const int64_t to = from + parts.blocks < parts.all_blocks ? from + parts.blocks : parts.all_blocks;
        for (int64_t t = first; t < last; ++t)
            is_quantised(a.kind) ? prepare_token(a, x + t * x_stride, t, from, to) : prepare_floats(a, x + t * x_stride, t);
    }
}

}  // namespace selfee
