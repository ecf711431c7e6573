// The kernel itself, run on a CPU: the threads of a block are contexts that take turns at each barrier, the blocks
// run one after the other. A missing barrier shows, since one thread runs as far as it may before the next begins.
#include <ucontext.h>

#include <cstddef>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#include "emulate.h"   // after the library's headers: it defines names that those use

Index threadIdx, blockIdx, blockDim;

#include "frames.cu"

namespace {

constexpr size_t kStack = 1 << 18;

struct Thread {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[kStack]};
    void* fake = nullptr;
    int barriers = 0;
    bool done = false;
};

ucontext_t scheduler;
Thread* running = nullptr;
const gpupipe::Tile* launch_tiles;
const gpupipe::Picture* launch_pictures;
const void* own_stack = nullptr;
size_t own_size = 0;

void announce([[maybe_unused]] void** keep, [[maybe_unused]] const void* stack, [[maybe_unused]] size_t size) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(keep, stack, size);
#endif
}

void arrived([[maybe_unused]] void* kept, [[maybe_unused]] const void** stack, [[maybe_unused]] size_t* size) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(kept, stack, size);
#endif
}

void body() {
    arrived(nullptr, &own_stack, &own_size);
    resize_frames(launch_tiles, launch_pictures);
    running->done = true;
    announce(nullptr, own_stack, own_size);   // this stack is not come back to
    swapcontext(&running->context, &scheduler);
}

void resume(Thread& thread, unsigned index) {
    running = &thread;
    threadIdx.x = index;
    void* fake = nullptr;
    announce(&fake, thread.stack.get(), kStack);
    swapcontext(&scheduler, &thread.context);
    arrived(fake, nullptr, nullptr);
}

}  // namespace

void __syncthreads() {
    Thread& thread = *running;
    ++thread.barriers;
    announce(&thread.fake, own_stack, own_size);
    swapcontext(&thread.context, &scheduler);
    arrived(thread.fake, &own_stack, &own_size);
}

// 0; or 1 where threads of a block met different barriers.
extern "C" int emulate(const void* tiles, const void* pictures, unsigned blocks, unsigned threads) {
    launch_tiles = static_cast<const gpupipe::Tile*>(tiles);
    launch_pictures = static_cast<const gpupipe::Picture*>(pictures);
    blockDim.x = threads;
    std::vector<Thread> all(threads);
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
        for (Thread& thread : all) {
            thread.done = false;
            thread.barriers = 0;
            getcontext(&thread.context);
            thread.context.uc_stack.ss_sp = thread.stack.get();
            thread.context.uc_stack.ss_size = kStack;
            thread.context.uc_link = nullptr;
            makecontext(&thread.context, body, 0);
        }
        while (!all[0].done) {
            for (unsigned i = 0; i < threads; ++i) {
                if (all[i].done) return 1;
                resume(all[i], i);
            }
            for (const Thread& thread : all)
                if (thread.done != all[0].done || thread.barriers != all[0].barriers) return 1;
        }
    }
    return 0;
}
