#include "h264_sets.h"

namespace gpupipe::h264 {
namespace {

bool has_chroma_format(uint32_t profile) {
    switch (profile) {
        case 44: case 83: case 86: case 100: case 110: case 118: case 122: case 128: case 134: case 135: case 138:
        case 139: case 244:
            return true;
        default:
            return false;
    }
}

bool may_be_intra_only(uint32_t profile) {
    return profile == 44 || profile == 86 || profile == 100 || profile == 110 || profile == 122 || profile == 244;
}

uint64_t bounded(uint64_t value, uint64_t most) {
    if (value > most) refuse("a header count is out of range");
    return value;
}

// scaling_list() (7.3.2.1.1.1).
void skip_scaling(Bits& bits, int size) {
    uint32_t last = 8, following = 8;
    for (int i = 0; i < size; ++i) {
        if (following != 0) following = static_cast<uint32_t>(last + bits.se()) & 0xff;
        if (following != 0) last = following;
    }
}

// True if the VUI parameters (E.1.1) hold max_num_reorder_frames.
bool vui_says_reorder(Bits& bits) {
    if (bits.flag() && bits.u(8) == 255) bits.u(32);   // aspect ratio
    if (bits.flag()) bits.u(1);                        // overscan
    if (bits.flag()) {                                 // video signal type
        bits.u(4);
        if (bits.flag()) bits.u(24);
    }
    if (bits.flag()) {                                 // chroma location
        bits.ue();
        bits.ue();
    }
    if (bits.flag()) bits.skip(65);                    // timing
    bool hrd = false;
    for (int i = 0; i < 2; ++i) {
        if (!bits.flag()) continue;
        hrd = true;
        const uint64_t count = bounded(bits.ue(), 31) + 1;   // hrd_parameters() (E.1.2)
        bits.u(8);
        for (uint64_t j = 0; j < count; ++j) {
            bits.ue();
            bits.ue();
            bits.u(1);
        }
        bits.u(20);
    }
    if (hrd) bits.u(1);
    bits.u(1);
    if (!bits.flag()) return false;
    bits.u(1);
    for (int i = 0; i < 5; ++i) bits.ue();
    return true;
}

}  // namespace

uint64_t parse_sps(Bytes unit, Sps& sps) {
    Bits bits(unit.slice(1), Bits::kEscaped);
    const uint32_t profile = bits.u(8), constraints = bits.u(8);
    bits.u(8);
    const uint64_t number = bits.ue();
    sps.chroma = true;
    if (has_chroma_format(profile)) {
        const uint64_t format = bits.ue();
        sps.chroma = format != 0;
        if (format == 3) sps.separate_planes = bits.flag();
        bits.ue();
        bits.ue();
        bits.u(1);
        if (bits.flag()) {
            for (int i = 0; i < (format != 3 ? 8 : 12); ++i) {
                if (bits.flag()) skip_scaling(bits, i < 6 ? 16 : 64);
            }
        }
    }
    const uint64_t frame_num_bits = bits.ue() + 4;
    sps.poc_type = bits.ue();
    uint64_t poc_lsb_bits = 0;
    if (sps.poc_type == 0) {
        poc_lsb_bits = bits.ue() + 4;
    } else if (sps.poc_type == 1) {
        bits.u(1);
        bits.se();
        bits.se();
        for (uint64_t count = bounded(bits.ue(), 255); count != 0; --count) bits.se();
    }
    if (frame_num_bits > 16 || poc_lsb_bits > 16 || number > 31) refuse("a sequence parameter set is out of range");
    sps.frame_num_bits = static_cast<int>(frame_num_bits);
    sps.poc_lsb_bits = static_cast<int>(poc_lsb_bits);
    const uint64_t references = bits.ue();
    bits.u(1);
    bits.ue();
    bits.ue();
    sps.frames_only = bits.flag();
    if (!sps.frames_only) bits.u(1);
    bits.u(1);
    if (bits.flag()) {   // cropping
        for (int i = 0; i < 4; ++i) bits.ue();
    }
    sps.reorder_said = bits.flag() && vui_says_reorder(bits);
    // Nothing to reorder, or the profile is intra only.
    if (references == 0 || sps.poc_type == 2 || (may_be_intra_only(profile) && (constraints & 0x10))) {
        sps.reorder_said = true;
    }
    return number;
}

uint64_t parse_pps(Bytes unit, Pps& pps) {
    Bits bits(unit.slice(1), Bits::kEscaped);
    const uint64_t number = bits.ue();
    pps.sps = bits.ue();
    bits.u(1);
    pps.bottom_field_order = bits.flag();
    if (bits.ue() > 0) {
        pps.slice_groups = true;
        return number;
    }
    for (uint64_t& count : pps.references) count = bits.ue() + 1;
    pps.weighted = bits.flag();
    pps.weighted_b = static_cast<int>(bits.u(2));
    for (int i = 0; i < 3; ++i) bits.se();
    bits.u(2);
    pps.redundant = bits.flag();
    return number;
}

}  // namespace gpupipe::h264
