// Attention: a tile is a few neighbouring queries with all heads that share one head of keys, so keys are read once for all.
#include "attention.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>

namespace selfee {
namespace {

constexpr int64_t kTileRows = 32;                       // about: scores of a tile stay in the L1 cache
constexpr size_t kHugeFrom = size_t(16) << 20;         // bytes of a layer
constexpr int64_t kPartialFloats = int64_t(1) << 24;  // bound on memory for chunks of one tile done side by side

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

size_t KvCache::bytes_needed(int64_t layers, int64_t kv_heads, int64_t head_dim, int64_t capacity) {
    const int64_t positions = ceil_div(capacity, kChunk) * kChunk, width = ceil_div(head_dim, 8) * 8;
    size_t bytes = sizeof(uint16_t);
    for (const int64_t factor : {layers, kv_heads, head_dim + width, positions})
        if (factor < 0 || __builtin_mul_overflow(bytes, size_t(factor), &bytes)) throw std::bad_alloc();
    return bytes;
}

KvCache::KvCache(int64_t layers, int64_t kv_heads, int64_t head_dim, int64_t capacity)
    : layers_(layers), kv_heads_(kv_heads), head_dim_(head_dim), width_(ceil_div(head_dim, 8) * 8), capacity_(capacity),
      chunks_(ceil_div(capacity, kChunk)), bytes_(std::max<size_t>(1, bytes_needed(layers, kv_heads, head_dim, capacity))) {
    // Fresh pages read as zero and cost nothing until written; the padding of value rows stays zero for ever.
    void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
    // Where a layer has room for many huge pages, the one that is being filled is little; small caches stay small.
    if (bytes_ / size_t(std::max<int64_t>(1, layers_)) >= kHugeFrom) madvise(memory, bytes_, MADV_HUGEPAGE);
#endif
    halves_ = static_cast<uint16_t*>(memory);
}

KvCache::~KvCache() { munmap(halves_, bytes_); }

void KvCache::read_cells(int64_t layer, int64_t first, int64_t last, uint16_t* out) {
    const int64_t chunk = first / kChunk, n = last - first;
    for (int64_t head = 0; head < kv_heads_; ++head) {
        uint16_t* own = out + head * n * head_dim_;
        const uint16_t* from = keys(layer, head, chunk);
        for (int64_t i = 0, at = first % kChunk; i < n; ++i, ++at) {
            const uint16_t* block = from + at / kKeyBlock * kKeyBlock * head_dim_ + at % kKeyBlock;
            for (int64_t d = 0; d < head_dim_; ++d) own[i * head_dim_ + d] = block[d * kKeyBlock];
        }
        own += kv_heads_ * n * head_dim_;
        from = values(layer, head, chunk) + first % kChunk * width_;
        for (int64_t i = 0; i < n; ++i) std::memcpy(own + i * head_dim_, from + i * width_, size_t(head_dim_) * sizeof(uint16_t));
    }
}

void KvCache::write_cells(int64_t layer, int64_t first, int64_t last, const uint16_t* in) {
    const int64_t chunk = first / kChunk, n = last - first;
    for (int64_t head = 0; head < kv_heads_; ++head) {
        const uint16_t* own = in + head * n * head_dim_;
        uint16_t* to = keys(layer, head, chunk);
        for (int64_t i = 0, at = first % kChunk; i < n; ++i, ++at) {
            uint16_t* block = to + at / kKeyBlock * kKeyBlock * head_dim_ + at % kKeyBlock;
            for (int64_t d = 0; d < head_dim_; ++d) block[d * kKeyBlock] = own[i * head_dim_ + d];
        }
        own += kv_heads_ * n * head_dim_;
        to = values(layer, head, chunk) + first % kChunk * width_;
        for (int64_t i = 0; i < n; ++i) std::memcpy(to + i * width_, own + i * head_dim_, size_t(head_dim_) * sizeof(uint16_t));
    }
}

void KvCache::store(const Ops& ops, int64_t layer, int64_t head, int64_t position, const float* key, const float* value) {
    const int64_t chunk = position / kChunk, at = position % kChunk;
    uint16_t* row = values(layer, head, chunk) + at * width_;
    ops.to_halves(key, head_dim_, row);  // the value's place serves as scratch
    uint16_t* block = keys(layer, head, chunk) + at / kKeyBlock * kKeyBlock * head_dim_ + at % kKeyBlock;
    for (int64_t d = 0; d < head_dim_; ++d) block[d * kKeyBlock] = row[d];
    ops.to_halves(value, head_dim_, row);
}

struct Attention::Batch {
    const Ops& ops;
    KvCache& cache;
    int64_t layer, n, first, heads;
    const float* q;
    float* out;
    int64_t group, tile_queries, tiles;

    int64_t queries(int64_t tile) const { return std::min(tile_queries, n - tile * tile_queries); }
    int64_t rows(int64_t tile) const { return queries(tile) * group; }
    int64_t chunks(int64_t tile) const { return ceil_div(first + tile * tile_queries + queries(tile), kChunk); }
    // Positions of a chunk that a row of a tile may see; rows of one query follow each other.
    int64_t visible(int64_t tile, int64_t row, int64_t chunk) const {
        const int64_t position = first + tile * tile_queries + row / group;
        return std::clamp<int64_t>(position + 1 - chunk * kChunk, 0, kChunk);
    }
    int64_t offset(int64_t tile, int64_t row, int64_t kv_head) const {
        const int64_t query = tile * tile_queries + row / group, head = kv_head * group + row % group;
        return (query * heads + head) * cache.head_dim();
    }
    int64_t partial_floats() const { return tile_queries * group * (cache.width() + 2); }
};

Attention::Partial Attention::partial_at(const Batch& batch, int64_t index) {
    const int64_t rows = batch.tile_queries * batch.group;
    float* start = partials_.data() + index * batch.partial_floats();
    return {start, start + rows * batch.cache.width(), start + rows * batch.cache.width() + rows};
}

void Attention::chunk(const Batch& b, int64_t tile, int64_t kv_head, int64_t chunk, float* scores, const Partial& out) const {
    KvCache& cache = b.cache;
    const int64_t rows = b.rows(tile), dim = cache.head_dim(), width = cache.width();
    const int64_t most = b.visible(tile, rows - 1, chunk), blocks = ceil_div(most, kKeyBlock);
    const uint16_t* keys = cache.keys(b.layer, kv_head, chunk);
    const uint16_t* values = cache.values(b.layer, kv_head, chunk);
    const float scale = 1.0f / std::sqrt(float(dim));
    float* queries = scores + rows * kChunk;
    for (int64_t row = 0; row < rows; ++row)
        std::memcpy(queries + row * dim, b.q + b.offset(tile, row, kv_head), size_t(dim) * sizeof(float));
    b.ops.scores(queries, dim, rows, keys, blocks, dim, scale, scores, kChunk);
    std::memset(out.sums, 0, size_t(rows * width) * sizeof(float));
    int64_t seen_by_all = kChunk;
    for (int64_t row = 0; row < rows; ++row) {
        const int64_t visible = b.visible(tile, row, chunk);
        seen_by_all = std::min(seen_by_all, visible);
        out.totals[row] = 0;
        if (visible == 0) continue;
        float* own = scores + row * kChunk;
        std::fill(own + visible, own + ceil_div(visible, 8) * 8, -std::numeric_limits<float>::infinity());
        b.ops.softmax(own, ceil_div(visible, 8) * 8, out.largest + row, out.totals + row);
    }
    b.ops.weigh(scores, kChunk, rows, values, seen_by_all, width, out.sums, width);
    for (int64_t row = 0; row < rows; ++row) {
        const int64_t visible = b.visible(tile, row, chunk);
        b.ops.weigh(scores + row * kChunk + seen_by_all, kChunk, 1, values + seen_by_all * width, visible - seen_by_all,
                    width, out.sums + row * width, width);
    }
}

void Attention::merge(const Batch& b, const Partial& into, const Partial& from, int64_t rows) const {
    const int64_t width = b.cache.width();
    for (int64_t row = 0; row < rows; ++row) {
        if (from.totals[row] == 0) continue;  // the whole chunk lies after this row's position
        const float largest = into.largest[row] > from.largest[row] ? into.largest[row] : from.largest[row];
        const float old = std::exp(into.largest[row] - largest), fresh = std::exp(from.largest[row] - largest);
        into.largest[row] = largest;
        into.totals[row] = into.totals[row] * old + from.totals[row] * fresh;
        b.ops.blend(into.sums + row * width, old, from.sums + row * width, fresh, width);
    }
}

void Attention::finish(const Batch& b, int64_t tile, int64_t kv_head, const Partial& from) const {
    for (int64_t row = 0; row < b.rows(tile); ++row) {
        const float factor = 1.0f / from.totals[row];
        float* out = b.out + b.offset(tile, row, kv_head);
        for (int64_t d = 0; d < b.cache.head_dim(); ++d) out[d] = from.sums[row * b.cache.width() + d] * factor;
    }
}

void Attention::run(const Ops& ops, ThreadPool& pool, KvCache& cache, int64_t layer, const float* q, int64_t n,
                    int64_t first, int64_t heads, float* out) {
    Batch b{ops, cache, layer, n, first, heads, q, out, heads / cache.kv_heads(), 0, 0};
    b.tile_queries = std::max<int64_t>(1, std::min(n, kTileRows / b.group));
    b.tiles = ceil_div(n, b.tile_queries);
    const int64_t tiles = b.tiles * cache.kv_heads(), chunks = b.chunks(b.tiles - 1);
    const int64_t scores_floats = b.tile_queries * b.group * (kChunk + cache.head_dim());
    scores_.resize(std::max(scores_.size(), size_t(pool.threads() * scores_floats)));
    // Few tiles: their chunks are done side by side. Many: a thread takes a tile with all its chunks. Same order of sums.
    const bool side_by_side = chunks > 1 && (n == 1 || tiles < 4 * pool.threads()) && tiles * chunks * b.partial_floats() <= kPartialFloats;
    const int64_t kept = side_by_side ? tiles * chunks : 2 * pool.threads();
    partials_.resize(std::max(partials_.size(), size_t(kept * b.partial_floats())));
    const int64_t heads_kv = cache.kv_heads();
    if (side_by_side)
        pool.each(tiles * chunks, 1, [&](int64_t begin, int64_t end, int thread) {
            for (int64_t item = begin; item < end; ++item) {  // in the order in which the cache lies in memory
                const int64_t kv_head = item % heads_kv, tile = item / heads_kv % b.tiles, c = item / heads_kv / b.tiles;
                if (c < b.chunks(tile))
                    chunk(b, tile, kv_head, c, scores_.data() + thread * scores_floats,
                          partial_at(b, (tile * heads_kv + kv_head) * chunks + c));
            }
        });
    // Tiles of late queries have more to do; they are taken first, so that no thread is left with one at the end.
    pool.each(tiles, 1, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t item = begin; item < end; ++item) {
            const int64_t tile = b.tiles - 1 - item / heads_kv, kv_head = item % heads_kv;
            const int64_t at = (tile * heads_kv + kv_head) * chunks;
            const Partial total = partial_at(b, side_by_side ? at : 2 * thread);
            const Partial part = partial_at(b, side_by_side ? at : 2 * thread + 1);
            for (int64_t c = 0; c < b.chunks(tile); ++c) {
                const Partial from = side_by_side ? partial_at(b, at + c) : c == 0 ? total : part;
                if (!side_by_side) chunk(b, tile, kv_head, c, scores_.data() + thread * scores_floats, from);
                if (c > 0) merge(b, total, from, b.rows(tile));
            }
            finish(b, tile, kv_head, total);
        }
    });
}

}  // namespace selfee
