// Floats side by side in the lanes of vectors: what the searches of quantisers are written in.
//
// Each lane holds a sub-block, and elements come one after another, so every lane does the operations of the scalar
// reference in its order and gives its bits, whatever the instruction set and number of lanes. Branches are masks.
// A lane type F has F::kLanes, a mask type F::Mask, operators, and the functions below as overloads. Included once by
// each instruction set's file: everything is in an anonymous namespace, so nothing is shared between them.
#pragma once
#include <cstdint>
#include <cstring>

#pragma GCC diagnostic ignored "-Wpsabi"

#define SELFEE_INLINE inline __attribute__((always_inline))

namespace selfee {
namespace {

constexpr float kRoundingShift = 12582912.0f;  // 1.5 * 2^23: adding it leaves the rounded integer in the low bits

// N floats in a GCC vector: any machine, and the AVX-512 kernels where they are emulated.
template <int N>
struct VectorOf {
    typedef float F __attribute__((vector_size(4 * N)));
    typedef int32_t I __attribute__((vector_size(4 * N)));
};

template <int N>
struct PlainLanes {
    using F = typename VectorOf<N>::F;
    using I = typename VectorOf<N>::I;
    struct Mask {
        I m;
    };
    static constexpr int kLanes = N;
    F v;

    static SELFEE_INLINE PlainLanes all(float value) { return {F{} + value}; }
    static SELFEE_INLINE PlainLanes load(const float* from) {
        PlainLanes r;
        std::memcpy(&r.v, from, sizeof r.v);
        return r;
    }
    SELFEE_INLINE void store(float* to) const { std::memcpy(to, &v, sizeof v); }
};

template <int N> SELFEE_INLINE PlainLanes<N> operator+(PlainLanes<N> a, PlainLanes<N> b) { return {a.v + b.v}; }
template <int N> SELFEE_INLINE PlainLanes<N> operator-(PlainLanes<N> a, PlainLanes<N> b) { return {a.v - b.v}; }
template <int N> SELFEE_INLINE PlainLanes<N> operator*(PlainLanes<N> a, PlainLanes<N> b) { return {a.v * b.v}; }
template <int N> SELFEE_INLINE PlainLanes<N> operator/(PlainLanes<N> a, PlainLanes<N> b) { return {a.v / b.v}; }
template <int N> SELFEE_INLINE auto operator<(PlainLanes<N> a, PlainLanes<N> b) { return typename PlainLanes<N>::Mask{a.v < b.v}; }
template <int N> SELFEE_INLINE auto operator<=(PlainLanes<N> a, PlainLanes<N> b) { return typename PlainLanes<N>::Mask{a.v <= b.v}; }
template <int N> SELFEE_INLINE auto operator!=(PlainLanes<N> a, PlainLanes<N> b) { return typename PlainLanes<N>::Mask{a.v != b.v}; }

template <class M> requires requires(M m) { m.m[0]; }
SELFEE_INLINE M operator&(M a, M b) { return {a.m & b.m}; }
template <class M> requires requires(M m) { m.m[0]; }
SELFEE_INLINE M operator|(M a, M b) { return {a.m | b.m}; }
template <class M> requires requires(M m) { m.m[0]; }
SELFEE_INLINE M operator~(M a) { return {~a.m}; }
template <class M> requires requires(M m) { m.m[0]; }
SELFEE_INLINE bool any(M mask) {
    int32_t found = 0;
    for (size_t lane = 0; lane < sizeof(mask.m) / 4; ++lane) found |= mask.m[lane];
    return found != 0;
}

template <int N>
SELFEE_INLINE PlainLanes<N> select(typename PlainLanes<N>::Mask mask, PlainLanes<N> a, PlainLanes<N> b) {
    using I = typename PlainLanes<N>::I;
    using F = typename PlainLanes<N>::F;
    return {(F)((mask.m & (I)a.v) | (~mask.m & (I)b.v))};
}

// a if it is less (greater), else b; b where either is NaN.
template <int N> SELFEE_INLINE PlainLanes<N> less_of(PlainLanes<N> a, PlainLanes<N> b) { return select(a < b, a, b); }
template <int N> SELFEE_INLINE PlainLanes<N> greater_of(PlainLanes<N> a, PlainLanes<N> b) { return select(b < a, a, b); }

template <int N>
SELFEE_INLINE PlainLanes<N> magnitude(PlainLanes<N> a) {
    using I = typename PlainLanes<N>::I;
    using F = typename PlainLanes<N>::F;
    return {(F)((I)a.v & 0x7fffffff)};
}

template <int N>
SELFEE_INLINE PlainLanes<N> root(PlainLanes<N> a) {
    for (int lane = 0; lane < N; ++lane) a.v[lane] = __builtin_sqrtf(a.v[lane]);
    return a;
}

// To the nearest integer, ties to even, for magnitudes below 2^22.
template <int N>
SELFEE_INLINE PlainLanes<N> rounded(PlainLanes<N> a) {
    return {(a.v + kRoundingShift) - kRoundingShift};
}

// The same as the reference rounds: larger numbers wrap around, NaN gives 0.
template <int N>
SELFEE_INLINE PlainLanes<N> rounded_wrapping(PlainLanes<N> a) {
    using I = typename PlainLanes<N>::I;
    using F = typename PlainLanes<N>::F;
    return {__builtin_convertvector(((I)(a.v + kRoundingShift) & 0x7fffff) - 0x400000, F)};
}

// The low byte of integers.
template <int N>
SELFEE_INLINE PlainLanes<N> low_byte(PlainLanes<N> a) {
    using I = typename PlainLanes<N>::I;
    using F = typename PlainLanes<N>::F;
    return {__builtin_convertvector(__builtin_convertvector(a.v, I) & 255, F)};
}

// N rows of N floats, `stride` apart, to N vectors of columns.
template <int N>
SELFEE_INLINE void transpose(const float* from, int64_t stride, PlainLanes<N>* to, int64_t step) {
    for (int column = 0; column < N; ++column)
        for (int row = 0; row < N; ++row) to[column * step].v[row] = from[row * stride + column];
}

// Two vectors as one of twice the lanes: while one waits for a result the other computes.
template <class F>
struct Pair {
    struct Mask {
        typename F::Mask a, b;
    };
    static constexpr int kLanes = 2 * F::kLanes;
    F a, b;

    static SELFEE_INLINE Pair all(float value) { return {F::all(value), F::all(value)}; }
    static SELFEE_INLINE Pair load(const float* from) { return {F::load(from), F::load(from + F::kLanes)}; }
    SELFEE_INLINE void store(float* to) const {
        a.store(to);
        b.store(to + F::kLanes);
    }
};

template <class M> concept PairMask = requires(M m) { m.a; m.b; };
template <class F> SELFEE_INLINE Pair<F> operator+(Pair<F> x, Pair<F> y) { return {x.a + y.a, x.b + y.b}; }
template <class F> SELFEE_INLINE Pair<F> operator-(Pair<F> x, Pair<F> y) { return {x.a - y.a, x.b - y.b}; }
template <class F> SELFEE_INLINE Pair<F> operator*(Pair<F> x, Pair<F> y) { return {x.a * y.a, x.b * y.b}; }
template <class F> SELFEE_INLINE Pair<F> operator/(Pair<F> x, Pair<F> y) { return {x.a / y.a, x.b / y.b}; }
template <class F> SELFEE_INLINE auto operator<(Pair<F> x, Pair<F> y) { return typename Pair<F>::Mask{x.a < y.a, x.b < y.b}; }
template <class F> SELFEE_INLINE auto operator<=(Pair<F> x, Pair<F> y) { return typename Pair<F>::Mask{x.a <= y.a, x.b <= y.b}; }
template <class F> SELFEE_INLINE auto operator!=(Pair<F> x, Pair<F> y) { return typename Pair<F>::Mask{x.a != y.a, x.b != y.b}; }
template <PairMask M> SELFEE_INLINE M operator&(M x, M y) { return {x.a & y.a, x.b & y.b}; }
template <PairMask M> SELFEE_INLINE M operator|(M x, M y) { return {x.a | y.a, x.b | y.b}; }
template <PairMask M> SELFEE_INLINE M operator~(M x) { return {~x.a, ~x.b}; }
template <PairMask M> SELFEE_INLINE bool any(M x) { return any(x.a | x.b); }
template <class F> SELFEE_INLINE Pair<F> select(typename Pair<F>::Mask m, Pair<F> x, Pair<F> y) {
    return {select(m.a, x.a, y.a), select(m.b, x.b, y.b)};
}
template <class F> SELFEE_INLINE Pair<F> less_of(Pair<F> x, Pair<F> y) { return {less_of(x.a, y.a), less_of(x.b, y.b)}; }
template <class F> SELFEE_INLINE Pair<F> greater_of(Pair<F> x, Pair<F> y) { return {greater_of(x.a, y.a), greater_of(x.b, y.b)}; }
template <class F> SELFEE_INLINE Pair<F> magnitude(Pair<F> x) { return {magnitude(x.a), magnitude(x.b)}; }
template <class F> SELFEE_INLINE Pair<F> root(Pair<F> x) { return {root(x.a), root(x.b)}; }
template <class F> SELFEE_INLINE Pair<F> rounded(Pair<F> x) { return {rounded(x.a), rounded(x.b)}; }
template <class F> SELFEE_INLINE Pair<F> rounded_wrapping(Pair<F> x) { return {rounded_wrapping(x.a), rounded_wrapping(x.b)}; }
template <class F> SELFEE_INLINE Pair<F> low_byte(Pair<F> x) { return {low_byte(x.a), low_byte(x.b)}; }

// `count` elements of kLanes neighbouring sub-blocks, each `count` floats long, to one vector an element; vectors lie
// `step` apart.
template <class F>
SELFEE_INLINE void load_elements(const float* from, int count, F* to, int64_t step = 1) {
    for (int first = 0; first < count; first += F::kLanes) transpose(from + first, count, to + first * step, step);
}

template <class F>
SELFEE_INLINE void load_elements(const float* from, int count, Pair<F>* to, int64_t step = 1) {
    load_elements(from, count, &to->a, 2 * step);
    load_elements(from + F::kLanes * count, count, &to->b, 2 * step);
}

}  // namespace
}  // namespace selfee
