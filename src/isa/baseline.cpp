// The kernels for every machine: no target region.
#include <stdlib.h>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#include "../kernels/types.h"

namespace fastsoftmax {
namespace {
#include "vec_baseline.h"

#include "../kernels/table.h"
}  // namespace

FS_DEFINE_KERNELS(baseline);
}  // namespace fastsoftmax
