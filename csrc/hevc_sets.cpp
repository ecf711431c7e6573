#include "hevc_sets.h"

#include <algorithm>
#include <functional>

namespace gpupipe::hevc {
namespace {

constexpr uint64_t kMostSets = 64;      // num_short_term_ref_pic_sets (7.4.3.2.1)
constexpr uint64_t kMostPictures = 16;  // in a set that is not predicted

// scaling_list_data() (7.3.4).
void skip_scaling(Bits& bits) {
    for (int size = 0; size < 4; ++size) {
        for (int matrix = 0; matrix < (size == 3 ? 2 : 6); ++matrix) {
            if (!bits.flag()) {
                bits.ue();
                continue;
            }
            const int coefficients = std::min(64, 16 << 2 * size) + (size > 1 ? 1 : 0);
            for (int i = 0; i < coefficients; ++i) bits.se();
        }
    }
}

// The reference picture sets of an SPS, behind the bits of the picture order count; false where long-term pictures are
// used.
bool parse_sets(Bits& bits, uint32_t layers, std::vector<References>& sets) {
    const uint32_t orderings = bits.flag() ? layers + 1 : 1;
    for (uint32_t i = 0; i < 3 * orderings; ++i) bits.ue();
    for (int i = 0; i < 6; ++i) bits.ue();
    if (bits.flag() && bits.flag()) skip_scaling(bits);
    bits.u(2);
    if (bits.flag()) {   // PCM
        bits.u(8);
        bits.ue();
        bits.ue();
        bits.u(1);
    }
    const uint64_t count = bits.ue();
    if (count > kMostSets) refuse("a sequence parameter set is out of range");
    for (uint64_t i = 0; i < count; ++i) {
        References found;
        parse_references(bits, sets, false, found);
        sets.push_back(std::move(found));
    }
    return !bits.flag();
}

}  // namespace

uint64_t parse_sps(Bytes unit, Sps& sps) {
    Bits bits(unit.slice(2), Bits::kEscaped);
    bits.u(4);
    const uint32_t layers = bits.u(3);
    bits.u(1);
    bits.skip(88);   // profile and tier (7.3.3)
    bits.u(8);
    uint32_t profiles = 0, levels = 0;
    for (uint32_t i = 0; i < layers; ++i) {
        profiles += bits.u(1);
        levels += bits.u(1);
    }
    if (layers != 0) bits.skip(2 * (8 - static_cast<int>(layers)));
    bits.skip(static_cast<int>(88 * profiles + 8 * levels));
    const uint64_t number = bits.ue();
    sps.separate_planes = bits.ue() == 3 && bits.flag();
    bits.ue();
    bits.ue();
    if (bits.flag()) {   // conformance window
        for (int i = 0; i < 4; ++i) bits.ue();
    }
    bits.ue();
    bits.ue();
    const uint64_t lsb_bits = bits.ue() + 4;
    if (lsb_bits > 16 || number > 15) refuse("a sequence parameter set is out of range");
    sps.lsb_bits = static_cast<int>(lsb_bits);
    try {
        sps.sets_known = parse_sets(bits, layers, sps.sets);
    } catch (const Refused&) {   // what is behind is not needed for the order
        sps.sets_known = false;
    }
    return number;
}

uint64_t parse_pps(Bytes unit, Pps& pps) {
    Bits bits(unit.slice(2, 32), Bits::kEscaped);
    const uint64_t number = bits.ue();
    pps.sps = bits.ue();
    bits.u(1);
    pps.output_flag = bits.flag();
    pps.extra_bits = static_cast<int>(bits.u(3));
    return number;
}

void parse_references(Bits& bits, const std::vector<References>& known, bool in_slice, References& found) {
    found.clear();
    if (!known.empty() && bits.flag()) {
        const uint64_t back = in_slice ? bits.ue() + 1 : 1;
        if (back > known.size()) refuse("a reference picture set is out of range");
        const bool negative = bits.flag();
        const int64_t distance = static_cast<int64_t>(bits.ue()) + 1;
        const int64_t delta = negative ? -distance : distance;
        const auto keep = [&](int64_t value) {
            // Each is used by the picture, or kept for later ones, or left out.
            if ((bits.flag() || bits.flag()) && value != 0) found.push_back(value);
        };
        for (const int64_t value : known[known.size() - back]) keep(value + delta);
        keep(delta);
        const auto middle = std::partition(found.begin(), found.end(), [](int64_t value) { return value < 0; });
        std::sort(found.begin(), middle, std::greater<int64_t>());
        std::sort(middle, found.end());
        return;
    }
    const uint64_t counts[2] = {bits.ue(), bits.ue()};   // before the picture, behind it
    if (counts[0] + counts[1] > kMostPictures) refuse("a reference picture set is out of range");
    for (int side = 0; side < 2; ++side) {
        int64_t value = 0;
        for (uint64_t i = 0; i < counts[side]; ++i) {
            const int64_t distance = static_cast<int64_t>(bits.ue()) + 1;
            value += side == 0 ? -distance : distance;
            found.push_back(value);
            bits.u(1);
        }
    }
}

}  // namespace gpupipe::hevc
