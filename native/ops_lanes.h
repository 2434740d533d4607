// Eight floats at once, written so that every instruction set computes the same bits.
//
// Included once by each instruction set's file, inside that file's own anonymous namespace: nothing here may be shared
// between them, or the linker could hand AVX2 code to a machine without it. Hence no standard library either.
#pragma once
#include <cstdint>

#include "blocks.h"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#pragma GCC diagnostic ignored "-Wpsabi"

namespace selfee {
namespace {

typedef float F8 __attribute__((vector_size(32)));
typedef int32_t I8 __attribute__((vector_size(32)));
typedef float F4 __attribute__((vector_size(16)));
typedef double D4 __attribute__((vector_size(32)));

inline F8 load8(const float* from) {
    F8 v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}

inline void store8(float* to, F8 v) { __builtin_memcpy(to, &v, sizeof v); }

inline F8 all8(float v) { return F8{v, v, v, v, v, v, v, v}; }

// a * b + c with one rounding.
inline F8 fma8(F8 a, F8 b, F8 c) {
#if defined(__FMA__)
    return _mm256_fmadd_ps(a, b, c);
#else
    for (int lane = 0; lane < 8; ++lane) c[lane] = __builtin_fmaf(a[lane], b[lane], c[lane]);
    return c;
#endif
}

inline F8 load_halves8(const uint16_t* from) {
#if defined(__F16C__)
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
    F8 v;
    for (int lane = 0; lane < 8; ++lane) v[lane] = half_to_float(from[lane]);
    return v;
#endif
}

inline void store_halves8(uint16_t* to, F8 v) {
#if defined(__F16C__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
    for (int lane = 0; lane < 8; ++lane) to[lane] = float_to_half(v[lane]);
#endif
}

// Sixteen floats, |x| < 2^15, as integers: to the nearest, ties to even.
inline void store_words16(int16_t* to, F8 low, F8 high) {
#if defined(__AVX2__)
    const __m256i both = _mm256_packs_epi32(_mm256_cvtps_epi32(low), _mm256_cvtps_epi32(high));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute4x64_epi64(both, 0xd8));
#else
    const F8 shift = all8(12582912.0f);  // 1.5 * 2^23: rounds to an integer
    for (int lane = 0; lane < 8; ++lane) {
        to[lane] = int16_t((low + shift - shift)[lane]);
        to[lane + 8] = int16_t((high + shift - shift)[lane]);
    }
#endif
}

// Asks for halves that are needed soon. An address past the end does no harm, but it is not a pointer into the array, so it
// is computed as a number.
inline void prefetch_halves(const uint16_t* from, int64_t ahead) {
    __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(from) + uintptr_t(ahead) * sizeof *from));
}

// Sixteen floats: one register where there are such, otherwise two. Lanes do not meet, so bits are the same.
#if defined(__AVX512F__)
typedef __m512 F16;
inline F16 none16() { return _mm512_setzero_ps(); }
inline F16 load16(const float* from) { return _mm512_loadu_ps(from); }
inline void store16(float* to, F16 v) { _mm512_storeu_ps(to, v); }
inline F16 all16(float v) { return _mm512_set1_ps(v); }
inline F16 mul16(F16 a, F16 b) { return _mm512_mul_ps(a, b); }
inline F16 fma16(F16 a, F16 b, F16 c) { return _mm512_fmadd_ps(a, b, c); }
inline F16 load_halves16(const uint16_t* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
// Sixteen pairs of 16-bit integers, sixteen sums of 32 bits.
typedef __m512i Pairs16;
typedef __m512i Sums16;
inline Sums16 no_sums16() { return _mm512_setzero_si512(); }
inline Pairs16 load_pairs16(const int8_t* from) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
inline Pairs16 all_pairs16(const int16_t* pair) {
    int32_t both;
    __builtin_memcpy(&both, pair, sizeof both);
    return _mm512_set1_epi32(both);
}
inline Sums16 dot16(Sums16 sum, Pairs16 a, Pairs16 b) { return _mm512_dpwssd_epi32(sum, a, b); }
inline Sums16 add16(Sums16 a, Sums16 b) { return _mm512_add_epi32(a, b); }
inline F16 floats16(Sums16 sum) { return _mm512_cvtepi32_ps(sum); }
constexpr bool kWideLanes = true;
#else
struct F16 {
    F8 low, high;
};
inline F16 none16() { return {all8(0), all8(0)}; }
inline F16 load16(const float* from) { return {load8(from), load8(from + 8)}; }
inline void store16(float* to, F16 v) { store8(to, v.low), store8(to + 8, v.high); }
inline F16 all16(float v) { return {all8(v), all8(v)}; }
inline F16 mul16(F16 a, F16 b) { return {a.low * b.low, a.high * b.high}; }
inline F16 fma16(F16 a, F16 b, F16 c) { return {fma8(a.low, b.low, c.low), fma8(a.high, b.high, c.high)}; }
inline F16 load_halves16(const uint16_t* from) { return {load_halves8(from), load_halves8(from + 8)}; }
#if defined(__AVX2__)
struct Pairs16 {
    __m256i low, high;
};
typedef Pairs16 Sums16;
inline Sums16 no_sums16() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline __m256i load_pairs8(const int8_t* from) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
inline Pairs16 load_pairs16(const int8_t* from) { return {load_pairs8(from), load_pairs8(from + 16)}; }
inline Pairs16 all_pairs16(const int16_t* pair) {
    int32_t both;
    __builtin_memcpy(&both, pair, sizeof both);
    return {_mm256_set1_epi32(both), _mm256_set1_epi32(both)};
}
inline Sums16 dot16(Sums16 sum, Pairs16 a, Pairs16 b) {
    return {_mm256_add_epi32(sum.low, _mm256_madd_epi16(a.low, b.low)),
            _mm256_add_epi32(sum.high, _mm256_madd_epi16(a.high, b.high))};
}
inline Sums16 add16(Sums16 a, Sums16 b) { return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)}; }
inline F16 floats16(Sums16 sum) { return {_mm256_cvtepi32_ps(sum.low), _mm256_cvtepi32_ps(sum.high)}; }
#else
struct Pairs16 {
    int16_t at[16][2];
};
struct Sums16 {
    int32_t at[16];
};
inline Sums16 no_sums16() { return {}; }
inline Pairs16 load_pairs16(const int8_t* from) {
    Pairs16 pairs;
    for (int i = 0; i < 32; ++i) pairs.at[i / 2][i % 2] = from[i];
    return pairs;
}
inline Pairs16 all_pairs16(const int16_t* pair) {
    Pairs16 pairs;
    for (int i = 0; i < 32; ++i) pairs.at[i / 2][i % 2] = pair[i % 2];
    return pairs;
}
inline Sums16 dot16(Sums16 sum, const Pairs16& a, const Pairs16& b) {
    for (int i = 0; i < 16; ++i) sum.at[i] += a.at[i][0] * b.at[i][0] + a.at[i][1] * b.at[i][1];
    return sum;
}
inline Sums16 add16(Sums16 a, const Sums16& b) {
    for (int i = 0; i < 16; ++i) a.at[i] += b.at[i];
    return a;
}
inline F16 floats16(const Sums16& sum) {
    F16 v;
    for (int lane = 0; lane < 8; ++lane) v.low[lane] = float(sum.at[lane]), v.high[lane] = float(sum.at[lane + 8]);
    return v;
}
#endif
constexpr bool kWideLanes = false;
#endif

// The first `count` of eight floats; the rest is `fill`.
inline F8 load_some8(const float* from, int64_t count, float fill) {
    F8 v = all8(fill);
    for (int64_t lane = 0; lane < count; ++lane) v[lane] = from[lane];
    return v;
}

inline void store_some8(float* to, F8 v, int64_t count) {
    for (int64_t lane = 0; lane < count; ++lane) to[lane] = v[lane];
}

// Lanes are summed in halves: 4, 2, 1.
inline float sum8(F8 v) {
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

// e^x, relative error at most 1e-7 (8.3e-8 found at every 97th float within range); 0 below -87.3, NaN for NaN, no infinity: x is capped at 88.
// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by the first terms of its series, fitted at the ends (Cephes expf).
inline F8 exp8(F8 x) {
    const F8 low = all8(-87.33654f), high = all8(88.0f), shift = all8(12582912.0f);  // 1.5 * 2^23: rounds to an integer
    const I8 vanishes = x < low;
    x = x > high ? high : x;
    const F8 shifted = fma8(x, all8(1.44269504088896341f), shift), n = shifted - shift;
    F8 r = fma8(n, all8(-0.693359375f), x);
    r = fma8(n, all8(2.12194440e-4f), r);
    F8 p = all8(1.9875691500e-4f);
    p = fma8(p, r, all8(1.3981999507e-3f));
    p = fma8(p, r, all8(8.3334519073e-3f));
    p = fma8(p, r, all8(4.1665795894e-2f));
    p = fma8(p, r, all8(1.6666665459e-1f));
    p = fma8(p, r, all8(5.0000001201e-1f));
    p = fma8(p, r * r, r) + all8(1.0f);
    const F8 power = (F8)(((I8)shifted + 127) << 23);  // the low bits of `shifted` are n
    return vanishes ? all8(0.0f) : p * power;
}

}  // namespace
}  // namespace selfee
