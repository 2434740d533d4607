// Binds the quantisers.  Every size and type is checked here; below, nothing is.
#include "quantize/quantize.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>

#include <cstdlib>
#include <memory>
#include <tuple>

#include "bindings/checks.h"
#include "bindings/unlocked.h"

using namespace nb::literals;

namespace selfee {
namespace {

using Importance = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Blocks = nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>;
// Where something could not be stored: its index, and the value, or none where a block's scale is not finite.
using Found = std::tuple<int64_t, std::optional<float>>;

std::unique_ptr<Quantizer> make_quantizer(int threads, const std::optional<std::string>& isa) {
    if (threads < 1 || threads > 1024) refuse("threads " + std::to_string(threads) + "; expected 1 to 1024");
    const Quantisers& quantisers = quantisers_named(isa ? *isa : isa_name());
    return std::make_unique<Quantizer>(threads, quantisers);
}

// The tensor of checked sizes: whole blocks of both types, rows of whole blocks where columns have an importance.
Source checked_source(Type target, int64_t type_id, const Bytes& bytes, int64_t rows, int64_t cols, bool by_rows) {
    const Type type = checked_type(type_id);
    int64_t count = 0;
    if (rows < 0 || cols < 1 || __builtin_mul_overflow(rows, cols, &count) || count > int64_t(1) << 48)
        refuse("tensor of " + std::to_string(rows) + " x " + std::to_string(cols));
    check_buffer(bytes, checked_bytes(type, count));
    checked_bytes(target, by_rows ? cols : count);
    if (by_rows) checked_bytes(type, cols);
    return {type, bytes.data(), rows, cols};
}

Target checked_target(Type type, int generation, const std::optional<Importance>& importance,
                      const std::optional<Bytes>& previous, int64_t cols) {
    if (generation < 0 || generation > 1) refuse("generation " + std::to_string(generation) + "; expected 0 or 1");
    if (importance && int64_t(importance->shape(0)) != cols)
        refuse("importance: " + std::to_string(importance->shape(0)) + " numbers; expected " + std::to_string(cols));
    if (previous) check_buffer(*previous, block_bytes(type));
    return {type, static_cast<Generation>(generation), importance ? importance->data() : nullptr,
            previous ? previous->data() : nullptr};
}

std::optional<Found> as_tuple(const std::optional<Unstorable>& found) {
    if (!found) return std::nullopt;
    return Found(found->index, found->value);
}

std::tuple<Blocks, std::optional<Found>> run(Quantizer& quantizer, int64_t type_id, int64_t source_type, const Bytes& bytes,
                                             int64_t rows, int64_t cols, int generation,
                                             const std::optional<Importance>& importance,
                                             const std::optional<Bytes>& previous) {
    const Type type = checked_type(type_id);
    const Source source = checked_source(type, source_type, bytes, rows, cols, importance.has_value());
    const Target target = checked_target(type, generation, importance, previous, cols);
    const size_t size = Quantizer::target_bytes(type, rows * cols);
    auto* data = static_cast<uint8_t*>(std::malloc(size == 0 ? 1 : size));
    if (data == nullptr) throw std::bad_alloc();
    const nb::capsule owner(data, [](void* p) noexcept { std::free(p); });
    std::optional<Unstorable> found;
    {
        const Unlocked unlocked;
        found = quantizer.run(source, target, data, signal_arrived);
    }
    if (PyErr_Occurred() != nullptr) throw nb::python_error();
    return {Blocks(data, {size}, owner), as_tuple(found)};
}

std::tuple<double, double, std::optional<Found>> measure(Quantizer& quantizer, int64_t type_id, int64_t source_type,
                                                         const Bytes& bytes, int64_t rows, int64_t cols, int generation,
                                                         const std::optional<Importance>& importance) {
    const Type type = checked_type(type_id);
    const Source source = checked_source(type, source_type, bytes, rows, cols, importance.has_value());
    const Target target = checked_target(type, generation, importance, std::nullopt, cols);
    SumsOfSquares sums{};
    std::optional<Unstorable> found;
    {
        const Unlocked unlocked;
        found = quantizer.measure(source, target, sums, signal_arrived);
    }
    if (PyErr_Occurred() != nullptr) throw nb::python_error();
    return {sums.error, sums.energy, as_tuple(found)};
}

}  // namespace
}  // namespace selfee

void bind_quantize(nb::module_& m) {
    using namespace selfee;
    nb::class_<Quantizer>(m, "Quantizer", "Turns tensors into blocks; use selfee.weights.quantize.Quantizer.")
        .def(nb::new_(&make_quantizer), "threads"_a, "isa"_a = nb::none())
        .def_prop_ro("threads", &Quantizer::threads, "How many threads work.")
        .def("run", run, "type"_a, "source_type"_a, "source"_a.noconvert(), "rows"_a, "cols"_a, "generation"_a,
             "importance"_a.noconvert() = nb::none(), "previous"_a.noconvert() = nb::none(),
             "Blocks, and what could not be stored.")
        .def("measure", measure, "type"_a, "source_type"_a, "source"_a.noconvert(), "rows"_a, "cols"_a, "generation"_a,
             "importance"_a.noconvert() = nb::none(), "Sums of squares of errors and of values, and what could not be stored.");
}
