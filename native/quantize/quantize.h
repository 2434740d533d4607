// Whole tensors from one type to another, on several threads; the bytes do not depend on how many.
#pragma once
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "quantize/kernels.h"
#include "threads.h"

namespace selfee {

// A tensor as it lies in a file: rows x cols values in whole blocks of `type`.
struct Source {
    Type type;
    const uint8_t* bytes;
    int64_t rows, cols;
};

struct Target {
    Type type;
    Generation generation;
    const float* importance = nullptr;   // one for each column; then rows are whole blocks of both types
    const uint8_t* previous = nullptr;   // the block before the first, for types of 2023 that remember it
};

// What could not be stored: the index of a value, or of the first value of a block whose scale is not finite.
struct Unstorable {
    int64_t index;
    std::optional<float> value;
};

struct SumsOfSquares {
    double error, energy;  // of (weighted) differences, of the values
};

class Quantizer {
public:
    Quantizer(int threads, const Quantisers& quantisers);
    ~Quantizer();

    // Bytes that the values take in `type`; throws std::invalid_argument for a type that is not quantised to, or values
    // that are not whole blocks.
    static size_t target_bytes(Type type, int64_t count);

    // Fills `out`; what it holds is undefined where something was unstorable or `interrupted` said true.
    std::optional<Unstorable> run(const Source& source, const Target& target, uint8_t* out, bool (*interrupted)());

    // How much would be lost, without keeping the blocks.
    std::optional<Unstorable> measure(const Source& source, const Target& target, SumsOfSquares& sums, bool (*interrupted)());

    int threads() const { return pool_.threads(); }

private:
    struct Workspace;
    struct Job;

    void quantise_part(Job& job, int64_t part, int thread);
    bool quantise_run(Job& job, Workspace& work, int64_t first, int64_t count, uint8_t* out, const uint8_t* previous);
    bool repair_block(Job& job, Workspace& work, int64_t block);
    void repair(Job& job);
    void square_rows(Job& job);
    void measure_run(Job& job, Workspace& work, int64_t first, int64_t count, const uint8_t* blocks, double* sums);
    std::optional<Unstorable> found(Job& job);

    ThreadPool pool_;
    const Quantisers& quantisers_;
    std::vector<std::unique_ptr<Workspace>> workspaces_;  // one for each thread
    std::mutex one_caller_;
};

}  // namespace selfee
