// Draws the next token from a row of logits. The meaning, step by step, is llama/sampling_reference.py.
#pragma once
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

namespace selfee {

enum class SamplerStep : int32_t { Penalties, TopK, TailFree, Typical, TopP, MinP, Temperature };

struct SamplerSettings {
    double temperature = 1, top_p = 1, min_p = 0, typical_p = 1, tail_free_z = 1;
    int64_t top_k = 0;
    double repeat_penalty = 1, frequency_penalty = 0, presence_penalty = 0;
    int64_t repeat_last_n = 0;   // -1 = everything
    int32_t exempt_token = -1;   // never penalised; -1 = none
    int mirostat = 0;
    double mirostat_tau = 5, mirostat_eta = 0.1;
    std::vector<std::pair<int32_t, double>> bias;
    std::vector<SamplerStep> steps;
    uint64_t seed = 0;
};

// All arithmetic is in double and every sum runs in the order of token ids (or, where said, from the best down), so
// the twin draws the same tokens.
class Sampler {
public:
    explicit Sampler(SamplerSettings settings);

    // Forget everything; `history` are the tokens before the first draw.
    void begin(std::vector<int32_t> history);

    // Tokens that somebody else wrote after those join the history; draws go on as if they had not been.
    void read(const std::vector<int32_t>& tokens) { history_.insert(history_.end(), tokens.begin(), tokens.end()); }

    // The next token, which joins the history. std::domain_error if a logit is NaN or infinite, or every token is banned.
    int32_t sample(const float* logits, int64_t n);

    // The number in [0, 1) that decides a draw: a function of the seed and of the draw's number alone.
    static double uniform(uint64_t seed, uint64_t draw);

private:
    struct Candidate {
        double logit;
        int32_t id;
        bool better(const Candidate& other) const { return logit > other.logit || (logit == other.logit && id < other.id); }
    };

    bool starts_with_penalties() const;
    size_t wanted(int64_t n) const;
    void change(const float* logits, int64_t n, bool penalties);
    void load(const float* logits, int64_t n);
    void load_best(const float* logits, int64_t n, size_t count);
    bool penalises() const;
    static void sort_by_id(std::vector<Candidate>& candidates);
    std::unordered_map<int32_t, int64_t> recent() const;
    double penalised(double logit, int64_t count) const;
    void penalise();
    void apply(SamplerStep step);
    void softmax();
    double p(const Candidate& candidate) const;
    Candidate most_likely() const;
    std::vector<Candidate> best(size_t count) const;
    void keep_down_to(const Candidate& last);
    void top_k(int64_t count);
    void tail_free();
    void typical();
    void top_p();
    void min_p();
    void mirostat_cut();
    size_t mirostat_count() const;
    int32_t draw();
    int32_t remember(int32_t token);

    SamplerSettings settings_;
    std::vector<Candidate> candidates_;  // in the order of their ids
    std::vector<Candidate> changed_;     // tokens whose logits bias or penalties change, in the order of their ids
    double largest_ = 0, sum_ = 1;       // of softmax: the largest logit, the sum of e^(logit - largest)
    std::vector<int32_t> history_;
    uint64_t draws_ = 0;
    double mu_ = 0;
};

}  // namespace selfee
