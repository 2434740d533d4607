// Attention over caches of keys and values.
#pragma once
#include <cstdint>
#include <vector>

#include "cache.h"
#include "ops.h"
#include "threads.h"

namespace selfee {

// Neighbouring tokens of one conversation: n of them from position `first` on.
struct Span {
    KvCache* cache;
    int64_t first, n;
};

// Attention of a batch of queries, each over everything its own conversation has cached up to the query's position.
//
// Positions are taken in chunks of kChunk counted from position 0. Within a chunk and from chunk to chunk the order of
// operations is fixed, so a query's result depends on the cache and its own position only, not on the batch it is in.
class Attention {
public:
    static constexpr int64_t kChunk = KvCache::kChunk;

    // Divides the work on a batch among threads, the same way for every layer. The queries of the spans follow each other;
    // caches have one shape, and none comes twice.
    void plan(const std::vector<Span>& spans, int64_t heads, int threads);

    // q and out: [queries][heads * head_dim]; the queries' own keys and values are stored already. Two loops over threads
    // at most, whatever the number of conversations.
    void run(const Ops& ops, ThreadPool& pool, int64_t layer, const float* q, float* out);

private:
    // A few neighbouring queries of one conversation.
    struct Tile {
        KvCache* cache;
        int64_t query, queries;  // the first one's number in the batch; how many
        int64_t position;        // of the first
        int64_t chunks;          // that the last one sees
        int64_t partials;        // where its partial results begin; only where pieces are done side by side

        // Positions of a chunk that its index-th query may see.
        int64_t visible(int64_t index, int64_t chunk) const;
    };
    struct Piece {
        int64_t tile, chunk;
    };
    // A softmax over some chunks, not yet divided by its sum. For each row: the weighted values, the largest, the sum.
    struct Partial {
        float* sums;     // [rows][width]
        float* largest;  // [rows]
        float* totals;   // [rows]
    };
    struct Pass;  // what run() was asked

    int64_t rows(const Tile& tile) const { return tile.queries * group_; }
    int64_t partial_floats(int64_t rows) const { return rows * (width_ + 2); }
    Partial partial_at(int64_t start, int64_t rows);
    int64_t offset(const Tile& tile, int64_t row, int64_t kv_head) const;
    void list_pieces();
    void scores(const Pass& pass, const Tile& tile, int64_t kv_head, int64_t chunk, float* scores) const;
    void chunk(const Pass& pass, const Tile& tile, int64_t kv_head, int64_t chunk, float* scores, const Partial& out) const;
    void merge(const Pass& pass, const Partial& into, const Partial& from, int64_t rows) const;
    void finish(const Pass& pass, const Tile& tile, int64_t kv_head, const Partial& from) const;

    int64_t heads_ = 0, kv_heads_ = 0, group_ = 0, head_dim_ = 0, width_ = 0;  // group: heads that share one of keys
    int64_t most_rows_ = 0;      // of a tile
    std::vector<Tile> tiles_;
    std::vector<Piece> pieces_;  // empty: a thread takes a tile with all its chunks
    std::vector<float> scores_, partials_;
};

}  // namespace selfee
