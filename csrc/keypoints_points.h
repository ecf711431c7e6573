// What becomes of the networks' raw outputs: the best detection, and points moved to where a heatmap is sure of them.
// The definition is gpupipe/ops/keypoints/reference.py, to the bit; sums run term after term, in float.
// Owner: all memory is the caller's. Thread rule: no state, no GIL.
#pragma once

#include <cstdint>

namespace gpupipe {

struct Detections {
    const float* boxes;    // rows of `columns`: centre, sides, keypoints; pixels of the input, from the anchor
    const float* scores;   // logits
    const float* anchors;  // x and y, shares of the input
    int64_t count;
    int64_t columns;       // even, at least 4
    float size;            // pixels of the input
    float score_bound, confidence, overlap;
};

// Writes columns - 4 floats, the weighted keypoints of the best; false, and nothing is written, if there is none.
bool best_detection(const Detections& detections, float* keypoints);

struct Heatmap {
    const float* logits;  // [height][width][points]
    int64_t height, width, points;
    int64_t kernel;       // odd
    float confidence;
};

// points: x, y, z each, shares of the input; changed in place.
void refine_points(const Heatmap& heatmap, float* points);

}  // namespace gpupipe
