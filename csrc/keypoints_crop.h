// A rotated square cut out of an image for a network: the network's input is written directly, no picture in between.
// Arithmetic and definition: keypoints_warp.h; then one table from codes to floats. Compiled with -ffp-contract=off.
// Owner: all memory is the caller's. Thread rule: no state, no GIL.
#pragma once

#include "keypoints_warp.h"

namespace gpupipe {

// out: size * size * 3 floats. zeros: outside the image is code 0, else the nearest pixel. codes: 256 floats.
void crop_region(const RgbImage& image, const Region& region, int size, bool zeros, const float* codes, float* out);

}  // namespace gpupipe
