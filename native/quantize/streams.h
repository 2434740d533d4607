// Passes over values without blocks: widening, narrowing, looking for what cannot be stored, measuring errors.
#pragma once
#include <bit>
#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "blocks.h"
#include "quantize/kernels.h"

namespace selfee {
namespace {

inline void widen_halves(const uint8_t* source, int64_t count, float* out) {
    int64_t i = 0;
#if defined(__F16C__)
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source + 2 * i))));
#endif
    for (; i < count; ++i) out[i] = load_half(source + 2 * i);
}

inline void narrow_halves(const float* x, int64_t count, uint8_t* out) {
    int64_t i = 0;
#if defined(__F16C__)
    for (; i + 8 <= count; i += 8)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#endif
    for (; i < count; ++i) {
        const uint16_t half = float_to_half(x[i]);
        std::memcpy(out + 2 * i, &half, sizeof half);
    }
}

inline void widen(Type type, const uint8_t* source, int64_t count, float* out) {
    if (type == Type::F16) return widen_halves(source, count, out);
    if (type == Type::F32) {
        std::memcpy(out, source, size_t(count) * sizeof(float));
        return;
    }
    for (int64_t i = 0; i < count; ++i) out[i] = std::bit_cast<float>(uint32_t(load_u16(source + 2 * i)) << 16);
}

inline void narrow(Type type, const float* x, int64_t count, uint8_t* out) {
    if (type == Type::F16) return narrow_halves(x, count, out);
    if (type == Type::F32) {
        std::memcpy(out, x, size_t(count) * sizeof(float));
        return;
    }
    for (int64_t i = 0; i < count; ++i) {  // the upper half, rounded to the nearest, ties to even
        const uint32_t bits = std::bit_cast<uint32_t>(x[i]);
        const uint16_t upper = uint16_t((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
        std::memcpy(out + 2 * i, &upper, sizeof upper);
    }
}

inline int64_t first_beyond(const float* x, int64_t count, uint32_t limit) {
    uint32_t most = 0;
    for (int64_t i = 0; i < count; ++i) {
        const uint32_t magnitude = std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu;
        most = magnitude > most ? magnitude : most;
    }
    if (most < limit) return count;
    for (int64_t i = 0; i < count; ++i)
        if ((std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu) >= limit) return i;
    return count;
}

// Element i goes to lane i % 8 whatever the instruction set, so every one of them gives the same sums.
inline void add_errors(const float* x, const float* y, const float* importance, int64_t count, double* sums) {
    for (int64_t i = 0; i + 8 <= count; i += 8)
        for (int lane = 0; lane < 8; ++lane) {
            const double value = double(x[i + lane]), difference = value - double(y[i + lane]);
            const double weight = importance != nullptr ? double(importance[i + lane]) : 1.0;
            sums[lane] += value * value;
            sums[8 + lane] += weight * (difference * difference);
        }
    for (int64_t i = count / 8 * 8; i < count; ++i) {
        const double value = double(x[i]), difference = value - double(y[i]);
        const double weight = importance != nullptr ? double(importance[i]) : 1.0;
        sums[i % 8] += value * value;
        sums[8 + i % 8] += weight * (difference * difference);
    }
}

}  // namespace
}  // namespace selfee
