// Attention over a cache of bytes: the operations of ops.h with 8-bit keys and values. What they are multiplied with is
// rounded to 16 bits, so all sums are of integers, hence exact, in the order that suits the machine. Everything is read from
// the first byte to the last: the hardware prefetches that, and asking for it in software as well made it slower.
#pragma once
#include "matmul/codes.h"
#include "ops.h"
#include "ops_lanes.h"

namespace selfee {
namespace {

uint16_t to_bytes(const float* x, int8_t* codes) {
    const BlockScale scale = block_scale_32(largest_magnitude(x, kByteGroup));
    int32_t sums[2];
    quantise_32(x, scale.inverse, codes, sums);
    return float_to_half(scale.d);
}

// 16-bit codes of n (a multiple of 16) values, given the bits of the largest magnitude; and their scale: NaN, with codes 0,
// unless all are finite.
inline float to_words(const float* x, int64_t n, uint32_t magnitude, int16_t* codes) {
    const float largest = std::bit_cast<float>(magnitude), inverse = 32767.0f / largest;
    if (magnitude >= 0x7f800000u || largest < 1e-30f) {  // below, the inverse might be infinite
        __builtin_memset(codes, 0, size_t(n) * sizeof *codes);
        return magnitude >= 0x7f800000u ? NAN : 0.0f;
    }
    for (int64_t i = 0; i < n; i += 16) store_words16(codes + i, load8(x + i) * all8(inverse), load8(x + i + 8) * all8(inverse));
    return largest / 32767.0f;
}

inline float query_codes(const float* q, int16_t* codes) {
    return to_words(q, kByteGroup, largest_magnitude(q, kByteGroup), codes);
}

// ROWS queries, as codes of one group, with a block of keys, which are loaded and widened once for all rows. Few rows have
// several sums each, CHAINS, or one addition would wait for the other. Sums over the groups so far wait in `out`.
template <int ROWS, int CHAINS>
void scores_bytes_tile(const int16_t (*q)[kByteGroup], const float* q_scales, const KeyBytes& keys, bool is_first, float* out,
                       int64_t out_stride) {
    Sums16 sum[ROWS][CHAINS];
    for (int row = 0; row < ROWS; ++row)
        for (int chain = 0; chain < CHAINS; ++chain) sum[row][chain] = no_sums16();
    for (int64_t pair = 0; pair < kByteGroup / 2; pair += CHAINS) {
        for (int chain = 0; chain < CHAINS; ++chain) {
            const Pairs16 key = load_pairs16(keys.codes[pair + chain][0]);
            for (int row = 0; row < ROWS; ++row)
                sum[row][chain] = dot16(sum[row][chain], key, all_pairs16(q[row] + 2 * (pair + chain)));
        }
    }
    const F16 scales = load_halves16(keys.scales);
    for (int row = 0; row < ROWS; ++row) {
        Sums16 all = sum[row][0];
        for (int chain = 1; chain < CHAINS; ++chain) all = add16(all, sum[row][chain]);
        const F16 scale = mul16(scales, all16(q_scales[row]));
        float* place = out + row * out_stride;
        store16(place, fma16(floats16(all), scale, is_first ? none16() : load16(place)));
    }
}

template <int ROWS, int CHAINS>
void scores_bytes_rows(const float* q, int64_t q_stride, const KeyBytes* keys, int64_t blocks, int64_t groups, float scale,
                       float* out, int64_t out_stride) {
    int16_t codes[ROWS][kByteGroup];
    float scales[ROWS];
    for (int64_t g = 0; g < groups; ++g) {
        for (int row = 0; row < ROWS; ++row)
            scales[row] = scale * query_codes(q + row * q_stride + g * kByteGroup, codes[row]);
        for (int64_t block = 0; block < blocks; ++block)
            scores_bytes_tile<ROWS, CHAINS>(codes, scales, keys[g * kChunkBlocks + block], g == 0, out + block * kKeyBlock, out_stride);
    }
}

void scores_bytes(const float* q, int64_t q_stride, int64_t rows, const KeyBytes* keys, int64_t blocks, int64_t groups,
                  float scale, float* out, int64_t out_stride) {
    constexpr int kMost = kWideLanes ? 8 : 3, kTwo = kWideLanes ? 2 : 1;  // sums that fit into the registers
    int64_t row = 0;
    for (; row + kMost <= rows; row += kMost)
        scores_bytes_rows<kMost, kTwo>(q + row * q_stride, q_stride, keys, blocks, groups, scale, out + row * out_stride, out_stride);
    for (; row + 4 <= rows; row += 4)
        scores_bytes_rows<4, kTwo>(q + row * q_stride, q_stride, keys, blocks, groups, scale, out + row * out_stride, out_stride);
    q += row * q_stride;
    out += row * out_stride;
    if (rows - row == 3) scores_bytes_rows<3, kTwo>(q, q_stride, keys, blocks, groups, scale, out, out_stride);
    if (rows - row == 2) scores_bytes_rows<2, 2>(q, q_stride, keys, blocks, groups, scale, out, out_stride);
    if (rows - row == 1) scores_bytes_rows<1, 4>(q, q_stride, keys, blocks, groups, scale, out, out_stride);
}

// Codes of p times a value's scale. Where p is 0 the scale does not count: it may be of a position that is not seen.
inline float weight_codes(const float* p, const uint16_t* scales, int64_t positions, int16_t* codes) {
    float weights[kCacheChunk];
    I8 most = {};
    int64_t i = 0;
    for (; i < positions; i += 8) {
        const F8 own = load8(p + i), weight = own == all8(0) ? all8(0) : own * load_halves8(scales + i);
        store8(weights + i, weight);
        const I8 magnitude = (I8)weight & 0x7fffffff;
        most = magnitude > most ? magnitude : most;
    }
    if (i % 16 != 0) store8(weights + i, all8(0)), i += 8;
    int32_t largest = 0;
    for (int lane = 0; lane < 8; ++lane) largest = most[lane] > largest ? most[lane] : largest;
    return to_words(weights, i, uint32_t(largest), codes);
}

// ROWS rows of weights with VECTORS x 16 dimensions from `dim` on of one group: each value is loaded and widened once.
template <int ROWS, int VECTORS>
void weigh_bytes_tile(const int16_t (*weights)[kCacheChunk], const float* scales, const ValueBytes& values, int64_t positions,
                      int64_t dim, float* out, int64_t out_stride) {
    Sums16 sum[ROWS][VECTORS];
    for (int row = 0; row < ROWS; ++row)
        for (int v = 0; v < VECTORS; ++v) sum[row][v] = no_sums16();
    for (int64_t position = 0; position < positions; position += 2) {
        const auto* codes = values.codes[position / 2];
        Pairs16 value[VECTORS];
        for (int v = 0; v < VECTORS; ++v) value[v] = load_pairs16(codes[dim + 16 * v]);
        for (int row = 0; row < ROWS; ++row) {
            const Pairs16 weight = all_pairs16(weights[row] + position);
            for (int v = 0; v < VECTORS; ++v) sum[row][v] = dot16(sum[row][v], value[v], weight);
        }
    }
    for (int row = 0; row < ROWS; ++row)
        for (int v = 0; v < VECTORS; ++v)
            store16(out + row * out_stride + dim + 16 * v, mul16(floats16(sum[row][v]), all16(scales[row])));
}

// A group is read from its first position to its last: memory in order, whatever the number of groups.
template <int ROWS, int VECTORS>
void weigh_bytes_rows(const float* p, int64_t p_stride, const ValueBytes* values, int64_t positions, int64_t groups, float* out,
                      int64_t out_stride) {
    int16_t weights[ROWS][kCacheChunk];
    float scales[ROWS];
    for (int64_t g = 0; g < groups; ++g) {
        for (int row = 0; row < ROWS; ++row)
            scales[row] = weight_codes(p + row * p_stride, values[g].scales, positions, weights[row]);
        for (int64_t dim = 0; dim < kByteGroup; dim += 16 * VECTORS)
            weigh_bytes_tile<ROWS, VECTORS>(weights, scales, values[g], positions, dim, out + g * kByteGroup, out_stride);
    }
}

void weigh_bytes(const float* p, int64_t p_stride, int64_t rows, const ValueBytes* values, int64_t positions, int64_t groups,
                 float* out, int64_t out_stride) {
    constexpr int kMost = kWideLanes ? 8 : 3, kFew = kWideLanes ? 2 : 1;  // sums that fit into the registers
    int64_t row = 0;
    for (; row + kMost <= rows; row += kMost)
        weigh_bytes_rows<kMost, kFew>(p + row * p_stride, p_stride, values, positions, groups, out + row * out_stride, out_stride);
    for (; row + 4 <= rows; row += 4)
        weigh_bytes_rows<4, kFew>(p + row * p_stride, p_stride, values, positions, groups, out + row * out_stride, out_stride);
    p += row * p_stride;
    out += row * out_stride;
    if (rows - row == 3) weigh_bytes_rows<3, kFew>(p, p_stride, values, positions, groups, out, out_stride);
    if (rows - row == 2) weigh_bytes_rows<2, 2>(p, p_stride, values, positions, groups, out, out_stride);
    if (rows - row == 1) weigh_bytes_rows<1, 2>(p, p_stride, values, positions, groups, out, out_stride);
}

}  // namespace
}  // namespace selfee
