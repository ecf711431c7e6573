// A rotated square cut out of an image for a network: the network's input is written directly, no picture in between.
// The definition is gpupipe/ops/keypoints/reference.py, to the bit: coordinates in double and rounded to 1/32 pixel,
// samples in integers, one table from codes to floats. Compiled with -ffp-contract=off.
// Owner: all memory is the caller's. Thread rule: no state, no GIL.
#pragma once

#include <cstdint>

namespace gpupipe {

struct RgbImage {
    const uint8_t* data;    // rows of 3 * width bytes, one behind the other
    int64_t height, width;  // at least 1
};

struct Region {
    float x, y, width, height, rotation;  // centre and sides in pixels, radians
};

// out: size * size * 3 floats. zeros: outside the image is code 0, else the nearest pixel. codes: 256 floats.
void crop_region(const RgbImage& image, const Region& region, int size, bool zeros, const float* codes, float* out);

}  // namespace gpupipe
