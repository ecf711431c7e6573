// VP8 (RFC 6386, 9.1) and VP9 (bitstream specification, 6.2 and annex B).
#include "scanner.h"

namespace gpupipe {
namespace {

// A frame a packet, in output order, some hidden. A frame that nothing refers to may still move the segment map that
// persists: none is droppable, and skips stays false.
class Vp8Scanner : public ListScanner {
public:
    void scan(Bytes data) override {
        if (data.size < 3) refuse("a VP8 packet is too short");
        const bool key = (data.data[0] & 1) == 0;
        if (key && !data.slice(3).starts_with("\x9d\x01\x2a", 3)) refuse("a VP8 key frame has no start code");
        Picture& picture = add();
        picture.shown = (data.data[0] & 0x10) != 0;
        picture.entry = key;
    }
};

// A frame a packet, or a superframe of which at most one is shown.
//
// A frame that replaces no reference still leaves its motion, probabilities, filter deltas and segments to the next
// one, unless that is error resilient and forgets them (setup_past_independence, 7.2). So frames are droppable only in
// streams that are error resilient throughout, as those with temporal layers are made.
class Vp9Scanner : public ListScanner {
public:
    void scan(Bytes data) override {
        Bytes frames[8];
        const int count = split(data, frames);
        int shown = 0;
        bool entry = false, droppable = true;
        for (int i = 0; i < count; ++i) {
            Bits bits(frames[i].slice(0, 4));
            if (bits.u(2) != 2) refuse("a VP9 frame has no marker");
            if (bits.u(2) == 3) bits.u(1);   // profile
            if (bits.flag()) {               // shows what was decoded before
                ++shown;
                droppable = false;
                continue;
            }
            const bool key = !bits.flag(), visible = bits.flag(), resilient = bits.flag();
            resilient_ &= key || resilient;
            // An error resilient frame that is shown goes on with the flags of the references it replaces (7.2).
            const bool apart = !key && visible && resilient && bits.u(8) == 0;
            droppable &= apart;
            shown += visible;
            entry |= i == 0 && key && visible;
        }
        if (shown > 1) refuse("a packet shows several pictures");
        Picture& picture = add();
        picture.shown = shown == 1;
        picture.entry = entry;
        picture.droppable = droppable;
    }

    void lose() override {
        resilient_ = false;
        ListScanner::lose();
    }

    const Pictures& pictures(int64_t) override {
        if (!resilient_) {
            for (Picture& picture : pictures_.found) picture.droppable = false;
        }
        return pictures_;
    }

private:
    // Splits a packet into its frames (annex B), none of them empty; returns how many.
    static int split(Bytes data, Bytes (&frames)[8]) {
        if (data.size == 0) refuse("an empty VP9 packet");
        frames[0] = data;
        const uint8_t last = data.data[data.size - 1];
        if ((last & 0xe0) != 0xc0) return 1;
        const int lengths = (last & 7) + 1, width = (last >> 3 & 3) + 1;
        const size_t index = 2 + static_cast<size_t>(lengths * width);   // bytes of the superframe index
        if (data.size < index || data.data[data.size - index] != last) return 1;
        Bytes rest = data.slice(0, data.size - index);
        const uint8_t* length_bytes = data.data + rest.size + 1;
        int count = 0;
        for (int i = 0; i < lengths; ++i) {
            size_t length = 0;
            for (int j = 0; j < width; ++j) length |= static_cast<size_t>(*length_bytes++) << 8 * j;
            if (length > rest.size) refuse("a VP9 superframe is longer than its packet");
            if (length != 0) frames[count++] = rest.slice(0, length);
            rest = rest.slice(length);
        }
        return count;
    }

    bool resilient_ = true;
};

}  // namespace

std::unique_ptr<Scanner> vp8_scanner() { return std::make_unique<Vp8Scanner>(); }
std::unique_ptr<Scanner> vp9_scanner() { return std::make_unique<Vp9Scanner>(); }

}  // namespace gpupipe
