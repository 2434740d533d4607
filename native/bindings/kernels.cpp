// Binds de-quantisation, activations and matmul.  Every size and type is checked here; below, nothing is.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>

#include "matmul/activations.h"
#include "matmul/kernels.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace selfee {
namespace {

using Bytes = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using FloatVector = nb::ndarray<nb::numpy, float, nb::ndim<1>>;
using FloatMatrix = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

[[noreturn]] void refuse(const std::string& what) { throw nb::value_error(what.c_str()); }

Type checked_type(int64_t id) {
    block_values(static_cast<Type>(id == int32_t(id) ? int32_t(id) : -1));  // throws for anything unknown
    return static_cast<Type>(id);
}

// Bytes that `count` values need; refuses part blocks and products that do not fit.
size_t checked_bytes(Type type, int64_t count) {
    const int64_t values = block_values(type);
    size_t bytes = 0;
    if (count < 0 || count % values != 0)
        refuse("count " + std::to_string(count) + "; expected a multiple of " + std::to_string(values));
    if (__builtin_mul_overflow(size_t(count / values), block_bytes(type), &bytes))
        refuse("count " + std::to_string(count) + " is beyond any address space");
    return bytes;
}

void check_buffer(const Bytes& blocks, size_t expected) {
    if (blocks.nbytes() != expected)
        refuse("blocks: " + std::to_string(blocks.nbytes()) + " bytes; expected " + std::to_string(expected));
}

Matrix checked_matrix(int64_t type_id, const Bytes& blocks, int64_t rows, int64_t cols) {
    const Type type = checked_type(type_id);
    if (rows < 0 || cols < 1) refuse("matrix of " + std::to_string(rows) + " x " + std::to_string(cols));
    const size_t row_bytes = checked_bytes(type, cols);
    size_t bytes = 0;
    if (__builtin_mul_overflow(row_bytes, size_t(rows), &bytes)) refuse("rows x cols is beyond any address space");
    check_buffer(blocks, bytes);
    return {type, rows, cols, blocks.data(), row_bytes, nullptr};
}

template <class Array>
Array new_array(std::initializer_list<size_t> shape) {
    size_t count = 1;
    for (const size_t size : shape)
        if (__builtin_mul_overflow(count, size, &count)) refuse("a result beyond any address space");
    auto* data = new float[count == 0 ? 1 : count]();
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    return Array(data, shape, owner);
}

const Kernels& chosen(const std::optional<std::string>& isa) { return isa ? kernels_named(*isa) : active_kernels(); }

FloatVector py_dequantize(int64_t type_id, const Bytes& blocks, int64_t count) {
    const Type type = checked_type(type_id);
    check_buffer(blocks, checked_bytes(type, count));
    FloatVector out = new_array<FloatVector>({size_t(count)});
    float* values = out.data();
    const uint8_t* bytes = blocks.data();
    nb::gil_scoped_release unlocked;
    dequantize(type, bytes, count, values);
    return out;
}

Activations prepared(Type type, const Floats& x, const Kernels& kernels) {
    const auto n = int64_t(x.shape(0)), cols = int64_t(x.shape(1));
    Activations a;
    a.reshape(activation_kind(type), n, cols);
    kernels.prepare(a, x.data(), cols, 0, n);
    return a;
}

// The activations as the kernels see them, back in f32: code * scale.
FloatMatrix py_quantize_activations(int64_t type_id, const Floats& x, const std::optional<std::string>& isa) {
    const Activations a = prepared(checked_type(type_id), x, chosen(isa));
    FloatMatrix out = new_array<FloatMatrix>({size_t(a.n), size_t(a.cols)});
    const ActivationView v = view(a);
    const int64_t width = activation_block(a.kind);
    for (int64_t t = 0; t < a.n; ++t)
        for (int64_t c = 0; c < a.cols; ++c)
            out.data()[t * a.cols + c] = is_quantised(a.kind)
                                             ? float(v.codes[t * a.cols + c]) * v.scales[c / width * a.n + t]
                                             : v.floats[t * v.float_stride + c];
    return out;
}

FloatMatrix py_matmul(int64_t type_id, const Bytes& blocks, int64_t rows, int64_t cols, const Floats& x,
                      const std::optional<std::string>& isa, int64_t row_begin, std::optional<int64_t> row_end) {
    const Kernels& kernels = chosen(isa);
    const Matrix w = checked_matrix(type_id, blocks, rows, cols);
    const int64_t end = row_end.value_or(rows);
    if (int64_t(x.shape(1)) != cols)
        refuse("x: rows of " + std::to_string(x.shape(1)) + " values; the matrix has " + std::to_string(cols) + " columns");
    if (row_begin < 0 || row_begin > end || end > rows || row_begin % kernels.row_tile != 0 ||
        (end % kernels.row_tile != 0 && end != rows))
        refuse("rows " + std::to_string(row_begin) + " to " + std::to_string(end) + "; expected multiples of " +
               std::to_string(kernels.row_tile) + " within " + std::to_string(rows));
    FloatMatrix y = new_array<FloatMatrix>({x.shape(0), size_t(rows)});
    float* values = y.data();
    nb::gil_scoped_release unlocked;
    const Activations a = prepared(w.type, x, kernels);
    kernels.matmul(w, a, row_begin, end, values, rows);
    return y;
}

}  // namespace
}  // namespace selfee

void bind_kernels(nb::module_& m) {
    using namespace selfee;
    m.def("isa_name", isa_name, "The instruction set in use.");
    m.def("supported_isas", supported_isas, "What this machine and this build can run, slowest first.");
    m.def("dequantize", py_dequantize, "type"_a, "blocks"_a, "count"_a, "Blocks to f32.");
    m.def("quantize_activations", py_quantize_activations, "type"_a, "x"_a, "isa"_a = nb::none(),
          "x as the kernel of a weight type sees it, in f32.");
    m.def("matmul", py_matmul, "type"_a, "blocks"_a, "rows"_a, "cols"_a, "x"_a, "isa"_a = nb::none(),
          "row_begin"_a = 0, "row_end"_a = nb::none(), "y[t, r] = sum over c of W[r, c] * x[t, c].");
}
