// What the kernels and their callers share: element types, the typed call, the team of threads, the kernels of an ISA.
#ifndef FASTSOFTMAX_KERNELS_TYPES_H
#define FASTSOFTMAX_KERNELS_TYPES_H

#include "fastsoftmax.h"

// For what stands in an inner loop: a call there, which the compiler chooses where it grows tired, costs a factor of two.
// (The sanitizers' checks make such functions so large that their callers would take an hour to compile.)
#if defined(__SANITIZE_ADDRESS__)
#define FS_INLINE inline
#define FS_INLINE_LAMBDA
#else
#define FS_INLINE inline FS_INLINE_LAMBDA
#define FS_INLINE_LAMBDA __attribute__((always_inline))
#endif

namespace fastsoftmax {

// Bit patterns of the two half precisions: stored so, computed in float.
struct Half {
    uint16_t bits;
};
struct BFloat16 {
    uint16_t bits;
};

// static: the file of each ISA has a copy of its own.
static constexpr int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Runs tasks 0..count-1, perhaps on several threads; the kernels know no more of threads than this.
struct Team {
    int threads;
    void (*run)(int threads, int64_t count, void (*task)(void *context, int64_t i), void *context);

    template <class Function>
    void for_each(int64_t count, Function &function) const {
        if (threads == 1) {
            for (int64_t i = 0; i < count; ++i) function(i);
        } else {
            run(threads, count, [](void *context, int64_t i) { (*static_cast<Function *>(context))(i); }, &function);
        }
    }
};

// The two ways through memory. A unit is what a traversal does at once: `width` neighbouring slices.
enum Traversal { kRows, kColumns, kTraversals };

struct Kernel {
    // Units begin..end-1; a team of several threads shares the work inside each unit. The caller counts the units:
    // ceil(outer / width) for rows, outer * ceil(inner / width) for columns. `stream`: the output is too
    // large to be found in a cache later, so that it is better written past them.
    fs_status (*run)(const fs_call &call, int64_t begin, int64_t end, const Team &team, bool stream);
    int width;
};

// Slices of more elements than this are summed in pieces of this size, so that several threads may share one slice
// and still give the bits of one. A piece is large enough for its fork-join (about a microsecond) to be noise.
constexpr int64_t kRowPiece = int64_t(1) << 15;
constexpr int64_t kColumnPiece = int64_t(1) << 12;

// What an ISA's file gives for the dtype that it is compiled for.
struct Kernels {
    Kernel ops[FS_OPS][kTraversals];
    void (*exp)(const void *x, void *out, int64_t count);  // of the computing dtype, as log1p
    void (*log1p)(const void *x, void *out, int64_t count);
};

#define FS_DECLARE_KERNELS(isa) extern const Kernels isa##_float32, isa##_float64, isa##_float16, isa##_bfloat16
FS_DECLARE_KERNELS(baseline);
#if defined(__x86_64__)
FS_DECLARE_KERNELS(avx2);
FS_DECLARE_KERNELS(avx512);
#endif

}  // namespace fastsoftmax

#endif
