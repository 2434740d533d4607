// Blocks -> f32, bit-equal with weights/quants.py and kquants.py: every operation is one binary32 rounding.
#include <stdexcept>
#include <string>

#include "matmul/matmul.h"
#include "matmul/unpack.h"

namespace selfee {
namespace {

template <class Block>
void dequantize_32(const uint8_t* __restrict bytes, int64_t count, float* __restrict out) {
    constexpr bool has_minimum = requires(Block block) { block.m; };
    const auto* blocks = reinterpret_cast<const Block*>(bytes);
    Codes32 codes;
    for (int64_t b = 0; b < count / 32; ++b, out += 32) {
        unpack(blocks[b], codes);
        for (int v = 0; v < 32; ++v) {
            const float product = float(codes.q[v]) * codes.d;
            out[v] = has_minimum ? product + codes.m : product;  // adding 0 would turn -0 into +0
        }
    }
}

template <class Block>
void dequantize_256(const uint8_t* __restrict bytes, int64_t count, float* __restrict out) {
    const auto* blocks = reinterpret_cast<const Block*>(bytes);
    Codes256 codes;
    for (int64_t b = 0; b < count / 256; ++b, out += 256) {
        unpack(blocks[b], codes);
        for (int j = 0; j < 16; ++j) {
            const float scale = codes.d * float(codes.scale[j]), minimum = codes.dmin * float(codes.min[j]);
            for (int v = 16 * j; v < 16 * j + 16; ++v) out[v] = scale * float(codes.q[v]) - minimum;
        }
    }
}

void dequantize_bf16(const uint8_t* __restrict bytes, int64_t count, float* __restrict out) {
    for (int64_t i = 0; i < count; ++i) out[i] = std::bit_cast<float>(uint32_t(load_u16(bytes + 2 * i)) << 16);
}

void dequantize_f16(const uint8_t* __restrict bytes, int64_t count, float* __restrict out) {
    for (int64_t i = 0; i < count; ++i) out[i] = load_half(bytes + 2 * i);
}

}  // namespace


int64_t block_values(Type type) {
    switch (type) {
        case Type::F32: case Type::F16: case Type::BF16: return 1;
        case Type::Q4_0: case Type::Q4_1: case Type::Q5_0: case Type::Q5_1: case Type::Q8_0: return 32;
        case Type::Q2_K: case Type::Q3_K: case Type::Q4_K: case Type::Q5_K: case Type::Q6_K: return 256;
        default: throw std::invalid_argument("type " + std::to_string(int(type)) + ": not a type that weights are stored in");
    }
}

size_t block_bytes(Type type) {
    switch (type) {
        case Type::F32: return 4;
        case Type::F16: case Type::BF16: return 2;
        case Type::Q4_0: return sizeof(BlockQ4_0);
        case Type::Q4_1: return sizeof(BlockQ4_1);
        case Type::Q5_0: return sizeof(BlockQ5_0);
        case Type::Q5_1: return sizeof(BlockQ5_1);
        case Type::Q8_0: return sizeof(BlockQ8_0);
        case Type::Q2_K: return sizeof(BlockQ2_K);
        case Type::Q3_K: return sizeof(BlockQ3_K);
        case Type::Q4_K: return sizeof(BlockQ4_K);
        case Type::Q5_K: return sizeof(BlockQ5_K);
        case Type::Q6_K: return sizeof(BlockQ6_K);
        default: throw std::invalid_argument("type " + std::to_string(int(type)) + ": not a type that weights are stored in");
    }
}

void dequantize(Type type, const uint8_t* blocks, int64_t count, float* out) {
    switch (type) {
        case Type::F32: std::memcpy(out, blocks, size_t(count) * sizeof(float)); return;
        case Type::F16: return dequantize_f16(blocks, count, out);
        case Type::BF16: return dequantize_bf16(blocks, count, out);
        case Type::Q4_0: return dequantize_32<BlockQ4_0>(blocks, count, out);
        case Type::Q4_1: return dequantize_32<BlockQ4_1>(blocks, count, out);
        case Type::Q5_0: return dequantize_32<BlockQ5_0>(blocks, count, out);
        case Type::Q5_1: return dequantize_32<BlockQ5_1>(blocks, count, out);
        case Type::Q8_0: return dequantize_32<BlockQ8_0>(blocks, count, out);
        case Type::Q2_K: return dequantize_256<BlockQ2_K>(blocks, count, out);
        case Type::Q3_K: return dequantize_256<BlockQ3_K>(blocks, count, out);
        case Type::Q4_K: return dequantize_256<BlockQ4_K>(blocks, count, out);
        case Type::Q5_K: return dequantize_256<BlockQ5_K>(blocks, count, out);
        case Type::Q6_K: return dequantize_256<BlockQ6_K>(blocks, count, out);
        default: block_values(type);  // throws
    }
}

}  // namespace selfee
