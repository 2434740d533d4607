// The quantisers for AVX2.
#include "quantize/lanes_avx2.h"

#include "quantize/table.h"

namespace selfee {
namespace {

struct LaneTypes {
    using Affine = Avx2Lanes;
    using Symmetric = Pair<Avx2Lanes>;
    using Moving = Pair<Pair<Avx2Lanes>>;
    using Positive = Pair<Avx2Lanes>;
};

}  // namespace

const Quantisers& avx2_quantisers() {
    static constexpr Quantisers quantisers = {"avx2", find<LaneTypes>, widen, narrow, first_beyond, add_errors};
    return quantisers;
}

}  // namespace selfee
