// The cache of keys and values of one conversation.
#pragma once
#include <cstddef>
#include <cstdint>

#include "ops.h"

namespace selfee {

// What a cached value is stored as; numbers as in Type (matmul.h).
enum class CellType : int32_t {
    Halves = 1,
    Bytes = 8,  // 32 neighbours of a head share a scale: a block of Q8_0. A head has a multiple of 32 values then.
};

// Memory is reserved whole but becomes real only where it is written.
//
// Positions are kept in chunks: of each layer first all heads of the first chunk, then of the second, and so on, of each
// head its keys and then its values.  So a text fills memory from the front, and attention reads it in one stream.
class KvCache {
public:
    static constexpr int64_t kChunk = kCacheChunk;

    // std::bad_alloc if the address space cannot be had.
    KvCache(CellType type, int64_t layers, int64_t kv_heads, int64_t head_dim, int64_t capacity);
    ~KvCache();
    KvCache(const KvCache&) = delete;
    KvCache& operator=(const KvCache&) = delete;

    CellType type() const { return type_; }
    int64_t capacity() const { return capacity_; }
    int64_t width() const { return width_; }  // of a row of values: head_dim rounded up to whole vectors
    int64_t head_dim() const { return head_dim_; }
    int64_t kv_heads() const { return kv_heads_; }
    int64_t groups() const { return head_dim_ / kByteGroup; }  // of Bytes

    // Of one chunk, Halves: [block][head_dim][16 positions] and [position][width]
    uint16_t* keys(int64_t layer, int64_t head, int64_t chunk) { return reinterpret_cast<uint16_t*>(place(layer, head, chunk)); }
    uint16_t* values(int64_t layer, int64_t head, int64_t chunk) { return keys(layer, head, chunk) + kChunk * head_dim_; }

    // Bytes: [group][block] and [group]
    KeyBytes* key_bytes(int64_t layer, int64_t head, int64_t chunk) { return reinterpret_cast<KeyBytes*>(place(layer, head, chunk)); }
    ValueBytes* value_bytes(int64_t layer, int64_t head, int64_t chunk) {
        return reinterpret_cast<ValueBytes*>(key_bytes(layer, head, chunk) + kChunkBlocks * groups());
    }

    // Cells of positions first .. last - 1 of one chunk and one layer, out of the cache and into it, as session files have
    // them: without padding, [keys, values][kv_head][position][row_words]: halves, or blocks of Q8_0 (17 words each).
    int64_t row_words() const { return type_ == CellType::Halves ? head_dim_ : groups() * kBlockWords; }
    void read_cells(int64_t layer, int64_t first, int64_t last, uint16_t* out);
    void write_cells(int64_t layer, int64_t first, int64_t last, const uint16_t* in);

    void store(const Ops& ops, int64_t layer, int64_t head, int64_t position, const float* key, const float* value);

    // Takes over the first `length` positions of another cache of the same type and shape; both have room for them.
    void copy_from(const KvCache& other, int64_t length);

    // Gives memory back to the system, but for the chunks that the first `length` positions lie in.
    void give_back_after(int64_t length);

private:
    static constexpr int64_t kBlockWords = 17;

    size_t bytes_needed() const;
    size_t at(int64_t layer, int64_t head, int64_t chunk) const {
        return size_t((layer * chunks_ + chunk) * kv_heads_ + head) * head_bytes_;
    }
    uint8_t* place(int64_t layer, int64_t head, int64_t chunk) { return memory_ + at(layer, head, chunk); }

    const CellType type_;
    int64_t layers_, kv_heads_, head_dim_, width_, capacity_, chunks_;
    size_t head_bytes_;  // of one head in one chunk
    size_t bytes_;
    uint8_t* memory_ = nullptr;
};

}  // namespace selfee
