// How each block type is unpacked into registers and multiplied.  Written once in the words of vector_avx2.h,
// vector_avxvnni.h or vector_avx512.h; the meaning is unpack.h's, and tests hold all to the same bits.
//
// A format's products<T>() computes, for one register of rows and T tokens, partial sums v[0..T) of codes * x (for
// k-quants already times the sub-block scales) and, where the type has minima, m[0..T) of minima * sums of x.
#pragma once
#include "blocks.h"
#include "matmul/activations.h"

namespace selfee {
namespace {

using BlockPointers = const uint8_t*[kHalves];

SELFEE_INLINE __m256i load_256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
SELFEE_INLINE __m128i load_128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

// The 32 bytes at `offset` of each row's block.
SELFEE_INLINE Ints rows_32(const BlockPointers& block, size_t offset) {
    return each_row([&](int h) { return load_256(block[h] + offset); });
}

// 16 bytes of nibbles -> 32 codes: low nibbles first.
SELFEE_INLINE Ints rows_nibbles(const BlockPointers& block, size_t offset) {
    const Ints twice = each_row([&](int h) { return _mm256_broadcastsi128_si256(load_128(block[h] + offset)); });
    return and_(upper_nibbles(twice), fill_8(15));
}

// 32 bits -> 16 in the bytes whose bit is set, 0 elsewhere.
SELFEE_INLINE Ints rows_fifth_bits(const BlockPointers& block, size_t offset) {
    const Ints word = each_row([&](int h) { return _mm256_set1_epi32(int32_t(load_u32(block[h] + offset))); });
    const Ints spread = shuffle_8(word, for_all_rows(_mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,
                                                                      2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3)));
    return and_(bytes_with_all(spread, for_all_rows(_mm256_set1_epi64x(int64_t(0x8040201008040201ull)))), fill_8(16));
}

// 32-value types: `offset` is what unsigned codes are too large by.
template <Codes kind>
struct Format32 {
    static constexpr int values = 32;
    static constexpr bool has_sub_minima = false;
    template <int T>
    SELFEE_INLINE void multiply(Ints codes, const ActivationView& a, int64_t t0, int64_t b, Ints* v) {
        const Weights w = weights<kind>(codes);
        const int8_t* x = a.codes + t0 * a.cols + 32 * b;
        for (int t = 0; t < T; ++t) v[t] = product<kind>(w, for_all_rows(load_256(x + t * a.cols)));
    }
    SELFEE_INLINE Ints sums(const Ints* v) { return sum_each<kind>(v); }
};

struct FormatQ4_0 : Format32<Codes::U4> {
    using Block = BlockQ4_0;
    static constexpr int offset = 8;
    template <int T>
    SELFEE_INLINE void products(const BlockPointers& block, const ActivationView& a, int64_t t0, int64_t b, Ints* v, Ints*) {
        multiply<T>(rows_nibbles(block, offsetof(Block, qs)), a, t0, b, v);
    }
};

struct FormatQ4_1 : Format32<Codes::U4> {
    using Block = BlockQ4_1;
    static constexpr int offset = 0;
    template <int T>
    SELFEE_INLINE void products(const BlockPointers& block, const ActivationView& a, int64_t t0, int64_t b, Ints* v, Ints*) {
        multiply<T>(rows_nibbles(block, offsetof(Block, qs)), a, t0, b, v);
    }
};

template <class B, int kOffset>
struct FormatQ5 : Format32<Codes::U5> {
    using Block = B;
    static constexpr int offset = kOffset;
    template <int T>
    SELFEE_INLINE void products(const BlockPointers& block, const ActivationView& a, int64_t t0, int64_t b, Ints* v, Ints*) {
        multiply<T>(or_(rows_nibbles(block, offsetof(Block, qs)), rows_fifth_bits(block, offsetof(Block, qh))), a, t0, b, v);
    }
};

using FormatQ5_0 = FormatQ5<BlockQ5_0, 16>;
using FormatQ5_1 = FormatQ5<BlockQ5_1, 0>;

struct FormatQ8_0 : Format32<Codes::S8> {
    using Block = BlockQ8_0;
    static constexpr int offset = kSignedBias;
    template <int T>
    SELFEE_INLINE void products(const BlockPointers& block, const ActivationView& a, int64_t t0, int64_t b, Ints* v, Ints*) {
        multiply<T>(rows_32(block, offsetof(Block, qs)), a, t0, b, v);
    }
};

// K-quants.  Scales are 16-bit numbers, one for each 16 values: those of even sub-blocks in the lower 128-bit lane of a
// row, of odd ones in the upper, so that one byte shuffle spreads the two scales of 32 values over their products.
struct Format256 {
    static constexpr int values = 256, offset = 0;
    SELFEE_INLINE Ints sums(const Ints* v) { return sum_each_32(v); }
    SELFEE_INLINE Ints spread_scale(Ints scales, int group) {
        return shuffle_8(scales, for_all_rows(_mm256_set1_epi16(int16_t(0x0100 + 0x0202 * group))));
    }
    // Adds the products of the 32 values of `group`.
    template <int T>
    SELFEE_INLINE void add_group(int group, Ints codes, Ints scales, const int8_t* x, int64_t stride, Ints* v) {
        const Ints scale = spread_scale(scales, group);
        for (int t = 0; t < T; ++t)
            v[t] = add_scaled_product(v[t], codes, for_all_rows(load_256(x + t * stride + 32 * group)), scale);
    }
    // minima * sums of 16 x, in 8 lanes a row.
    SELFEE_INLINE Ints times_bsums(Ints minima, const ActivationView& a, int64_t t, int64_t b) {
        return multiply_pairs_16(minima, for_all_rows(load_256(a.bsums + t * (a.cols / 16) + 16 * b)));
    }
    SELFEE_INLINE const int8_t* tokens(const ActivationView& a, int64_t t0, int64_t b) {
        return a.codes + t0 * a.cols + 256 * b;
    }
};

// Even bytes to the front, odd ones behind.
SELFEE_INLINE __m128i even_then_odd(__m128i bytes) {
    return _mm_shuffle_epi8(bytes, _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
}

struct FormatQ2_K : Format256 {
    using Block = BlockQ2_K;
    static constexpr bool has_sub_minima = true;
    template <int T>
    SELFEE_INLINE void products(const BlockPointers& block, const ActivationView& a, int64_t t0, int64_t b, Ints* v, Ints* m) {
        const __m128i low = _mm_set1_epi8(15);
        const Ints scales = each_row([&](int h) {
            return _mm256_cvtepu8_epi16(even_then_odd(_mm_and_si128(load_128(block[h]), low)));
        });
        const Ints minima = each_row([&](int h) {
            return _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(load_128(block[h]), 4), low));
        });
        for (int t = 0; t < T; ++t) {
            v[t] = zero();
            m[t] = times_bsums(minima, a, t0 + t, b);
        }
        const int8_t* x = tokens(a, t0, b);
        for (int half = 0; half < 2; ++half) {
            const Ints qs = rows_32(block, offsetof(Block, qs) + size_t(32 * half));
            add_group<T>(4 * half, and_(qs, fill_8(3)), scales, x, a.cols, v);
            add_group<T>(4 * half + 1, and_(right_16<2>(qs), fill_8(3)), scales, x, a.cols, v);
            add_group<T>(4 * half + 2, and_(right_16<4>(qs), fill_8(3)), scales, x, a.cols, v);
            add_group<T>(4 * half + 3, and_(right_16<6>(qs), fill_8(3)), scales, x, a.cols, v);
        }
    }
};

struct FormatQ3_K : Format256 {
    using Block = BlockQ3_K;
    static constexpr bool has_sub_minima = false;
    static __m128i scales_of(const uint8_t* block) {
        const uint8_t* s = block + offsetof(Block, scales);
        const uint32_t a = load_u32(s), b = load_u32(s + 4), c = load_u32(s + 8), low = 0x0f0f0f0fu, two = 0x03030303u;
        const __m128i packed = _mm_setr_epi32(int32_t((a & low) | (c & two) << 4), int32_t((b & low) | (c >> 2 & two) << 4),
                                              int32_t((a >> 4 & low) | (c >> 4 & two) << 4),
                                              int32_t((b >> 4 & low) | (c >> 6 & two) << 4));
        return _mm_sub_epi8(packed, _mm_set1_epi8(32));
    }
    // Two low bits, and 4 where the high bit is set; what is 4 too much is taken off through bsums.
    template <int T, int group>
    SELFEE_INLINE void add_codes(Ints qs, Ints high, Ints scales, const int8_t* x, int64_t stride, Ints* v) {
        const Ints third = and_(group < 3 ? left_16<(group < 3 ? 2 - group % 3 : 0)>(high) : right_16<(group < 3 ? 0 : group - 2)>(high), fill_8(4));
        add_group<T>(group, or_(and_(right_16<2 * (group % 4)>(qs), fill_8(3)), third), scales, x, stride, v);
    }
    template <int T>
    SELFEE_INLINE void products(const BlockPointers& block, const ActivationView& a, int64_t t0, int64_t b, Ints* v, Ints*) {
        const Ints ordered = each_row([&](int h) { return _mm256_cvtepi8_epi16(scales_of(block[h])); });
        const Ints scales = each_row([&](int h) { return _mm256_cvtepi8_epi16(even_then_odd(scales_of(block[h]))); });
        for (int t = 0; t < T; ++t) v[t] = sub_32(zero(), left_32<2>(times_bsums(ordered, a, t0 + t, b)));
        const int8_t* x = tokens(a, t0, b);
        const Ints high = rows_32(block, offsetof(Block, hmask));
        const Ints first = rows_32(block, offsetof(Block, qs)), second = rows_32(block, offsetof(Block, qs) + 32);
        add_codes<T, 0>(first, high, scales, x, a.cols, v);
        add_codes<T, 1>(first, high, scales, x, a.cols, v);
        add_codes<T, 2>(first, high, scales, x, a.cols, v);
        add_codes<T, 3>(first, high, scales, x, a.cols, v);
        add_codes<T, 4>(second, high, scales, x, a.cols, v);
        add_codes<T, 5>(second, high, scales, x, a.cols, v);
        add_codes<T, 6>(second, high, scales, x, a.cols, v);
        add_codes<T, 7>(second, high, scales, x, a.cols, v);
    }
};

// Q4_K and Q5_K share scales: eight of 6 bits and eight minima of 6 bits in 12 bytes.
struct FormatQ45_K : Format256 {
    static constexpr bool has_sub_minima = true;
    struct Scales {
        uint64_t scales, minima;
    };
    SELFEE_INLINE Scales scales_of(const uint8_t* s) {
        const uint32_t a = load_u32(s), b = load_u32(s + 4), c = load_u32(s + 8);
        const uint32_t low = 0x0f0f0f0fu, two = 0x03030303u, six = 0x3f3f3f3fu;
        const uint32_t scales = (c & low) | (a >> 6 & two) << 4, minima = (c >> 4 & low) | (b >> 6 & two) << 4;
        return {(a & six) | uint64_t(scales) << 32, (b & six) | uint64_t(minima) << 32};
    }
    // One scale for 32 values: the same in both lanes.
    template <int T>
    SELFEE_INLINE Ints begin(const BlockPointers& block, size_t scales_at, const ActivationView& a, int64_t t0, int64_t b,
                             Ints* v, Ints* m) {
        Scales s[kHalves];
        for (int h = 0; h < kHalves; ++h) s[h] = scales_of(block[h] + scales_at);
        const Ints minima = each_row([&](int h) {
            const __m128i bytes = _mm_cvtsi64_si128(int64_t(s[h].minima));
            return _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(bytes, bytes));
        });
        for (int t = 0; t < T; ++t) {
            v[t] = zero();
            m[t] = times_bsums(minima, a, t0 + t, b);
        }
        return each_row([&](int h) {
            return _mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(_mm_cvtsi64_si128(int64_t(s[h].scales))));
        });
    }
};

struct FormatQ4_K : FormatQ45_K {
    using Block = BlockQ4_K;
    template <int T>
    SELFEE_INLINE void products(const BlockPointers& block, const ActivationView& a, int64_t t0, int64_t b, Ints* v, Ints* m) {
        const Ints scales = begin<T>(block, offsetof(Block, scales), a, t0, b, v, m);
        const int8_t* x = tokens(a, t0, b);
        for (int pair = 0; pair < 4; ++pair) {
            const Ints qs = rows_32(block, offsetof(Block, qs) + size_t(32 * pair));
            add_group<T>(2 * pair, and_(qs, fill_8(15)), scales, x, a.cols, v);
            add_group<T>(2 * pair + 1, and_(right_16<4>(qs), fill_8(15)), scales, x, a.cols, v);
        }
    }
};

struct FormatQ5_K : FormatQ45_K {
    using Block = BlockQ5_K;
    template <int T, int pair>
    SELFEE_INLINE void add_pair(const BlockPointers& block, Ints high, Ints scales, const int8_t* x, int64_t stride, Ints* v) {
        const Ints qs = rows_32(block, offsetof(Block, qs) + size_t(32 * pair));
        // Bits 2 pair and 2 pair + 1 of `high` become bit 4.
        const Ints even = pair < 2 ? left_16<(pair < 2 ? 4 - 2 * pair : 0)>(high) : right_16<(pair < 2 ? 0 : 2 * pair - 4)>(high);
        const Ints odd = pair < 2 ? left_16<(pair < 2 ? 3 - 2 * pair : 0)>(high) : right_16<(pair < 2 ? 0 : 2 * pair - 3)>(high);
        add_group<T>(2 * pair, or_(and_(qs, fill_8(15)), and_(even, fill_8(16))), scales, x, stride, v);
        add_group<T>(2 * pair + 1, or_(and_(right_16<4>(qs), fill_8(15)), and_(odd, fill_8(16))), scales, x, stride, v);
    }
    template <int T>
    SELFEE_INLINE void products(const BlockPointers& block, const ActivationView& a, int64_t t0, int64_t b, Ints* v, Ints* m) {
        const Ints scales = begin<T>(block, offsetof(Block, scales), a, t0, b, v, m);
        const Ints high = rows_32(block, offsetof(Block, qh));
        const int8_t* x = tokens(a, t0, b);
        add_pair<T, 0>(block, high, scales, x, a.cols, v);
        add_pair<T, 1>(block, high, scales, x, a.cols, v);
        add_pair<T, 2>(block, high, scales, x, a.cols, v);
        add_pair<T, 3>(block, high, scales, x, a.cols, v);
    }
};

struct FormatQ6_K : Format256 {
    using Block = BlockQ6_K;
    static constexpr bool has_sub_minima = false;
    template <int T>
    SELFEE_INLINE void products(const BlockPointers& block, const ActivationView& a, int64_t t0, int64_t b, Ints* v, Ints*) {
        const auto bytes = [&](int h) { return load_128(block[h] + offsetof(Block, scales)); };
        const Ints ordered = each_row([&](int h) { return _mm256_cvtepi8_epi16(bytes(h)); });
        const Ints scales = each_row([&](int h) { return _mm256_cvtepi8_epi16(even_then_odd(bytes(h))); });
        for (int t = 0; t < T; ++t) v[t] = sub_32(zero(), left_32<5>(times_bsums(ordered, a, t0 + t, b)));
        const int8_t* x = tokens(a, t0, b);
        const Ints low = fill_8(15), two = fill_8(0x30);
        for (int half = 0; half < 2; ++half) {
            const Ints first = rows_32(block, size_t(64 * half)), second = rows_32(block, size_t(64 * half + 32));
            const Ints high = rows_32(block, offsetof(Block, qh) + size_t(32 * half));
            add_group<T>(4 * half, or_(and_(first, low), and_(left_16<4>(high), two)), scales, x, a.cols, v);
            add_group<T>(4 * half + 1, or_(and_(second, low), and_(left_16<2>(high), two)), scales, x, a.cols, v);
            add_group<T>(4 * half + 2, or_(and_(right_16<4>(first), low), and_(high, two)), scales, x, a.cols, v);
            add_group<T>(4 * half + 3, or_(and_(right_16<4>(second), low), and_(right_16<2>(high), two)), scales, x, a.cols, v);
        }
    }
};

}  // namespace
}  // namespace selfee
