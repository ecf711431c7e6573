// The inner loops of the resize, once per instruction set. All give the same bytes (plane.h is the definition).
// Thread rule: the functions keep no state; set_kernels() is meant for tests and takes effect for later resizes.
//
// The layout between the passes is made for the horizontal one: samples in pairs of neighbouring columns, kRows
// output rows side by side, [pair][row][2] of int16. One 256-bit load is then one pair of columns of eight rows, and
// one multiply-add instruction does 16 products without any shuffling.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "plane.h"

namespace gpupipe {

constexpr int kRows = 8;          // output rows worked at once
constexpr int kPair = 2 * kRows;  // int16 of one pair of columns
constexpr int kGroup = 16;        // line buffers and outputs are padded to this many pixels
constexpr int kBlock = 512;       // units (words of a plane's row) of the vertical pass at once: stays in L1

struct Kernels {
    const char* name;

    // out[x] = vertical_round(sum over t of weights[t] * code(row t, x)), x < n; reads nothing but the rows' n words.
    void (*vertical8)(int16_t* out, const uint8_t* rows, ptrdiff_t stride, const int16_t* weights, int taps, int n);
    void (*vertical16)(int16_t* out, const uint8_t* rows, ptrdiff_t stride, const int16_t* weights, int taps, int n,
                       int shift, int depth);

    // kRows rows, kBlock apart, to pairs; n is a multiple of kGroup.
    void (*transpose)(int16_t* pairs, const int16_t* rows, int n);

    // lines[row * pitch + o] = horizontal_round(...); outputs is a multiple of kGroup, starts are even.
    void (*horizontal)(int16_t* lines, ptrdiff_t pitch, const int16_t* pairs, const int32_t* start,
                       const int16_t* weights, int taps, int outputs);

    // n packed RGB pixels of one row; y, u and v are readable to a multiple of kGroup; writes 3 n bytes.
    void (*colour)(uint8_t* rgb, const int16_t* y, const int16_t* u, const int16_t* v, int n, const ColourMatrix& m);
};

const Kernels& active_kernels();
std::vector<std::string> kernel_levels();    // what this machine runs, slowest first
void set_kernels(const std::string& level);  // throws std::invalid_argument; "" chooses the fastest

extern const Kernels kGeneric;
#if defined(__x86_64__)
extern const Kernels kAvx2;
extern const Kernels kAvx512;
#endif
#if defined(__aarch64__)
extern const Kernels kNeon;
#endif

}  // namespace gpupipe
