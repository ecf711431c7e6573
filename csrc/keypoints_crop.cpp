#include "keypoints_crop.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gpupipe {
namespace {

// Coordinates of one row of the crop.
#define GRID_ROW \
    for (int column = 0; column < size; ++column) grid_point(m, row, column, xs[column], ys[column]);

// One row's scratch: coordinates; for pixels all inside, where their four neighbours begin (else -1) and their weights,
// laid out for one multiplication of pairs each.
struct Scratch {
    explicit Scratch(int size)
        : steps(5 * static_cast<size_t>(size)), codes(3 * static_cast<size_t>(size) + 1), xs(steps.data()),
          ys(xs + size), place(ys + size), across(place + size), lines(across + size) {}
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    std::vector<int32_t> steps;
    std::vector<uint8_t> codes;
    int32_t *xs, *ys, *place, *across, *lines;
};

struct Rows {
    void (*grid)(const double* m, int row, int size, int32_t* xs, int32_t* ys);
    void (*sample)(const Sampler& sampler, int size, Scratch& scratch);
};

void grid_row(const double* m, int row, int size, int32_t* xs, int32_t* ys) { GRID_ROW }

void sample_row(const Sampler& sampler, int size, Scratch& scratch) {
    for (int column = 0; column < size; ++column) {
        sampler(scratch.xs[column], scratch.ys[column], scratch.codes.data() + 3 * column);
    }
}

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx2,avx512f,avx512bw,avx512vl")))

AVX2 void grid_row_avx2(const double* m, int row, int size, int32_t* xs, int32_t* ys) { GRID_ROW }
AVX512 void grid_row_avx512(const double* m, int row, int size, int32_t* xs, int32_t* ys) { GRID_ROW }

// Written so that the compiler makes vectors of it; what lies outside may wrap round, unsigned, and is not used.
// Where the image's edge goes on, whatever is outside is moved onto it; the last pixel is then the second of two.
template <bool kZeros>
AVX2 void weigh_row_avx2(const RgbImage& image, int size, const int32_t* xs, const int32_t* ys, int32_t* place,
                         int32_t* across, int32_t* lines) {
    const int32_t last_left = static_cast<int32_t>(image.width) - 2, last_top = static_cast<int32_t>(image.height) - 2;
    const uint32_t line = static_cast<uint32_t>(3 * image.width);
    // Of two neighbours 8 bytes are read where 6 are meant: not at the very end.
    const uint32_t last = line * static_cast<uint32_t>(image.height - 1) - 8;
    for (int column = 0; column < size; ++column) {
        int32_t x = xs[column], y = ys[column];
        if (!kZeros) {
            x = std::min(std::max(x, 0), kGrid * (last_left + 1));
            y = std::min(std::max(y, 0), kGrid * (last_top + 1));
        }
        int32_t left = x >> kGridBits, top = y >> kGridBits;
        if (!kZeros) {
            left = std::min(left, last_left);
            top = std::min(top, last_top);
        }
        const int32_t right = x - kGrid * left, lower = y - kGrid * top;
        const uint32_t at = static_cast<uint32_t>(top) * line + 3 * static_cast<uint32_t>(left);
        const bool inside = (left >= 0) & (left <= last_left) & (top >= 0) & (top <= last_top) & (at <= last);
        place[column] = inside ? static_cast<int32_t>(at) : -1;
        across[column] = (right << 8 | (kGrid - right)) * 0x10001;
        lines[column] = lower << 16 | (kGrid - lower);
    }
}

// Neighbours are weighted as pairs of bytes, sums at most 32 * 255; lines as pairs of 16 bits.
AVX2 void sample_row_avx2(const Sampler& sampler, int size, Scratch& scratch) {
    const RgbImage& image = sampler.image;
    const int64_t line = 3 * image.width;
    constexpr int64_t longest = INT32_MAX / kGrid;
    if (image.width < 3 || image.height < 2 || image.width > longest || line * image.height > INT32_MAX) {
        return sample_row(sampler, size, scratch);
    }
    const auto weigh = sampler.zeros ? weigh_row_avx2<true> : weigh_row_avx2<false>;
    weigh(image, size, scratch.xs, scratch.ys, scratch.place, scratch.across, scratch.lines);
    const __m128i neighbours = _mm_setr_epi8(0, 3, 1, 4, 2, 5, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m128i to_bytes = _mm_setr_epi8(0, 4, 8, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m128i half = _mm_set1_epi32(1 << (2 * kGridBits - 1));
    uint8_t* codes = scratch.codes.data();
    for (int column = 0; column < size; ++column, codes += 3) {
        const int32_t place = scratch.place[column];
        if (place < 0) {
            sampler(scratch.xs[column], scratch.ys[column], codes);
            continue;
        }
        const __m128i upper = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(image.data + place));
        const __m128i under = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(image.data + place + line));
        const __m128i across = _mm_set1_epi32(scratch.across[column]);
        const __m128i up = _mm_maddubs_epi16(_mm_shuffle_epi8(upper, neighbours), across);
        const __m128i down = _mm_maddubs_epi16(_mm_shuffle_epi8(under, neighbours), across);
        const __m128i lines = _mm_set1_epi32(scratch.lines[column]);
        const __m128i sum = _mm_add_epi32(_mm_madd_epi16(_mm_unpacklo_epi16(up, down), lines), half);
        const int pixel = _mm_cvtsi128_si32(_mm_shuffle_epi8(_mm_srli_epi32(sum, 2 * kGridBits), to_bytes));
        std::memcpy(codes, &pixel, 4);  // the fourth byte is the next pixel's, or of the row's end
    }
}
#endif
#undef GRID_ROW

Rows active_rows() {
#if defined(__x86_64__)
    const Kernels* level = &active_kernels();
    if (level == &kAvx512) return {grid_row_avx512, sample_row_avx2};
    if (level == &kAvx2) return {grid_row_avx2, sample_row_avx2};
#endif
    return {grid_row, sample_row};
}

}  // namespace

void crop_region(const RgbImage& image, const Region& region, int size, bool zeros, const float* codes, float* out) {
    const Rows rows = active_rows();
    double matrix[9];
    matrix_to_image(region, size, matrix);
    Scratch scratch(size);
    const Sampler sampler{image, zeros};
    for (int row = 0; row < size; ++row, out += 3 * size) {
        rows.grid(matrix, row, size, scratch.xs, scratch.ys);
        rows.sample(sampler, size, scratch);
        const uint8_t* pixels = scratch.codes.data();
        for (int i = 0; i < 3 * size; ++i) out[i] = codes[pixels[i]];
    }
}

}  // namespace gpupipe
