// Checks that every binding of a matrix needs.  What is refused here is a ValueError in Python.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <optional>
#include <stdexcept>
#include <string>

#include "matmul/kernels.h"

namespace nb = nanobind;

namespace selfee {

using Bytes = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

[[noreturn]] inline void refuse(const std::string& what) { throw nb::value_error(what.c_str()); }

inline Type checked_type(int64_t id) {
    block_values(static_cast<Type>(id == int32_t(id) ? int32_t(id) : -1));  // throws for anything unknown
    return static_cast<Type>(id);
}

// Bytes that `count` values need; refuses part blocks and products that do not fit.
inline size_t checked_bytes(Type type, int64_t count) {
    const int64_t values = block_values(type);
    size_t bytes = 0;
    if (count < 0 || count % values != 0)
        refuse("count " + std::to_string(count) + "; expected a multiple of " + std::to_string(values));
    if (__builtin_mul_overflow(size_t(count / values), block_bytes(type), &bytes))
        refuse("count " + std::to_string(count) + " is beyond any address space");
    return bytes;
}

inline void check_buffer(const Bytes& blocks, size_t expected) {
    if (blocks.nbytes() != expected)
        refuse("blocks: " + std::to_string(blocks.nbytes()) + " bytes; expected " + std::to_string(expected));
}

inline Matrix checked_matrix(int64_t type_id, const Bytes& blocks, int64_t rows, int64_t cols) {
    const Type type = checked_type(type_id);
    if (rows < 0 || cols < 1) refuse("matrix of " + std::to_string(rows) + " x " + std::to_string(cols));
    const size_t row_bytes = checked_bytes(type, cols);
    size_t bytes = 0;
    if (__builtin_mul_overflow(row_bytes, size_t(rows), &bytes)) refuse("rows x cols is beyond any address space");
    check_buffer(blocks, bytes);
    return {type, rows, cols, blocks.data(), row_bytes, nullptr};
}

inline const Kernels& chosen(const std::optional<std::string>& isa) {
    return isa ? kernels_named(*isa) : active_kernels();
}

// Activations for a weight type, packed or not, quantised from checked x.
inline Activations prepared(Type type, bool packed, const Floats& x, const Kernels& kernels) {
    const auto n = int64_t(x.shape(0)), cols = int64_t(x.shape(1));
    Activations a;
    a.reshape(activation_kind(type), n, cols, packed ? kernels.panel : 0);
    kernels.prepare(a, x.data(), cols, 0, prepare_parts(a));
    return a;
}

inline void check_columns(const Floats& x, const Matrix& w) {
    if (int64_t(x.shape(1)) != w.cols)
        refuse("x: rows of " + std::to_string(x.shape(1)) + " values; the matrix has " + std::to_string(w.cols) + " columns");
}

}  // namespace selfee
