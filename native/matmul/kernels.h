// One instruction set's kernels, as a table; native/matmul only (and tests, which ask for each by name).
#pragma once
#include <string>
#include <vector>

#include "matmul/matmul.h"

namespace selfee {

struct Kernels {
    const char* name;
    int64_t row_tile;  // rows are computed in multiples of this
    int64_t panel;     // tokens that are computed together with packed weights; 0: there are no kernels for those
    void (*prepare)(Activations& a, const float* x, int64_t x_stride, int64_t begin, int64_t end);
    void (*matmul)(const Matrix& w, const Activations& a, int64_t row_begin, int64_t row_end, float* y, int64_t y_stride);
};

const Kernels& scalar_kernels();
#if defined(__x86_64__)
const Kernels& avx2_kernels();
const Kernels& avxvnni_kernels();
const Kernels& avx512_kernels();
#endif

// The instruction sets that this machine and this build can run, slowest first.
std::vector<std::string> supported_isas();

// By name; std::invalid_argument if the name is unknown or the machine lacks it.
const Kernels& kernels_named(const std::string& name);

// Chosen once: the last of supported_isas(), or what SELFEE_ISA says.
const Kernels& active_kernels();

}  // namespace selfee
