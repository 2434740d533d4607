// selfee._native: the compiled arithmetic.  Each file in this folder binds one part; nothing else in native/ knows Python.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

void bind_drafting(nb::module_& m);  // drafting.cpp: guesses of the next tokens
void bind_kernels(nb::module_& m);  // kernels.cpp: de-quantisation, activations, matmul, instruction sets
void bind_model(nb::module_& m);    // model.cpp: the forward pass, sessions, sampling
void bind_quantize(nb::module_& m);  // quantize.cpp: tensors from one type to another

NB_MODULE(_native, m) {
    nb::set_leak_warnings(false);  // what a daemon thread still uses when Python ends is no leak
    m.doc() = "Compiled arithmetic of selfee; use selfee.weights.quantize and selfee.llama instead.";
    bind_drafting(m);
    bind_kernels(m);
    bind_model(m);
    bind_quantize(m);
}
