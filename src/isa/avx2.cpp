// The kernels for AVX2, compiled for it by a target region alone: the build sets no ISA flags.
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdlib.h>

#include "../kernels/types.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi2,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi2,f16c")
#endif

namespace fastsoftmax {
namespace {
#include "vec_avx2.h"

#include "../kernels/table.h"
}  // namespace

FS_DEFINE_KERNELS(avx2);
}  // namespace fastsoftmax

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
