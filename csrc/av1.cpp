// AV1 (bitstream and decoding process specification, 5.3 to 5.9): temporal units, each showing at most one frame.
#include <algorithm>
#include <string>

#include "scanner.h"

namespace gpupipe {
namespace {

// obu_type (6.2.2), frame_type (6.8.2)
enum : int { kSequence = 1, kFrameHeader = 3, kTileGroup = 4, kFrame = 6, kRedundantHeader = 7, kPadding = 15 };
enum : uint32_t { kKey = 0, kIntraOnly = 2, kSwitch = 3 };

constexpr size_t kPayloadBytes = 256;   // of an OBU that are looked at
constexpr size_t kHeaderBytes = 32;     // of a frame header without buffer removal times
constexpr int kSlots = 8;
constexpr uint32_t kAllSlots = 0xff;
constexpr int64_t kUnknown = -1;        // the packet in a slot

// Fields of a sequence header that the start of a frame header needs.
struct Sequence {
    bool still = false;
    int time_bits = 0;      // of the presentation time in a frame header; 0 where it is not sent
    int removal_bits = 0;   // of the buffer removal times, likewise
    std::vector<uint32_t> points;   // layers of the operating points that have one
    int id_bits = 0;
    int choose_screen = 0;  // 0, 1; 2 where frames choose
    int choose_integer = 0;
    int order_bits = 0;
};

struct Frame {
    bool shown = false;
    bool again = false;       // shows what was decoded before
    bool key = false;
    uint32_t refreshes = 0;   // slots of references that are replaced; all, where that is not known
    bool refers_known = false;
    uint32_t refers = 0;      // slots that it may refer to
    int slot = 0;             // that is shown again
};

struct Obu {
    int kind = 0;
    uint32_t extension = 0;
    size_t begins = 0;
    Bytes payload;   // its start
};

// Calls take(obu) for every OBU of a temporal unit (5.3).
template <typename Take>
void each_obu(Bytes data, Take take) {
    size_t at = 0;
    while (at < data.size) {
        Obu obu;
        obu.begins = at;
        const uint8_t head = data.data[at++];
        if ((head & 0x80) != 0) refuse("an OBU header is damaged");
        if ((head & 4) != 0) {
            if (at >= data.size) refuse("an OBU header ends early");
            obu.extension = data.data[at];
            if ((obu.extension >> 3 & 3) != 0) refuse("spatial layers");
            ++at;
        }
        uint64_t size = data.size - at;
        if ((head & 2) != 0) {   // leb128() (4.10.5)
            size = 0;
            for (int shift = 0;; shift += 7) {
                if (at >= data.size || shift > 49) refuse("an OBU size is damaged");
                const uint8_t byte = data.data[at++];
                size |= static_cast<uint64_t>(byte & 0x7f) << shift;
                if ((byte & 0x80) == 0) break;
            }
        }
        if (size > data.size - at) refuse("an OBU is longer than its packet");
        obu.kind = head >> 3 & 15;
        obu.payload = data.slice(at, at + std::min<size_t>(size, kPayloadBytes));
        take(obu);
        at += size;
    }
}

// Sequence header (5.5), as far as the bits of the order hint.
Sequence parse_sequence(Bytes payload) {
    Bits bits(payload);
    Sequence sequence;
    bits.u(3);
    sequence.still = bits.flag();
    if (bits.flag()) {   // reduced: one still picture
        bits.u(5);
        sequence.still = true;
        return sequence;
    }
    int delay_bits = 0;
    if (bits.flag()) {   // timing
        bits.skip(64);
        const bool even = bits.flag();
        if (even) bits.ue();
        if (bits.flag()) {   // decoder model
            delay_bits = static_cast<int>(bits.u(5)) + 1;
            bits.u(32);
            sequence.removal_bits = static_cast<int>(bits.u(5)) + 1;
            const int time_bits = static_cast<int>(bits.u(5)) + 1;
            sequence.time_bits = even ? 0 : time_bits;
        }
    }
    const bool display_delay = bits.flag();
    for (uint32_t points = bits.u(5) + 1; points != 0; --points) {
        const uint32_t layers = bits.u(12), spatial = layers >> 8;
        if ((spatial & (spatial - 1)) != 0) refuse("spatial layers");
        if (bits.u(5) > 7) bits.u(1);
        if (delay_bits != 0 && bits.flag()) {
            sequence.points.push_back(layers);
            bits.skip(2 * delay_bits + 1);
        }
        if (display_delay && bits.flag()) bits.u(4);
    }
    const int width_bits = static_cast<int>(bits.u(4)) + 1, height_bits = static_cast<int>(bits.u(4)) + 1;
    bits.u(width_bits + height_bits);
    if (bits.flag()) {   // frame ids
        const int delta_bits = static_cast<int>(bits.u(4)) + 2;
        sequence.id_bits = static_cast<int>(bits.u(3)) + delta_bits + 1;
    }
    bits.u(3 + 4);   // superblocks, filters; compound tools
    const bool ordered = bits.flag();
    if (ordered) bits.u(2);
    sequence.choose_screen = bits.flag() ? 2 : static_cast<int>(bits.u(1));
    sequence.choose_integer = 2;
    if (sequence.choose_screen != 0 && !bits.flag()) sequence.choose_integer = static_cast<int>(bits.u(1));
    if (ordered) sequence.order_bits = static_cast<int>(bits.u(3)) + 1;
    return sequence;
}

// Frame header (5.9.2), as far as what it replaces; `extension` is that of its OBU's header.
Frame parse_frame(Bytes payload, const Sequence& sequence, uint32_t extension) {
    Frame frame;
    if (sequence.still) {
        frame.shown = frame.key = true;
        frame.refreshes = kAllSlots;
        return frame;
    }
    Bits bits(sequence.removal_bits != 0 ? payload : payload.slice(0, kHeaderBytes));
    if (bits.flag()) {
        frame.shown = frame.again = frame.refers_known = true;
        frame.slot = static_cast<int>(bits.u(3));
        frame.refers = 1u << frame.slot;
        return frame;
    }
    const uint32_t kind = bits.u(2);
    frame.key = kind == kKey;
    frame.shown = bits.flag();
    bits.u(frame.shown ? sequence.time_bits : 1);
    if (kind == kSwitch || (frame.key && frame.shown)) {
        frame.refreshes = kAllSlots;
        frame.refers_known = frame.key;
        return frame;
    }
    if (bits.flag()) {   // error resilient: repeats what the references should be, which may void some
        frame.refreshes = kAllSlots;
        return frame;
    }
    bits.u(1);
    const bool screen = sequence.choose_screen == 2 ? bits.flag() : sequence.choose_screen != 0;
    if (screen && sequence.choose_integer == 2) bits.u(1);
    bits.skip(sequence.id_bits + 1 + sequence.order_bits);
    const bool intra = frame.key || kind == kIntraOnly;
    if (!intra) bits.u(3);
    if (sequence.removal_bits != 0 && bits.flag()) {
        for (const uint32_t point : sequence.points) {
            if (point == 0 || ((point >> (extension >> 5) & 1) != 0 && (point >> (8 + (extension >> 3 & 3)) & 1) != 0)) {
                bits.u(sequence.removal_bits);
            }
        }
    }
    frame.refreshes = bits.u(8);
    if (intra) {
        frame.refers_known = true;
    } else if (sequence.id_bits == 0) {
        frame.refers_known = true;
        if (sequence.order_bits != 0 && bits.flag()) {
            frame.refers = kAllSlots;   // which ones follows from the order of all
        } else {
            for (int i = 0; i < 7; ++i) frame.refers |= 1u << bits.u(3);
        }
    }
    return frame;
}

class Av1Scanner : public ListScanner {
public:
    // libdav1d reads what to skip when it is opened: skips stays false.
    explicit Av1Scanner(Bytes extradata) {
        forget();
        std::fill_n(keys_, kSlots, true);
        const bool record = extradata.size != 0 && extradata.data[0] == 0x81;   // av1C
        each_obu(extradata.slice(record ? 4 : 0), [&](const Obu& obu) {
            if (obu.kind == kSequence) take_sequence(obu.payload);
        });
        header_.clear();   // the container's copy may differ
    }

    // A frame that replaces no reference leaves nothing behind: all that later frames take over (probabilities,
    // motion, segments, filter deltas, grain) is saved with the references (7.20) and read from them (7.21).
    void scan(Bytes data) override {
        needs_.clear();
        named_ = true;
        const int64_t number = static_cast<int64_t>(pictures_.found.size());
        Frame first, last;
        size_t frames = 0, shown = 0;
        bool sequence = false, droppable = true;
        bool tail = false;   // behind the last frame comes what is not part of it
        size_t begins = 0;   // where the last frame begins
        each_obu(data, [&](const Obu& obu) {
            if (obu.kind == kSequence) {
                take_sequence(obu.payload);
                sequence = tail = true;
            } else if (obu.kind == kFrameHeader || obu.kind == kFrame) {
                if (!has_sequence_) refuse("a frame comes before any sequence header");
                last = parse_frame(obu.payload, sequence_, obu.extension);
                if (last.again && keys_[last.slot]) last.refreshes = kAllSlots;   // shown again it replaces all (7.21)
                if (frames++ == 0) first = last;
                shown += last.shown;
                droppable &= last.refreshes == 0;
                refer(last, number);
                begins = obu.begins;
                tail = false;
            } else {
                tail |= obu.kind != kTileGroup && obu.kind != kRedundantHeader && obu.kind != kPadding;
            }
        });
        if (shown > 1) refuse("a packet shows several pictures");
        if (named_) {
            std::sort(needs_.begin(), needs_.end());
            needs_.erase(std::unique(needs_.begin(), needs_.end()), needs_.end());
            pictures_.needs.insert(pictures_.needs.end(), needs_.begin(), needs_.end());
        }
        Picture& picture = add();
        picture.shown = shown == 1;
        picture.named = named_;
        if (frames == 0) return;
        picture.entry = sequence && first.key && first.shown && !first.again;
        picture.droppable = droppable;
        if (frames > 1 && !droppable && last.shown && last.refreshes == 0 && !tail) {
            picture.prefix = static_cast<int64_t>(begins);
        }
    }

    void lose() override {
        forget();
        ListScanner::lose();
    }

private:
    void forget() {
        std::fill_n(slots_, kSlots, kUnknown);
        std::fill_n(keys_, kSlots, true);
    }

    // Notes the packets that a frame of packet `number` refers to, and puts it in its slots.
    void refer(const Frame& frame, int64_t number) {
        named_ &= frame.refers_known;
        for (int slot = 0; slot < kSlots; ++slot) {
            if ((frame.refers >> slot & 1) == 0) continue;
            named_ &= slots_[slot] != kUnknown;
            if (named_ && slots_[slot] != number) needs_.push_back(slots_[slot]);
        }
        for (int slot = 0; slot < kSlots; ++slot) {
            if ((frame.refreshes >> slot & 1) == 0) continue;
            slots_[slot] = number;
            keys_[slot] = frame.key || frame.again;
        }
    }

    void take_sequence(Bytes payload) {
        const std::string header(reinterpret_cast<const char*>(payload.data), payload.size);
        if (!header_.empty() && header != header_) refuse("the sequence header changes in mid-stream");
        header_ = header;
        sequence_ = parse_sequence(payload);
        has_sequence_ = true;
    }

    bool has_sequence_ = false;
    Sequence sequence_;
    std::string header_;         // as the stream sends it
    int64_t slots_[kSlots];      // packets whose frames are the references
    bool keys_[kSlots];          // that may be key frames: shown again, such a one replaces all references (7.21)
    std::vector<int64_t> needs_; // of the packet at hand
    bool named_ = true;          // all of them are known
};

}  // namespace

std::unique_ptr<Scanner> av1_scanner(Bytes extradata) { return std::make_unique<Av1Scanner>(extradata); }

}  // namespace gpupipe
