// Blocks of 32 values, Q4_0 to Q8_0: scales of blocks side by side in lanes, then the codes of one block after another;
// L as in affine_types.h.
#pragma once
#include "quantize/kernels.h"
#include "quantize/pack.h"
#include "quantize/parts.h"

namespace selfee {
namespace {

constexpr int kRunBlocks = kRunValues / 32;

struct BlockScales {
    alignas(64) float d[kRunBlocks + 64], inverse[kRunBlocks + 64], low[kRunBlocks + 64];
};

// C's conversion to an integer as x86 does it, of which the low byte is stored: what does not fit into 32 bits, because
// 1/d overflowed, becomes 0.
inline int32_t truncated(float v) {
    const float inside = __builtin_fabsf(v) < 0x1p31f ? v : 0.0f;
    return int32_t(inside);
}

// Halves away from zero, for magnitudes up to 128 (tried for every float). Adding a half would round up by itself below
// a half, the float before it does not.
inline int32_t rounded_away(float v) {
    const float inside = __builtin_fabsf(v) < 0x1p31f ? v : 0.0f;
    return int32_t(inside + __builtin_copysignf(0x1.fffffep-2f, inside));
}

template <class F>
SELFEE_INLINE void store_scale(F d, BlockScales& scales, int64_t at) {
    d.store(scales.d + at);
    select(d != F::all(0), F::all(1) / d, F::all(0)).store(scales.inverse + at);
}

// d = -(largest / half): the value of largest magnitude becomes code 0.
template <class F>
void find_symmetric_scales(const Run& run, float half, BlockScales& scales) {
    F x[32];
    for (int64_t at = 0; at < run.count; at += F::kLanes) {
        load_elements(run.x + 32 * at, 32, x);
        store_scale(find_largest<F, 32>(x) / F::all(-half), scales, at);
    }
}

// d = (high - low) / top; of +0 and -0 the first counts as the minimum.
template <class F>
void find_affine_scales(const Run& run, float top, BlockScales& scales) {
    F x[32], low, high;
    for (int64_t at = 0; at < run.count; at += F::kLanes) {
        load_elements(run.x + 32 * at, 32, x);
        find_range<F, 32>(x, low, high);
        low.store(scales.low + at);
        store_scale((high - low) / F::all(top), scales, at);
    }
}

inline void code_32(const float* __restrict x, float shift, float inverse, float bias, int32_t top, uint8_t* __restrict codes) {
    for (int v = 0; v < 32; ++v) {
        const int32_t code = truncated((x[v] - shift) * inverse + bias);
        codes[v] = uint8_t(code > top ? top : code);
    }
}

template <class L, class Block, int HALF>
void quantise_symmetric(const Run& run) {
    BlockScales scales;
    uint8_t codes[32];
    find_symmetric_scales<typename L::Symmetric>(run, HALF, scales);
    for (int64_t b = 0; b < run.count; ++b) {
        auto& block = reinterpret_cast<Block*>(run.out)[b];
        code_32(run.x + 32 * b, 0, scales.inverse[b], float(HALF) + 0.5f, 2 * HALF - 1, codes);
        store_half(block.d, scales.d[b]);
        pack_32(codes, block.qs);
        if constexpr (HALF == 16) pack_fifth_bits(codes, block.qh);
    }
}

template <class L, class Block, int TOP>
void quantise_affine(const Run& run) {
    BlockScales scales;
    uint8_t codes[32];
    find_affine_scales<typename L::Affine>(run, TOP, scales);
    for (int64_t b = 0; b < run.count; ++b) {
        auto& block = reinterpret_cast<Block*>(run.out)[b];
        code_32(run.x + 32 * b, scales.low[b], scales.inverse[b], 0.5f, TOP, codes);
        store_half(block.d, scales.d[b]);
        store_half(block.m, scales.low[b]);
        pack_32(codes, block.qs);
        if constexpr (TOP == 31) pack_fifth_bits(codes, block.qh);
    }
}

inline void quantise_q8_0(const Run& run) {
    for (int64_t b = 0; b < run.count; ++b) {
        auto& block = reinterpret_cast<BlockQ8_0*>(run.out)[b];
        const float* x = run.x + 32 * b;
        int32_t most = 0;
        for (int v = 0; v < 32; ++v) {
            const int32_t bits = std::bit_cast<int32_t>(x[v]) & 0x7fffffff;
            most = bits > most ? bits : most;
        }
        const float d = std::bit_cast<float>(most) / 127.0f, inverse = d != 0 ? 1.0f / d : 0.0f;
        store_half(block.d, d);
        int8_t codes[32];
        for (int v = 0; v < 32; ++v) codes[v] = int8_t(rounded_away(x[v] * inverse));
        std::memcpy(block.qs, codes, sizeof codes);
    }
}

// ---- with importance -------------------------------------------------------------------------------------------------

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
