// AVX-512 with VNNI: the blocks of two rows side by side in a register; otherwise the words of vector_256.h
// and vector_avxvnni.h.
// With SELFEE_EMULATE_AVX512 the same source runs on any x86 machine through SIMDe: slow, but the same integers.
#pragma once
#ifdef SELFEE_EMULATE_AVX512
#include "matmul/emulated_avx512.h"
#else
#include <immintrin.h>
#endif

#include <cstddef>
#include <cstdint>

#include "blocks.h"

#define SELFEE_INLINE static inline __attribute__((always_inline))
#define SELFEE_INLINE_MEMBER inline __attribute__((always_inline))

namespace selfee {
namespace {

using Ints = __m512i;
using Floats = __m512;

constexpr int kHalves = 2;           // rows that share one register
constexpr int kLanes = 8 * kHalves;  // outputs computed together
constexpr int kSignedBias = 128;     // what is added to signed codes before the product: vpdpbusd wants unsigned ones

// f(h) is the 32 bytes of row h.
template <class F>
SELFEE_INLINE Ints each_row(F f) { return _mm512_inserti64x4(_mm512_castsi256_si512(f(0)), f(1), 1); }
SELFEE_INLINE Ints for_all_rows(__m256i one) { return _mm512_broadcast_i64x4(one); }

SELFEE_INLINE Ints zero() { return _mm512_setzero_si512(); }
SELFEE_INLINE Ints fill_8(int value) { return _mm512_set1_epi8(char(value)); }
SELFEE_INLINE Ints and_(Ints a, Ints b) { return _mm512_and_si512(a, b); }
SELFEE_INLINE Ints or_(Ints a, Ints b) { return _mm512_or_si512(a, b); }
// 0xff in the bytes of a that have all bits of the mask.
SELFEE_INLINE Ints bytes_with_all(Ints a, Ints mask) {
    return _mm512_movm_epi8(_mm512_cmpeq_epi8_mask(_mm512_and_si512(a, mask), mask));
}
SELFEE_INLINE Ints add_32(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
SELFEE_INLINE Ints sub_32(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
template <int N>
SELFEE_INLINE Ints right_16(Ints a) { return _mm512_srli_epi16(a, N); }
template <int N>
SELFEE_INLINE Ints left_16(Ints a) { return _mm512_slli_epi16(a, N); }
template <int N>
SELFEE_INLINE Ints left_32(Ints a) { return _mm512_slli_epi32(a, N); }
// Shifts the upper 16 of every 32 bytes right by four bits; the lower 16 stay.
SELFEE_INLINE Ints upper_nibbles(Ints a) {
    return _mm512_srlv_epi32(a, for_all_rows(_mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4)));
}
SELFEE_INLINE Ints shuffle_8(Ints a, Ints index) { return _mm512_shuffle_epi8(a, index); }
SELFEE_INLINE Ints multiply_32(Ints a, Ints b) { return _mm512_mullo_epi32(a, b); }
SELFEE_INLINE Ints multiply_pairs_16(Ints a, Ints b) { return _mm512_madd_epi16(a, b); }

// sum + scale * (codes . x), 32-bit lanes; codes unsigned, at most 63, so that pairs fit into 16 bits.
SELFEE_INLINE Ints add_scaled_product(Ints sum, Ints codes, Ints x, Ints scale) {
    return _mm512_dpwssd_epi32(sum, _mm512_maddubs_epi16(codes, x), scale);
}

SELFEE_INLINE Floats to_floats(Ints a) { return _mm512_cvtepi32_ps(a); }
SELFEE_INLINE Floats as_floats(Ints a) { return _mm512_castsi512_ps(a); }
SELFEE_INLINE Floats no_floats() { return _mm512_setzero_ps(); }
SELFEE_INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
SELFEE_INLINE Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
SELFEE_INLINE Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
SELFEE_INLINE void store(float* to, Floats a) { _mm512_storeu_ps(to, a); }
// f(h) is eight halves of row group h.
template <class F>
SELFEE_INLINE Floats from_halves(F f) { return _mm512_cvtph_ps(_mm256_set_m128i(f(1), f(0))); }

enum class Codes { U2, U3, U4, U5, U6, S8 };

struct Weights {
    Ints unsigned_codes;
};

template <Codes kind>
SELFEE_INLINE Weights weights(Ints codes) {
    return {kind == Codes::S8 ? _mm512_xor_si512(codes, fill_8(kSignedBias)) : codes};
}

// Partial sums of 32 products a row, in 8 lanes of 32 bits.
template <Codes kind>
SELFEE_INLINE Ints product(Weights w, Ints x) { return _mm512_dpbusd_epi32(zero(), w.unsigned_codes, x); }

// Words of the packed layout (packed_tiles.h): a lane is a row, sixteen rows are one register.
constexpr int kPanel = 8;             // tokens computed together: their sums are 24 of 32 registers
constexpr bool kStartsAnywhere = true;  // sums may begin with what unsigned codes are too large by
constexpr int kFoldsFrom = 3;           // tokens for which looking up scale * code pays
// A line is loaded once and kept: compilers prefer to load it again for every use, and loads are what runs out first.
SELFEE_INLINE Ints line(const void* p) {
    Ints v = _mm512_loadu_si512(p);
#ifndef SELFEE_EMULATE_AVX512
    asm("" : "+v"(v));
#endif
    return v;
}
// Compilers put off integer additions and add up in an order of their own, for which registers do not suffice.
SELFEE_INLINE Ints added_now(Ints sum) {
#ifndef SELFEE_EMULATE_AVX512
    asm("" : "+v"(sum));
#endif
    return sum;
}
SELFEE_INLINE Ints line_again(const void* p) { return _mm512_loadu_si512(p); }
SELFEE_INLINE Ints every_32(const void* p) { return _mm512_set1_epi32(int32_t(load_u32(static_cast<const uint8_t*>(p)))); }
SELFEE_INLINE Floats halves(const void* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p))); }
// a | (b & mask)
SELFEE_INLINE Ints or_and(Ints a, Ints b, Ints mask) { return _mm512_ternarylogic_epi32(a, b, mask, 0xf8); }
SELFEE_INLINE Ints quarter_offsets() { return _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c)); }
SELFEE_INLINE Ints sub_8(Ints a, Ints b) { return _mm512_sub_epi8(a, b); }
SELFEE_INLINE Ints fill_32(int32_t value) { return _mm512_set1_epi32(value); }
template <int N>
SELFEE_INLINE Ints right_32(Ints a) { return _mm512_srli_epi32(a, N); }

// What is summed up of one group of columns; x has four codes a lane.
template <Codes kind>
struct GroupSum {
    Ints sum;
    SELFEE_INLINE_MEMBER void start(Ints value) { sum = value; }
    SELFEE_INLINE_MEMBER void add(Ints codes, Ints x, bool) { sum = _mm512_dpbusd_epi32(sum, codes, x); }
    SELFEE_INLINE_MEMBER Ints total() const { return sum; }
    SELFEE_INLINE_MEMBER Ints plus_scaled(Ints to, Ints scale) const { return added_now(_mm512_add_epi32(to, _mm512_mullo_epi32(sum, scale))); }
};

// Byte j of every lane as the scale that plus_scaled() wants.
template <int j, bool is_signed>
SELFEE_INLINE Ints spread_byte(Ints bytes) {
    if constexpr (is_signed) return _mm512_srai_epi32(j == 3 ? bytes : _mm512_slli_epi32(bytes, 24 - 8 * j), 24);
    const Ints moved = j == 0 ? bytes : _mm512_srli_epi32(bytes, 8 * j);
    return j == 3 ? moved : _mm512_and_si512(moved, _mm512_set1_epi32(255));
}

// sum + products of 16-bit pairs.
SELFEE_INLINE Ints add_pairs(Ints sum, Ints a, Ints b) { return _mm512_dpwssd_epi32(sum, a, b); }

// [a0 a1 | a2 a3 ..], [b0 b1 | b2 b3 ..] (64 bits each, | between 128-bit lanes) -> [a0+a1 b0+b1 | a2+a3 b2+b3 ..]
SELFEE_INLINE Ints fold_64(Ints a, Ints b) {
    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

// The same with 32-bit pieces: [a0 a1 b0 b1 | ..], [c0 c1 d0 d1 | ..] -> [a b c d | ..]
SELFEE_INLINE Ints fold_32(Ints ab, Ints cd) {
    const __m512 x = _mm512_castsi512_ps(ab), y = _mm512_castsi512_ps(cd);
    return _mm512_add_epi32(_mm512_castps_si512(_mm512_shuffle_ps(x, y, 0x88)),
                            _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0xdd)));
}

// Sums of eight registers, row by row: lane 8 h + i is the sum of row h of v[i].
SELFEE_INLINE Ints sum_each_32(const Ints* v) {
    const Ints low = fold_32(fold_64(v[0], v[1]), fold_64(v[2], v[3]));
    const Ints high = fold_32(fold_64(v[4], v[5]), fold_64(v[6], v[7]));
    const Ints sums = _mm512_add_epi32(_mm512_shuffle_i32x4(low, high, 0x88), _mm512_shuffle_i32x4(low, high, 0xdd));
    return _mm512_shuffle_i32x4(sums, sums, 0xd8);  // low and high of row 0, then of row 1
}

template <Codes kind>
SELFEE_INLINE Ints sum_each(const Ints* v) { return sum_each_32(v); }

// Sixteen f32 lanes, for weights that are floats themselves.
using Lanes16 = __m512;
constexpr int kFloatRows = 4, kFloatTokens = 4;  // computed together: sixteen sums

SELFEE_INLINE Lanes16 no_lanes() { return _mm512_setzero_ps(); }
SELFEE_INLINE Lanes16 load_f32(const void* p) { return _mm512_loadu_ps(static_cast<const float*>(p)); }
SELFEE_INLINE Lanes16 load_f16(const void* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
SELFEE_INLINE Lanes16 load_bf16(const void* p) {
    const __m256i v = _mm256_loadu_si256(static_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}
SELFEE_INLINE Lanes16 fma(Lanes16 a, Lanes16 b, Lanes16 c) { return _mm512_fmadd_ps(a, b, c); }
SELFEE_INLINE float sum(Lanes16 a) {
    const __m256 low = _mm512_castps512_ps256(a);
    const __m256 eight = _mm256_add_ps(low, _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1)));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

}  // namespace
}  // namespace selfee
