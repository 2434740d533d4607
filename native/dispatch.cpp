// Picks the instruction set, once.
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstdlib>
#include <stdexcept>

#include "matmul/kernels.h"
#include "matmul/packed.h"

namespace selfee {
namespace {

bool always() { return true; }

#if defined(__x86_64__)
bool has_avx2() {  // which implies that the system keeps the registers of 256 bits
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}

// Sub-leaf 0 of leaf 7 says in EAX how many more there are; AVX-VNNI is bit 4 of EAX of the next. Older compilers have no
// name for it.
bool has_avxvnni() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (!has_avx2() || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || eax < 1) return false;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1) != 0;
}

bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}

#if defined(SELFEE_EMULATE_AVXVNNI)
constexpr bool kEmulatesAvxVnni = true;
#else
constexpr bool kEmulatesAvxVnni = false;
#endif
#if defined(SELFEE_EMULATE_AVX512)
constexpr bool kEmulatesAvx512 = true;
#else
constexpr bool kEmulatesAvx512 = false;
#endif
#endif

// An instruction set that there are kernels for, and what they need of the machine; if emulated, AVX2 is enough.
struct InstructionSet {
    const char *name, *needs;
    const Kernels& (*kernels)();
    bool (*runs)();
    bool emulated;
};

constexpr InstructionSet kInstructionSets[] = {  // slowest first
    {"scalar", "nothing", scalar_kernels, always, false},
#if defined(__x86_64__)
    {"avx2", "AVX2, FMA and F16C", avx2_kernels, has_avx2, false},
    {"avxvnni", "AVX-VNNI", avxvnni_kernels, kEmulatesAvxVnni ? has_avx2 : has_avxvnni, kEmulatesAvxVnni},
    {"avx512", "AVX-512 with VNNI", avx512_kernels, kEmulatesAvx512 ? has_avx2 : has_avx512, kEmulatesAvx512},
#endif
};

std::string joined(const std::vector<std::string>& names) {
    std::string text;
    for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
}

Reach reach_for_few_tokens() {
#if defined(__x86_64__)
    __builtin_cpu_init();  // this runs before main
    if (__builtin_cpu_is("amd")) return {512, 0};
#endif
    return kManyTokensReach;
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

const Reach few_tokens_reach = reach_for_few_tokens();

std::vector<std::string> supported_isas() {
    std::vector<std::string> names;
    for (const auto& set : kInstructionSets) {
        if (!set.runs()) continue;
        // After scalar what is emulated: it runs when asked for, but is never the choice.
        names.insert(set.emulated ? names.begin() + 1 : names.end(), set.name);
    }
    return names;
}

const Kernels& kernels_named(const std::string& name) {
    std::string found = "instruction set '" + name + "'";
    for (const auto& set : kInstructionSets) {
        if (set.name != name) continue;
        if (set.runs()) return set.kernels();
        found += " needs " + std::string(set.needs);
    }
    throw std::invalid_argument(found + "; this machine and build run " + joined(supported_isas()));
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
