// What Python calls: kernels by their names, launched over a grid, cluster after cluster.
#include <stdint.h>
#include <string.h>

#include <mutex>
#include <string>
#include <vector>

#include "cluster.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace emulation {
namespace {

// Held by whoever launches: everything else is one launch's.
std::mutex mutex;
Kernel* kernels = nullptr;
int order = 0;
thread_local std::string error;

// NVRTC under CuPy flushes subnormal float32 and leaves double alone; the processor's mode is one for both, and set for
// kernels whose names have no double in them.
class Flushing {
public:
    explicit Flushing(bool on) {
        if (on) set(before_ | bits_);
    }
    ~Flushing() { set(before_); }

private:
#if defined(__x86_64__)
    static constexpr uint64_t bits_ = 0x8040;
    static uint64_t get() { return _mm_getcsr(); }
    static void set(uint64_t mode) { _mm_setcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
    static constexpr uint64_t bits_ = 1 << 24;
    static uint64_t get() {
        uint64_t mode;
        asm volatile("mrs %0, fpcr" : "=r"(mode));
        return mode;
    }
    static void set(uint64_t mode) { asm volatile("msr fpcr, %0" ::"r"(mode)); }
#endif
    const uint64_t before_ = get();
};

const Kernel* find(const char* name) {
    const Kernel* kernel = kernels;
    while (kernel != nullptr && strcmp(kernel->name, name) != 0) kernel = kernel->next;
    return kernel;
}

std::string what_is_wrong(const Kernel* kernel, const char* name, size_t job_bytes) {
    const dim3 &block = grid.block, &blocks = grid.grid;
    if (kernel == nullptr) return text("no kernel %s", name);
    if (job_bytes != kernel->job_bytes) {
        return text("%s takes %zu bytes, got %zu", name, kernel->job_bytes, job_bytes);
    }
    if (block.y != 1 || block.z != 1 || block.x == 0 || block.x > 1024 || block.x % lanes != 0) {
        return text("blocks of (%u, %u, %u) threads: expected one dimension of whole warps, at most 1024", block.x,
                    block.y, block.z);
    }
    if (blocks.x == 0 || blocks.y == 0 || blocks.z == 0 || blocks.x > 0x7fffffffu || blocks.y > 0xffff ||
        blocks.z > 0xffff) {
        return text("a grid of (%u, %u, %u) blocks", blocks.x, blocks.y, blocks.z);
    }
    if (grid.cluster == 0 || grid.cluster > 16 || blocks.x % grid.cluster != 0) {
        return text("%u blocks in clusters of %u", blocks.x, grid.cluster);
    }
    return "";
}

std::string run_all(const Kernel& kernel, const void* job) {
    // NumPy's bytes need not be aligned.
    std::vector<max_align_t> aligned(kernel.job_bytes / sizeof(max_align_t) + 1);
    memcpy(aligned.data(), job, kernel.job_bytes);
    const Flushing flushing(strstr(kernel.name, "double") == nullptr);
    for (unsigned z = 0; z < grid.grid.z; ++z) {
        for (unsigned y = 0; y < grid.grid.y; ++y) {
            for (unsigned x = 0; x < grid.grid.x; x += grid.cluster) {
                const std::string message = cluster.run(kernel, aligned.data(), {x, y, z});
                if (!message.empty()) return message;
            }
        }
    }
    return "";
}

}  // namespace

Kernel::Kernel(const char* name_, size_t bytes, void (*function_)(), void (*call_)(void (*)(), const void*))
    : name(name_), job_bytes(bytes), function(function_), call(call_), next(kernels) {
    kernels = this;
}

}  // namespace emulation

// 0: threads run in the order of their numbers, and blocks of a cluster too; 1: backward; from 2 on: in an order
// shuffled by that seed.
EXPORTED void emulation_set_order(int order) {
    const std::lock_guard<std::mutex> lock(emulation::mutex);
    emulation::order = order;
}

// Whether exp2_approx errs as the instruction may, by up to 2 ulp, or is exact.
EXPORTED void emulation_set_exp2_errs(int errs) { emulation::exp2_errs = errs != 0; }

// The name of a kernel by its number; null past the last.
EXPORTED const char* emulation_kernel(size_t i) {
    const emulation::Kernel* kernel = emulation::kernels;
    while (kernel != nullptr && i-- != 0) kernel = kernel->next;
    return kernel == nullptr ? nullptr : kernel->name;
}

// 0, or 1 where emulation_error() says what is wrong.
EXPORTED int emulation_launch(const char* name, const unsigned blocks[3], const unsigned block[3], unsigned cluster,
                              size_t shared_bytes, const void* job, size_t job_bytes) {
    const std::lock_guard<std::mutex> lock(emulation::mutex);
    emulation::grid = {{{block[0], block[1], block[2]}}, {{blocks[0], blocks[1], blocks[2]}}, cluster, shared_bytes};
    const emulation::Kernel* kernel = emulation::find(name);
    emulation::error = emulation::what_is_wrong(kernel, name, job_bytes);
    if (!emulation::error.empty()) return 1;
    emulation::cluster.set_up(emulation::order);
    emulation::error = emulation::run_all(*kernel, job);
    emulation::cluster.free_memory();
    return emulation::error.empty() ? 0 : 1;
}

// What is wrong with the last launch of this thread.
EXPORTED const char* emulation_error() { return emulation::error.c_str(); }
