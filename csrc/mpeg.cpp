// MPEG-1 and MPEG-2 video (ISO/IEC 11172-2, 13818-2) and MPEG-4 part 2 (ISO/IEC 14496-2).
#include <string>

#include "scanner.h"

namespace gpupipe {
namespace {

enum : uint32_t { kI = 1, kP = 2, kB = 3 };   // picture_coding_type
constexpr int64_t kAnchor = int64_t{1} << 20;

// B pictures are shown at once, the others when the next one that is not B arrives.
class ReorderedScanner : public ListScanner {
public:
    // Without a picture's type those around it cannot be put in order.
    void lose() override { refuse("a picture's type is unknown"); }

protected:
    ReorderedScanner() { skips = true; }

    void put(bool b, bool entry, bool leading) {
        if (b) {
            ++since_;
        } else {
            ++anchors_;
            since_ = 0;
        }
        Picture& picture = add();
        picture.order = (b ? anchors_ - 1 : anchors_) * kAnchor + since_;
        picture.entry = entry;
        picture.leading = leading;
        picture.droppable = b;
    }

    int64_t anchors_ = 0;

private:
    int64_t since_ = 0;
};

// One frame picture a packet.
class Mpeg12Scanner : public ReorderedScanner {
public:
    explicit Mpeg12Scanner(bool extended) : extended_(extended) {}

    void scan(Bytes data) override {
        uint32_t kind = 0;
        bool sequence = false, structure = false, closed = false;
        size_t at = data.start_code(0);
        for (; at != SIZE_MAX && at + 3 < data.size; at = data.start_code(at + 3)) {
            const uint8_t code = data.data[at + 3];
            const Bytes body = data.slice(at + 4, at + 144);
            const int extension = code == 0xb5 && body.size != 0 ? body.data[0] >> 4 : 0;
            if (code == 0xb3) {          // sequence_header()
                sequence = true;
                keep_size(body);
            } else if (code == 0xb8) {   // group_of_pictures_header()
                closed = body.size > 3 && (body.data[3] & 0x40) != 0;
            } else if (extension == 8) {   // picture_coding_extension(): picture_structure
                structure = body.size > 2 && (body.data[2] & 3) == 3;
            } else if (extension == 5 || extension == 9 || extension == 10) {
                refuse("scalable MPEG-2");
            } else if (code == 0xb7) {
                refuse("an end of sequence in mid-stream");
            } else if (code == 0) {      // picture_header()
                if (kind != 0) refuse("a packet holds several pictures");
                kind = Bits(body.slice(0, 2)).u(13) & 7;
            } else if (code <= 0xaf) {   // slice()
                break;
            }
        }
        if (at != SIZE_MAX && data.start_code(at, 0) != SIZE_MAX) refuse("a packet holds several pictures");
        if (kind < kI || kind > kB || (extended_ && !structure)) refuse("field pictures, or none");
        if (kind == kB) {
            put(true, false, fresh_ && !closed_);
            return;
        }
        fresh_ = kind == kI && sequence;
        closed_ = closed;
        put(false, fresh_, false);
    }

private:
    // Size must stay: a decoder starts anew where it changes.
    void keep_size(Bytes header) {
        const Bytes field = header.slice(0, 3);
        const std::string size(reinterpret_cast<const char*>(field.data), field.size);
        if (!size_.empty() && size != size_) refuse("the sequence header changes in mid-stream");
        size_ = size;
    }

    bool extended_;
    bool closed_ = false;
    bool fresh_ = false;   // the last picture that is not B was an entry
    std::string size_;
};

// One coded rectangular frame a packet. Decoding starts at the first packet only: which bugs of its encoder libavcodec
// works round is told by user data that may come once.
class Mpeg4Scanner : public ReorderedScanner {
public:
    explicit Mpeg4Scanner(Bytes extradata) {
        restarts = false;
        headers(extradata);
    }

    void scan(Bytes data) override {
        const size_t at = headers(data);
        if (at == SIZE_MAX || time_bits_ == 0) refuse("a packet holds no coded frame");
        if (data.start_code(at, 0xb6) != SIZE_MAX) refuse("a packet holds several frames");
        Bits bits(data.slice(at, at + 32));
        const uint32_t kind = bits.u(2);   // vop_coding_type (6.2.5): I, P, B, S
        while (bits.flag()) {
        }
        bits.u(1 + time_bits_ + 1);
        if (!bits.flag()) refuse("frames that are not coded");
        const bool b = kind == 2;
        put(b, kind == 0 && pictures_.found.empty(), b && anchors_ < 2);
    }

private:
    // Reads what comes before the frame; returns where the frame begins, SIZE_MAX if there is none.
    size_t headers(Bytes data) {
        for (size_t at = data.start_code(0); at != SIZE_MAX && at + 3 < data.size; at = data.start_code(at + 3)) {
            const uint8_t code = data.data[at + 3];
            if (code == 0xb6) return at + 4;
            if (code >= 0x20 && code <= 0x2f) {
                layer(data.slice(at + 4, at + 68));
            }
        }
        return SIZE_MAX;
    }

    // VideoObjectLayer (6.2.3), as far as the width of the time field.
    void layer(Bytes body) {
        Bits bits(body);
        bits.u(9);
        uint32_t version = 1;
        if (bits.flag()) {
            version = bits.u(4);
            bits.u(3);
        }
        if (bits.u(4) == 15) bits.u(16);   // aspect ratio
        if (bits.flag()) {                 // control parameters
            bits.u(3);
            if (bits.flag()) bits.skip(79);
        }
        if (bits.u(2) != 0 || version > 5) refuse("shapes that are not rectangular");
        bits.u(1);
        const uint32_t resolution = bits.u(16);
        int width = 1;
        while (resolution > 1u << width) ++width;
        if (time_bits_ != 0 && time_bits_ != width) refuse("the layer changes in mid-stream");
        time_bits_ = width;
    }

    int time_bits_ = 0;
};

}  // namespace

std::unique_ptr<Scanner> mpeg12_scanner(bool extended) { return std::make_unique<Mpeg12Scanner>(extended); }
std::unique_ptr<Scanner> mpeg4_scanner(Bytes extradata) { return std::make_unique<Mpeg4Scanner>(extradata); }

}  // namespace gpupipe
