// Floats to 8-bit codes that share a scale: what activations and cached keys and values are rounded to. Every operation on
// a value is exact or one rounding, so it does not matter how many are done at once.
#pragma once
#include <cmath>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "blocks.h"

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

}  // namespace selfee
