// The operations of ops.h over lanes. Compiled once for each instruction set, see ops_lanes.h.
#pragma once
#include "ops.h"
#include "ops_bytes.h"
#include "ops_lanes.h"

namespace selfee {
namespace {

void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* out) {
    D4 low = {}, high = {};
    for (int64_t c = 0; c < n; c += 8) {
        const F8 v = n - c >= 8 ? load8(x + c) : load_some8(x + c, n - c, 0.0f), square = v * v;
        low += __builtin_convertvector((F4{square[0], square[1], square[2], square[3]}), D4);
        high += __builtin_convertvector((F4{square[4], square[5], square[6], square[7]}), D4);
    }
    const D4 lanes = low + high;
    const float mean = float(((lanes[0] + lanes[2]) + (lanes[1] + lanes[3])) / double(n));
    const float factor = 1.0f / __builtin_sqrtf(mean + eps);
    for (int64_t c = 0; c < n; ++c) out[c] = x[c] * factor * weight[c];
}

void add(float* x, const float* y, int64_t n) {
    for (int64_t c = 0; c < n; ++c) x[c] = x[c] + y[c];
}

inline F8 swiglu8(F8 gate, F8 up) { return gate / (all8(1.0f) + exp8(-gate)) * up; }

void swiglu(float* gate, const float* up, int64_t n) {
    int64_t c = 0;
    for (; c + 8 <= n; c += 8) store8(gate + c, swiglu8(load8(gate + c), load8(up + c)));
    if (c < n) store_some8(gate + c, swiglu8(load_some8(gate + c, n - c, 0), load_some8(up + c, n - c, 0)), n - c);
}

void to_halves(const float* x, int64_t n, uint16_t* out) {
    int64_t c = 0;
    for (; c + 8 <= n; c += 8) store_halves8(out + c, load8(x + c));
    for (; c < n; ++c) out[c] = float_to_half(x[c]);
}

// ROWS queries with BLOCKS blocks of keys: each key is loaded and widened once for all rows.
template <int ROWS, int BLOCKS>
void scores_tile(const float* q, int64_t q_stride, const uint16_t* keys, int64_t head_dim, float scale, float* out,
                 int64_t out_stride) {
    F16 sum[ROWS][BLOCKS];
    for (int row = 0; row < ROWS; ++row)
        for (int block = 0; block < BLOCKS; ++block) sum[row][block] = none16();
    for (int64_t d = 0; d < head_dim; ++d) {
        prefetch_halves(keys, (head_dim + d) * BLOCKS * kKeyBlock);  // past the end: the values, which follow the keys
        F16 key[BLOCKS];
        for (int block = 0; block < BLOCKS; ++block) key[block] = load_halves16(keys + (block * head_dim + d) * kKeyBlock);
        for (int row = 0; row < ROWS; ++row) {
            const F16 query = all16(q[row * q_stride + d]);
            for (int block = 0; block < BLOCKS; ++block) sum[row][block] = fma16(query, key[block], sum[row][block]);
        }
    }
    for (int row = 0; row < ROWS; ++row)
        for (int block = 0; block < BLOCKS; ++block)
            store16(out + row * out_stride + kKeyBlock * block, mul16(sum[row][block], all16(scale)));
}

template <int ROWS, int BLOCKS>
void scores_rows(const float* q, int64_t q_stride, const uint16_t* keys, int64_t blocks, int64_t head_dim, float scale,
                 float* out, int64_t out_stride) {
    int64_t block = 0;
    for (; block + BLOCKS <= blocks; block += BLOCKS)
        scores_tile<ROWS, BLOCKS>(q, q_stride, keys + block * head_dim * kKeyBlock, head_dim, scale,
                                  out + block * kKeyBlock, out_stride);
    for (; block < blocks; ++block)
        scores_tile<ROWS, 1>(q, q_stride, keys + block * head_dim * kKeyBlock, head_dim, scale, out + block * kKeyBlock,
                             out_stride);
}

void scores(const float* q, int64_t q_stride, int64_t rows, const uint16_t* keys, int64_t blocks, int64_t head_dim,
            float scale, float* out, int64_t out_stride) {
    constexpr int kMost = kWideLanes ? 8 : 4, kTwo = kWideLanes ? 2 : 1;  // sums that fit into the registers
    int64_t row = 0;
    for (; row + kMost <= rows; row += kMost)
        scores_rows<kMost, kTwo>(q + row * q_stride, q_stride, keys, blocks, head_dim, scale, out + row * out_stride, out_stride);
    for (; row + 4 <= rows; row += 4)
        scores_rows<4, kTwo>(q + row * q_stride, q_stride, keys, blocks, head_dim, scale, out + row * out_stride, out_stride);
    q += row * q_stride;
    out += row * out_stride;
    if (rows - row == 3) scores_rows<3, kTwo>(q, q_stride, keys, blocks, head_dim, scale, out, out_stride);
    if (rows - row == 2) scores_rows<2, 2>(q, q_stride, keys, blocks, head_dim, scale, out, out_stride);
    if (rows - row == 1) scores_rows<1, 2>(q, q_stride, keys, blocks, head_dim, scale, out, out_stride);
}

void softmax(float* scores, int64_t n, float* largest, float* sum) {
    F8 most = load8(scores);
    for (int64_t i = 8; i < n; i += 8) {
        const F8 v = load8(scores + i);
        most = v > most ? v : most;
    }
    float top = most[0];
    for (int lane = 1; lane < 8; ++lane) top = most[lane] > top ? most[lane] : top;
    F8 total = {};
    for (int64_t i = 0; i < n; i += 8) {
        const F8 e = exp8(load8(scores + i) - all8(top));
        store8(scores + i, e);
        total += e;
    }
    *largest = top;
    *sum = sum8(total);
}

constexpr int64_t kWeighAhead = 32;  // positions; past the end: the next head's keys

// ROWS rows of weights with VECTORS x 16 dimensions: each value is loaded and widened once for all rows.
template <int ROWS, int VECTORS>
void weigh_tile(const float* p, int64_t p_stride, const uint16_t* values, int64_t positions, int64_t width, float* out,
                int64_t out_stride) {
    F16 sum[ROWS][VECTORS];
    for (int row = 0; row < ROWS; ++row)
        for (int v = 0; v < VECTORS; ++v) sum[row][v] = load16(out + row * out_stride + 16 * v);
    for (int64_t position = 0; position < positions; ++position) {
        for (int v = 0; v < VECTORS; v += 2) prefetch_halves(values, (position + kWeighAhead) * width + 16 * v);
        F16 value[VECTORS];
        for (int v = 0; v < VECTORS; ++v) value[v] = load_halves16(values + position * width + 16 * v);
        for (int row = 0; row < ROWS; ++row) {
            const F16 weight = all16(p[row * p_stride + position]);
            for (int v = 0; v < VECTORS; ++v) sum[row][v] = fma16(weight, value[v], sum[row][v]);
        }
    }
    for (int row = 0; row < ROWS; ++row)
        for (int v = 0; v < VECTORS; ++v) store16(out + row * out_stride + 16 * v, sum[row][v]);
}

// The last eight dimensions of a width that is no multiple of 16.
void weigh_eight(const float* p, const uint16_t* values, int64_t positions, int64_t width, float* out) {
    F8 sum = load8(out);
    for (int64_t position = 0; position < positions; ++position)
        sum = fma8(all8(p[position]), load_halves8(values + position * width), sum);
    store8(out, sum);
}

template <int ROWS, int VECTORS>
void weigh_rows(const float* p, int64_t p_stride, const uint16_t* values, int64_t positions, int64_t width, float* out,
                int64_t out_stride) {
    int64_t d = 0;
    for (; d + 16 * VECTORS <= width; d += 16 * VECTORS)
        weigh_tile<ROWS, VECTORS>(p, p_stride, values + d, positions, width, out + d, out_stride);
    for (; d + 16 <= width; d += 16) weigh_tile<ROWS, 1>(p, p_stride, values + d, positions, width, out + d, out_stride);
    for (int row = 0; d < width && row < ROWS; ++row)
        weigh_eight(p + row * p_stride, values + d, positions, width, out + row * out_stride + d);
}

void weigh(const float* p, int64_t p_stride, int64_t rows, const uint16_t* values, int64_t positions, int64_t width,
           float* out, int64_t out_stride) {
    constexpr int kFour = kWideLanes ? 4 : 1, kSeveral = kWideLanes ? 4 : 2;  // sums that fit into the registers
    int64_t row = 0;
    for (; row + 4 <= rows; row += 4)
        weigh_rows<4, kFour>(p + row * p_stride, p_stride, values, positions, width, out + row * out_stride, out_stride);
    p += row * p_stride;
    out += row * out_stride;
    if (rows - row == 3) weigh_rows<3, kSeveral>(p, p_stride, values, positions, width, out, out_stride);
    if (rows - row == 2) weigh_rows<2, kSeveral>(p, p_stride, values, positions, width, out, out_stride);
    // All of a head of 128 in one pass, which reads memory in order.
    if (rows - row == 1 && kWideLanes && width >= 128) weigh_rows<1, 8>(p, p_stride, values, positions, width, out, out_stride);
    else if (rows - row == 1) weigh_rows<1, 4>(p, p_stride, values, positions, width, out, out_stride);
}

void blend(float* out, float a, const float* x, float b, int64_t n) {
    for (int64_t c = 0; c < n; ++c) out[c] = out[c] * a + x[c] * b;
}

constexpr Ops kOps = {rms_norm, add, swiglu, to_halves, scores, softmax, weigh, to_bytes, scores_bytes, weigh_bytes, blend};

}  // namespace
}  // namespace selfee
