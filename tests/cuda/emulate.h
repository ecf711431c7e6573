// As much of CUDA as csrc/frames.cu uses, on a CPU: see emulate.cpp. Vector types keep their alignment, so that a
// sanitizer sees a load that a device would refuse.
#pragma once

#include <cstdint>

#define __device__
#define __global__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __shared__ static

struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

struct Index {
    unsigned x = 0, y = 0, z = 0;
};
extern Index threadIdx, blockIdx, blockDim;

void __syncthreads();

template <typename T>
inline T __ldg(const T* from) {
    return *from;
}

inline void atomicAdd(uint32_t* to, uint32_t amount) { *to += amount; }   // one thread runs at a time

// CUDA's reference: byte i of the result is the one that nibble i of the selector names; its top bit is not used here.
inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t both = uint64_t{b} << 32 | a;
    uint32_t result = 0;
    for (int i = 0; i < 4; ++i)
        result |= static_cast<uint32_t>(both >> (8 * (selector >> (4 * i) & 7)) & 0xff) << (8 * i);
    return result;
}

inline uint32_t __dp2a_lo(uint32_t a, uint32_t b, uint32_t c) {
    return c + (a & 0xffff) * (b & 0xff) + (a >> 16) * (b >> 8 & 0xff);
}
inline uint32_t __dp2a_hi(uint32_t a, uint32_t b, uint32_t c) {
    return c + (a & 0xffff) * (b >> 16 & 0xff) + (a >> 16) * (b >> 24);
}
