// Parameter sets and reference picture lists of H.266, as far as what pictures keep and use is to be known.
#pragma once

#include <cstdint>
#include <vector>

#include "bits.h"

namespace gpupipe::vvc {

// One reference picture list.
struct List {
    std::vector<int64_t> deltas;   // picture order counts of its entries, less that of the picture
    bool known = true;             // false where it has long-term entries, or those of other layers
};

struct Sps {
    int chroma_format = 0;
    int lsb_bits = 0;
    int extra_picture_bits = 0, extra_slice_bits = 0;
    bool partition_override = false, dual_tree = false;
    bool joint_chroma = false, alf = false, cc_alf = false, lmcs = false;
    bool weighted = false, long_term = false, inter_layer = false, idr_lists = false;
    bool temporal_mvp = false, fullpel_control = false, bdof_control = false, dmvr_control = false;
    bool prof_control = false, scaling_lists = false, picture_boundaries = false;
    std::vector<List> lists[2];
};

struct Pps {
    uint64_t sps = 0;
    uint64_t width = 0, height = 0;
    bool second_list_index = false;
    bool qp_delta = false, chroma_qp_list = false;
    bool picture_extension = false;
};

// Both take a NAL unit and return the set's number; they throw Refused, also where the set allows what is not read:
// changes of the layer, pictures that are not shown, pictures of several slices.
uint64_t parse_sps(Bytes unit, Sps& sps);   // 7.3.2.4, as far as the virtual boundaries
uint64_t parse_pps(Bytes unit, Pps& pps);   // 7.3.2.5

// ref_pic_list_struct() (7.3.10): one of the sequence parameter set, or of a slice.
void parse_list(Bits& bits, const Sps& sps, bool in_slice, List& list);

// num_ver_virtual_boundaries and what follows (7.3.2.4, 7.3.2.8).
void skip_boundaries(Bits& bits);

// Differences from what the sequence parameter set says about the partition of a kind of slices: 7.3.2.4, 7.3.2.8.
void skip_partition(Bits& bits);

}  // namespace gpupipe::vvc
