// SIMDe's AVX-512, and the few instructions that it lacks (0.7), each as two AVX2 instructions.
#pragma once
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <immintrin.h>
#include <simde/x86/avx512.h>

namespace selfee {
namespace {

template <class Result, class Half>
inline Result two_halves(Half low, Half high) {
    static_assert(sizeof(Result) == 2 * sizeof(Half));
    Result result;
    __builtin_memcpy(&result, &low, sizeof low);
    __builtin_memcpy(reinterpret_cast<char*>(&result) + sizeof low, &high, sizeof high);
    return result;
}

inline __m512 emulated_cvtepi32_ps(__m512i a) {
    __m256i halves[2];
    __builtin_memcpy(halves, &a, sizeof a);
    return two_halves<__m512>(_mm256_cvtepi32_ps(halves[0]), _mm256_cvtepi32_ps(halves[1]));
}

inline __m512i emulated_cvtepu16_epi32(__m256i a) {
    return two_halves<__m512i>(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(a)),
                               _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1)));
}

inline __m512i emulated_srai_epi32(__m512i a, unsigned int count) {
    __m256i halves[2];
    __builtin_memcpy(halves, &a, sizeof a);
    return two_halves<__m512i>(_mm256_srai_epi32(halves[0], int(count)), _mm256_srai_epi32(halves[1], int(count)));
}

inline __m512 emulated_cvtph_ps(__m256i a) {
    return two_halves<__m512>(_mm256_cvtph_ps(_mm256_castsi256_si128(a)),
                              _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1)));
}

}  // namespace
}  // namespace selfee

#define _mm512_cvtepi32_ps selfee::emulated_cvtepi32_ps
#define _mm512_srai_epi32 selfee::emulated_srai_epi32
#define _mm512_cvtepu16_epi32 selfee::emulated_cvtepu16_epi32
#define _mm512_cvtph_ps selfee::emulated_cvtph_ps
#undef _mm512_madd_epi16  // SIMDe gives this name to the masked function
#define _mm512_madd_epi16 simde_mm512_madd_epi16
