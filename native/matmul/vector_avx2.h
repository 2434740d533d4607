// AVX2: the words of vector_256.h, and products added up in 16 bits as long as they fit.
#pragma once
#include "matmul/vector_256.h"

namespace selfee {
namespace {

constexpr int kSignedBias = 0;           // what is added to signed codes before the product
constexpr bool kStartsAnywhere = false;  // sums begin at 0: they are 16 bits wide
constexpr int kFoldsFrom = kPanel + 1;   // tokens for which looking up scale * code pays: never

// sum + scale * (codes . x), 32-bit lanes; codes unsigned, at most 63, so that pairs fit into 16 bits.
SELFEE_INLINE Ints add_scaled_product(Ints sum, Ints codes, Ints x, Ints scale) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, x), scale));
}

struct Weights {
    Ints magnitude, sign;
};

template <Codes kind>
SELFEE_INLINE Weights weights(Ints codes) {
    return {kind == Codes::S8 ? _mm256_abs_epi8(codes) : codes, codes};
}

// Partial sums of 32 products: 16 lanes of 16 bits for U4 and U5, 8 of 32 bits for S8.
template <Codes kind>
SELFEE_INLINE Ints product(Weights w, Ints x) {
    if constexpr (kind != Codes::S8) return _mm256_maddubs_epi16(w.magnitude, x);
    return _mm256_madd_epi16(_mm256_maddubs_epi16(w.magnitude, _mm256_sign_epi8(x, w.sign)), _mm256_set1_epi16(1));
}

// How many words of four codes can be added up in 16 bits: a lane of a word is at most 2 * largest code * 128.
template <Codes kind>
constexpr int kNarrowWords = kind == Codes::U6 ? 2 : kind == Codes::U5 ? 4 : 8;

// What is summed up of one group of columns; x has four codes a lane. Products are added up in 16 bits as long as they fit,
// or until the last word of the group.
template <Codes kind>
struct GroupSum {
    Ints sum, narrow;
    int words;
    SELFEE_INLINE_MEMBER void start(Ints) {
        sum = narrow = _mm256_setzero_si256();
        words = 0;
    }
    SELFEE_INLINE_MEMBER void add(Ints codes, Ints x, bool last) {
        if constexpr (kind == Codes::S8) {
            const Ints w = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
            sum = added_now(_mm256_add_epi32(sum, product<kind>(weights<kind>(w), x)));
            return;
        }
        const Ints both = _mm256_maddubs_epi16(codes, x);
        narrow = words == 0 ? both : added_now(_mm256_add_epi16(narrow, both));
        if (++words < kNarrowWords<kind> || last) return;
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(narrow, _mm256_set1_epi16(1)));
        words = 0;
    }
    SELFEE_INLINE_MEMBER Ints total() const {
        if (words == 0) return sum;
        return _mm256_add_epi32(sum, _mm256_madd_epi16(narrow, _mm256_set1_epi16(1)));
    }
    SELFEE_INLINE_MEMBER Ints plus_scaled(Ints to, Ints scale) const {
        return added_now(_mm256_add_epi32(to, _mm256_mullo_epi32(total(), scale)));
    }
};

// sum + products of 16-bit pairs.
SELFEE_INLINE Ints add_pairs(Ints sum, Ints a, Ints b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }

// Sums of eight products.  In 16 bits as long as they fit: 2 * 15 * 127 doubles three times, 2 * 31 * 127 twice.
template <Codes kind>
SELFEE_INLINE Ints sum_each(const Ints* v) {
    if constexpr (kind == Codes::S8) return sum_each_32(v);
    const Ints ones = _mm256_set1_epi16(1);
    const Ints low = fold_32<false>(fold_64<false>(v[0], v[1]), fold_64<false>(v[2], v[3]));
    const Ints high = fold_32<false>(fold_64<false>(v[4], v[5]), fold_64<false>(v[6], v[7]));
    if constexpr (kind == Codes::U4) return _mm256_madd_epi16(fold_128<false>(low, high), ones);
    return fold_128<true>(_mm256_madd_epi16(low, ones), _mm256_madd_epi16(high, ones));
}

}  // namespace
}  // namespace selfee
