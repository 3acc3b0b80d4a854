// All kernels of one ISA and one dtype. An ISA's file includes this inside its target region and an anonymous namespace,
// after its vector layer; nothing here may include a header of the standard library (vec.h says why).
//
// The build compiles an ISA's file once for each dtype, which FASTSOFTMAX_DTYPE names: so there is work for many processors,
// and none needs the memory that all kernels at once would take.
#ifndef FASTSOFTMAX_KERNELS_TABLE_H
#define FASTSOFTMAX_KERNELS_TABLE_H

#include "vec.h"
#include "exp.h"
#include "operation.h"
#include "softmax.h"
#include "logsumexp.h"
#include "cross_entropy.h"
#include "column.h"
#include "columns.h"
#include "row_passes.h"
#include "row_group.h"
#include "transposed_rows.h"
#include "rows.h"
#include "vjp.h"

// A dtype: the vectors that compute it, and its elements in memory.
template <class Vector, class Element>
struct Dtype {
    using V = Vector;
    using E = Element;
};
using float32 = Dtype<F32, float>;
using float64 = Dtype<F64, double>;
using float16 = Dtype<F32, Half>;
using bfloat16 = Dtype<F32, BFloat16>;

using V = FASTSOFTMAX_DTYPE::V;
using E = FASTSOFTMAX_DTYPE::E;

template <template <class, class> class Op>
constexpr void fill_reduced(Kernel (&kernels)[kTraversals]) {
    kernels[kRows] = {rows<V, E, Op<V, E>>, 1};
    kernels[kColumns] = {columns<V, E, Op<V, E>>, kGroup * V::W};
}
template <template <class, class> class Op>
constexpr void fill_vjp(Kernel (&kernels)[kTraversals]) {
    kernels[kRows] = {vjp_of_rows<V, E, Op<V, E>>, 1};
    kernels[kColumns] = {vjp_of_columns<V, E, Op<V, E>>, kGroup * V::W};
}

struct ExpFunction {
    static V of(V x) { return exp_full(x); }
};
struct Log1pFunction {
    static V of(V x) { return log1p(x); }
};

template <class Function>
void elementwise(const void *x, void *out, int64_t count) {
    using T = V::T;
    for (int64_t i = 0; i < count; i += V::W) {
        const int64_t lanes = smaller(count - i, V::W);
        Function::of(V::load(static_cast<const T *>(x) + i, lanes, 0)).store(static_cast<T *>(out) + i, lanes);
    }
}

constexpr Kernels make_kernels() {
    Kernels kernels = {};
    fill_reduced<Softmax>(kernels.ops[FS_SOFTMAX]);
    fill_reduced<LogSoftmax>(kernels.ops[FS_LOG_SOFTMAX]);
    fill_reduced<LogSumExp>(kernels.ops[FS_LOGSUMEXP]);
    fill_reduced<CrossEntropyLoss>(kernels.ops[FS_CROSS_ENTROPY]);
    fill_reduced<CrossEntropyGrad>(kernels.ops[FS_CROSS_ENTROPY_GRAD]);
    fill_reduced<CrossEntropyLoss>(kernels.ops[FS_CROSS_ENTROPY_SPREAD]);
    fill_reduced<CrossEntropySpreadGrad>(kernels.ops[FS_CROSS_ENTROPY_SPREAD_GRAD]);
    fill_vjp<SoftmaxGrad>(kernels.ops[FS_SOFTMAX_GRAD]);
    fill_vjp<LogSoftmaxGrad>(kernels.ops[FS_LOG_SOFTMAX_GRAD]);
    kernels.exp = elementwise<ExpFunction>;
    kernels.log1p = elementwise<Log1pFunction>;
    return kernels;
}

#define FS_PASTE(isa, dtype) isa##_##dtype
#define FS_KERNELS_OF(isa, dtype) FS_PASTE(isa, dtype)
#define FS_DEFINE_KERNELS(isa) constexpr Kernels FS_KERNELS_OF(isa, FASTSOFTMAX_DTYPE) = make_kernels()

#endif
