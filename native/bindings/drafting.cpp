// Binds drafting: guesses of the next tokens.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/vector.h>

#include "drafting.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace selfee {
namespace {

using Tokens = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr size_t kMostEntries = size_t(1) << 26, kMostTokens = 4096;

std::shared_ptr<DraftMemory> make_memory(size_t entries) {
    if (entries > kMostEntries) throw nb::value_error("more entries than a memory may have");
    return std::make_shared<DraftMemory>(entries);
}

size_t memory_bytes(DraftMemory& memory) {
    const std::lock_guard<std::mutex> one_at_a_time(memory.lock);
    return memory.table.bytes();
}

std::pair<std::vector<int32_t>, std::vector<double>> propose(const Drafter& drafter, size_t limit, double least) {
    Drafter::Draft draft = drafter.propose(std::min(limit, kMostTokens), least);
    return {std::move(draft.tokens), std::move(draft.chances)};
}

}  // namespace
}  // namespace selfee

void bind_drafting(nb::module_& m) {
    using namespace selfee;
    nb::class_<DraftMemory>(m, "DraftMemory", "What drafters learned from earlier texts; use selfee.llama.drafting.DraftMemory.")
        .def(nb::new_(&make_memory), "entries"_a)
        .def_prop_ro("bytes", memory_bytes, "What its table takes.");
    nb::class_<Drafter>(m, "Drafter", "Guesses the next tokens; use selfee.llama.drafting.Drafter.")
        .def(nb::init<std::shared_ptr<DraftMemory>>(), "memory"_a)
        .def("read", [](Drafter& d, const Tokens& tokens) { d.read(tokens.data(), tokens.shape(0)); }, "tokens"_a,
             "Append tokens that the model did not write.")
        .def("revise", [](Drafter& d, const Tokens& tokens) { d.revise({tokens.data(), tokens.data() + tokens.shape(0)}); },
             "original"_a, "From here on the text probably repeats these tokens; none: nothing.")
        .def("write", [](Drafter& d, const Tokens& tokens) { d.write(tokens.data(), tokens.shape(0)); }, "tokens"_a,
             "Append tokens that the model wrote, and learn from them.")
        .def("propose", propose, "limit"_a, "least"_a,
             "Guesses, and for each the chance that it and all before it are right, not below `least`.");
}
