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

inline F8 load_bytes8(const int8_t* from) {
#if defined(__AVX2__)
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#else
    F8 v;
    for (int lane = 0; lane < 8; ++lane) v[lane] = float(from[lane]);
    return v;
#endif
}

// Asks for what is needed soon. An address past the end does no harm, but it is not a pointer into the array, so it is
// computed as a number.
template <class T>
inline void prefetch(const T* from, int64_t ahead) {
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
inline F16 load_bytes16(const int8_t* from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
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
inline F16 load_bytes16(const int8_t* from) { return {load_bytes8(from), load_bytes8(from + 8)}; }
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
