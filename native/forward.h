// A decoder-only transformer of the LLaMA family: weights, scratch memory, and the pass from tokens to logits.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "attention.h"
#include "matmul/matmul.h"
#include "rope.h"
#include "threads.h"

namespace selfee {

struct Shape {
    int64_t layers = 0, width = 0, heads = 0, kv_heads = 0, head_dim = 0, hidden = 0, vocabulary = 0;
    float norm_epsilon = 1e-5f;
    RopeLayout rope_layout = RopeLayout::Neighbours;
    std::vector<double> rope_frequencies;  // radians per position, one for each pair
};

struct Layer {
    std::vector<float> attention_norm, feed_forward_norm;
    Matrix q, k, v, output, gate, up, down;
    std::vector<float> q_bias, k_bias, v_bias;  // empty = none
    std::vector<float> q_norm, k_norm;          // empty = none; one weight for each value of a head
};

// Tokens of one conversation that are to be evaluated.
struct Part {
    KvCache* cache;
    const int32_t* tokens;
    int64_t n, first;    // how many; how many the cache holds before them
    int64_t logit_rows;  // logits of the last so many are wanted: 0 to n
};

// Memory behind the weights belongs to the caller and must outlive the model. Shapes are checked before they get here.
class Transformer {
public:
    static constexpr int64_t kBatch = 256;  // tokens that go through the layers together, more in turns (model.py counts on it)

    Transformer(Shape shape, int threads);

    Shape shape;
    Matrix embedding, head;  // head: the output matrix, the same as the embedding where weights are tied
    std::vector<float> final_norm;
    std::vector<Layer> layers;

    // Evaluates the tokens of all parts, each after those in its own cache; no cache comes twice. A batch may hold pieces
    // of several parts. Writes the wanted logits part by part, [sum of logit_rows][vocabulary]. `interrupted` is asked
    // between layers; true ends the work, and forward returns false. `squares` is null, or inputs() sums to which the
    // squares of what the matrices were multiplied with are added. One batch at a time: where several threads call, their
    // batches take turns.
    bool forward(const std::vector<Part>& parts, float* logits, const std::function<bool()>& interrupted,
                 double* squares = nullptr);

    // Columns of all inputs of matrices: in each layer those of q, k and v, of the attention's output, of gate and up,
    // of down; then those of the head.
    int64_t inputs() const;

    // Readies the weights of one of this model's matrices, all threads at once; waits for a batch to end. Packed: as a copy
    // (matmul.h), true where there is such a layout. Otherwise where they are mapped: they are made present, for the first
    // pass would meet a page fault every sixteen pages.
    bool ready(Matrix& matrix, bool packed, PackedMemory& memory);

    int threads() const { return pool_.threads(); }

private:
    struct Product {
        const Matrix* matrix;
        float* out;  // [tokens][matrix rows]
    };

    // Tokens that go through the layers together, and whose they are.
    struct Batch {
        std::vector<int32_t> tokens;
        std::vector<KvCache*> caches;    // of each token
        std::vector<int64_t> positions;  // of each token
        std::vector<Span> spans;
        std::vector<int64_t> wanted;     // tokens whose logits are wanted, by their place in the batch

        int64_t size() const { return int64_t(tokens.size()); }
        void fill(const std::vector<Part>& parts, int64_t done);
    };

    void touch(const Matrix& matrix);
    void embed();
    void attend(const Layer& layer, int64_t index);
    void feed_forward(const Layer& layer);
    void normalise(const std::vector<float>& weight, int64_t n, const int64_t* rows = nullptr);
    void prepare(const Matrix& matrix, const float* x, int64_t n);
    void multiply(std::initializer_list<Product> products, const float* x, int64_t n);
    void shape_heads(const Layer& layer, float* x, int64_t heads, const std::vector<float>& bias,
                     const std::vector<float>& norm, int64_t token) const;
    void add(const std::vector<float>& y, int64_t n);
    void observe(const float* x, int64_t n, int64_t cols);
    int64_t part_of(int64_t n) const;

    const Ops& ops_;
    ThreadPool pool_;
    Turnstile turn_;
    Batch batch_;
    Activations activations_;
    Rotation rotation_;
    Attention attention_;
    double* squares_ = nullptr;  // where those of the next matrix are added; null where nobody asked
    std::vector<float> x_, normed_, q_, k_, v_, attended_, delta_, gate_, up_;
};

}  // namespace selfee
