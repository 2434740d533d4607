// One instruction set's quantisers, as a table; native/quantize only.
#pragma once
#include <cstdint>
#include <string>

#include "matmul/matmul.h"

namespace selfee {

enum class Generation : int32_t { June2023 = 0, Current = 1 };

// So many values are worked on in one go: 32 super-blocks, 128 KiB of work that stays in the second-level cache.
constexpr int64_t kRunValues = 8192;

// A run of whole blocks from values that lie together.
struct Run {
    const float* x;            // kRunValues floats, zero after the blocks that count; all finite and below 2^40
    float* weights;            // kRunValues floats to work with
    int64_t count;             // blocks
    uint8_t* out;
    const uint8_t* previous;   // the block before the first (types that remember), or null: zeros
    const float* importance;   // one a column, or null
    int64_t column, columns;   // of the first value; rows are whole blocks
    const float* row_squares;  // for each block the mean square of its row (32-value types with importance)
};

using QuantizeRun = void (*)(const Run& run);

struct Quantisers {
    const char* name;
    // Blocks of any quantised type; null for others.
    QuantizeRun (*find)(Type type, Generation generation, bool weighted);
    void (*widen)(Type type, const uint8_t* source, int64_t count, float* out);   // F32, F16, BF16
    void (*narrow)(Type type, const float* x, int64_t count, uint8_t* out);       // F32, F16, BF16
    // The first of count values whose magnitude is not below the float with these bits; count if there is none.
    int64_t (*first_beyond)(const float* x, int64_t count, uint32_t limit);
    // Adds to sums[0..7] the squares, to sums[8..15] the (weighted) squared differences; element i to lane i % 8.
    void (*add_errors)(const float* x, const float* y, const float* importance, int64_t count, double* sums);
};

const Quantisers& scalar_quantisers();
#if defined(__x86_64__)
const Quantisers& avx2_quantisers();
const Quantisers& avx512_quantisers();
#endif

// By name; std::invalid_argument if the name is unknown or the machine lacks it.
const Quantisers& quantisers_named(const std::string& name);

}  // namespace selfee
