// Fibers: stacks of their own that one thread of the operating system switches between.
//
// On x86-64 Linux a switch is a dozen instructions; ucontext, used elsewhere, makes two system calls each time. Every
// switch is announced to AddressSanitizer, which must know the stack it looks at.
#ifndef FIBER_H
#define FIBER_H

#include <stddef.h>
#include <stdint.h>

#if defined(__SANITIZE_ADDRESS__)
#define EMULATION_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMULATION_ASAN 1
#endif
#endif
#ifdef EMULATION_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__) && defined(__linux__) && !defined(EMULATION_UCONTEXT)
#define EMULATION_ASSEMBLY 1
#else
#include <ucontext.h>
#endif

namespace emulation {

struct Fiber {
    void* stack = nullptr;  // its lowest address
    size_t stack_bytes = 0;
#ifdef EMULATION_ASSEMBLY
    void* top = nullptr;
#else
    ucontext_t context;
#endif
    void* asan_frames = nullptr;
};

#ifdef EMULATION_ASSEMBLY
// Saves what a called function must keep, puts the stack pointer into *from and goes on where `to` stands.
extern "C" void emulation_switch(void** from, void* to);
asm(R"(
.pushsection .text
.local emulation_switch
.type emulation_switch, @function
emulation_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulation_switch, . - emulation_switch
.popsection
)");
#endif

// Lets a fiber begin at entry, which never returns; `skew` bytes of the stack stay unused.
inline void prepare(Fiber& fiber, void (*entry)(), size_t skew) {
#ifdef EMULATION_ASAN
    __asan_unpoison_memory_region(fiber.stack, fiber.stack_bytes);  // what an abandoned run left
#endif
    fiber.asan_frames = nullptr;
#ifdef EMULATION_ASSEMBLY
    void** top = reinterpret_cast<void**>(static_cast<char*>(fiber.stack) + fiber.stack_bytes - skew);
    *--top = nullptr;  // where a return address would be: the ABI's alignment at a function's entry
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    fiber.top = top;
#else
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = fiber.stack_bytes - skew;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, entry, 0);
#endif
}

// To be called first by whoever is switched to; `from` is set on the first switch from a thread's own stack.
inline void switched([[maybe_unused]] Fiber& me, [[maybe_unused]] Fiber* from = nullptr) {
#ifdef EMULATION_ASAN
    const void* stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(me.asan_frames, &stack, &bytes);
    if (from != nullptr) {
        from->stack = const_cast<void*>(stack);
        from->stack_bytes = bytes;
    }
#endif
}

inline void switch_fiber(Fiber& from, Fiber& to) {
#ifdef EMULATION_ASAN
    __sanitizer_start_switch_fiber(&from.asan_frames, to.stack, to.stack_bytes);
#endif
#ifdef EMULATION_ASSEMBLY
    emulation_switch(&from.top, to.top);
#else
    swapcontext(&from.context, &to.context);
#endif
    switched(from);
}

}  // namespace emulation

#endif
