// The cache of keys and values, and attention over it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ops.h"
#include "threads.h"

namespace selfee {

// Keys and values of one conversation, as halves. Memory is reserved whole but becomes real only where it is written.
//
// Positions are kept in chunks: of each layer first all heads of the first chunk, then of the second, and so on, of each
// head its keys and then its values.  So a text fills memory from the front, and attention reads it in one stream.
class KvCache {
public:
    static constexpr int64_t kChunk = 256;  // positions

    // std::bad_alloc if the address space cannot be had.
    KvCache(int64_t layers, int64_t kv_heads, int64_t head_dim, int64_t capacity);
    ~KvCache();
    KvCache(const KvCache&) = delete;
    KvCache& operator=(const KvCache&) = delete;

    static size_t bytes_needed(int64_t layers, int64_t kv_heads, int64_t head_dim, int64_t capacity);

    int64_t capacity() const { return capacity_; }
    int64_t width() const { return width_; }  // of a row of values: head_dim rounded up to whole vectors
    int64_t head_dim() const { return head_dim_; }
    int64_t kv_heads() const { return kv_heads_; }

    // Of one chunk: [block][head_dim][16 positions]
    uint16_t* keys(int64_t layer, int64_t head, int64_t chunk) {
        return halves_ + ((layer * chunks_ + chunk) * kv_heads_ + head) * kChunk * (head_dim_ + width_);
    }
    // [position][width]
    uint16_t* values(int64_t layer, int64_t head, int64_t chunk) { return keys(layer, head, chunk) + kChunk * head_dim_; }

    // Cells of positions first .. last - 1 of one chunk and one layer, out of the cache and into it, as session files have
    // them: without blocks and padding, [keys, values][kv_head][position][head_dim].
    void read_cells(int64_t layer, int64_t first, int64_t last, uint16_t* out);
    void write_cells(int64_t layer, int64_t first, int64_t last, const uint16_t* in);

    void store(const Ops& ops, int64_t layer, int64_t head, int64_t position, const float* key, const float* value);

private:
    int64_t layers_, kv_heads_, head_dim_, width_, capacity_, chunks_;
    size_t bytes_;
    uint16_t* halves_ = nullptr;
};

// Attention of a batch of queries over everything cached up to each query's own position.
//
// Positions are taken in chunks of kChunk counted from position 0. Within a chunk and from chunk to chunk the order of
// operations is fixed, so a query's result depends on the cache and its own position only, not on the batch it is in.
class Attention {
public:
    static constexpr int64_t kChunk = KvCache::kChunk;

    // q and out: [n][heads * head_dim]; query i stands at position first + i, whose key and value are stored already.
    void run(const Ops& ops, ThreadPool& pool, KvCache& cache, int64_t layer, const float* q, int64_t n, int64_t first,
             int64_t heads, float* out);

private:
    // A softmax over some chunks, not yet divided by its sum. For each row: the weighted values, the largest, the sum.
    struct Partial {
        float* sums;     // [rows][width]
        float* largest;  // [rows]
        float* totals;   // [rows]
    };
    struct Batch;  // what run() was asked

    Partial partial_at(const Batch& batch, int64_t index);
    void chunk(const Batch& batch, int64_t tile, int64_t kv_head, int64_t chunk, float* scores, const Partial& out) const;
    void merge(const Batch& batch, const Partial& into, const Partial& from, int64_t rows) const;
    void finish(const Batch& batch, int64_t tile, int64_t kv_head, const Partial& from) const;

    std::vector<float> scores_, partials_;
};

}  // namespace selfee
