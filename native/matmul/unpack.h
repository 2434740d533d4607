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

static inline void unpack_nibbles(const uint8_t* qs, int offset, int8_t* q) {
    for (int j = 0; j < 16; ++j) {
        q[j] = int8_t((qs[j] & 15) - offset);
        q[16 + j] = int8_t((qs[j] >> 4) - offset);
    }
}

static inline void add_fifth_bit(uint32_t qh, int8_t* q) {
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

static inline void unpack(const BlockQ2_K& block, Codes256& out) {
    out.d = load_half(block.d);
    out.dmin = load_half(block.dmin);
    for (int j = 0; j < 16; ++j) {
        out.scale[j] = block.scales[j] & 15;
        out.min[j] = block.scales[j] >> 4;
    }
    for (int v = 0; v < 256; ++v) out.q[v] = block.qs[v / 128 * 32 + v % 32] >> (v % 128 / 32 * 2) & 3;
}

// Sixteen 6-bit scales, stored +32: low nibbles in bytes 0-7, the two high bits of all in bytes 8-11.
static inline void unpack_scales_q3(const uint8_t* s, int16_t* scale) {
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
    for (int v = 0; v < 256; ++v) {
        const int low = block.qs[v / 128 * 32 + v % 32] >> (v % 128 / 32 * 2) & 3;
        out.q[v] = int8_t(low + ((block.hmask[v % 32] >> (v / 32) & 1) << 2) - 4);
    }
}

// Eight 6-bit scales and eight 6-bit minima in twelve bytes; each holds for 32 values, so each is given twice.
static inline void unpack_scales_q4(const uint8_t* s, int16_t* scale, int16_t* min) {
    for (int j = 0; j < 8; ++j) {
        const int sc = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        const int mn = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
        scale[2 * j] = scale[2 * j + 1] = int16_t(sc);
        min[2 * j] = min[2 * j + 1] = int16_t(mn);
    }
}

static inline void unpack_nibbles_q4(const uint8_t* qs, int8_t* q) {
    for (int v = 0; v < 256; ++v) q[v] = qs[v / 64 * 32 + v % 32] >> (v % 64 / 32 * 4) & 15;
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
    for (int v = 0; v < 256; ++v) out.q[v] = int8_t(out.q[v] + ((block.qh[v % 32] >> (v / 32) & 1) << 4));
}

static inline void unpack(const BlockQ6_K& block, Codes256& out) {
    out.d = load_half(block.d);
    out.dmin = 0;
    std::memset(out.min, 0, sizeof out.min);
    for (int j = 0; j < 16; ++j) out.scale[j] = block.scales[j];
    for (int v = 0; v < 256; ++v) {
        const int half = v / 128, group = v % 128 / 32, l = v % 32;
        const int low = block.ql[64 * half + 32 * (group & 1) + l] >> (group < 2 ? 0 : 4) & 15;
        const int high = block.qh[32 * half + l] >> (2 * group) & 3;
        out.q[v] = int8_t((low | high << 4) - 32);
    }
}

}  // namespace selfee
