// Rotary position embedding: pairs of a head's values are turned by an angle that grows with the position.
#pragma once
#include <cstdint>
#include <vector>

namespace selfee {

enum class RopeLayout {
    Neighbours,  // (0, 1), (2, 3), ...: Meta's checkpoints, GGML, GGUF "llama"
    Halves,      // (0, n/2), (1, n/2 + 1), ...: Hugging Face's checkpoints, GGUF "qwen2" and "qwen3"
};

// Cosines and sines of a batch's positions; computed in double, one set for all layers and heads.
struct Rotation {
    int64_t pairs = 0;
    std::vector<float> cosines, sines;  // [token][pair]

    // angle = position * frequency[pair]
    void set(const std::vector<int64_t>& positions, const std::vector<double>& frequencies);
    // Turns the first 2 * pairs values of one head of the index-th token.
    void turn(float* head, int64_t index, RopeLayout layout) const;
};

}  // namespace selfee
