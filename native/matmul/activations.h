// How activations lie in Activations::storage; known to native/matmul only.
//
//   codes   n rows of cols int8 (Q8_*) or of cols f32, padded with zeros to a multiple of 16 (F32, F16)
//   scales  [block][token] f32: the d of each block (Q8_*), already rounded as the kind says
//   sums    [block][token] int32 sum of codes (Q8_0) · [block][token] f32 s (Q8_1) · [token][cols / 16] int16 (Q8_K)
//
// Scales lie token by token so that the scales of neighbouring tokens are one vector load.
//
// For packed weights (panel > 0) all lies in panels of `panel` tokens, the last one narrower, so that what one step of a
// kernel reads lies together.  Within a panel:
//
//   codes   [four columns][token] four int8
//   scales  [block][token] f32
//   sums    [block][token] int32 -8 * sum of codes (Q8_0) · f32 s (Q8_1) ·
//           [block][sixteen columns][token] int32 -4 * sum of codes (Q8_K)
//   pairs   Q8_K only: [block][12][token] two int16: eight pairs of sums of 16 codes, then four pairs of sums of 32
#pragma once
#include "matmul/matmul.h"

namespace selfee {

constexpr int64_t kSums16 = 16, kPairs16 = 8, kPairs = 12;  // of 256 codes: sums of 16, pairs of them, pairs of all

static inline int64_t activation_block(ActivationKind kind) { return kind == ActivationKind::Q8_K ? 256 : 32; }

static inline bool is_quantised(ActivationKind kind) {
    return kind != ActivationKind::F32 && kind != ActivationKind::F16;
}

// How the work of preparing is divided: some blocks of all tokens of a panel, so that no two threads write to one line.
struct PrepareParts {
    int64_t tokens, blocks, slices, all_blocks;  // of a part; parts of a panel; blocks of a token
};

static inline PrepareParts prepare_parts_of(const Activations& a) {
    constexpr int64_t kColumns = 512, kTokens = 8;
    if (!is_quantised(a.kind)) return {kTokens, 1, 1, 1};
    const int64_t blocks = kColumns / activation_block(a.kind), all = a.cols / activation_block(a.kind);
    return {a.panel > 0 ? a.panel : kTokens, blocks, (all + blocks - 1) / blocks, all};
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
    int64_t panel;
    const int32_t* pairs;
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
            reinterpret_cast<const int16_t*>(base + a.sums_at),
            a.panel,
            reinterpret_cast<const int32_t*>(base + a.pairs_at)};
}

// Where a value of token t lies among those of its panel, `count` for each token: value i is at [at + i * step].
struct PanelPlace {
    int64_t at, step;
};

static inline PanelPlace panel_place(int64_t n, int64_t panel, int64_t t, int64_t count) {
    const int64_t first = t / panel * panel, width = n - first < panel ? n - first : panel;
    return {first * count + t - first, width};
}

// The code of token t in column c, and the scale of its block b.
static inline int8_t code_at(const ActivationView& a, int64_t t, int64_t c) {
    if (a.panel == 0) return a.codes[t * a.cols + c];
    const PanelPlace place = panel_place(a.n, a.panel, t, a.cols / 4);
    return a.codes[(place.at + c / 4 * place.step) * 4 + c % 4];
}

static inline float scale_at(const ActivationView& a, int64_t t, int64_t b, int64_t blocks) {
    if (a.panel == 0) return a.scales[b * a.n + t];
    const PanelPlace place = panel_place(a.n, a.panel, t, blocks);
    return a.scales[place.at + b * place.step];
}

}  // namespace selfee
