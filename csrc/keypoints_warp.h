// Where a pixel of a rotated crop lies in its image, and what is there: one source for CPU and GPU, the same to the bit.
//
// The definition is gpupipe/ops/keypoints/reference.py: coordinates in double, rounded to 1/32 pixel, samples in
// integers. No multiplication may be fused with an addition: compiled with -ffp-contract=off, on a card -fmad=false.
// There sine and cosine of a double may be off by its last place, which the rounding to float that follows hides, but
// for one angle in 10^8 or so.
// Owner: the caller, of all memory. Thread rule: no state.
#pragma once

#if defined(__CUDACC_RTC__)   // compiled on the user's machine, without a standard library
using int32_t = int;
using int64_t = long long;
using uint8_t = unsigned char;
using uint64_t = unsigned long long;
#else
#include <cmath>
#include <cstdint>
#endif

#if !defined(GPUPIPE_HD)
#if defined(__CUDACC__)
#define GPUPIPE_HD __host__ __device__ __forceinline__
#else
#define GPUPIPE_HD inline
#endif
#endif

namespace gpupipe {

struct RgbImage {
    const uint8_t* data;    // rows of 3 * width bytes, one behind the other
    int64_t height, width;  // at least 1
};

struct Region {
    float x, y, width, height, rotation;  // centre and sides in pixels, radians
};

constexpr int kGridBits = 5;
constexpr int kGrid = 1 << kGridBits;   // steps a pixel is divided in
constexpr int kUnknowns = 8;

struct Corner {
    float x, y;
};

// Lower left, upper left, upper right, lower right of an upright region.
GPUPIPE_HD void corners_of(const Region& region, Corner* corners) {
    constexpr double pi = 3.14159265358979323846;
    const float degrees = static_cast<float>(static_cast<double>(region.rotation * 180.0f) / pi);
    const double turned = static_cast<double>(degrees) * pi / 180;
    const float half_cos = static_cast<float>(cos(turned)) * 0.5f;
    const float half_sin = static_cast<float>(sin(turned)) * 0.5f;
    const float x = region.x, y = region.y, width = region.width, height = region.height;
    corners[0] = {x - half_sin * height - half_cos * width, y + half_cos * height - half_sin * width};
    corners[1] = {x + half_sin * height - half_cos * width, y - half_cos * height - half_sin * width};
    corners[2] = {2 * x - corners[0].x, 2 * y - corners[0].y};
    corners[3] = {2 * x - corners[1].x, 2 * y - corners[1].y};
}

// Gaussian elimination with the largest pivot, the first of equals, in the order of OpenCV's LU; b becomes the solution.
GPUPIPE_HD void solve(double (*a)[kUnknowns], double* b) {
    for (int i = 0; i < kUnknowns; ++i) {
        int pivot = i;
        for (int row = i + 1; row < kUnknowns; ++row) {
            if (fabs(a[row][i]) > fabs(a[pivot][i])) pivot = row;
        }
        if (pivot != i) {
            for (int column = i; column <= kUnknowns; ++column) {
                double& upper = column < kUnknowns ? a[i][column] : b[i];
                double& lower = column < kUnknowns ? a[pivot][column] : b[pivot];
                const double held = upper;
                upper = lower;
                lower = held;
            }
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

// The 3 x 3 matrix, row after row, from pixels of a crop of size x size to pixels of the image.
GPUPIPE_HD void matrix_to_image(const Region& region, int size, double* inverse) {
    Corner corners[4];
    corners_of(region, corners);
    const float side = static_cast<float>(size);
    const float targets[2][4] = {{0, 0, side, side}, {side, 0, 0, side}};
    double left[kUnknowns][kUnknowns] = {};
    double right[kUnknowns];
    for (int axis = 0; axis < 2; ++axis) {
        for (int corner = 0; corner < 4; ++corner) {
            const float x = corners[corner].x, y = corners[corner].y, to = targets[axis][corner];
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
    const double a = right[0], b = right[1], c = right[2], d = right[3], e = right[4], f = right[5], g = right[6];
    const double h = right[7], i = 1;
    const double scale = 1 / (a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g));
    inverse[0] = (e * i - f * h) * scale;
    inverse[1] = (c * h - b * i) * scale;
    inverse[2] = (b * f - c * e) * scale;
    inverse[3] = (f * g - d * i) * scale;
    inverse[4] = (a * i - c * g) * scale;
    inverse[5] = (c * d - a * f) * scale;
    inverse[6] = (d * h - e * g) * scale;
    inverse[7] = (b * g - a * h) * scale;
    inverse[8] = (a * e - b * d) * scale;
}

// To the nearest integer, ties to even, held inside 32 bits; what is not a number becomes the lowest.
GPUPIPE_HD int32_t to_grid(double value) {
    constexpr double shift = 6755399441055744.0;   // 1.5 * 2^52: where neighbours are 1 apart
    value = value > -2147483648.0 ? value : -2147483648.0;
    value = value < 2147483647.0 ? value : 2147483647.0;
    return static_cast<int32_t>((value + shift) - shift);
}

// Coordinates of a pixel of the crop, in 1/32 pixels of the image; m is the matrix to the image.
GPUPIPE_HD void grid_point(const double* m, int row, int column, int32_t& x, int32_t& y) {
    const double x0 = m[1] * row + m[2], y0 = m[4] * row + m[5], w0 = m[7] * row + m[8];
    const double w = m[6] * column + w0;
    const double scale = w != 0 ? kGrid / w : 0;
    x = to_grid((m[0] * column + x0) * scale);
    y = to_grid((m[3] * column + y0) * scale);
}

// The three codes of a pixel in one word, 21 bits apart: all are weighted by one multiplication.
constexpr int kLane = 21;

GPUPIPE_HD uint64_t lanes(const uint8_t* pixel) {
    return pixel[0] | static_cast<uint64_t>(pixel[1]) << kLane | static_cast<uint64_t>(pixel[2]) << 2 * kLane;
}

// One pixel of the crop at (x, y), in 1/32 pixels of the image; inside of it or not.
struct Sampler {
    const RgbImage& image;
    bool zeros;   // outside is code 0, else the nearest pixel

    GPUPIPE_HD uint64_t at(int64_t x, int64_t y) const {
        const int64_t held_x = x < 0 ? 0 : x < image.width ? x : image.width - 1;
        const int64_t held_y = y < 0 ? 0 : y < image.height ? y : image.height - 1;
        if (zeros && (x != held_x || y != held_y)) return 0;
        return lanes(image.data + 3 * (held_y * image.width + held_x));
    }

    GPUPIPE_HD void operator()(int32_t x, int32_t y, uint8_t* pixel) const {
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

}  // namespace gpupipe
