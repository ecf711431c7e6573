#include "vvc_sets.h"

namespace gpupipe::vvc {
namespace {

constexpr uint64_t kMostLists = 64;        // sps_num_ref_pic_lists (7.4.3.4)
constexpr uint64_t kMostEntries = 29;      // num_ref_entries: MaxDpbSize + 13 (7.4.11)
constexpr uint64_t kMostPoints = 64;       // sps_num_points_in_qp_table_minus1, less than that
constexpr uint64_t kMostBoundaries = 3;    // of one direction
constexpr uint64_t kMostOffsets = 6;       // pps_chroma_qp_offset_list_len_minus1 + 1

void skip_codes(Bits& bits, int count) {
    for (; count > 0; --count) bits.ue();
}

// As many flags, of which the set ones announce something.
int count_flags(Bits& bits, int count) {
    int set = 0;
    for (; count > 0; --count) set += bits.flag() ? 1 : 0;
    return set;
}

// profile_tier_level() (7.3.3.1) with a profile; it begins with a byte.
void skip_profile(Bits& bits, int sublayers) {
    bits.u(18);
    int bit = 19;
    if (bits.flag()) {   // general_constraints_info() (7.3.3.2)
        constexpr int kConstraints = 71;
        bits.skip(kConstraints);
        const int more = static_cast<int>(bits.u(8));
        bits.skip(more);
        bit += kConstraints + 8 + more;
    }
    bits.skip((8 - bit % 8) % 8);
    const int levels = count_flags(bits, sublayers);
    bits.skip((8 - sublayers % 8) % 8);
    bits.skip(8 * levels);
    const int profiles = static_cast<int>(bits.u(8));
    bits.skip(32 * profiles);
}

// From the coding blocks to the tables of chroma quantisers.
void parse_tools(Bits& bits, bool large_blocks, Sps& sps, bool& transform_skip, bool& large_transforms, bool& lfnst) {
    bits.ue();
    sps.partition_override = bits.flag();
    skip_partition(bits);   // intra slices, luma
    sps.dual_tree = sps.chroma_format != 0 && bits.flag();
    if (sps.dual_tree) skip_partition(bits);
    skip_partition(bits);   // inter slices
    large_transforms = large_blocks && bits.flag();
    transform_skip = bits.flag();
    if (transform_skip) {
        bits.ue();
        bits.u(1);
    }
    if (bits.flag()) bits.u(2);   // multiple transforms
    lfnst = bits.flag();
    if (sps.chroma_format == 0) return;
    sps.joint_chroma = bits.flag();
    for (int tables = bits.flag() ? 1 : sps.joint_chroma ? 3 : 2; tables != 0; --tables) {
        bits.se();
        const uint64_t points = bits.ue() + 1;
        if (points > kMostPoints) refuse("a sequence parameter set is out of range");
        skip_codes(bits, static_cast<int>(2 * points));
    }
}

// From the flags of motion compensation to the virtual boundaries.
void parse_motion(Bits& bits, bool transform_skip, bool large_transforms, bool lfnst, Sps& sps) {
    bits.u(1);
    sps.temporal_mvp = bits.flag();
    if (sps.temporal_mvp) bits.u(1);
    const bool amvr = bits.flag();
    sps.bdof_control = bits.flag() && bits.flag();
    bits.u(1);
    sps.dmvr_control = bits.flag() && bits.flag();
    sps.fullpel_control = bits.flag() && bits.flag();
    const uint64_t fewer = bits.ue();   // merge candidates than 6
    if (fewer > 5) refuse("a sequence parameter set is out of range");
    bits.u(1);
    if (bits.flag()) {   // affine motion
        bits.ue();
        bits.u(1);
        if (amvr) bits.u(1);
        sps.prof_control = bits.flag() && bits.flag();
    }
    bits.u(2);
    if (fewer <= 4 && bits.flag() && fewer <= 3) bits.ue();   // geometric partitions
    bits.ue();
    bits.u(3);
    if (sps.chroma_format != 0) bits.u(1);
    if (sps.chroma_format == 1) bits.u(2);
    const bool palette = bits.flag();
    const bool colour_transform = sps.chroma_format == 3 && !large_transforms && bits.flag();
    if (transform_skip || palette) bits.ue();
    if (bits.flag()) bits.ue();   // intra block copy
    if (bits.flag()) {            // deblocking by luma
        const uint32_t intervals = bits.u(2) + 1;
        bits.se();
        for (uint32_t i = 0; i < intervals; ++i) {
            bits.se();
            bits.ue();
        }
    }
    sps.scaling_lists = bits.flag();
    if (sps.scaling_lists) {
        if (lfnst) bits.u(1);
        if (colour_transform && bits.flag()) bits.u(1);
    }
    bits.u(2);
    sps.picture_boundaries = bits.flag() && !bits.flag();
}

}  // namespace

void skip_partition(Bits& bits) {
    bits.ue();
    if (bits.ue() != 0) skip_codes(bits, 2);
}

void skip_boundaries(Bits& bits) {
    for (int direction = 0; direction < 2; ++direction) {
        const uint64_t count = bits.ue();
        if (count > kMostBoundaries) refuse("virtual boundaries are out of range");
        skip_codes(bits, static_cast<int>(count));
    }
}

void parse_list(Bits& bits, const Sps& sps, bool in_slice, List& list) {
    list.deltas.clear();
    list.known = true;
    const uint64_t count = bits.ue();
    if (count > kMostEntries) refuse("a reference picture list is out of range");
    const bool in_header = sps.long_term && (in_slice || (count != 0 && bits.flag()));
    int64_t delta = 0;
    for (uint64_t i = 0; i < count; ++i) {
        if (sps.inter_layer && bits.flag()) {
            bits.ue();
            list.known = false;
        } else if (sps.long_term && !bits.flag()) {
            if (!in_header) bits.u(sps.lsb_bits);
            list.known = false;
        } else {
            const int64_t distance = static_cast<int64_t>(bits.ue()) + (sps.weighted && i != 0 ? 0 : 1);
            delta += distance != 0 && bits.flag() ? -distance : distance;
            list.deltas.push_back(delta);
        }
    }
}

uint64_t parse_sps(Bytes unit, Sps& sps) {
    Bits bits(unit.slice(2), Bits::kEscaped);
    const uint64_t number = bits.u(4);
    const bool dependent = bits.u(4) != 0;   // on a video parameter set
    const int sublayers = static_cast<int>(bits.u(3));
    sps.chroma_format = static_cast<int>(bits.u(2));
    const bool large_blocks = bits.u(2) != 0;
    const bool described = bits.flag();   // profile, buffer
    if (described) skip_profile(bits, sublayers);
    bits.u(1);
    if (bits.flag() && bits.flag()) refuse("the size of pictures may change in mid-stream");
    skip_codes(bits, 2);
    if (bits.flag()) skip_codes(bits, 4);   // conformance window
    if (bits.flag()) refuse("subpictures");
    bits.ue();
    bits.u(2);
    sps.lsb_bits = static_cast<int>(bits.u(4)) + 4;
    if (sps.lsb_bits > 16) refuse("a sequence parameter set is out of range");
    if (bits.flag()) refuse("picture order counts are sent whole");
    sps.extra_picture_bits = count_flags(bits, 8 * static_cast<int>(bits.u(2)));
    sps.extra_slice_bits = count_flags(bits, 8 * static_cast<int>(bits.u(2)));
    if (described) {
        const bool each = sublayers > 0 && bits.flag();
        skip_codes(bits, 3 * (each ? sublayers + 1 : 1));
    }
    bool transform_skip = false, large_transforms = false, lfnst = false;
    parse_tools(bits, large_blocks, sps, transform_skip, large_transforms, lfnst);
    bits.u(1);
    sps.alf = bits.flag();
    sps.cc_alf = sps.alf && sps.chroma_format != 0 && bits.flag();
    sps.lmcs = bits.flag();
    sps.weighted = bits.u(2) != 0;
    sps.long_term = bits.flag();
    sps.inter_layer = dependent && bits.flag();
    sps.idr_lists = bits.flag();
    const bool same = bits.flag();
    for (int side = 0; side < (same ? 1 : 2); ++side) {
        const uint64_t count = bits.ue();
        if (count > kMostLists) refuse("a sequence parameter set is out of range");
        for (uint64_t i = 0; i < count; ++i) {
            sps.lists[side].emplace_back();
            parse_list(bits, sps, false, sps.lists[side].back());
        }
    }
    if (same) sps.lists[1] = sps.lists[0];
    parse_motion(bits, transform_skip, large_transforms, lfnst, sps);
    return number;
}

uint64_t parse_pps(Bytes unit, Pps& pps) {
    Bits bits(unit.slice(2), Bits::kEscaped);
    const uint64_t number = bits.u(6);
    pps.sps = bits.u(4);
    if (bits.flag()) refuse("pictures of slices of several kinds");
    pps.width = bits.ue();
    pps.height = bits.ue();
    if (bits.flag()) skip_codes(bits, 4);   // conformance window
    if (bits.flag()) {                      // scaling window
        for (int i = 0; i < 4; ++i) bits.se();
    }
    if (bits.flag()) refuse("pictures that are not output");
    if (!bits.flag()) refuse("pictures of several slices or tiles");
    if (bits.flag()) refuse("subpictures");
    bits.u(1);
    skip_codes(bits, 2);
    pps.second_list_index = bits.flag();
    bits.u(2);
    if (bits.flag()) bits.ue();   // wraparound
    bits.se();
    pps.qp_delta = bits.flag();
    const bool offsets = bits.flag();   // of chroma quantisers
    if (offsets) {
        bits.se();
        bits.se();
        const bool joint = bits.flag();
        if (joint) bits.se();
        bits.u(1);
        pps.chroma_qp_list = bits.flag();
        if (pps.chroma_qp_list) {
            const uint64_t count = bits.ue() + 1;
            if (count > kMostOffsets) refuse("a picture parameter set is out of range");
            for (uint64_t i = 0; i < (joint ? 3 : 2) * count; ++i) bits.se();
        }
    }
    if (bits.flag()) {   // deblocking
        bits.u(1);
        if (!bits.flag()) {
            for (int i = 0; i < (offsets ? 6 : 2); ++i) bits.se();
        }
    }
    pps.picture_extension = bits.flag();
    return number;
}

}  // namespace gpupipe::vvc
