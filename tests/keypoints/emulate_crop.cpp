// The crops' kernels themselves, run on a CPU: thread after thread, as no thread waits for another.
#include "../cuda/emulate.h"

Index threadIdx, blockIdx, blockDim;

#include "keypoints_crop.cu"

namespace {

template <typename Kernel>
void all_threads(unsigned blocks_x, unsigned blocks_y, Kernel kernel) {
    blockDim.x = gpupipe::kThreads;
    for (blockIdx.y = 0; blockIdx.y < blocks_y; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < blocks_x; ++blockIdx.x)
            for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x) kernel();
}

}  // namespace

extern "C" void emulate_crop_matrices(unsigned blocks_x, unsigned blocks_y, const gpupipe::Region* regions,
                                      const uint8_t* wanted, int32_t count, int32_t size, double* matrices) {
    all_threads(blocks_x, blocks_y, [=] { crop_matrices(regions, wanted, count, size, matrices); });
}

extern "C" void emulate_crop_pixels(unsigned blocks_x, unsigned blocks_y, const gpupipe::RgbImage* images,
                                    const double* matrices, const uint8_t* wanted, int32_t size, int32_t zeros,
                                    const float* codes, float* out) {
    all_threads(blocks_x, blocks_y, [=] { crop_pixels(images, matrices, wanted, size, zeros, codes, out); });
}
