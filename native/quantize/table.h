// Puts the quantisers of one instruction set together; included last by each of its files, which defines LaneTypes.
#pragma once
#include "quantize/affine_types.h"
#include "quantize/legacy.h"
#include "quantize/streams.h"
#include "quantize/symmetric_types.h"

namespace selfee {
namespace {

template <class L>
QuantizeRun find_simple(Type type) {
    switch (type) {
        case Type::Q4_0: return quantise_symmetric<L, BlockQ4_0, 8>;
        case Type::Q5_0: return quantise_symmetric<L, BlockQ5_0, 16>;
        case Type::Q4_1: return quantise_affine<L, BlockQ4_1, 15>;
        case Type::Q5_1: return quantise_affine<L, BlockQ5_1, 31>;
        case Type::Q8_0: return quantise_q8_0;
        default: return nullptr;
    }
}

template <class L>
QuantizeRun find_weighted(Type type) {
    switch (type) {
        case Type::Q4_0: return quantise_symmetric_weighted<L, BlockQ4_0, 8>;
        case Type::Q5_0: return quantise_symmetric_weighted<L, BlockQ5_0, 16>;
        case Type::Q4_1: return quantise_affine_32_weighted<L, BlockQ4_1, 15>;
        case Type::Q5_1: return quantise_affine_32_weighted<L, BlockQ5_1, 31>;
        case Type::Q2_K: return quantise_affine_weighted<L, BlockQ2_K>;
        case Type::Q3_K: return quantise_q3_k_weighted<L>;
        case Type::Q4_K: return quantise_affine_weighted<L, BlockQ4_K>;
        case Type::Q5_K: return quantise_affine_weighted<L, BlockQ5_K>;
        case Type::Q6_K: return quantise_q6_k_weighted<L>;
        default: return find_simple<L>(type);
    }
}

template <class L>
QuantizeRun find(Type type, Generation generation, bool weighted) {
    if (weighted) return find_weighted<L>(type);
    const bool current = generation == Generation::Current;
    switch (type) {
        case Type::Q2_K: return current ? quantise_affine_current<L, BlockQ2_K> : quantise_affine_2023<L, BlockQ2_K>;
        case Type::Q4_K: return current ? quantise_affine_current<L, BlockQ4_K> : quantise_affine_2023<L, BlockQ4_K>;
        case Type::Q5_K: return current ? quantise_affine_current<L, BlockQ5_K> : quantise_affine_2023<L, BlockQ5_K>;
        case Type::Q3_K: return current ? quantise_q3_k<L, Generation::Current> : quantise_q3_k<L, Generation::June2023>;
        case Type::Q6_K: return current ? quantise_q6_k_current<L> : quantise_q6_k_2023<L>;
        default: return find_simple<L>(type);
    }
}

}  // namespace
}  // namespace selfee
