// AVX-VNNI: the words of vector_256.h, and products of unsigned and signed bytes added up in 32 bits, four a lane, by one
// instruction.  It does not saturate, so nothing depends on how large the codes are.
// With SELFEE_EMULATE_AVXVNNI the same source runs on any machine with AVX2: slow, but the same integers.
#pragma once
#include "matmul/vector_256.h"
#ifdef SELFEE_EMULATE_AVXVNNI
#include "matmul/emulated_avxvnni.h"
#endif

namespace selfee {
namespace {

constexpr int kSignedBias = 128;        // what is added to signed codes before the product: vpdpbusd wants unsigned ones
constexpr bool kStartsAnywhere = true;  // sums may begin with what unsigned codes are too large by
// Tokens for which looking up scale * code pays: never.  It leaves each token one chain of 64 products that wait for each
// other, and four chains do not fill two multipliers of four or five cycles.
constexpr int kFoldsFrom = kPanel + 1;

// sum + products of four unsigned bytes of codes and four signed ones of x in each lane
SELFEE_INLINE Ints add_products(Ints sum, Ints codes, Ints x) { return _mm256_dpbusd_avx_epi32(sum, codes, x); }
// sum + products of 16-bit pairs.
SELFEE_INLINE Ints add_pairs(Ints sum, Ints a, Ints b) { return _mm256_dpwssd_avx_epi32(sum, a, b); }

// sum + scale * (codes . x), 32-bit lanes; codes unsigned, at most 63, so that pairs fit into 16 bits.
SELFEE_INLINE Ints add_scaled_product(Ints sum, Ints codes, Ints x, Ints scale) {
    return add_pairs(sum, _mm256_maddubs_epi16(codes, x), scale);
}

struct Weights {
    Ints unsigned_codes;
};

template <Codes kind>
SELFEE_INLINE Weights weights(Ints codes) {
    return {kind == Codes::S8 ? _mm256_xor_si256(codes, fill_8(kSignedBias)) : codes};
}

// Partial sums of 32 products, in 8 lanes of 32 bits.
template <Codes kind>
SELFEE_INLINE Ints product(Weights w, Ints x) { return add_products(zero(), w.unsigned_codes, x); }

template <Codes kind>
SELFEE_INLINE Ints sum_each(const Ints* v) { return sum_each_32(v); }

// What is summed up of one group of columns; x has four codes a lane.
template <Codes kind>
struct GroupSum {
    Ints sum;
    SELFEE_INLINE_MEMBER void start(Ints value) { sum = value; }
    SELFEE_INLINE_MEMBER void add(Ints codes, Ints x, bool) { sum = add_products(sum, codes, x); }
    SELFEE_INLINE_MEMBER Ints total() const { return sum; }
    SELFEE_INLINE_MEMBER Ints plus_scaled(Ints to, Ints scale) const {
        return added_now(add_32(to, multiply_32(sum, scale)));
    }
};

}  // namespace
}  // namespace selfee
