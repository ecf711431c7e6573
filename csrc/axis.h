// The filter weights of one axis: points 2 and 3 of the definition in plane.h, on the host, once per plan.
// Owner: the caller. An Axis is immutable once built and may be shared by threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "plane.h"

namespace gpupipe {

// siting: -1 on the first luma sample (left, top), 0 in the middle, +1 on the last (bottom).
struct AxisSpec {
    int64_t begin, end;   // crop, luma samples
    int64_t outputs;
    int log2_subsampling;
    int siting;

    int64_t first_sample() const { return begin >> log2_subsampling; }
    int64_t end_sample() const { return (end + (int64_t{1} << log2_subsampling) - 1) >> log2_subsampling; }
};

// Output o is the sum over t < count[o] of weights[o * taps + t] * sample[start[o] + t]; weights after count[o] are 0.
struct Axis {
    std::vector<int32_t> start, count;
    std::vector<int16_t> weights;
    int taps = 0;

    const int16_t* at(int64_t output) const { return weights.data() + output * taps; }
};

namespace detail {

inline int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

struct Taps {
    int64_t first;
    std::vector<int32_t> weights;
};

inline Taps exact_taps(const AxisSpec& spec, int64_t output) {
    const int64_t S = int64_t{1} << spec.log2_subsampling, n = spec.outputs, L = spec.end - spec.begin;
    // Everything times 2 n S, the common denominator. With sizes <= 2^16 no term exceeds 2^36.
    const int64_t unit = n * S;
    const int64_t centre = 2 * n * spec.begin + (2 * output + 1) * L - n * spec.siting * (S - 1);
    const int64_t support = 2 * std::max(unit, L);
    const int64_t low = std::max(spec.first_sample(), floor_div(centre - support - unit, 2 * unit) + 1);
    const int64_t high = std::min(spec.end_sample() - 1, -floor_div(-(centre + support - unit), 2 * unit) - 1);
    if (high < low) throw std::logic_error("a filter without samples");

    const size_t taps = static_cast<size_t>(high - low + 1);
    std::vector<int64_t> share(taps), remainder(taps);
    int64_t total = 0;
    for (size_t t = 0; t < taps; ++t) {
        const int64_t distance = (2 * (low + static_cast<int64_t>(t)) + 1) * unit - centre;
        share[t] = support - (distance < 0 ? -distance : distance);
        total += share[t];
    }
    Taps result{low, std::vector<int32_t>(taps)};
    int64_t missing = kWeightSum;
    for (size_t t = 0; t < taps; ++t) {
        const int64_t scaled = share[t] * kWeightSum;
        result.weights[t] = static_cast<int32_t>(scaled / total);
        remainder[t] = scaled % total;
        missing -= result.weights[t];
    }
    std::vector<size_t> order(taps);
    for (size_t t = 0; t < taps; ++t) order[t] = t;
    // A total order, so that the chosen set does not depend on how a library sorts. missing < taps.
    std::nth_element(order.begin(), order.begin() + missing, order.end(), [&](size_t p, size_t q) {
        return remainder[p] != remainder[q] ? remainder[p] > remainder[q] : p < q;
    });
    for (int64_t t = 0; t < missing; ++t) ++result.weights[order[static_cast<size_t>(t)]];

    size_t lead = 0, end = taps;   // a weight of zero costs time and changes nothing
    while (result.weights[lead] == 0) ++lead;
    while (result.weights[end - 1] == 0) --end;
    result.weights = std::vector<int32_t>(result.weights.begin() + lead, result.weights.begin() + end);
    result.first += static_cast<int64_t>(lead);
    return result;
}

}  // namespace detail

// Rows: for the vertical pass. `taps` is even, so that weights can be read in pairs; counts are what they are, since
// the row after the last tap may not exist.
inline Axis row_axis(const AxisSpec& spec) {
    Axis axis;
    std::vector<detail::Taps> all;
    for (int64_t o = 0; o < spec.outputs; ++o) {
        all.push_back(detail::exact_taps(spec, o));
        axis.taps = std::max(axis.taps, static_cast<int>((all.back().weights.size() + 1) / 2 * 2));
    }
    axis.weights.assign(all.size() * static_cast<size_t>(axis.taps), 0);
    for (size_t o = 0; o < all.size(); ++o) {
        axis.start.push_back(static_cast<int32_t>(all[o].first));
        axis.count.push_back(static_cast<int32_t>(all[o].weights.size()));
        std::copy(all[o].weights.begin(), all[o].weights.end(), axis.weights.begin() + o * axis.taps);
    }
    return axis;
}

// Columns: for the horizontal pass, which reads pairs of neighbours. Starts are even and relative to the crop's first
// sample, all counts are equal, and the number of outputs is rounded up to `multiple` (outputs of weight zero).
// Weights of zero may lie on samples after the crop's last: the caller keeps `taps` readable ones there.
inline Axis column_axis(const AxisSpec& spec, int64_t multiple) {
    Axis axis;
    std::vector<detail::Taps> all;
    for (int64_t o = 0; o < spec.outputs; ++o) {
        detail::Taps taps = detail::exact_taps(spec, o);
        taps.first -= spec.first_sample();
        if (taps.first % 2) {
            taps.weights.insert(taps.weights.begin(), 0);
            --taps.first;
        }
        axis.taps = std::max(axis.taps, static_cast<int>((taps.weights.size() + 1) / 2 * 2));
        all.push_back(std::move(taps));
    }
    const size_t padded = static_cast<size_t>((spec.outputs + multiple - 1) / multiple * multiple);
    axis.start.assign(padded, 0);
    axis.count.assign(padded, axis.taps);
    axis.weights.assign(padded * static_cast<size_t>(axis.taps), 0);
    for (size_t o = 0; o < all.size(); ++o) {
        axis.start[o] = static_cast<int32_t>(all[o].first);
        std::copy(all[o].weights.begin(), all[o].weights.end(), axis.weights.begin() + o * axis.taps);
    }
    return axis;
}

}  // namespace gpupipe
