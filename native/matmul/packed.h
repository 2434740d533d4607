// The packed layout of the 32-value types: eight rows interleaved, so that a register holds four columns of eight rows,
// sums need no folding across lanes and all scales of a register are one load.
//
// A group of eight rows is a sequence of packed blocks, one for each 32 columns:
//   d[8] f16 · m[8] f16 (Q4_1, Q5_1) · high[32] (Q5_*) · codes: word c of rows 0..7, then word c + 1 of rows 0..7, ...
// A word is four bytes of the row's qs.  Bit c of high[4 r + j] is the fifth bit of row r, column 4 c + j.
// Rows past the end are zero.  The same for every instruction set.
#pragma once
#include "blocks.h"
#include "matmul/matmul.h"

namespace selfee {

template <class Block>
struct PackedBlock {
    static constexpr bool has_minimum = requires(Block block) { block.m; };
    static constexpr bool has_high = requires(Block block) { block.qh; };
    static constexpr size_t words = sizeof(Block::qs) / 4;
    static constexpr size_t minimum_at = 16;
    static constexpr size_t high_at = has_minimum ? 32 : 16;
    static constexpr size_t codes_at = high_at + (has_high ? 32 : 0);
    static constexpr size_t bytes = codes_at + 32 * words;
    static_assert(bytes == 8 * sizeof(Block));  // nothing is added, only moved
};

// Packs w whatever the instruction set; false if there is no packed layout for its type.
bool pack_rows(Matrix& w, PackedMemory& memory);

}  // namespace selfee
