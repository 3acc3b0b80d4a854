// What device.cuh and the runtime share: the block and the thread that run, and the operations that make threads meet.
// Kernels use none of it by name.
#ifndef EMULATION_H
#define EMULATION_H

#include <stddef.h>
#include <string.h>

#include <type_traits>

struct uint3 {
    unsigned x, y, z;
};

struct dim3 : uint3 {};

namespace emulation {

// A line of a kernel, for messages, and to tell one barrier from another.
struct Place {
    const char* file;
    int line;
};

struct Block {
    uint3 index;
    unsigned rank;  // in its cluster
    char* shared;
};

struct Thread {
    uint3 index;
    Block* block;
};

struct Grid {
    dim3 block, grid;
    unsigned cluster;
    size_t shared_bytes;
};

extern Grid grid;
extern Thread* self;  // the thread that runs

void barrier(Place);
// Puts in the place of a value, of up to 8 bytes, that of the lane whose number differs by the bits of mask.
void shuffle_xor(void* value, size_t bytes, int mask, Place);
void cluster_arrive(Place);
void cluster_wait(Place);
// The address in the shared memory of another block of the cluster.
const void* peer(const void* shared, size_t bytes, unsigned rank, Place);
float exp2_approx(float);
extern bool exp2_errs;

// Whether the kernels are compiled to call `touched` at every access to memory.
#ifdef EMULATION_RACES
constexpr bool finds_races = true;
#else
constexpr bool finds_races = false;
#endif
void touched(const void*, size_t bytes, bool writes);

// A kernel that takes one trivially copyable structure.
struct Kernel {
    const char* name;
    size_t job_bytes;
    void (*function)();
    void (*call)(void (*function)(), const void* job);
    Kernel* next;

    Kernel(const char* name, size_t job_bytes, void (*function)(), void (*call)(void (*)(), const void*));
    Kernel(const Kernel&) = delete;  // its address is known
};

template <class Job>
Kernel kernel(const char* name, void (*function)(Job)) {
    static_assert(std::is_trivially_copyable<Job>::value, "a kernel's argument is copied as bytes");
    return {name, sizeof(Job), reinterpret_cast<void (*)()>(function), [](void (*untyped)(), const void* job) {
                reinterpret_cast<void (*)(Job)>(untyped)(*static_cast<const Job*>(job));
            }};
}

}  // namespace emulation

#define EMULATION_JOIN_(a, b) a##b
#define EMULATION_JOIN(a, b) EMULATION_JOIN_(a, b)

// Makes an instance of a kernel known by its name expression.
#define EMULATED(name, ...) \
    static const emulation::Kernel EMULATION_JOIN(emulated_, __COUNTER__) = emulation::kernel(name, __VA_ARGS__)

#endif
