// The portable kernels, written so that a compiler vectorises them for its baseline, and the choice among all.
#include "kernels.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <stdexcept>

namespace gpupipe {
namespace {

template <typename Word, typename Code>
void vertical(int16_t* out, const uint8_t* rows, ptrdiff_t stride, const int16_t* weights, int taps, int n, int depth,
              Code code) {
    constexpr int kStep = 64;   // the sums of so many columns stay in registers or L1
    for (int x = 0; x < n; x += kStep) {
        const int step = std::min(kStep, n - x);
        int32_t sums[kStep] = {};
        for (int t = 0; t < taps; ++t) {
            Word words[kStep];   // copied, since rows of 16-bit words need not be aligned
            std::memcpy(words, rows + t * stride + x * static_cast<ptrdiff_t>(sizeof(Word)), step * sizeof(Word));
            const int32_t weight = weights[t];
            for (int i = 0; i < step; ++i) sums[i] += weight * code(words[i]);
        }
        for (int i = 0; i < step; ++i) out[x + i] = static_cast<int16_t>(vertical_round(sums[i], depth));
    }
}

void vertical8(int16_t* out, const uint8_t* rows, ptrdiff_t stride, const int16_t* weights, int taps, int n) {
    vertical<uint8_t>(out, rows, stride, weights, taps, n, 8, [](uint8_t word) { return static_cast<int32_t>(word); });
}

void vertical16(int16_t* out, const uint8_t* rows, ptrdiff_t stride, const int16_t* weights, int taps, int n, int shift,
                int depth) {
    vertical<uint16_t>(out, rows, stride, weights, taps, n, depth,
                       [=](uint16_t word) { return sample_code(word, shift, depth); });
}

void transpose(int16_t* pairs, const int16_t* rows, int n) {
    for (int x = 0; x < n; x += 2, pairs += kPair)
        for (int row = 0; row < kRows; ++row) std::memcpy(pairs + 2 * row, rows + row * kBlock + x, 4);
}

void horizontal(int16_t* lines, ptrdiff_t pitch, const int16_t* pairs, const int32_t* start, const int16_t* weights,
                int taps, int outputs) {
    for (int o = 0; o < outputs; ++o, weights += taps) {
        int32_t sums[kRows] = {};
        const int16_t* pair = pairs + start[o] * static_cast<ptrdiff_t>(kRows);
        for (int t = 0; t < taps; t += 2, pair += kPair)
            for (int row = 0; row < kRows; ++row)
                sums[row] += weights[t] * pair[2 * row] + weights[t + 1] * pair[2 * row + 1];
        for (int row = 0; row < kRows; ++row)
            lines[row * pitch + o] = static_cast<int16_t>(horizontal_round(sums[row]));
    }
}

void colour(uint8_t* rgb, const int16_t* y, const int16_t* u, const int16_t* v, int n, const ColourMatrix& m) {
    for (int x = 0; x < n; ++x)
        for (int c = 0; c < 3; ++c) rgb[3 * x + c] = colour_channel(m.c[c], m.bias[c], y[x], u[x], v[x]);
}

std::vector<const Kernels*> available() {
    std::vector<const Kernels*> levels{&kGeneric};
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) levels.push_back(&kAvx2);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        levels.push_back(&kAvx512);
#endif
#if defined(__aarch64__)
    levels.push_back(&kNeon);   // part of the architecture
#endif
    return levels;
}

std::atomic<const Kernels*>& chosen() {
    static std::atomic<const Kernels*> kernels{available().back()};
    return kernels;
}

}  // namespace

const Kernels kGeneric{"scalar", vertical8, vertical16, transpose, horizontal, colour};

const Kernels& active_kernels() { return *chosen().load(std::memory_order_relaxed); }

std::vector<std::string> kernel_levels() {
    std::vector<std::string> names;
    for (const Kernels* level : available()) names.emplace_back(level->name);
    return names;
}

void set_kernels(const std::string& level) {
    for (const Kernels* kernels : available()) {
        if (level == kernels->name || (level.empty() && kernels == available().back())) {
            chosen().store(kernels, std::memory_order_relaxed);
            return;
        }
    }
    throw std::invalid_argument("no SIMD level \"" + level + "\" on this machine");
}

}  // namespace gpupipe
