// H.265 (ITU-T H.265, 7.3): what a packet shows, its place in output order, where decoding may start.
// Layers above the base are not looked at, libavcodec does not show them.
#include <algorithm>
#include <map>
#include <unordered_map>

#include "hevc_sets.h"
#include "nal.h"
#include "scanner.h"

namespace gpupipe {
namespace {

using hevc::Pps;
using hevc::References;
using hevc::Sps;

// nal_unit_type (table 7-1)
enum : int {
    kRadlN = 6, kRaslN = 8, kRaslR = 9, kReservedN14 = 14, kFirstIrap = 16, kIdrWRadl = 19, kIdrNLp = 20, kCra = 21,
    kLastIrap = 23, kPictures = 32, kVps = 32, kSps = 33, kPps = 34, kEndOfSequence = 36, kEndOfBitstream = 37
};

constexpr int64_t kEpoch = int64_t{1} << 34;   // picture order counts of one coded video sequence lie within
constexpr size_t kSliceBytes = 64;             // of a unit that are read

bool is_idr(int kind) { return kind == kIdrWRadl || kind == kIdrNLp; }
bool is_irap(int kind) { return kind >= kFirstIrap && kind <= kLastIrap; }
bool is_leading(int kind) { return kind >= kRadlN && kind <= kRaslR; }
bool is_sublayer_nonreference(int kind) { return kind <= kReservedN14 && kind % 2 == 0; }

// What is kept of a packet beside its picture.
struct Access {
    int temporal = 0;
    bool nonreference = false, sets = false;
    bool references = false;      // are known
    size_t references_end = 0;    // in deltas_
};

class HevcScanner : public Scanner {
public:
    explicit HevcScanner(Bytes extradata) {
        skips = true;
        const Extradata record = hvcc(extradata);
        width_ = record.width;
        for (const Bytes unit : record.units) {
            const int kind = unit.data[0] >> 1 & 0x3f;
            if (kind >= kVps && kind <= kPps) parameters(unit, kind, false);
        }
    }

    void scan(Bytes data) override {
        Picture picture;
        Access access;
        bool found = false;
        sent_.clear();
        deltas_.resize(access_.empty() ? 0 : access_.back().references_end);   // a refused packet may have left some
        each_unit(data, width_, [&](Bytes unit) {
            if (unit.size < 3) refuse("a NAL unit is too short");
            const int kind = unit.data[0] >> 1 & 0x3f;
            if ((unit.data[0] & 1) != 0 || unit.data[1] >> 3 != 0) return;   // nuh_layer_id
            if (kind >= kVps && kind <= kPps) {
                sent_.push_back(parameters(unit, kind, true));
            } else if (kind == kEndOfSequence || kind == kEndOfBitstream) {
                refuse("an end of sequence in mid-stream");
            } else if (kind < kPictures) {
                if ((unit.data[2] & 0x80) != 0) {
                    if (found) refuse("a packet holds several pictures");
                    slice_header(unit, kind, picture, access);
                    found = true;
                } else if (!found) {
                    refuse("a picture does not begin with its first slice");
                }
            }
        });
        if (!found) refuse("a packet holds no picture");
        access.sets = sets_.complete(sent_);
        access.references_end = deltas_.size();
        access_.push_back(access);
        pictures_.found.push_back(picture);
    }

    void lose() override {
        Picture picture;
        picture.order = pictures_.found.empty() ? 0 : pictures_.found.back().order;
        picture.broken = true;
        Access access;
        access.references_end = access_.empty() ? 0 : access_.back().references_end;
        access_.push_back(access);
        pictures_.found.push_back(picture);
    }

    const Pictures& pictures(int64_t) override {
        refer();
        int highest = -1;   // temporal ids are one less than nuh_temporal_id_plus1, which should not be 0
        for (const Access& access : access_) highest = std::max(highest, access.temporal);
        for (size_t i = 0; i < access_.size(); ++i) {
            const Access& access = access_[i];
            Picture& picture = pictures_.found[i];
            // A sub-layer non-reference picture may be referred to from higher sub-layers: only the highest's is unused.
            picture.droppable = access.nonreference && access.temporal == highest;
            picture.entry &= access.sets || !sets_.moving();
        }
        return pictures_;
    }

private:
    // Finds the packets of the pictures that each keeps, whether it refers to them or leaves them for later ones.
    // All of them, so that no decoder ever misses one. Parameter sets come with packets that are then skipped.
    void refer() {
        pictures_.needs.clear();
        std::unordered_map<int64_t, int64_t> places;
        places.reserve(access_.size());
        size_t begin = 0;
        for (size_t i = 0; i < access_.size(); ++i) {
            Picture& picture = pictures_.found[i];
            const size_t first = pictures_.needs.size(), end = access_[i].references_end;
            picture.named = access_[i].references && !sets_.moving();
            for (; picture.named && begin < end; ++begin) {
                const auto place = places.find(picture.order + deltas_[begin]);
                picture.named = place != places.end();
                if (picture.named) pictures_.needs.push_back(place->second);
            }
            if (!picture.named) pictures_.needs.resize(first);
            picture.needs_end = static_cast<int64_t>(pictures_.needs.size());
            begin = end;
            places[picture.order] = static_cast<int64_t>(i);
        }
    }

    ParameterSets::Key parameters(Bytes unit, int kind, bool in_band) {
        uint64_t number = 0;
        if (kind == kVps) {
            if (unit.size < 3) refuse("a NAL unit is too short");
            number = unit.data[2] >> 4;
        } else if (kind == kSps) {
            Sps sps;
            number = parse_sps(unit, sps);
            spses_[number] = std::move(sps);
        } else {
            Pps pps;
            number = parse_pps(unit, pps);
            ppses_[number] = pps;
        }
        const ParameterSets::Key key = ParameterSets::key(kind, number);
        sets_.put(key, unit, in_band, kind != kPps);
        return key;
    }

    // The start of a slice segment header (7.3.6.1).
    void slice_header(Bytes unit, int kind, Picture& picture, Access& access) {
        Bits bits(unit.slice(2, kSliceBytes), Bits::kEscaped);
        access.temporal = (unit.data[1] & 7) - 1;
        bits.u(1);
        const bool irap = is_irap(kind);
        if (irap && bits.flag() && !access_.empty()) refuse("pictures may be thrown away before they are shown");
        if (irap && !is_idr(kind) && kind != kCra) refuse("broken links");
        const auto named = ppses_.find(bits.ue());
        const auto found = named == ppses_.end() ? spses_.end() : spses_.find(named->second.sps);
        if (found == spses_.end()) refuse("a slice names parameter sets that were not sent");
        const Pps& pps = named->second;
        const Sps& sps = found->second;
        bits.u(pps.extra_bits);
        bits.ue();
        if (pps.output_flag && !bits.flag()) refuse("pictures that are not output");
        if (sps.separate_planes) bits.u(2);
        int64_t poc = 0;
        access.references = true;
        if (!is_idr(kind)) {
            const int64_t lsb = bits.u(sps.lsb_bits);
            poc = access_.empty() ? lsb : nearest_order(previous_, lsb, sps.lsb_bits);
            access.references = sps.sets_known && take_references(bits, sps.sets);
        }
        reach = int64_t{1} << (sps.lsb_bits - 1);
        if (is_idr(kind) || (irap && access_.empty())) ++epoch_;
        access.nonreference = is_sublayer_nonreference(kind);
        picture.anchor = access.temporal == 0 && !access.nonreference && !is_leading(kind);
        if (picture.anchor) previous_ = poc;
        picture.order = epoch_ * kEpoch + poc;
        picture.entry = irap;
        picture.leading = kind == kRaslN || kind == kRaslR;
    }

    // The reference picture set of a slice header goes to deltas_; false where it cannot be read.
    bool take_references(Bits& bits, const std::vector<References>& sets) {
        try {
            if (!bits.flag()) {
                hevc::parse_references(bits, sets, true, references_);
                deltas_.insert(deltas_.end(), references_.begin(), references_.end());
                return true;
            }
            if (sets.empty()) return false;
            int width = 0;   // Ceil(Log2(num_short_term_ref_pic_sets))
            while (size_t{1} << width < sets.size()) ++width;
            const uint32_t number = bits.u(width);
            if (number >= sets.size()) return false;
            deltas_.insert(deltas_.end(), sets[number].begin(), sets[number].end());
            return true;
        } catch (const Refused&) {
            return false;
        }
    }

    int width_ = 0;
    std::map<uint64_t, Sps> spses_;
    std::map<uint64_t, Pps> ppses_;
    ParameterSets sets_;
    std::vector<ParameterSets::Key> sent_;   // with the packet at hand
    References references_;                  // of the slice at hand
    std::vector<Access> access_;
    std::vector<int64_t> deltas_;            // reference picture sets of all packets, one behind the other
    Pictures pictures_;
    int64_t epoch_ = 0;
    int64_t previous_ = 0;   // picture order count of the last picture of temporal layer 0 that others may refer to
};

}  // namespace

std::unique_ptr<Scanner> hevc_scanner(Bytes extradata) { return std::make_unique<HevcScanner>(extradata); }

}  // namespace gpupipe
