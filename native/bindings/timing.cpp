// Binds what benchmarks/kernels.py and `selfee bench` measure: loops in threads of their own, without Python in between.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "bindings/checks.h"
#include "bindings/unlocked.h"
#include "peaks.h"
#include "matmul/packed.h"

using namespace nb::literals;

namespace selfee {
namespace {

constexpr int kMaxThreads = 256;

// Runs work(thread) in `threads` threads that start together; seconds until the last has finished.
template <class Work>
double seconds_of(int threads, Work work) {
    if (threads < 1 || threads > kMaxThreads) refuse("threads " + std::to_string(threads) + "; expected 1 to 256");
    std::atomic<int> waiting{threads};
    std::atomic<bool> go{false};
    std::vector<std::thread> others;
    const auto run = [&](int thread) {
        waiting.fetch_sub(1);
        while (!go.load()) std::this_thread::yield();
        work(thread);
    };
    const Unlocked unlocked;
    for (int thread = 0; thread < threads; ++thread) others.emplace_back(run, thread);
    while (waiting.load() > 0) std::this_thread::yield();
    const auto start = std::chrono::steady_clock::now();
    go.store(true);
    for (auto& other : others) other.join();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// A matrix as a model holds it; the blocks stay where they are (keep_alive) and are packed beside if asked.
struct HeldMatrix {
    Matrix matrix;
    HeldMatrix(int64_t type, const Bytes& blocks, int64_t rows, int64_t cols, bool packed)
        : matrix(checked_matrix(type, blocks, rows, cols)) {
        const Unlocked unlocked;
        PackedMemory memory;
        if (packed) pack_all(matrix, memory);
    }
};

// Seconds for one multiplication, activations already quantised.
double time_matmul(const HeldMatrix& held, const Floats& x, int threads, int64_t repeats,
                   const std::optional<std::string>& isa) {
    const Kernels& kernels = chosen(isa);
    const Matrix& w = held.matrix;
    check_columns(x, w);
    if (repeats < 1) refuse("repeats " + std::to_string(repeats) + "; expected 1 or more");
    const Activations a = prepared(w.type, w.packed != nullptr, x, kernels);
    std::vector<float> y(size_t(w.rows) * size_t(a.n));
    const int64_t tiles = (w.rows + kernels.row_tile - 1) / kernels.row_tile;
    return seconds_of(threads, [&](int thread) {
               const int64_t begin = tiles * thread / threads * kernels.row_tile;
               const int64_t end = std::min(w.rows, tiles * (thread + 1) / threads * kernels.row_tile);
               for (int64_t i = 0; i < repeats; ++i) kernels.matmul(w, a, begin, end, y.data(), w.rows);
           }) / double(repeats);
}

// Bytes a second of reading a buffer `repeats` times in equal parts, in the fastest of a few ways.
double read_rate(const Bytes& buffer, int threads, int64_t repeats, const std::optional<std::string>& isa) {
    const Peaks& peaks = peaks_named(chosen(isa).name);
    if (repeats < 1) refuse("repeats " + std::to_string(repeats) + "; expected 1 or more");
    const size_t part = buffer.nbytes() / size_t(std::max(threads, 1)) / 1024 * 1024;
    if (part == 0) refuse("buffer of " + std::to_string(buffer.nbytes()) + " bytes; expected 1024 for each thread");
    const uint8_t* bytes = buffer.data();
    std::atomic<uint64_t> result{0};
    double best = 0;
    for (int way = 0; way < kReadWays; ++way) {
        const double seconds = seconds_of(threads, [&](int thread) {
            for (int64_t i = 0; i < repeats; ++i) result ^= peaks.read(bytes + size_t(thread) * part, part, way);
        });
        best = std::max(best, double(part) * threads * double(repeats) / seconds);
    }
    return best;
}

// Multiply-adds of bytes a second, from registers.
double multiply_rate(int threads, int64_t rounds, const std::optional<std::string>& isa) {
    const Peaks& peaks = peaks_named(chosen(isa).name);
    if (rounds < 1) refuse("rounds " + std::to_string(rounds) + "; expected 1 or more");
    std::atomic<uint64_t> result{0};
    const double seconds = seconds_of(threads, [&](int) {
        uint64_t own = 0;
        peaks.multiply(rounds, &own);
        result ^= own;
    });
    return double(peaks.multiply_adds) * double(rounds) * threads / seconds;
}

}  // namespace
}  // namespace selfee

void bind_timing(nb::module_& m) {
    using namespace selfee;
    nb::class_<HeldMatrix>(m, "HeldMatrix", "Weights as a model holds them: in the file's layout, or packed.")
        .def(nb::init<int64_t, const Bytes&, int64_t, int64_t, bool>(), "type"_a, "blocks"_a.noconvert(), "rows"_a, "cols"_a,
             "packed"_a, nb::keep_alive<1, 3>());
    m.def("time_matmul", time_matmul, "matrix"_a, "x"_a.noconvert(), "threads"_a, "repeats"_a, "isa"_a = nb::none(),
          "Seconds for one multiplication, without preparing x.");
    m.def("read_rate", read_rate, "buffer"_a.noconvert(), "threads"_a, "repeats"_a, "isa"_a = nb::none(),
          "Bytes a second of reading a buffer in equal parts, in the fastest of a few ways.");
    m.def("multiply_rate", multiply_rate, "threads"_a, "rounds"_a, "isa"_a = nb::none(),
          "Multiply-adds of bytes a second, from registers.");
}
