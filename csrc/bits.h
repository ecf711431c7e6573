// Reading bits out of headers that nobody vouches for: every read is checked against the end.
// Inside the scanners what a header does not say for certain is thrown as Refused; scanner.cpp catches it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace gpupipe {

struct Refused {
    const char* why;   // a literal
};

[[noreturn]] inline void refuse(const char* why) { throw Refused{why}; }

// Somebody else's memory.
struct Bytes {
    const uint8_t* data = nullptr;
    size_t size = 0;

    // The bytes [begin, end), as far as there are any.
    Bytes slice(size_t begin, size_t end = SIZE_MAX) const {
        begin = begin < size ? begin : size;
        end = end < size ? end : size;
        return {data + begin, end > begin ? end - begin : 0};
    }

    bool starts_with(const char* text, size_t length) const {
        return size >= length && std::memcmp(data, text, length) == 0;
    }

    // Big-endian number of the first `width` bytes, of fewer where there are no more.
    uint32_t big_endian(size_t width) const {
        uint32_t value = 0;
        for (size_t i = 0; i < width && i < size; ++i) value = value << 8 | data[i];
        return value;
    }

    // Where the start code 00 00 01 begins, from `at` on; SIZE_MAX where there is none.
    size_t start_code(size_t at) const {
        while (at < size && size - at >= 3) {
            if (data[at + 2] > 1) {
                at += 3;
            } else if (data[at + 2] == 1 && data[at] == 0 && data[at + 1] == 0) {
                return at;
            } else {
                ++at;
            }
        }
        return SIZE_MAX;
    }

    // Where 00 00 01 `code` begins.
    size_t start_code(size_t at, uint8_t code) const {
        for (at = start_code(at); at != SIZE_MAX && at + 3 < size; at = start_code(at + 3)) {
            if (data[at + 3] == code) return at;
        }
        return SIZE_MAX;
    }
};

// Big-endian bits from the start of some bytes.
class Bits {
public:
    // kEscaped: a NAL unit's payload, whose emulation prevention bytes are stepped over (H.264 7.4.1, H.265 7.4.2,
    // H.266 7.4.2).
    enum Form { kPlain, kEscaped };

    explicit Bits(Bytes bytes, Form form = kPlain)
        : next_(bytes.data), end_(bytes.data + bytes.size), escaped_(form == kEscaped) {}

    // Unsigned integer of at most 32 bits.
    uint32_t u(int count) {
        if (have_ < count) {
            fill();
            if (have_ < count) refuse("a header ends early");
        }
        if (count == 0) return 0;
        const uint32_t value = static_cast<uint32_t>(cache_ >> (64 - count));
        drop(count);
        return value;
    }

    bool flag() { return u(1) != 0; }

    void skip(int count) {
        for (; count > 32; count -= 32) u(32);
        u(count);
    }

    // Unsigned Exp-Golomb code (H.264 9.1) of at most 32 leading zeros: below 2^33.
    uint64_t ue() {
        int zeros = 0;
        fill();
        while (cache_ == 0) {
            zeros += have_;
            have_ = 0;
            fill();
            if (zeros > 32 || have_ == 0) refuse("an Exp-Golomb code is too long");
        }
        const int more = __builtin_clzll(cache_);
        zeros += more;
        if (zeros > 32) refuse("an Exp-Golomb code is too long");
        drop(more);
        drop(1);
        return (uint64_t{1} << zeros) - 1 + u(zeros);
    }

    // Signed Exp-Golomb code (H.264 9.1.1).
    int64_t se() {
        const int64_t code = static_cast<int64_t>(ue());
        return code & 1 ? (code + 1) / 2 : -(code / 2);
    }

private:
    void drop(int count) {
        cache_ <<= count;   // never 64: flags and codes are taken in pieces
        have_ -= count;
    }

    void fill() {
        while (have_ <= 56 && next_ != end_) {
            const uint8_t byte = *next_++;
            if (escaped_) {
                if (byte == 3 && zeros_ >= 2) {
                    zeros_ = 0;
                    continue;
                }
                zeros_ = byte == 0 ? zeros_ + 1 : 0;
            }
            cache_ |= static_cast<uint64_t>(byte) << (56 - have_);
            have_ += 8;
        }
    }

    const uint8_t* next_;
    const uint8_t* end_;
    uint64_t cache_ = 0;   // its first have_ bits come next, the others are 0
    int have_ = 0;
    size_t zeros_ = 0;     // bytes of 0 in a row that were read last
    bool escaped_;
};

}  // namespace gpupipe
