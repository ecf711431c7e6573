#include "nal.h"

#include <algorithm>

namespace gpupipe {
namespace {

Extradata annexb(Bytes extradata) {
    Extradata found;
    each_unit(extradata, 0, [&](Bytes unit) { found.units.push_back(unit); });
    return found;
}

// `count` sets, each behind its length in two bytes; returns where they end.
size_t take_sets(Extradata& found, Bytes extradata, size_t at, unsigned count, const char* short_record) {
    for (; count != 0; --count) {
        const size_t length = extradata.slice(at).big_endian(2);
        const Bytes unit = extradata.slice(at + 2, at + 2 + length);
        at += 2 + length;
        if (at > extradata.size) refuse(short_record);
        if (unit.size != 0) found.units.push_back(unit);
    }
    return at;
}

}  // namespace

Extradata avcc(Bytes extradata) {
    if (extradata.size == 0 || extradata.data[0] != 1) return annexb(extradata);
    if (extradata.size < 7) refuse("the avcC record is too short");
    Extradata found;
    found.width = (extradata.data[4] & 3) + 1;
    size_t at = 5;
    for (const unsigned mask : {0x1fu, 0xffu}) {
        if (at >= extradata.size) break;
        const unsigned count = extradata.data[at] & mask;
        at = take_sets(found, extradata, at + 1, count, "the avcC record ends early");
    }
    return found;
}

Extradata hvcc(Bytes extradata) {
    if (extradata.size == 0 || extradata.starts_with("\0\0\0", 3) || extradata.starts_with("\0\0\1", 3)) {
        return annexb(extradata);
    }
    if (extradata.size < 23) refuse("the hvcC record is too short");
    Extradata found;
    found.width = (extradata.data[21] & 3) + 1;
    size_t at = 23;
    for (unsigned arrays = extradata.data[22]; arrays != 0; --arrays) {
        const unsigned count = extradata.slice(at + 1).big_endian(2);
        at = take_sets(found, extradata, at + 3, count, "the hvcC record ends early");
    }
    return found;
}

Extradata vvcc(Bytes extradata) {
    if (extradata.size == 0 || extradata.starts_with("\0\0\0", 3) || extradata.starts_with("\0\0\1", 3)) {
        return annexb(extradata);
    }
    constexpr const char* kShort = "the vvcC record ends early";
    Extradata found;
    found.width = (extradata.data[0] >> 1 & 3) + 1;
    size_t at = 1;
    if ((extradata.data[0] & 1) != 0) {   // a profile is described: VvcPTLRecord
        const int sublayers = static_cast<int>(extradata.slice(at, at + 2).big_endian(2) >> 4 & 7);
        const size_t constraints = extradata.slice(at + 3).big_endian(1) & 0x3f;
        at += 6 + std::max<size_t>(constraints, 1);
        if (sublayers > 1) {
            if (at >= extradata.size) refuse(kShort);
            at += 1 + static_cast<size_t>(__builtin_popcount(extradata.data[at] >> (9 - sublayers)));
        }
        at += 1 + 4 * extradata.slice(at).big_endian(1) + 6;   // sub-profiles, size and rate
    }
    if (at >= extradata.size) refuse(kShort);
    unsigned arrays = extradata.data[at++];
    for (; arrays != 0; --arrays) {
        const uint32_t kind = extradata.slice(at++).big_endian(1) & 0x1f;
        unsigned count = 1;
        if (kind != 12 && kind != 13) {   // operating point, decoding capability: one each
            count = extradata.slice(at).big_endian(2);
            at += 2;
        }
        at = take_sets(found, extradata, at, count, kShort);
    }
    return found;
}

void ParameterSets::put(Key key, Bytes unit, bool in_band, bool fixed) {
    while (unit.size != 0 && unit.data[unit.size - 1] == 0) --unit.size;   // trailing_zero_8bits of a byte stream
    const auto [place, is_new] = known_.try_emplace(key);
    std::string& known = place->second;
    if (!is_new) {
        if (known.size() == unit.size && std::memcmp(known.data(), unit.data, unit.size) == 0) return;
        if (fixed) refuse("the sequence parameters change in mid-stream");
    }
    moving_ |= in_band;
    known.assign(reinterpret_cast<const char*>(unit.data), unit.size);
}

bool ParameterSets::complete(std::vector<Key>& sent) const {
    if (sent.size() < known_.size()) return false;
    std::sort(sent.begin(), sent.end());
    auto next = sent.begin();
    for (const auto& entry : known_) {
        next = std::lower_bound(next, sent.end(), entry.first);
        if (next == sent.end() || *next != entry.first) return false;
    }
    return true;
}

}  // namespace gpupipe
