// Picture and slice headers of H.266, as far as the reference picture lists.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "vvc_sets.h"

namespace gpupipe::vvc {

// nal_unit_type (table 5)
enum : int {
    kTrail = 0, kStsa = 1, kRadl = 2, kRasl = 3, kIdrWRadl = 7, kIdrNLp = 8, kCra = 9,
    kVps = 14, kSps = 15, kPps = 16, kPrefixAps = 17, kSuffixAps = 18, kPictureHeader = 19, kDelimiter = 20,
    kPrefixSei = 23, kSuffixSei = 24, kFiller = 25
};

inline bool is_idr(int kind) { return kind == kIdrWRadl || kind == kIdrNLp; }
inline bool is_irap(int kind) { return is_idr(kind) || kind == kCra; }
inline bool is_picture(int kind) { return kind <= kRasl || is_irap(kind); }

// aps_params_type (table 6)
enum : int { kFilter = 0, kLumaMapping = 1, kScaling = 2 };

// Which adaptation parameter set: there are 32 of a type.
inline int adaptation(int type, uint32_t number) { return type << 5 | static_cast<int>(number); }

using SpsMap = std::map<uint64_t, Sps>;
using PpsMap = std::map<uint64_t, Pps>;

struct Header {
    const Sps* sps = nullptr;
    const Pps* pps = nullptr;
    bool nonreference = false, inter = false, intra = true;
    bool luma_mapping = false, scaling = false;
    int64_t lsb = 0;                // of the picture order count
    bool drops_earlier = false;     // sh_no_output_of_prior_pics_flag
    bool listed = false;            // `deltas` are all that it may refer to, or leaves for later ones
    std::vector<int64_t> deltas;
    std::vector<int> adaptations;   // that it uses
};

void parse_picture_header(Bits& bits, const SpsMap& spses, const PpsMap& ppses, Header& header);   // 7.3.2.8

// slice_header() (7.3.7) of a picture's only slice, behind its first flag and the picture header; it tells whether that
// was in the slice.
void parse_slice_header(Bits& bits, int kind, bool with_picture, Header& header);

}  // namespace gpupipe::vvc
