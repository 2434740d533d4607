// Where each key and value lies, in either type of cell.
#include "cache.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace selfee {
namespace {

constexpr size_t kHugeFrom = size_t(16) << 20;  // bytes of a layer

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

size_t head_bytes_of(CellType type, int64_t head_dim, int64_t width) {
    constexpr int64_t positions = KvCache::kChunk;
    if (type == CellType::Halves) return size_t(positions * (head_dim + width)) * sizeof(uint16_t);
    return size_t(head_dim / kByteGroup) * (size_t(kChunkBlocks) * sizeof(KeyBytes) + sizeof(ValueBytes));
}

// One position's part of a block of keys or of a chunk of values, in and out.
void put(KeyBytes& to, int64_t position, uint16_t scale, const int8_t* codes) {
    to.scales[position] = scale;
    for (int64_t d = 0; d < kByteGroup; ++d) to.codes[d / 2][position][d % 2] = codes[d];
}

void put(ValueBytes& to, int64_t position, uint16_t scale, const int8_t* codes) {
    to.scales[position] = scale;
    for (int64_t d = 0; d < kByteGroup; ++d) to.codes[position / 2][d][position % 2] = codes[d];
}

uint16_t take(const KeyBytes& from, int64_t position, int8_t* codes) {
    for (int64_t d = 0; d < kByteGroup; ++d) codes[d] = from.codes[d / 2][position][d % 2];
    return from.scales[position];
}

uint16_t take(const ValueBytes& from, int64_t position, int8_t* codes) {
    for (int64_t d = 0; d < kByteGroup; ++d) codes[d] = from.codes[position / 2][d][position % 2];
    return from.scales[position];
}

}  // namespace

size_t KvCache::bytes_needed() const {
    size_t bytes = head_bytes_;
    for (const int64_t factor : {layers_, kv_heads_, chunks_})
        if (factor < 0 || __builtin_mul_overflow(bytes, size_t(factor), &bytes)) throw std::bad_alloc();
    return bytes;
}

KvCache::KvCache(CellType type, int64_t layers, int64_t kv_heads, int64_t head_dim, int64_t capacity)
    : type_(type), layers_(layers), kv_heads_(kv_heads), head_dim_(head_dim), width_(ceil_div(head_dim, 8) * 8),
      capacity_(capacity), chunks_(ceil_div(capacity, kChunk)), head_bytes_(head_bytes_of(type, head_dim, width_)),
      bytes_(std::max<size_t>(1, bytes_needed())) {
    // Fresh pages read as zero and cost nothing until written; the padding of value rows stays zero for ever.
    void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
    // Where a layer has room for many huge pages, the one that is being filled is little; small caches stay small.
    if (bytes_ / size_t(std::max<int64_t>(1, layers_)) >= kHugeFrom) madvise(memory, bytes_, MADV_HUGEPAGE);
#endif
    memory_ = static_cast<uint8_t*>(memory);
}

KvCache::~KvCache() { munmap(memory_, bytes_); }

void KvCache::read_cells(int64_t layer, int64_t first, int64_t last, uint16_t* out) {
    const int64_t chunk = first / kChunk, n = last - first, words = row_words();
    for (int64_t head = 0; head < kv_heads_; ++head)
        for (int64_t i = 0, at = first % kChunk; i < n; ++i, ++at) {
            uint16_t* key = out + (head * n + i) * words;
            uint16_t* value = key + kv_heads_ * n * words;
            if (type_ == CellType::Halves) {
                const uint16_t* block = keys(layer, head, chunk) + at / kKeyBlock * kKeyBlock * head_dim_ + at % kKeyBlock;
                for (int64_t d = 0; d < head_dim_; ++d) key[d] = block[d * kKeyBlock];
                std::memcpy(value, values(layer, head, chunk) + at * width_, size_t(head_dim_) * sizeof(uint16_t));
                continue;
            }
            const KeyBytes* blocks = key_bytes(layer, head, chunk) + at / kKeyBlock;
            const ValueBytes* from = value_bytes(layer, head, chunk);
            for (int64_t g = 0; g < groups(); ++g, key += kBlockWords, value += kBlockWords) {
                int8_t codes[kByteGroup];
                key[0] = take(blocks[g * kChunkBlocks], at % kKeyBlock, codes);
                std::memcpy(key + 1, codes, sizeof codes);
                value[0] = take(from[g], at, codes);
                std::memcpy(value + 1, codes, sizeof codes);
            }
        }
}

void KvCache::write_cells(int64_t layer, int64_t first, int64_t last, const uint16_t* in) {
    const int64_t chunk = first / kChunk, n = last - first, words = row_words();
    for (int64_t head = 0; head < kv_heads_; ++head)
        for (int64_t i = 0, at = first % kChunk; i < n; ++i, ++at) {
            const uint16_t* key = in + (head * n + i) * words;
            const uint16_t* value = key + kv_heads_ * n * words;
            if (type_ == CellType::Halves) {
                uint16_t* block = keys(layer, head, chunk) + at / kKeyBlock * kKeyBlock * head_dim_ + at % kKeyBlock;
                for (int64_t d = 0; d < head_dim_; ++d) block[d * kKeyBlock] = key[d];
                std::memcpy(values(layer, head, chunk) + at * width_, value, size_t(head_dim_) * sizeof(uint16_t));
                continue;
            }
            KeyBytes* blocks = key_bytes(layer, head, chunk) + at / kKeyBlock;
            ValueBytes* to = value_bytes(layer, head, chunk);
            for (int64_t g = 0; g < groups(); ++g, key += kBlockWords, value += kBlockWords) {
                int8_t codes[kByteGroup];
                std::memcpy(codes, key + 1, sizeof codes);
                put(blocks[g * kChunkBlocks], at % kKeyBlock, key[0], codes);
                std::memcpy(codes, value + 1, sizeof codes);
                put(to[g], at, value[0], codes);
            }
        }
}

void KvCache::store(const Ops& ops, int64_t layer, int64_t head, int64_t position, const float* key, const float* value) {
    const int64_t chunk = position / kChunk, at = position % kChunk;
    if (type_ == CellType::Halves) {
        uint16_t* row = values(layer, head, chunk) + at * width_;
        ops.to_halves(key, head_dim_, row);  // the value's place serves as scratch
        uint16_t* block = keys(layer, head, chunk) + at / kKeyBlock * kKeyBlock * head_dim_ + at % kKeyBlock;
        for (int64_t d = 0; d < head_dim_; ++d) block[d * kKeyBlock] = row[d];
        ops.to_halves(value, head_dim_, row);
        return;
    }
    KeyBytes* blocks = key_bytes(layer, head, chunk) + at / kKeyBlock;
    ValueBytes* to = value_bytes(layer, head, chunk);
    for (int64_t g = 0; g < groups(); ++g) {
        int8_t codes[kByteGroup];
        const uint16_t key_scale = ops.to_bytes(key + g * kByteGroup, codes);
        put(blocks[g * kChunkBlocks], at % kKeyBlock, key_scale, codes);
        const uint16_t value_scale = ops.to_bytes(value + g * kByteGroup, codes);
        put(to[g], at, value_scale, codes);
    }
}

void KvCache::copy_from(const KvCache& other, int64_t length) {
    const int64_t whole = length / kChunk, rest = length % kChunk;
    const int64_t blocks = ceil_div(rest, kKeyBlock);
    for (int64_t layer = 0; layer < layers_; ++layer) {  // whole chunks of a layer follow each other
        std::memcpy(place(layer, 0, 0), other.memory_ + other.at(layer, 0, 0), at(0, 0, whole));
        for (int64_t head = 0; rest > 0 && head < kv_heads_; ++head) {
            const uint8_t* from = other.memory_ + other.at(layer, head, whole);
            const auto copy = [&](void* to, int64_t bytes) {  // what lies at the same place there
                std::memcpy(to, from + (static_cast<uint8_t*>(to) - place(layer, head, whole)), size_t(bytes));
            };
            if (type_ == CellType::Halves) {
                copy(keys(layer, head, whole), blocks * kKeyBlock * head_dim_ * int64_t(sizeof(uint16_t)));
                copy(values(layer, head, whole), rest * width_ * int64_t(sizeof(uint16_t)));
                continue;
            }
            for (int64_t g = 0; g < groups(); ++g) {
                copy(key_bytes(layer, head, whole) + g * kChunkBlocks, blocks * int64_t(sizeof(KeyBytes)));
                ValueBytes& to = value_bytes(layer, head, whole)[g];
                copy(to.scales, rest * int64_t(sizeof to.scales[0]));
                copy(to.codes, ceil_div(rest, 2) * int64_t(sizeof to.codes[0]));
            }
        }
    }
}

void KvCache::give_back_after(int64_t length) {
    const auto page = uintptr_t(sysconf(_SC_PAGESIZE));
    for (int64_t layer = 0; layer < layers_; ++layer) {
        const auto from = reinterpret_cast<uintptr_t>(place(layer, 0, ceil_div(length, kChunk)));
        const auto to = reinterpret_cast<uintptr_t>(place(layer + 1, 0, 0));
        const uintptr_t begin = (from + page - 1) / page * page, end = to / page * page;
        if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);  // they read as zero again
    }
}

}  // namespace selfee
