// Parameter sets and reference picture sets of H.265, as far as what pictures keep is to be known.
#pragma once

#include <cstdint>
#include <vector>

#include "bits.h"

namespace gpupipe::hevc {

using References = std::vector<int64_t>;   // differences of picture order count: a reference picture set

struct Sps {
    bool separate_planes = false;
    int lsb_bits = 0;
    bool sets_known = false;   // false where long-term pictures may be referred to, or more
    std::vector<References> sets;
};

struct Pps {
    uint64_t sps = 0;
    bool output_flag = false;
    int extra_bits = 0;
};

// Both take a NAL unit and return the set's number; they throw Refused.
uint64_t parse_sps(Bytes unit, Sps& sps);   // 7.3.2.2
uint64_t parse_pps(Bytes unit, Pps& pps);   // 7.3.2.3, the start

// One short-term reference picture set (7.3.7, 7.4.8): those before the picture first, each nearest first.
void parse_references(Bits& bits, const std::vector<References>& known, bool in_slice, References& found);

}  // namespace gpupipe::hevc
