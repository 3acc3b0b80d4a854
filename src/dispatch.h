// The table of kernels in use.
#ifndef FASTSOFTMAX_DISPATCH_H
#define FASTSOFTMAX_DISPATCH_H

#include "kernels/types.h"

namespace fastsoftmax {

const Table &kernels_in_use();

}  // namespace fastsoftmax

#endif
