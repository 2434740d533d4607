// Binds de-quantisation, activations and matmul.
#include <nanobind/nanobind.h>

void bind_kernels(nanobind::module_&) {}
