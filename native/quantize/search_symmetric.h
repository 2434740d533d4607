// Searches for a scale alone: x ~ scale * code, codes -half to half - 1.
#pragma once
#include "quantize/lanes.h"

namespace selfee {
namespace {

template <class F>
struct SymmetricSums {
    F lx, l2;  // of weight * x * code, of weight * code * code
};

// The value of largest magnitude, sign and all, the first of equals.
template <class F, int N>
SELFEE_INLINE F find_largest(const F* x) {
    F most = F::all(0), largest = F::all(0);
    for (int i = 0; i < N; ++i) {
        const auto more = most < magnitude(x[i]);
        most = select(more, magnitude(x[i]), most);
        largest = select(more, x[i], largest);
    }
    return largest;
}

// False if a product of `inverse` and something up to `reach` may be beyond what rounded() can round.
template <class F>
SELFEE_INLINE bool is_tame_within(F inverse, F reach) {
    return !any(~(magnitude(inverse) * magnitude(reach) < F::all(4e6f)));
}

template <bool TAME, class F>
SELFEE_INLINE F clipped(F v, F least, F most) {
    if constexpr (TAME) return rounded(less_of(greater_of(v, least), most));
    return less_of(greater_of(rounded_wrapping(v), least), most);
}

template <bool TAME, class F, int N>
SELFEE_INLINE SymmetricSums<F> sums_at(const F* x, const F* w, F inverse, float half) {
    SymmetricSums<F> sums = {F::all(0), F::all(0)};
    for (int i = 0; i < N; ++i) {
        const F code = clipped<TAME>(inverse * x[i], F::all(-half), F::all(half - 1));
        sums.lx = sums.lx + w[i] * x[i] * code;
        sums.l2 = sums.l2 + w[i] * code * code;
    }
    return sums;
}

// ---- today -----------------------------------------------------------------------------------------------------------

// Codes are code(x) = clip(round(inverse * x)) + half. Empty lanes have scale, inverse and codes of 0.
template <class F>
struct SymmetricFit {
    F scale, inverse;
    typename F::Mask empty;
};

// The best of 19 scales.
template <class F, int N>
SELFEE_INLINE SymmetricFit<F> search_symmetric(const F* x, const F* w, float half) {
    const F largest = find_largest<F, N>(x), zero = F::all(0);
    const auto sums_for = [&](F inverse) {
        return is_tame_within(inverse, largest) ? sums_at<true, F, N>(x, w, inverse, half)
                                                : sums_at<false, F, N>(x, w, inverse, half);
    };
    SymmetricFit<F> fit;
    fit.empty = magnitude(largest) < F::all(1e-15f);
    fit.inverse = select(fit.empty, zero, F::all(-half) / largest);
    SymmetricSums<F> sums = sums_for(fit.inverse);
    fit.scale = select(sums.l2 != zero, sums.lx / sums.l2, zero);
    F best = fit.scale * sums.lx;
    for (int step = -9; step <= 9; ++step) {
        if (step == 0) continue;
        const F inverse = select(fit.empty, zero, F::all(-(half + 0.1f * float(step))) / largest);
        sums = sums_for(inverse);
        const auto better = (zero < sums.l2) & (best * sums.l2 < sums.lx * sums.lx);
        fit.inverse = select(better, inverse, fit.inverse);
        fit.scale = select(better, sums.lx / sums.l2, fit.scale);
        best = select(better, fit.scale * sums.lx, best);
    }
    fit.scale = select(fit.empty, zero, fit.scale);
    return fit;
}

// ---- June 2023, and Q3_K today ---------------------------------------------------------------------------------------

// Move single codes where that helps, element after element; says which lanes changed.
template <class F, int N>
SELFEE_INLINE typename F::Mask move_codes(const F* x, const F* w, F* codes, SymmetricSums<F>& sums, float half,
                                          typename F::Mask active) {
    const F zero = F::all(0), least = F::all(-half), most = F::all(half - 1);
    typename F::Mask changed = zero < zero;
    for (int i = 0; i < N; ++i) {
        const F wx = w[i] * x[i], lx = sums.lx - wx * codes[i], l2 = sums.l2 - w[i] * codes[i] * codes[i];
        const F v = x[i] * l2 / lx;
        F code = rounded(less_of(greater_of(v, least), most));
        if (any(~(magnitude(v) < F::all(4e6f)))) [[unlikely]] code = clipped<false>(v, least, most);
        const F new_lx = lx + wx * code, new_l2 = l2 + w[i] * code * code;
        const auto better = (zero < new_l2) & (sums.lx * sums.lx * new_l2 < new_lx * new_lx * sums.l2);
        const auto move = active & (zero < lx) & (code != codes[i]) & better;
        codes[i] = select(move, code, codes[i]);
        sums.lx = select(move, new_lx, sums.lx);
        sums.l2 = select(move, new_l2, sums.l2);
        changed = changed | move;
    }
    return changed;
}

// Codes for the scale that the codes themselves suggest, up to three times, as long as it helps.
template <class F, int N>
SELFEE_INLINE void refit_codes(const F* x, const F* w, F* codes, SymmetricSums<F>& sums, float half) {
    const F zero = F::all(0), least = F::all(-half), most = F::all(half - 1);
    typename F::Mask active = ~(zero < zero);
    for (int round = 0; round < 3 && any(active); ++round) {
        const F scale = sums.lx / sums.l2, best = scale * sums.lx, inverse = F::all(1) / scale;
        SymmetricSums<F> fresh = {zero, zero};
        typename F::Mask changed = zero < zero;
        F tried[N];
        for (int i = 0; i < N; ++i) {
            tried[i] = clipped<false>(x[i] * inverse, least, most);
            changed = changed | (tried[i] != codes[i]);
            fresh.lx = fresh.lx + w[i] * x[i] * tried[i];
            fresh.l2 = fresh.l2 + w[i] * tried[i] * tried[i];
        }
        active = active & changed & (fresh.l2 != zero) & ~(fresh.lx * fresh.lx <= best * fresh.l2);
        for (int i = 0; i < N; ++i) codes[i] = select(active, tried[i], codes[i]);
        sums.lx = select(active, fresh.lx, sums.lx);
        sums.l2 = select(active, fresh.l2, sums.l2);
    }
}

// Codes (-half to half - 1; -half in empty lanes) and a scale, with the weights x * x. `least` is today's bound below
// which magnitudes count as zero; with 0, the rule of 2023, a sum of squares that came out as 0 makes NaN of the scale.
template <class F, int N>
SELFEE_INLINE F search_moving(const F* x, float half, bool refit, float least, F* codes) {
    const F largest = find_largest<F, N>(x), zero = F::all(0);
    F w[N];
    for (int i = 0; i < N; ++i) w[i] = x[i] * x[i];
    const F inverse = F::all(-half) / largest;
    SymmetricSums<F> sums = {zero, zero};
    for (int i = 0; i < N; ++i) {
        codes[i] = clipped<false>(x[i] * inverse, F::all(-half), F::all(half - 1));
        sums.lx = sums.lx + w[i] * x[i] * codes[i];
        sums.l2 = sums.l2 + w[i] * codes[i] * codes[i];
    }
    if (refit) refit_codes<F, N>(x, w, codes, sums, half);
    typename F::Mask active = ~(zero < zero);
    for (int sweep = 0; sweep < 5 && any(active); ++sweep) active = active & move_codes<F, N>(x, w, codes, sums, half, active);
    const auto empty = ~(zero < magnitude(largest)) | (magnitude(largest) < F::all(least));
    for (int i = 0; i < N; ++i) codes[i] = select(empty, F::all(-half), codes[i]);
    const F scale = select(empty, zero, sums.lx / sums.l2);
    return least > 0 ? select(zero < sums.l2, scale, zero) : scale;
}

// ---- scales of sub-blocks, weighed by an importance matrix -----------------------------------------------------------

// Codes up to `top` (kept in a byte, so those below 0 wrap) and a scale for numbers that are at least 0.
template <class F, int N>
SELFEE_INLINE F search_positive(const F* x, const F* w, float top, F* codes) {
    const F zero = F::all(0), tops = F::all(top);
    F largest = zero;
    for (int i = 0; i < N; ++i) largest = greater_of(x[i], largest);
    const auto error_for = [&](F inverse, bool first) {
        const F scale = F::all(1) / inverse;
        F error = zero;
        for (int i = 0; i < N; ++i) {
            const F nearest = rounded_wrapping(inverse * x[i]), code = first ? low_byte(nearest) : less_of(nearest, tops);
            const F rest = x[i] - scale * code;
            error = error + w[i] * rest * rest;
        }
        return error;
    };
    F inverse = tops / largest, best = error_for(inverse, true);
    for (int step = -4; step <= 4; ++step) {
        if (step == 0) continue;
        const F tried = F::all(0.1f * float(step) + top) / largest, error = error_for(tried, false);
        const auto better = error < best;
        best = select(better, error, best);
        inverse = select(better, tried, inverse);
    }
    SymmetricSums<F> sums = {zero, zero};
    for (int i = 0; i < N; ++i) {
        const F code = less_of(rounded_wrapping(inverse * x[i]), tops);
        sums.lx = sums.lx + w[i] * x[i] * code;
        sums.l2 = sums.l2 + w[i] * code * code;
        codes[i] = low_byte(code);
    }
    typename F::Mask active = ~(zero < zero);
    for (int sweep = 0; sweep < 5 && any(active); ++sweep) {
        typename F::Mask changed = zero < zero;
        for (int i = 0; i < N; ++i) {
            const F wx = w[i] * x[i], lx = sums.lx - wx * codes[i], l2 = sums.l2 - w[i] * codes[i] * codes[i];
            const F code = less_of(rounded_wrapping(x[i] * l2 / lx), tops);
            const F new_lx = lx + wx * code, new_l2 = l2 + w[i] * code * code;
            const auto better = sums.lx * sums.lx * new_l2 < new_lx * new_lx * sums.l2;
            const auto move = active & (zero < lx) & (zero < l2) & (code != codes[i]) & better;
            codes[i] = select(move, low_byte(code), codes[i]);
            sums.lx = select(move, new_lx, sums.lx);
            sums.l2 = select(move, new_l2, sums.l2);
            changed = changed | move;
        }
        active = active & changed;
    }
    const auto empty = largest < F::all(1e-15f);
    for (int i = 0; i < N; ++i) codes[i] = select(empty, zero, codes[i]);
    return select(empty | ~(zero < sums.l2), zero, sums.lx / sums.l2);
}

}  // namespace
}  // namespace selfee
