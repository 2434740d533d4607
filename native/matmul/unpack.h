// Blocks -> integers and scales, one value at a time: what every bit means, in C++.
// De-quantisation and the scalar matmul both read blocks through here; the fast kernels are tested against it.
#pragma once
#include "blocks.h"

namespace selfee {

// y = q * d + m, for the 32-value types; m is 0 where the type has none.
struct Codes32 {
    float d = 0, m = 0;
    int8_t q[32];
};

// y = (d * scale[v / 16]) * q - dmin * min[v / 16], for the 256-value types; min is 0 where the type has none.
struct Codes256 {
    float d = 0, dmin = 0;
    int16_t scale[16], min[16];
    int8_t q[256];
};

static inline void unpack_nibbles(const uint8_t* __restrict qs, int offset, int8_t* __restrict q) {
    for (int j = 0; j < 16; ++j) {
        q[j] = int8_t((qs[j] & 15) - offset);
        q[16 + j] = int8_t((qs[j] >> 4) - offset);
    }
}

static inline void add_fifth_bit(uint32_t qh, int8_t* __restrict q) {
    for (int v = 0; v < 32; ++v) q[v] = int8_t(q[v] + (int(qh >> v & 1u) << 4));
}

static inline void unpack(const BlockQ4_0& block, Codes32& out) {
    out.d = load_half(block.d);
    unpack_nibbles(block.qs, 8, out.q);
}

static inline void unpack(const BlockQ4_1& block, Codes32& out) {
    out.d = load_half(block.d);
    out.m = load_half(block.m);
    unpack_nibbles(block.qs, 0, out.q);
}

static inline void unpack(const BlockQ5_0& block, Codes32& out) {
    out.d = load_half(block.d);
    unpack_nibbles(block.qs, 16, out.q);
    add_fifth_bit(load_u32(block.qh), out.q);
}

static inline void unpack(const BlockQ5_1& block, Codes32& out) {
    out.d = load_half(block.d);
    out.m = load_half(block.m);
    unpack_nibbles(block.qs, 0, out.q);
    add_fifth_bit(load_u32(block.qh), out.q);
}

static inline void unpack(const BlockQ8_0& block, Codes32& out) {
    out.d = load_half(block.d);
    std::memcpy(out.q, block.qs, sizeof out.q);
}

// Value 128 h + 32 g + l is bits 2 g and 2 g + 1 of byte 32 h + l.
static inline void unpack_two_bits(const uint8_t* __restrict qs, int8_t* __restrict q) {
    for (int h = 0; h < 2; ++h)
        for (int g = 0; g < 4; ++g)
            for (int l = 0; l < 32; ++l) q[128 * h + 32 * g + l] = qs[32 * h + l] >> (2 * g) & 3;
}

// Adds `weight` to value 32 g + l if bit g of byte l is set.
static inline void add_bits(const uint8_t* __restrict bits, int weight, int8_t* __restrict q) {
    for (int g = 0; g < 8; ++g)
        for (int l = 0; l < 32; ++l) q[32 * g + l] = int8_t(q[32 * g + l] + (bits[l] >> g & 1) * weight);
}

static inline void unpack(const BlockQ2_K& block, Codes256& out) {
    out.d = load_half(block.d);
    out.dmin = load_half(block.dmin);
    for (int j = 0; j < 16; ++j) {
        out.scale[j] = block.scales[j] & 15;
        out.min[j] = block.scales[j] >> 4;
    }
    unpack_two_bits(block.qs, out.q);
}

// Sixteen 6-bit scales, stored +32: low nibbles in bytes 0-7, the two high bits of all in bytes 8-11.
static inline void unpack_scales_q3(const uint8_t* __restrict s, int16_t* __restrict scale) {
    for (int j = 0; j < 16; ++j) {
        const int low = s[j % 8] >> (j / 8 * 4) & 15, high = s[8 + j % 4] >> (j / 4 * 2) & 3;
        scale[j] = int16_t((low | high << 4) - 32);
    }
}

static inline void unpack(const BlockQ3_K& block, Codes256& out) {
    out.d = load_half(block.d);
    out.dmin = 0;
    std::memset(out.min, 0, sizeof out.min);
    unpack_scales_q3(block.scales, out.scale);
    unpack_two_bits(block.qs, out.q);
    add_bits(block.hmask, 4, out.q);
    for (int8_t& q : out.q) q = int8_t(q - 4);
}

// Eight 6-bit scales and eight 6-bit minima in twelve bytes; each holds for 32 values, so each is given twice.
static inline void unpack_scales_q4(const uint8_t* __restrict s, int16_t* __restrict scale, int16_t* __restrict min) {
    for (int j = 0; j < 8; ++j) {
        const int sc = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        const int mn = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
        scale[2 * j] = scale[2 * j + 1] = int16_t(sc);
        min[2 * j] = min[2 * j + 1] = int16_t(mn);
    }
}

static inline void unpack_nibbles_q4(const uint8_t* __restrict qs, int8_t* __restrict q) {
    for (int pair = 0; pair < 4; ++pair)
        for (int l = 0; l < 32; ++l) {
            q[64 * pair + l] = qs[32 * pair + l] & 15;
            q[64 * pair + 32 + l] = qs[32 * pair + l] >> 4;
        }
}

static inline void unpack(const BlockQ4_K& block, Codes256& out) {
    out.d = load_half(block.d);
    out.dmin = load_half(block.dmin);
    unpack_scales_q4(block.scales, out.scale, out.min);
    unpack_nibbles_q4(block.qs, out.q);
}

static inline void unpack(const BlockQ5_K& block, Codes256& out) {
    out.d = load_half(block.d);
    out.dmin = load_half(block.dmin);
    unpack_scales_q4(block.scales, out.scale, out.min);
    unpack_nibbles_q4(block.qs, out.q);
    add_bits(block.qh, 16, out.q);
}

// Low nibbles in ql, two high bits in qh; 32 too large.
static inline void unpack_six_bits(const uint8_t* __restrict ql, const uint8_t* __restrict qh, int8_t* __restrict q) {
    for (int h = 0; h < 2; ++h)
        for (int g = 0; g < 4; ++g)
            for (int l = 0; l < 32; ++l) {
                const int low = ql[64 * h + 32 * (g & 1) + l] >> (g / 2 * 4) & 15, high = qh[32 * h + l] >> (2 * g) & 3;
                q[128 * h + 32 * g + l] = int8_t((low | high << 4) - 32);
            }
}

static inline void unpack(const BlockQ6_K& block, Codes256& out) {
    out.d = load_half(block.d);
    out.dmin = 0;
    std::memset(out.min, 0, sizeof out.min);
    for (int j = 0; j < 16; ++j) out.scale[j] = block.scales[j];
    unpack_six_bits(block.ql, block.qh, out.q);
}

}  // namespace selfee
