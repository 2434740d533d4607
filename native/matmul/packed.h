// The packed layout: sixteen rows interleaved, so that one line of 64 bytes holds four columns of sixteen rows, sums need
// no folding across lanes, and the scales of sixteen rows are one load.  Nothing is added, bits are only moved.
//
// A group of sixteen rows is read from its first byte to its last, which is what the machine's own prefetching does best:
//   a header line: d[16] f16 and m[16] or dmin[16] f16 of one block; types without minima: d[16] of two blocks ·
//   the scale lines, then the code lines of that block, or of the first and then of the second.
// Row r owns bytes 4 r .. 4 r + 3 of a line.  A word is four codes of a row, one a byte: columns 4 c .. 4 c + 3 are word c.
//
//   4 bits   32 columns in four lines: line i has word i in the low nibbles and word i + 4 in the high ones.
//   5 bits   32 columns in five lines: words 0 to 4 below.  Above them: word 5 in lines 0 (three bits) and 1 (the two
//            lowest, in bits 6 and 7), word 6 likewise in 2 and 3, word 7 in line 4, its bits 1 and 0 in bit 5 of 1 and 3.
//   8 bits   32 columns in eight lines, 128 added, since vpdpbusd wants one side unsigned.
//   6 bits   sixteen values in three lines: line i has word i below and two bits of word 3 above (bits 2 i and 2 i + 1).
//   3 bits   32 columns in three lines: words 2 i and 2 i + 1 in the lower six bits; words 6 and 7 fill the upper two.
//   2 bits   sixteen columns in one line: word c in bits 2 c and 2 c + 1.
//
// Scale lines: Q2_K four, as its scales are stored, the sixteen bytes of a row in order, minima see below; Q3_K three, 6
// bits, sixteen scales, 32 added; Q4_K and Q5_K three, 6 bits, eight scales and eight minima; Q6_K four, bytes.
// Minima are met as pairs of 16 bits: of each four their order is 0 2 1 3, so that the even bytes are a pair and the odd
// ones the next.  (Q2_K keeps scale and minimum in one byte: there the lines hold scales 0 2 1 3, too.)
#pragma once
#include "blocks.h"
#include "matmul/matmul.h"

namespace selfee {

constexpr int64_t kGroupRows = 16;
constexpr size_t kLine = 4 * size_t(kGroupRows);

// How far in front of the weights to ask for them, in bytes: as near as the first cache, and as the second (0: not there).
struct Reach {
    size_t near, far;
};

// Where many tokens keep a core computing, lines are brought near in two steps.  Where few keep it reading, an AMD Zen 4
// follows the stream by itself and is only helped along; an Intel Xeon 6 reads 1.2 to 1.7 times as fast when asked.
constexpr Reach kManyTokensReach{3072, 8192};
extern const Reach few_tokens_reach;  // up to four tokens; chosen once, by the processor's maker

// What is known of one packed block.
template <class Block, size_t kScaleLines, size_t kCodeLines>
struct PackedLines {
    static constexpr bool has_minimum = requires(Block block) { block.m; } || requires(Block block) { block.dmin; };
    static constexpr int64_t per_header = has_minimum ? 1 : 2;  // blocks
    static constexpr size_t scale_lines = kScaleLines;
    static constexpr size_t bytes = kLine * (kScaleLines + kCodeLines);
    static_assert(bytes + kLine / per_header == size_t(kGroupRows) * sizeof(Block));
};

template <class Block> struct PackedBlock;
template <> struct PackedBlock<BlockQ4_0> : PackedLines<BlockQ4_0, 0, 4> {};
template <> struct PackedBlock<BlockQ4_1> : PackedLines<BlockQ4_1, 0, 4> {};
template <> struct PackedBlock<BlockQ5_0> : PackedLines<BlockQ5_0, 0, 5> {};
template <> struct PackedBlock<BlockQ5_1> : PackedLines<BlockQ5_1, 0, 5> {};
template <> struct PackedBlock<BlockQ8_0> : PackedLines<BlockQ8_0, 0, 8> {};
template <> struct PackedBlock<BlockQ2_K> : PackedLines<BlockQ2_K, 4, 16> {};
template <> struct PackedBlock<BlockQ3_K> : PackedLines<BlockQ3_K, 3, 24> {};
template <> struct PackedBlock<BlockQ4_K> : PackedLines<BlockQ4_K, 3, 32> {};
template <> struct PackedBlock<BlockQ5_K> : PackedLines<BlockQ5_K, 3, 40> {};
template <> struct PackedBlock<BlockQ6_K> : PackedLines<BlockQ6_K, 4, 48> {};

// Where block b of a group has its header and its lines.
template <class Block>
constexpr size_t packed_header_at(int64_t b) {
    using Packed = PackedBlock<Block>;
    const auto before = size_t(b / Packed::per_header), among = size_t(b % Packed::per_header);
    return before * (kLine + size_t(Packed::per_header) * Packed::bytes) + among * (kLine / 2);
}

template <class Block>
constexpr size_t packed_lines_at(int64_t b) {
    using Packed = PackedBlock<Block>;
    const auto before = size_t(b / Packed::per_header);
    return (before + 1) * kLine + size_t(b) * Packed::bytes;
}

template <class Block>
constexpr size_t packed_group_bytes(int64_t blocks) {
    constexpr int64_t per_header = PackedBlock<Block>::per_header;
    return size_t((blocks + per_header - 1) / per_header) * kLine + size_t(blocks) * PackedBlock<Block>::bytes;
}

// Packs the whole of w, whatever the instruction set; does nothing if there is no packed layout for its type.
void pack_all(Matrix& w, PackedMemory& memory);

}  // namespace selfee
