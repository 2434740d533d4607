// f32 activations -> what the kernels read.  Every operation on a value is exact or one rounding, so it does not matter
// how many are done at once.
#pragma once
#include <cmath>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "blocks.h"
#include "matmul/activations.h"

namespace selfee {

// Nearest integer, ties to even, for |v| < 2^22: adding 1.5 * 2^23 leaves the integer in the low bits.
static inline int32_t nearest_int(float v) {
    return int32_t(std::bit_cast<uint32_t>(v + 12582912.0f) & 0x7fffffu) - 0x400000;
}

// The bits of the largest |x| of a multiple of 16; as integers, infinity is above every number and NaN above infinity.
static inline uint32_t largest_magnitude(const float* x, int count) {
#if defined(__AVX2__)
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    const auto load = [&](int v) { return _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + v)), magnitude); };
    __m256i a = load(0), b = load(8);
    for (int v = 16; v < count; v += 16) {
        a = _mm256_max_epu32(a, load(v));
        b = _mm256_max_epu32(b, load(v + 8));
    }
    a = _mm256_max_epu32(a, b);
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0xb1));
    return uint32_t(_mm_cvtsi128_si32(four));
#else
    uint32_t largest = 0;
    for (int v = 0; v < count; ++v) {
        const uint32_t magnitude = std::bit_cast<uint32_t>(x[v]) & 0x7fffffffu;
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
#endif
}

// What the float is after it was stored as a half.
static inline float rounded_to_half(float x) {
#if defined(__F16C__)
    return _cvtsh_ss(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
    return half_to_float(float_to_half(x));
#endif
}

// Scale of a block from its largest magnitude. inverse is 0 where the block is zero, too small to tell, or not finite.
struct BlockScale {
    float d, stored_d, inverse;
};

static inline BlockScale block_scale_32(uint32_t magnitude) {
    if (magnitude >= 0x7f800000u) return {NAN, NAN, 0};
    const float amax = std::bit_cast<float>(magnitude), d = amax / 127.0f, stored = rounded_to_half(d);
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

#if defined(__AVX2__)
// Eight codes in 32 bits: round to nearest, ties to even, at most 127.
static inline __m256i eight_codes(const float* x, __m256 inverse) {
    return _mm256_min_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), inverse)), _mm256_set1_epi32(127));
}
#endif

// 32 codes and the sums of the first and of the last sixteen.
static inline void quantise_32(const float* __restrict x, float inverse, int8_t* __restrict codes, int32_t* __restrict sums) {
    if (inverse == 0) {  // x may be infinite: 0 * x would not be 0
        std::memset(codes, 0, 32);
        sums[0] = sums[1] = 0;
        return;
    }
#if defined(__AVX2__)
    const __m256 factor = _mm256_set1_ps(inverse);
    const __m256i a = eight_codes(x, factor), b = eight_codes(x + 8, factor);
    const __m256i c = eight_codes(x + 16, factor), d = eight_codes(x + 24, factor);
    // Packing works within halves of a register: the order is put right at the end.
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    const __m256i ordered = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), ordered);
    const __m256i first = _mm256_add_epi32(a, b), last = _mm256_add_epi32(c, d), both = _mm256_hadd_epi32(first, last);
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
    const __m128i two = _mm_hadd_epi32(four, four);
    sums[0] = _mm_cvtsi128_si32(two);
    sums[1] = _mm_extract_epi32(two, 1);
#else
    for (int half = 0; half < 2; ++half) {
        int32_t sum = 0;
        for (int v = 16 * half; v < 16 * half + 16; ++v) {
            const int32_t nearest = nearest_int(x[v] * inverse), q = nearest > 127 ? 127 : nearest;
            codes[v] = int8_t(q);
            sum += q;
        }
        sums[half] = sum;
    }
#endif
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
