// Rotary position embedding.
#include "rope.h"

#include <cmath>

namespace selfee {

void Rotation::set(const std::vector<int64_t>& positions, const std::vector<double>& frequencies) {
    const auto n = int64_t(positions.size());
    pairs = int64_t(frequencies.size());
    cosines.resize(size_t(n * pairs));
    sines.resize(size_t(n * pairs));
    for (int64_t i = 0; i < n; ++i)
        for (int64_t pair = 0; pair < pairs; ++pair) {
            const double angle = double(positions[size_t(i)]) * frequencies[size_t(pair)];
            cosines[size_t(i * pairs + pair)] = float(std::cos(angle));
            sines[size_t(i * pairs + pair)] = float(std::sin(angle));
        }
}

void Rotation::turn(float* head, int64_t index, RopeLayout layout) const {
    const float* cosine = cosines.data() + index * pairs;
    const float* sine = sines.data() + index * pairs;
    const int64_t step = layout == RopeLayout::Neighbours ? 2 : 1, apart = layout == RopeLayout::Neighbours ? 1 : pairs;
    for (int64_t pair = 0; pair < pairs; ++pair) {
        float* x = head + pair * step;
        const float first = x[0], second = x[apart];
        x[0] = first * cosine[pair] - second * sine[pair];
        x[apart] = first * sine[pair] + second * cosine[pair];
    }
}

}  // namespace selfee
