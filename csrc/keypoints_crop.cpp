#include "keypoints_crop.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gpupipe {
namespace {

constexpr double kPi = 3.14159265358979323846;
constexpr int kGridBits = 5;
constexpr int kGrid = 1 << kGridBits;
constexpr int kUnknowns = 8;

struct Corner {
    float x, y;
};

// Lower left, upper left, upper right, lower right of an upright region.
void corners_of(const Region& region, Corner* corners) {
    const float degrees = static_cast<float>(static_cast<double>(region.rotation * 180.0f) / kPi);
    const double turned = static_cast<double>(degrees) * kPi / 180;
    const float half_cos = static_cast<float>(std::cos(turned)) * 0.5f;
    const float half_sin = static_cast<float>(std::sin(turned)) * 0.5f;
    const auto [x, y, width, height, rotation] = region;
    corners[0] = {x - half_sin * height - half_cos * width, y + half_cos * height - half_sin * width};
    corners[1] = {x + half_sin * height - half_cos * width, y - half_cos * height - half_sin * width};
    corners[2] = {2 * x - corners[0].x, 2 * y - corners[0].y};
    corners[3] = {2 * x - corners[1].x, 2 * y - corners[1].y};
}

// Gaussian elimination with the largest pivot, the first of equals, in the order of OpenCV's LU; b becomes the solution.
void solve(double (*a)[kUnknowns], double* b) {
    for (int i = 0; i < kUnknowns; ++i) {
        int pivot = i;
        for (int row = i + 1; row < kUnknowns; ++row) {
            if (std::abs(a[row][i]) > std::abs(a[pivot][i])) pivot = row;
        }
        if (pivot != i) {
            std::swap_ranges(a[i], a[i] + kUnknowns, a[pivot]);
            std::swap(b[i], b[pivot]);
        }
        const double scale = -1 / a[i][i];
        for (int j = i + 1; j < kUnknowns; ++j) {
            const double alpha = a[j][i] * scale;
            for (int k = i + 1; k < kUnknowns; ++k) a[j][k] += alpha * a[i][k];
            b[j] += alpha * b[i];
        }
    }
    for (int i = kUnknowns - 1; i >= 0; --i) {
        double total = b[i];
        for (int k = i + 1; k < kUnknowns; ++k) total -= a[i][k] * b[k];
        b[i] = total / a[i][i];
    }
}

// The 3 x 3 matrix, row after row, from pixels of the crop to pixels of the image.
void matrix_to_image(const Region& region, int size, double* inverse) {
    Corner corners[4];
    corners_of(region, corners);
    const float side = static_cast<float>(size);
    const float targets[2][4] = {{0, 0, side, side}, {side, 0, 0, side}};
    double left[kUnknowns][kUnknowns] = {};
    double right[kUnknowns];
    for (int axis = 0; axis < 2; ++axis) {
        for (int corner = 0; corner < 4; ++corner) {
            const auto [x, y] = corners[corner];
            const float to = targets[axis][corner];
            double* row = left[4 * axis + corner];
            row[3 * axis] = x;
            row[3 * axis + 1] = y;
            row[3 * axis + 2] = 1;
            row[6] = -x * to;
            row[7] = -y * to;
            right[4 * axis + corner] = to;
        }
    }
    solve(left, right);
    const auto [a, b, c, d, e, f, g, h] = right;
    const double i = 1;
    const double scale = 1 / (a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g));
    const double found[9] = {
        (e * i - f * h) * scale, (c * h - b * i) * scale, (b * f - c * e) * scale,
        (f * g - d * i) * scale, (a * i - c * g) * scale, (c * d - a * f) * scale,
        (d * h - e * g) * scale, (b * g - a * h) * scale, (a * e - b * d) * scale,
    };
    std::copy(found, found + 9, inverse);
}

// To the nearest integer, ties to even, held inside 32 bits; what is not a number becomes the lowest.
inline int32_t to_grid(double value) {
    value = value > -2147483648.0 ? value : -2147483648.0;
    value = value < 2147483647.0 ? value : 2147483647.0;
    const double shifted = value + 6755399441055744.0;  // 1.5 * 2^52: the sum's last 32 bits are the integer
    int64_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    return static_cast<int32_t>(bits);
}

// The three codes of a pixel in one word, 21 bits apart: all are weighted by one multiplication.
constexpr int kLane = 21;

inline uint64_t lanes(const uint8_t* pixel) {
    return pixel[0] | static_cast<uint64_t>(pixel[1]) << kLane | static_cast<uint64_t>(pixel[2]) << 2 * kLane;
}

// One pixel of the crop at (x, y), in 1/32 pixels of the image; inside of it or not.
struct Sampler {
    const RgbImage& image;
    bool zeros;

    uint64_t at(int64_t x, int64_t y) const {
        const int64_t held_x = std::clamp<int64_t>(x, 0, image.width - 1);
        const int64_t held_y = std::clamp<int64_t>(y, 0, image.height - 1);
        if (zeros && (x != held_x || y != held_y)) return 0;
        return lanes(image.data + 3 * (held_y * image.width + held_x));
    }

    void operator()(int32_t x, int32_t y, uint8_t* pixel) const {
        const int64_t left = x >> kGridBits, top = y >> kGridBits;
        if (zeros && (left < -1 || top < -1 || left >= image.width || top >= image.height)) {
            pixel[0] = pixel[1] = pixel[2] = 0;
            return;
        }
        const uint64_t right = x & (kGrid - 1), lower = y & (kGrid - 1);
        const uint64_t up = at(left, top) * (kGrid - right) + at(left + 1, top) * right;
        const uint64_t down = at(left, top + 1) * (kGrid - right) + at(left + 1, top + 1) * right;
        constexpr uint64_t half = uint64_t{1} << (2 * kGridBits - 1);
        uint64_t mean = up * (kGrid - lower) + down * lower + (half | half << kLane | half << 2 * kLane);
        mean >>= 2 * kGridBits;
        pixel[0] = static_cast<uint8_t>(mean);
        pixel[1] = static_cast<uint8_t>(mean >> kLane);
        pixel[2] = static_cast<uint8_t>(mean >> 2 * kLane);
    }
};

// Coordinates of one row of the crop, in 1/32 pixels of the image; m is the matrix to the image.
#define GRID_ROW                                                                         \
    const double x0 = m[1] * row + m[2], y0 = m[4] * row + m[5], w0 = m[7] * row + m[8]; \
    for (int column = 0; column < size; ++column) {                                      \
        const double w = m[6] * column + w0;                                             \
        const double scale = w != 0 ? kGrid / w : 0;                                     \
        xs[column] = to_grid((m[0] * column + x0) * scale);                              \
        ys[column] = to_grid((m[3] * column + y0) * scale);                              \
    }

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
