// Crops of a batch, one of each image, for a network's input: the arithmetic of keypoints_warp.h, on the device. Compiled
// at first use (gpupipe/ops/keypoints/batched/card_album.py).
// Owner: the caller, of all memory, until the launches have run. Stream: the launches'. Bounds: an image is read within
// its rows; of the output all is written.
#include "keypoints_warp.h"

namespace gpupipe {

constexpr int kThreads = 256;   // of a block

static_assert(sizeof(RgbImage) == 24 && sizeof(Region) == 20, "as in card_album.py");

}  // namespace gpupipe

// The matrix of each region, a thread each; nothing where no crop is wanted. matrices: [count][9].
extern "C" __global__ void __launch_bounds__(gpupipe::kThreads)
    crop_matrices(const gpupipe::Region* __restrict__ regions, const uint8_t* __restrict__ wanted, int32_t count,
                  int32_t size, double* __restrict__ matrices) {
    const int32_t crop = static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
    if (crop < count && wanted[crop]) gpupipe::matrix_to_image(regions[crop], size, matrices + 9 * crop);
}

// A pixel a thread, the crop in blockIdx.y. codes: what each code becomes. out: [count][size][size][3], 0 where no crop
// is wanted.
extern "C" __global__ void __launch_bounds__(gpupipe::kThreads)
    crop_pixels(const gpupipe::RgbImage* __restrict__ images, const double* __restrict__ matrices,
                const uint8_t* __restrict__ wanted, int32_t size, int32_t zeros, const float* __restrict__ codes,
                float* __restrict__ out) {
    const int32_t place = static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
    if (place >= size * size) return;
    const int64_t crop = blockIdx.y;
    float* to = out + 3 * (crop * size * size + place);
    if (!wanted[crop]) {
        to[0] = to[1] = to[2] = 0;
        return;
    }
    int32_t x, y;
    uint8_t pixel[3];
    gpupipe::grid_point(matrices + 9 * crop, place / size, place % size, x, y);
    gpupipe::Sampler{images[crop], zeros != 0}(x, y, pixel);
    for (int c = 0; c < 3; ++c) to[c] = __ldg(codes + pixel[c]);
}
