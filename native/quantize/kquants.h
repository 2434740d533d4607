// Blocks of 256 values: searches in lanes, then scales and codes of one super-block after another.
//
// L names the lane types of an instruction set: L::Affine, L::Symmetric, L::Moving and L::Positive for the searches.
#pragma once
#include <type_traits>

#include "matmul/unpack.h"
#include "quantize/kernels.h"
#include "quantize/pack.h"
#include "quantize/search_affine.h"
#include "quantize/search_symmetric.h"

namespace selfee {
namespace {

constexpr int kRunParts = kRunValues / 16;  // sub-blocks of a run, at most

// What a search found, for each sub-block of a run; see AffineFit and SymmetricFit. Padded for whole vectors.
struct Parts {
    alignas(64) float scale[kRunParts + 64], low[kRunParts + 64], inverse[kRunParts + 64], offset[kRunParts + 64];
};

// ---- weights of an importance matrix ---------------------------------------------------------------------------------

// The sums of squares of up to eight super-blocks, each in element order.
inline void sum_squares_256(const float* __restrict x, int64_t count, float* __restrict sums) {
    float sum[8] = {};
    if (count == 8) {
        for (int i = 0; i < 256; ++i)
            for (int b = 0; b < 8; ++b) sum[b] += x[256 * b + i] * x[256 * b + i];
    } else {
        for (int64_t b = 0; b < count; ++b)
            for (int i = 0; i < 256; ++i) sum[b] += x[256 * b + i] * x[256 * b + i];
    }
    std::memcpy(sums, sum, sizeof sum);
}

// run.weights = importance * sqrt(square + x * x), where `square` is that of the value's block of `width` values.
inline void weigh(const Run& run, int width, const float* squares) {
    int64_t column = run.column;
    for (int64_t b = 0; b < run.count; ++b) {
        const float *x = run.x + width * b, *importance = run.importance + column, square = squares[b];
        float* w = run.weights + width * b;
        for (int i = 0; i < width; ++i) w[i] = importance[i] * __builtin_sqrtf(square + x[i] * x[i]);
        column = column + width == run.columns ? 0 : column + width;
    }
}

inline void weigh_256(const Run& run, float factor) {
    float squares[kRunValues / 256 + 8];
    for (int64_t b = 0; b < run.count; b += 8) {
        sum_squares_256(run.x + 256 * b, run.count - b < 8 ? run.count - b : 8, squares + b);
        for (int64_t i = b; i < b + 8; ++i) squares[i] = factor * squares[i] / 256.0f;
    }
    weigh(run, 256, squares);
}

// ---- types with a minimum: Q2_K, Q4_K, Q5_K --------------------------------------------------------------------------

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
constexpr AffineGrid kImportanceGrid = {-0.9f, 0.05f, 36};

template <class F>
SELFEE_INLINE void store_fit(const AffineFit<F>& fit, Parts& parts, int64_t at) {
    fit.scale.store(parts.scale + at);
    fit.low.store(parts.low + at);
    fit.inverse.store(parts.inverse + at);
    fit.offset.store(parts.offset + at);
}

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

// Codes from what the search was at when it found its best, for a sub-block whose stored scale is 0.
inline void codes_of_search(const float* __restrict x, int count, float inverse, float offset, int top, uint8_t* __restrict codes) {
    for (int i = 0; i < count; ++i) codes[i] = uint8_t(clamped(nearest_integer(inverse * (x[i] - offset)), 0, top));
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
    alignas(64) float weight_sums[kRunParts + 64], d[F::kLanes], dmin[F::kLanes];
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

// ---- types without a minimum: Q3_K and Q6_K --------------------------------------------------------------------------

// Codes of sub-blocks of 16 as a search ends with them. Moved codes lie element by element, F::kLanes sub-blocks wide.
struct MovedCodes {
    alignas(64) float codes[kRunValues + 16 * 64];
};

template <class F>
void search_moved(const Run& run, float half, bool refit, float least, Parts& parts, MovedCodes& moved) {
    F x[16], codes[16];
    for (int64_t at = 0; at < run.count * 16; at += F::kLanes) {
        load_elements(run.x + at * 16, 16, x);
        search_moving<F, 16>(x, half, refit, least, codes).store(parts.scale + at);
        for (int i = 0; i < 16; ++i) codes[i].store(moved.codes + at * 16 + i * F::kLanes);
    }
}

template <int LANES>
inline void read_moved(const MovedCodes& moved, int64_t part, float half, uint8_t* codes) {
    const float* group = moved.codes + part / LANES * LANES * 16 + part % LANES;
    for (int i = 0; i < 16; ++i) codes[i] = uint8_t(int32_t(group[i * LANES] + half));
}

enum class Weights { Squares, Importance };

template <class F, int N, Weights WEIGHTS>
void search_scales(const Run& run, int64_t count, float half, Parts& parts, float* weight_sums) {
    F x[N], w[N];
    for (int64_t at = 0; at < count; at += F::kLanes) {
        load_elements(run.x + at * N, N, x);
        if (WEIGHTS == Weights::Importance)
            load_elements(run.weights + at * N, N, w);
        else
            for (int i = 0; i < N; ++i) w[i] = x[i] * x[i];
        const SymmetricFit<F> fit = search_symmetric<F, N>(x, w, half);
        fit.scale.store(parts.scale + at);
        fit.inverse.store(parts.inverse + at);
        if (weight_sums == nullptr) continue;
        F sum = F::all(0);
        for (int i = 0; i < N; ++i) sum = sum + w[i];
        sum.store(weight_sums + at);
    }
}

// Codes of a search without moves; all 0 where there was nothing to search.
inline void codes_of_scale(const float* __restrict x, int count, float inverse, int half, uint8_t* __restrict codes) {
    for (int i = 0; i < count; ++i)
        codes[i] = uint8_t(inverse == 0 ? 0 : clamped(nearest_integer(inverse * x[i]), -half, half - 1) + half);
}

inline void recode_symmetric(const float* __restrict x, float step, int half, uint8_t* __restrict codes) {
    for (int i = 0; i < 16; ++i) codes[i] = uint8_t(clamped(nearest_integer(x[i] / step), -half, half - 1) + half);
}

inline float largest_scale(const float* scale) {
    float most = 0, largest = 0;
    for (int j = 0; j < 16; ++j)
        if (__builtin_fabsf(scale[j]) > most) {
            most = __builtin_fabsf(scale[j]);
            largest = scale[j];
        }
    return largest;
}

// keep(j, codes) writes the codes of sub-block j as its search left them, where the stored scale is 0.
template <class Keep>
inline void finish_q3_k(const float* x, const uint8_t* scales, float d, Keep keep, BlockQ3_K& block) {
    uint8_t codes[256];
    store_half(block.d, d);
    const float unit = load_half(block.d);
    for (int j = 0; j < 16; ++j) {
        const float step = unit * float(int(scales[j]) - 32);
        step != 0 ? recode_symmetric(x + 16 * j, step, 4, codes + 16 * j) : keep(j, codes + 16 * j);
    }
    pack_scales_q3(scales, block.scales);
    pack_bit(codes, 2, block.hmask);
    pack_two_bits(codes, block.qs);
}

template <class Keep>
inline void finish_q6_k(const float* x, const float* scale, Keep keep, BlockQ6_K& block) {
    uint8_t codes[256];
    const float inverse = -128.0f / largest_scale(scale);
    store_half(block.d, 1.0f / inverse);
    const float unit = load_half(block.d);
    for (int j = 0; j < 16; ++j) {
        const int32_t nearest = nearest_integer(inverse * scale[j]);
        block.scales[j] = int8_t(nearest > 127 ? 127 : nearest);
        const float step = unit * float(block.scales[j]);
        step != 0 ? recode_symmetric(x + 16 * j, step, 32, codes + 16 * j) : keep(j, codes + 16 * j);
    }
    pack_six_bits(codes, block.ql, block.qh);
}

inline void quantise_scales_q3(const float* scale, uint8_t* codes, float& d) {
    const float largest = largest_scale(scale), inverse = -32.0f / largest;
    d = largest != 0 ? 1.0f / inverse : 0.0f;
    for (int j = 0; j < 16; ++j) {
        const int32_t code = clamped(int8_t(nearest_integer(inverse * scale[j])), -32, 31) + 32;
        codes[j] = uint8_t(largest != 0 ? code : 0);
    }
}

template <class L, Generation GENERATION>
void quantise_q3_k(const Run& run) {
    Parts parts = {};
    MovedCodes moved;
    search_moved<typename L::Moving>(run, 4, false, GENERATION == Generation::Current ? 1e-15f : 0.0f, parts, moved);
    for (int64_t b = 0; b < run.count; ++b) {
        uint8_t scales[16];
        float d;
        quantise_scales_q3(parts.scale + 16 * b, scales, d);
        const auto keep = [&](int j, uint8_t* codes) { read_moved<L::Moving::kLanes>(moved, 16 * b + j, 4, codes); };
        finish_q3_k(run.x + 256 * b, scales, d, keep, reinterpret_cast<BlockQ3_K*>(run.out)[b]);
    }
}

template <class L>
void quantise_q6_k_2023(const Run& run) {
    Parts parts = {};
    MovedCodes moved;
    search_moved<typename L::Moving>(run, 32, true, 0.0f, parts, moved);
    for (int64_t b = 0; b < run.count; ++b) {
        const auto keep = [&](int j, uint8_t* codes) { read_moved<L::Moving::kLanes>(moved, 16 * b + j, 32, codes); };
        finish_q6_k(run.x + 256 * b, parts.scale + 16 * b, keep, reinterpret_cast<BlockQ6_K*>(run.out)[b]);
    }
}

inline void finish_q6_k_current(const Run& run, const Parts& parts) {
    for (int64_t b = 0; b < run.count; ++b) {
        const float* x = run.x + 256 * b;
        auto& block = reinterpret_cast<BlockQ6_K*>(run.out)[b];
        if (__builtin_fabsf(largest_scale(parts.scale + 16 * b)) < 1e-15f) {
            std::memset(&block, 0, sizeof block);
            continue;
        }
        const auto keep = [&](int j, uint8_t* codes) {
            codes_of_scale(x + 16 * j, 16, parts.inverse[16 * b + j], 32, codes);
        };
        finish_q6_k(x, parts.scale + 16 * b, keep, block);
    }
}

template <class L>
void quantise_q6_k_current(const Run& run) {
    Parts parts = {};
    search_scales<typename L::Symmetric, 16, Weights::Squares>(run, run.count * 16, 32, parts, nullptr);
    finish_q6_k_current(run, parts);
}

// Weights are the importance alone.
template <class L>
void quantise_q6_k_weighted(const Run& run) {
    Parts parts = {};
    int64_t column = run.column;
    for (int64_t b = 0; b < run.count; ++b) {
        std::memcpy(run.weights + 256 * b, run.importance + column, 256 * sizeof(float));
        column = column + 256 == run.columns ? 0 : column + 256;
    }
    search_scales<typename L::Symmetric, 16, Weights::Importance>(run, run.count * 16, 32, parts, nullptr);
    finish_q6_k_current(run, parts);
}

template <class L>
void quantise_q3_k_weighted(const Run& run) {
    using F = typename L::Symmetric;
    constexpr int room = F::kLanes < 16 ? 16 : F::kLanes;
    Parts parts = {};
    alignas(64) float weight_sums[kRunParts + 64], d[F::kLanes], inverse[F::kLanes];
    weigh_256(run, 2.0f);
    search_scales<F, 16, Weights::Importance>(run, run.count * 16, 4, parts, weight_sums);
    F x[room], w[room];
    for (int64_t first = 0; first < run.count; first += F::kLanes) {
        load_elements(parts.scale + 16 * first, 16, x);
        load_elements(weight_sums + 16 * first, 16, w);
        const SymmetricFit<F> fit = search_symmetric<F, 16>(x, w, 32);
        fit.scale.store(d);
        fit.inverse.store(inverse);
        for (int64_t b = first; b < run.count && b < first + F::kLanes; ++b) {
            uint8_t scales[16];
            codes_of_scale(parts.scale + 16 * b, 16, inverse[b - first], 32, scales);
            const auto keep = [&](int j, uint8_t* codes) {
                codes_of_scale(run.x + 256 * b + 16 * j, 16, parts.inverse[16 * b + j], 4, codes);
            };
            finish_q3_k(run.x + 256 * b, scales, d[b - first], keep, reinterpret_cast<BlockQ3_K*>(run.out)[b]);
        }
    }
}

// ---- blocks of 32 values with importance -----------------------------------------------------------------------------

template <class L, class Block, int HALF>
void quantise_symmetric_weighted(const Run& run) {
    Parts parts = {};
    uint8_t codes[32];
    weigh(run, 32, run.row_squares);
    search_scales<typename L::Symmetric, 32, Weights::Importance>(run, run.count, HALF, parts, nullptr);
    for (int64_t b = 0; b < run.count; ++b) {
        auto& block = reinterpret_cast<Block*>(run.out)[b];
        codes_of_scale(run.x + 32 * b, 32, parts.inverse[b], HALF, codes);
        store_half(block.d, parts.scale[b]);
        pack_32(codes, block.qs);
        if constexpr (HALF == 16) pack_fifth_bits(codes, block.qh);
    }
}

template <class L, class Block, int TOP>
void quantise_affine_32_weighted(const Run& run) {
    using F = typename L::Affine;
    Parts parts = {};
    uint8_t codes[32];
    weigh(run, 32, run.row_squares);
    F x[32], w[32];
    for (int64_t at = 0; at < run.count; at += F::kLanes) {
        load_elements(run.x + at * 32, 32, x);
        load_elements(run.weights + at * 32, 32, w);
        store_fit(search_affine<false, F, 32>(x, w, TOP, kImportanceGrid), parts, at);
    }
    for (int64_t b = 0; b < run.count; ++b) {
        auto& block = reinterpret_cast<Block*>(run.out)[b];
        codes_of_search(run.x + 32 * b, 32, parts.inverse[b], parts.offset[b], TOP, codes);
        store_half(block.d, parts.scale[b]);
        store_half(block.m, parts.low[b]);
        pack_32(codes, block.qs);
        if constexpr (TOP == 31) pack_fifth_bits(codes, block.qh);
    }
}

}  // namespace
}  // namespace selfee
