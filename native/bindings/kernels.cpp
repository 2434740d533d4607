// Binds de-quantisation, activations and matmul.  Every size and type is checked here; below, nothing is.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/checks.h"
#include "bindings/unlocked.h"
#include "matmul/activations.h"
#include "matmul/packed.h"

using namespace nb::literals;

void bind_timing(nb::module_& m);  // timing.cpp

namespace selfee {
namespace {

using FloatVector = nb::ndarray<nb::numpy, float, nb::ndim<1>>;
using FloatMatrix = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

template <class Array>
Array new_array(std::initializer_list<size_t> shape) {
    size_t count = 1;
    for (const size_t size : shape)
        if (__builtin_mul_overflow(count, size, &count)) refuse("a result beyond any address space");
    auto* data = new float[count == 0 ? 1 : count]();
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    return Array(data, shape, owner);
}

FloatVector py_dequantize(int64_t type_id, const Bytes& blocks, int64_t count) {
    const Type type = checked_type(type_id);
    check_buffer(blocks, checked_bytes(type, count));
    FloatVector out = new_array<FloatVector>({size_t(count)});
    float* values = out.data();
    const uint8_t* bytes = blocks.data();
    const Unlocked unlocked;
    dequantize(type, bytes, count, values);
    return out;
}

// The activations as the kernels see them, back in f32: code * scale.
FloatMatrix py_quantize_activations(int64_t type_id, const Floats& x, const std::optional<std::string>& isa, bool packed) {
    const Activations a = prepared(checked_type(type_id), packed, x, chosen(isa));
    FloatMatrix out = new_array<FloatMatrix>({size_t(a.n), size_t(a.cols)});
    const ActivationView v = view(a);
    const int64_t width = activation_block(a.kind);
    for (int64_t t = 0; t < a.n; ++t)
        for (int64_t c = 0; c < a.cols; ++c)
            out.data()[t * a.cols + c] = is_quantised(a.kind)
                                             ? float(code_at(v, t, c)) * scale_at(v, t, c / width, a.cols / width)
                                             : v.floats[t * v.float_stride + c];
    return out;
}

FloatMatrix py_matmul(int64_t type_id, const Bytes& blocks, int64_t rows, int64_t cols, const Floats& x,
                      const std::optional<std::string>& isa, int64_t row_begin, std::optional<int64_t> row_end, bool packed) {
    const Kernels& kernels = chosen(isa);
    Matrix w = checked_matrix(type_id, blocks, rows, cols);
    const int64_t end = row_end.value_or(rows);
    check_columns(x, w);
    if (row_begin < 0 || row_begin > end || end > rows || row_begin % kernels.row_tile != 0 ||
        (end % kernels.row_tile != 0 && end != rows))
        refuse("rows " + std::to_string(row_begin) + " to " + std::to_string(end) + "; expected multiples of " +
               std::to_string(kernels.row_tile) + " within " + std::to_string(rows));
    FloatMatrix y = new_array<FloatMatrix>({x.shape(0), size_t(rows)});
    float* values = y.data();
    const Unlocked unlocked;
    PackedMemory memory;
    if (packed) pack_all(w, memory);
    const Activations a = prepared(w.type, w.packed != nullptr, x, kernels);
    kernels.matmul(w, a, row_begin, end, values, rows);
    return y;
}

}  // namespace
}  // namespace selfee

void bind_kernels(nb::module_& m) {
    using namespace selfee;
    bind_timing(m);
    m.def("isa_name", isa_name, "The instruction set in use.");
    m.def("supported_isas", supported_isas, "What this machine and this build can run, slowest first.");
    m.def("dequantize", py_dequantize, "type"_a, "blocks"_a.noconvert(), "count"_a, "Blocks to f32.");
    m.def("quantize_activations", py_quantize_activations, "type"_a, "x"_a.noconvert(), "isa"_a = nb::none(), "packed"_a = false,
          "x as the kernel of a weight type sees it, in f32.");
    m.def("matmul", py_matmul, "type"_a, "blocks"_a.noconvert(), "rows"_a, "cols"_a, "x"_a.noconvert(), "isa"_a = nb::none(),
          "row_begin"_a = 0, "row_end"_a = nb::none(), "packed"_a = false, "y[t, r] = sum over c of W[r, c] * x[t, c].");
}
