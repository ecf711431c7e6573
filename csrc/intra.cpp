// Codecs whose every packet is a whole picture that needs no other.
#include "scanner.h"

namespace gpupipe {
namespace {

class IntraScanner : public ListScanner {
public:
    void scan(Bytes data) override { add().entry = data.size != 0; }
};

// Motion JPEG (ITU-T T.81, B.1): tables may carry over from one picture to the next.
class MjpegScanner : public ListScanner {
public:
    void scan(Bytes data) override {
        if (!data.starts_with("\xff\xd8", 2)) refuse("a packet does not begin as a JPEG picture");
        bool quantisers = false, codes = false;
        for (size_t at = 2; at < data.size && data.size - at >= 4;) {
            if (data.data[at] != 0xff) refuse("a JPEG marker is missing");
            const uint8_t marker = data.data[at + 1];
            if (marker == 0xff) {   // fill
                ++at;
                continue;
            }
            if (marker == 0xda) break;   // start of scan
            quantisers |= marker == 0xdb;
            codes |= marker == 0xc4;
            at += 2 + data.slice(at + 2).big_endian(2);
        }
        for (size_t at = 2; at < data.size && data.size - at >= 3; ++at) {
            const void* found = std::memchr(data.data + at, 0xff, data.size - at - 2);
            if (found == nullptr) break;
            at = static_cast<size_t>(static_cast<const uint8_t*>(found) - data.data);
            if (data.data[at + 1] == 0xd8 && data.data[at + 2] == 0xff) {
                refuse("a packet holds several pictures or fields");
            }
        }
        add().entry = quantisers && codes;
    }
};

}  // namespace

std::unique_ptr<Scanner> mjpeg_scanner() { return std::make_unique<MjpegScanner>(); }
std::unique_ptr<Scanner> intra_scanner() { return std::make_unique<IntraScanner>(); }

}  // namespace gpupipe
