// The pixel arithmetic, version 1: from a decoder's planes to 8-bit R'G'B', in integers.
//
// One source for CPU and GPU. Everything here is plain functions on integers: no floating point, no libm, no
// STL, no state, so that both give the same bytes. Changing any result here changes datasets: raise
// kArithmeticVersion (it is part of every plan's hash) and the golden test with it.
//
// DEFINITION
// 1. Samples. code = (word >> shift) & (2^depth - 1), 8 <= depth <= 16; a word is a byte or 16 bits little endian.
// 2. Geometry, per plane and axis. A crop [a, b) of length L in luma samples becomes n outputs. Sample i covers
//    [i, i+1), centre i + 1/2. Output o is centred at luma coordinate X = a + (o + 1/2) L / n. In a plane that
//    is subsampled by S (1, 2 or 4) its centre is u = X / S + k / (2 S), where k = S - 1 if sample j sits on luma
//    sample S j (left, top), 0 if it sits in the middle of its S luma samples (centre), 1 - S if it sits on the last
//    of them (bottom).
// 3. Filter: triangle, widened by the scale when shrinking. scale = L / (n S), support = max(1, scale); the weight
//    of sample i is max(0, 1 - |i + 1/2 - u| / support), for floor(a / S) <= i < ceil(b / S); samples
//    outside are dropped and the rest renormalised. Weights are exact rationals (int64), scaled to 16384 and
//    rounded down; what is missing to a sum of exactly 16384 is given, one each, to the largest
//    remainders, the lower index first where they are equal. (axis.h)
// 4. Passes: vertical, to 15 bits: t = min(32767, (sum w code + 2^(depth-2)) >> (depth-1)), so that
//    t = code * 2^(15 - depth); then horizontal, 15 bits again: t = (sum w t + 8192) >> 14.
// 5. Colour, from 15 bits: each of R, G, B is clip8((c0 Y + c1 (U - 16384) + c2 (V - 16384) + bias) >> 20). The
//    coefficients are the exact rationals of matrix, range and depth times 8192, rounded half up (transform.py);
//    bias = 2^19 - c0 * black + 16384 * (c1 + c2 where U and V carry colours with a black, not differences).
//
// NO OVERFLOW, any tap count, since weights are >= 0 and always sum to 16384 (so each partial sum is bounded too):
//    vertical    <= 16384 * (2^16 - 1) + 2^14 < 2^31 for 16 bit (12 bit at 8K: 16384 * 4095 < 2^26);
//    horizontal  <= 16384 * 32767 + 8192 < 2^30;   colour: see the static_asserts below.
#pragma once

#if defined(__CUDACC_RTC__)   // compiled on the user's machine, without a standard library
using int16_t = short;
using int32_t = int;
using int64_t = long long;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using uint64_t = unsigned long long;
#define INT16_MAX 32767
#define INT32_MAX 2147483647
#else
#include <cstdint>
#endif

#if defined(__CUDACC__)
#define GPUPIPE_HD __host__ __device__ __forceinline__
#else
#define GPUPIPE_HD inline
#endif

namespace gpupipe {

constexpr int kArithmeticVersion = 1;
constexpr int kWeightBits = 14;
constexpr int32_t kWeightSum = 1 << kWeightBits;
constexpr int kMidBits = 15;                            // width of both intermediates
constexpr int32_t kMidMax = (1 << kMidBits) - 1;
constexpr int32_t kMidNeutral = 1 << (kMidBits - 1);    // chroma zero, at every depth and range
constexpr int kColourShift = 20;                        // 13 fraction bits of coefficients + 15 - 8
constexpr int32_t kMaxCoefficient = 18000;              // BT.2020 limited, Cb to B: 17548
constexpr int32_t kMaxBias = 350000000;

static_assert(int64_t{kWeightSum} * 65535 + (1 << 14) <= INT32_MAX, "vertical, 16 bit");
static_assert(int64_t{kWeightSum} * kMidMax + (1 << 13) <= INT32_MAX, "horizontal");
static_assert(int64_t{kMaxCoefficient} * (kMidMax + 2 * kMidNeutral) + kMaxBias <= INT32_MAX, "colour");
static_assert(kWeightSum <= INT16_MAX && kMaxCoefficient <= INT16_MAX, "16-bit multipliers");

struct ColourMatrix {
    int32_t c[3][3];   // rows R, G, B; columns Y, U, V
    int32_t bias[3];
};

GPUPIPE_HD int32_t sample_code(uint32_t word, int shift, int depth) {
    return static_cast<int32_t>((word >> shift) & ((1u << depth) - 1));
}

GPUPIPE_HD int32_t vertical_round(int32_t sum, int depth) {
    const int32_t t = (sum + (1 << (depth - 2))) >> (depth - 1);
    return t < kMidMax ? t : kMidMax;   // only 16-bit white rounds up to 32768
}

GPUPIPE_HD int32_t horizontal_round(int32_t sum) {
    return (sum + (1 << (kWeightBits - 1))) >> kWeightBits;
}

GPUPIPE_HD uint8_t colour_channel(const int32_t c[3], int32_t bias, int32_t y, int32_t u, int32_t v) {
    const int32_t sum = c[0] * y + c[1] * (u - kMidNeutral) + c[2] * (v - kMidNeutral) + bias;
    const int32_t level = sum >> kColourShift;   // arithmetic shift: floor, on every compiler gpupipe is built with
    return static_cast<uint8_t>(level < 0 ? 0 : level > 255 ? 255 : level);
}

// Where the upright picture lies in the output: pixel (y, x) of the source orientation is written at
// origin + y * row + x * column, in bytes. The source is mirrored first, then turned clockwise.
struct Placement {
    int64_t origin, row, column;
};

GPUPIPE_HD Placement place(int64_t height, int64_t width, int rotation, bool mirrored) {
    const int64_t pixel = 3;
    const int64_t pitch = pixel * (rotation == 90 || rotation == 270 ? height : width);
    Placement at{0, pitch, pixel};
    if (rotation == 90) at = {pixel * (height - 1), -pixel, pitch};
    if (rotation == 180) at = {pitch * (height - 1) + pixel * (width - 1), -pitch, -pixel};
    if (rotation == 270) at = {pitch * (width - 1), pixel, -pitch};
    if (mirrored) at = {at.origin + at.column * (width - 1), at.row, -at.column};
    return at;
}

}  // namespace gpupipe
