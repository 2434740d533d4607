// The loops of peaks.h. Compiled once for each instruction set.
#pragma once
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cstring>
#include <initializer_list>

#include "peaks.h"

namespace selfee {
namespace {

constexpr size_t kLine = 64, kStep = 4 * kLine;  // bytes

#if defined(__AVX512F__)
struct Line {
    __m512i all;
};
inline Line load(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
inline Line mix(Line a, Line b) { return {_mm512_xor_si512(a.all, b.all)}; }
inline uint64_t word(Line a) { return uint64_t(_mm_cvtsi128_si64(_mm512_castsi512_si128(a.all))); }
#elif defined(__AVX2__)
struct Line {
    __m256i low, high;
};
inline Line load(const uint8_t* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}
inline Line mix(Line a, Line b) { return {_mm256_xor_si256(a.low, b.low), _mm256_xor_si256(a.high, b.high)}; }
inline uint64_t word(Line a) { return uint64_t(_mm_cvtsi128_si64(_mm256_castsi256_si128(_mm256_xor_si256(a.low, a.high)))); }
#else
struct Line {
    uint64_t words[8];
};
inline Line load(const uint8_t* p) {
    Line line;
    std::memcpy(&line, p, kLine);
    return line;
}
inline Line mix(Line a, Line b) {
    for (int i = 0; i < 8; ++i) a.words[i] ^= b.words[i];
    return a;
}
inline uint64_t word(Line a) {
    uint64_t all = 0;
    for (const uint64_t one : a.words) all ^= one;
    return all;
}
#endif

template <int streams, bool asks_ahead>
uint64_t read(const uint8_t* from, size_t bytes) {
    constexpr uintptr_t kAhead = 4096;
    const size_t piece = bytes / streams / kStep * kStep;
    Line sums[4] = {};
    for (size_t at = 0; at < piece; at += kStep)
        for (int stream = 0; stream < streams; ++stream)
            for (size_t i = 0; i < 4; ++i) {
                const uint8_t* p = from + size_t(stream) * piece + at + kLine * i;
                // An address beyond the buffer is only asked for, never read.
                if constexpr (asks_ahead) __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(p) + kAhead));
                sums[i] = mix(sums[i], load(p));
            }
    return word(mix(mix(sums[0], sums[1]), mix(sums[2], sums[3])));
}

uint64_t read_in_a_way(const uint8_t* bytes, size_t count, int way) {
    switch (way) {
        case 0: return read<1, false>(bytes, count);
        case 1: return read<2, false>(bytes, count);
        case 2: return read<4, false>(bytes, count);
        case 3: return read<1, true>(bytes, count);
        case 4: return read<2, true>(bytes, count);
        default: return read<4, true>(bytes, count);
    }
}

#if defined(__AVX512VNNI__)
using Products = __m512i;
constexpr int64_t kProducts = 64;
inline Products filled(int value) { return _mm512_set1_epi8(char(value)); }
inline Products multiplied(Products sum, Products factor) { return _mm512_dpbusd_epi32(sum, factor, factor); }
inline uint64_t word_of(Products a) { return uint64_t(_mm_cvtsi128_si64(_mm512_castsi512_si128(a))); }
#define SELFEE_KEEP(sum) asm volatile("" : "+v"(sum))
#elif defined(__AVX2__)
using Products = __m256i;
constexpr int64_t kProducts = 32;
inline Products filled(int value) { return _mm256_set1_epi8(char(value)); }
inline Products multiplied(Products sum, Products factor) { return _mm256_maddubs_epi16(sum, factor); }
inline uint64_t word_of(Products a) { return uint64_t(_mm_cvtsi128_si64(_mm256_castsi256_si128(a))); }
#define SELFEE_KEEP(sum) asm volatile("" : "+x"(sum))
#else
using Products = uint64_t;
constexpr int64_t kProducts = 1;  // what the scalar kernels do: one after another
inline Products filled(int value) { return uint64_t(value); }
inline Products multiplied(Products sum, Products factor) { return sum + (sum & 0xff) * factor; }
inline uint64_t word_of(Products a) { return a; }
#define SELFEE_KEEP(sum) asm volatile("" : "+r"(sum))
#endif

// Twelve sums by name: an array of them would live in memory.
void multiply(int64_t rounds, uint64_t* result) {
    const Products factor = filled(3);
    Products a = filled(1), b = a, c = a, d = a, e = a, f = a, g = a, h = a, i = a, j = a, k = a, l = a;
    const auto next = [&](Products& sum) __attribute__((always_inline)) {
        sum = multiplied(sum, factor);
        SELFEE_KEEP(sum);
    };
    for (int64_t round = 0; round < rounds; ++round)
        next(a), next(b), next(c), next(d), next(e), next(f), next(g), next(h), next(i), next(j), next(k), next(l);
    for (const Products& sum : {a, b, c, d, e, f, g, h, i, j, k, l}) *result ^= word_of(sum);
}
#undef SELFEE_KEEP

const Peaks kPeaks = {read_in_a_way, multiply, 12 * kProducts};

}  // namespace
}  // namespace selfee
