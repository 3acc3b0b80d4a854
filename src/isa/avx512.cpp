// The kernels for AVX-512, compiled for it by a target region alone: the build sets no ISA flags.
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdlib.h>

#include "../kernels/types.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi2,f16c"))), apply_to = function)
#else
#pragma GCC push_options
// GCC 12 takes its own _mm512_undefined_* for a use before initialisation (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi2,f16c,prefer-vector-width=512")
#endif

namespace fastsoftmax {
namespace {
#include "vec_avx512.h"

#include "../kernels/table.h"
}  // namespace

FS_DEFINE_KERNELS(avx512);
}  // namespace fastsoftmax

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
