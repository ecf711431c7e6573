// H.264 (ITU-T H.264, 7.3): what a packet shows, its place in output order, where decoding may start.
#include <algorithm>
#include <map>

#include "h264_sets.h"
#include "nal.h"
#include "scanner.h"

namespace gpupipe {
namespace {

using h264::Pps;
using h264::Sps;

enum : int { kSlice = 1, kPartitionA = 2, kPartitionC = 4, kIdr = 5, kSei = 6, kSps = 7, kPps = 8, kEndOfSequence = 10 };
enum : uint64_t { kP = 0, kB = 1, kI = 2, kSP = 3 };   // slice_type modulo 5 (table 7-6)

constexpr size_t kSliceBytes = 400;            // the longest header that is read: two weight tables of 32 references
constexpr int64_t kEpoch = int64_t{1} << 34;   // picture order counts of one coded video sequence lie within
constexpr size_t kMostReferences = 16;         // that a decoder holds (A.3.1)

struct Slice {
    uint64_t first = 0, type = 0;
    bool idr = false, reference = false, resets = false;
    int64_t frame_num = 0, poc_lsb = 0;
    int64_t bottom = 0;   // how much earlier the frame's bottom field is, at most 0
    uint64_t references[2] = {0, 0};
};

// One packet.
struct Access {
    int64_t epoch = 0, poc = 0;
    uint64_t references[2] = {0, 0};
    bool reference = false, idr = false, sets = false, lost = false;
    bool recovery = false;   // all slices I, recovery point at once and exact

    int64_t order() const { return epoch * kEpoch + poc; }
};

// Steps over ref_pic_list_modification and pred_weight_table (7.3.3.1, 7.3.3.2).
void skip_lists(Bits& bits, const Slice& slice, const Pps& pps, const Sps& sps) {
    const int lists = slice.type == kP || slice.type == kSP ? 1 : slice.type == kB ? 2 : 0;
    for (int i = 0; i < lists; ++i) {
        if (!bits.flag()) continue;
        for (int j = 0; j < 67; ++j) {
            if (bits.ue() == 3) break;
            bits.ue();
        }
    }
    if (!((pps.weighted && lists == 1) || (pps.weighted_b == 1 && lists == 2))) return;
    const bool chroma = sps.chroma && !sps.separate_planes;
    bits.ue();
    if (chroma) bits.ue();
    for (int i = 0; i < lists; ++i) {
        if (slice.references[i] > 32) refuse("more than 32 references");
        for (uint64_t j = 0; j < slice.references[i]; ++j) {
            for (int components = 1; components <= (chroma ? 2 : 1); ++components) {
                if (!bits.flag()) continue;
                for (int k = 0; k < 2 * components; ++k) bits.se();
            }
        }
    }
}

// True if dec_ref_pic_marking (7.3.3.3) holds memory operation 5.
bool marking_resets(Bits& bits, bool idr) {
    if (idr || !bits.flag()) return false;
    for (int i = 0; i < 67; ++i) {
        const uint64_t operation = bits.ue();
        if (operation == 0) return false;
        if (operation == 5) return true;
        if (operation > 6) refuse("an unknown memory operation");
        bits.ue();
        if (operation == 3) bits.ue();
    }
    refuse("too many memory operations");
}

// Most pictures that come before another in decode order and after it in output order.
int64_t reordering(const std::vector<Access>& access) {
    int64_t most = 0;
    for (size_t i = 0; i < access.size(); ++i) {
        int64_t later = 0;
        for (size_t j = i - std::min(i, kMostReferences + 1); j < i; ++j) later += access[j].order() > access[i].order();
        most = std::max(most, later);
    }
    return most;
}

class H264Scanner : public Scanner {
public:
    explicit H264Scanner(Bytes extradata) {
        skips = true;
        const Extradata record = avcc(extradata);
        width_ = record.width;
        for (const Bytes unit : record.units) {
            const int kind = unit.data[0] & 0x1f;
            if (kind == kSps || kind == kPps) parameters(unit, kind, false);
        }
    }

    void scan(Bytes data) override {
        Slice head;
        const Sps* sps = nullptr;   // of the last slice
        Access access;
        bool intra = true, recovery = false;
        sent_.clear();
        each_unit(data, width_, [&](Bytes unit) {
            const int kind = unit.data[0] & 0x1f;
            if (kind == kSlice || kind == kIdr) {
                const bool is_head = sps == nullptr;
                Slice slice;
                const Sps* found = slice_header(unit, is_head, slice);
                if (slice.first == 0) {
                    if (!is_head) refuse("a packet holds several pictures");
                    head = slice;
                } else if (is_head) {
                    refuse("a picture does not begin with its first slice");
                }
                sps = found;
                intra &= slice.type == kI;
                for (int i = 0; i < 2; ++i) access.references[i] = std::max(access.references[i], slice.references[i]);
            } else if (kind == kSps || kind == kPps) {
                sent_.push_back(parameters(unit, kind, true));
            } else if (kind == kSei) {
                recovery |= exact_recovery(unit);
            } else if ((kind >= kPartitionA && kind <= kPartitionC) || kind == kEndOfSequence) {
                refuse("data partitions or ends of sequence");
            }
        });
        if (sps == nullptr) refuse("a packet holds no picture");
        access.poc = count_order(head, *sps);
        access.epoch = epoch_;
        access.reference = head.reference;
        access.idr = head.idr;
        access.recovery = intra && recovery;
        access.sets = sets_.complete(sent_);
        access_.push_back(access);
    }

    // It may have been a reference, and ended no sequence.
    void lose() override {
        Access access;
        access.epoch = epoch_;
        access.poc = access_.empty() ? 0 : access_.back().poc;
        access.reference = access.lost = true;
        access_.push_back(access);
    }

    const Pictures& pictures(int64_t delay) override {
        if (!reorder_said_ && reordering(access_) > delay) {
            // libavcodec then guesses the delay, and drops pictures while it guesses too little.
            refuse("pictures are reordered and the stream does not say how far");
        }
        pictures_.found.assign(access_.size(), Picture());
        int64_t entry_order = -1;
        for (size_t i = 0; i < access_.size(); ++i) {
            const Access& access = access_[i];
            Picture& picture = pictures_.found[i];
            picture.order = access.order();
            const bool safe = access.sets || !sets_.moving();
            picture.entry = safe && (access.idr || (access.recovery && self_contained(i)));
            if (picture.entry) entry_order = picture.order;
            picture.leading = picture.order < entry_order;
            picture.droppable = !access.reference;
            picture.broken = access.lost;
        }
        return pictures_;
    }

private:
    ParameterSets::Key parameters(Bytes unit, int kind, bool in_band) {
        if (kind == kSps) {
            Sps sps;
            const uint64_t number = parse_sps(unit, sps);
            sets_.put(ParameterSets::key(kind, number), unit, in_band, true);
            spses_[number] = sps;
            return ParameterSets::key(kind, number);
        }
        Pps pps;
        const uint64_t number = parse_pps(unit, pps);
        sets_.put(ParameterSets::key(kind, number), unit, in_band, false);
        ppses_[number] = pps;
        return ParameterSets::key(kind, number);
    }

    // Slice header (7.3.3); of a picture's first slice all that a decoder keeps for later ones.
    const Sps* slice_header(Bytes unit, bool full, Slice& slice) {
        Bits bits(unit.slice(1, kSliceBytes), Bits::kEscaped);
        slice.idr = (unit.data[0] & 0x1f) == kIdr;
        slice.reference = (unit.data[0] & 0x60) != 0;
        slice.first = bits.ue();
        slice.type = bits.ue() % 5;
        const auto named = ppses_.find(bits.ue());
        const auto found = named == ppses_.end() ? spses_.end() : spses_.find(named->second.sps);
        if (found == spses_.end()) refuse("a slice names parameter sets that were not sent");
        const Pps& pps = named->second;
        const Sps& sps = found->second;
        if (sps.poc_type == 1 || pps.slice_groups) refuse("picture order count type 1 or slice groups");
        reorder_said_ &= sps.reorder_said;
        if (sps.separate_planes) bits.u(2);
        slice.frame_num = bits.u(sps.frame_num_bits);
        if (!sps.frames_only && bits.flag()) refuse("field pictures");
        if (slice.idr) bits.ue();
        if (sps.poc_type == 0) {
            slice.poc_lsb = bits.u(sps.poc_lsb_bits);
            if (pps.bottom_field_order) slice.bottom = std::min<int64_t>(0, bits.se());
        }
        if (pps.redundant && bits.ue() != 0) refuse("redundant pictures");
        if (slice.type == kP || slice.type == kB || slice.type == kSP) {
            const bool two = slice.type == kB;
            if (two) bits.u(1);
            slice.references[0] = pps.references[0];
            slice.references[1] = two ? pps.references[1] : 0;
            if (bits.flag()) {
                slice.references[0] = bits.ue() + 1;
                if (two) slice.references[1] = bits.ue() + 1;
            }
        }
        if (full && slice.reference) {
            skip_lists(bits, slice, pps, sps);
            slice.resets = marking_resets(bits, slice.idr);
        }
        return &sps;
    }

    // Picture order count of a frame (8.2.1).
    int64_t count_order(const Slice& head, const Sps& sps) {
        if (head.resets) refuse("a memory operation resets the picture order");
        if (head.idr) {
            ++epoch_;
            previous_ = frame_num_ = offset_ = 0;
        }
        if (sps.poc_type == 2) {
            if (head.frame_num < frame_num_) offset_ += int64_t{1} << sps.frame_num_bits;
            frame_num_ = head.frame_num;
            return 2 * (offset_ + head.frame_num) - (head.reference ? 0 : 1);
        }
        const int64_t order = nearest_order(previous_, head.poc_lsb, sps.poc_lsb_bits);
        if (head.reference) previous_ = order;
        return order + head.bottom;
    }

    // True if an SEI unit says that decoding is exact from here on (D.1.8: no wait, exact, no broken link).
    bool exact_recovery(Bytes unit) {
        plain_.clear();
        size_t zeros = 0;
        for (const uint8_t* byte = unit.data + 1; byte != unit.data + unit.size; ++byte) {
            const bool escape = *byte == 3 && zeros >= 2;
            zeros = *byte == 0 ? zeros + 1 : 0;
            if (!escape) plain_.push_back(*byte);
        }
        const Bytes data{plain_.data(), plain_.size()};
        size_t at = 0;
        while (at + 2 < data.size) {
            size_t header[2] = {0, 0};   // type and size of the message (7.3.2.3.1)
            for (size_t& value : header) {
                for (; at < data.size && data.data[at] == 255; ++at) value += 255;
                if (at >= data.size) return false;
                value += data.data[at++];
            }
            if (header[0] == 6) {
                Bits bits(data.slice(at, at + header[1]));
                return bits.ue() == 0 && bits.flag() && !bits.flag();
            }
            at += header[1];
        }
        return false;
    }

    // True if the pictures after a recovery point have the references they would have had.
    //
    // A decoder that starts there fills the lists of references with stand-ins for the pictures before. They sort
    // behind the true ones; so the lists agree if no slice asks for more entries than there are pictures since.
    bool self_contained(size_t at) const {
        const Access& start = access_[at];
        int64_t since[kMostReferences + 1];
        size_t count = 0;
        for (size_t i = at; i < access_.size(); ++i) {
            const Access& access = access_[i];
            if (access.lost) return false;
            if (access.epoch != start.epoch) break;
            const int64_t order = access.order();
            if (i != at && order >= start.order()) {
                if (access.references[1] != 0) {
                    uint64_t before = 0, after = 0;
                    for (size_t j = 0; j < count; ++j) {
                        before += start.order() <= since[j] && since[j] < order;
                        after += since[j] > order;
                    }
                    if (access.references[0] > before || access.references[1] > after) return false;
                } else if (access.references[0] > count) {
                    return false;
                }
            }
            if (access.reference) {
                since[count++] = order;
                if (count > kMostReferences) break;   // a decoder holds no more: the stand-ins are gone
            }
        }
        return true;
    }

    int width_ = 0;
    std::map<uint64_t, Sps> spses_;
    std::map<uint64_t, Pps> ppses_;
    ParameterSets sets_;
    std::vector<ParameterSets::Key> sent_;   // with the packet at hand
    std::vector<uint8_t> plain_;             // an SEI unit without its escapes
    std::vector<Access> access_;
    Pictures pictures_;
    int64_t epoch_ = 0;
    int64_t previous_ = 0;                   // picture order count of the last reference picture, of its top field
    int64_t frame_num_ = 0, offset_ = 0;     // of the last picture (picture order count type 2)
    bool reorder_said_ = true;
};

}  // namespace

std::unique_ptr<Scanner> h264_scanner(Bytes extradata) { return std::make_unique<H264Scanner>(extradata); }

}  // namespace gpupipe
