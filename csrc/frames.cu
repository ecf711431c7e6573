// Pictures of many formats and sizes, resized by one launch: the definition in plane.h, on the device. Compiled at
// first use (gpupipe/cuda/kernel.py); gpupipe/cuda/tables.py lays out every structure that is read here.
// Owner: the caller, of tiles, pictures, plans, planes and outputs, until the launch has run. Stream: the launch's.
// Bounds: a plane is read from its pointer to the last byte of its last row, never its padding.
//
// A block works one tile: a few output rows times a range of columns. Each thread holds a strip, 16 bytes wide, of
// one plane (interleaved words stay interleaved) and walks down it: vertical sums in registers, 15-bit results of
// kMidRows output rows into shared memory; then each thread takes columns for the horizontal pass, colour and store.
//
// Shrinking, a row of samples counts for two output rows at most: with two sets of sums a strip is read once (each
// pair of rows that belongs to three is met with the third weight when its turn comes, out of registers). Enlarging,
// each output row reads its own pair, which the cache still holds.
//
// Sums are of bytes, two rows or two columns an instruction (dp2a: 16-bit weights times 8-bit samples). Values of two
// bytes are summed as low bytes and high bytes apart and put together at the end; this is exact.
#include "plane.h"

namespace gpupipe {

static_assert(kArithmeticVersion == 1, "this kernel carries out version 1");

constexpr int kThreads = 128;   // of a block at most, and strips of a tile
constexpr int kBlocks = 6;      // a multiprocessor: with two rows of a strip on their way, 24 KiB in flight
constexpr int kStrip = 16;      // bytes
constexpr int kMidRows = 4;     // output rows between the passes
constexpr int kMidPitch = kThreads * kStrip / 2;   // 32-bit words of a row between the passes: two samples each
constexpr int kPlanes = 3;

enum Layout : int32_t { kPlain, kPlanar, kInterleaved };   // of samples between the passes, see emit()

struct Tile {
    int32_t picture;      // of the launch
    int32_t columns;      // of its plan's column tiles
    int32_t begin, end;   // output rows
};

struct RowPlan {          // a plane
    int32_t rows, row_bytes;   // that exist
    int32_t rolling;           // 1 when shrinking: pairs of rows begin at even ones
    int32_t layout;
    int32_t pairs;             // weights of an output
    int32_t begin, last;       // tables by output: the first row; the last pair (where rolling)
    int32_t weights;           // table [outputs][pairs]: two of 16 bits, the upper row's low
};

struct ChannelPlan {
    int32_t plane, offset, step;   // sample i is word offset + i * step of its plane's row
    int32_t pairs;
    int32_t begin;     // table by output: the first pair of samples
    int32_t weights;   // table [pairs][outputs]
};

struct ColumnTile {
    int32_t begin, end;   // outputs
    struct {
        int32_t first, count;   // strips, from the plane's left edge
        int32_t slot;           // of the first one's samples between the passes, in 32-bit words
    } plane[kPlanes];
};

struct Plan {             // tables follow; they are named by their distance from here in 32-bit words
    int32_t height, width;     // of the output, as decoded
    int32_t planes, channels;
    int32_t wide;              // samples have two bytes
    int32_t shift, depth;
    uint32_t mask;             // the samples' bits, of two words side by side
    int32_t apart;             // columns so wide that they are worked one by one
    int32_t tiles;             // table of ColumnTile
    ColourMatrix colour;
    RowPlan plane[kPlanes];
    ChannelPlan channel[kPlanes];
};

struct Picture {
    const Plan* plan;
    const uint8_t* plane[kPlanes];
    uint8_t* out;
    const uint32_t* levels;    // elements of two or four bytes: their bits, [3][256], by colour and level
    int64_t origin, channel;   // in elements: pixel (y, x), colour c is origin + y * row + x * column + c * channel
    int32_t row, column;
    int32_t pitch[kPlanes];
    int32_t element;           // bytes
};

static_assert(sizeof(Tile) == 16 && sizeof(ColumnTile) == 44 && sizeof(Plan) == 256 && sizeof(Picture) == 88,
              "as in tables.py");

// What all threads of a block look up, in shared memory: the compiler then keeps little of it in registers.
struct Block {
    Plan plan;
    Picture picture;
    ColumnTile columns;
    Tile tile;
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 610
__device__ __forceinline__ uint32_t dot_low(uint32_t weights, uint32_t bytes, uint32_t sum) {
    return sum + (weights & 0xffff) * (bytes & 0xff) + (weights >> 16) * (bytes >> 8 & 0xff);
}
__device__ __forceinline__ uint32_t dot_high(uint32_t weights, uint32_t bytes, uint32_t sum) {
    return dot_low(weights, bytes >> 16, sum);
}
#else
__device__ __forceinline__ uint32_t dot_low(uint32_t weights, uint32_t bytes, uint32_t sum) {
    return __dp2a_lo(weights, bytes, sum);
}
__device__ __forceinline__ uint32_t dot_high(uint32_t weights, uint32_t bytes, uint32_t sum) {
    return __dp2a_hi(weights, bytes, sum);
}
#endif

// The first `bytes` of a strip, the rest zero, without a byte beyond them.
__device__ __forceinline__ uint4 load_narrow(const uint8_t* from, int bytes) {
    const bool aligned = (reinterpret_cast<uint64_t>(from) & 3) == 0;
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        words[i] = 0;
        if (aligned && 4 * i + 4 <= bytes) {
            words[i] = __ldg(reinterpret_cast<const uint32_t*>(from) + i);
        } else {
#pragma unroll
            for (int b = 0; b < 4; ++b)
                if (4 * i + b < bytes) words[i] |= uint32_t{__ldg(from + 4 * i + b)} << (8 * b);
        }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

__device__ __forceinline__ void add_word(uint32_t* sums, uint32_t above, uint32_t below, uint32_t weights) {
    const uint32_t low = __byte_perm(above, below, 0x5140), high = __byte_perm(above, below, 0x7362);
    sums[0] = dot_low(weights, low, sums[0]);
    sums[1] = dot_high(weights, low, sums[1]);
    sums[2] = dot_low(weights, high, sums[2]);
    sums[3] = dot_high(weights, high, sums[3]);
}

struct Rows {   // a strip of two of them
    uint4 above, below;
};

// sums[i] += the weighted bytes i of two rows.
__device__ __forceinline__ void add_rows(uint32_t (&sums)[kStrip], const Rows& rows, uint32_t weights) {
    add_word(sums, rows.above.x, rows.below.x, weights);
    add_word(sums + 4, rows.above.y, rows.below.y, weights);
    add_word(sums + 8, rows.above.z, rows.below.z, weights);
    add_word(sums + 12, rows.above.w, rows.below.w, weights);
}

template <bool kWide>
struct Strip {
    const uint8_t* pointer;   // of the plane's first row
    int pitch;
    int bytes;                // that exist
    bool whole;               // and are aligned
    int rows;
    uint32_t mask;

    // Row `index` and the one below; where that does not exist its weight is zero, and the same is read again.
    __device__ __forceinline__ Rows pair(int index) const {
        const uint8_t* above = pointer + int64_t{index} * pitch;
        const uint8_t* below = above + (index + 1 < rows ? pitch : 0);
        if (whole) return {__ldg(reinterpret_cast<const uint4*>(above)), __ldg(reinterpret_cast<const uint4*>(below))};
        return {load_narrow(above, bytes), load_narrow(below, bytes)};
    }

    // Bits that belong to no sample are cleared.
    __device__ __forceinline__ Rows samples(Rows rows) const {
        if (!kWide) return rows;
        rows.above.x &= mask, rows.above.y &= mask, rows.above.z &= mask, rows.above.w &= mask;
        rows.below.x &= mask, rows.below.y &= mask, rows.below.z &= mask, rows.below.w &= mask;
        return rows;
    }
};

// A strip's sums, rounded to 15 bits, into shared memory, two samples a word: neighbours as they lie (kPlain: halves
// of the word), or neighbours of one channel (kPlanar; kInterleaved where two channels take turns) as low bytes and
// high bytes, ready for dp2a.
template <bool kWide>
__device__ __forceinline__ void emit(uint32_t* to, const uint32_t (&sums)[kStrip], const Plan& plan, int layout) {
    constexpr int kSamples = kWide ? kStrip / 2 : kStrip;
    const uint32_t select = layout == kPlain ? 0x5410 : 0x5140;
    const int shift = kWide ? plan.shift : 0, depth = kWide ? plan.depth : 8;
    uint32_t words[kSamples / 2];
#pragma unroll
    for (int i = 0; i < kSamples; i += 4) {
        uint32_t t[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const uint32_t sum =
                kWide ? (sums[(2 * (i + j)) % kStrip] + (sums[(2 * (i + j) + 1) % kStrip] << 8)) >> shift : sums[i + j];
            t[j] = static_cast<uint32_t>(vertical_round(static_cast<int32_t>(sum), depth));
        }
        const uint32_t second = layout == kInterleaved ? t[2] : t[1], third = layout == kInterleaved ? t[1] : t[2];
        words[i / 2] = __byte_perm(t[0], second, select);
        words[i / 2 + 1] = __byte_perm(third, t[3], select);
    }
#pragma unroll
    for (int i = 0; i < kSamples / 2; i += 4)
        *reinterpret_cast<uint4*>(to + i) = make_uint4(words[i], words[i + 1], words[i + 2], words[i + 3]);
}

// One colour of one column, of kMidRows output rows, two in a word.
__device__ __forceinline__ void horizontal(uint32_t (&out)[kMidRows / 2], const uint32_t* mid, const Plan& plan,
                                           const int32_t* table, const ChannelPlan& channel, int base, int x) {
    const int32_t* weights = table + channel.weights + x;
    const int begin = __ldg(table + channel.begin + x);
    uint32_t low[kMidRows] = {}, high[kMidRows] = {};
    if (plan.plane[channel.plane].layout == kPlain) {
        const uint16_t* halves = reinterpret_cast<const uint16_t*>(mid) + 2 * base + channel.offset;
        halves += 2 * begin * channel.step;
        for (int k = 0; k < channel.pairs; ++k, halves += 2 * channel.step, weights += plan.width) {
            const uint32_t both = static_cast<uint32_t>(__ldg(weights));
#pragma unroll
            for (int row = 0; row < kMidRows; ++row) {
                const uint16_t* at = halves + row * 2 * kMidPitch;
                low[row] += (both & 0xffff) * at[0] + (both >> 16) * at[channel.step];
            }
        }
    } else {
        const uint32_t* words = mid + base + channel.offset + begin * channel.step;
        for (int k = 0; k < channel.pairs; ++k, words += channel.step, weights += plan.width) {
            const uint32_t both = static_cast<uint32_t>(__ldg(weights));
#pragma unroll
            for (int row = 0; row < kMidRows; ++row) {
                low[row] = dot_low(both, words[row * kMidPitch], low[row]);
                high[row] = dot_high(both, words[row * kMidPitch], high[row]);
            }
        }
    }
#pragma unroll
    for (int row = 0; row < kMidRows; row += 2) {
        const int32_t first = horizontal_round(static_cast<int32_t>(low[row] + (high[row] << 8)));
        const int32_t second = horizontal_round(static_cast<int32_t>(low[row + 1] + (high[row + 1] << 8)));
        out[row / 2] = static_cast<uint32_t>(first | second << 16);
    }
}

__device__ __forceinline__ void store(const Picture& picture, const Plan& plan, int64_t at, int32_t y, int32_t u,
                                      int32_t v) {
#pragma unroll
    for (int c = 0; c < 3; ++c, at += picture.channel) {
        const uint8_t level = colour_channel(plan.colour.c[c], plan.colour.bias[c], y, u, v);
        if (picture.element == 1) {
            picture.out[at] = level;
        } else {
            const uint32_t bits = __ldg(picture.levels + c * 256 + level);
            if (picture.element == 2)
                reinterpret_cast<uint16_t*>(picture.out)[at] = static_cast<uint16_t>(bits);
            else
                reinterpret_cast<uint32_t*>(picture.out)[at] = bits;
        }
    }
}

template <bool kWide>
__device__ __forceinline__ void resize_tile(const Block& block, uint32_t* mid) {
    constexpr int kWords = kStrip / (kWide ? 4 : 2);   // a strip between the passes
    const Plan& plan = block.plan;
    const Picture& picture = block.picture;
    const ColumnTile& columns = block.columns;
    const int32_t* table = reinterpret_cast<const int32_t*>(picture.plan);

    int index = 0, place = static_cast<int>(threadIdx.x);
    while (index < plan.planes && place >= columns.plane[index].count) place -= columns.plane[index++].count;
    const bool active = index < plan.planes;
    if (!active) index = place = 0;
    const RowPlan& plane = plan.plane[index];
    const int first_byte = (columns.plane[index].first + place) * kStrip;
    Strip<kWide> strip;
    strip.pointer = picture.plane[index] + first_byte;
    strip.pitch = picture.pitch[index];
    strip.bytes = plane.row_bytes - first_byte;
    strip.whole = strip.bytes >= kStrip &&
                  ((reinterpret_cast<uint64_t>(strip.pointer) | static_cast<uint64_t>(strip.pitch)) & 15) == 0;
    strip.rows = plane.rows;
    strip.mask = plan.mask;
    uint32_t* slot = mid + columns.plane[index].slot + place * kWords;
    const bool rolling = active && plane.rolling;

    uint32_t sums[kStrip] = {};   // of the next output row
    Rows last{}, next{};          // where rolling: pair - 1, pair
    int pair = 0;
    if (rolling) {
        pair = __ldg(table + plane.begin + block.tile.begin) >> 1;
        next = strip.pair(2 * pair);
    }

    for (int y = block.tile.begin; y < block.tile.end; y += kMidRows) {
        for (int row = 0; active && row < kMidRows && y + row < block.tile.end; ++row) {
            const int o = y + row;
            if (rolling) {
                uint32_t after[kStrip] = {};   // of the row after that
                const int stop = __ldg(table + plane.last + o);
                const int end = __ldg(table + plane.last + block.tile.end - 1);
                const int first = __ldg(table + plane.begin + o) >> 1;
                const int first_after = o + 1 < plan.height ? __ldg(table + plane.begin + o + 1) >> 1 : strip.rows;
                const int32_t* weights = table + plane.weights;
                const int now = o * plane.pairs - first;
                const int then = (o + 1) * plane.pairs - first_after;
                if (pair < first) {   // shrunk so far that rows between have weights of zero
                    pair = first;
                    next = strip.pair(2 * pair);
                }
                // The pair that the last output row ended with may be the first of the one after this.
                if (pair > first_after) add_rows(after, last, static_cast<uint32_t>(__ldg(weights + then + pair - 1)));
                for (; pair <= stop; ++pair) {
                    last = strip.samples(next);
                    if (pair < end) next = strip.pair(2 * pair + 2);
                    const uint32_t weight = static_cast<uint32_t>(__ldg(weights + now + pair));
                    const uint32_t weight_after =
                        pair >= first_after ? static_cast<uint32_t>(__ldg(weights + then + pair)) : 0;
                    add_rows(sums, last, weight);
                    add_rows(after, last, weight_after);
                }
                emit<kWide>(slot + row * kMidPitch, sums, plan, plane.layout);
#pragma unroll
                for (int i = 0; i < kStrip; ++i) sums[i] = after[i];
            } else {
                const int first = __ldg(table + plane.begin + o);
                for (int k = 0; k < plane.pairs; ++k) {
                    const uint32_t weight = static_cast<uint32_t>(__ldg(table + plane.weights + o * plane.pairs + k));
                    if (weight) add_rows(sums, strip.samples(strip.pair(first + 2 * k)), weight);
                }
                emit<kWide>(slot + row * kMidPitch, sums, plan, plane.layout);
#pragma unroll
                for (int i = 0; i < kStrip; ++i) sums[i] = 0;
            }
        }
        __syncthreads();
        for (int x = columns.begin + static_cast<int>(threadIdx.x); x < columns.end; x += static_cast<int>(blockDim.x)) {
            uint32_t values[3][kMidRows / 2];
#pragma unroll
            for (int c = 0; c < 3; ++c) {
                if (c < plan.channels) {
                    const int p = plan.channel[c].plane;
                    const int base = columns.plane[p].slot - columns.plane[p].first * kWords;
                    horizontal(values[c], mid, plan, table, plan.channel[c], base, x);
                } else {   // gray: coefficients of 0 on itself
#pragma unroll
                    for (int row = 0; row < kMidRows / 2; ++row) values[c][row] = values[0][row];
                }
            }
            int64_t at = picture.origin + int64_t{x} * picture.column + int64_t{y} * picture.row;
#pragma unroll
            for (int row = 0; row < kMidRows; ++row, at += picture.row) {
                if (y + row >= block.tile.end) break;
                const int shift = row % 2 * 16;
                store(picture, plan, at, values[0][row / 2] >> shift & 0xffff, values[1][row / 2] >> shift & 0xffff,
                      values[2][row / 2] >> shift & 0xffff);
            }
        }
        __syncthreads();
    }
}

// A column of so many samples that a block cannot hold their strips: its threads share the samples of one output.
__device__ __forceinline__ void resize_column(const Block& block, uint32_t* sums) {
    const Plan& plan = block.plan;
    const Picture& picture = block.picture;
    const Tile& tile = block.tile;
    const int32_t* table = reinterpret_cast<const int32_t*>(picture.plan);
    const int x = tile.columns;
    for (int y = tile.begin; y < tile.end; ++y) {
        if (threadIdx.x < 3) sums[threadIdx.x] = 0;
        __syncthreads();
        for (int c = 0; c < plan.channels; ++c) {
            const ChannelPlan& channel = plan.channel[c];
            const RowPlan& plane = plan.plane[channel.plane];
            const int first_row = __ldg(table + plane.begin + y);
            const int64_t first = 2 * int64_t{__ldg(table + channel.begin + x)};
            uint32_t sum = 0;
            for (int i = static_cast<int>(threadIdx.x); i < 2 * channel.pairs; i += static_cast<int>(blockDim.x)) {
                const uint32_t both =
                    static_cast<uint32_t>(__ldg(table + channel.weights + int64_t{i / 2} * plan.width + x));
                const uint32_t weight = i % 2 ? both >> 16 : both & 0xffff;
                if (weight == 0) continue;   // there may be no such sample
                const int64_t word = channel.offset + (first + i) * channel.step;
                uint32_t column = 0;
                for (int k = 0; k < 2 * plane.pairs; ++k) {
                    const uint32_t two =
                        static_cast<uint32_t>(__ldg(table + plane.weights + int64_t{y} * plane.pairs + k / 2));
                    const uint32_t row_weight = k % 2 ? two >> 16 : two & 0xffff;
                    if (row_weight == 0) continue;
                    const uint8_t* from = picture.plane[channel.plane] + int64_t{first_row + k} * picture.pitch[channel.plane];
                    uint32_t code = 0;
                    if (plan.wide) {
                        code = __ldg(from + 2 * word) | uint32_t{__ldg(from + 2 * word + 1)} << 8;
                    } else {
                        code = __ldg(from + word);
                    }
                    column += row_weight * static_cast<uint32_t>(sample_code(code, plan.shift, plan.depth));
                }
                sum += weight * static_cast<uint32_t>(vertical_round(static_cast<int32_t>(column), plan.depth));
            }
            atomicAdd(sums + c, sum);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            const int32_t luma = horizontal_round(static_cast<int32_t>(sums[0]));
            const bool gray = plan.channels == 1;
            const int32_t u = gray ? luma : horizontal_round(static_cast<int32_t>(sums[1]));
            const int32_t v = gray ? luma : horizontal_round(static_cast<int32_t>(sums[2]));
            store(picture, plan, picture.origin + int64_t{y} * picture.row + int64_t{x} * picture.column, luma, u, v);
        }
        __syncthreads();
    }
}

template <typename T>
__device__ __forceinline__ void fetch_words(T& to, const T& from) {
    const uint32_t* source = reinterpret_cast<const uint32_t*>(&from);
    uint32_t* target = reinterpret_cast<uint32_t*>(&to);
    for (unsigned i = threadIdx.x; i < sizeof(T) / 4; i += blockDim.x) target[i] = __ldg(source + i);
}

__device__ __forceinline__ void fetch(Block& block, const Tile* tiles, const Picture* pictures) {
    const Tile& tile = tiles[blockIdx.x];
    const Picture& picture = pictures[tile.picture];
    const Plan& plan = *picture.plan;
    fetch_words(block.tile, tile);
    fetch_words(block.picture, picture);
    fetch_words(block.plan, plan);
    if (plan.apart) return;
    const int32_t* table = reinterpret_cast<const int32_t*>(&plan);
    fetch_words(block.columns, reinterpret_cast<const ColumnTile*>(table + plan.tiles)[tile.columns]);
}

}  // namespace gpupipe

extern "C" __global__ void __launch_bounds__(gpupipe::kThreads, gpupipe::kBlocks)
    resize_frames(const gpupipe::Tile* __restrict__ tiles, const gpupipe::Picture* __restrict__ pictures) {
    __shared__ uint4 mid[gpupipe::kMidRows * gpupipe::kMidPitch / 4];
    __shared__ gpupipe::Block block;
    gpupipe::fetch(block, tiles, pictures);
    __syncthreads();
    uint32_t* words = reinterpret_cast<uint32_t*>(mid);
    if (block.plan.apart)
        gpupipe::resize_column(block, words);
    else if (block.plan.wide)
        gpupipe::resize_tile<true>(block, words);
    else
        gpupipe::resize_tile<false>(block, words);
}
