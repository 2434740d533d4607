// Attention: a tile is a few neighbouring queries with all heads that share one head of keys, so keys are read once for all.
#include "attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace selfee {
namespace {

constexpr int64_t kTileRows = 32;                     // about: scores of a tile stay in the L1 cache
constexpr int64_t kPartialFloats = int64_t(1) << 24;  // bound on memory for chunks done side by side

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

int64_t Attention::Tile::visible(int64_t index, int64_t chunk) const {
    return std::clamp<int64_t>(position + index + 1 - chunk * kChunk, 0, kChunk);
}

struct Attention::Pass {
    const Ops& ops;
    int64_t layer;
    const float* q;
    float* out;
};

// Rows of a tile are its queries with all heads of a group; rows of one query follow each other.
int64_t Attention::offset(const Tile& tile, int64_t row, int64_t kv_head) const {
    return ((tile.query + row / group_) * heads_ + kv_head * group_ + row % group_) * head_dim_;
}

Attention::Partial Attention::partial_at(int64_t start, int64_t rows) {
    float* sums = partials_.data() + start;
    return {sums, sums + rows * width_, sums + rows * width_ + rows};
}

void Attention::plan(const std::vector<Span>& spans, int64_t heads, int threads) {
    const KvCache& shape = *spans.front().cache;
    heads_ = heads, kv_heads_ = shape.kv_heads(), group_ = heads / kv_heads_;
    head_dim_ = shape.head_dim(), width_ = shape.width();
    tiles_.clear(), pieces_.clear();
    int64_t queries = 0, most_chunks = 0, all_chunks = 0, floats = 0;
    most_rows_ = 0;
    for (const Span& span : spans) {
        const int64_t most = std::clamp<int64_t>(kTileRows / group_, 1, span.n);
        for (int64_t at = 0; at < span.n; at += most) {
            const int64_t own = std::min(most, span.n - at), chunks = ceil_div(span.first + at + own, kChunk);
            tiles_.push_back({span.cache, queries + at, own, span.first + at, chunks, floats});
            floats += kv_heads_ * chunks * partial_floats(own * group_);
            most_rows_ = std::max(most_rows_, own * group_);
            most_chunks = std::max(most_chunks, chunks);
            all_chunks += chunks;
        }
        queries += span.n;
    }
    // Few tiles, or one that is a large part of the work: their chunks are done side by side, and so they are where each
    // conversation has one query, since memory is read in order then. Otherwise a thread takes a tile with all its chunks.
    // The order of sums is the same.
    const bool few = kv_heads_ * all_chunks < 4 * threads * most_chunks, one_each = queries == int64_t(spans.size());
    const bool side_by_side = most_chunks > 1 && (few || one_each) && floats <= kPartialFloats;
    if (side_by_side) {
        list_pieces();
    } else {
        floats = 2 * threads * partial_floats(most_rows_);
        // Tiles of late queries have more to do; they are taken first, so that no thread is left with one at the end.
        std::sort(tiles_.begin(), tiles_.end(), [](const Tile& a, const Tile& b) { return a.position > b.position; });
    }
    partials_.resize(std::max(partials_.size(), size_t(floats)));
    scores_.resize(std::max(scores_.size(), size_t(threads * most_rows_ * (kChunk + head_dim_))));
}

// In the order in which a conversation's cache lies in memory.
void Attention::list_pieces() {
    const auto count = int64_t(tiles_.size());
    for (int64_t begin = 0, end = 0; begin < count; begin = end) {
        while (end < count && tiles_[size_t(end)].cache == tiles_[size_t(begin)].cache) ++end;
        for (int64_t c = 0; c < tiles_[size_t(end - 1)].chunks; ++c)
            for (int64_t tile = begin; tile < end; ++tile)
                if (c < tiles_[size_t(tile)].chunks) pieces_.push_back({tile, c});
    }
}

// Of all rows of a tile with the positions of a chunk, [rows][kChunk]; behind them lie the queries meanwhile.
void Attention::scores(const Pass& pass, const Tile& tile, int64_t kv_head, int64_t chunk, float* scores) const {
    const int64_t rows = this->rows(tile), dim = head_dim_;
    const int64_t blocks = ceil_div(tile.visible(tile.queries - 1, chunk), kKeyBlock);
    const float scale = 1.0f / std::sqrt(float(dim));
    float* queries = scores + rows * kChunk;
    for (int64_t row = 0; row < rows; ++row)
        std::memcpy(queries + row * dim, pass.q + offset(tile, row, kv_head), size_t(dim) * sizeof(float));
    if (tile.cache->type() == CellType::Halves)
        pass.ops.scores(queries, dim, rows, tile.cache->keys(pass.layer, kv_head, chunk), blocks, dim, scale, scores, kChunk);
    else
        pass.ops.scores_bytes(queries, dim, rows, tile.cache->key_bytes(pass.layer, kv_head, chunk), blocks,
                              tile.cache->groups(), scale, scores, kChunk);
}

void Attention::chunk(const Pass& pass, const Tile& tile, int64_t kv_head, int64_t chunk, float* scores,
                      const Partial& out) const {
    const int64_t rows = this->rows(tile), width = width_;
    KvCache& cache = *tile.cache;
    this->scores(pass, tile, kv_head, chunk, scores);
    int64_t seen_by_all = kChunk;
    for (int64_t row = 0; row < rows; ++row) {
        const int64_t visible = tile.visible(row / group_, chunk);
        seen_by_all = std::min(seen_by_all, visible);
        out.totals[row] = 0;
        if (visible == 0) continue;
        float* own = scores + row * kChunk;
        std::fill(own + visible, own + ceil_div(visible, 8) * 8, -std::numeric_limits<float>::infinity());
        pass.ops.softmax(own, ceil_div(visible, 8) * 8, out.largest + row, out.totals + row);
    }
    if (cache.type() == CellType::Bytes) {
        const int64_t most = tile.visible(tile.queries - 1, chunk);
        for (int64_t row = 0; row < rows; ++row) {
            const int64_t seen = ceil_div(tile.visible(row / group_, chunk), 8) * 8;
            std::fill(scores + row * kChunk + seen, scores + row * kChunk + ceil_div(most, 8) * 8, 0.0f);
        }
        pass.ops.weigh_bytes(scores, kChunk, rows, cache.value_bytes(pass.layer, kv_head, chunk), most, cache.groups(), out.sums, width);
        return;
    }
    const uint16_t* values = cache.values(pass.layer, kv_head, chunk);
    std::memset(out.sums, 0, size_t(rows * width) * sizeof(float));
    pass.ops.weigh(scores, kChunk, rows, values, seen_by_all, width, out.sums, width);
    for (int64_t row = 0; row < rows; ++row) {
        const int64_t visible = tile.visible(row / group_, chunk);
        pass.ops.weigh(scores + row * kChunk + seen_by_all, kChunk, 1, values + seen_by_all * width, visible - seen_by_all,
                    width, out.sums + row * width, width);
    }
}

void Attention::merge(const Pass& pass, const Partial& into, const Partial& from, int64_t rows) const {
    for (int64_t row = 0; row < rows; ++row) {
        if (from.totals[row] == 0) continue;  // the whole chunk lies after this row's position
        const float largest = into.largest[row] > from.largest[row] ? into.largest[row] : from.largest[row];
        const float old = std::exp(into.largest[row] - largest), fresh = std::exp(from.largest[row] - largest);
        into.largest[row] = largest;
        into.totals[row] = into.totals[row] * old + from.totals[row] * fresh;
        pass.ops.blend(into.sums + row * width_, old, from.sums + row * width_, fresh, width_);
    }
}

void Attention::finish(const Pass& pass, const Tile& tile, int64_t kv_head, const Partial& from) const {
    for (int64_t row = 0; row < rows(tile); ++row) {
        const float factor = 1.0f / from.totals[row];
        float* out = pass.out + offset(tile, row, kv_head);
        for (int64_t d = 0; d < head_dim_; ++d) out[d] = from.sums[row * width_ + d] * factor;
    }
}

void Attention::run(const Ops& ops, ThreadPool& pool, int64_t layer, const float* q, float* out) {
    const Pass pass{ops, layer, q, out};
    const auto scores_of = [&](int thread) { return scores_.data() + thread * most_rows_ * (kChunk + head_dim_); };
    const auto place = [&](const Tile& tile, int64_t kv_head, int64_t c) {
        return partial_at(tile.partials + (kv_head * tile.chunks + c) * partial_floats(rows(tile)), rows(tile));
    };
    const auto spare = [&](int thread, int which, const Tile& tile) {
        return partial_at((2 * thread + which) * partial_floats(most_rows_), rows(tile));
    };
    const bool side_by_side = !pieces_.empty();
    if (side_by_side)
        pool.each(int64_t(pieces_.size()) * kv_heads_, 1, [&](int64_t begin, int64_t end, int thread) {
            for (int64_t item = begin; item < end; ++item) {
                const Piece piece = pieces_[size_t(item / kv_heads_)];
                const Tile& tile = tiles_[size_t(piece.tile)];
                const int64_t kv_head = item % kv_heads_;
                chunk(pass, tile, kv_head, piece.chunk, scores_of(thread), place(tile, kv_head, piece.chunk));
            }
        });
    pool.each(int64_t(tiles_.size()) * kv_heads_, 1, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t item = begin; item < end; ++item) {
            const Tile& tile = tiles_[size_t(item / kv_heads_)];
            const int64_t kv_head = item % kv_heads_;
            const Partial total = side_by_side ? place(tile, kv_head, 0) : spare(thread, 0, tile);
            for (int64_t c = 0; c < tile.chunks; ++c) {
                const Partial from = side_by_side ? place(tile, kv_head, c) : spare(thread, c == 0 ? 0 : 1, tile);
                if (!side_by_side) chunk(pass, tile, kv_head, c, scores_of(thread), from);
                if (c > 0) merge(pass, total, from, rows(tile));
            }
            finish(pass, tile, kv_head, total);
        }
    });
}

}  // namespace selfee
