// Which ISA's kernels run: the first of one list that this machine has, or the one asked for by name.
#include "dispatch.h"

#include <atomic>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace fastsoftmax {
namespace {

struct Isa {
    const char *name;
    const Kernels *kernels[FS_DTYPES];
    bool (*supported)();
};

#if defined(__x86_64__)
// (Unused in a build for other instruction sets alone.)
[[maybe_unused]] bool has_avx2() {
    // GCC before 11 has no __builtin_cpu_supports("f16c"): bit 29 of ecx. The others include the operating system's word.
    unsigned eax, ebx, ecx, edx;
    const bool f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx >> 29 & 1);
    return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}
[[maybe_unused]] bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

#define FS_ISA(isa, supported) {#isa, {&isa##_float32, &isa##_float64, &isa##_float16, &isa##_bfloat16}, supported}
// Best first.
const Isa isas[] = {
#if defined(__x86_64__)
#if !defined(FASTSOFTMAX_WITHOUT_AVX512)
    FS_ISA(avx512, has_avx512),
#endif
#if !defined(FASTSOFTMAX_WITHOUT_AVX2)
    FS_ISA(avx2, has_avx2),
#endif
#endif
#if !defined(FASTSOFTMAX_WITHOUT_BASELINE)
    FS_ISA(baseline, [] { return true; }),
#endif
};

const Isa *best() {
    for (const Isa &isa : isas)
        if (isa.supported()) return &isa;
    return nullptr;  // a build without the baseline, which whoever loads it has to refuse
}

std::atomic<const Isa *> chosen{nullptr};

const Isa &isa_in_use() {
    const Isa *isa = chosen.load(std::memory_order_relaxed);
    if (isa == nullptr) {  // nobody asked for one by name; every thread finds the same
        isa = best();
        chosen.store(isa, std::memory_order_relaxed);
    }
    return *isa;
}

}  // namespace

const Kernels &kernels_in_use(fs_dtype dtype) { return *isa_in_use().kernels[dtype]; }

}  // namespace fastsoftmax

using namespace fastsoftmax;

fs_status fs_select_isa(const char *name) {
    if (name == nullptr) {
        chosen = best();
        return FS_OK;
    }
    for (const Isa &isa : isas) {
        if (std::strcmp(name, isa.name) == 0 && isa.supported()) {
            chosen = &isa;
            return FS_OK;
        }
    }
    return FS_UNSUPPORTED;
}

const char *fs_isa(void) { return isa_in_use().name; }

const char *fs_supported_isa(int i) {
    for (const Isa &isa : isas)
        if (isa.supported() && i-- == 0) return isa.name;
    return nullptr;
}
