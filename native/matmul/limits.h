// What the machine can do at best: benchmarks/kernels.py sets these figures beside the kernels'.
#pragma once
#include "matmul/activations.h"

namespace selfee {
namespace {

// Reads `count` bytes in four streams and returns something that depends on all of them.
static uint64_t read_all(const uint8_t* bytes, size_t count) {
    const size_t quarter = count / 4 / 64 * 64;
    __m256i sums[8] = {};
    for (size_t at = 0; at < quarter; at += 64)
        for (size_t i = 0; i < 8; ++i)
            sums[i] = _mm256_xor_si256(sums[i], load_256(bytes + i / 2 * quarter + at + 32 * (i % 2)));
    for (int i = 1; i < 8; ++i) sums[0] = _mm256_xor_si256(sums[0], sums[i]);
    uint64_t words[4];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), sums[0]);
    return words[0] ^ words[1] ^ words[2] ^ words[3];
}

// Byte products from registers, in twelve independent chains. Returns how many multiply-adds were done.
static int64_t multiply_bytes(int64_t rounds, uint64_t* result) {
    Ints sums[12];
    for (int i = 0; i < 12; ++i) sums[i] = fill_8(i + int(*result & 1));
    const Ints factor = fill_8(1 + int(*result & 1));
    for (int64_t round = 0; round < rounds; ++round)
        for (int i = 0; i < 12; ++i) sums[i] = peak_step(sums[i], factor);
    for (int i = 0; i < 12; ++i) *result ^= uint64_t(first_lane(sums[i]));
    return rounds * 12 * kHalves * 32;
}

}  // namespace
}  // namespace selfee
