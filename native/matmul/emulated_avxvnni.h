// The two instructions of AVX-VNNI that the kernels use, by SIMDe: in AVX2, or, where the compiler may use AVX-512 VNNI
// (-mavx512vl -mavx512vnni), as that set's encoding of the same instructions.
#pragma once
#include <immintrin.h>
#include <simde/x86/avx512/dpbusd.h>
#include <simde/x86/avx512/dpwssd.h>

// Also where a compiler has macros of these names.
#undef _mm256_dpbusd_avx_epi32
#undef _mm256_dpwssd_avx_epi32
#define _mm256_dpbusd_avx_epi32 simde_mm256_dpbusd_epi32
#define _mm256_dpwssd_avx_epi32 simde_mm256_dpwssd_epi32
