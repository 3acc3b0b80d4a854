// The kernels in use.
#ifndef FASTSOFTMAX_DISPATCH_H
#define FASTSOFTMAX_DISPATCH_H

#include "kernels/types.h"

namespace fastsoftmax {

const Kernels &kernels_in_use(fs_dtype dtype);

}  // namespace fastsoftmax

#endif
