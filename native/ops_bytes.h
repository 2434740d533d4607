// Attention over a cache of bytes: the operations of ops.h with 8-bit keys and values, over lanes as in ops_body.h.
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

constexpr int64_t kLine = 64;  // bytes that are fetched at once

// ROWS queries with BLOCKS blocks of keys: each code is loaded and widened once for all rows. Sums over all groups wait in
// `out`, so that those of the group have the registers.
template <int ROWS, int BLOCKS>
void scores_bytes_tile(const float* q, int64_t q_stride, const KeyBytes* keys, int64_t groups, float scale, float* out,
                       int64_t out_stride) {
    constexpr int64_t kDims = kLine / kKeyBlock;
    for (int64_t g = 0; g < groups; ++g) {
        F16 sum[ROWS][BLOCKS];
        for (int row = 0; row < ROWS; ++row)
            for (int block = 0; block < BLOCKS; ++block) sum[row][block] = none16();
        for (int64_t first = 0; first < kByteGroup; first += kDims) {
            for (int block = 0; block < BLOCKS; ++block)  // past the end: the values, which follow the keys
                prefetch(&keys[block * groups + g].codes[first][0], BLOCKS * groups * int64_t(sizeof(KeyBytes)));
            for (int64_t d = first; d < first + kDims; ++d) {
                F16 key[BLOCKS];
                for (int block = 0; block < BLOCKS; ++block) key[block] = load_bytes16(keys[block * groups + g].codes[d]);
                for (int row = 0; row < ROWS; ++row) {
                    const F16 query = all16(q[row * q_stride + g * kByteGroup + d]);
                    for (int block = 0; block < BLOCKS; ++block) sum[row][block] = fma16(query, key[block], sum[row][block]);
                }
            }
        }
        for (int block = 0; block < BLOCKS; ++block) {
            const F16 own = load_halves16(keys[block * groups + g].scales);
            for (int row = 0; row < ROWS; ++row) {
                float* place = out + row * out_stride + kKeyBlock * block;
                const F16 total = fma16(sum[row][block], own, g == 0 ? none16() : load16(place));
                store16(place, g + 1 == groups ? mul16(total, all16(scale)) : total);
            }
        }
    }
}

template <int ROWS, int BLOCKS>
void scores_bytes_rows(const float* q, int64_t q_stride, const KeyBytes* keys, int64_t blocks, int64_t groups, float scale,
                       float* out, int64_t out_stride) {
    int64_t block = 0;
    for (; block + BLOCKS <= blocks; block += BLOCKS)
        scores_bytes_tile<ROWS, BLOCKS>(q, q_stride, keys + block * groups, groups, scale, out + block * kKeyBlock, out_stride);
    for (; block < blocks; ++block)
        scores_bytes_tile<ROWS, 1>(q, q_stride, keys + block * groups, groups, scale, out + block * kKeyBlock, out_stride);
}

void scores_bytes(const float* q, int64_t q_stride, int64_t rows, const KeyBytes* keys, int64_t blocks, int64_t groups,
                  float scale, float* out, int64_t out_stride) {
    constexpr int kMost = kWideLanes ? 8 : 4, kTwo = kWideLanes ? 2 : 1;  // sums that fit into the registers
    int64_t row = 0;
    for (; row + kMost <= rows; row += kMost)
        scores_bytes_rows<kMost, kTwo>(q + row * q_stride, q_stride, keys, blocks, groups, scale, out + row * out_stride, out_stride);
    for (; row + 4 <= rows; row += 4)
        scores_bytes_rows<4, kTwo>(q + row * q_stride, q_stride, keys, blocks, groups, scale, out + row * out_stride, out_stride);
    q += row * q_stride;
    out += row * out_stride;
    if (rows - row == 3) scores_bytes_rows<3, kTwo>(q, q_stride, keys, blocks, groups, scale, out, out_stride);
    if (rows - row == 2) scores_bytes_rows<2, 2>(q, q_stride, keys, blocks, groups, scale, out, out_stride);
    if (rows - row == 1) scores_bytes_rows<1, 2>(q, q_stride, keys, blocks, groups, scale, out, out_stride);
}

constexpr int64_t kWeighBytesAhead = 32;  // positions; past the end: the next group, or the next head's keys

// ROWS rows of weights with VECTORS x 16 dimensions from `dim` on of one group.
template <int ROWS, int VECTORS>
void weigh_bytes_tile(const float (*weights)[kCacheChunk], const int8_t (*codes)[kByteGroup], int64_t positions, int64_t dim,
                      float* out, int64_t out_stride) {
    F16 sum[ROWS][VECTORS];
    for (int row = 0; row < ROWS; ++row)
        for (int v = 0; v < VECTORS; ++v) sum[row][v] = load16(out + row * out_stride + dim + 16 * v);
    for (int64_t position = 0; position < positions; ++position) {
        prefetch(codes[position], kWeighBytesAhead * kByteGroup);
        F16 value[VECTORS];
        for (int v = 0; v < VECTORS; ++v) value[v] = load_bytes16(codes[position] + dim + 16 * v);
        for (int row = 0; row < ROWS; ++row) {
            const F16 weight = all16(weights[row][position]);
            for (int v = 0; v < VECTORS; ++v) sum[row][v] = fma16(weight, value[v], sum[row][v]);
        }
    }
    for (int row = 0; row < ROWS; ++row)
        for (int v = 0; v < VECTORS; ++v) store16(out + row * out_stride + dim + 16 * v, sum[row][v]);
}

// out = p * scales, each a half.
void scaled(const float* p, const uint16_t* scales, int64_t n, float* out) {
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) store16(out + i, mul16(load16(p + i), load_halves16(scales + i)));
    for (; i < n; ++i) out[i] = p[i] * half_to_float(scales[i]);
}

// A group is read from its first position to its last: memory in order, whatever the number of groups.
template <int ROWS, int VECTORS>
void weigh_bytes_rows(const float* p, int64_t p_stride, const ValueBytes* values, int64_t first, int64_t positions,
                      int64_t groups, float* out, int64_t out_stride) {
    float weights[ROWS][kCacheChunk];
    for (int64_t g = 0; g < groups; ++g) {
        for (int row = 0; row < ROWS; ++row) scaled(p + row * p_stride, values[g].scales + first, positions, weights[row]);
        for (int64_t dim = 0; dim < kByteGroup; dim += 16 * VECTORS)
            weigh_bytes_tile<ROWS, VECTORS>(weights, values[g].codes + first, positions, dim, out + g * kByteGroup, out_stride);
    }
}

void weigh_bytes(const float* p, int64_t p_stride, int64_t rows, const ValueBytes* values, int64_t first, int64_t positions,
                 int64_t groups, float* out, int64_t out_stride) {
    constexpr int kMost = kWideLanes ? 8 : 4, kFew = kWideLanes ? 2 : 1;  // sums that fit into the registers
    int64_t row = 0;
    for (; row + kMost <= rows; row += kMost)
        weigh_bytes_rows<kMost, kFew>(p + row * p_stride, p_stride, values, first, positions, groups, out + row * out_stride, out_stride);
    for (; row + 4 <= rows; row += 4)
        weigh_bytes_rows<4, kFew>(p + row * p_stride, p_stride, values, first, positions, groups, out + row * out_stride, out_stride);
    p += row * p_stride;
    out += row * out_stride;
    if (rows - row == 3) weigh_bytes_rows<3, kFew>(p, p_stride, values, first, positions, groups, out, out_stride);
    if (rows - row == 2) weigh_bytes_rows<2, 2>(p, p_stride, values, first, positions, groups, out, out_stride);
    if (rows - row == 1) weigh_bytes_rows<1, 2>(p, p_stride, values, first, positions, groups, out, out_stride);
}

}  // namespace
}  // namespace selfee
