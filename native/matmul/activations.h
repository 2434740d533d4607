// How activations lie in Activations::storage; known to native/matmul only.
//
//   codes   n rows of cols int8 (Q8_*) or of cols f32, padded with zeros to a multiple of 16 (F32, F16)
//   scales  [block][token] f32: the d of each block (Q8_*), already rounded as the kind says
//   sums    [block][token] int32 sum of codes (Q8_0) · [block][token] f32 s (Q8_1) · [token][cols / 16] int16 (Q8_K)
//
// Scales lie token by token so that the scales of neighbouring tokens are one vector load.
#pragma once
#include "matmul/matmul.h"

namespace selfee {

static inline int64_t activation_block(ActivationKind kind) { return kind == ActivationKind::Q8_K ? 256 : 32; }

static inline bool is_quantised(ActivationKind kind) {
    return kind != ActivationKind::F32 && kind != ActivationKind::F16;
}

// Pointers into one Activations, cheap to copy.
struct ActivationView {
    int64_t n, cols;
    const int8_t* codes;
    const float* floats;
    int64_t float_stride;
    const float* scales;
    const int32_t* isums;
    const float* fsums;
    const int16_t* bsums;
};

static inline ActivationView view(const Activations& a) {
    const uint8_t* base = a.data();
    return {a.n,
            a.cols,
            reinterpret_cast<const int8_t*>(base),
            reinterpret_cast<const float*>(base),
            int64_t(a.row_bytes / sizeof(float)),
            reinterpret_cast<const float*>(base + a.scales_at),
            reinterpret_cast<const int32_t*>(base + a.sums_at),
            reinterpret_cast<const float*>(base + a.sums_at),
            reinterpret_cast<const int16_t*>(base + a.sums_at)};
}

}  // namespace selfee
