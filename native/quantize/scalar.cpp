// The quantisers for any machine: lanes of whatever vectors the compiler has there.
#include "quantize/lanes.h"

#include "quantize/table.h"

namespace selfee {
namespace {

struct LaneTypes {
    using Affine = PlainLanes<4>;
    using Symmetric = PlainLanes<4>;
    using Moving = PlainLanes<4>;
    using Positive = PlainLanes<4>;
};

}  // namespace

const Quantisers& scalar_quantisers() {
    static constexpr Quantisers quantisers = {"scalar", find<LaneTypes>, widen, narrow, first_beyond, add_errors};
    return quantisers;
}

}  // namespace selfee
