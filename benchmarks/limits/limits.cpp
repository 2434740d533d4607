// What this machine can do at best, as one JSON object: reads from each level of memory, byte, bf16 and float products.
//
//   c++ -O3 -std=c++20 -march=native limits.cpp -o limits -pthread && ./limits THREADS [memory|caches|compute|BYTES ...]
//
// Every figure is the best of a few short runs of all threads together: a limit is what was reached once.
#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr size_t kMiB = size_t(1) << 20, kHugePage = 2 * kMiB;

// Seconds until the last of `threads` threads has run work(thread); they start together.
double seconds_of(int threads, const std::function<void(int)>& work) {
    std::atomic<int> waiting{threads};
    std::atomic<bool> go{false};
    std::vector<std::thread> others;
    for (int thread = 0; thread < threads; ++thread)
        others.emplace_back([&, thread] {
            --waiting;
            while (!go) {}
            work(thread);
        });
    while (waiting > 0) std::this_thread::yield();
    const auto start = std::chrono::steady_clock::now();
    go = true;
    for (auto& other : others) other.join();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double best_rate(int threads, double units, const std::function<void(int)>& work, int runs = 5) {
    double best = 0;
    for (int run = 0; run < runs; ++run) best = std::max(best, units / seconds_of(threads, work));
    return best;
}

std::atomic<uint64_t> sink{0};

#if defined(__AVX512F__)
using Line = __m512i;
Line load(const uint8_t* p) { return _mm512_load_si512(p); }
Line mix(Line a, Line b) { return _mm512_xor_si512(a, b); }
uint64_t word(Line a) { return uint64_t(_mm_cvtsi128_si64(_mm512_castsi512_si128(a))); }
#else
struct Line { __m256i low, high; };
Line load(const uint8_t* p) { return {_mm256_load_si256((const __m256i*)p), _mm256_load_si256((const __m256i*)(p + 32))}; }
Line mix(Line a, Line b) { return {_mm256_xor_si256(a.low, b.low), _mm256_xor_si256(a.high, b.high)}; }
uint64_t word(Line a) { return uint64_t(_mm_cvtsi128_si64(_mm256_castsi256_si128(_mm256_xor_si256(a.low, a.high)))); }
#endif

// Reads `bytes` in `streams` pieces side by side, asking for what comes `ahead` bytes later.
template <int streams>
uint64_t read(const uint8_t* from, size_t bytes, size_t ahead) {
    const size_t piece = bytes / streams / 256 * 256;
    Line sums[4] = {};
    for (size_t at = 0; at < piece; at += 256)
        for (int stream = 0; stream < streams; ++stream)
            for (size_t i = 0; i < 4; ++i) {
                const uint8_t* p = from + size_t(stream) * piece + at + 64 * i;
                if (ahead != 0) _mm_prefetch((const char*)(uintptr_t(p) + ahead), _MM_HINT_T0);
                sums[i] = mix(sums[i], load(p));
            }
    return word(mix(mix(sums[0], sums[1]), mix(sums[2], sums[3])));
}

struct Buffer {
    uint8_t* data;
    explicit Buffer(size_t bytes) : data(static_cast<uint8_t*>(std::aligned_alloc(kHugePage, (bytes + kHugePage - 1) / kHugePage * kHugePage))) {
        if (data == nullptr) std::exit(3);
        madvise(data, bytes, MADV_HUGEPAGE);
        for (size_t at = 0; at < bytes; at += 8) {
            const uint64_t value = at * 0x9e3779b97f4a7c15ull;
            std::memcpy(data + at, &value, 8);
        }
    }
    ~Buffer() { std::free(data); }
};

double read_rate(const Buffer& buffer, size_t bytes, int threads, int repeats, int runs) {
    const size_t part = bytes / size_t(threads) / 4096 * 4096;
    double best = 0;
    for (const size_t ahead : {size_t(0), size_t(4096)})
        for (const int streams : {1, 2, 4}) {
            const auto work = [&](int thread) {
                const uint8_t* from = buffer.data + size_t(thread) * part;
                for (int i = 0; i < repeats; ++i)
                    sink ^= streams == 1 ? read<1>(from, part, ahead) : streams == 2 ? read<2>(from, part, ahead) : read<4>(from, part, ahead);
            };
            best = std::max(best, best_rate(threads, double(part) * threads * repeats, work, runs));
        }
    return best / 1e9;
}

// Twelve independent chains of one instruction, by name: an array of them would live in memory.
template <class Vector, class Step>
void chains(int64_t rounds, Vector start, Step step) {
    Vector a = start, b = start, c = start, d = start, e = start, f = start, g = start, h = start, i = start, j = start,
           k = start, l = start;
    const auto next = [&](Vector& sum) __attribute__((always_inline)) {
        sum = step(sum);
#if defined(__AVX512F__)
        asm volatile("" : "+v"(sum));
#else
        asm volatile("" : "+x"(sum));
#endif
    };
    for (int64_t round = 0; round < rounds; ++round)
        next(a), next(b), next(c), next(d), next(e), next(f), next(g), next(h), next(i), next(j), next(k), next(l);
    uint64_t out;
    std::memcpy(&out, &l, 8);
    sink ^= out;
}

template <class Vector, class Step>
double chain_rate(int threads, int per_step, Vector start, Step step) {
    constexpr int64_t rounds = 300'000;
    return best_rate(threads, double(rounds) * 12 * per_step * threads, [&](int) { chains(rounds, start, step); }) / 1e9;
}

bool first = true;
void print(const char* name, double value) {
    std::printf("%s\"%s\": %.4g", first ? "" : ", ", name, value);
    first = false;
}

}  // namespace

int main(int count, char** arguments) {
    const int threads = count > 1 ? std::atoi(arguments[1]) : 0;
    if (threads < 1 || threads > 1024) {
        std::fprintf(stderr, "limits: THREADS: expected 1 to 1024\n");
        return 2;
    }
    const auto asked = [&](const char* name) {
        for (int i = 2; i < count; ++i)
            if (std::string(arguments[i]) == name) return true;
        return count == 2;
    };
    std::printf("{");
    if (asked("memory")) {
        const size_t bytes = 1024 * kMiB;
        const Buffer buffer(bytes);
        print("memory GB/s", read_rate(buffer, bytes, threads, 1, 2));
    }
    if (asked("caches")) {
        const Buffer buffer(64 * kMiB);
        for (const auto& [name, bytes] : {std::pair{"16 MiB GB/s", 16 * kMiB}, {"8 MiB GB/s", 8 * kMiB}})
            print(name, read_rate(buffer, bytes, threads, 8, 5));
        print("L2 GB/s", read_rate(buffer, kMiB / 2 * size_t(threads), threads, 200, 5));
        print("L1 GB/s", read_rate(buffer, 16384 * size_t(threads), threads, 5000, 5));
    }
    if (asked("compute")) {
#if defined(__AVX512VNNI__)
        const __m512i bytes = _mm512_set1_epi8(3);
        print("byte dot GMAC/s", chain_rate(threads, 64, bytes, [&](__m512i sum) { return _mm512_dpbusd_epi32(sum, bytes, bytes); }));
#else
        const __m256i bytes = _mm256_set1_epi8(3);
        print("byte dot GMAC/s", chain_rate(threads, 32, bytes, [&](__m256i sum) { return _mm256_maddubs_epi16(sum, bytes); }));
#endif
#if defined(__AVX512BF16__)
        const __m512bh pairs = (__m512bh)_mm512_set1_epi16(0x3f80);
        print("bf16 dot GMAC/s", chain_rate(threads, 32, _mm512_setzero_ps(), [&](__m512 sum) { return _mm512_dpbf16_ps(sum, pairs, pairs); }));
#endif
#if defined(__AVX512F__)
        const __m512 one = _mm512_set1_ps(1);
        print("f32 FMA GMAC/s", chain_rate(threads, 16, one, [&](__m512 sum) { return _mm512_fmadd_ps(one, one, sum); }));
#else
        const __m256 one = _mm256_set1_ps(1);
        print("f32 FMA GMAC/s", chain_rate(threads, 8, one, [&](__m256 sum) { return _mm256_fmadd_ps(one, one, sum); }));
#endif
    }
    for (int i = 2; i < count; ++i) {
        const size_t bytes = std::strtoull(arguments[i], nullptr, 10);
        if (bytes < 4096 * size_t(threads)) continue;
        const Buffer buffer(bytes);
        const int repeats = int(std::max<size_t>(1, 32 * kMiB / bytes));
        print((std::string(arguments[i]) + " bytes GB/s").c_str(), read_rate(buffer, bytes, threads, repeats, 3));
    }
    std::printf("}\n");
    return sink == 1 ? 1 : 0;
}
