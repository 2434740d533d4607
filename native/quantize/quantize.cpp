// Divides tensors into runs, runs into parts for threads, and repairs what a part could not know of the one before.
#include "quantize/quantize.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <stdexcept>

#include "blocks.h"
#include "matmul/kernels.h"

namespace selfee {
namespace {

constexpr int64_t kPartRuns = 4, kPartValues = kPartRuns * kRunValues;
constexpr int64_t kRowsTogether = 8, kColumnsTogether = kRunValues / kRowsTogether;
constexpr int64_t kNone = INT64_MAX;
constexpr std::chrono::milliseconds kAskEvery(50);

bool is_plain(Type type) { return type == Type::F32 || type == Type::F16 || type == Type::BF16; }

// Types whose search of 2023 sees the codes of the super-block before.
bool remembers(const Target& target) {
    return target.generation == Generation::June2023 && target.importance == nullptr &&
           (target.type == Type::Q2_K || target.type == Type::Q4_K || target.type == Type::Q5_K);
}

bool is_weighted(const Target& target) { return target.importance != nullptr && !is_plain(target.type) && target.type != Type::Q8_0; }

// The bits of the least magnitude that the type cannot hold. For blocks that is far beyond what float16 scales can hold,
// and far below where sums of squares overflow.
uint32_t limit_bits(Type type) {
    switch (type) {
        case Type::F32: return 0x7f800000u;
        case Type::BF16: return 0x7f7f8000u;
        case Type::F16: return std::bit_cast<uint32_t>(65520.0f);
        default: return std::bit_cast<uint32_t>(0x1p40f);
    }
}

// Byte offsets of a block's float16 scale and minimum; twice the same where there is one.
std::array<size_t, 2> scales_at(Type type) {
    switch (type) {
        case Type::Q4_1: case Type::Q5_1: case Type::Q4_K: case Type::Q5_K: return {0, 2};
        case Type::Q2_K: return {80, 82};
        case Type::Q3_K: return {108, 108};
        case Type::Q6_K: return {208, 208};
        default: return {0, 0};
    }
}

bool is_finite_half(const uint8_t* bytes) { return (load_u16(bytes) & 0x7c00u) != 0x7c00u; }

void lower(std::atomic<int64_t>& least, int64_t value) {
    int64_t seen = least.load();
    while (value < seen && !least.compare_exchange_weak(seen, value)) {}
}

}  // namespace

struct Quantizer::Workspace {
    alignas(64) float x[kRunValues] = {}, y[kRunValues] = {}, weights[kRunValues] = {}, row_squares[kRunValues / 32] = {};
    alignas(64) uint8_t blocks[kRunValues * sizeof(float)] = {}, one_block[256] = {};
};

struct Quantizer::Job {
    const Source& source;
    const Target& target;
    uint8_t* out;                 // null where blocks are measured only
    QuantizeRun quantise;
    int64_t count, block_values;  // values in all, values of a target block
    size_t block_bytes;
    bool (*interrupted)();
    std::vector<float> row_squares = {};
    std::vector<std::array<double, 16>> sums = {};  // of every part
    std::atomic<int64_t> bad_value{kNone}, bad_scale{kNone};
    std::atomic<bool> stop{false};
    std::chrono::steady_clock::time_point asked = std::chrono::steady_clock::now();

    int64_t parts() const { return (count + kPartValues - 1) / kPartValues; }
    uint8_t* block(int64_t index) { return out + size_t(index) * block_bytes; }
};

Quantizer::Quantizer(int threads, const Quantisers& quantisers) : pool_(threads), quantisers_(quantisers) {
    for (int thread = 0; thread < pool_.threads(); ++thread) workspaces_.push_back(std::make_unique<Workspace>());
}

Quantizer::~Quantizer() = default;

size_t Quantizer::target_bytes(Type type, int64_t count) {
    const int64_t values = selfee::block_values(type);  // throws for a type that is none
    if (count % values != 0)
        throw std::invalid_argument(std::to_string(count) + " values; expected whole blocks of " + std::to_string(values));
    return size_t(count / values) * selfee::block_bytes(type);
}

// Values of the source from `first`, a multiple of every block's size.
static void read_values(const Quantisers& quantisers, const Source& source, int64_t first, int64_t count, float* x) {
    const uint8_t* bytes = source.bytes + size_t(first / block_values(source.type)) * block_bytes(source.type);
    is_plain(source.type) ? quantisers.widen(source.type, bytes, count, x) : dequantize(source.type, bytes, count, x);
}

bool Quantizer::quantise_run(Job& job, Workspace& work, int64_t first, int64_t count, uint8_t* out, const uint8_t* previous) {
    read_values(quantisers_, job.source, first, count, work.x);
    const int64_t bad = quantisers_.first_beyond(work.x, count, limit_bits(job.target.type));
    if (bad < count) {
        lower(job.bad_value, first + bad);
        return false;
    }
    if (job.quantise == nullptr) {
        quantisers_.narrow(job.target.type, work.x, count, out);
        return true;
    }
    std::fill(work.x + count, work.x + kRunValues, 0.0f);
    const int64_t cols = job.source.cols, blocks = count / job.block_values;
    const bool weighted = is_weighted(job.target);
    if (!job.row_squares.empty())
        for (int64_t b = 0; b < blocks; ++b) work.row_squares[b] = job.row_squares[size_t((first + b * job.block_values) / cols)];
    job.quantise({work.x, work.weights, blocks, out, previous, weighted ? job.target.importance : nullptr,
                  weighted ? first % cols : 0, cols, work.row_squares});
    const auto at = scales_at(job.target.type);
    for (int64_t b = 0; b < blocks; ++b) {
        const uint8_t* block = out + size_t(b) * job.block_bytes;
        if (is_finite_half(block + at[0]) && is_finite_half(block + at[1])) continue;
        lower(job.bad_scale, first + b * job.block_values);
        return false;
    }
    return true;
}

void Quantizer::quantise_part(Job& job, int64_t part, int thread) {
    Workspace& work = *workspaces_[size_t(thread)];
    const int64_t end = std::min(job.count, (part + 1) * kPartValues);
    const uint8_t* previous = part == 0 ? job.target.previous : nullptr;
    for (int64_t first = part * kPartValues; first < end; first += kRunValues) {
        const int64_t count = std::min(kRunValues, end - first);
        uint8_t* out = job.out != nullptr ? job.block(first / job.block_values) : work.blocks;
        if (quantise_run(job, work, first, count, out, previous) && job.out == nullptr)
            measure_run(job, work, first, count, out, job.sums[size_t(part)].data());
        previous = out + (size_t(count / job.block_values) - 1) * job.block_bytes;
        if (job.out == nullptr) {
            std::copy_n(previous, job.block_bytes, work.one_block);
            previous = work.one_block;
        }
    }
    if (thread != 0 || std::chrono::steady_clock::now() - job.asked < kAskEvery) return;
    if (job.interrupted()) job.stop = true;
    job.asked = std::chrono::steady_clock::now();
}

void Quantizer::measure_run(Job& job, Workspace& work, int64_t first, int64_t count, const uint8_t* blocks, double* sums) {
    const Type type = job.target.type;
    is_plain(type) ? quantisers_.widen(type, blocks, count, work.y) : dequantize(type, blocks, count, work.y);
    const float* importance = job.target.importance;
    for (int64_t done = 0, here = 0; done < count; done += here) {
        const int64_t column = (first + done) % job.source.cols;
        here = importance != nullptr ? std::min(count - done, job.source.cols - column) : count;
        quantisers_.add_errors(work.x + done, work.y + done, importance != nullptr ? importance + column : nullptr, here, sums);
    }
}

// Quantises a block anew after the one that now lies before it; true if that changed it.
bool Quantizer::repair_block(Job& job, Workspace& work, int64_t block) {
    if (!quantise_run(job, work, block * job.block_values, job.block_values, work.one_block, job.block(block - 1))) return false;
    if (std::equal(work.one_block, work.one_block + job.block_bytes, job.block(block))) return false;
    std::copy_n(work.one_block, job.block_bytes, job.block(block));
    return true;
}

// Parts began as if nothing had been before them, so their first blocks are looked at again; a change runs on until a
// block comes out as it was. Where it ran through to the end of a part, the next one is looked at once more.
void Quantizer::repair(Job& job) {
    const int64_t part_blocks = kPartValues / job.block_values, blocks = job.count / job.block_values, parts = job.parts();
    std::vector<uint8_t> ran_through(size_t(parts), 0);
    const auto repair_part = [&](int64_t part, Workspace& work) {
        const int64_t end = std::min(blocks, (part + 1) * part_blocks);
        int64_t block = part * part_blocks;
        while (block < end && repair_block(job, work, block)) ++block;
        ran_through[size_t(part)] |= block == end;
    };
    // Odd parts first, then even ones: no part is read while it is changed.
    for (int64_t offset : {1, 2})
        pool_.each((parts - offset + 1) / 2, 1, [&](int64_t begin, int64_t end, int thread) {
            for (int64_t i = begin; i < end; ++i) repair_part(2 * i + offset, *workspaces_[size_t(thread)]);
        });
    for (int64_t part = 2; part < parts; ++part)
        if (ran_through[size_t(part - 1)]) repair_part(part, *workspaces_[0]);
}

// The mean square of every row, each summed in element order; eight rows at a time, because one sum waits for itself.
void Quantizer::square_rows(Job& job) {
    const int64_t rows = job.source.rows, cols = job.source.cols;
    job.row_squares.resize(size_t(rows));
    pool_.each((rows + kRowsTogether - 1) / kRowsTogether, 1, [&](int64_t begin, int64_t end, int thread) {
        float* x = workspaces_[size_t(thread)]->x;
        for (int64_t row = begin * kRowsTogether; row < std::min(rows, end * kRowsTogether); row += kRowsTogether) {
            const int64_t together = std::min(kRowsTogether, rows - row);
            float sums[kRowsTogether] = {};
            for (int64_t column = 0; column < cols; column += kColumnsTogether) {
                const int64_t width = std::min(kColumnsTogether, cols - column);
                for (int64_t r = 0; r < together; ++r)
                    read_values(quantisers_, job.source, (row + r) * cols + column, width, x + r * kColumnsTogether);
                for (int64_t i = 0; i < width; ++i)
                    for (int64_t r = 0; r < kRowsTogether; ++r) sums[r] += x[r * kColumnsTogether + i] * x[r * kColumnsTogether + i];
            }
            for (int64_t r = 0; r < together; ++r) job.row_squares[size_t(row + r)] = sums[r] / float(cols);
        }
    });
}

std::optional<Unstorable> Quantizer::found(Job& job) {
    if (job.bad_value != kNone) {
        Workspace& work = *workspaces_[0];
        const int64_t values = selfee::block_values(job.source.type), index = job.bad_value;
        read_values(quantisers_, job.source, index / values * values, values, work.x);
        return Unstorable{index, work.x[index % values]};
    }
    if (job.bad_scale != kNone) return Unstorable{job.bad_scale, std::nullopt};
    return std::nullopt;
}

std::optional<Unstorable> Quantizer::run(const Source& source, const Target& target, uint8_t* out, bool (*interrupted)()) {
    const std::lock_guard<std::mutex> lock(one_caller_);
    Job job{source, target, out,
            is_plain(target.type) ? nullptr : quantisers_.find(target.type, target.generation, is_weighted(target)),
            source.rows * source.cols, selfee::block_values(target.type), selfee::block_bytes(target.type), interrupted};
    if (is_weighted(target) && job.block_values == 32) square_rows(job);
    pool_.each(job.parts(), 1, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t part = begin; part < end && !job.stop; ++part) quantise_part(job, part, thread);
    });
    const auto unstorable = found(job);
    if (!unstorable && !job.stop && remembers(target)) repair(job);
    return unstorable;
}

std::optional<Unstorable> Quantizer::measure(const Source& source, const Target& target, SumsOfSquares& sums,
                                             bool (*interrupted)()) {
    const std::lock_guard<std::mutex> lock(one_caller_);
    Job job{source, target, nullptr,
            is_plain(target.type) ? nullptr : quantisers_.find(target.type, target.generation, is_weighted(target)),
            source.rows * source.cols, selfee::block_values(target.type), selfee::block_bytes(target.type), interrupted};
    job.sums.resize(size_t(job.parts()));
    if (is_weighted(target) && job.block_values == 32) square_rows(job);
    pool_.each(job.parts(), 1, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t part = begin; part < end && !job.stop; ++part) quantise_part(job, part, thread);
    });
    sums = {0, 0};
    for (const auto& part : job.sums)
        for (size_t lane = 0; lane < 8; ++lane) {
            sums.energy += part[lane];
            sums.error += part[8 + lane];
        }
    return found(job);
}

const Quantisers& quantisers_named(const std::string& name) {
    const std::string known = kernels_named(name).name;  // throws if this machine cannot run it
#if defined(__x86_64__)
    if (known == "avx512") return avx512_quantisers();
    if (known != "scalar") return avx2_quantisers();  // AVX-VNNI multiplies bytes, which quantising does not
#endif
    return scalar_quantisers();
}

}  // namespace selfee
