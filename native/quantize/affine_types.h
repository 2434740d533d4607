// Super-blocks of types with a minimum, Q2_K, Q4_K and Q5_K: searches in lanes, then one block after another.
//
// L names the lane types of an instruction set: L::Affine, L::Symmetric, L::Moving and L::Positive for the searches.
#pragma once
#include <type_traits>

#include "matmul/unpack.h"
#include "quantize/pack.h"
#include "quantize/parts.h"

namespace selfee {
namespace {

template <class Block> struct AffineType;  // values of a sub-block, largest code and scale, the grid of today's search
template <> struct AffineType<BlockQ2_K> {
    static constexpr int kWidth = 16, kTop = 3, kScaleTop = 15;
    static constexpr bool kAbsolute = true;
    static constexpr AffineGrid kGrid = {-0.5f, 0.1f, 15};
};
template <> struct AffineType<BlockQ4_K> {
    static constexpr int kWidth = 32, kTop = 15, kScaleTop = 63;
    static constexpr bool kAbsolute = false;
    static constexpr AffineGrid kGrid = {-1.0f, 0.1f, 20};
};
template <> struct AffineType<BlockQ5_K> {
    static constexpr int kWidth = 32, kTop = 31, kScaleTop = 63;
    static constexpr bool kAbsolute = false;
    static constexpr AffineGrid kGrid = {-0.5f, 0.1f, 15};
};
// Today's weights without an importance matrix: |x|, and for sub-blocks of 32 the root of their mean square more.
template <class F, int N>
SELFEE_INLINE void weights_of_magnitudes(const F* x, F* w) {
    F base = F::all(0);
    if (N == 32) {
        for (int i = 0; i < N; ++i) base = base + x[i] * x[i];
        base = root(base / F::all(32));
    }
    for (int i = 0; i < N; ++i) w[i] = N == 32 ? base + magnitude(x[i]) : magnitude(x[i]);
}

template <class F, class Block>
void search_current(const Run& run, Parts& parts) {
    using T = AffineType<Block>;
    constexpr int N = T::kWidth;
    F x[N], w[N];
    for (int64_t at = 0; at < run.count * (256 / N); at += F::kLanes) {
        load_elements(run.x + at * N, N, x);
        weights_of_magnitudes<F, N>(x, w);
        store_fit(search_affine<T::kAbsolute, F, N>(x, w, T::kTop, T::kGrid), parts, at);
    }
}

// With weights from an importance matrix; their sums are kept for the search of the scales' scale.
template <class F, int N>
void search_weighted(const Run& run, float top, Parts& parts, float* weight_sums) {
    F x[N], w[N];
    for (int64_t at = 0; at < run.count * (256 / N); at += F::kLanes) {
        load_elements(run.x + at * N, N, x);
        load_elements(run.weights + at * N, N, w);
        F sum = F::all(0);
        for (int i = 0; i < N; ++i) sum = sum + w[i];
        sum.store(weight_sums + at);
        store_fit(search_affine<false, F, N>(x, w, top, kImportanceGrid), parts, at);
    }
}

// One super-block's quantised scales and minimums.
struct AffineScales {
    uint8_t scale[16], low[16];
    float d, dmin;
};

inline void quantise_scales(const float* values, bool negate, int count, int top, bool clip, uint8_t* codes, float& unit) {
    float largest = 0;
    for (int j = 0; j < count; ++j) {
        const float value = negate ? -values[j] : values[j];
        largest = value > largest ? value : largest;
    }
    const float inverse = largest > 0 ? float(top) / largest : 0.0f;
    for (int j = 0; j < count; ++j) {
        const int32_t code = nearest_integer(inverse * (negate ? -values[j] : values[j])) & 255;
        codes[j] = uint8_t(clip && code > top ? top : code);
    }
    unit = largest / float(top);
}

inline void recode_affine(const float* __restrict x, int count, float step, float shift, int top, uint8_t* __restrict codes) {
    for (int i = 0; i < count; ++i) codes[i] = uint8_t(clamped(nearest_integer((x[i] + shift) / step), 0, top));
}

inline void pack_affine(BlockQ2_K& block, const AffineScales& s, const uint8_t* codes) {
    for (int j = 0; j < 16; ++j) block.scales[j] = uint8_t(s.scale[j] | s.low[j] << 4);
    store_half(block.d, s.d);
    store_half(block.dmin, s.dmin);
    if (codes != nullptr) pack_two_bits(codes, block.qs);
}

inline void pack_affine(BlockQ4_K& block, const AffineScales& s, const uint8_t* codes) {
    pack_scales_q4(s.scale, s.low, block.scales);
    store_half(block.d, s.d);
    store_half(block.dmin, s.dmin);
    if (codes != nullptr) pack_nibbles(codes, block.qs);
}

inline void pack_affine(BlockQ5_K& block, const AffineScales& s, const uint8_t* codes) {
    pack_scales_q4(s.scale, s.low, block.scales);
    store_half(block.d, s.d);
    store_half(block.dmin, s.dmin);
    if (codes == nullptr) return;
    pack_nibbles(codes, block.qs);
    pack_bit(codes, 4, block.qh);
}

// Step and shift of sub-block j as a reader will see them.
inline void read_scale(const BlockQ2_K& block, float d, float dmin, int j, float& step, float& shift) {
    step = d * float(block.scales[j] & 15);
    shift = dmin * float(block.scales[j] >> 4);
}

template <class Block>
inline void read_scale(const Block& block, float d, float dmin, int j, float& step, float& shift) {
    const uint8_t* s = block.scales;
    const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    const int low = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
    step = d * float(scale);
    shift = dmin * float(low);
}

// The end of every affine type: stores the scales, codes the values anew for what a reader sees, packs.
template <class Block>
inline void finish_affine(const float* x, const AffineScales& scales, const float* inverse, const float* offset,
                          uint8_t* codes, Block& block) {
    using T = AffineType<Block>;
    pack_affine(block, scales, nullptr);
    const float d = load_half(block.d), dmin = load_half(block.dmin);
    for (int j = 0; j < 256 / T::kWidth; ++j) {
        const int at = T::kWidth * j;
        float step, shift;
        read_scale(block, d, dmin, j, step, shift);
        if (step != 0)
            recode_affine(x + at, T::kWidth, step, shift, T::kTop, codes + at);
        else
            codes_of_search(x + at, T::kWidth, inverse[j], offset[j], T::kTop, codes + at);
    }
    pack_affine(block, scales, codes);
}

template <class Block>
inline AffineScales scales_of(const float* scale, const float* low) {
    using T = AffineType<Block>;
    AffineScales scales;
    quantise_scales(scale, false, 256 / T::kWidth, T::kScaleTop, T::kScaleTop == 63, scales.scale, scales.d);
    quantise_scales(low, true, 256 / T::kWidth, T::kScaleTop, T::kScaleTop == 63, scales.low, scales.dmin);
    return scales;
}

template <class L, class Block>
void quantise_affine_current(const Run& run) {
    constexpr int S = 256 / AffineType<Block>::kWidth;
    Parts parts = {};
    uint8_t codes[256];
    search_current<typename L::Affine, Block>(run, parts);
    for (int64_t b = 0; b < run.count; ++b) {
        const AffineScales scales = scales_of<Block>(parts.scale + S * b, parts.low + S * b);
        finish_affine(run.x + 256 * b, scales, parts.inverse + S * b, parts.offset + S * b, codes,
                      reinterpret_cast<Block*>(run.out)[b]);
    }
}

// Positive numbers of S sub-blocks to bytes and a unit, for F::kLanes super-blocks side by side.
template <class F, int S>
SELFEE_INLINE void fit_scales(const float* values, const F* weights, float top, float* units, uint8_t* bytes) {
    constexpr int room = S < F::kLanes ? F::kLanes : S;
    F x[room], codes[S];
    load_elements(values, S, x);
    search_positive<F, S>(x, weights, top, codes).store(units);
    alignas(64) float lanes[F::kLanes];
    for (int j = 0; j < S; ++j) {
        codes[j].store(lanes);
        for (int b = 0; b < F::kLanes; ++b) bytes[16 * b + j] = uint8_t(int32_t(lanes[b]));
    }
}

template <class L, class Block>
void quantise_affine_weighted(const Run& run) {
    using T = AffineType<Block>;
    using F = typename L::Positive;
    constexpr int S = 256 / T::kWidth, room = S < F::kLanes ? F::kLanes : S;
    Parts parts = {};
    alignas(64) float weight_sums[kRunParts + 64] = {}, d[F::kLanes], dmin[F::kLanes];
    uint8_t scale[16 * F::kLanes], low[16 * F::kLanes], codes[256];
    weigh_256(run, S == 16 ? 1.0f : 2.0f);
    search_weighted<typename L::Affine, T::kWidth>(run, T::kTop, parts, weight_sums);
    for (float& value : parts.low) value = -value;
    F w[room];
    for (int64_t first = 0; first < run.count; first += F::kLanes) {
        load_elements(weight_sums + S * first, S, w);
        fit_scales<F, S>(parts.scale + S * first, w, T::kScaleTop, d, scale);
        fit_scales<F, S>(parts.low + S * first, w, T::kScaleTop, dmin, low);
        for (int64_t b = first; b < run.count && b < first + F::kLanes; ++b) {
            const int64_t lane = b - first;
            AffineScales scales;
            scales.d = d[lane];
            scales.dmin = dmin[lane];
            constexpr int limit = std::is_same_v<Block, BlockQ5_K> ? 63 : 255;  // Q5_K alone clips what wrapped
            for (int j = 0; j < S; ++j) {
                scales.scale[j] = uint8_t(clamped(scale[16 * lane + j], 0, limit));
                scales.low[j] = uint8_t(clamped(low[16 * lane + j], 0, limit));
            }
            finish_affine(run.x + 256 * b, scales, parts.inverse + S * b, parts.offset + S * b, codes,
                          reinterpret_cast<Block*>(run.out)[b]);
        }
    }
}

template <class F, int N>
void search_both_ends(const Run& run, float top, Parts& early, Parts& parts) {
    F x[N];
    AffineFit<F> first, last;
    for (int64_t at = 0; at < run.count * (256 / N); at += F::kLanes) {
        load_elements(run.x + at * N, N, x);
        search_affine_2023<F, N>(x, top, first, last);
        store_fit(first, early, at);
        store_fit(last, parts, at);
    }
}

// The codes in a block, as the search of 2023 finds them left behind; zeros without one.
template <class Block>
inline void codes_left_by(const uint8_t* previous, uint8_t* codes) {
    if (previous == nullptr) {
        std::memset(codes, 0, 256);
        return;
    }
    Codes256 left;
    unpack(*reinterpret_cast<const Block*>(previous), left);
    std::memcpy(codes, left.q, 256);
}

// In 2023 codes were not cleared: where the first round of a search finds those that the super-block before left at the
// same place, it stops. So both ends of every search are at hand, and the choice is made from one block to the next.
template <class L, class Block>
void quantise_affine_2023(const Run& run) {
    using T = AffineType<Block>;
    constexpr int S = 256 / T::kWidth, N = T::kWidth;
    Parts early = {}, parts = {};
    search_both_ends<typename L::Affine, N>(run, T::kTop, early, parts);
    uint8_t codes[256], found[256];
    codes_left_by<Block>(run.previous, codes);
    for (int64_t b = 0; b < run.count; ++b) {
        const float* x = run.x + 256 * b;
        for (int j = 0; j < S; ++j) {
            const int64_t at = S * b + j;
            codes_of_search(x + N * j, N, early.inverse[at], early.offset[at], T::kTop, found + N * j);
            if (std::memcmp(found + N * j, codes + N * j, N) != 0) continue;
            parts.scale[at] = early.scale[at];
            parts.low[at] = early.low[at];
            parts.inverse[at] = early.inverse[at];
            parts.offset[at] = early.offset[at];
        }
        const AffineScales scales = scales_of<Block>(parts.scale + S * b, parts.low + S * b);
        finish_affine(x, scales, parts.inverse + S * b, parts.offset + S * b, codes, reinterpret_cast<Block*>(run.out)[b]);
    }
}

}  // namespace
}  // namespace selfee
