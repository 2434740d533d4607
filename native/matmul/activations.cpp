// Lays out activations and quantises them.
#include "matmul/activations.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "matmul/kernels.h"

namespace selfee {

namespace {

constexpr size_t kAlign = 64;

size_t aligned(size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

}  // namespace

ActivationKind activation_kind(Type weight_type) {
    switch (weight_type) {
        case Type::F32: case Type::BF16: return ActivationKind::F32;
        case Type::F16: return ActivationKind::F16;
        case Type::Q4_0: case Type::Q5_0: case Type::Q8_0: return ActivationKind::Q8_0;
        case Type::Q4_1: case Type::Q5_1: return ActivationKind::Q8_1;
        case Type::Q2_K: case Type::Q3_K: case Type::Q4_K: case Type::Q5_K: case Type::Q6_K: return ActivationKind::Q8_K;
        default: throw std::invalid_argument("type " + std::to_string(int(weight_type)) + ": not a type that weights are stored in");
    }
}

uint8_t* Activations::data() { return const_cast<uint8_t*>(static_cast<const Activations*>(this)->data()); }

const uint8_t* Activations::data() const {
    const auto address = reinterpret_cast<uintptr_t>(storage.data());
    return storage.data() + (kAlign - address % kAlign) % kAlign;
}

void Activations::reshape(ActivationKind new_kind, int64_t new_n, int64_t new_cols, int64_t new_panel) {
    const bool quantised = is_quantised(new_kind);
    const int64_t block = activation_block(new_kind);
    if (new_n < 0 || new_cols < 1 || (quantised && new_cols % block != 0))
        throw std::invalid_argument("activations: " + std::to_string(new_n) + " x " + std::to_string(new_cols) +
                                    "; expected rows of a multiple of " + std::to_string(quantised ? block : 1));
    kind = new_kind;
    n = new_n;
    cols = new_cols;
    panel = quantised ? new_panel : 0;
    row_bytes = quantised ? size_t(cols) : size_t(cols + 15) / 16 * 16 * sizeof(float);
    scales_at = aligned(size_t(n) * row_bytes);
    const size_t scale_bytes = quantised ? size_t(n) * size_t(cols / block) * sizeof(float) : 0;
    const size_t sums = kind != ActivationKind::Q8_K ? 1 : size_t(kSums16);
    sums_at = aligned(scales_at + scale_bytes);
    pairs_at = aligned(sums_at + sums * scale_bytes);
    const size_t pair_bytes = kind == ActivationKind::Q8_K && panel > 0 ? size_t(kPairs) * scale_bytes : 0;
    // Two lines at the front for alignment, two at the end: kernels read whole vectors of scales.
    const size_t needed = pairs_at + pair_bytes + 4 * kAlign;
    if (storage.size() < needed) storage.resize(needed);
}

void reshape_for(const Matrix& w, int64_t n, Activations& a) {
    a.reshape(activation_kind(w.type), n, w.cols, w.packed ? active_kernels().panel : 0);
}

bool share_activations(const Matrix& one, const Matrix& other) {
    return activation_kind(one.type) == activation_kind(other.type) && (one.packed == nullptr) == (other.packed == nullptr);
}

int64_t prepare_parts(const Activations& a) {
    const PrepareParts parts = prepare_parts_of(a);
    return (a.n + parts.tokens - 1) / parts.tokens * parts.slices;
}

void prepare(Activations& a, const float* x, int64_t x_stride, int64_t begin, int64_t end) {
    active_kernels().prepare(a, x, x_stride, begin, end);
}

}  // namespace selfee
