#include "drafting.h"

#include <algorithm>
#include <cmath>

namespace selfee {
namespace {

constexpr size_t kSmallest = 1024;            // entries of a new table
constexpr size_t kTextEntries = size_t(1) << 23;
constexpr int kLongest = NgramTable::kLengths.back();
constexpr int kLongestRun = 12;
constexpr int kStartRun = 8;                  // a revision begins where the original begins
constexpr double kAgreement = 1.0, kDissent = 0.7;  // log odds
constexpr double kPriorWeight = 8;            // sightings
constexpr float kForget = 4096;               // sightings after which the old ones count half

uint64_t mix(uint64_t x) {  // splitmix64 (Steele, Lea, Flood 2014)
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

size_t power_of_two(size_t n) {
    size_t power = kSmallest;
    while (power < n) power *= 2;
    return power;
}

// How often each source was right, in percent, over the chains of SelFee-13B with one enforced revision (docs:
// explanation, drafting). A table's: by length of the known end, then by confidence.
constexpr int kTextPercent[] = {14, 34, 55, 39, 56, 79, 56, 71, 76, 63, 80, 88, 81, 87, 89, 85, 91, 94, 93, 93, 95, 98, 99, 99};
constexpr int kMemoryPercent[] = {12, 20, 34, 26, 28, 55, 43, 47, 63, 57, 60, 81, 75, 74, 89, 79, 84, 92, 88, 89, 93, 96, 99, 98};
constexpr int kPointerPercent[] = {4, 44, 63, 62, 79, 86, 88, 89, 88, 88, 93, 94, 98};

}  // namespace

NgramTable::NgramTable(size_t most_entries) : most_(power_of_two(most_entries)) {}

NgramTable::Ends NgramTable::ends(const int32_t* last, size_t available) {
    Ends ends;
    uint64_t hash = 0x9e3779b97f4a7c15u;
    int taken = 0;
    for (const int length : kLengths) {
        if (size_t(length) > available) break;
        for (; taken < length; ++taken) hash = mix(hash + uint64_t(uint32_t(last[-1 - taken])) + 1);
        ends.hashes[size_t(ends.count++)] = hash | 1;  // 0 marks a free entry
    }
    return ends;
}

NgramTable::Guess NgramTable::look(const Ends& ends) const {
    Guess guess;
    for (int order = 0; order < ends.count; ++order) {
        const Entry* entry = find(ends.hashes[size_t(order)]);
        if (entry == nullptr) break;
        guess = {entry->token, order, entry->confidence};
    }
    return guess;
}

void NgramTable::learn(const Ends& ends, int32_t token) {
    for (int order = 0; order < ends.count; ++order) {
        Entry& entry = place(ends.hashes[size_t(order)]);
        if (entry.confidence > 0 && entry.token == token) {
            entry.confidence = std::min(entry.confidence + 1, kMost);
            continue;
        }
        // After a long end the latest is the best guess; after a short one a habit outlives an exception.
        entry.confidence -= kLengths[size_t(order)] < 6 ? 1 : kMost;
        if (entry.confidence <= 0) entry.token = token, entry.confidence = 1;
    }
}

// Entries of a key lie from its own place on, without a gap: what is full is passed over.
const NgramTable::Entry* NgramTable::find(uint64_t key) const {
    for (size_t step = 0; step < std::min(kWindow, entries_.size()); ++step) {
        const Entry& entry = entries_[((key >> 1) + step) & (entries_.size() - 1)];
        if (entry.key == key) return &entry;
        if (entry.key == 0) return nullptr;
    }
    return nullptr;
}

// The entry of this key; a new one has confidence 0. Only in a table that may not grow does it take another's place.
NgramTable::Entry& NgramTable::place(uint64_t key) {
    if (const Entry* found = find(key)) return const_cast<Entry&>(*found);
    if (2 * used_ >= entries_.size() && entries_.size() < most_) grow();
    Entry* weakest = nullptr;
    for (size_t step = 0; step < kWindow; ++step) {
        Entry& entry = entries_[((key >> 1) + step) & (entries_.size() - 1)];
        if (entry.key == 0) {
            ++used_;
            weakest = &entry;
            break;
        }
        if (weakest == nullptr || entry.confidence < weakest->confidence) weakest = &entry;
    }
    if (weakest->key != 0 && entries_.size() < most_) {
        grow();
        return place(key);
    }
    *weakest = {key, 0, 0};
    return *weakest;
}

void NgramTable::grow() {
    std::vector<Entry> old(std::max(kSmallest, 2 * entries_.size()));
    old.swap(entries_);
    used_ = 0;
    for (const Entry& entry : old)
        if (entry.key != 0) place(entry.key) = entry;
}

int Odds::row(const Evidence& evidence) {
    return evidence.strength + (evidence.source == Source::Text ? 0 : evidence.source == Source::Memory ? kTable : 2 * kTable);
}

double Odds::prior(int row) {
    const int percent = row < kTable ? kTextPercent[row] : row < 2 * kTable ? kMemoryPercent[row - kTable] : kPointerPercent[row - 2 * kTable];
    return percent / 100.0;
}

double Odds::blend(const Cell& cell, double prior) { return (cell.right + prior * kPriorWeight) / (cell.total + kPriorWeight); }

double Odds::chance(const Evidence& evidence) const {
    const int at = row(evidence);
    const double alone = blend(alone_[size_t(at)], prior(at));
    double odds = std::log(alone / (1 - alone));
    for (const int other : evidence.others) odds += other == 1 ? kAgreement : other == 2 ? -kDissent : 0;
    return blend(joint_[size_t(at)][size_t(3 * evidence.others[0] + evidence.others[1])], 1 / (1 + std::exp(-odds)));
}

void Odds::count(const Evidence& evidence, bool right) {
    const auto at = size_t(row(evidence));
    for (Cell* cell : {&alone_[at], &joint_[at][size_t(3 * evidence.others[0] + evidence.others[1])]}) {
        cell->right += float(right), cell->total += 1;
        if (cell->total >= kForget) cell->right /= 2, cell->total /= 2;
    }
}

Drafter::Drafter(std::shared_ptr<DraftMemory> memory) : memory_(std::move(memory)), table_(kTextEntries) {}

void Drafter::read(const int32_t* tokens, size_t count) {
    for (size_t i = 0; i < count; ++i) append(tokens[i]);
}

void Drafter::revise(std::vector<int32_t> original) {
    original_ = std::move(original);
    pointer_ = {0, kStartRun};
}

void Drafter::write(const int32_t* tokens, size_t count) {
    const std::lock_guard<std::mutex> one_at_a_time(memory_->lock);
    for (size_t i = 0; i < count; ++i) {
        const NgramTable::Ends ends = NgramTable::ends(text_.data() + text_.size(), text_.size());
        const Candidates guessed = candidates(ends, pointer_);
        for (int c = 0; c < guessed.count; ++c)
            memory_->odds.count(guessed.items[size_t(c)].evidence, guessed.items[size_t(c)].token == tokens[i]);
        memory_->table.learn(ends, tokens[i]);
        append(tokens[i]);
    }
}

void Drafter::append(int32_t token) {
    table_.learn(NgramTable::ends(text_.data() + text_.size(), text_.size()), token);
    move(pointer_, token);
    text_.push_back(token);
}

Drafter::Draft Drafter::propose(size_t limit, double least) const {
    const std::lock_guard<std::mutex> one_at_a_time(memory_->lock);
    Draft draft;
    std::array<int32_t, 2 * kLongest> last{};  // the end of the text with the guesses so far
    size_t held = std::min<size_t>(text_.size(), size_t(kLongest));
    std::copy(text_.end() - std::ptrdiff_t(held), text_.end(), last.begin());
    Pointer pointer = pointer_;
    double all_right = 1;
    while (draft.tokens.size() < limit) {
        const Candidates guessed = candidates(NgramTable::ends(last.data() + held, held), pointer);
        double best = 0;
        int32_t token = -1;
        for (int c = 0; c < guessed.count; ++c) {
            const double chance = memory_->odds.chance(guessed.items[size_t(c)].evidence);
            if (chance > best) best = chance, token = guessed.items[size_t(c)].token;
        }
        all_right *= best;
        if (token < 0 || all_right < least) break;
        draft.tokens.push_back(token);
        draft.chances.push_back(all_right);
        if (held == last.size()) {
            std::copy(last.end() - kLongest, last.end(), last.begin());
            held = size_t(kLongest);
        }
        last[held++] = token;
        const bool same = pointer.at < original_.size() && original_[pointer.at] == token;
        pointer = {pointer.at + 1, same ? pointer.run + 1 : 0};
    }
    return draft;
}

Drafter::Candidates Drafter::candidates(const NgramTable::Ends& ends, const Pointer& pointer) const {
    Candidates found;
    const auto add = [&](Source source, int strength, int32_t token) {
        found.items[size_t(found.count++)] = {{source, strength, {}}, token};
    };
    const auto add_table = [&](Source source, const NgramTable::Guess& guess) {
        if (guess.confidence > 0) add(source, guess.order * NgramTable::kMost + guess.confidence - 1, guess.token);
    };
    add_table(Source::Text, table_.look(ends));
    add_table(Source::Memory, memory_->table.look(ends));
    if (pointer.at < original_.size()) add(Source::Pointer, std::min(pointer.run, kLongestRun), original_[pointer.at]);
    for (int c = 0; c < found.count; ++c) {
        Candidate& own = found.items[size_t(c)];
        size_t place = 0;
        for (const Source source : {Source::Text, Source::Memory, Source::Pointer}) {
            if (source == own.evidence.source) continue;
            for (int d = 0; d < found.count; ++d)
                if (found.items[size_t(d)].evidence.source == source)
                    own.evidence.others[place] = found.items[size_t(d)].token == own.token ? 1 : 2;
            ++place;
        }
    }
    return found;
}

void Drafter::move(Pointer& pointer, int32_t token) const {
    if (original_.empty()) return;
    if (pointer.at < original_.size() && original_[pointer.at] == token)
        pointer = {pointer.at + 1, pointer.run + 1};
    else
        pointer = find_again(token);
}

// After a divergence: the place where the original's last tokens fit best, if any fits; near ones before far ones.
Drafter::Pointer Drafter::find_again(int32_t token) const {
    Pointer best{pointer_.at + 1, 0};  // as if one token had been replaced
    double best_score = -1e9;
    for (size_t at = 0; at < original_.size(); ++at) {
        if (original_[at] != token) continue;
        size_t matched = 1;
        while (matched < size_t(kLongestRun) && matched <= at && matched <= text_.size() &&
               original_[at - matched] == text_[text_.size() - matched])
            ++matched;
        const size_t distance = at > pointer_.at ? at - pointer_.at : pointer_.at - at;
        const double score = double(std::min<size_t>(matched, 8)) - 0.3 * std::log2(1.0 + double(distance));
        if (score <= best_score) continue;
        best_score = score;
        const bool convincing = matched >= 3 || (matched == 2 && distance <= 16) || distance <= 3;
        best = convincing ? Pointer{at + 1, int(matched)} : Pointer{pointer_.at + 1, 0};
    }
    return best;
}

}  // namespace selfee
