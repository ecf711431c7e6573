// H.266 (ITU-T H.266, 7.3): what a packet shows, its place in output order, what it needs, where decoding may start.
//
// libavcodec does not skip pictures of this codec: packets are kept from it. What they carry beside their picture is
// then lost, so whoever uses an adaptation parameter set needs the packet that sent it.
#include <algorithm>
#include <cstddef>
#include <map>
#include <unordered_map>

#include "nal.h"
#include "scanner.h"
#include "vvc_slice.h"

namespace gpupipe {
namespace {

using namespace vvc;

constexpr int64_t kEpoch = int64_t{1} << 34;   // picture order counts of one coded video sequence lie within
constexpr size_t kSliceBytes = 512;            // of a unit that are read

// Messages that say nothing about other pictures (table D.1): timing, hashes, nesting, bytes of the encoder's own.
bool is_harmless(uint32_t message) {
    return message <= 1 || message == 5 || message == 130 || message == 132 || message == 133 || message == 168;
}

// What is kept of a packet beside its picture.
struct Access {
    bool irap = false, rasl = false;
    bool sets = false;            // it repeats all parameter sets
    bool listed = false;          // its references are known
    size_t references_end = 0;    // in deltas_
    size_t senders_end = 0;       // in senders_
};

class VvcScanner : public Scanner {
public:
    explicit VvcScanner(Bytes extradata) {
        const Extradata record = vvcc(extradata);
        width_ = record.width;
        for (const Bytes unit : record.units) {
            const int kind = kind_of(unit);
            if (kind >= kVps && kind <= kPps) parameters(unit, kind, false);
            if (kind == kPrefixAps) refuse("adaptation parameter sets in the container's header");
        }
    }

    void scan(Bytes data) override {
        Picture picture;
        Access access;
        Header header;
        bool announced = false, found = false;
        sent_.clear();
        deltas_.resize(access_.empty() ? 0 : access_.back().references_end);   // a refused packet may have left some
        senders_.resize(access_.empty() ? 0 : access_.back().senders_end);
        const size_t number = access_.size();
        each_unit(data, width_, [&](Bytes unit) {
            const int kind = kind_of(unit);
            if (is_picture(kind)) {
                Bits bits(unit.slice(2, kSliceBytes), Bits::kEscaped);
                const bool with_picture = bits.flag();
                if (found || with_picture == announced) refuse("a packet holds several slices, or a part of a picture");
                if (with_picture) parse_picture_header(bits, spses_, ppses_, header);
                parse_slice_header(bits, kind, with_picture, header);
                take(kind, (unit.data[1] & 7) - 1, header, picture, access);
                found = true;
            } else if (kind == kPictureHeader) {
                if (found || announced) refuse("a packet holds several pictures");
                Bits bits(unit.slice(2, kSliceBytes), Bits::kEscaped);
                parse_picture_header(bits, spses_, ppses_, header);
                announced = true;
            } else if (kind >= kVps && kind <= kPps) {
                if (found || announced) refuse("parameter sets behind a picture");
                sent_.push_back(parameters(unit, kind, true));
            } else if (kind == kPrefixAps || kind == kSuffixAps) {
                if (kind == kPrefixAps && found) refuse("parameter sets behind a picture");
                const uint32_t head = Bits(unit.slice(2)).u(8);   // type, number
                sender_[adaptation(static_cast<int>(head >> 5), head & 31)] = number;
            } else if (kind == kPrefixSei || kind == kSuffixSei) {
                messages(unit);
            } else if (kind != kDelimiter && kind != kFiller) {
                refuse("a NAL unit of another kind");
            }
        });
        if (!found) refuse("a packet holds no picture");
        access.sets = sets_.complete(sent_);
        access.references_end = deltas_.size();
        access.senders_end = senders_.size();
        access_.push_back(access);
        pictures_.found.push_back(picture);
    }

    // It may have held what others use.
    void lose() override { refuse("a packet's headers cannot be read"); }

    const Pictures& pictures(int64_t) override {
        refer();
        return pictures_;
    }

private:
    // Finds the packets of the pictures in each one's lists, whether it refers to them or leaves them for later ones:
    // libavcodec refuses a picture whose lists name one that it does not have. And those of the sets that it uses.
    void refer() {
        pictures_.needs.clear();
        std::unordered_map<int64_t, size_t> places;
        places.reserve(access_.size());
        std::vector<size_t> entries;
        size_t head = SIZE_MAX;   // the last IRAP picture
        size_t reference = 0, sender = 0;
        for (size_t i = 0; i < access_.size(); ++i) {
            Picture& picture = pictures_.found[i];
            const Access& access = access_[i];
            picture.leading = access.rasl && head != SIZE_MAX && pictures_.found[head].entry;
            const size_t first = pictures_.needs.size();
            size_t earliest = i;
            const auto need = [&](size_t other) {
                if (other == i) return;
                pictures_.needs.push_back(static_cast<int64_t>(other));
                if (pictures_.found[other].leading) {   // not there where decoding starts at its entry
                    const size_t own = *(std::upper_bound(entries.begin(), entries.end(), other) - 1);
                    if (!picture.leading || own != entries.back()) other = own == 0 ? 0 : own - 1;
                }
                earliest = std::min(earliest, other);
            };
            picture.named = access.listed && !sets_.moving();
            for (; reference < access.references_end; ++reference) {
                const auto place = places.find(picture.order + deltas_[reference]);
                picture.named &= place != places.end();
                if (place != places.end()) need(place->second);
            }
            const size_t references_end = pictures_.needs.size();
            for (; sender < access.senders_end; ++sender) need(senders_[sender]);
            revoke(entries, i, earliest);
            if (access.irap) {   // its lists keep pictures for those before it in output order
                picture.entry = pictures_.needs.size() == references_end && (access.sets || !sets_.moving());
                head = i;
                if (picture.entry) entries.push_back(i);
            }
            if (!picture.named) pictures_.needs.resize(first);
            picture.needs_end = static_cast<int64_t>(pictures_.needs.size());
            places[picture.order] = i;
        }
    }

    // Takes back the entries at which decoding cannot start because a later picture needs what came before; a leading
    // one may need what came before the last.
    void revoke(std::vector<size_t>& entries, size_t number, size_t earliest) {
        size_t end = number;
        const size_t back = pictures_.found[number].leading ? 2 : 1;
        while (entries.size() > back && entries[entries.size() - back] > earliest) {
            const auto place = entries.end() - static_cast<std::ptrdiff_t>(back);
            if (back == 2) end = std::min(end, entries.back());
            pictures_.found[*place].entry = false;
            for (size_t i = *place; i < end; ++i) pictures_.found[i].leading = false;
            end = *place;
            entries.erase(place);
        }
    }

    static int kind_of(Bytes unit) {
        if (unit.size < 3) refuse("a NAL unit is too short");
        if ((unit.data[0] & 0x3f) != 0) refuse("several layers");
        return unit.data[1] >> 3;
    }

    ParameterSets::Key parameters(Bytes unit, int kind, bool in_band) {
        uint64_t number = unit.data[2] >> 4;   // of a video parameter set
        if (kind == kSps) {
            Sps sps;
            number = parse_sps(unit, sps);
            spses_[number] = std::move(sps);
        } else if (kind == kPps) {
            Pps pps;
            number = parse_pps(unit, pps);
            if (!ppses_.empty() && (pps.width != ppses_.begin()->second.width ||
                                    pps.height != ppses_.begin()->second.height)) {
                refuse("pictures of several sizes");
            }
            ppses_[number] = pps;
        }
        const ParameterSets::Key key = ParameterSets::key(kind, number);
        sets_.put(key, unit, in_band, kind != kPps);
        return key;
    }

    // sei_rbsp() (7.3.2.15): film grain, orientation and the like hold for pictures to come.
    static void messages(Bytes unit) {
        constexpr uint32_t kEnd = 0x80;
        Bits bits(unit.slice(2), Bits::kEscaped);
        uint32_t head = bits.u(8);
        do {
            const auto number = [&](uint32_t byte) {
                uint32_t value = 0;
                for (; byte == 0xff; byte = bits.u(8)) value += byte;
                return value + byte;
            };
            if (!is_harmless(number(head))) refuse("messages about other pictures");
            for (uint32_t size = number(bits.u(8)); size != 0; --size) bits.u(8);
            head = bits.u(8);
        } while (head != kEnd);
    }

    void take(int kind, int temporal, const Header& header, Picture& picture, Access& access) {
        if (header.drops_earlier && !access_.empty()) refuse("pictures may be thrown away before they are shown");
        const bool irap = is_irap(kind);
        const int lsb_bits = header.sps->lsb_bits;
        int64_t poc = header.lsb;
        if (is_idr(kind) || (irap && access_.empty())) {
            ++epoch_;
        } else {
            poc = nearest_order(previous_, header.lsb, lsb_bits);
        }
        for (const int used : header.adaptations) {
            const auto sender = sender_.find(used);
            if (sender == sender_.end()) refuse("a picture uses adaptation parameters that were not sent");
            senders_.push_back(sender->second);
        }
        reach = int64_t{1} << (lsb_bits - 1);
        access.listed = header.listed;
        if (!is_idr(kind)) deltas_.insert(deltas_.end(), header.deltas.begin(), header.deltas.end());
        picture.anchor = temporal == 0 && !header.nonreference && kind != kRasl && kind != kRadl;
        if (picture.anchor) previous_ = poc;
        picture.order = epoch_ * kEpoch + poc;
        access.irap = irap;
        access.rasl = kind == kRasl;
    }

    int width_ = 0;
    SpsMap spses_;
    PpsMap ppses_;
    ParameterSets sets_;
    std::vector<ParameterSets::Key> sent_;   // with the packet at hand
    std::map<int, size_t> sender_;           // of each adaptation parameter set, the packet that sent it last
    std::vector<Access> access_;
    std::vector<int64_t> deltas_;            // reference picture lists of all packets, one behind the other
    std::vector<size_t> senders_;            // likewise, the packets of the adaptation parameters that they use
    Pictures pictures_;
    int64_t epoch_ = 0;
    int64_t previous_ = 0;   // picture order count of the last picture of temporal layer 0 that others may refer to
};

}  // namespace

std::unique_ptr<Scanner> vvc_scanner(Bytes extradata) { return std::make_unique<VvcScanner>(extradata); }

}  // namespace gpupipe
