// The quantisers for AVX-512.
#if defined(SELFEE_EMULATE_AVX512)
#include "quantize/lanes.h"
#else
#include "quantize/lanes_avx512.h"
#endif

#include "quantize/table.h"

namespace selfee {
namespace {

#if defined(SELFEE_EMULATE_AVX512)
using SixteenLanes = PlainLanes<16>;
#else
using SixteenLanes = Avx512Lanes;
#endif

struct LaneTypes {
    using Affine = Pair<SixteenLanes>;
    using Symmetric = Pair<SixteenLanes>;
    using Moving = Pair<Pair<SixteenLanes>>;
    using Positive = SixteenLanes;
};

}  // namespace

const Quantisers& avx512_quantisers() {
    static constexpr Quantisers quantisers = {"avx512", find<LaneTypes>, widen, narrow, first_beyond, add_errors};
    return quantisers;
}

}  // namespace selfee
