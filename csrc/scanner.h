// Bitstream headers: what each packet shows, its place in output order, and where decoding may start.
// Nothing here decodes pictures, and nothing here trusts the container's flags; gpupipe/decode/headers says what the
// fields mean. Every byte that is read may be hostile.
// Owner: whoever made the scanner. Not for several threads at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bits.h"

namespace gpupipe {

// One packet, as its headers describe it; Python reads it as a structured array (headers/picture.py).
struct Picture {
    int64_t order = 0;       // rank in output order
    int64_t prefix = 0;      // bytes behind which a picture comes that is droppable itself; 0 where there is none
    int64_t needs_end = 0;   // Pictures::needs of this packet end here; they begin where those of the one before end
    bool shown = true;
    bool entry = false;
    bool leading = false;
    bool droppable = false;
    bool broken = false;
    bool anchor = false;
    bool named = false;      // the packets that it needs are known
    bool padding = false;
};

static_assert(sizeof(Picture) == 32, "Python knows its layout");

struct Pictures {
    std::vector<Picture> found;
    std::vector<int64_t> needs;
};

class Scanner {
public:
    virtual ~Scanner() = default;
    virtual void scan(Bytes data) = 0;   // throws Refused
    virtual void lose() = 0;             // the packet that scan() just refused is a broken picture; throws Refused
    virtual const Pictures& pictures(int64_t delay) = 0;   // throws Refused; valid until the next call of any kind

    // As libavcodec treats the codec, see headers/picture.py.
    bool skips = false;
    bool restarts = true;
    int64_t reach = 0;
};

// A scanner that knows each packet's picture at once.
class ListScanner : public Scanner {
public:
    void lose() override {
        Picture& picture = add();
        picture.broken = true;
    }
    const Pictures& pictures(int64_t) override { return pictures_; }

protected:
    // A picture that is shown after all before it, until more is said.
    Picture& add() {
        Picture picture;
        picture.order = static_cast<int64_t>(pictures_.found.size());
        picture.needs_end = static_cast<int64_t>(pictures_.needs.size());
        pictures_.found.push_back(picture);
        return pictures_.found.back();
    }

    Pictures pictures_;
};

std::unique_ptr<Scanner> h264_scanner(Bytes extradata);
std::unique_ptr<Scanner> hevc_scanner(Bytes extradata);
std::unique_ptr<Scanner> vvc_scanner(Bytes extradata);
std::unique_ptr<Scanner> av1_scanner(Bytes extradata);
std::unique_ptr<Scanner> vp8_scanner();
std::unique_ptr<Scanner> vp9_scanner();
std::unique_ptr<Scanner> mpeg12_scanner(bool extended);
std::unique_ptr<Scanner> mpeg4_scanner(Bytes extradata);
std::unique_ptr<Scanner> mjpeg_scanner();
std::unique_ptr<Scanner> intra_scanner();

// The door: nothing is thrown through these. They return null, or why the headers do not do: a literal;
// kOutOfMemory itself, where that is the reason.
extern const char* const kOutOfMemory;
const char* make_scanner(std::unique_ptr<Scanner>& made, const std::string& codec, Bytes extradata) noexcept;
const char* scan_packet(Scanner& scanner, Bytes data) noexcept;
const char* lose_packet(Scanner& scanner) noexcept;
const char* scanned_pictures(Scanner& scanner, int64_t delay, const Pictures*& pictures) noexcept;

// Appends one number a width: of so many bits (at most 32), an Exp-Golomb code for 0, a signed one for -1. For tests.
const char* read_bits(Bytes data, bool escaped, const std::vector<int>& widths, std::vector<int64_t>& numbers) noexcept;

}  // namespace gpupipe
