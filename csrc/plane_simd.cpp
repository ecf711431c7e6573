// AVX2, AVX-512 and NEON kernels, compiled by function attribute (no -march flag) and chosen at run time.
// Every sum is of the same integers as in kernels.cpp; integer sums do not depend on their order.
#include "kernels.h"

#include <cstring>

#if defined(__x86_64__)
// GCC 12's own AVX-512 header passes deliberately undefined operands and then warns of them.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx2,avx512f,avx512bw,avx512vl")))

namespace gpupipe {
namespace {

inline uint32_t pair_of(const int16_t* weights) {
    uint32_t both;
    std::memcpy(&both, weights, sizeof both);
    return both;
}

// vertical_round of the sums, packed to 16 bits in the order of the in-lane unpacking before it. The saturation of
// packs is the clamp of the definition: sums are never negative and 32768 is the only value above kMidMax.
AVX2 inline __m256i round_pack(__m256i a, __m256i b, __m256i half, __m128i shift) {
    return _mm256_packs_epi32(_mm256_sra_epi32(_mm256_add_epi32(a, half), shift),
                              _mm256_sra_epi32(_mm256_add_epi32(b, half), shift));
}

AVX512 inline __m512i round_pack(__m512i a, __m512i b, __m512i half, __m128i shift) {
    return _mm512_packs_epi32(_mm512_sra_epi32(_mm512_add_epi32(a, half), shift),
                              _mm512_sra_epi32(_mm512_add_epi32(b, half), shift));
}

// 32 columns of bytes. Two rows are interleaved to 16-bit pairs; one multiply-add takes both.
AVX2 inline void columns8(int16_t* out, const uint8_t* rows, ptrdiff_t stride, const int16_t* weights, int taps) {
    const __m256i zero = _mm256_setzero_si256(), half = _mm256_set1_epi32(1 << 6);
    const __m128i shift = _mm_cvtsi32_si128(7);
    __m256i s0 = zero, s1 = zero, s2 = zero, s3 = zero;
    for (int t = 0; t < taps; t += 2) {
        const uint8_t* first = rows + t * stride;
        const uint8_t* second = t + 1 < taps ? first + stride : first;   // the weight after the last tap is 0
        const __m256i w = _mm256_set1_epi32(static_cast<int>(pair_of(weights + t)));
        const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(first));
        const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(second));
        const __m256i low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
        s0 = _mm256_add_epi32(s0, _mm256_madd_epi16(_mm256_unpacklo_epi8(low, zero), w));
        s1 = _mm256_add_epi32(s1, _mm256_madd_epi16(_mm256_unpackhi_epi8(low, zero), w));
        s2 = _mm256_add_epi32(s2, _mm256_madd_epi16(_mm256_unpacklo_epi8(high, zero), w));
        s3 = _mm256_add_epi32(s3, _mm256_madd_epi16(_mm256_unpackhi_epi8(high, zero), w));
    }
    const __m256i low = round_pack(s0, s1, half, shift), high = round_pack(s2, s3, half, shift);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_permute2x128_si256(low, high, 0x20));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 16), _mm256_permute2x128_si256(low, high, 0x31));
}

// Whole vectors from the left, the last one flush with the right end (its first columns are computed again): nothing
// outside the row is touched, and only rows shorter than a vector take the portable loop.
AVX2 void vertical8_avx2(int16_t* out, const uint8_t* rows, ptrdiff_t stride, const int16_t* weights, int taps, int n) {
    constexpr int kStep = 32;
    if (n < kStep) return kGeneric.vertical8(out, rows, stride, weights, taps, n);
    for (int x = 0; x + kStep <= n; x += kStep) columns8(out + x, rows + x, stride, weights, taps);
    if (n % kStep) columns8(out + n - kStep, rows + n - kStep, stride, weights, taps);
}

AVX512 inline void columns8_512(int16_t* out, const uint8_t* rows, ptrdiff_t stride, const int16_t* weights, int taps) {
    const __m512i zero = _mm512_setzero_si512(), half = _mm512_set1_epi32(1 << 6);
    const __m128i shift = _mm_cvtsi32_si128(7);
    __m512i s0 = zero, s1 = zero, s2 = zero, s3 = zero;
    for (int t = 0; t < taps; t += 2) {
        const uint8_t* first = rows + t * stride;
        const uint8_t* second = t + 1 < taps ? first + stride : first;
        const __m512i w = _mm512_set1_epi32(static_cast<int>(pair_of(weights + t)));
        const __m512i a = _mm512_loadu_si512(first), b = _mm512_loadu_si512(second);
        const __m512i low = _mm512_unpacklo_epi8(a, b), high = _mm512_unpackhi_epi8(a, b);
        s0 = _mm512_add_epi32(s0, _mm512_madd_epi16(_mm512_unpacklo_epi8(low, zero), w));
        s1 = _mm512_add_epi32(s1, _mm512_madd_epi16(_mm512_unpackhi_epi8(low, zero), w));
        s2 = _mm512_add_epi32(s2, _mm512_madd_epi16(_mm512_unpacklo_epi8(high, zero), w));
        s3 = _mm512_add_epi32(s3, _mm512_madd_epi16(_mm512_unpackhi_epi8(high, zero), w));
    }
    const __m512i low = round_pack(s0, s1, half, shift), high = round_pack(s2, s3, half, shift);
    const __m512i left = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const __m512i right = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    _mm512_storeu_si512(out, _mm512_permutex2var_epi64(low, left, high));
    _mm512_storeu_si512(out + 32, _mm512_permutex2var_epi64(low, right, high));
}

AVX512 void vertical8_avx512(int16_t* out, const uint8_t* rows, ptrdiff_t stride, const int16_t* weights, int taps,
                             int n) {
    constexpr int kStep = 64;
    if (n < kStep) return vertical8_avx2(out, rows, stride, weights, taps, n);
    for (int x = 0; x + kStep <= n; x += kStep) columns8_512(out + x, rows + x, stride, weights, taps);
    if (n % kStep) columns8_512(out + n - kStep, rows + n - kStep, stride, weights, taps);
}

// 16 columns of 16-bit words. 16-bit codes do not fit a signed multiplier: they are lowered by 32768, the sum raised
// again by 32768 * 16384, which is exact because the weights sum to 16384.
AVX2 inline void columns16(int16_t* out, const uint8_t* rows, ptrdiff_t stride, const int16_t* weights, int taps,
                           int shift, int depth) {
    const __m256i mask = _mm256_set1_epi16(static_cast<int16_t>((1u << depth) - 1));
    const __m256i sign = _mm256_set1_epi16(static_cast<int16_t>(depth == 16 ? 0x8000 : 0));
    const __m256i half = _mm256_set1_epi32((1 << (depth - 2)) + (depth == 16 ? kWeightSum << 15 : 0));
    const __m128i down = _mm_cvtsi32_si128(shift), round = _mm_cvtsi32_si128(depth - 1);
    __m256i s0 = _mm256_setzero_si256(), s1 = s0;
    for (int t = 0; t < taps; t += 2) {
        const uint8_t* first = rows + t * stride;
        const uint8_t* second = t + 1 < taps ? first + stride : first;
        const __m256i w = _mm256_set1_epi32(static_cast<int>(pair_of(weights + t)));
        __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(first));
        __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(second));
        a = _mm256_xor_si256(_mm256_and_si256(_mm256_srl_epi16(a, down), mask), sign);
        b = _mm256_xor_si256(_mm256_and_si256(_mm256_srl_epi16(b, down), mask), sign);
        s0 = _mm256_add_epi32(s0, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), w));
        s1 = _mm256_add_epi32(s1, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), w));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), round_pack(s0, s1, half, round));
}

AVX2 void vertical16_avx2(int16_t* out, const uint8_t* rows, ptrdiff_t stride, const int16_t* weights, int taps, int n,
                          int shift, int depth) {
    constexpr int kStep = 16;
    if (n < kStep) return kGeneric.vertical16(out, rows, stride, weights, taps, n, shift, depth);
    for (int x = 0; x + kStep <= n; x += kStep) columns16(out + x, rows + 2 * x, stride, weights, taps, shift, depth);
    if (n % kStep) columns16(out + n - kStep, rows + 2 * (n - kStep), stride, weights, taps, shift, depth);
}

AVX512 inline void columns16_512(int16_t* out, const uint8_t* rows, ptrdiff_t stride, const int16_t* weights, int taps,
                                 int shift, int depth) {
    const __m512i mask = _mm512_set1_epi16(static_cast<int16_t>((1u << depth) - 1));
    const __m512i sign = _mm512_set1_epi16(static_cast<int16_t>(depth == 16 ? 0x8000 : 0));
    const __m512i half = _mm512_set1_epi32((1 << (depth - 2)) + (depth == 16 ? kWeightSum << 15 : 0));
    const __m128i down = _mm_cvtsi32_si128(shift), round = _mm_cvtsi32_si128(depth - 1);
    __m512i s0 = _mm512_setzero_si512(), s1 = s0;
    for (int t = 0; t < taps; t += 2) {
        const uint8_t* first = rows + t * stride;
        const uint8_t* second = t + 1 < taps ? first + stride : first;
        const __m512i w = _mm512_set1_epi32(static_cast<int>(pair_of(weights + t)));
        __m512i a = _mm512_loadu_si512(first), b = _mm512_loadu_si512(second);
        a = _mm512_xor_si512(_mm512_and_si512(_mm512_srl_epi16(a, down), mask), sign);
        b = _mm512_xor_si512(_mm512_and_si512(_mm512_srl_epi16(b, down), mask), sign);
        s0 = _mm512_add_epi32(s0, _mm512_madd_epi16(_mm512_unpacklo_epi16(a, b), w));
        s1 = _mm512_add_epi32(s1, _mm512_madd_epi16(_mm512_unpackhi_epi16(a, b), w));
    }
    _mm512_storeu_si512(out, round_pack(s0, s1, half, round));
}

AVX512 void vertical16_avx512(int16_t* out, const uint8_t* rows, ptrdiff_t stride, const int16_t* weights, int taps,
                              int n, int shift, int depth) {
    constexpr int kStep = 32;
    if (n < kStep) return vertical16_avx2(out, rows, stride, weights, taps, n, shift, depth);
    for (int x = 0; x + kStep <= n; x += kStep)
        columns16_512(out + x, rows + 2 * x, stride, weights, taps, shift, depth);
    if (n % kStep) columns16_512(out + n - kStep, rows + 2 * (n - kStep), stride, weights, taps, shift, depth);
}

// A pair of columns is one 32-bit element: eight rows of eight elements are turned over.
AVX2 void transpose_avx2(int16_t* pairs, const int16_t* rows, int n) {
    static_assert(kRows == 8 && kGroup == 16, "8 x 8 elements");
    for (int x = 0; x < n; x += 16, pairs += 8 * kPair) {
        __m256i r[8], s[8];
        for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows + i * kBlock + x));
        for (int i = 0; i < 8; i += 2) {
            s[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
            s[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
        }
        for (int i = 0; i < 8; i += 4) {
            r[i] = _mm256_unpacklo_epi64(s[i], s[i + 2]);
            r[i + 1] = _mm256_unpackhi_epi64(s[i], s[i + 2]);
            r[i + 2] = _mm256_unpacklo_epi64(s[i + 1], s[i + 3]);
            r[i + 3] = _mm256_unpackhi_epi64(s[i + 1], s[i + 3]);
        }
        for (int i = 0; i < 4; ++i) {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(pairs + i * kPair),
                                _mm256_permute2x128_si256(r[i], r[i + 4], 0x20));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(pairs + (i + 4) * kPair),
                                _mm256_permute2x128_si256(r[i], r[i + 4], 0x31));
        }
    }
}

// Eight rows of one output: 32-bit, rounded, below 2^15.
AVX2 inline __m256i output_avx2(const int16_t* pair, const int16_t* weights, int taps) {
    __m256i sum = _mm256_set1_epi32(1 << (kWeightBits - 1));
    for (int t = 0; t < taps; t += 2, pair += kPair) {
        const __m256i w = _mm256_set1_epi32(static_cast<int>(pair_of(weights + t)));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(pair)), w));
    }
    return _mm256_srli_epi32(sum, kWeightBits);
}

AVX2 void horizontal_avx2(int16_t* lines, ptrdiff_t pitch, const int16_t* pairs, const int32_t* start,
                          const int16_t* weights, int taps, int outputs) {
    for (int o = 0; o < outputs; o += 8) {
        __m256i two[4];   // outputs 2i and 2i + 1 in the low and high half of each row's element
        for (int i = 0; i < 4; ++i) {
            const int k = o + 2 * i;
            const __m256i a = output_avx2(pairs + start[k] * static_cast<ptrdiff_t>(kRows), weights, taps);
            const __m256i b = output_avx2(pairs + start[k + 1] * static_cast<ptrdiff_t>(kRows), weights + taps, taps);
            two[i] = _mm256_or_si256(a, _mm256_slli_epi32(b, 16));
            weights += 2 * taps;
        }
        const __m256i p = _mm256_unpacklo_epi32(two[0], two[1]), q = _mm256_unpackhi_epi32(two[0], two[1]);
        const __m256i r = _mm256_unpacklo_epi32(two[2], two[3]), s = _mm256_unpackhi_epi32(two[2], two[3]);
        const __m256i rows[4] = {_mm256_unpacklo_epi64(p, r), _mm256_unpackhi_epi64(p, r), _mm256_unpacklo_epi64(q, s),
                                 _mm256_unpackhi_epi64(q, s)};
        for (int i = 0; i < 4; ++i) {
            _mm_storeu_si128(reinterpret_cast<__m128i*>(lines + i * pitch + o), _mm256_castsi256_si128(rows[i]));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(lines + (i + 4) * pitch + o),
                             _mm256_extracti128_si256(rows[i], 1));
        }
    }
}

// One channel of 16 pixels, as 16-bit levels not yet clipped to 8 (packs only saturates what is clipped anyway).
AVX2 inline __m256i channel_avx2(__m256i yu_low, __m256i yu_high, __m256i v_low, __m256i v_high, const int32_t c[3],
                                 int32_t bias) {
    const __m256i yu = _mm256_set1_epi32(c[1] * 65536 + (c[0] & 0xffff)), v = _mm256_set1_epi32(c[2] & 0xffff);
    const __m256i start = _mm256_set1_epi32(bias);
    const __m256i low =
        _mm256_add_epi32(_mm256_add_epi32(start, _mm256_madd_epi16(yu_low, yu)), _mm256_madd_epi16(v_low, v));
    const __m256i high =
        _mm256_add_epi32(_mm256_add_epi32(start, _mm256_madd_epi16(yu_high, yu)), _mm256_madd_epi16(v_high, v));
    return _mm256_packs_epi32(_mm256_srai_epi32(low, kColourShift), _mm256_srai_epi32(high, kColourShift));
}

AVX2 inline __m128i bytes_of(__m256i levels) {
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi16(levels, levels), 0x08));
}

AVX2 void colour_avx2(uint8_t* rgb, const int16_t* y, const int16_t* u, const int16_t* v, int n,
                      const ColourMatrix& m) {
    // Byte i of vector k of the interleaved output is channel (16 k + i) % 3 of pixel (16 k + i) / 3.
    alignas(16) static const int8_t from[3][3][16] = {
        {{0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1, 5},
         {-1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1},
         {-1, -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1}},
        {{-1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10, -1},
         {5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10},
         {-1, 5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1}},
        {{-1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1, -1},
         {-1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1},
         {10, -1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15}}};
    const __m256i neutral = _mm256_set1_epi16(kMidNeutral), zero = _mm256_setzero_si256();
    for (int x = 0; x < n; x += 16) {
        const __m256i luma = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(y + x));
        const __m256i cb = _mm256_sub_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(u + x)), neutral);
        const __m256i cr = _mm256_sub_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(v + x)), neutral);
        const __m256i yu_low = _mm256_unpacklo_epi16(luma, cb), yu_high = _mm256_unpackhi_epi16(luma, cb);
        const __m256i v_low = _mm256_unpacklo_epi16(cr, zero), v_high = _mm256_unpackhi_epi16(cr, zero);
        __m128i channel[3];
        for (int c = 0; c < 3; ++c)
            channel[c] = bytes_of(channel_avx2(yu_low, yu_high, v_low, v_high, m.c[c], m.bias[c]));
        uint8_t last[48];
        uint8_t* out = x + 16 <= n ? rgb + 3 * x : last;
        for (int k = 0; k < 3; ++k) {
            __m128i packed = _mm_setzero_si128();
            for (int c = 0; c < 3; ++c) {
                const __m128i order = _mm_load_si128(reinterpret_cast<const __m128i*>(from[k][c]));
                packed = _mm_or_si128(packed, _mm_shuffle_epi8(channel[c], order));
            }
            _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * k), packed);
        }
        if (out == last) std::memcpy(rgb + 3 * x, last, static_cast<size_t>(3 * (n - x)));
    }
}

}  // namespace

const Kernels kAvx2{"avx2", vertical8_avx2, vertical16_avx2, transpose_avx2, horizontal_avx2, colour_avx2};
const Kernels kAvx512{"avx512", vertical8_avx512, vertical16_avx512, transpose_avx2, horizontal_avx2, colour_avx2};

}  // namespace gpupipe
#endif  // __x86_64__

#if defined(__aarch64__)
#include <arm_neon.h>

namespace gpupipe {
namespace {

// The narrowing shifts round and saturate exactly as the definition does: (sum + half) >> n, clamped above at 32767.
inline void columns8(int16_t* out, const uint8_t* rows, ptrdiff_t stride, const int16_t* weights, int taps) {
    int32x4_t sums[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
    for (int t = 0; t < taps; ++t) {
        const uint8x16_t row = vld1q_u8(rows + t * stride);
        const int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(row)));
        const int16x8_t high = vreinterpretq_s16_u16(vmovl_high_u8(row));
        sums[0] = vmlal_n_s16(sums[0], vget_low_s16(low), weights[t]);
        sums[1] = vmlal_high_n_s16(sums[1], low, weights[t]);
        sums[2] = vmlal_n_s16(sums[2], vget_low_s16(high), weights[t]);
        sums[3] = vmlal_high_n_s16(sums[3], high, weights[t]);
    }
    vst1q_s16(out, vcombine_s16(vqrshrn_n_s32(sums[0], 7), vqrshrn_n_s32(sums[1], 7)));
    vst1q_s16(out + 8, vcombine_s16(vqrshrn_n_s32(sums[2], 7), vqrshrn_n_s32(sums[3], 7)));
}

// As on x86: the last vector is flush with the right end.
void vertical8_neon(int16_t* out, const uint8_t* rows, ptrdiff_t stride, const int16_t* weights, int taps, int n) {
    constexpr int kStep = 16;
    if (n < kStep) return kGeneric.vertical8(out, rows, stride, weights, taps, n);
    for (int x = 0; x + kStep <= n; x += kStep) columns8(out + x, rows + x, stride, weights, taps);
    if (n % kStep) columns8(out + n - kStep, rows + n - kStep, stride, weights, taps);
}

inline void columns16(int16_t* out, const uint8_t* rows, ptrdiff_t stride, const int16_t* weights, int taps, int shift,
                      int depth) {
    const uint16x8_t mask = vdupq_n_u16(static_cast<uint16_t>((1u << depth) - 1));
    const uint16x8_t sign = vdupq_n_u16(depth == 16 ? 0x8000 : 0);
    const int16x8_t down = vdupq_n_s16(static_cast<int16_t>(-shift));
    const int32x4_t round = vdupq_n_s32(1 - depth);
    int32x4_t low = vdupq_n_s32((1 << (depth - 2)) + (depth == 16 ? kWeightSum << 15 : 0)), high = low;
    for (int t = 0; t < taps; ++t) {
        const uint16x8_t words = vreinterpretq_u16_u8(vld1q_u8(rows + t * stride));
        const int16x8_t codes = vreinterpretq_s16_u16(veorq_u16(vandq_u16(vshlq_u16(words, down), mask), sign));
        low = vmlal_n_s16(low, vget_low_s16(codes), weights[t]);
        high = vmlal_high_n_s16(high, codes, weights[t]);
    }
    vst1q_s16(out, vcombine_s16(vqmovn_s32(vshlq_s32(low, round)), vqmovn_s32(vshlq_s32(high, round))));
}

void vertical16_neon(int16_t* out, const uint8_t* rows, ptrdiff_t stride, const int16_t* weights, int taps, int n,
                     int shift, int depth) {
    constexpr int kStep = 8;
    if (n < kStep) return kGeneric.vertical16(out, rows, stride, weights, taps, n, shift, depth);
    for (int x = 0; x + kStep <= n; x += kStep) columns16(out + x, rows + 2 * x, stride, weights, taps, shift, depth);
    if (n % kStep) columns16(out + n - kStep, rows + 2 * (n - kStep), stride, weights, taps, shift, depth);
}

inline int16x8_t trn1_32(int16x8_t a, int16x8_t b) {
    return vreinterpretq_s16_s32(vtrn1q_s32(vreinterpretq_s32_s16(a), vreinterpretq_s32_s16(b)));
}
inline int16x8_t trn2_32(int16x8_t a, int16x8_t b) {
    return vreinterpretq_s16_s32(vtrn2q_s32(vreinterpretq_s32_s16(a), vreinterpretq_s32_s16(b)));
}
inline int16x8_t trn1_64(int16x8_t a, int16x8_t b) {
    return vreinterpretq_s16_s64(vtrn1q_s64(vreinterpretq_s64_s16(a), vreinterpretq_s64_s16(b)));
}
inline int16x8_t trn2_64(int16x8_t a, int16x8_t b) {
    return vreinterpretq_s16_s64(vtrn2q_s64(vreinterpretq_s64_s16(a), vreinterpretq_s64_s16(b)));
}

void transpose_neon(int16_t* pairs, const int16_t* rows, int n) {
    for (int x = 0; x < n; x += 8, pairs += 4 * kPair) {
        for (int half = 0; half < 2; ++half) {   // four rows of four pairs
            const int16_t* from = rows + half * 4 * kBlock + x;
            int16_t* to = pairs + half * 8;
            const int16x8_t a = vld1q_s16(from), b = vld1q_s16(from + kBlock);
            const int16x8_t c = vld1q_s16(from + 2 * kBlock), d = vld1q_s16(from + 3 * kBlock);
            const int16x8_t ab1 = trn1_32(a, b), ab2 = trn2_32(a, b), cd1 = trn1_32(c, d), cd2 = trn2_32(c, d);
            vst1q_s16(to, trn1_64(ab1, cd1));
            vst1q_s16(to + kPair, trn1_64(ab2, cd2));
            vst1q_s16(to + 2 * kPair, trn2_64(ab1, cd1));
            vst1q_s16(to + 3 * kPair, trn2_64(ab2, cd2));
        }
    }
}

void horizontal_neon(int16_t* lines, ptrdiff_t pitch, const int16_t* pairs, const int32_t* start,
                     const int16_t* weights, int taps, int outputs) {
    for (int o = 0; o < outputs; o += 8) {
        int16x8_t a[8], b[8];
        for (int i = 0; i < 8; ++i, weights += taps) {
            const int16_t* pair = pairs + start[o + i] * static_cast<ptrdiff_t>(kRows);
            int32x4_t low = vdupq_n_s32(0), high = low;
            for (int t = 0; t < taps; t += 2, pair += kPair) {
                const int16x8x2_t columns = vld2q_s16(pair);
                low = vmlal_n_s16(low, vget_low_s16(columns.val[0]), weights[t]);
                high = vmlal_high_n_s16(high, columns.val[0], weights[t]);
                low = vmlal_n_s16(low, vget_low_s16(columns.val[1]), weights[t + 1]);
                high = vmlal_high_n_s16(high, columns.val[1], weights[t + 1]);
            }
            a[i] = vcombine_s16(vrshrn_n_s32(low, kWeightBits), vrshrn_n_s32(high, kWeightBits));
        }
        for (int i = 0; i < 8; i += 2) {
            b[i] = vtrn1q_s16(a[i], a[i + 1]);
            b[i + 1] = vtrn2q_s16(a[i], a[i + 1]);
        }
        for (int i = 0; i < 8; i += 4) {
            for (int k = 0; k < 2; ++k) {
                a[i + k] = trn1_32(b[i + k], b[i + k + 2]);
                a[i + k + 2] = trn2_32(b[i + k], b[i + k + 2]);
            }
        }
        for (int i = 0; i < 4; ++i) {
            vst1q_s16(lines + i * pitch + o, trn1_64(a[i], a[i + 4]));
            vst1q_s16(lines + (i + 4) * pitch + o, trn2_64(a[i], a[i + 4]));
        }
    }
}

inline uint8x8_t channel_neon(int16x8_t y, int16x8_t u, int16x8_t v, const int32_t c[3], int32_t bias) {
    const int16_t c0 = static_cast<int16_t>(c[0]), c1 = static_cast<int16_t>(c[1]), c2 = static_cast<int16_t>(c[2]);
    int32x4_t low = vmlal_n_s16(vdupq_n_s32(bias), vget_low_s16(y), c0);
    int32x4_t high = vmlal_high_n_s16(vdupq_n_s32(bias), y, c0);
    low = vmlal_n_s16(vmlal_n_s16(low, vget_low_s16(u), c1), vget_low_s16(v), c2);
    high = vmlal_high_n_s16(vmlal_high_n_s16(high, u, c1), v, c2);
    return vqmovun_s16(
        vcombine_s16(vqmovn_s32(vshrq_n_s32(low, kColourShift)), vqmovn_s32(vshrq_n_s32(high, kColourShift))));
}

void colour_neon(uint8_t* rgb, const int16_t* y, const int16_t* u, const int16_t* v, int n, const ColourMatrix& m) {
    const int16x8_t neutral = vdupq_n_s16(kMidNeutral);
    for (int x = 0; x < n; x += 8) {
        const int16x8_t luma = vld1q_s16(y + x);
        const int16x8_t cb = vsubq_s16(vld1q_s16(u + x), neutral), cr = vsubq_s16(vld1q_s16(v + x), neutral);
        uint8x8x3_t pixels;
        for (int c = 0; c < 3; ++c) pixels.val[c] = channel_neon(luma, cb, cr, m.c[c], m.bias[c]);
        if (x + 8 <= n) {
            vst3_u8(rgb + 3 * x, pixels);
        } else {
            uint8_t last[24];
            vst3_u8(last, pixels);
            std::memcpy(rgb + 3 * x, last, static_cast<size_t>(3 * (n - x)));
        }
    }
}

}  // namespace

const Kernels kNeon{"neon", vertical8_neon, vertical16_neon, transpose_neon, horizontal_neon, colour_neon};

}  // namespace gpupipe
#endif  // __aarch64__
