// The loops around formats.h: which rows and tokens are computed together, and what is added in which order.
#pragma once
#include <algorithm>

#include "matmul/activations.h"
#include "matmul/prepare.h"

namespace selfee {
namespace {

constexpr int64_t kRowTile = kLanes;
constexpr int64_t kTokenBytes = 192 * 1024;  // activations of one pass over the rows: less than an L2 cache

// T values that lie together, repeated over all lanes: lane i has value i % T.
template <int T>
SELFEE_INLINE Ints token_pattern(const void* p) {
    if constexpr (T == 1) return for_all_rows(_mm256_set1_epi32(int32_t(load_u32(static_cast<const uint8_t*>(p)))));
    if constexpr (T == 2) return for_all_rows(_mm256_broadcastq_epi64(_mm_loadl_epi64(static_cast<const __m128i*>(p))));
    if constexpr (T == 4) return for_all_rows(_mm256_broadcastsi128_si256(load_128(p)));
    return for_all_rows(load_256(p));
}

// The half at `offset` in the block of each of R rows of a group, each repeated T times.
template <int R, int T>
SELFEE_INLINE __m128i row_pattern(const uint8_t* const* rows, size_t at) {
    uint64_t low = 0, high = 0;
    for (int i = 0; i < 4; ++i) {
        low |= uint64_t(load_u16(rows[i / T] + at)) << (16 * i);
        high |= uint64_t(load_u16(rows[(i + 4) / T] + at)) << (16 * i);
    }
    return _mm_set_epi64x(int64_t(high), int64_t(low));
}

template <int R, int T>
SELFEE_INLINE Floats row_scales(const uint8_t* const* rows, size_t at) {
    return from_halves([&](int h) { return row_pattern<R, T>(rows + h * R, at); });
}

template <class Format>
constexpr size_t minimum_at() {
    if constexpr (requires(typename Format::Block block) { block.m; }) return offsetof(typename Format::Block, m);
    if constexpr (requires(typename Format::Block block) { block.dmin; }) return offsetof(typename Format::Block, dmin);
    return 0;
}

// Asks for memory that is needed soon: the hardware follows neither eight rows at once nor the step to the next page.
// An address past the end does no harm, but it is not a pointer into the array, so it is computed as a number.
SELFEE_INLINE void prefetch(const uint8_t* from, size_t distance, size_t count) {
    const uintptr_t first = reinterpret_cast<uintptr_t>(from) + distance;
    for (size_t at = 0; at < count; at += 64) __builtin_prefetch(reinterpret_cast<const void*>(first + at));
}

// The same, as far as the second-level cache.
SELFEE_INLINE void prefetch_far(const uint8_t* from, size_t distance, size_t count) {
    const uintptr_t first = reinterpret_cast<uintptr_t>(from) + distance;
    for (size_t at = 0; at < count; at += 64) __builtin_prefetch(reinterpret_cast<const void*>(first + at), 0, 2);
}

// R * T = 8 outputs for each row of a register: R * kHalves rows, T tokens.  Lane 8 h + i is row h * R + i / T, token i % T.
template <class Format, int R, int T>
static Floats tile(const uint8_t* const* rows, const ActivationView& a, int64_t t0, size_t ahead) {
    using Block = typename Format::Block;
    static_assert(R * T == 8);
    constexpr bool has_minimum = minimum_at<Format>() != 0;
    Floats y = no_floats();
    for (int64_t b = 0; b < a.cols / Format::values; ++b) {
        const size_t at = size_t(b) * sizeof(Block);
        prefetch(rows[0], ahead + at * R * kHalves, sizeof(Block) * R * kHalves);
        Ints v[8], m[8];
        for (int r = 0; r < R; ++r) {
            BlockPointers block;
            for (int h = 0; h < kHalves; ++h) block[h] = rows[h * R + r] + at;
            Format::template products<T>(block, a, t0, b, v + r * T, m + r * T);
        }
        Ints sums = Format::sums(v);
        const int64_t first = b * a.n + t0;
        if constexpr (Format::offset != 0)
            sums = sub_32(sums, left_32<__builtin_ctz(Format::offset)>(token_pattern<T>(a.isums + first)));
        const Floats d_x = as_floats(token_pattern<T>(a.scales + first));
        Floats term = mul(mul(row_scales<R, T>(rows, at + offsetof(Block, d)), d_x), to_floats(sums));
        if constexpr (has_minimum) {
            const Floats minimum = row_scales<R, T>(rows, at + minimum_at<Format>());
            if constexpr (Format::has_sub_minima)
                term = sub(term, mul(mul(minimum, d_x), to_floats(sum_each_32(m))));
            else
                term = add(term, mul(minimum, as_floats(token_pattern<T>(a.fsums + first))));
        }
        y = add(y, term);
    }
    return y;
}

template <class Format, int R, int T>
static void rows_by_tokens(const Matrix& w, const ActivationView& a, int64_t row, int64_t row_end, int64_t t0, float* y,
                           int64_t y_stride) {
    constexpr int kRows = R * kHalves;
    for (; row < row_end; row += kRows) {
        const uint8_t* rows[kRows];  // past the end: the last row again, whose result is dropped
        for (int r = 0; r < kRows; ++r) rows[r] = w.data + size_t(std::min(row + r, row_end - 1)) * w.row_bytes;
        // Rows lie one after the other: what the next step reads is as long as this one, and in one piece.
        const Floats result = tile<Format, R, T>(rows, a, t0, size_t(kRowTile) * w.row_bytes);
        if (T == 1 && row + kRows <= row_end) {
            store(y + t0 * y_stride + row, result);
            continue;
        }
        alignas(64) float lanes[kLanes];
        store(lanes, result);
        for (int r = 0; r < kRows && row + r < row_end; ++r)
            for (int t = 0; t < T; ++t) y[(t0 + t) * y_stride + row + r] = lanes[r / R * 8 + r % R * T + t];
    }
}

// All rows of a range in steps of kRowTile, tokens in groups of 8, 4, 2, 1; weights of a step stay in L1.
template <class Format>
static void multiply(const Matrix& w, const ActivationView& a, int64_t row_begin, int64_t row_end, float* y, int64_t y_stride) {
    const int64_t pass = std::max<int64_t>(8, kTokenBytes / a.cols / 8 * 8);
    for (int64_t t_begin = 0; t_begin < a.n; t_begin += pass) {
        const int64_t t_end = std::min(a.n, t_begin + pass);
        for (int64_t row = row_begin; row < row_end; row += kRowTile) {
            const int64_t end = std::min(row_end, row + kRowTile);
            int64_t t = t_begin;
            for (; t_end - t >= 8; t += 8) rows_by_tokens<Format, 1, 8>(w, a, row, end, t, y, y_stride);
            if (t_end - t >= 4) rows_by_tokens<Format, 2, 4>(w, a, row, end, t, y, y_stride), t += 4;
            if (t_end - t >= 2) rows_by_tokens<Format, 4, 2>(w, a, row, end, t, y, y_stride), t += 2;
            if (t_end - t >= 1) rows_by_tokens<Format, 8, 1>(w, a, row, end, t, y, y_stride);
        }
    }
}

// Weights that are floats: `bytes` each, sixteen at a time through load().
struct FloatF32 {
    static constexpr size_t bytes = 4;
    SELFEE_INLINE Lanes16 load(const void* p) { return load_f32(p); }
};
struct FloatF16 {
    static constexpr size_t bytes = 2;
    SELFEE_INLINE Lanes16 load(const void* p) { return load_f16(p); }
};
struct FloatBF16 {
    static constexpr size_t bytes = 2;
    SELFEE_INLINE Lanes16 load(const void* p) { return load_bf16(p); }
};

template <class Format, int R, int T>
static void float_tile(const uint8_t* const* rows, const ActivationView& a, int64_t t0, float* out) {
    Lanes16 sums[R][T];
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < T; ++t) sums[r][t] = no_lanes();
    const float* x = a.floats + t0 * a.float_stride;
    const auto step = [&](const uint8_t* const* from, size_t offset, int64_t c) {
        Lanes16 w[R];
        for (int r = 0; r < R; ++r) w[r] = Format::load(from[r] + offset);
        for (int t = 0; t < T; ++t) {
            const Lanes16 v = load_f32(x + t * a.float_stride + c);
            for (int r = 0; r < R; ++r) sums[r][t] = fma(w[r], v, sums[r][t]);
        }
    };
    int64_t c = 0;
    for (; c + 16 <= a.cols; c += 16) step(rows, size_t(c) * Format::bytes, c);
    if (c < a.cols) {  // the end of a row, padded with zeros
        uint8_t ends[R][16 * Format::bytes] = {};
        const uint8_t* from[R];
        for (int r = 0; r < R; ++r) {
            std::memcpy(ends[r], rows[r] + size_t(c) * Format::bytes, size_t(a.cols - c) * Format::bytes);
            from[r] = ends[r];
        }
        step(from, 0, c);
    }
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < T; ++t) out[r * T + t] = sum(sums[r][t]);
}

template <class Format, int R, int T>
static void float_rows(const Matrix& w, const ActivationView& a, int64_t row, int64_t row_end, int64_t t0, float* y,
                       int64_t y_stride) {
    for (; row < row_end; row += R) {
        const uint8_t* rows[R];
        for (int r = 0; r < R; ++r) rows[r] = w.data + size_t(std::min(row + r, row_end - 1)) * w.row_bytes;
        float out[R * T];
        float_tile<Format, R, T>(rows, a, t0, out);
        for (int r = 0; r < R && row + r < row_end; ++r)
            for (int t = 0; t < T; ++t) y[(t0 + t) * y_stride + row + r] = out[r * T + t];
    }
}

template <class Format>
static void multiply_floats(const Matrix& w, const ActivationView& a, int64_t row_begin, int64_t row_end, float* y,
                            int64_t y_stride) {
    constexpr int kTokens = kFloatTokens;
    const int64_t pass = std::max<int64_t>(kTokens, kTokenBytes / int64_t(sizeof(float)) / a.cols / kTokens * kTokens);
    for (int64_t t_begin = 0; t_begin < a.n; t_begin += pass) {
        const int64_t t_end = std::min(a.n, t_begin + pass);
        for (int64_t row = row_begin; row < row_end; row += kRowTile) {
            const int64_t end = std::min(row_end, row + kRowTile);
            int64_t t = t_begin;
            for (; t_end - t >= kTokens; t += kTokens) float_rows<Format, kFloatRows, kTokens>(w, a, row, end, t, y, y_stride);
            if (kTokens > 2 && t_end - t >= 2) float_rows<Format, kFloatRows, 2>(w, a, row, end, t, y, y_stride), t += 2;
            if (t_end - t >= 1) float_rows<Format, 4, 1>(w, a, row, end, t, y, y_stride);
        }
    }
}

}  // namespace
}  // namespace selfee
