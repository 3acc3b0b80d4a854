// What a compiler calls at every access to memory when it instruments for ThreadSanitizer: in the place of that
// runtime, which knows neither these fibers nor CUDA's barriers.
#include "emulation.h"

using emulation::touched;

#define ACCESSES(bytes)                                                                             \
    extern "C" void __tsan_read##bytes(void* address) { touched(address, bytes, false); }           \
    extern "C" void __tsan_write##bytes(void* address) { touched(address, bytes, true); }           \
    extern "C" void __tsan_unaligned_read##bytes(void* address) { touched(address, bytes, false); } \
    extern "C" void __tsan_unaligned_write##bytes(void* address) { touched(address, bytes, true); }

ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

extern "C" void __tsan_read_range(void* address, size_t bytes) { touched(address, bytes, false); }
extern "C" void __tsan_write_range(void* address, size_t bytes) { touched(address, bytes, true); }

// Clang's, for copies of structures.
extern "C" void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
    touched(from, bytes, false);
    touched(to, bytes, true);
    return memcpy(to, from, bytes);
}
extern "C" void* __tsan_memset(void* to, int value, size_t bytes) {
    touched(to, bytes, true);
    return memset(to, value, bytes);
}

extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
