// Repacks weights once, at load.
#include "matmul/packed.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <new>

#include "matmul/kernels.h"
#include "matmul/unpack.h"

namespace selfee {
namespace {

constexpr size_t kHugePage = size_t(2) << 20;
constexpr size_t kPiece = size_t(32) << 20;

// The place of one row in the lines of a packed block.
struct Lane {
    uint8_t* place;
    void put(size_t line, const uint8_t* word) const { std::memcpy(place + kLine * line, word, 4); }
};

// 32 codes of 4 bits -> four lines.
void pack_nibbles(Lane to, const uint8_t* codes) {
    uint8_t words[16];
    for (int i = 0; i < 16; ++i) words[i] = uint8_t((codes[i] & 15) | codes[16 + i] << 4);
    for (size_t line = 0; line < 4; ++line) to.put(line, words + 4 * line);
}

// 32 codes of 5 bits -> five lines.
void pack_fives(Lane to, const uint8_t* codes) {
    uint8_t words[20];
    for (int j = 0; j < 4; ++j) {
        const int five = codes[20 + j], six = codes[24 + j], seven = codes[28 + j];
        words[j] = uint8_t(codes[j] | (five >> 2) << 5);
        words[4 + j] = uint8_t(codes[4 + j] | (seven >> 1 & 1) << 5 | (five & 3) << 6);
        words[8 + j] = uint8_t(codes[8 + j] | (six >> 2) << 5);
        words[12 + j] = uint8_t(codes[12 + j] | (seven & 1) << 5 | (six & 3) << 6);
        words[16 + j] = uint8_t(codes[16 + j] | (seven >> 2) << 5);
    }
    for (size_t line = 0; line < 5; ++line) to.put(line, words + 4 * line);
}

// Sixteen codes of 6 bits -> three lines.
void pack_sixes(Lane to, const uint8_t* codes) {
    uint8_t words[12];
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 4; ++j) words[4 * i + j] = uint8_t(codes[4 * i + j] | (codes[12 + j] >> (2 * i) & 3) << 6);
    for (size_t line = 0; line < 3; ++line) to.put(line, words + 4 * line);
}

// 32 codes of 3 bits -> three lines.
void pack_threes(Lane to, const uint8_t* codes) {
    uint8_t words[12];
    for (int j = 0; j < 4; ++j) {
        const int six = codes[24 + j], seven = codes[28 + j];
        words[j] = uint8_t(codes[j] | codes[4 + j] << 3 | (six & 3) << 6);
        words[4 + j] = uint8_t(codes[8 + j] | codes[12 + j] << 3 | (six >> 2) << 6 | (seven >> 2) << 7);
        words[8 + j] = uint8_t(codes[16 + j] | codes[20 + j] << 3 | (seven & 3) << 6);
    }
    for (size_t line = 0; line < 3; ++line) to.put(line, words + 4 * line);
}

// Sixteen codes of 2 bits -> one line.
void pack_twos(Lane to, const uint8_t* codes) {
    uint8_t word[4];
    for (int j = 0; j < 4; ++j) word[j] = uint8_t(codes[j] | codes[4 + j] << 2 | codes[8 + j] << 4 | codes[12 + j] << 6);
    to.put(0, word);
}

// Of each four values the second and third change places (packed.h says why).
void pair_up(const uint8_t* from, int count, uint8_t* to) {
    for (int i = 0; i < count; i += 4) {
        to[i] = from[i];
        to[i + 1] = from[i + 2];
        to[i + 2] = from[i + 1];
        to[i + 3] = from[i + 3];
    }
}

void pack_lines(const BlockQ4_0& block, Lane to) {
    for (size_t line = 0; line < 4; ++line) to.put(line, block.qs + 4 * line);
}

void pack_lines(const BlockQ4_1& block, Lane to) {
    for (size_t line = 0; line < 4; ++line) to.put(line, block.qs + 4 * line);
}

template <class Block>
void pack_lines_q5(const Block& block, Lane to) {
    const uint32_t high = load_u32(block.qh);
    uint8_t codes[32];
    for (int v = 0; v < 16; ++v) {
        codes[v] = uint8_t((block.qs[v] & 15) | (high >> v & 1) << 4);
        codes[16 + v] = uint8_t(block.qs[v] >> 4 | (high >> (16 + v) & 1) << 4);
    }
    pack_fives(to, codes);
}

void pack_lines(const BlockQ5_0& block, Lane to) { pack_lines_q5(block, to); }
void pack_lines(const BlockQ5_1& block, Lane to) { pack_lines_q5(block, to); }

void pack_lines(const BlockQ8_0& block, Lane to) {
    uint8_t codes[32];
    for (int v = 0; v < 32; ++v) codes[v] = uint8_t(uint8_t(block.qs[v]) ^ 0x80);
    for (size_t line = 0; line < 8; ++line) to.put(line, codes + 4 * line);
}

// The codes of a block without the offset that unpack() takes off.
template <class Block>
void unsigned_codes(const Block& block, int offset, uint8_t* codes, Codes256& unpacked) {
    unpack(block, unpacked);
    for (int v = 0; v < 256; ++v) codes[v] = uint8_t(unpacked.q[v] + offset);
}

void pack_lines(const BlockQ2_K& block, Lane to) {
    Codes256 unpacked;
    uint8_t codes[256], scales[16];
    unsigned_codes(block, 0, codes, unpacked);
    pair_up(block.scales, 16, scales);
    for (size_t line = 0; line < 4; ++line) to.put(line, scales + 4 * line);
    for (size_t j = 0; j < 16; ++j) pack_twos({to.place + kLine * (4 + j)}, codes + 16 * j);
}

void pack_lines(const BlockQ3_K& block, Lane to) {
    Codes256 unpacked;
    uint8_t codes[256], scales[16];
    unsigned_codes(block, 4, codes, unpacked);
    for (int j = 0; j < 16; ++j) scales[j] = uint8_t(unpacked.scale[j] + 32);
    pack_sixes(to, scales);
    for (size_t unit = 0; unit < 8; ++unit) pack_threes({to.place + kLine * (3 + 3 * unit)}, codes + 32 * unit);
}

// Q4_K and Q5_K differ in how many lines a unit of 32 codes takes.
template <size_t kUnitLines, class Block>
void pack_lines_q45(const Block& block, Lane to, void (*pack_unit)(Lane, const uint8_t*)) {
    Codes256 unpacked;
    uint8_t codes[256], values[16], minima[8];
    unsigned_codes(block, 0, codes, unpacked);
    for (int j = 0; j < 8; ++j) {
        values[j] = uint8_t(unpacked.scale[2 * j]);
        minima[j] = uint8_t(unpacked.min[2 * j]);
    }
    pair_up(minima, 8, values + 8);
    pack_sixes(to, values);
    for (size_t unit = 0; unit < 8; ++unit) pack_unit({to.place + kLine * (3 + kUnitLines * unit)}, codes + 32 * unit);
}

void pack_lines(const BlockQ4_K& block, Lane to) { pack_lines_q45<4>(block, to, pack_nibbles); }
void pack_lines(const BlockQ5_K& block, Lane to) { pack_lines_q45<5>(block, to, pack_fives); }

void pack_lines(const BlockQ6_K& block, Lane to) {
    Codes256 unpacked;
    uint8_t codes[256];
    unsigned_codes(block, 32, codes, unpacked);
    const auto* scales = reinterpret_cast<const uint8_t*>(block.scales);
    for (size_t line = 0; line < 4; ++line) to.put(line, scales + 4 * line);
    for (size_t j = 0; j < 16; ++j) pack_sixes({to.place + kLine * (4 + 3 * j)}, codes + 16 * j);
}

template <class Block>
void pack_group(const Matrix& w, int64_t first_row, uint8_t* group) {
    const int64_t blocks = w.cols / block_values(w.type);
    const int64_t rows = std::min(kGroupRows, w.rows - first_row);
    if (rows < kGroupRows) std::memset(group, 0, packed_group_bytes<Block>(blocks));
    for (int64_t b = 0; b < blocks; ++b)
        for (int64_t r = 0; r < rows; ++r) {
            const auto& block = reinterpret_cast<const Block*>(w.data + size_t(first_row + r) * w.row_bytes)[b];
            uint8_t* header = group + packed_header_at<Block>(b) + size_t(2 * r);
            std::memcpy(header, block.d, 2);
            if constexpr (requires { block.m; }) std::memcpy(header + 2 * kGroupRows, block.m, 2);
            if constexpr (requires { block.dmin; }) std::memcpy(header + 2 * kGroupRows, block.dmin, 2);
            pack_lines(block, {group + packed_lines_at<Block>(b) + size_t(4 * r)});
        }
}

// f(the block's type) for types with a packed layout, otherwise 0.
template <class F>
auto for_block(Type type, F f) -> decltype(f(BlockQ4_0{})) {
    switch (type) {
        case Type::Q4_0: return f(BlockQ4_0{});
        case Type::Q4_1: return f(BlockQ4_1{});
        case Type::Q5_0: return f(BlockQ5_0{});
        case Type::Q5_1: return f(BlockQ5_1{});
        case Type::Q8_0: return f(BlockQ8_0{});
        case Type::Q2_K: return f(BlockQ2_K{});
        case Type::Q3_K: return f(BlockQ3_K{});
        case Type::Q4_K: return f(BlockQ4_K{});
        case Type::Q5_K: return f(BlockQ5_K{});
        case Type::Q6_K: return f(BlockQ6_K{});
        default: return {};
    }
}

size_t group_bytes(const Matrix& w) {
    return for_block(w.type, [&](auto block) { return packed_group_bytes<decltype(block)>(w.cols / block_values(w.type)); });
}

int64_t groups_of(const Matrix& w) { return (w.rows + kGroupRows - 1) / kGroupRows; }

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

int64_t packed_groups(const Matrix& w) { return active_kernels().panel > 0 && group_bytes(w) > 0 ? groups_of(w) : 0; }

size_t packed_bytes(const Matrix& w) { return size_t(groups_of(w)) * group_bytes(w); }

void pack_groups(const Matrix& w, int64_t begin, int64_t end, uint8_t* packed) {
    for (int64_t group = begin; group < end; ++group)
        for_block(w.type, [&](auto block) {
            pack_group<decltype(block)>(w, group * kGroupRows, packed + size_t(group) * group_bytes(w));
            return true;
        });
}

void pack_all(Matrix& w, PackedMemory& memory) {
    if (group_bytes(w) == 0) return;
    const std::shared_ptr<uint8_t> place = memory.take(packed_bytes(w));
    pack_groups(w, 0, groups_of(w), place.get());
    w.packed = place;
}

}  // namespace selfee
