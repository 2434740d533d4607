// Kernels for the packed layout (packed.h): lanes are rows, four columns of each at a time.
#pragma once
#include "matmul/formats.h"
#include "matmul/packed.h"
#include "matmul/tiles.h"

namespace selfee {
namespace {

constexpr size_t kAhead = 4096;  // bytes: what a core reads while one access to memory is under way, and some more

// sums[t] += four columns of all rows * four codes of token t.
template <Codes kind, int T>
SELFEE_INLINE void add_columns(Ints codes, const int8_t* x, int64_t stride, Ints* sums) {
    const Weights w = weights<kind>(codes);
    for (int t = 0; t < T; ++t) sums[t] = add_product<kind>(sums[t], w, token_pattern<1>(x + t * stride));
}

// Bit c of every byte of `high`, moved to bit 4.
template <int c>
SELFEE_INLINE Ints fifth_bits(Ints high) {
    return and_(c < 4 ? left_16<(c < 4 ? 4 - c : 0)>(high) : right_16<(c < 4 ? 0 : c - 4)>(high), fill_8(16));
}

template <class Block, Codes kind, int T, int i>
SELFEE_INLINE void add_nibbles(const BlockPointers& block, Ints high, const int8_t* x, int64_t stride, Ints* sums) {
    using Packed = PackedBlock<Block>;
    const Ints both = rows_32(block, Packed::codes_at + 32 * i);
    Ints first = and_(both, fill_8(15)), second = and_(right_16<4>(both), fill_8(15));
    if constexpr (Packed::has_high) {
        first = or_(first, fifth_bits<i>(high));
        second = or_(second, fifth_bits<i + 4>(high));
    }
    add_columns<kind, T>(first, x + 4 * i, stride, sums);
    add_columns<kind, T>(second, x + 16 + 4 * i, stride, sums);
}

// Integer sums of 32 columns, 32-bit lanes.
template <class Block, Codes kind, int T>
SELFEE_INLINE void block_sums(const BlockPointers& block, const int8_t* x, int64_t stride, Ints* sums) {
    using Packed = PackedBlock<Block>;
    for (int t = 0; t < T; ++t) sums[t] = zero();
    if constexpr (kind == Codes::S8) {
        for (int c = 0; c < 8; ++c)
            add_columns<kind, T>(rows_32(block, Packed::codes_at + size_t(32 * c)), x + 4 * c, stride, sums);
        return;
    }
    Ints high = zero(), early[T];
    if constexpr (Packed::has_high) high = rows_32(block, Packed::high_at);
    add_nibbles<Block, kind, T, 0>(block, high, x, stride, sums);
    add_nibbles<Block, kind, T, 1>(block, high, x, stride, sums);
    if constexpr (kFoldsEarly<kind>)
        for (int t = 0; t < T; ++t) {
            early[t] = finished<kind>(sums[t]);
            sums[t] = zero();
        }
    add_nibbles<Block, kind, T, 2>(block, high, x, stride, sums);
    add_nibbles<Block, kind, T, 3>(block, high, x, stride, sums);
    for (int t = 0; t < T; ++t) {
        sums[t] = finished<kind>(sums[t]);
        if constexpr (kFoldsEarly<kind>) sums[t] = add_32(sums[t], early[t]);
    }
}

// One register of rows, T tokens.
template <class Block, Codes kind, int offset, int T>
static void packed_tile(const uint8_t* const* groups, const ActivationView& a, int64_t t0, Floats* y) {
    using Packed = PackedBlock<Block>;
    for (int t = 0; t < T; ++t) y[t] = no_floats();
    for (int64_t b = 0; b < a.cols / 32; ++b) {
        BlockPointers block;
        for (int h = 0; h < kHalves; ++h) block[h] = groups[h] + size_t(b) * Packed::bytes;
        for (int h = 0; h < kHalves; ++h) prefetch(block[h], kAhead, Packed::bytes);
        Ints sums[T];
        block_sums<Block, kind, T>(block, a.codes + t0 * a.cols + 32 * b, a.cols, sums);
        const Floats d = from_halves([&](int h) { return load_128(block[h]); });
        Floats minimum = no_floats();
        if constexpr (Packed::has_minimum) minimum = from_halves([&](int h) { return load_128(block[h] + Packed::minimum_at); });
        for (int t = 0; t < T; ++t) {
            const int64_t at = b * a.n + t0 + t;
            if constexpr (offset != 0) sums[t] = sub_32(sums[t], left_32<__builtin_ctz(offset)>(token_pattern<1>(a.isums + at)));
            Floats term = mul(mul(d, as_floats(token_pattern<1>(a.scales + at))), to_floats(sums[t]));
            if constexpr (Packed::has_minimum) term = add(term, mul(minimum, as_floats(token_pattern<1>(a.fsums + at))));
            y[t] = add(y[t], term);
        }
    }
}

template <class Block, Codes kind, int offset, int T>
static void packed_rows(const Matrix& w, const ActivationView& a, int64_t row, int64_t row_end, int64_t t0, float* y, int64_t y_stride) {
    const auto* packed = static_cast<const uint8_t*>(w.packed.get());
    const uint8_t* groups[kHalves];
    for (int h = 0; h < kHalves; ++h) groups[h] = packed + size_t(std::min(row + 8 * h, row_end - 1) / 8) * 8 * w.row_bytes;
    Floats results[T];
    packed_tile<Block, kind, offset, T>(groups, a, t0, results);
    for (int t = 0; t < T; ++t) {
        float* to = y + (t0 + t) * y_stride + row;
        if (row + kRowTile <= row_end) {
            store(to, results[t]);
            continue;
        }
        alignas(64) float lanes[kLanes];
        store(lanes, results[t]);
        std::copy(lanes, lanes + (row_end - row), to);
    }
}

template <class Block, Codes kind, int offset>
static void multiply_packed(const Matrix& w, const ActivationView& a, int64_t row_begin, int64_t row_end, float* y, int64_t y_stride) {
    const int64_t pass = std::max<int64_t>(8, kTokenBytes / a.cols / 8 * 8);
    for (int64_t t_begin = 0; t_begin < a.n; t_begin += pass) {
        const int64_t t_end = std::min(a.n, t_begin + pass);
        for (int64_t row = row_begin; row < row_end; row += kRowTile) {
            int64_t t = t_begin;
            for (; t_end - t >= 4; t += 4) packed_rows<Block, kind, offset, 4>(w, a, row, row_end, t, y, y_stride);
            if (t_end - t >= 2) packed_rows<Block, kind, offset, 2>(w, a, row, row_end, t, y, y_stride), t += 2;
            if (t_end - t >= 1) packed_rows<Block, kind, offset, 1>(w, a, row, row_end, t, y, y_stride);
        }
    }
}

// False where w has no packed copy.
static bool matmul_packed(const Matrix& w, const ActivationView& a, int64_t begin, int64_t end, float* y, int64_t y_stride) {
    if (!w.packed) return false;
    switch (w.type) {
        case Type::Q4_0: multiply_packed<BlockQ4_0, Codes::U4, 8>(w, a, begin, end, y, y_stride); return true;
        case Type::Q4_1: multiply_packed<BlockQ4_1, Codes::U4, 0>(w, a, begin, end, y, y_stride); return true;
        case Type::Q5_0: multiply_packed<BlockQ5_0, Codes::U5, 16>(w, a, begin, end, y, y_stride); return true;
        case Type::Q5_1: multiply_packed<BlockQ5_1, Codes::U5, 0>(w, a, begin, end, y, y_stride); return true;
        case Type::Q8_0: multiply_packed<BlockQ8_0, Codes::S8, kSignedBias>(w, a, begin, end, y, y_stride); return true;
        default: return false;
    }
}

static void matmul(const Matrix& w, const Activations& activations, int64_t row_begin, int64_t row_end, float* y,
                   int64_t y_stride) {
    const ActivationView a = view(activations);
    if (matmul_packed(w, a, row_begin, row_end, y, y_stride)) return;
    switch (w.type) {
        case Type::F16: return multiply_floats<FloatF16>(w, a, row_begin, row_end, y, y_stride);
        case Type::BF16: return multiply_floats<FloatBF16>(w, a, row_begin, row_end, y, y_stride);
        case Type::Q4_0: return multiply<FormatQ4_0>(w, a, row_begin, row_end, y, y_stride);
        case Type::Q4_1: return multiply<FormatQ4_1>(w, a, row_begin, row_end, y, y_stride);
        case Type::Q5_0: return multiply<FormatQ5_0>(w, a, row_begin, row_end, y, y_stride);
        case Type::Q5_1: return multiply<FormatQ5_1>(w, a, row_begin, row_end, y, y_stride);
        case Type::Q8_0: return multiply<FormatQ8_0>(w, a, row_begin, row_end, y, y_stride);
        case Type::Q2_K: return multiply<FormatQ2_K>(w, a, row_begin, row_end, y, y_stride);
        case Type::Q3_K: return multiply<FormatQ3_K>(w, a, row_begin, row_end, y, y_stride);
        case Type::Q4_K: return multiply<FormatQ4_K>(w, a, row_begin, row_end, y, y_stride);
        case Type::Q5_K: return multiply<FormatQ5_K>(w, a, row_begin, row_end, y, y_stride);
        case Type::Q6_K: return multiply<FormatQ6_K>(w, a, row_begin, row_end, y, y_stride);
        default: return multiply_floats<FloatF32>(w, a, row_begin, row_end, y, y_stride);
    }
}

}  // namespace
}  // namespace selfee
