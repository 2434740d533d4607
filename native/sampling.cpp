// The sampler chain.
#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>

namespace selfee {
namespace {

constexpr uint64_t kGolden = 0x9E3779B97F4A7C15u;
constexpr size_t kMirostatSample = 100;  // tokens from which mirostat 1 estimates the tail

constexpr float kLargest = std::numeric_limits<float>::max();

// -infinity is allowed: such a token is banned.
void refuse_if_not_finite(float logit, int64_t id) {
    if (!(logit <= kLargest)) throw std::domain_error("the logit of token " + std::to_string(id) + " is " + std::to_string(logit));
}

// The finaliser of splitmix64 (Steele, Lea, Flood 2014).
uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

}  // namespace

Sampler::Sampler(SamplerSettings settings) : settings_(std::move(settings)) {
    std::map<int32_t, double> bias;  // each token once, in order
    for (const auto& [id, value] : settings_.bias) bias[id] += value;
    settings_.bias.assign(bias.begin(), bias.end());
    begin({});
}

void Sampler::begin(std::vector<int32_t> history) {
    history_ = std::move(history);
    draws_ = 0;
    mu_ = 2 * settings_.mirostat_tau;
}

double Sampler::uniform(uint64_t seed, uint64_t draw) {
    return double(mix(mix(seed + kGolden) + (draw + 1) * kGolden) >> 11) * 0x1p-53;
}

// Of a vocabulary of a hundred thousand tokens most chains want one or some dozens: those are picked from the logits as
// they are, and only chains that begin otherwise make a list of everything.
int32_t Sampler::sample(const float* logits, int64_t n) {
    const auto& steps = settings_.steps;
    const bool no_chain = settings_.temperature == 0 || settings_.mirostat != 0;  // penalties only, wherever they stand
    const bool first = no_chain ? std::find(steps.begin(), steps.end(), SamplerStep::Penalties) != steps.end()
                                : starts_with_penalties();
    change(logits, n, first);
    if (const size_t count = wanted(n); count > 0)
        load_best(logits, n, count);
    else
        load(logits, n);
    if (settings_.temperature == 0) return remember(most_likely().id);
    if (settings_.mirostat != 0) {
        apply(SamplerStep::Temperature);
        mirostat_cut();
        return draw();
    }
    for (size_t i = first ? 1 : 0; i < steps.size(); ++i) apply(steps[i]);
    return draw();
}

bool Sampler::starts_with_penalties() const {
    return !settings_.steps.empty() && settings_.steps.front() == SamplerStep::Penalties;
}

// How many of the best are all that the chain will look at; 0 where that is everything or most.
size_t Sampler::wanted(int64_t n) const {
    constexpr int64_t kFew = 8;  // below an eighth, picking is cheaper than listing
    if (settings_.temperature == 0) return 1;
    const size_t at = starts_with_penalties() ? 1 : 0;
    const bool cuts = settings_.mirostat == 0 && at < settings_.steps.size() && settings_.steps[at] == SamplerStep::TopK;
    return cuts && 0 < settings_.top_k && settings_.top_k < n / kFew ? size_t(settings_.top_k) : 0;
}

// Bias, then penalties, of the tokens that have any.
void Sampler::change(const float* logits, int64_t n, bool penalties) {
    changed_.clear();
    for (const auto& [id, bias] : settings_.bias)
        if (0 <= id && id < n) changed_.push_back({double(logits[id]) + bias, id});
    if (!penalties || !penalises()) return;
    auto counts = recent();
    for (auto& candidate : changed_)
        if (const auto found = counts.find(candidate.id); found != counts.end()) {
            candidate.logit = penalised(candidate.logit, found->second);
            counts.erase(found);
        }
    for (const auto& [id, count] : counts)
        if (0 <= id && id < n) changed_.push_back({penalised(double(logits[id]), count), id});
    sort_by_id(changed_);
}

void Sampler::sort_by_id(std::vector<Candidate>& candidates) {
    std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
}

void Sampler::load(const float* logits, int64_t n) {
    bool finite = true;
    for (int64_t id = 0; id < n; ++id) finite &= logits[id] <= kLargest;
    for (int64_t id = 0; !finite && id < n; ++id) refuse_if_not_finite(logits[id], id);
    candidates_.resize(size_t(n));
    for (int64_t id = 0; id < n; ++id) candidates_[size_t(id)] = {double(logits[id]), int32_t(id)};
    for (const auto& candidate : changed_) candidates_[size_t(candidate.id)] = candidate;
}

// The best `count` tokens, in the order of their ids: what top_k would leave of all of them.
void Sampler::load_best(const float* logits, int64_t n, size_t count) {
    constexpr int64_t kBlock = 64;
    const auto better = [](const Candidate& a, const Candidate& b) { return a.better(b); };
    auto& heap = candidates_;  // its top is the worst of the best so far
    heap.clear();
    const auto offer = [&](const Candidate& candidate) {
        if (heap.size() == count) {
            if (!candidate.better(heap.front())) return;
            std::pop_heap(heap.begin(), heap.end(), better);
            heap.pop_back();
        }
        heap.push_back(candidate);
        std::push_heap(heap.begin(), heap.end(), better);
    };
    auto next_changed = changed_.begin();
    for (int64_t begin = 0; begin < n; begin += kBlock) {
        const int64_t end = std::min(n, begin + kBlock);
        if (heap.size() == count && end - begin == kBlock) {
            // Nearly every block ends here. All that was offered is a float, so nothing is lost by comparing as floats.
            const auto worst = float(heap.front().logit);
            int over = 0;  // also for NaN and infinity
            for (int64_t i = 0; i < kBlock; ++i) over |= !(logits[begin + i] <= worst);
            if (over == 0) continue;
        }
        while (next_changed != changed_.end() && next_changed->id < begin) ++next_changed;
        for (int64_t id = begin; id < end; ++id) {
            refuse_if_not_finite(logits[id], id);
            if (next_changed != changed_.end() && next_changed->id == id)
                ++next_changed;  // its turn comes when no float is compared with the heap any more
            else
                offer({double(logits[id]), int32_t(id)});
        }
    }
    for (const auto& candidate : changed_) offer(candidate);
    sort_by_id(heap);
}

bool Sampler::penalises() const {
    return settings_.repeat_penalty != 1 || settings_.frequency_penalty != 0 || settings_.presence_penalty != 0;
}

// How often each of the last tokens occurred, without the exempt one.
std::unordered_map<int32_t, int64_t> Sampler::recent() const {
    const auto held = int64_t(history_.size());
    const int64_t window = settings_.repeat_last_n < 0 ? held : std::min(held, settings_.repeat_last_n);
    std::unordered_map<int32_t, int64_t> counts;
    for (int64_t i = held - window; i < held; ++i) ++counts[history_[size_t(i)]];
    counts.erase(settings_.exempt_token);
    return counts;
}

// Keskar et al. 2019 (repetition) and OpenAI's frequency and presence penalties.
double Sampler::penalised(double logit, int64_t count) const {
    logit = logit > 0 ? logit / settings_.repeat_penalty : logit * settings_.repeat_penalty;
    return logit - (double(count) * settings_.frequency_penalty + settings_.presence_penalty);
}

void Sampler::penalise() {
    if (!penalises()) return;
    const auto counts = recent();
    if (counts.empty()) return;
    for (auto& candidate : candidates_)
        if (const auto found = counts.find(candidate.id); found != counts.end())
            candidate.logit = penalised(candidate.logit, found->second);
}

void Sampler::apply(SamplerStep step) {
    switch (step) {
        case SamplerStep::Penalties: return penalise();
        case SamplerStep::TopK: return top_k(settings_.top_k);
        case SamplerStep::TailFree: return tail_free();
        case SamplerStep::Typical: return typical();
        case SamplerStep::TopP: return top_p();
        case SamplerStep::MinP: return min_p();
        case SamplerStep::Temperature:
            for (auto& candidate : candidates_) candidate.logit /= settings_.temperature;
    }
}

void Sampler::softmax() {
    largest_ = most_likely().logit;
    sum_ = 0;
    for (const auto& candidate : candidates_) sum_ += std::exp(candidate.logit - largest_);
}

// Probability of a candidate as of the last softmax.
double Sampler::p(const Candidate& candidate) const { return std::exp(candidate.logit - largest_) / sum_; }

Sampler::Candidate Sampler::most_likely() const {
    Candidate best = candidates_.front();
    for (const auto& candidate : candidates_)
        if (candidate.logit > best.logit) best = candidate;
    if (best.logit == -std::numeric_limits<double>::infinity()) throw std::domain_error("every token is banned");
    return best;
}

// The `count` most likely candidates, best first; equal ones by id.
std::vector<Sampler::Candidate> Sampler::best(size_t count) const {
    std::vector<Candidate> sorted(std::min(count, candidates_.size()));
    std::partial_sort_copy(candidates_.begin(), candidates_.end(), sorted.begin(), sorted.end(),
                           [](const Candidate& a, const Candidate& b) { return a.better(b); });
    return sorted;
}

// Drop everything that `best` puts behind `last`.
void Sampler::keep_down_to(const Candidate& last) {
    const Candidate limit = last;
    std::erase_if(candidates_, [&limit](const Candidate& candidate) { return limit.better(candidate); });
}

void Sampler::top_k(int64_t count) {
    if (0 < count && count < int64_t(candidates_.size())) keep_down_to(best(size_t(count)).back());
}

// Tail-free sampling (Bricken 2019): cut where the curvature of the sorted probabilities has been used up.
void Sampler::tail_free() {
    if (settings_.tail_free_z >= 1 || candidates_.size() <= 2) return;
    softmax();
    const std::vector<Candidate> sorted = best(candidates_.size());
    std::vector<double> curvature(sorted.size() - 2);
    double sum = 0, used = 0;
    for (size_t i = 0; i < curvature.size(); ++i)
        sum += curvature[i] = std::fabs((p(sorted[i]) - p(sorted[i + 1])) - (p(sorted[i + 1]) - p(sorted[i + 2])));
    for (size_t i = 0; i < curvature.size(); ++i) {
        used += sum > 1e-6 ? curvature[i] / sum : 1 / double(curvature.size());
        if (used > settings_.tail_free_z && i >= 1) return keep_down_to(sorted[i - 1]);
    }
}

// Locally typical sampling (Meister et al. 2022): keep the tokens whose surprise is closest to the expected surprise.
void Sampler::typical() {
    if (settings_.typical_p >= 1) return;
    softmax();
    double entropy = 0, kept = 0;
    for (const auto& candidate : candidates_)
        if (const double own = p(candidate); own > 0) entropy -= own * std::log(own);
    std::vector<std::pair<double, size_t>> order;
    for (size_t i = 0; i < candidates_.size(); ++i) {
        const double own = p(candidates_[i]);
        order.emplace_back(own > 0 ? std::fabs(-std::log(own) - entropy) : std::numeric_limits<double>::infinity(), i);
    }
    std::sort(order.begin(), order.end());
    size_t count = 0;
    while (count < order.size() && kept <= settings_.typical_p) kept += p(candidates_[order[count++].second]);
    order.resize(count);
    std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    for (size_t i = 0; i < count; ++i) candidates_[i] = candidates_[order[i].second];
    candidates_.resize(count);
}

// Nucleus sampling (Holtzman et al. 2020); the token that crosses the limit is kept.
void Sampler::top_p() {
    if (settings_.top_p >= 1) return;
    softmax();
    for (size_t count = 64; ; count *= 16) {  // the nucleus is usually small: more is sorted only where needed
        const std::vector<Candidate> sorted = best(count);
        double kept = 0;
        for (const auto& candidate : sorted) {
            kept += p(candidate);
            if (kept >= settings_.top_p) return keep_down_to(candidate);
        }
        if (sorted.size() == candidates_.size()) return;
    }
}

void Sampler::min_p() {
    if (settings_.min_p <= 0) return;
    const double limit = most_likely().logit + std::log(settings_.min_p);
    std::erase_if(candidates_, [limit](const Candidate& candidate) { return candidate.logit < limit; });
}

// Mirostat (Basu et al. 2021), both versions, as llama.cpp has them: cut so that the surprise to expect is mu.
void Sampler::mirostat_cut() {
    softmax();
    if (settings_.mirostat == 1) return top_k(int64_t(mirostat_count()));
    const Candidate most = most_likely();
    std::erase_if(candidates_, [&](const Candidate& candidate) {
        return candidate.id != most.id && !(-std::log2(p(candidate)) <= mu_);
    });
}

// How many tokens to keep: the probabilities fall as rank^-s, and s is estimated from the best hundred.
size_t Sampler::mirostat_count() const {
    const std::vector<Candidate> sorted = best(kMirostatSample);
    double products = 0, squares = 0;
    for (size_t i = 0; i + 1 < sorted.size() && p(sorted[i + 1]) > 0; ++i) {
        const double t = std::log(double(i + 2) / double(i + 1)), b = std::log(p(sorted[i]) / p(sorted[i + 1]));
        products += t * b;
        squares += t * t;
    }
    if (squares == 0) return 1;
    const auto n = double(candidates_.size());
    const double s = products / squares, epsilon = s - 1;
    const double count = std::pow(epsilon * std::pow(2, mu_) / (1 - std::pow(n, -epsilon)), 1 / s);
    return count >= 1 ? size_t(std::min(count, n)) : 1;  // also for NaN: s = 1 exactly, or no slope at all
}

int32_t Sampler::draw() {
    softmax();
    const double u = uniform(settings_.seed, draws_);
    const Candidate* chosen = &candidates_.front();
    double sum = 0;
    for (const auto& candidate : candidates_) {
        const double own = p(candidate);
        if (own <= 0) continue;
        chosen = &candidate;
        sum += own;
        if (u < sum) break;
    }
    if (settings_.mirostat != 0) mu_ -= settings_.mirostat_eta * (-std::log2(p(*chosen)) - settings_.mirostat_tau);
    return remember(chosen->id);
}

int32_t Sampler::remember(int32_t token) {
    ++draws_;
    history_.push_back(token);
    return token;
}

}  // namespace selfee
