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
    const Table *table;
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

// Best first.
const Isa isas[] = {
#if defined(__x86_64__)
#if !defined(FASTSOFTMAX_WITHOUT_AVX512)
    {&avx512_table, has_avx512},
#endif
#if !defined(FASTSOFTMAX_WITHOUT_AVX2)
    {&avx2_table, has_avx2},
#endif
#endif
#if !defined(FASTSOFTMAX_WITHOUT_BASELINE)
    {&baseline_table, [] { return true; }},
#endif
};

const Table *best() {
    for (const Isa &isa : isas)
        if (isa.supported()) return isa.table;
    return nullptr;  // a build without the baseline, which whoever loads it has to refuse
}

std::atomic<const Table *> chosen{nullptr};

}  // namespace

const Table &kernels_in_use() {
    const Table *table = chosen.load(std::memory_order_relaxed);
    if (table == nullptr) {  // nobody asked for one by name; every thread finds the same
        table = best();
        chosen.store(table, std::memory_order_relaxed);
    }
    return *table;
}

}  // namespace fastsoftmax

using namespace fastsoftmax;

fs_status fs_select_isa(const char *name) {
    if (name == nullptr) {
        chosen = best();
        return FS_OK;
    }
    for (const Isa &isa : isas) {
        if (std::strcmp(name, isa.table->name) == 0 && isa.supported()) {
            chosen = isa.table;
            return FS_OK;
        }
    }
    return FS_UNSUPPORTED;
}

const char *fs_isa(void) { return kernels_in_use().name; }

const char *fs_supported_isa(int i) {
    for (const Isa &isa : isas)
        if (isa.supported() && i-- == 0) return isa.table->name;
    return nullptr;
}
