// selfee._native: the compiled arithmetic.  Each file in this folder binds one part; nothing else in native/ knows Python.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

void bind_kernels(nb::module_& m);  // kernels.cpp: de-quantisation, activations, matmul, instruction sets
void bind_model(nb::module_& m);    // model.cpp: the forward pass, sessions, sampling

NB_MODULE(_native, m) {
    m.doc() = "Compiled arithmetic of selfee; use selfee.weights.quantize and selfee.llama instead.";
    bind_kernels(m);
    bind_model(m);
}
