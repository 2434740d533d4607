// Repacks weights once, at load.
#include "matmul/packed.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <new>

#include "matmul/kernels.h"

namespace selfee {
namespace {

constexpr size_t kHugePage = size_t(2) << 20;
constexpr size_t kPiece = size_t(32) << 20;

template <class Block>
void pack_block(const Block& from, int row, uint8_t* to) {
    using Packed = PackedBlock<Block>;
    std::memcpy(to + 2 * row, from.d, 2);
    if constexpr (Packed::has_minimum) std::memcpy(to + Packed::minimum_at + 2 * row, from.m, 2);
    if constexpr (Packed::has_high) {
        const uint32_t bits = load_u32(from.qh);
        for (int v = 0; v < 32; ++v)
            to[Packed::high_at + 4 * row + v % 4] = uint8_t(to[Packed::high_at + 4 * row + v % 4] | (bits >> v & 1) << (v / 4));
    }
    for (size_t word = 0; word < Packed::words; ++word)
        std::memcpy(to + Packed::codes_at + 32 * word + 4 * row, from.qs + 4 * word, 4);
}

template <class Block>
bool pack_as(Matrix& w, PackedMemory& memory) {
    const size_t size = packed_bytes(w), group_bytes = 8 * w.row_bytes;
    const std::shared_ptr<uint8_t> place = memory.take(size);
    uint8_t* packed = place.get();
    w.packed = place;
    std::memset(packed, 0, size);
    for (int64_t r = 0; r < w.rows; ++r) {
        const auto* from = reinterpret_cast<const Block*>(w.data + size_t(r) * w.row_bytes);
        uint8_t* to = packed + size_t(r / 8) * group_bytes;
        for (int64_t b = 0; b < w.cols / 32; ++b) pack_block(from[b], int(r % 8), to + size_t(b) * PackedBlock<Block>::bytes);
    }
    return true;
}

}  // namespace

std::shared_ptr<uint8_t> PackedMemory::take(size_t bytes) {
    bytes = (bytes + 63) / 64 * 64;
    if (bytes > size_ - used_) {
        const size_t size = (std::max(bytes, kPiece) + kHugePage - 1) / kHugePage * kHugePage;
        constexpr std::align_val_t align{kHugePage};
        piece_.reset(static_cast<uint8_t*>(::operator new(size, align)), [](uint8_t* p) { ::operator delete(p, align); });
#if defined(__linux__)
        madvise(piece_.get(), size, MADV_HUGEPAGE);  // a wish: without huge pages it only runs slower
#endif
        size_ = size;
        used_ = 0;
    }
    const size_t at = used_;
    used_ += bytes;
    return {piece_, piece_.get() + at};
}

size_t packed_bytes(const Matrix& w) {
    switch (w.type) {
        case Type::Q4_0: case Type::Q4_1: case Type::Q5_0: case Type::Q5_1: case Type::Q8_0:
            return size_t(w.rows + 7) / 8 * 8 * w.row_bytes;
        default: return 0;
    }
}

bool pack_rows(Matrix& w, PackedMemory& memory) {
    switch (w.type) {
        case Type::Q4_0: return pack_as<BlockQ4_0>(w, memory);
        case Type::Q4_1: return pack_as<BlockQ4_1>(w, memory);
        case Type::Q5_0: return pack_as<BlockQ5_0>(w, memory);
        case Type::Q5_1: return pack_as<BlockQ5_1>(w, memory);
        case Type::Q8_0: return pack_as<BlockQ8_0>(w, memory);
        default: return false;
    }
}

void pack(Matrix& w, PackedMemory& memory) {
    if (active_kernels().row_tile > 1) pack_rows(w, memory);  // the scalar kernels read the file's own layout
}

}  // namespace selfee
