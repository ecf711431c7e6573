// NAL units of H.264, H.265 and H.266: in length-prefixed packets (MP4, Matroska) and in byte streams (Annex B).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bits.h"

namespace gpupipe {

// Calls take(unit) for every NAL unit of a packet, in order, none of them empty; width 0 means a byte stream, else the
// bytes of a unit's length.
template <typename Take>
void each_unit(Bytes data, int width, Take take) {
    if (width == 0) {
        size_t start = data.start_code(0);
        while (start != SIZE_MAX) {
            const size_t end = data.start_code(start + 3);
            const Bytes unit = data.slice(start + 3, end);
            if (unit.size != 0) take(unit);
            start = end;
        }
        return;
    }
    while (data.size != 0) {
        if (data.size < static_cast<size_t>(width)) refuse("a packet ends inside a NAL unit length");
        const size_t length = data.big_endian(width);
        data = data.slice(width);
        if (length > data.size) refuse("a NAL unit goes beyond its packet");
        if (length != 0) take(data.slice(0, length));
        data = data.slice(length);
    }
}

// The picture order count with these low bits that is nearest to an earlier one (H.264 8.2.1.1, H.265 and H.266 8.3.1).
inline int64_t nearest_order(int64_t previous, int64_t lsb, int lsb_bits) {
    const int64_t span = int64_t{1} << lsb_bits;
    const int64_t low = previous & (span - 1);
    int64_t msb = previous - low;
    if (lsb < low && low - lsb >= span / 2) {
        msb += span;
    } else if (lsb > low && lsb - low > span / 2) {
        msb -= span;
    }
    return msb + lsb;
}

// Length width and parameter sets of extradata.
struct Extradata {
    int width = 0;
    std::vector<Bytes> units;
};

Extradata avcc(Bytes extradata);   // H.264: ISO/IEC 14496-15, 5.3.3.1, or Annex B
Extradata hvcc(Bytes extradata);   // H.265: ISO/IEC 14496-15, 8.3.3.1, or Annex B
Extradata vvcc(Bytes extradata);   // H.266: ISO/IEC 14496-15, 11.2.4.2, or Annex B

// The parameter sets in force, and whether a decoder that jumps to an entry would have the same.
//
// A decoder that was elsewhere in the stream may hold other sets. An entry is safe if every set is that of the
// container's header, or if the entry repeats them all.
class ParameterSets {
public:
    using Key = uint64_t;

    static Key key(int kind, uint64_t number) { return static_cast<uint64_t>(kind) << 40 | number; }

    // Takes one set; a fixed one (size, format, reordering) must never change: what the decoder then does with delayed
    // pictures must be seen.
    void put(Key key, Bytes unit, bool in_band, bool fixed);

    // True if `sent` holds every set that is known so far; sorts it.
    bool complete(std::vector<Key>& sent) const;

    bool moving() const { return moving_; }

private:
    std::map<Key, std::string> known_;
    bool moving_ = false;
};

}  // namespace gpupipe
