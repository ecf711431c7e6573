#include "vvc_slice.h"

namespace gpupipe::vvc {
namespace {

// ref_pic_lists() (7.3.9); false where they hold others than short-term pictures of this layer.
bool take_lists(Bits& bits, Header& header) {
    const Sps& sps = *header.sps;
    bool from_set = false;
    uint64_t number = 0;
    List own;
    for (int side = 0; side < 2; ++side) {
        const std::vector<List>& lists = sps.lists[side];
        const bool said = side == 0 || header.pps->second_list_index;
        if (lists.empty()) {
            from_set = false;
        } else if (said) {
            from_set = bits.flag();
        }
        const List* list = &own;
        if (from_set) {
            if (lists.size() == 1) {
                number = 0;
            } else if (said) {
                int width = 0;   // Ceil(Log2(sps_num_ref_pic_lists))
                while (size_t{1} << width < lists.size()) ++width;
                number = bits.u(width);
            }
            if (number >= lists.size()) refuse("a reference picture list is out of range");
            list = &lists[number];
        } else {
            parse_list(bits, sps, true, own);
        }
        if (!list->known) return false;   // what follows of long-term pictures is not read
        header.deltas.insert(header.deltas.end(), list->deltas.begin(), list->deltas.end());
    }
    return true;
}

// The adaptive loop filter's part of a slice header.
void take_filters(Bits& bits, Header& header) {
    const auto use = [&] { header.adaptations.push_back(adaptation(kFilter, bits.u(3))); };
    if (!bits.flag()) return;
    for (uint32_t count = bits.u(3); count != 0; --count) use();
    if (header.sps->chroma_format == 0) return;
    if (bits.u(2) != 0) use();   // blue, red
    if (!header.sps->cc_alf) return;
    for (int component = 0; component < 2; ++component) {
        if (bits.flag()) use();
    }
}

// What a picture header says for one kind of slices: partitions, quantisers.
void skip_blocks(Bits& bits, const Header& header, bool overridden, bool dual_tree) {
    if (overridden) {
        skip_partition(bits);
        if (dual_tree) skip_partition(bits);
    }
    if (header.pps->qp_delta) bits.ue();
    if (header.pps->chroma_qp_list) bits.ue();
}

}  // namespace

void parse_picture_header(Bits& bits, const SpsMap& spses, const PpsMap& ppses, Header& header) {
    const bool entry = bits.flag();
    header.nonreference = bits.flag();
    if (entry && bits.flag()) refuse("pictures that are refreshed gradually");
    header.inter = bits.flag();
    header.intra = !header.inter || bits.flag();
    const auto named = ppses.find(bits.ue());
    const auto found = named == ppses.end() ? spses.end() : spses.find(named->second.sps);
    if (found == spses.end()) refuse("a picture names parameter sets that were not sent");
    const Pps& pps = named->second;
    const Sps& sps = found->second;
    header.pps = &pps;
    header.sps = &sps;
    header.lsb = bits.u(sps.lsb_bits);
    bits.skip(sps.extra_picture_bits);
    if (sps.lmcs && bits.flag()) {
        header.luma_mapping = true;
        header.adaptations.push_back(adaptation(kLumaMapping, bits.u(2)));
        if (sps.chroma_format != 0) bits.u(1);
    }
    if (sps.scaling_lists && bits.flag()) {
        header.scaling = true;
        header.adaptations.push_back(adaptation(kScaling, bits.u(3)));
    }
    if (sps.picture_boundaries && bits.flag()) skip_boundaries(bits);
    const bool overridden = sps.partition_override && bits.flag();
    if (header.intra) skip_blocks(bits, header, overridden, sps.dual_tree);
    if (header.inter) {
        skip_blocks(bits, header, overridden, false);
        if (sps.temporal_mvp) bits.u(1);
        if (sps.fullpel_control) bits.u(1);
        bits.u(1);
        if (sps.bdof_control) bits.u(1);
        if (sps.dmvr_control) bits.u(1);
        if (sps.prof_control) bits.u(1);
    }
    if (sps.joint_chroma) bits.u(1);
    if (pps.picture_extension) {
        const uint64_t length = bits.ue();
        if (length > 256) refuse("a picture header is out of range");
        bits.skip(8 * static_cast<int>(length));
    }
}

void parse_slice_header(Bits& bits, int kind, bool with_picture, Header& header) {
    const Sps& sps = *header.sps;
    bits.skip(sps.extra_slice_bits);
    if (header.inter) bits.ue();
    if (is_irap(kind)) header.drops_earlier = bits.flag();
    if (sps.alf) take_filters(bits, header);
    if (header.luma_mapping && !with_picture) bits.u(1);
    if (header.scaling && !with_picture) bits.u(1);
    header.listed = (is_idr(kind) && !sps.idr_lists) || take_lists(bits, header);
}

}  // namespace gpupipe::vvc
