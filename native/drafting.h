// Guesses the next tokens of a text by what followed before, each with the chance that it is right.
//
// Three sources guess: the text so far, the memory of earlier texts, and a pointer that walks the text which is being
// revised. The first two are tables from the last 1 to 16 tokens to what followed, with counters that say how often it
// did, as processors predict branches (Seznec and Michaud 2006). How far each is to be trusted is counted as it goes.
// Guesses change speed, never text.  The meaning is tests/llama/drafting_twin.py; docs/explanation/drafting.md.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace selfee {

// What followed the last tokens of a text, for several lengths of "last".
class NgramTable {
public:
    static constexpr int kOrders = 8;
    static constexpr std::array<int, kOrders> kLengths = {1, 2, 3, 4, 6, 8, 12, 16};
    static constexpr int kMost = 3;  // of a counter

    // Of the ends of a text: a hash for each length, as many as the text is long enough for.
    struct Ends {
        std::array<uint64_t, kOrders> hashes;
        int count = 0;
    };
    struct Guess {
        int32_t token = -1;
        int order = 0;       // index into kLengths: of the longest end that is known together with all shorter ones
        int confidence = 0;  // 1 to kMost; 0 = no guess
    };

    // At most this many entries (rounded up to a power of two); then those of least confidence are overwritten.
    explicit NgramTable(size_t most_entries);

    static Ends ends(const int32_t* last, size_t available);  // `last` points behind the text

    Guess look(const Ends& ends) const;
    void learn(const Ends& ends, int32_t token);
    size_t bytes() const { return entries_.size() * sizeof(Entry); }

private:
    struct Entry {
        uint64_t key = 0;  // 0 = free
        int32_t token = 0;
        int32_t confidence = 0;
    };
    static constexpr size_t kWindow = 32;  // places where an entry may lie

    const Entry* find(uint64_t key) const;
    Entry& place(uint64_t key);
    void grow();

    size_t most_, used_ = 0;
    std::vector<Entry> entries_;
};

enum class Source { Text, Memory, Pointer };

// What makes a guess more or less trustworthy.
struct Evidence {
    Source source = Source::Text;
    int strength = 0;                // of a table: order and confidence; of the pointer: tokens that matched in a row
    std::array<int, 2> others = {};  // the other sources: 0 no guess, 1 the same, 2 another
};

// How often guesses were right.
class Odds {
public:
    double chance(const Evidence& evidence) const;
    void count(const Evidence& evidence, bool right);

private:
    struct Cell {
        float right = 0, total = 0;
    };
    static constexpr int kTable = NgramTable::kOrders * NgramTable::kMost, kPointer = 13;
    static constexpr int kStrengths = 2 * kTable + kPointer;

    static int row(const Evidence& evidence);
    static double prior(int row);
    static double blend(const Cell& cell, double prior);

    std::array<Cell, kStrengths> alone_{};
    std::array<std::array<Cell, 9>, kStrengths> joint_{};
};

// What outlives a text; several drafters may share one, from several threads.
struct DraftMemory {
    explicit DraftMemory(size_t most_entries) : table(most_entries) {}
    std::mutex lock;
    NgramTable table;
    Odds odds;
};

class Drafter {
public:
    struct Draft {
        std::vector<int32_t> tokens;
        std::vector<double> chances;  // that all tokens up to this one are right; never rising
    };

    explicit Drafter(std::shared_ptr<DraftMemory> memory);

    // A text that was not written by the model; nothing of it gets into the memory.
    void read(const int32_t* tokens, size_t count);
    // What the text from here on probably repeats from its start; empty for nothing.
    void revise(std::vector<int32_t> original);
    // The model wrote this.
    void write(const int32_t* tokens, size_t count);
    // At most `limit` tokens, as long as the chance of all being right is at least `least`.
    Draft propose(size_t limit, double least) const;

private:
    // Where the text stands in the one that it revises.
    struct Pointer {
        size_t at = 0;
        int run = 0;  // tokens in a row that were the same
    };
    struct Candidate {
        Evidence evidence;
        int32_t token;
    };
    struct Candidates {
        std::array<Candidate, 3> items;
        int count = 0;
    };

    Candidates candidates(const NgramTable::Ends& ends, const Pointer& pointer) const;
    void append(int32_t token);
    void move(Pointer& pointer, int32_t token) const;
    Pointer find_again(int32_t token) const;

    std::shared_ptr<DraftMemory> memory_;
    NgramTable table_;
    std::vector<int32_t> text_, original_;
    Pointer pointer_;
};

}  // namespace selfee
