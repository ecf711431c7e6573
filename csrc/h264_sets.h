// Parameter sets of H.264, as far as slice headers need them.
#pragma once

#include <cstdint>

#include "bits.h"

namespace gpupipe::h264 {

struct Sps {
    int frame_num_bits = 0;
    uint64_t poc_type = 0;
    int poc_lsb_bits = 0;
    bool frames_only = false;
    bool separate_planes = false;
    bool chroma = false;         // there are chroma planes
    bool reorder_said = false;   // max_num_reorder_frames is there, or nothing is reordered
};

struct Pps {
    uint64_t sps = 0;
    bool bottom_field_order = false;
    uint64_t references[2] = {1, 1};
    bool weighted = false;
    int weighted_b = 0;
    bool redundant = false;
    bool slice_groups = false;
};

// Both take a NAL unit and return the set's number; they throw Refused.
uint64_t parse_sps(Bytes unit, Sps& sps);   // 7.3.2.1.1
uint64_t parse_pps(Bytes unit, Pps& pps);   // 7.3.2.2

}  // namespace gpupipe::h264
