// Sixteen floats of AVX-512 as a lane type; see lanes.h.
#pragma once
#include <immintrin.h>

#include "quantize/lanes.h"

namespace selfee {
namespace {

struct Avx512Lanes {
    struct Mask {
        __mmask16 m16;
    };
    static constexpr int kLanes = 16;
    __m512 v;

    static SELFEE_INLINE Avx512Lanes all(float value) { return {_mm512_set1_ps(value)}; }
    static SELFEE_INLINE Avx512Lanes load(const float* from) { return {_mm512_loadu_ps(from)}; }
    SELFEE_INLINE void store(float* to) const { _mm512_storeu_ps(to, v); }
};

SELFEE_INLINE Avx512Lanes operator+(Avx512Lanes a, Avx512Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
SELFEE_INLINE Avx512Lanes operator-(Avx512Lanes a, Avx512Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
SELFEE_INLINE Avx512Lanes operator*(Avx512Lanes a, Avx512Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
SELFEE_INLINE Avx512Lanes operator/(Avx512Lanes a, Avx512Lanes b) { return {_mm512_div_ps(a.v, b.v)}; }
SELFEE_INLINE Avx512Lanes::Mask operator<(Avx512Lanes a, Avx512Lanes b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
SELFEE_INLINE Avx512Lanes::Mask operator<=(Avx512Lanes a, Avx512Lanes b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
SELFEE_INLINE Avx512Lanes::Mask operator!=(Avx512Lanes a, Avx512Lanes b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_NEQ_UQ)}; }
SELFEE_INLINE Avx512Lanes::Mask operator&(Avx512Lanes::Mask a, Avx512Lanes::Mask b) { return {__mmask16(a.m16 & b.m16)}; }
SELFEE_INLINE Avx512Lanes::Mask operator|(Avx512Lanes::Mask a, Avx512Lanes::Mask b) { return {__mmask16(a.m16 | b.m16)}; }
SELFEE_INLINE Avx512Lanes::Mask operator~(Avx512Lanes::Mask a) { return {__mmask16(~a.m16)}; }
SELFEE_INLINE bool any(Avx512Lanes::Mask mask) { return mask.m16 != 0; }
SELFEE_INLINE Avx512Lanes select(Avx512Lanes::Mask mask, Avx512Lanes a, Avx512Lanes b) { return {_mm512_mask_blend_ps(mask.m16, b.v, a.v)}; }
SELFEE_INLINE Avx512Lanes less_of(Avx512Lanes a, Avx512Lanes b) { return {_mm512_min_ps(a.v, b.v)}; }
SELFEE_INLINE Avx512Lanes greater_of(Avx512Lanes a, Avx512Lanes b) { return {_mm512_max_ps(a.v, b.v)}; }
SELFEE_INLINE Avx512Lanes root(Avx512Lanes a) { return {_mm512_sqrt_ps(a.v)}; }
SELFEE_INLINE Avx512Lanes magnitude(Avx512Lanes a) { return {_mm512_abs_ps(a.v)}; }
SELFEE_INLINE Avx512Lanes rounded(Avx512Lanes a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }

SELFEE_INLINE Avx512Lanes rounded_wrapping(Avx512Lanes a) {
    const __m512i bits = _mm512_castps_si512(_mm512_add_ps(a.v, _mm512_set1_ps(kRoundingShift)));
    const __m512i low = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffff));
    return {_mm512_cvtepi32_ps(_mm512_sub_epi32(low, _mm512_set1_epi32(0x400000)))};
}

SELFEE_INLINE Avx512Lanes low_byte(Avx512Lanes a) {
    return {_mm512_cvtepi32_ps(_mm512_and_si512(_mm512_cvtps_epi32(a.v), _mm512_set1_epi32(255)))};
}

// Four rows, four apart, as the quarters of one vector: columns `column` to column + 3 of rows row, row + 4, + 8, + 12.
SELFEE_INLINE __m512 quarters(const float* from, int64_t stride) {
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(from));
    v = _mm512_insertf32x4(v, _mm_loadu_ps(from + 4 * stride), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(from + 8 * stride), 2);
    return _mm512_insertf32x4(v, _mm_loadu_ps(from + 12 * stride), 3);
}

SELFEE_INLINE void transpose(const float* from, int64_t stride, Avx512Lanes* to, int64_t step) {
    for (int column = 0; column < 16; column += 4) {
        const __m512 r0 = quarters(from + column, stride), r1 = quarters(from + stride + column, stride);
        const __m512 r2 = quarters(from + 2 * stride + column, stride), r3 = quarters(from + 3 * stride + column, stride);
        const __m512 s0 = _mm512_unpacklo_ps(r0, r1), s1 = _mm512_unpackhi_ps(r0, r1);
        const __m512 s2 = _mm512_unpacklo_ps(r2, r3), s3 = _mm512_unpackhi_ps(r2, r3);
        to[column * step].v = _mm512_shuffle_ps(s0, s2, 0x44);
        to[(column + 1) * step].v = _mm512_shuffle_ps(s0, s2, 0xee);
        to[(column + 2) * step].v = _mm512_shuffle_ps(s1, s3, 0x44);
        to[(column + 3) * step].v = _mm512_shuffle_ps(s1, s3, 0xee);
    }
}

}  // namespace
}  // namespace selfee
