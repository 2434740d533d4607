// Eight floats of AVX2 as a lane type; see lanes.h.
#pragma once
#include <immintrin.h>

#include "quantize/lanes.h"

namespace selfee {
namespace {

struct Avx2Lanes {
    struct Mask {
        __m256 m8;
    };
    static constexpr int kLanes = 8;
    __m256 v;

    static SELFEE_INLINE Avx2Lanes all(float value) { return {_mm256_set1_ps(value)}; }
    static SELFEE_INLINE Avx2Lanes load(const float* from) { return {_mm256_loadu_ps(from)}; }
    SELFEE_INLINE void store(float* to) const { _mm256_storeu_ps(to, v); }
};

SELFEE_INLINE Avx2Lanes operator+(Avx2Lanes a, Avx2Lanes b) { return {_mm256_add_ps(a.v, b.v)}; }
SELFEE_INLINE Avx2Lanes operator-(Avx2Lanes a, Avx2Lanes b) { return {_mm256_sub_ps(a.v, b.v)}; }
SELFEE_INLINE Avx2Lanes operator*(Avx2Lanes a, Avx2Lanes b) { return {_mm256_mul_ps(a.v, b.v)}; }
SELFEE_INLINE Avx2Lanes operator/(Avx2Lanes a, Avx2Lanes b) { return {_mm256_div_ps(a.v, b.v)}; }
SELFEE_INLINE Avx2Lanes::Mask operator<(Avx2Lanes a, Avx2Lanes b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
SELFEE_INLINE Avx2Lanes::Mask operator<=(Avx2Lanes a, Avx2Lanes b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
SELFEE_INLINE Avx2Lanes::Mask operator!=(Avx2Lanes a, Avx2Lanes b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_NEQ_UQ)}; }
SELFEE_INLINE Avx2Lanes::Mask operator&(Avx2Lanes::Mask a, Avx2Lanes::Mask b) { return {_mm256_and_ps(a.m8, b.m8)}; }
SELFEE_INLINE Avx2Lanes::Mask operator|(Avx2Lanes::Mask a, Avx2Lanes::Mask b) { return {_mm256_or_ps(a.m8, b.m8)}; }
SELFEE_INLINE Avx2Lanes::Mask operator~(Avx2Lanes::Mask a) {
    return {_mm256_xor_ps(a.m8, _mm256_castsi256_ps(_mm256_set1_epi32(-1)))};
}
SELFEE_INLINE bool any(Avx2Lanes::Mask mask) { return _mm256_movemask_ps(mask.m8) != 0; }
SELFEE_INLINE Avx2Lanes select(Avx2Lanes::Mask mask, Avx2Lanes a, Avx2Lanes b) { return {_mm256_blendv_ps(b.v, a.v, mask.m8)}; }
SELFEE_INLINE Avx2Lanes less_of(Avx2Lanes a, Avx2Lanes b) { return {_mm256_min_ps(a.v, b.v)}; }
SELFEE_INLINE Avx2Lanes greater_of(Avx2Lanes a, Avx2Lanes b) { return {_mm256_max_ps(a.v, b.v)}; }
SELFEE_INLINE Avx2Lanes root(Avx2Lanes a) { return {_mm256_sqrt_ps(a.v)}; }
SELFEE_INLINE Avx2Lanes magnitude(Avx2Lanes a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
SELFEE_INLINE Avx2Lanes rounded(Avx2Lanes a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }

SELFEE_INLINE Avx2Lanes rounded_wrapping(Avx2Lanes a) {
    const __m256i bits = _mm256_castps_si256(_mm256_add_ps(a.v, _mm256_set1_ps(kRoundingShift)));
    const __m256i low = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffff));
    return {_mm256_cvtepi32_ps(_mm256_sub_epi32(low, _mm256_set1_epi32(0x400000)))};
}

SELFEE_INLINE Avx2Lanes low_byte(Avx2Lanes a) {
    return {_mm256_cvtepi32_ps(_mm256_and_si256(_mm256_cvtps_epi32(a.v), _mm256_set1_epi32(255)))};
}

SELFEE_INLINE void transpose(const float* from, int64_t stride, Avx2Lanes* to, int64_t step) {
    __m256 r[8], s[8];
    for (int row = 0; row < 4; ++row)  // rows r and r + 4 side by side, first and second half of the columns
        for (int half = 0; half < 2; ++half)
            r[row + 4 * half] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from + row * stride + 4 * half)),
                                                     _mm_loadu_ps(from + (row + 4) * stride + 4 * half), 1);
    for (int half = 0; half < 8; half += 4) {
        s[half] = _mm256_unpacklo_ps(r[half], r[half + 1]);
        s[half + 1] = _mm256_unpackhi_ps(r[half], r[half + 1]);
        s[half + 2] = _mm256_unpacklo_ps(r[half + 2], r[half + 3]);
        s[half + 3] = _mm256_unpackhi_ps(r[half + 2], r[half + 3]);
        to[half * step].v = _mm256_shuffle_ps(s[half], s[half + 2], 0x44);
        to[(half + 1) * step].v = _mm256_shuffle_ps(s[half], s[half + 2], 0xee);
        to[(half + 2) * step].v = _mm256_shuffle_ps(s[half + 1], s[half + 3], 0x44);
        to[(half + 3) * step].v = _mm256_shuffle_ps(s[half + 1], s[half + 3], 0xee);
    }
}

}  // namespace
}  // namespace selfee
