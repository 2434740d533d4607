// Picks the instruction set, once.
#include <cstdlib>
#include <stdexcept>

#include "matmul/kernels.h"

namespace selfee {
namespace {

#if defined(__x86_64__)
bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}

#ifndef SELFEE_EMULATE_AVX512
bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}
#endif
#endif

std::string joined(const std::vector<std::string>& names) {
    std::string text;
    for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
}

const Kernels& choose() {
    const char* wanted = std::getenv("SELFEE_ISA");
    if (wanted == nullptr || *wanted == '\0') return kernels_named(supported_isas().back());
    try {
        return kernels_named(wanted);
    } catch (const std::invalid_argument& error) {
        throw std::invalid_argument(std::string("SELFEE_ISA: ") + error.what());
    }
}

}  // namespace

std::vector<std::string> supported_isas() {
    std::vector<std::string> names = {"scalar"};
#if defined(__x86_64__)
#ifdef SELFEE_EMULATE_AVX512
    if (has_avx2()) names.push_back("avx512");  // before avx2: it runs when asked for, but is never the choice
#else
    if (has_avx512()) return {"scalar", "avx2", "avx512"};
#endif
    if (has_avx2()) names.push_back("avx2");
#endif
    return names;
}

const Kernels& kernels_named(const std::string& name) {
    const std::vector<std::string> supported = supported_isas();
    for (const auto& one : supported) {
        if (one != name) continue;
#if defined(__x86_64__)
        if (name == "avx2") return avx2_kernels();
        if (name == "avx512") return avx512_kernels();
#endif
        return scalar_kernels();
    }
    throw std::invalid_argument("instruction set '" + name + "'; this machine and build run " + joined(supported));
}

const Kernels& active_kernels() {
    static const Kernels& kernels = choose();
    return kernels;
}

const char* isa_name() { return active_kernels().name; }

void matmul_rows(const Matrix& w, const Activations& a, int64_t row_begin, int64_t row_end, float* y, int64_t y_stride) {
    active_kernels().matmul(w, a, row_begin, row_end, y, y_stride);
}

int64_t row_granularity(const Matrix&) { return active_kernels().row_tile; }

}  // namespace selfee
