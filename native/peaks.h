// What a machine can do at best, as one table for each instruction set: `selfee bench` sets it beside what a model does.
#pragma once
#include <cstddef>
#include <cstdint>

namespace selfee {

constexpr int kReadWays = 6;  // streams side by side (1, 2, 4), without and with asking for what comes 4 KiB later

struct Peaks {
    // Reads `count` bytes (what is left after the last 256 of a stream is left out) in one of kReadWays ways, and returns
    // something that depends on all of them.
    uint64_t (*read)(const uint8_t* bytes, size_t count, int way);
    // Products of bytes, added up, from registers in twelve independent chains; *result depends on all of them.
    void (*multiply)(int64_t rounds, uint64_t* result);
    int64_t multiply_adds;  // in a round
};

const Peaks& scalar_peaks();
const Peaks& avx2_peaks();
const Peaks& avx512_peaks();

// The table for an instruction set of dispatch.cpp.
const Peaks& peaks_named(const char* isa);

}  // namespace selfee
