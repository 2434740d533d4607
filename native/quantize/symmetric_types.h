// Super-blocks of types without a minimum, Q3_K and Q6_K; L as in affine_types.h.
#pragma once
#include "quantize/pack.h"
#include "quantize/parts.h"

namespace selfee {
namespace {

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
    alignas(64) float weight_sums[kRunParts + 64] = {}, d[F::kLanes], inverse[F::kLanes];
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

}  // namespace
}  // namespace selfee
