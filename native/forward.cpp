// The forward pass of one batch of tokens: the same steps in the same order as llama/reference.py.
//
// Every value is computed by one thread in a fixed order from values of its own token (attention: and its cache), so a
// token's logits have the same bits alone, in any batch and company, and with any number of threads.
#include "forward.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace selfee {
namespace {

constexpr int64_t kSmallPart = 16;  // rows of a matrix that are not worth giving to another thread

void grow(std::vector<float>& buffer, int64_t size) {
    if (int64_t(buffer.size()) < size) buffer.resize(size_t(size));
}

}  // namespace

Transformer::Transformer(Shape given, int threads) : shape(std::move(given)), ops_(ops_named(isa_name())), pool_(threads) {}

bool Transformer::forward(const std::vector<Part>& parts, float* logits, const std::function<bool()>& interrupted,
                          double* squares) {
    int64_t n = 0;
    for (const Part& part : parts) n += part.n;
    for (int64_t done = 0; done < n; done += kBatch) {
        const std::lock_guard<Turnstile> one_at_a_time(turn_);
        batch_.fill(parts, done);
        embed();
        rotation_.set(batch_.positions, shape.rope_frequencies);
        attention_.plan(batch_.spans, shape.heads, pool_.threads());
        squares_ = squares;
        for (int64_t layer = 0; layer < shape.layers; ++layer) {
            if (interrupted()) return false;
            attend(layers[size_t(layer)], layer);
            feed_forward(layers[size_t(layer)]);
        }
        if (squares_) {  // the head's inputs count for every token, also where no logits are wanted
            normalise(final_norm, batch_.size());
            observe(normed_.data(), batch_.size(), shape.width);
            squares_ = nullptr;
        }
        const auto wanted = int64_t(batch_.wanted.size());
        if (wanted == 0) continue;
        normalise(final_norm, wanted, batch_.wanted.data());
        multiply({{&head, logits}}, normed_.data(), wanted);
        logits += wanted * shape.vocabulary;
    }
    return true;
}

// Takes the tokens that follow the first `done` of all parts' tokens.
void Transformer::Batch::fill(const std::vector<Part>& parts, int64_t done) {
    tokens.clear(), caches.clear(), positions.clear(), spans.clear(), wanted.clear();
    for (const Part& part : parts) {
        const int64_t begin = std::min(done, part.n), end = std::min(part.n, begin + kBatch - size());
        done -= begin;
        if (begin == end) continue;
        spans.push_back({part.cache, part.first + begin, end - begin});
        for (int64_t t = begin; t < end; ++t) {
            if (t >= part.n - part.logit_rows) wanted.push_back(size());
            tokens.push_back(part.tokens[t]);
            caches.push_back(part.cache);
            positions.push_back(part.first + t);
        }
    }
}

bool Transformer::ready(Matrix& matrix, bool packed, PackedMemory& memory) {
    const std::lock_guard<Turnstile> one_at_a_time(turn_);
    const int64_t groups = packed ? packed_groups(matrix) : 0;
    if (groups == 0) {
        touch(matrix);
        return false;
    }
    std::shared_ptr<uint8_t> place = memory.take(packed_bytes(matrix));
    pool_.each(groups, 1, [&](int64_t begin, int64_t end, int) { pack_groups(matrix, begin, end, place.get()); });
    matrix.packed = std::move(place);
    return true;
}

void Transformer::touch(const Matrix& matrix) {
#if defined(MADV_POPULATE_READ)  // where the system does not know how, the first pass does it
    constexpr size_t kPage = 4096, kPiece = size_t(4) << 20;
    const auto begin = reinterpret_cast<uintptr_t>(matrix.data) / kPage * kPage;
    const auto end = reinterpret_cast<uintptr_t>(matrix.data) + matrix.row_bytes * size_t(matrix.rows);
    pool_.each(int64_t((end - begin + kPiece - 1) / kPiece), 1, [&](int64_t first, int64_t last, int) {
        for (int64_t piece = first; piece < last; ++piece) {
            const uintptr_t from = begin + size_t(piece) * kPiece;
            madvise(reinterpret_cast<void*>(from), std::min(kPiece, end - from), MADV_POPULATE_READ);
        }
    });
#endif
}

void Transformer::embed() {
    grow(x_, batch_.size() * shape.width);
    for (int64_t t = 0; t < batch_.size(); ++t)
        dequantize(embedding.type, embedding.data + size_t(batch_.tokens[size_t(t)]) * embedding.row_bytes, shape.width,
                   x_.data() + t * shape.width);
}

void Transformer::attend(const Layer& layer, int64_t index) {
    const int64_t n = batch_.size();
    const int64_t q_width = shape.heads * shape.head_dim, kv_width = shape.kv_heads * shape.head_dim;
    grow(q_, n * q_width), grow(k_, n * kv_width), grow(v_, n * kv_width);
    grow(attended_, n * q_width), grow(delta_, n * shape.width);
    normalise(layer.attention_norm, n);
    multiply({{&layer.q, q_.data()}, {&layer.k, k_.data()}, {&layer.v, v_.data()}}, normed_.data(), n);
    pool_.each(n, part_of(n), [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
            shape_heads(layer, q_.data() + t * q_width, shape.heads, layer.q_bias, layer.q_norm, t);
            shape_heads(layer, k_.data() + t * kv_width, shape.kv_heads, layer.k_bias, layer.k_norm, t);
            float* v = v_.data() + t * kv_width;
            if (!layer.v_bias.empty()) ops_.add(v, layer.v_bias.data(), kv_width);
            KvCache& cache = *batch_.caches[size_t(t)];
            for (int64_t head = 0; head < shape.kv_heads; ++head) {
                const int64_t at = head * shape.head_dim;
                cache.store(ops_, index, head, batch_.positions[size_t(t)], k_.data() + t * kv_width + at, v + at);
            }
        }
    });
    attention_.run(ops_, pool_, index, q_.data(), attended_.data());
    multiply({{&layer.output, delta_.data()}}, attended_.data(), n);
    add(delta_, n);
}

// Bias, norm and rotation of the queries or keys of one token, in place.
void Transformer::shape_heads(const Layer& layer, float* x, int64_t heads, const std::vector<float>& bias,
                              const std::vector<float>& norm, int64_t token) const {
    if (!bias.empty()) ops_.add(x, bias.data(), heads * shape.head_dim);
    for (float* head = x; head < x + heads * shape.head_dim; head += shape.head_dim) {
        if (!norm.empty()) ops_.rms_norm(head, norm.data(), shape.norm_epsilon, shape.head_dim, head);
        rotation_.turn(head, token, shape.rope_layout);
    }
}

void Transformer::feed_forward(const Layer& layer) {
    const int64_t n = batch_.size();
    grow(gate_, n * shape.hidden), grow(up_, n * shape.hidden);
    normalise(layer.feed_forward_norm, n);
    multiply({{&layer.gate, gate_.data()}, {&layer.up, up_.data()}}, normed_.data(), n);
    pool_.each(n, part_of(n), [&](int64_t begin, int64_t end, int) {
        ops_.swiglu(gate_.data() + begin * shape.hidden, up_.data() + begin * shape.hidden, (end - begin) * shape.hidden);
    });
    multiply({{&layer.down, delta_.data()}}, gate_.data(), n);
    add(delta_, n);
}

// n rows of x: the first, or those that are named.
void Transformer::normalise(const std::vector<float>& weight, int64_t n, const int64_t* rows) {
    grow(normed_, n * shape.width);
    pool_.each(n, part_of(n), [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t)
            ops_.rms_norm(x_.data() + (rows ? rows[t] : t) * shape.width, weight.data(), shape.norm_epsilon, shape.width, normed_.data() + t * shape.width);
    });
}

void Transformer::add(const std::vector<float>& y, int64_t n) {
    pool_.each(n, part_of(n), [&](int64_t begin, int64_t end, int) {
        ops_.add(x_.data() + begin * shape.width, y.data() + begin * shape.width, (end - begin) * shape.width);
    });
}

int64_t Transformer::inputs() const {
    return shape.layers * (2 * shape.width + shape.heads * shape.head_dim + shape.hidden) + shape.width;
}

// Adds up squares of inputs in double, token after token: a column belongs to one thread, so that their number does
// not matter.
void Transformer::observe(const float* x, int64_t n, int64_t cols) {
    constexpr int64_t kColumns = 64;
    double* const sums = squares_;
    pool_.each(cols, kColumns, [&](int64_t begin, int64_t end, int) {
        for (int64_t t = 0; t < n; ++t)
            for (int64_t c = begin; c < end; ++c) sums[c] += double(x[t * cols + c]) * double(x[t * cols + c]);
    });
    squares_ += cols;
}

void Transformer::prepare(const Matrix& matrix, const float* x, int64_t n) {
    reshape_for(matrix, n, activations_);
    // A single token's parts are not worth another thread's time.
    const int64_t parts = prepare_parts(activations_);
    pool_.each(parts, n == 1 ? parts : 1, [&](int64_t begin, int64_t end, int) {
        selfee::prepare(activations_, x, matrix.cols, begin, end);
    });
}

// out = matrix . x for each product. Neighbours that want the same kind of activations share them and one loop.
void Transformer::multiply(std::initializer_list<Product> products, const float* x, int64_t n) {
    if (squares_) observe(x, n, products.begin()->matrix->cols);
    const Product* next = products.begin();
    while (next != products.end()) {
        const Product* const start = next;
        prepare(*start->matrix, x, n);
        int64_t rows = 0;
        for (; next != products.end() && share_activations(*start->matrix, *next->matrix); ++next) rows += next->matrix->rows;
        const int64_t wanted = std::max(kSmallPart, rows / (8 * pool_.threads()));
        // Parts are counted matrix by matrix, since each may have its own granularity.
        const auto part_rows = [wanted](const Matrix& w) {
            const int64_t grain = row_granularity(w);
            return (wanted + grain - 1) / grain * grain;
        };
        const auto parts_of = [&](const Matrix& w) { return (w.rows + part_rows(w) - 1) / part_rows(w); };
        int64_t parts = 0;
        for (const Product* p = start; p != next; ++p) parts += parts_of(*p->matrix);
        pool_.each(parts, 1, [&](int64_t begin, int64_t end, int) {
            for (int64_t part = begin; part < end; ++part) {
                const Product* p = start;
                int64_t own = part;
                while (own >= parts_of(*p->matrix)) own -= parts_of(*p++->matrix);
                const int64_t from = own * part_rows(*p->matrix), to = std::min(from + part_rows(*p->matrix), p->matrix->rows);
                matmul_rows(*p->matrix, activations_, from, to, p->out, p->matrix->rows);
            }
        });
    }
}

// How many of n tokens a thread takes at a time in loops over tokens.
int64_t Transformer::part_of(int64_t n) const { return std::max<int64_t>(4, n / (4 * pool_.threads())); }

}  // namespace selfee
