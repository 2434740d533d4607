// Quantised matrix x activations: the one interface between the kernels and the forward pass.
//
// y[t, r] = sum_c W[r, c] * x[t, c].  W is stored in blocks (blocks.h), x is f32.  Activations are quantised once per
// input (prepare) and shared by all matrices that read it.  The bits of y[t, r] depend on row r and token t only:
// never on n_tokens, on the rows computed with it, on the number of threads, or on the instruction set.
//
// That is possible because the sums inside a block are integers, hence exact, and the order of everything that rounds
// is fixed (scalar.h):  y = 0; for each block, in order: y += (d_w * d_x) * isum  [+ m_w * s_x]  [- (dmin_w * d_x) * msum].
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace selfee {

enum class Type : int32_t {
    F32 = 0, F16 = 1, Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q8_1 = 9,
    Q2_K = 10, Q3_K = 11, Q4_K = 12, Q5_K = 13, Q6_K = 14, Q8_K = 15, BF16 = 30,
};

// What the kernel of a weight type wants its activations to be; the choice of llama.cpp, whose results we meet.
//   F32   as they are: for F32 and BF16 weights (llama.cpp rounds to bf16 for the latter; we do not).
//   F16   rounded to half: for F16 weights.  Kept as f32.  The product of two halves is exact in f32.
//   Q8_0  32 values: d = half(amax / 127), q = nearest-even(x * (127 / amax)): for Q4_0, Q5_0, Q8_0.
//   Q8_1  the same with s = half((amax / 127) * sum(q)), which the minimum of a Q4_1 or Q5_1 block multiplies.
//   Q8_K  256 values: d = 1 / (-128 / the largest by magnitude) in f32, q = nearest-even(x / d), at most 127: for the
//         k-quants.  So did llama.cpp of 2023; today's has 127, which is coarser and further from the golden logits.
// A block with an infinity or NaN gets codes 0 and d = s = NaN, so what went wrong is seen in the result.
enum class ActivationKind : int32_t { F32, F16, Q8_0, Q8_1, Q8_K };

ActivationKind activation_kind(Type weight_type);

struct Matrix {
    Type type = Type::F32;
    int64_t rows = 0, cols = 0;
    const uint8_t* data = nullptr;   // blocks as in the file, row after row, no padding between rows
    size_t row_bytes = 0;
    std::shared_ptr<const void> packed;  // a repacked copy for the kernels of the active ISA, or null
};

// Activations of n tokens in the form of one ActivationKind.  Reused from call to call; grows, never shrinks.
// How data() is divided is known to native/matmul only (activations.h).
struct Activations {
    ActivationKind kind = ActivationKind::F32;
    int64_t n = 0, cols = 0;
    int64_t panel = 0;               // tokens that lie interleaved, for packed weights; 0: token after token
    size_t row_bytes = 0;            // of the codes (or floats) of one token
    size_t scales_at = 0, sums_at = 0, pairs_at = 0;
    std::vector<uint8_t> storage;    // 64-byte aligned access through data()
    uint8_t* data();
    const uint8_t* data() const;
    void reshape(ActivationKind kind, int64_t n, int64_t cols, int64_t panel);
};

// Makes a ready to take n tokens for w; all matrices that share_activations(w, ...) can read them.
void reshape_for(const Matrix& w, int64_t n, Activations& a);
bool share_activations(const Matrix& one, const Matrix& other);

// Quantise x (row stride x_stride floats) into a, which must have been reshaped for the matrix: parts [begin, end) of
// prepare_parts(a), about four thousand values each. Thread-safe for disjoint parts.
int64_t prepare_parts(const Activations& a);
void prepare(Activations& a, const float* x, int64_t x_stride, int64_t begin, int64_t end);

// Compute rows [row_begin, row_end) for all a.n tokens: y[t * y_stride + r]. Thread-safe for disjoint rows.
// row_begin and row_end are multiples of row_granularity(w) (row_end may be w.rows).
void matmul_rows(const Matrix& w, const Activations& a, int64_t row_begin, int64_t row_end, float* y, int64_t y_stride);
int64_t row_granularity(const Matrix& w);

// Memory for the packed weights of one model: a few large pieces, in huge pages where the system has them, since a
// small page costs a table walk every few hundred cycles of streaming. A piece is freed with the last matrix in it.
// Not thread-safe: one for each thread that packs.
class PackedMemory {
public:
    std::shared_ptr<uint8_t> take(size_t bytes);  // 64-byte aligned

private:
    std::shared_ptr<uint8_t> piece_;
    size_t used_ = 0, size_ = 0;
};

// The layout that the kernels in use are fastest with, as a copy of the weights; the file's own serves too, more slowly.
// Never changes a bit of a result.  Costs packed_bytes(w) of memory and one pass over the weights, which threads may
// share: each fills some of the groups.  Once w.packed is set, matmul_rows does not read w.data any more.
int64_t packed_groups(const Matrix& w);  // 0 where there is no such layout for the type or the instruction set
size_t packed_bytes(const Matrix& w);
void pack_groups(const Matrix& w, int64_t begin, int64_t end, uint8_t* packed);

// De-quantise `count` values starting at a block boundary. Bit-exact with weights/quants.py and kquants.py.
void dequantize(Type type, const uint8_t* blocks, int64_t count, float* out);

// Values and bytes of one block. std::invalid_argument for a type that weights are not stored in.
int64_t block_values(Type type);
size_t block_bytes(Type type);

// Instruction set in use: "scalar", "avx2", "avxvnni", "avx512". Chosen once from CPUID; SELFEE_ISA overrides (an unknown
// or unsupported name is std::invalid_argument, here and in every function above that computes).
const char* isa_name();

}  // namespace selfee
