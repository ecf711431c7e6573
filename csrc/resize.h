// One resize, planned once and run per picture: planes -> RGB in the caller's memory.
// Owner: whoever made the Resize. It is immutable after construction, so any number of threads may run() one.
// run() allocates its scratch itself: proportional to the widths, never to the heights (about 100 KiB at 720p -> 256).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "axis.h"
#include "kernels.h"
#include "plane.h"

namespace gpupipe {

struct Component {
    int plane, offset, step;   // sample i is the word offset + i * step of its plane's row
    bool chroma;               // subsampled and sited
};

// Sizes, crop and outputs are in the decoded orientation; rotation and mirroring are applied on writing.
struct ResizeSpec {
    int64_t height, width;
    int64_t crop_top, crop_left, crop_bottom, crop_right;
    int64_t out_height, out_width;
    int log2_y, log2_x;         // chroma subsampling
    int siting_y, siting_x;     // of chroma: -1, 0, +1, see AxisSpec
    int word_bytes, shift, depth;
    int components;             // 1 or 3
    Component component[3];
    ColourMatrix colour;
    int rotation;               // 0, 90, 180, 270 clockwise, after mirroring
    bool mirrored;
};

struct PlaneView {
    const uint8_t* data;
    int64_t stride, nbytes;
};

class Resize {
public:
    explicit Resize(const ResizeSpec& spec);   // throws std::invalid_argument

    int planes() const { return planes_count_; }   // planes that run() reads
    int64_t out_bytes() const { return 3 * spec_.out_height * spec_.out_width; }

    // Writes out_bytes() bytes. Throws std::invalid_argument where a plane is smaller than the format says; nothing
    // is written then. The caller keeps the planes alive and unchanged meanwhile, and holds no GIL.
    void run(const PlaneView* planes, uint8_t* out) const;

private:
    struct Channel {
        int index;              // 0, 1, 2: Y, U, V or R, G, B
        int offset, step;       // words from the plane's first_word
        int64_t samples;        // inside the crop
        Axis columns;
    };
    struct Plane {
        int index;
        int64_t rows, row_words;        // of the whole picture: what the buffer must hold
        int64_t first_word, words;      // of the crop
        bool direct;                    // one channel of adjacent words
        Axis axis;
        std::vector<Channel> channels;
    };
    struct Scratch;

    void check(const PlaneView* planes) const;
    void vertical(const Plane& plane, const PlaneView& view, int64_t y, int rows, Scratch& scratch) const;

    ResizeSpec spec_;
    std::vector<Plane> planes_;
    int planes_count_ = 0;
    int64_t pitch_ = 0, max_words_ = 0, max_pair_words_ = 0;
};

}  // namespace gpupipe
