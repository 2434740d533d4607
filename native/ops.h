// Everything in the forward pass that is not a matmul, as one table for each instruction set; all give the same bits.
#pragma once
#include <cstdint>

namespace selfee {

constexpr int64_t kKeyBlock = 16;      // positions whose keys lie side by side: [head_dim][16] halves
constexpr int64_t kCacheChunk = 256;   // positions of a head that lie together in a cache
constexpr int64_t kChunkBlocks = kCacheChunk / kKeyBlock;
constexpr int64_t kByteGroup = 32;     // neighbours of a head that share a scale in a cache of bytes

// A cached value is code * scale, a half. Codes lie in the pairs that are multiplied at once: of two dimensions for keys, of
// two positions for values.
struct KeyBytes {  // 32 dimensions of a block of positions
    uint16_t scales[kKeyBlock];
    int8_t codes[kByteGroup / 2][kKeyBlock][2];
};

struct ValueBytes {  // 32 dimensions of a chunk of positions
    uint16_t scales[kCacheChunk];
    int8_t codes[kCacheChunk / 2][kByteGroup][2];
};

struct Ops {
    // out = x / sqrt(mean(x^2) + eps) * weight, for n values. The squares are summed in double, column c in lane c mod 8.
    void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* out);
    // x += y
    void (*add)(float* x, const float* y, int64_t n);
    // gate = gate / (1 + e^-gate) * up
    void (*swiglu)(float* gate, const float* up, int64_t n);
    void (*to_halves)(const float* x, int64_t n, uint16_t* out);
    // out[row][position] = scale * sum over d of q[row][d] * k[d][position], d in order, for `blocks` blocks of keys.
    void (*scores)(const float* q, int64_t q_stride, int64_t rows, const uint16_t* keys, int64_t blocks,
                   int64_t head_dim, float scale, float* out, int64_t out_stride);
    // scores[i] = e^(scores[i] - max(scores)) for n (a multiple of 8) values; the largest and the sum.
    void (*softmax)(float* scores, int64_t n, float* largest, float* sum);
    // out[row][d] += sum over positions of p[row][position] * v[position][d], positions in order; width a multiple of 8.
    void (*weigh)(const float* p, int64_t p_stride, int64_t rows, const uint16_t* values, int64_t positions,
                  int64_t width, float* out, int64_t out_stride);
    // Codes of kByteGroup values and their scale, as activations are rounded (Q8_0, matmul.h).
    uint16_t (*to_bytes)(const float* x, int8_t* codes);
    // scores() with keys [group][block of the chunk]; 32 values of q are rounded to 16 bits with a scale of their own, and
    // what two groups of 32 come to is added in order.
    void (*scores_bytes)(const float* q, int64_t q_stride, int64_t rows, const KeyBytes* keys, int64_t blocks,
                         int64_t groups, float scale, float* out, int64_t out_stride);
    // out = what weigh() would add, with values [group] of a chunk from its first position on; p, times the scales of a
    // group's values, is rounded to 16 bits with a scale of its own. p may be read, and must be 0, up to a multiple of 8.
    void (*weigh_bytes)(const float* p, int64_t p_stride, int64_t rows, const ValueBytes* values, int64_t positions,
                        int64_t groups, float* out, int64_t out_stride);
    // out = out * a + x * b
    void (*blend)(float* out, float a, const float* x, float b, int64_t n);
};

const Ops& scalar_ops();
const Ops& avx2_ops();
const Ops& avx512_ops();

// The table for an instruction set of dispatch.cpp.
const Ops& ops_named(const char* isa);

}  // namespace selfee
