// Codes into blocks: the inverse of matmul/unpack.h. Loops over bytes that compilers turn into vectors.
#pragma once
#include <bit>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "blocks.h"

namespace selfee {
namespace {

// As rounded_wrapping() in lanes.h, for one number.
inline int32_t nearest_integer(float v) {
    return int32_t(std::bit_cast<uint32_t>(v + 12582912.0f) & 0x7fffffu) - 0x400000;
}

inline int32_t clamped(int32_t v, int32_t least, int32_t most) { return v < least ? least : v > most ? most : v; }

inline void store_half(uint8_t* to, float value) {
    const uint16_t half = float_to_half(value);
    std::memcpy(to, &half, sizeof half);
}

inline void pack_two_bits(const uint8_t* __restrict codes, uint8_t* __restrict qs) {
    for (int h = 0; h < 2; ++h)
        for (int l = 0; l < 32; ++l) {
            const uint8_t* c = codes + 128 * h + l;
            qs[32 * h + l] = uint8_t((c[0] & 3) | (c[32] & 3) << 2 | (c[64] & 3) << 4 | (c[96] & 3) << 6);
        }
}

inline void pack_nibbles(const uint8_t* __restrict codes, uint8_t* __restrict qs) {
    for (int p = 0; p < 4; ++p)
        for (int l = 0; l < 32; ++l)
            qs[32 * p + l] = uint8_t((codes[64 * p + l] & 15) | (codes[64 * p + 32 + l] & 15) << 4);
}

// Bit `bit` of value 32 g + l to bit g of byte l.
inline void pack_bit(const uint8_t* __restrict codes, int bit, uint8_t* __restrict planes) {
    for (int l = 0; l < 32; ++l) planes[l] = 0;
    for (int g = 0; g < 8; ++g)
        for (int l = 0; l < 32; ++l) planes[l] = uint8_t(planes[l] | (codes[32 * g + l] >> bit & 1) << g);
}

inline void pack_six_bits(const uint8_t* __restrict codes, uint8_t* __restrict ql, uint8_t* __restrict qh) {
    for (int h = 0; h < 2; ++h) {
        const uint8_t* c = codes + 128 * h;
        for (int l = 0; l < 64; ++l) ql[64 * h + l] = uint8_t((c[l] & 15) | (c[64 + l] & 15) << 4);
        for (int l = 0; l < 32; ++l)
            qh[32 * h + l] = uint8_t(c[l] >> 4 | c[32 + l] >> 4 << 2 | c[64 + l] >> 4 << 4 | c[96 + l] >> 4 << 6);
    }
}

// Eight scales and minimums of 6 bits to 12 bytes; larger ones spill over as in the reference.
inline void pack_scales_q4(const uint8_t* scale, const uint8_t* low, uint8_t* s) {
    for (int j = 0; j < 4; ++j) {
        s[j] = uint8_t(scale[j] | scale[j + 4] >> 4 << 6);
        s[j + 4] = uint8_t(low[j] | low[j + 4] >> 4 << 6);
        s[j + 8] = uint8_t((scale[j + 4] & 15) | (low[j + 4] & 15) << 4);
    }
}

// Sixteen scales of 6 bits, 0 to 63, to 12 bytes.
inline void pack_scales_q3(const uint8_t* scale, uint8_t* s) {
    for (int j = 0; j < 8; ++j) s[j] = uint8_t((scale[j] & 15) | (scale[j + 8] & 15) << 4);
    for (int j = 0; j < 4; ++j)
        s[8 + j] = uint8_t(scale[j] >> 4 | scale[j + 4] >> 4 << 2 | scale[j + 8] >> 4 << 4 | scale[j + 12] >> 4 << 6);
}

// 32 codes of 4 bits: value j in the low half of byte j, value 16 + j in the high half.
inline void pack_32(const uint8_t* __restrict codes, uint8_t* __restrict qs) {
    for (int j = 0; j < 16; ++j) qs[j] = uint8_t((codes[j] & 15) | (codes[16 + j] & 15) << 4);
}

// The fifth bit of value v to bit v of four bytes. The product moves bit 0 of byte i to bit 56 + i.
inline void pack_fifth_bits(const uint8_t* codes, uint8_t* qh) {
#if defined(__AVX2__)
    const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
    const int32_t bits = _mm256_movemask_epi8(_mm256_slli_epi16(all, 3));
    std::memcpy(qh, &bits, sizeof bits);
#else
    for (int part = 0; part < 4; ++part) {
        uint64_t eight;
        std::memcpy(&eight, codes + 8 * part, sizeof eight);
        qh[part] = uint8_t((eight >> 4 & 0x0101010101010101u) * 0x0102040810204080u >> 56);
    }
#endif
}

}  // namespace
}  // namespace selfee
