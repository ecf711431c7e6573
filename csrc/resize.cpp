#include "resize.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

namespace gpupipe {
namespace {

constexpr int64_t kMaxSide = 65536;   // keeps every rational of axis.h inside int64

void require(bool condition, const char* what) {
    if (!condition) throw std::invalid_argument(what);
}

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

template <typename T>
class Aligned {   // zeroed, so that weights of zero always meet a number
public:
    explicit Aligned(int64_t count) {
        const size_t nbytes = static_cast<size_t>(round_up(count * static_cast<int64_t>(sizeof(T)) + 64, 64));
        data_ = static_cast<T*>(std::aligned_alloc(64, nbytes));
        if (data_ == nullptr) throw std::bad_alloc();
        std::memset(data_, 0, nbytes);
    }
    ~Aligned() { std::free(data_); }
    Aligned(const Aligned&) = delete;
    Aligned& operator=(const Aligned&) = delete;
    T* get() { return data_; }

private:
    T* data_;
};

// Picks one channel's samples out of interleaved words: word w of a row is half w % 2 of pair w / 2.
void select_channel(int16_t* pairs, const int16_t* words, int offset, int step, int64_t samples) {
    for (int64_t i = 0; i < samples; i += 2, pairs += kPair) {
        const int64_t first = offset + i * step, second = i + 1 < samples ? first + step : first;
        uint32_t a[kRows], b[kRows], both[kRows];
        std::memcpy(a, words + first / 2 * kPair, sizeof a);
        std::memcpy(b, words + second / 2 * kPair, sizeof b);
        const int shift_a = first % 2 * 16, shift_b = second % 2 * 16;
        for (int row = 0; row < kRows; ++row) both[row] = (a[row] >> shift_a & 0xffff) | (b[row] >> shift_b) << 16;
        std::memcpy(pairs, both, sizeof both);
    }
}

}  // namespace

struct Resize::Scratch {
    Aligned<int16_t> block, words, pairs, lines;
    Aligned<uint8_t> rgb;

    explicit Scratch(const Resize& resize)
        : block(kRows * kBlock),
          words(resize.max_words_ * kRows),
          pairs(resize.max_pair_words_ * kRows),
          lines(resize.spec_.components * kRows * resize.pitch_),
          rgb(kRows * 3 * resize.pitch_) {}
};

Resize::Resize(const ResizeSpec& spec) : spec_(spec) {
    require(spec.height >= 1 && spec.width >= 1 && spec.height <= kMaxSide && spec.width <= kMaxSide, "source size");
    require(spec.out_height >= 1 && spec.out_width >= 1 && spec.out_height <= kMaxSide && spec.out_width <= kMaxSide,
            "output size");
    require(0 <= spec.crop_top && spec.crop_top < spec.crop_bottom && spec.crop_bottom <= spec.height &&
                0 <= spec.crop_left && spec.crop_left < spec.crop_right && spec.crop_right <= spec.width,
            "crop outside the source");
    require(spec.log2_x >= 0 && spec.log2_x <= 2 && spec.log2_y >= 0 && spec.log2_y <= 2, "subsampling");
    require(std::abs(spec.siting_x) <= 1 && std::abs(spec.siting_y) <= 1, "siting");
    require((spec.word_bytes == 1 && spec.depth == 8 && spec.shift == 0) ||
                (spec.word_bytes == 2 && spec.depth >= 8 && spec.shift >= 0 && spec.depth + spec.shift <= 16),
            "sample format");
    require(spec.components == 1 || spec.components == 3, "components");
    require(spec.rotation == 0 || spec.rotation == 90 || spec.rotation == 180 || spec.rotation == 270, "rotation");
    for (int c = 0; c < 3; ++c) {
        for (int32_t coefficient : spec.colour.c[c]) require(std::abs(coefficient) <= kMaxCoefficient, "coefficient");
        require(std::abs(spec.colour.bias[c]) <= kMaxBias, "bias");
    }

    pitch_ = round_up(spec.out_width, kGroup);
    for (int index = 0; index < spec.components; ++index) {
        const Component& component = spec.component[index];
        require(component.plane >= 0 && component.plane < 4 && component.offset >= 0 && component.step >= 1 &&
                    component.offset < 8 && component.step <= 8,
                "component");
        const int log2_x = component.chroma ? spec.log2_x : 0, log2_y = component.chroma ? spec.log2_y : 0;
        const AxisSpec x{spec.crop_left, spec.crop_right, spec.out_width, log2_x, spec.siting_x};
        const AxisSpec y{spec.crop_top, spec.crop_bottom, spec.out_height, log2_y, spec.siting_y};
        auto found = std::find_if(planes_.begin(), planes_.end(),
                                  [&](const Plane& plane) { return plane.index == component.plane; });
        const int64_t rows = AxisSpec{0, spec.height, 1, log2_y, 0}.end_sample();
        if (found == planes_.end()) {
            planes_.push_back({component.plane, rows, 0, INT64_MAX, 0, false, row_axis(y), {}});
            found = planes_.end() - 1;
            planes_count_ = std::max(planes_count_, component.plane + 1);
        }
        require(found->rows == rows, "components of one plane with different heights");
        const int64_t width = AxisSpec{0, spec.width, 1, log2_x, 0}.end_sample();
        found->row_words = std::max(found->row_words, component.offset + (width - 1) * component.step + 1);
        found->first_word = std::min(found->first_word, component.offset + x.first_sample() * component.step);
        found->words = std::max(found->words, component.offset + (x.end_sample() - 1) * component.step + 1);
        found->channels.push_back(
            {index, component.offset, component.step, x.end_sample() - x.first_sample(), column_axis(x, kGroup)});
    }
    for (Plane& plane : planes_) {
        plane.words -= plane.first_word;
        for (Channel& channel : plane.channels) {
            const int log2_x = spec.component[channel.index].chroma ? spec.log2_x : 0;
            channel.offset += static_cast<int>((spec.crop_left >> log2_x) * channel.step - plane.first_word);
            // Room for a block's padding and for weights of zero after the last sample.
            max_pair_words_ = std::max(max_pair_words_, round_up(channel.samples, kBlock) + channel.columns.taps);
        }
        plane.direct = plane.channels.size() == 1 && plane.channels[0].step == 1 && plane.channels[0].offset == 0;
        if (!plane.direct) max_words_ = std::max(max_words_, round_up(plane.words, kBlock));
    }
}

void Resize::check(const PlaneView* planes) const {
    for (const Plane& plane : planes_) {
        const PlaneView& view = planes[plane.index];
        const int64_t row_bytes = plane.row_words * spec_.word_bytes;
        const std::string where = "plane " + std::to_string(plane.index);
        if (view.stride < row_bytes && plane.rows > 1)
            throw std::invalid_argument(where + " has a stride of " + std::to_string(view.stride) +
                                        " bytes, its rows are " + std::to_string(row_bytes));
        const int64_t needed = plane.rows > 1 ? (plane.rows - 1) * view.stride + row_bytes : row_bytes;
        if (view.nbytes < needed)
            throw std::invalid_argument(where + " holds " + std::to_string(view.nbytes) + " bytes, expected " +
                                        std::to_string(needed) + " (" + std::to_string(plane.rows) + " rows)");
    }
}

// `rows` output rows from y on, as pairs of raw words: in `pairs` if the plane is one channel, else in `words`.
void Resize::vertical(const Plane& plane, const PlaneView& view, int64_t y, int rows, Scratch& scratch) const {
    const Kernels& kernels = active_kernels();
    int16_t* target = plane.direct ? scratch.pairs.get() : scratch.words.get();
    for (int64_t x = 0; x < plane.words; x += kBlock) {
        const int n = static_cast<int>(std::min<int64_t>(kBlock, plane.words - x));
        for (int row = 0; row < rows; ++row) {
            const size_t o = static_cast<size_t>(y + row);
            const uint8_t* source =
                view.data + plane.axis.start[o] * view.stride + (plane.first_word + x) * spec_.word_bytes;
            int16_t* out = scratch.block.get() + row * kBlock;
            if (spec_.word_bytes == 1)
                kernels.vertical8(out, source, view.stride, plane.axis.at(y + row), plane.axis.count[o], n);
            else
                kernels.vertical16(out, source, view.stride, plane.axis.at(y + row), plane.axis.count[o], n,
                                   spec_.shift, spec_.depth);
        }
        kernels.transpose(target + x * kRows, scratch.block.get(), static_cast<int>(round_up(n, kGroup)));
    }
}

void Resize::run(const PlaneView* planes, uint8_t* out) const {
    check(planes);
    const Kernels& kernels = active_kernels();
    Scratch scratch(*this);
    const Placement at = place(spec_.out_height, spec_.out_width, spec_.rotation, spec_.mirrored);
    const int width = static_cast<int>(spec_.out_width);
    for (int64_t y = 0; y < spec_.out_height; y += kRows) {
        const int rows = static_cast<int>(std::min<int64_t>(kRows, spec_.out_height - y));
        for (const Plane& plane : planes_) {
            vertical(plane, planes[plane.index], y, rows, scratch);
            for (const Channel& channel : plane.channels) {
                if (!plane.direct)
                    select_channel(scratch.pairs.get(), scratch.words.get(), channel.offset, channel.step,
                                   channel.samples);
                kernels.horizontal(scratch.lines.get() + channel.index * kRows * pitch_, pitch_, scratch.pairs.get(),
                                   channel.columns.start.data(), channel.columns.weights.data(), channel.columns.taps,
                                   static_cast<int>(pitch_));
            }
        }
        for (int row = 0; row < rows; ++row) {
            const int16_t* luma = scratch.lines.get() + row * pitch_;
            const int64_t next = spec_.components == 3 ? kRows * pitch_ : 0;   // gray: coefficients of 0 on itself
            uint8_t* line =
                at.column == 3 ? out + at.origin + (y + row) * at.row : scratch.rgb.get() + row * 3 * pitch_;
            kernels.colour(line, luma, luma + next, luma + 2 * next, width, spec_.colour);
        }
        if (at.column == 3) continue;
        for (int x = 0; x < width; ++x) {   // turned or mirrored: neighbours of a column are neighbours in memory
            for (int row = 0; row < rows; ++row)
                std::memcpy(out + at.origin + (y + row) * at.row + x * at.column,
                            scratch.rgb.get() + (row * pitch_ + x) * 3, 3);
        }
    }
}

}  // namespace gpupipe
