// Blocks of 32 values without a search: Q4_0 to Q8_0. One block after another, its values side by side.
#pragma once
#include "quantize/kernels.h"
#include "quantize/pack.h"

namespace selfee {
namespace {

// C's conversion to int8 as x86 does it: to 32 bits, where what does not fit (1/d overflowed) has a low byte of 0.
inline int32_t truncated(float v) {
    const float inside = __builtin_fabsf(v) < 0x1p31f ? v : 0.0f;
    return int32_t(inside);
}

inline int32_t magnitude_bits(float v) { return std::bit_cast<int32_t>(v) & 0x7fffffff; }

// The value of largest magnitude, sign and all, the first of equals; 0 if all are.
inline float largest_of_32(const float* __restrict x) {
    int32_t most = 0, first = 32;
    for (int v = 0; v < 32; ++v) most = magnitude_bits(x[v]) > most ? magnitude_bits(x[v]) : most;
    for (int v = 0; v < 32; ++v) {
        const int32_t here = magnitude_bits(x[v]) == most ? v : 32;
        first = here < first ? here : first;
    }
    return most == 0 ? 0.0f : x[first];
}

inline float inverse_of(float d) { return d != 0 ? 1.0f / d : 0.0f; }

// d = -(largest / half): the value of largest magnitude becomes code 0.
inline float quantise_symmetric(const float* __restrict x, int half, uint8_t* __restrict codes) {
    const float d = largest_of_32(x) / float(-half), inverse = inverse_of(d), shift = float(half) + 0.5f;
    const int32_t top = 2 * half - 1;
    for (int v = 0; v < 32; ++v) {
        const int32_t code = int8_t(truncated(x[v] * inverse + shift));
        codes[v] = uint8_t(code > top ? top : code);
    }
    return d;
}

// Numbers in the order of their bits, seen as int32: -0 below +0.
inline int32_t ordered(float v) {
    const int32_t bits = std::bit_cast<int32_t>(v);
    return bits ^ (bits >> 31 & 0x7fffffff);
}

inline float from_ordered(int32_t key) { return std::bit_cast<float>(key ^ (key >> 31 & 0x7fffffff)); }

// d = (high - low) / top; of +0 and -0 the first counts as the minimum.
inline float quantise_affine(const float* __restrict x, int top, float& low, uint8_t* __restrict codes) {
    int32_t least = ordered(x[0]), most = least;
    for (int v = 1; v < 32; ++v) {
        const int32_t key = ordered(x[v]);
        least = key < least ? key : least;
        most = key > most ? key : most;
    }
    low = from_ordered(least);
    float high = from_ordered(most);
    if (low == 0) {
        int first = 0;
        while (x[first] != 0) ++first;
        low = x[first];
        if (high == 0) high = low;
    }
    const float d = (high - low) / float(top), inverse = inverse_of(d), shift = low;
    for (int v = 0; v < 32; ++v) {
        const int32_t code = truncated((x[v] - shift) * inverse + 0.5f) & 255;
        codes[v] = uint8_t(top == 15 && code > 15 ? 15 : code);
    }
    return d;
}

// Halves away from zero. Adding a half would round up by itself (0.49999997), so the rest is looked at.
inline int32_t rounded_away(float v) {
    const float magnitude = __builtin_fabsf(v), size = magnitude < 0x1p31f ? magnitude : 0.0f;
    const int32_t whole = int32_t(size);
    const int32_t up = whole + (size - float(whole) >= 0.5f ? 1 : 0);
    return v < 0 ? -up : up;
}

inline void quantise_q4_0(const Run& run) {
    uint8_t codes[32];
    for (int64_t b = 0; b < run.count; ++b) {
        auto& block = reinterpret_cast<BlockQ4_0*>(run.out)[b];
        store_half(block.d, quantise_symmetric(run.x + 32 * b, 8, codes));
        pack_32(codes, block.qs);
    }
}

inline void quantise_q5_0(const Run& run) {
    uint8_t codes[32];
    for (int64_t b = 0; b < run.count; ++b) {
        auto& block = reinterpret_cast<BlockQ5_0*>(run.out)[b];
        store_half(block.d, quantise_symmetric(run.x + 32 * b, 16, codes));
        pack_32(codes, block.qs);
        pack_fifth_bits(codes, block.qh);
    }
}

inline void quantise_q4_1(const Run& run) {
    uint8_t codes[32];
    for (int64_t b = 0; b < run.count; ++b) {
        auto& block = reinterpret_cast<BlockQ4_1*>(run.out)[b];
        float low;
        store_half(block.d, quantise_affine(run.x + 32 * b, 15, low, codes));
        store_half(block.m, low);
        pack_32(codes, block.qs);
    }
}

inline void quantise_q5_1(const Run& run) {
    uint8_t codes[32];
    for (int64_t b = 0; b < run.count; ++b) {
        auto& block = reinterpret_cast<BlockQ5_1*>(run.out)[b];
        float low;
        store_half(block.d, quantise_affine(run.x + 32 * b, 31, low, codes));
        store_half(block.m, low);
        pack_32(codes, block.qs);
        pack_fifth_bits(codes, block.qh);
    }
}

inline void quantise_q8_0(const Run& run) {
    for (int64_t b = 0; b < run.count; ++b) {
        auto& block = reinterpret_cast<BlockQ8_0*>(run.out)[b];
        const float* x = run.x + 32 * b;
        int32_t most = 0;
        for (int v = 0; v < 32; ++v) most = magnitude_bits(x[v]) > most ? magnitude_bits(x[v]) : most;
        const float d = std::bit_cast<float>(most) / 127.0f, inverse = inverse_of(d);
        store_half(block.d, d);
        int8_t codes[32];
        for (int v = 0; v < 32; ++v) codes[v] = int8_t(rounded_away(x[v] * inverse));
        std::memcpy(block.qs, codes, sizeof codes);
    }
}

}  // namespace
}  // namespace selfee
