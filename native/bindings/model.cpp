// Binds the forward pass, sessions and sampling.  Every shape and token is checked here; below, nothing is.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>

#include "bindings/unlocked.h"
#include "forward.h"
#include "sampling.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace selfee {
namespace {

using Blocks = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
using Tensors = nb::typed<nb::dict, nb::str, nb::object>;
using Tokens = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Sums = nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Row = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Logits = nb::ndarray<nb::numpy, float, nb::ndim<2>>;
using Cells = nb::ndarray<uint16_t, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using GivenCells = nb::ndarray<const uint16_t, nb::ndim<4>, nb::c_contig, nb::device::cpu>;

[[noreturn]] void refuse(const std::string& what) { throw nb::value_error(what.c_str()); }

void require(bool condition, const char* what) {
    if (!condition) refuse(what);
}

// The weights by name, handed out as the forward pass wants them, each checked against the size it must have.
class Weights {
public:
    explicit Weights(Tensors tensors) : tensors_(std::move(tensors)) {}

    // A tensor is (type number, raw blocks).
    Matrix matrix(const std::string& name, int64_t rows, int64_t cols) const {
        const nb::tuple pair = nb::cast<nb::tuple>(found(name));
        require(pair.size() == 2, "a matrix is (type, blocks)");
        const auto type = static_cast<Type>(nb::cast<int32_t>(pair[0]));
        const auto blocks = nb::cast<Blocks>(pair[1]);
        const int64_t values = block_values(type);  // throws for a type that weights are not stored in
        size_t row_bytes = 0, bytes = 0;
        if (cols < 1 || cols % values != 0) refuse(name + ": rows of " + std::to_string(cols) + " values; expected a multiple of " + std::to_string(values));
        if (__builtin_mul_overflow(size_t(cols / values), block_bytes(type), &row_bytes) ||
            __builtin_mul_overflow(row_bytes, size_t(rows), &bytes) || rows < 1 || blocks.nbytes() != bytes)
            refuse(name + ": " + std::to_string(blocks.nbytes()) + " bytes; expected " + std::to_string(bytes));
        return {type, rows, cols, blocks.data(), row_bytes, nullptr};
    }

    std::vector<float> vector(const std::string& name, int64_t size) const {
        const auto values = nb::cast<nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>>(found(name));
        if (int64_t(values.shape(0)) != size)
            refuse(name + ": " + std::to_string(values.shape(0)) + " values; expected " + std::to_string(size));
        return {values.data(), values.data() + size};
    }

    std::vector<float> optional_vector(const std::string& name, int64_t size) const {
        return tensors_.contains(name.c_str()) ? vector(name, size) : std::vector<float>();
    }

    bool has(const char* name) const { return tensors_.contains(name); }

private:
    nb::object found(const std::string& name) const {
        if (!tensors_.contains(name.c_str())) refuse(name + ": missing");
        return tensors_[name.c_str()];
    }

    Tensors tensors_;
};

Layer layer_of(const Weights& weights, const Shape& s, int64_t index) {
    const std::string block = "blk." + std::to_string(index) + ".";
    const int64_t q_width = s.heads * s.head_dim, kv_width = s.kv_heads * s.head_dim;
    Layer layer;
    layer.attention_norm = weights.vector(block + "attn_norm.weight", s.width);
    layer.feed_forward_norm = weights.vector(block + "ffn_norm.weight", s.width);
    layer.q = weights.matrix(block + "attn_q.weight", q_width, s.width);
    layer.k = weights.matrix(block + "attn_k.weight", kv_width, s.width);
    layer.v = weights.matrix(block + "attn_v.weight", kv_width, s.width);
    layer.output = weights.matrix(block + "attn_output.weight", s.width, q_width);
    layer.gate = weights.matrix(block + "ffn_gate.weight", s.hidden, s.width);
    layer.up = weights.matrix(block + "ffn_up.weight", s.hidden, s.width);
    layer.down = weights.matrix(block + "ffn_down.weight", s.width, s.hidden);
    layer.q_bias = weights.optional_vector(block + "attn_q.bias", q_width);
    layer.k_bias = weights.optional_vector(block + "attn_k.bias", kv_width);
    layer.v_bias = weights.optional_vector(block + "attn_v.bias", kv_width);
    layer.q_norm = weights.optional_vector(block + "attn_q_norm.weight", s.head_dim);
    layer.k_norm = weights.optional_vector(block + "attn_k_norm.weight", s.head_dim);
    return layer;
}

// The transformer and the Python objects whose memory it reads.
class Model {
public:
    Model(int64_t layers, int64_t width, int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t hidden,
          int64_t vocabulary, float norm_epsilon, bool rope_halves, std::vector<double> rope_frequencies,
          Tensors tensors, int threads)
        : kept_(tensors) {
        constexpr int64_t limit = int64_t(1) << 31;
        for (const int64_t size : {layers, width, heads, kv_heads, head_dim, hidden, vocabulary})
            require(0 < size && size < limit, "a size is not within 1 .. 2^31 - 1");
        require(heads % kv_heads == 0, "heads are not a multiple of kv_heads");
        require(heads * head_dim < limit, "heads x head_dim is too large");
        require(2 * int64_t(rope_frequencies.size()) <= head_dim, "more rotated values than a head has");
        require(1 <= threads && threads <= 1024, "threads are not within 1 .. 1024");
        Shape shape{layers, width, heads, kv_heads, head_dim, hidden, vocabulary, norm_epsilon,
                    rope_halves ? RopeLayout::Halves : RopeLayout::Neighbours, std::move(rope_frequencies)};
        const Weights weights(tensors);
        transformer_ = std::make_unique<Transformer>(shape, threads);
        transformer_->embedding = weights.matrix("token_embd.weight", vocabulary, width);
        transformer_->head =
            weights.has("output.weight") ? weights.matrix("output.weight", vocabulary, width) : transformer_->embedding;
        transformer_->final_norm = weights.vector("output_norm.weight", width);
        for (int64_t index = 0; index < layers; ++index) transformer_->layers.push_back(layer_of(weights, shape, index));
    }

    // Readies the weights of one layer, or the head's after the last. Those for which it is wanted and there is one are
    // copied into the layout that the kernels are fastest with: true for each that was. The others are made present.
    std::vector<bool> ready(int64_t index, bool packed) {
        require(0 <= index && index <= shape().layers, "there is no such layer");
        const Unlocked unlocked;
        if (index == shape().layers) return {transformer_->ready(transformer_->head, packed, memory_)};
        Layer& layer = transformer_->layers[size_t(index)];
        std::vector<bool> copied;
        for (Matrix* matrix : {&layer.q, &layer.k, &layer.v, &layer.output, &layer.gate, &layer.up, &layer.down})
            copied.push_back(transformer_->ready(*matrix, packed, memory_));
        return copied;
    }

    Transformer& transformer() { return *transformer_; }
    const Shape& shape() const { return transformer_->shape; }

private:
    Tensors kept_;
    PackedMemory memory_;
    std::unique_ptr<Transformer> transformer_;
};

bool never() { return false; }

class Session {
public:
    Session(nb::object model, int64_t capacity, int32_t cell_type)
        : owner_(model), model_(nb::cast<Model&>(model)),
          cache_(checked_type(cell_type, model_.shape().head_dim), model_.shape().layers, model_.shape().kv_heads,
                 model_.shape().head_dim, checked(capacity)) {}

    // Copies cells of positions first .. last - 1 (held, of one chunk) of a layer into out.
    void read_cells(int64_t layer, int64_t first, int64_t last, const Cells& out) {
        check_cells(layer, first, last, out);
        require(last <= length_, "cells of tokens that are not held");
        const Unlocked unlocked;
        cache_.read_cells(layer, first, last, out.data());
    }

    // The way back, for positions that are not held: what is held never changes.
    void write_cells(int64_t layer, int64_t first, int64_t last, const GivenCells& cells) {
        check_cells(layer, first, last, cells);
        require(length_ <= first, "cells of tokens that are held");
        const Unlocked unlocked;
        cache_.write_cells(layer, first, last, cells.data());
    }

    // Counts tokens as held whose cells were written.
    void hold(int64_t length) {
        require(length_ <= length && length <= cache_.capacity(), "length is not within tokens held .. capacity");
        length_ = length;
    }

    int64_t length() const { return length_; }
    int64_t capacity() const { return cache_.capacity(); }

    void truncate(int64_t length, bool give_back) {
        if (length < 0 || length > length_)
            refuse("truncate to " + std::to_string(length) + "; the session holds " + std::to_string(length_));
        length_ = length;
        if (!give_back) return;
        const Unlocked unlocked;
        cache_.give_back_after(length);
    }

    void copy_from(const Session& other, int64_t length) {
        require(&model_ == &other.model_, "a session of another model");
        require(cache_.type() == other.cache_.type(), "a session with cells of another type");
        require(0 <= length && length <= std::min(other.length_, capacity()), "more tokens than the other session holds");
        if (&other != this) {
            const Unlocked unlocked;
            cache_.copy_from(other.cache_, length);
        }
        length_ = length;
    }

    Logits forward(const Tokens& tokens, int64_t logit_rows, const std::optional<Sums>& squares) {
        require(!squares || int64_t(squares->shape(0)) == model_.transformer().inputs(), "squares is not as long as the inputs");
        const std::vector<Part> parts = {part(tokens, logit_rows)};
        Logits logits = evaluate(model_, parts, squares ? squares->data() : nullptr);
        length_ += parts[0].n;
        return logits;
    }

    // Each tuple is (session, tokens, rows of logits). The sessions change together, or none does.
    static Logits forward_many(const std::vector<std::tuple<nb::object, Tokens, int64_t>>& wanted) {
        require(!wanted.empty(), "no sessions");
        std::vector<Session*> sessions;
        std::vector<Part> parts;
        for (const auto& [object, tokens, logit_rows] : wanted) {
            Session& session = nb::cast<Session&>(object);
            require(sessions.empty() || &session.model_ == &sessions[0]->model_, "sessions of several models");
            require(std::find(sessions.begin(), sessions.end(), &session) == sessions.end(), "a session comes twice");
            sessions.push_back(&session);
            parts.push_back(session.part(tokens, logit_rows));
        }
        Logits logits = evaluate(sessions[0]->model_, parts, nullptr);
        for (size_t i = 0; i < parts.size(); ++i) sessions[i]->length_ += parts[i].n;
        return logits;
    }

private:
    static constexpr int64_t kAskFrom = 16;

    Part part(const Tokens& tokens, int64_t logit_rows) {
        const auto n = int64_t(tokens.shape(0)), vocabulary = model_.shape().vocabulary;
        require(n <= cache_.capacity() - length_, "the context is full");
        require(0 <= logit_rows && logit_rows <= n, "logit_rows is not within 0 .. number of tokens");
        for (int64_t i = 0; i < n; ++i)
            if (tokens.data()[i] < 0 || tokens.data()[i] >= vocabulary) refuse("token " + std::to_string(tokens.data()[i]) + " does not exist");
        return {&cache_, tokens.data(), n, length_, logit_rows};
    }

    static Logits evaluate(Model& model, const std::vector<Part>& parts, double* squares) {
        int64_t n = 0, rows = 0;
        for (const Part& part : parts) n += part.n, rows += part.logit_rows;
        const auto vocabulary = size_t(model.shape().vocabulary);
        auto* logits = new float[size_t(std::max<int64_t>(1, rows)) * vocabulary];
        const nb::capsule owner(logits, [](void* p) noexcept { delete[] static_cast<float*>(p); });
        // A few tokens are done before a signal could matter, and asking for Python's lock may take longer than they do.
        bool (*const interrupted)() = n < kAskFrom ? never : signal_arrived;
        bool done = false;
        {
            const Unlocked unlocked;
            done = model.transformer().forward(parts, logits, interrupted, squares);
        }
        if (!done) throw nb::python_error();
        return Logits(logits, {size_t(rows), vocabulary}, owner);
    }

    static int64_t checked(int64_t capacity) {
        require(0 < capacity && capacity < int64_t(1) << 31, "capacity is not within 1 .. 2^31 - 1");
        return capacity;
    }

    static CellType checked_type(int32_t type, int64_t head_dim) {
        const auto cells = static_cast<CellType>(type);
        require(cells == CellType::Halves || cells == CellType::Bytes, "no type of cells");
        require(cells == CellType::Halves || head_dim % kByteGroup == 0, "head_dim is not a multiple of 32");
        return cells;
    }

    template <class Array>
    void check_cells(int64_t layer, int64_t first, int64_t last, const Array& cells) const {
        require(0 <= layer && layer < model_.shape().layers, "there is no such layer");
        require(0 <= first && first < last && last <= cache_.capacity(), "cells are not within the cache");
        require(first / KvCache::kChunk == (last - 1) / KvCache::kChunk, "cells are not of one chunk");
        const int64_t expected[] = {2, cache_.kv_heads(), last - first, cache_.row_words()};
        for (size_t i = 0; i < 4; ++i) require(int64_t(cells.shape(i)) == expected[i], "cells are not [2, kv_heads, tokens, words of a row]");
    }

    nb::object owner_;
    Model& model_;
    KvCache cache_;
    int64_t length_ = 0;
};

Sampler make_sampler(double temperature, int64_t top_k, double top_p, double min_p, double typical_p,
                     double tail_free_z, double repeat_penalty, int64_t repeat_last_n, double frequency_penalty,
                     double presence_penalty, int32_t exempt_token, int mirostat, double mirostat_tau,
                     double mirostat_eta, const std::vector<int32_t>& bias_tokens, const std::vector<double>& bias_values,
                     const std::vector<int32_t>& steps, uint64_t seed) {
    require(bias_tokens.size() == bias_values.size(), "bias_tokens and bias_values differ in number");
    SamplerSettings s;
    s.temperature = temperature, s.top_k = top_k, s.top_p = top_p, s.min_p = min_p, s.typical_p = typical_p;
    s.tail_free_z = tail_free_z, s.repeat_penalty = repeat_penalty, s.repeat_last_n = repeat_last_n;
    s.frequency_penalty = frequency_penalty, s.presence_penalty = presence_penalty, s.exempt_token = exempt_token;
    s.mirostat = mirostat, s.mirostat_tau = mirostat_tau, s.mirostat_eta = mirostat_eta, s.seed = seed;
    for (size_t i = 0; i < bias_tokens.size(); ++i) s.bias.emplace_back(bias_tokens[i], bias_values[i]);
    for (const int32_t step : steps) {
        require(0 <= step && step <= int32_t(SamplerStep::Temperature), "unknown sampler");
        s.steps.push_back(static_cast<SamplerStep>(step));
    }
    return Sampler(std::move(s));
}

void begin_sampling(Sampler& sampler, const Tokens& history) {
    sampler.begin({history.data(), history.data() + history.shape(0)});
}

void read_on(Sampler& sampler, const Tokens& tokens) {
    sampler.read({tokens.data(), tokens.data() + tokens.shape(0)});
}

int32_t sample(Sampler& sampler, const Row& logits) {
    require(logits.shape(0) > 0, "no logits");
    try {
        return sampler.sample(logits.data(), int64_t(logits.shape(0)));
    } catch (const std::domain_error& error) {
        refuse(error.what());
    }
}

}  // namespace
}  // namespace selfee

void bind_model(nb::module_& m) {
    using namespace selfee;
    nb::class_<Model>(m, "Model", "Weights bound to the forward pass; use selfee.llama.model.Model.")
        .def(nb::init<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, float, bool, std::vector<double>,
                      Tensors, int>(),
             "layers"_a, "width"_a, "heads"_a, "kv_heads"_a, "head_dim"_a, "hidden"_a, "vocabulary"_a,
             "norm_epsilon"_a, "rope_halves"_a, "rope_frequencies"_a, "tensors"_a, "threads"_a)
        .def("ready", &Model::ready, "index"_a, "packed"_a,
             "Make a layer's weights (number of layers: the head's) present, or copy them; true for each that was copied.");
    nb::class_<Session>(m, "Session", "A cache of keys and values; use selfee.llama.model.Session.")
        .def(nb::init<nb::object, int64_t, int32_t>(), "model"_a, "capacity"_a, "cell_type"_a = int32_t(CellType::Halves))
        .def("read_cells", &Session::read_cells, "layer"_a, "first"_a, "last"_a, "out"_a.noconvert(),
             "Copy keys and values of held positions first .. last - 1, all of one chunk of 256, into out "
             "[2, kv_heads, last - first, words of a row]: halves, or blocks of Q8_0.")
        .def("write_cells", &Session::write_cells, "layer"_a, "first"_a, "last"_a, "cells"_a,
             "Copy them back, after the tokens held.")
        .def("hold", &Session::hold, "length"_a, "Count tokens as held whose cells were written.")
        .def_prop_ro("length", &Session::length, "Tokens evaluated.")
        .def_prop_ro("capacity", &Session::capacity, "Tokens that fit.")
        .def("truncate", &Session::truncate, "length"_a, "give_back"_a = false,
             "Keep this many tokens; memory that only others needed may go back to the system.")
        .def("copy_from", &Session::copy_from, "other"_a, "length"_a,
             "Hold the first `length` tokens of another session of this model instead.")
        .def("forward", &Session::forward, "tokens"_a, "logit_rows"_a, "squares"_a = nb::none(),
             "Evaluate tokens after those held; logits of the last `logit_rows` of them. `squares` are sums to which the "
             "squares of the matrices' inputs are added: see selfee.llama.importance.");
    m.def("forward_many", &Session::forward_many, "parts"_a,
          "Evaluate tokens in several sessions of one model together: (session, tokens, logit_rows) each, no session "
          "twice. Logits part by part.");
    nb::class_<Sampler>(m, "Sampler", "Draws tokens; use selfee.llama.sampling.Sampler.")
        .def(nb::new_(&make_sampler), nb::kw_only(), "temperature"_a, "top_k"_a, "top_p"_a, "min_p"_a, "typical_p"_a,
             "tail_free_z"_a, "repeat_penalty"_a, "repeat_last_n"_a, "frequency_penalty"_a, "presence_penalty"_a,
             "exempt_token"_a, "mirostat"_a, "mirostat_tau"_a, "mirostat_eta"_a, "bias_tokens"_a, "bias_values"_a,
             "steps"_a, "seed"_a)
        .def("begin", begin_sampling, "history"_a, "Forget everything; `history` are the tokens before the first draw.")
        .def("read", read_on, "tokens"_a, "Tokens that somebody else wrote join the history.")
        .def("sample", sample, "logits"_a, "The next token, which joins the history.");
}
