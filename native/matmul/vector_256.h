// 256 bits: one row's block of 32 bytes in a register.  The words that AVX2 and AVX-VNNI have in common; how codes are
// multiplied and summed up is for vector_avx2.h and vector_avxvnni.h to say.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "blocks.h"

#define SELFEE_INLINE static inline __attribute__((always_inline))
#define SELFEE_INLINE_MEMBER inline __attribute__((always_inline))

namespace selfee {
namespace {

using Ints = __m256i;
using Floats = __m256;

constexpr int kHalves = 1;          // rows that share one register
constexpr int kLanes = 8 * kHalves;  // outputs computed together

// f(h) is the 32 bytes of row h.
template <class F>
SELFEE_INLINE Ints each_row(F f) { return f(0); }
SELFEE_INLINE Ints for_all_rows(__m256i one) { return one; }

SELFEE_INLINE Ints zero() { return _mm256_setzero_si256(); }
SELFEE_INLINE Ints fill_8(int value) { return _mm256_set1_epi8(char(value)); }
SELFEE_INLINE Ints and_(Ints a, Ints b) { return _mm256_and_si256(a, b); }
SELFEE_INLINE Ints or_(Ints a, Ints b) { return _mm256_or_si256(a, b); }
// 0xff in the bytes of a that have all bits of the mask.
SELFEE_INLINE Ints bytes_with_all(Ints a, Ints mask) { return _mm256_cmpeq_epi8(_mm256_and_si256(a, mask), mask); }
SELFEE_INLINE Ints add_32(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
SELFEE_INLINE Ints sub_32(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
template <int N>
SELFEE_INLINE Ints right_16(Ints a) { return _mm256_srli_epi16(a, N); }
template <int N>
SELFEE_INLINE Ints left_16(Ints a) { return _mm256_slli_epi16(a, N); }
template <int N>
SELFEE_INLINE Ints left_32(Ints a) { return _mm256_slli_epi32(a, N); }
// Shifts the upper 16 of every 32 bytes right by four bits; the lower 16 stay.
SELFEE_INLINE Ints upper_nibbles(Ints a) { return _mm256_srlv_epi32(a, _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4)); }
SELFEE_INLINE Ints shuffle_8(Ints a, Ints index) { return _mm256_shuffle_epi8(a, index); }
SELFEE_INLINE Ints multiply_32(Ints a, Ints b) { return _mm256_mullo_epi32(a, b); }
SELFEE_INLINE Ints multiply_pairs_16(Ints a, Ints b) { return _mm256_madd_epi16(a, b); }

SELFEE_INLINE Floats to_floats(Ints a) { return _mm256_cvtepi32_ps(a); }
SELFEE_INLINE Floats as_floats(Ints a) { return _mm256_castsi256_ps(a); }
SELFEE_INLINE Floats no_floats() { return _mm256_setzero_ps(); }
SELFEE_INLINE Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
SELFEE_INLINE Floats sub(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
SELFEE_INLINE Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
SELFEE_INLINE void store(float* to, Floats a) { _mm256_storeu_ps(to, a); }
// f(h) is eight halves of row group h.
template <class F>
SELFEE_INLINE Floats from_halves(F f) { return _mm256_cvtph_ps(f(0)); }

// Which codes a product meets: unsigned of at most 15 or 31, or signed bytes above -128 in x only.
enum class Codes { U2, U3, U4, U5, U6, S8 };

// Words of the packed layout (packed_tiles.h): a lane is a row, sixteen rows are two registers.
constexpr int kPanel = 4;  // tokens computed together: more sums do not fit into sixteen registers
// A line is loaded once and kept: compilers prefer to load it again for every use, and loads are what runs out first.
SELFEE_INLINE Ints line(const void* p) {
    Ints v = _mm256_loadu_si256(static_cast<const __m256i*>(p));
    asm("" : "+x"(v));
    return v;
}
// Compilers put off integer additions and add up in an order of their own, for which registers do not suffice.
SELFEE_INLINE Ints added_now(Ints sum) {
    asm("" : "+x"(sum));
    return sum;
}
SELFEE_INLINE Ints line_again(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
SELFEE_INLINE Ints every_32(const void* p) { return _mm256_set1_epi32(int32_t(load_u32(static_cast<const uint8_t*>(p)))); }
SELFEE_INLINE Floats halves(const void* p) { return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p))); }
SELFEE_INLINE Ints or_and(Ints a, Ints b, Ints mask) { return _mm256_or_si256(a, _mm256_and_si256(b, mask)); }
SELFEE_INLINE Ints quarter_offsets() { return _mm256_broadcastsi128_si256(_mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c)); }
SELFEE_INLINE Ints sub_8(Ints a, Ints b) { return _mm256_sub_epi8(a, b); }
SELFEE_INLINE Ints fill_32(int32_t value) { return _mm256_set1_epi32(value); }
template <int N>
SELFEE_INLINE Ints right_32(Ints a) { return _mm256_srli_epi32(a, N); }

// Byte j of every lane as the scale that plus_scaled() wants.
template <int j, bool is_signed>
SELFEE_INLINE Ints spread_byte(Ints bytes) {
    if constexpr (is_signed) return _mm256_srai_epi32(j == 3 ? bytes : _mm256_slli_epi32(bytes, 24 - 8 * j), 24);
    const Ints moved = j == 0 ? bytes : _mm256_srli_epi32(bytes, 8 * j);
    return j == 3 ? moved : _mm256_and_si256(moved, _mm256_set1_epi32(255));
}

template <bool wide>
SELFEE_INLINE Ints add_lanes(Ints a, Ints b) { return wide ? _mm256_add_epi32(a, b) : _mm256_add_epi16(a, b); }

// [a0 a1 | a2 a3], [b0 b1 | b2 b3] (64 bits each, | between 128-bit lanes) -> [a0+a1 b0+b1 | a2+a3 b2+b3]
template <bool wide>
SELFEE_INLINE Ints fold_64(Ints a, Ints b) {
    return add_lanes<wide>(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}

// The same with 32-bit pieces: [a0 a1 b0 b1 | ..], [c0 c1 d0 d1 | ..] -> [a b c d | ..]
template <bool wide>
SELFEE_INLINE Ints fold_32(Ints ab, Ints cd) {
    const __m256 x = _mm256_castsi256_ps(ab), y = _mm256_castsi256_ps(cd);
    return add_lanes<wide>(_mm256_castps_si256(_mm256_shuffle_ps(x, y, 0x88)),
                           _mm256_castps_si256(_mm256_shuffle_ps(x, y, 0xdd)));
}

template <bool wide>
SELFEE_INLINE Ints fold_128(Ints a, Ints b) {
    return add_lanes<wide>(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
}

// Sums of eight registers of 32-bit lanes: lane i is the sum of v[i].
SELFEE_INLINE Ints sum_each_32(const Ints* v) {
    const Ints low = fold_32<true>(fold_64<true>(v[0], v[1]), fold_64<true>(v[2], v[3]));
    const Ints high = fold_32<true>(fold_64<true>(v[4], v[5]), fold_64<true>(v[6], v[7]));
    return fold_128<true>(low, high);
}

// Sixteen f32 lanes, for weights that are floats themselves.
constexpr int kFloatRows = 2, kFloatTokens = 2;  // computed together: four sums of two registers
struct Lanes16 {
    __m256 low, high;
};

SELFEE_INLINE Lanes16 no_lanes() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
SELFEE_INLINE Lanes16 load_f32(const void* p) {
    const auto* f = static_cast<const float*>(p);
    return {_mm256_loadu_ps(f), _mm256_loadu_ps(f + 8)};
}
SELFEE_INLINE Lanes16 load_f16(const void* p) {
    const auto* v = static_cast<const __m128i*>(p);
    return {_mm256_cvtph_ps(_mm_loadu_si128(v)), _mm256_cvtph_ps(_mm_loadu_si128(v + 1))};
}
SELFEE_INLINE __m256 widen_bf16(__m128i v) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}
SELFEE_INLINE Lanes16 load_bf16(const void* p) {
    const auto* v = static_cast<const __m128i*>(p);
    return {widen_bf16(_mm_loadu_si128(v)), widen_bf16(_mm_loadu_si128(v + 1))};
}
SELFEE_INLINE Lanes16 fma(Lanes16 a, Lanes16 b, Lanes16 c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
SELFEE_INLINE float sum(Lanes16 a) {
    const __m256 eight = _mm256_add_ps(a.low, a.high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

}  // namespace
}  // namespace selfee
