// Searches for a scale and a minimum: x ~ scale * code + minimum, codes 0 to top.
//
// The codes that a search ends with are code(x) = clip(round(inverse * (x - offset)), 0, top) for two numbers that were
// tried, so those are returned and no codes are kept. Constant sub-blocks have an inverse of 0: all their codes are 0.
#pragma once
#include "quantize/lanes.h"

namespace selfee {
namespace {

template <class F>
struct AffineFit {
    F scale, low, inverse, offset;
    typename F::Mask constant;
};

template <class F, int N>
SELFEE_INLINE void find_range(const F* x, F& low, F& high) {
    low = high = x[0];
    for (int i = 1; i < N; ++i) {
        low = less_of(x[i], low);
        high = greater_of(x[i], high);
    }
}

// False if a product inverse * (x - low) may be beyond what rounded() can round: x is within lowest to highest.
template <class F>
SELFEE_INLINE bool is_tame(F inverse, F low, F lowest, F highest) {
    const F reach = greater_of(magnitude(highest - low), magnitude(lowest - low));
    return !any(~(magnitude(inverse) * reach < F::all(4e6f)));
}

template <bool TAME, class F>
SELFEE_INLINE F code_of(F x, F inverse, F low, F top) {
    const F v = inverse * (x - low);
    if constexpr (TAME) return rounded(less_of(greater_of(v, F::all(0)), top));
    return less_of(greater_of(rounded_wrapping(v), F::all(0)), top);
}

// ---- June 2023 -------------------------------------------------------------------------------------------------------

// One round: codes, and the scale and minimum that fit them. Says which lanes' codes differ from `codes`, replaces those.
template <bool TAME, class F, int N>
SELFEE_INLINE typename F::Mask round_of_2023(const F* x, F inverse, F low, F top, F* codes, F& scale, F& new_low) {
    F sum_lx = F::all(0), sum_l2 = F::all(0);
    typename F::Mask changed = low < low;
    for (int i = 0; i < N; ++i) {
        const F t = x[i] - low, code = code_of<TAME>(x[i], inverse, low, top);
        changed = changed | (code != codes[i]);
        codes[i] = code;
        sum_lx = sum_lx + t * code;
        sum_l2 = sum_l2 + code * code;
    }
    scale = sum_lx / sum_l2;
    F rest = F::all(0);
    for (int i = 0; i < N; ++i) rest = rest + (x[i] - scale * codes[i]);
    new_low = less_of(F::all(0), rest / F::all(float(N)));
    return changed;
}

// The fit after one round, for sub-blocks whose codes were met already, and the fit at the end.
template <class F, int N>
SELFEE_INLINE void search_affine_2023(const F* x, float top, AffineFit<F>& first, AffineFit<F>& last) {
    F lowest, highest, codes[N];
    find_range<F, N>(x, lowest, highest);
    const F tops = F::all(top), one = F::all(1);
    last.constant = ~(lowest < highest);
    F low = less_of(F::all(0), lowest), scale = F::all(0);
    typename F::Mask active = ~last.constant;
    F inverse = select(active, tops / (highest - low), F::all(0));  // where it is not needed, it must not look wild
    for (int i = 0; i < N; ++i) codes[i] = F::all(-1);
    last.scale = last.low = last.inverse = last.offset = F::all(0);
    first = last;
    for (int round = 0; round < 5 && any(active); ++round) {
        F new_low;
        const auto changed = is_tame(inverse, low, lowest, highest)
                                 ? round_of_2023<true, F, N>(x, inverse, low, tops, codes, scale, new_low)
                                 : round_of_2023<false, F, N>(x, inverse, low, tops, codes, scale, new_low);
        last.scale = select(active, scale, last.scale);
        last.inverse = select(active, inverse, last.inverse);
        last.offset = select(active, low, last.offset);
        low = last.low = select(active, new_low, last.low);
        active = active & changed;
        inverse = select(active, one / last.scale, F::all(0));
        if (round == 0) first = last;
    }
}

// ---- today -----------------------------------------------------------------------------------------------------------

struct AffineGrid {
    float first, step;
    int last;
};

// Sums over the elements of one sub-block a lane.
template <class F>
struct AffineSums {
    F w, x;           // of weights, of weight * x
    F l, l2, xl;      // of weight * code, * code, * x
};

template <bool TAME, class F, int N>
SELFEE_INLINE void code_and_sum(const F* x, const F* w, F inverse, F low, F top, F* codes, AffineSums<F>& sums) {
    F sum_l = F::all(0), sum_l2 = F::all(0), sum_xl = F::all(0);
    for (int i = 0; i < N; ++i) {
        const F code = code_of<TAME>(x[i], inverse, low, top), wl = w[i] * code;
        codes[i] = code;
        sum_l = sum_l + wl;
        sum_l2 = sum_l2 + wl * code;
        sum_xl = sum_xl + wl * x[i];
    }
    sums.l = sum_l;
    sums.l2 = sum_l2;
    sums.xl = sum_xl;
}

template <bool ABSOLUTE, class F, int N>
SELFEE_INLINE F error_of(const F* x, const F* w, const F* codes, F scale, F low) {
    F error = F::all(0);
    for (int i = 0; i < N; ++i) {
        const F difference = scale * codes[i] + low - x[i];
        error = error + w[i] * (ABSOLUTE ? magnitude(difference) : difference * difference);
    }
    return error;
}

// The best of a grid by the weighted error. The grid is laid from the minimum found so far.
template <bool ABSOLUTE, class F, int N>
SELFEE_INLINE AffineFit<F> search_affine(const F* x, const F* w, float top, AffineGrid grid) {
    F lowest, highest, codes[N];
    find_range<F, N>(x, lowest, highest);
    AffineSums<F> sums;
    sums.w = w[0];
    sums.x = w[0] * x[0];
    for (int i = 1; i < N; ++i) {
        sums.w = sums.w + w[i];
        sums.x = sums.x + w[i] * x[i];
    }
    const F tops = F::all(top), zero = F::all(0);
    AffineFit<F> fit;
    fit.low = less_of(zero, lowest);
    fit.constant = highest <= fit.low;
    fit.inverse = select(fit.constant, zero, tops / (highest - fit.low));
    fit.offset = fit.low;
    fit.scale = F::all(1) / fit.inverse;
    const auto code = [&](F inverse) {
        is_tame(inverse, fit.low, lowest, highest)
            ? code_and_sum<true, F, N>(x, w, inverse, fit.low, tops, codes, sums)
            : code_and_sum<false, F, N>(x, w, inverse, fit.low, tops, codes, sums);
    };
    code(fit.inverse);
    F best = error_of<ABSOLUTE, F, N>(x, w, codes, fit.scale, fit.low);
    for (int s = 0; s <= grid.last; ++s) {
        const F wanted = F::all((grid.first + grid.step * float(s)) + top) / (highest - fit.low);
        const F inverse = select(fit.constant, zero, wanted);
        code(inverse);
        const F determinant = sums.w * sums.l2 - sums.l * sums.l;
        F scale = (sums.w * sums.xl - sums.x * sums.l) / determinant;
        F low = (sums.l2 * sums.x - sums.l * sums.xl) / determinant;
        const auto above = zero < low;
        scale = select(above, sums.xl / sums.l2, scale);
        low = select(above, zero, low);
        const F error = error_of<ABSOLUTE, F, N>(x, w, codes, scale, low);
        const auto better = (zero < determinant) & (error < best) & ~fit.constant;
        best = select(better, error, best);
        fit.inverse = select(better, inverse, fit.inverse);
        fit.offset = select(better, fit.low, fit.offset);
        fit.scale = select(better, scale, fit.scale);
        fit.low = select(better, low, fit.low);
    }
    fit.scale = select(fit.constant, zero, fit.scale);
    return fit;
}

}  // namespace
}  // namespace selfee
