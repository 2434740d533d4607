// What searches leave for each sub-block of a run, and the weights that an importance matrix gives them.
#pragma once
#include "quantize/kernels.h"
#include "quantize/lanes.h"
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

// ---- fits and codes --------------------------------------------------------------------------------------------------

constexpr AffineGrid kImportanceGrid = {-0.9f, 0.05f, 36};

template <class F>
SELFEE_INLINE void store_fit(const AffineFit<F>& fit, Parts& parts, int64_t at) {
    fit.scale.store(parts.scale + at);
    fit.low.store(parts.low + at);
    fit.inverse.store(parts.inverse + at);
    fit.offset.store(parts.offset + at);
}

// Codes from what the search was at when it found its best, for a sub-block whose stored scale is 0.
inline void codes_of_search(const float* __restrict x, int count, float inverse, float offset, int top, uint8_t* __restrict codes) {
    for (int i = 0; i < count; ++i) codes[i] = uint8_t(clamped(nearest_integer(inverse * (x[i] - offset)), 0, top));
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

}  // namespace
}  // namespace selfee
