#include "scanner.h"

#include <exception>

namespace gpupipe {
namespace {

template <typename Work>
const char* guarded(Work work) noexcept {
    try {
        work();
        return nullptr;
    } catch (const Refused& refused) {
        return refused.why;
    } catch (...) {   // the standard library throws here only where memory, or a length, runs out
        return kOutOfMemory;
    }
}

std::unique_ptr<Scanner> scanner_of(const std::string& codec, Bytes extradata) {
    if (codec == "h264") return h264_scanner(extradata);
    if (codec == "hevc") return hevc_scanner(extradata);
    if (codec == "vvc") return vvc_scanner(extradata);
    if (codec == "av1") return av1_scanner(extradata);
    if (codec == "vp8") return vp8_scanner();
    if (codec == "vp9") return vp9_scanner();
    if (codec == "mpeg1video") return mpeg12_scanner(false);
    if (codec == "mpeg2video") return mpeg12_scanner(true);
    if (codec == "mpeg4") return mpeg4_scanner(extradata);
    if (codec == "mjpeg") return mjpeg_scanner();
    if (codec == "intra") return intra_scanner();
    refuse("the headers of this codec are not read");
}

}  // namespace

const char* const kOutOfMemory = "out of memory";

const char* make_scanner(std::unique_ptr<Scanner>& made, const std::string& codec, Bytes extradata) noexcept {
    return guarded([&] { made = scanner_of(codec, extradata); });
}

const char* scan_packet(Scanner& scanner, Bytes data) noexcept {
    return guarded([&] { scanner.scan(data); });
}

const char* lose_packet(Scanner& scanner) noexcept {
    return guarded([&] { scanner.lose(); });
}

const char* scanned_pictures(Scanner& scanner, int64_t delay, const Pictures*& pictures) noexcept {
    return guarded([&] { pictures = &scanner.pictures(delay); });
}

const char* read_bits(Bytes data, bool escaped, const std::vector<int>& widths, std::vector<int64_t>& numbers) noexcept {
    return guarded([&] {
        Bits bits(data, escaped ? Bits::kEscaped : Bits::kPlain);
        for (const int width : widths) {
            if (width > 32 || width < -1) refuse("a width is out of range");
            const int64_t number = width > 0 ? bits.u(width) : width < 0 ? bits.se() : static_cast<int64_t>(bits.ue());
            numbers.push_back(number);
        }
    });
}

}  // namespace gpupipe
