// How quantised weights lie in a file.  Field meanings: docs of weights/quants.py and kquants.py, which define every bit.
// All fields are bytes, so a block may start at any address of a mapped file.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace selfee {

struct BlockQ4_0 { uint8_t d[2], qs[16]; };
struct BlockQ4_1 { uint8_t d[2], m[2], qs[16]; };
struct BlockQ5_0 { uint8_t d[2], qh[4], qs[16]; };
struct BlockQ5_1 { uint8_t d[2], m[2], qh[4], qs[16]; };
struct BlockQ8_0 { uint8_t d[2]; int8_t qs[32]; };
struct BlockQ2_K { uint8_t scales[16], qs[64], d[2], dmin[2]; };
struct BlockQ3_K { uint8_t hmask[32], qs[64], scales[12], d[2]; };
struct BlockQ4_K { uint8_t d[2], dmin[2], scales[12], qs[128]; };
struct BlockQ5_K { uint8_t d[2], dmin[2], scales[12], qh[32], qs[128]; };
struct BlockQ6_K { uint8_t ql[128], qh[64]; int8_t scales[16]; uint8_t d[2]; };

static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22);
static_assert(sizeof(BlockQ5_1) == 24 && sizeof(BlockQ8_0) == 34);
static_assert(sizeof(BlockQ2_K) == 84 && sizeof(BlockQ3_K) == 110 && sizeof(BlockQ4_K) == 144);
static_assert(sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210);

// The functions below are static on purpose: each instruction set compiles its own copy, and none leaks into another.
static inline uint16_t load_u16(const uint8_t* bytes) {
    uint16_t value;
    std::memcpy(&value, bytes, sizeof value);
    return value;
}

static inline uint32_t load_u32(const uint8_t* bytes) {
    uint32_t value;
    std::memcpy(&value, bytes, sizeof value);
    return value;
}

// Exact for every half: normal and subnormal numbers are scaled by a power of two, infinities and NaN keep their bits.
static inline float half_to_float(uint16_t half) {
    const uint32_t sign = uint32_t(half & 0x8000u) << 16, magnitude = half & 0x7fffu;
    const float finite = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
    const uint32_t bits = magnitude >= 0x7c00u ? 0x7f800000u | magnitude << 13 : std::bit_cast<uint32_t>(finite);
    return std::bit_cast<float>(sign | bits);
}

// Round to the nearest half, ties to even; too large becomes infinity, NaN stays NaN.
static inline uint16_t float_to_half(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value), magnitude = bits & 0x7fffffffu;
    const uint16_t sign = uint16_t(bits >> 16 & 0x8000u);
    if (magnitude > 0x7f800000u) return sign | 0x7e00u;
    if (magnitude >= 0x47800000u) return sign | 0x7c00u;
    if (magnitude < 0x38800000u) {  // subnormal half: adding 0.5 makes the last bit of the sum worth 2^-24
        const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
        return sign | uint16_t(std::bit_cast<uint32_t>(shifted) - 0x3f000000u);
    }
    const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
    return sign | uint16_t((rounded - 0x38000000u) >> 13);
}

static inline float load_half(const uint8_t* bytes) { return half_to_float(load_u16(bytes)); }

}  // namespace selfee
