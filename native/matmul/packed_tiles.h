// Kernels for the packed layout (packed.h): lanes are rows, four columns of each at a time, a panel of tokens together.
//
// Each format unpacks the words of one unit of 32 or 16 columns and hands them, in order, to a function; the rest is the
// same for all: multiply, sum up, scale, and add to y as scalar.h says.
#pragma once
#include <algorithm>
#include <utility>

#include "matmul/activations.h"
#include "matmul/packed.h"
#include "matmul/tiles.h"

namespace selfee {
namespace {

constexpr int kParts = int(kGroupRows) / kLanes;  // registers for a group of rows

#define SELFEE_LAMBDA __attribute__((always_inline))

// f(0), f(1), .. f(count - 1), where f takes the number as a type, so that it can be used in constants.
template <int count, class F>
SELFEE_INLINE void repeat(F f) {
    [&]<int... i>(std::integer_sequence<int, i...>) SELFEE_LAMBDA { (f(std::integral_constant<int, i>()), ...); }(std::make_integer_sequence<int, count>());
}

// Units: lines -> words. use(c, codes) gets word c as a number in a type.
struct Nibbles {
    static constexpr Codes kind = Codes::U4;
    static constexpr int words = 8;
    static constexpr size_t lines = 4;
    template <class Use>
    SELFEE_INLINE void each_word(const uint8_t* p, Use use) {
        const Ints low = fill_8(15);
        repeat<4>([&](auto i) SELFEE_LAMBDA {
            const Ints both = line(p + kLine * i);
            use(std::integral_constant<int, i>(), and_(both, low));
            use(std::integral_constant<int, i + 4>(), and_(right_16<4>(both), low));
        });
    }
};

struct Fives {
    static constexpr Codes kind = Codes::U5;
    static constexpr int words = 8;
    static constexpr size_t lines = 5;
    template <class Use>
    SELFEE_INLINE void each_word(const uint8_t* p, Use use) {
        const Ints five = fill_8(31), upper = fill_8(0x1c), two = fill_8(3);
        const Ints a = line(p), b = line(p + kLine);
        use(std::integral_constant<int, 0>(), and_(a, five));
        use(std::integral_constant<int, 1>(), and_(b, five));
        use(std::integral_constant<int, 5>(), or_and(and_(right_16<6>(b), two), right_16<3>(a), upper));
        const Ints c = line(p + 2 * kLine), d = line(p + 3 * kLine);
        use(std::integral_constant<int, 2>(), and_(c, five));
        use(std::integral_constant<int, 3>(), and_(d, five));
        use(std::integral_constant<int, 6>(), or_and(and_(right_16<6>(d), two), right_16<3>(c), upper));
        const Ints e = line(p + 4 * kLine);
        use(std::integral_constant<int, 4>(), and_(e, five));
        const Ints low = or_and(and_(right_16<5>(d), fill_8(1)), right_16<4>(b), fill_8(2));
        use(std::integral_constant<int, 7>(), or_and(low, right_16<3>(e), upper));
    }
};

struct Bytes {
    static constexpr Codes kind = Codes::S8;
    static constexpr int words = 8;
    static constexpr size_t lines = 8;
    template <class Use>
    SELFEE_INLINE void each_word(const uint8_t* p, Use use) {
        repeat<8>([&](auto c) SELFEE_LAMBDA { use(c, line(p + kLine * c)); });
    }
};

// Sixteen values of 6 bits from three lines: codes as well as scales.
template <class Use>
SELFEE_INLINE void each_six(const uint8_t* p, Use use) {
    const Ints six = fill_8(0x3f), a = line(p), b = line(p + kLine), c = line(p + 2 * kLine);
    use(std::integral_constant<int, 0>(), and_(a, six));
    use(std::integral_constant<int, 1>(), and_(b, six));
    use(std::integral_constant<int, 2>(), and_(c, six));
    const Ints low = and_(right_16<6>(a), fill_8(3));
    use(std::integral_constant<int, 3>(), or_and(or_and(low, right_16<4>(b), fill_8(0x0c)), right_16<2>(c), fill_8(0x30)));
}

struct Sixes {
    static constexpr Codes kind = Codes::U6;
    static constexpr int words = 4;
    static constexpr size_t lines = 3;
    template <class Use>
    SELFEE_INLINE void each_word(const uint8_t* p, Use use) { each_six(p, use); }
};

struct Threes {
    static constexpr Codes kind = Codes::U3;
    static constexpr int words = 8;
    static constexpr size_t lines = 3;
    template <class Use>
    SELFEE_INLINE void each_word(const uint8_t* p, Use use) {
        const Ints low = fill_8(7), two = fill_8(3), top = fill_8(4);
        const Ints a = line(p), b = line(p + kLine), c = line(p + 2 * kLine);
        use(std::integral_constant<int, 0>(), and_(a, low));
        use(std::integral_constant<int, 1>(), and_(right_16<3>(a), low));
        use(std::integral_constant<int, 2>(), and_(b, low));
        use(std::integral_constant<int, 3>(), and_(right_16<3>(b), low));
        use(std::integral_constant<int, 4>(), and_(c, low));
        use(std::integral_constant<int, 5>(), and_(right_16<3>(c), low));
        use(std::integral_constant<int, 6>(), or_and(and_(right_16<6>(a), two), right_16<4>(b), top));
        use(std::integral_constant<int, 7>(), or_and(and_(right_16<6>(c), two), right_16<5>(b), top));
    }
};

struct Twos {
    static constexpr Codes kind = Codes::U2;
    static constexpr int words = 4;
    static constexpr size_t lines = 1;
    template <class Use>
    SELFEE_INLINE void each_word(const uint8_t* p, Use use) {
        const Ints two = fill_8(3), all = line(p);
        use(std::integral_constant<int, 0>(), and_(all, two));
        use(std::integral_constant<int, 1>(), and_(right_16<2>(all), two));
        use(std::integral_constant<int, 2>(), and_(right_16<4>(all), two));
        use(std::integral_constant<int, 3>(), and_(right_16<6>(all), two));
    }
};

// The activations of one panel of T tokens, from where the next block begins.
template <int T>
struct Panel {
    const int8_t* codes;
    const float* scales;
    const int32_t *isums, *pairs;
    bool from_memory;  // no panel before this one has read the weights
    Reach reach;
    SELFEE_INLINE_MEMBER const float* fsums() const { return reinterpret_cast<const float*>(isums); }
    SELFEE_INLINE_MEMBER void ask_ahead(const uint8_t* lines, size_t count) const {
        if (!from_memory) return;
        prefetch(lines, reach.near, count);
        if (reach.far != 0) prefetch_far(lines, reach.far, count);
    }
};

// 32-value types.  shift: how far left -8 * the sum of the activations' codes must go to be minus offset times it.
template <class B, class Unit, int kShift>
struct Packed32 {
    using Block = B;
    static constexpr int values = 32, sums = 1, pairs = 0;
    static constexpr Codes kind = Unit::kind;
    static constexpr bool has_offset = kShift >= 0 && (kind != Codes::S8 || kSignedBias != 0);

    template <int T>
    SELFEE_INLINE void block(const uint8_t* header, const uint8_t* lines, const Panel<T>& x, Floats* y) {
        GroupSum<kind> sums[T];
        for (int t = 0; t < T; ++t) {
            if constexpr (has_offset && kStartsAnywhere)
                sums[t].start(left_32<kShift>(every_32(x.isums + t)));
            else
                sums[t].start(zero());
        }
        Unit::each_word(lines, [&](auto c, Ints word) SELFEE_LAMBDA {
            for (int t = 0; t < T; ++t) sums[t].add(word, every_32(x.codes + 4 * (c * T + t)), c == Unit::words - 1);
        });
        x.ask_ahead(lines, PackedBlock<Block>::bytes);
        const Floats d = halves(header);
        Floats minimum = no_floats();
        if constexpr (PackedBlock<Block>::has_minimum) minimum = halves(header + 2 * kGroupRows);
        for (int t = 0; t < T; ++t) {
            Ints sum = sums[t].total();
            if constexpr (has_offset && !kStartsAnywhere) sum = add_32(sum, left_32<kShift>(every_32(x.isums + t)));
            Floats term = mul(mul(d, as_floats(every_32(x.scales + t))), to_floats(sum));
            if constexpr (PackedBlock<Block>::has_minimum) term = add(term, mul(minimum, as_floats(every_32(x.fsums() + t))));
            y[t] = add(y[t], term);
        }
    }
};

// K-quants.  How each keeps its scales: words of four bytes a row, ready for spread_byte, and its minima in pairs.
struct BytesOfScales {  // in four lines; read when they are wanted, since registers are few
    const uint8_t* lines;
    SELFEE_INLINE_MEMBER explicit BytesOfScales(const uint8_t* p) : lines(p) {}
    SELFEE_INLINE_MEMBER Ints read(int i) const { return line_again(lines + kLine * size_t(i)); }
};

struct SixBitScales {  // in three lines
    Ints words[4];
    SELFEE_INLINE_MEMBER explicit SixBitScales(const uint8_t* p) {
        each_six(p, [&](auto i, Ints word) SELFEE_LAMBDA { words[i] = word; });
    }
};

struct ScalesQ2 : BytesOfScales {
    static constexpr bool is_signed = false;
    static constexpr int pairs = int(kPairs16), pairs_at = 0;  // of minima, against which sums
    using BytesOfScales::BytesOfScales;
    SELFEE_INLINE_MEMBER Ints word(int i) const { return and_(read(i), fill_8(15)); }
    template <int j>
    static constexpr int byte = j == 1 ? 2 : j == 2 ? 1 : j;  // of each four the order is 0 2 1 3
    template <int i>
    SELFEE_INLINE_MEMBER Ints minima() const { return and_(right_32<i % 2 == 0 ? 4 : 12>(read(i / 2)), fill_32(0x000f000f)); }
};

struct ScalesQ45 : SixBitScales {
    static constexpr bool is_signed = false;
    static constexpr int pairs = int(kPairs - kPairs16), pairs_at = int(kPairs16);
    using SixBitScales::SixBitScales;
    SELFEE_INLINE_MEMBER Ints word(int i) const { return words[i]; }
    template <int j>
    static constexpr int byte = j;
    template <int i>
    SELFEE_INLINE_MEMBER Ints minima() const {
        return and_(i % 2 == 0 ? words[2 + i / 2] : right_32<8>(words[2 + i / 2]), fill_32(0x00ff00ff));
    }
};

struct ScalesQ3 : SixBitScales {
    static constexpr bool is_signed = true;
    static constexpr int pairs = 0, pairs_at = 0;
    using SixBitScales::SixBitScales;
    SELFEE_INLINE_MEMBER Ints word(int i) const { return sub_8(words[i], fill_8(32)); }
    template <int j>
    static constexpr int byte = j;
};

struct ScalesQ6 : BytesOfScales {
    static constexpr bool is_signed = true;
    static constexpr int pairs = 0, pairs_at = 0;
    using BytesOfScales::BytesOfScales;
    SELFEE_INLINE_MEMBER Ints word(int i) const { return read(i); }
    template <int j>
    static constexpr int byte = j;
};

// kColumns share a scale.  kShift: how far left -4 * the sum of codes must go to be minus offset times it; -1: no offset.
template <class B, class Unit, class Scales, int kColumns, int kShift>
struct Packed256 {
    using Block = B;
    static constexpr int values = 256, sums = int(kSums16), pairs = int(kPairs);
    static constexpr Codes kind = Unit::kind;
    static constexpr bool has_offset = kShift >= 0, has_minimum = PackedBlock<Block>::has_minimum;
    static constexpr int scale_words = 256 / kColumns / 4;
    static constexpr int group_words = kColumns / 4;                        // words that share a scale
    static constexpr int units = 4 * group_words / Unit::words;             // of one word of scales

    SELFEE_INLINE Ints offset_of(const int32_t* start) { return left_32<(kShift > 0 ? kShift : 0)>(every_32(start)); }

    template <int T>
    SELFEE_INLINE void block(const uint8_t* header, const uint8_t* lines, const Panel<T>& x, Floats* y) {
        const Scales scales(lines);
        const uint8_t* unit_lines = lines + kLine * PackedBlock<Block>::scale_lines;
        const int8_t* codes = x.codes;
        const int32_t* starts = x.isums;
        Ints isum[T];
        for (int t = 0; t < T; ++t) isum[t] = zero();
        for (int i = 0; i < scale_words; ++i) {
            const Ints scale_word = scales.word(i);
            repeat<units>([&](auto u) SELFEE_LAMBDA {
                GroupSum<kind> sums[T];
                Unit::each_word(unit_lines + kLine * Unit::lines * u, [&](auto c, Ints word) SELFEE_LAMBDA {
                    constexpr int at = u * Unit::words + c, group = at / group_words;
                    constexpr bool first = at % group_words == 0, last = at % group_words == group_words - 1;
                    if constexpr (first)
                        for (int t = 0; t < T; ++t) {
                            if constexpr (has_offset && kStartsAnywhere)
                                sums[t].start(offset_of(starts + group * T + t));
                            else
                                sums[t].start(zero());
                        }
                    for (int t = 0; t < T; ++t) sums[t].add(word, every_32(codes + 4 * (at * T + t)), last);
                    if constexpr (last) {
                        const Ints scale = spread_byte<Scales::template byte<group>, Scales::is_signed>(scale_word);
                        for (int t = 0; t < T; ++t) {
                            isum[t] = sums[t].plus_scaled(isum[t], scale);
                            if constexpr (has_offset && !kStartsAnywhere)
                                isum[t] = add_32(isum[t], multiply_32(offset_of(starts + group * T + t), scale));
                        }
                    }
                });
            });
            x.ask_ahead(unit_lines, kLine * Unit::lines * units);
            unit_lines += kLine * Unit::lines * units;
            codes += 4 * 4 * group_words * T;
            starts += 4 * T;
        }
        finish<T>(header, scales, x, isum, y);
    }

    // y += (d * d_x) * isum [- (dmin * d_x) * minima . sums of x]
    template <int T>
    SELFEE_INLINE void finish(const uint8_t* header, const Scales& scales, const Panel<T>& x, const Ints* isum, Floats* y) {
        const Floats d = halves(header);
        if constexpr (has_minimum) {
            const Floats dmin = halves(header + 2 * kGroupRows);
            const int32_t* pairs = x.pairs + Scales::pairs_at * T;
            Ints msum[T];
            for (int t = 0; t < T; ++t) msum[t] = zero();
            repeat<Scales::pairs>([&](auto i) SELFEE_LAMBDA {
                const Ints minima = scales.template minima<i>();
                for (int t = 0; t < T; ++t) msum[t] = add_pairs(msum[t], minima, every_32(pairs + i * T + t));
            });
            for (int t = 0; t < T; ++t) {
                const Floats d_x = as_floats(every_32(x.scales + t));
                y[t] = add(y[t], sub(mul(mul(d, d_x), to_floats(isum[t])), mul(mul(dmin, d_x), to_floats(msum[t]))));
            }
        } else {
            for (int t = 0; t < T; ++t) y[t] = add(y[t], mul(mul(d, as_floats(every_32(x.scales + t))), to_floats(isum[t])));
        }
    }
};

// Q2_K for several tokens: scale * code is at most 45, so the products are looked up once and each token only multiplies.
struct PackedQ2 : Packed256<BlockQ2_K, Twos, ScalesQ2, 16, -1> {
    // Of four rows that share sixteen bytes, row r looks up bytes 4 r to 4 r + 3.
    template <class Use>
    SELFEE_INLINE void each_product(Ints all, Ints products, Use use) {
        const Ints row = quarter_offsets(), two = fill_8(3);
        use(std::integral_constant<int, 0>(), shuffle_8(products, or_and(row, all, two)));
        use(std::integral_constant<int, 1>(), shuffle_8(products, or_and(row, right_16<2>(all), two)));
        use(std::integral_constant<int, 2>(), shuffle_8(products, or_and(row, right_16<4>(all), two)));
        use(std::integral_constant<int, 3>(), shuffle_8(products, or_and(row, right_16<6>(all), two)));
    }

    template <int T>
    SELFEE_INLINE void block(const uint8_t* header, const uint8_t* lines, const Panel<T>& x, Floats* y) {
        if constexpr (T < kFoldsFrom) return Packed256::block<T>(header, lines, x, y);
        const ScalesQ2 scales(lines);
        const uint8_t* codes_at = lines + kLine * PackedBlock<Block>::scale_lines;
        const int8_t* codes = x.codes;
        GroupSum<Codes::U6> sums[T];
        for (int t = 0; t < T; ++t) sums[t].start(zero());
        for (int i = 0; i < scale_words; ++i) {
            const Ints scale_word = scales.word(i);
            repeat<4>([&](auto j) SELFEE_LAMBDA {
                const Ints scale = spread_byte<ScalesQ2::byte<j>, false>(scale_word);
                const Ints products = multiply_32(scale, fill_32(0x03020100));
                each_product(line(codes_at + kLine * j), products, [&](auto c, Ints word) SELFEE_LAMBDA {
                    for (int t = 0; t < T; ++t) sums[t].add(word, every_32(codes + 4 * ((4 * j + c) * T + t)), false);
                });
            });
            x.ask_ahead(codes_at, 4 * kLine);
            codes_at += 4 * kLine;
            codes += 64 * T;
        }
        Ints isum[T];
        for (int t = 0; t < T; ++t) isum[t] = sums[t].total();
        finish<T>(header, scales, x, isum, y);
    }
};

// One register of rows, one panel of T tokens. `part` is the register's number within its group.
template <class Format, int T>
static void packed_tile(const uint8_t* group, const ActivationView& a, int64_t first, bool from_memory, int part, Floats* y) {
    using Packed = PackedBlock<typename Format::Block>;
    const int64_t blocks = a.cols / Format::values;
    const uint8_t* header = group + 2 * kLanes * part;
    const uint8_t* lines = group + kLine + 4 * kLanes * part;
    Panel<T> x{a.codes + first * a.cols, a.scales + first * blocks, a.isums + first * blocks * Format::sums,
               a.pairs + first * blocks * Format::pairs, from_memory,
               T <= 4 ? few_tokens_reach : kManyTokensReach};
    Floats sums[T];
    for (int t = 0; t < T; ++t) sums[t] = no_floats();
    for (int64_t b = 1; b <= blocks; ++b) {
        Format::template block<T>(header, lines, x, sums);
        x.codes += T * Format::values;
        x.scales += T;
        x.isums += T * Format::sums;
        x.pairs += T * Format::pairs;
        lines += Packed::bytes;
        if (b % Packed::per_header != 0) {
            header += kLine / 2;
            continue;
        }
        header += kLine + size_t(Packed::per_header) * Packed::bytes - kLine / 2 * size_t(Packed::per_header - 1);
        lines += kLine;
    }
    for (int t = 0; t < T; ++t) y[t] = sums[t];
}

template <class Format, int T>
static void packed_rows(const Matrix& w, const ActivationView& a, int64_t row, int64_t row_end, int64_t first, bool from_memory,
                        float* y, int64_t y_stride) {
    const size_t bytes = packed_group_bytes<typename Format::Block>(w.cols / Format::values);
    const uint8_t* group = static_cast<const uint8_t*>(w.packed.get()) + size_t(row / kGroupRows) * bytes;
    for (int part = 0; part < kParts && row + part * kLanes < row_end; ++part) {
        Floats results[T];
        packed_tile<Format, T>(group, a, first, from_memory, part, results);
        const int64_t rows = std::min<int64_t>(kLanes, row_end - row - part * kLanes);
        for (int t = 0; t < T; ++t) {
            float* to = y + (first + t) * y_stride + row + part * kLanes;
            if (rows == kLanes) {
                store(to, results[t]);
                continue;
            }
            alignas(64) float lanes[kLanes];
            store(lanes, results[t]);
            std::copy(lanes, lanes + rows, to);
        }
    }
}

using PackedRows = void (*)(const Matrix& w, const ActivationView& a, int64_t row, int64_t row_end, int64_t first, bool from_memory,
                            float* y, int64_t y_stride);

// The kernels of one format for panels of 1, 2, .. tokens.
template <class Format, class Widths = std::make_integer_sequence<int, kPanel>>
struct ByWidth;
template <class Format, int... before>
struct ByWidth<Format, std::integer_sequence<int, before...>> {
    static constexpr PackedRows rows[] = {packed_rows<Format, before + 1>...};
};

template <class Format>
static void multiply_panels(const Matrix& w, const ActivationView& a, int64_t row_begin, int64_t row_end, float* y, int64_t y_stride) {
    const int64_t pass = std::max<int64_t>(kPanel, kTokenBytes / a.cols / kPanel * kPanel);
    for (int64_t t_begin = 0; t_begin < a.n; t_begin += pass) {
        const int64_t t_end = std::min(a.n, t_begin + pass);
        for (int64_t row = row_begin; row < row_end; row += kGroupRows)
            for (int64_t t = t_begin; t < t_end; t += kPanel)
                ByWidth<Format>::rows[std::min<int64_t>(kPanel, t_end - t) - 1](
                    w, a, row, row_end, t, t == t_begin, y, y_stride);
    }
}

static void multiply_packed(const Matrix& w, const ActivationView& a, int64_t begin, int64_t end, float* y, int64_t y_stride) {
    const auto run = [&](auto format) { multiply_panels<decltype(format)>(w, a, begin, end, y, y_stride); };
    switch (w.type) {
        case Type::Q4_0: return run(Packed32<BlockQ4_0, Nibbles, 0>{});
        case Type::Q4_1: return run(Packed32<BlockQ4_1, Nibbles, -1>{});
        case Type::Q5_0: return run(Packed32<BlockQ5_0, Fives, 1>{});
        case Type::Q5_1: return run(Packed32<BlockQ5_1, Fives, -1>{});
        case Type::Q8_0: return run(Packed32<BlockQ8_0, Bytes, 4>{});
        case Type::Q2_K: return run(PackedQ2{});
        case Type::Q3_K: return run(Packed256<BlockQ3_K, Threes, ScalesQ3, 16, 0>{});
        case Type::Q4_K: return run(Packed256<BlockQ4_K, Nibbles, ScalesQ45, 32, -1>{});
        case Type::Q5_K: return run(Packed256<BlockQ5_K, Fives, ScalesQ45, 32, -1>{});
        default: return run(Packed256<BlockQ6_K, Sixes, ScalesQ6, 16, 3>{});
    }
}

}  // namespace
}  // namespace selfee
