// All kernels and the table of one ISA. An ISA's file includes this inside its target region and an anonymous namespace,
// after its vector layer; nothing here may include a header of the standard library (vec.h says why).
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
#include "rows.h"
#include "vjp.h"

template <template <class, class> class Op, class V, class E>
struct Reduced {
    static constexpr void fill(Kernel (&kernels)[kTraversals]) {
        kernels[kRows] = {rows<V, E, Op<V, E>>, 1};
        kernels[kColumns] = {columns<V, E, Op<V, E>>, kGroup * V::W};
    }
};
template <template <class, class> class Op, class V, class E>
struct Vjp {
    static constexpr void fill(Kernel (&kernels)[kTraversals]) {
        kernels[kRows] = {vjp<V, E, Op<V, E>, true>, 1};
        kernels[kColumns] = {vjp<V, E, Op<V, E>, false>, V::W};
    }
};

template <template <template <class, class> class, class, class> class Kind, template <class, class> class Op>
constexpr void fill(Kernel (&kernels)[FS_DTYPES][kTraversals]) {
    Kind<Op, F32, float>::fill(kernels[FS_FLOAT32]);
    Kind<Op, F64, double>::fill(kernels[FS_FLOAT64]);
    Kind<Op, F32, Half>::fill(kernels[FS_FLOAT16]);
    Kind<Op, F32, BFloat16>::fill(kernels[FS_BFLOAT16]);
}

struct ExpFunction {
    template <class V>
    static V of(V x) {
        return exp_full(x);
    }
};
struct Log1pFunction {
    template <class V>
    static V of(V x) {
        return log1p(x);
    }
};

template <class V, class Function>
void elementwise(const typename V::T *x, typename V::T *out, int64_t count) {
    for (int64_t i = 0; i < count; i += V::W) {
        const int64_t lanes = smaller(count - i, V::W);
        Function::of(V::load(x + i, lanes, 0)).store(out + i, lanes);
    }
}

constexpr Table make_table(const char *name) {
    Table table = {};
    table.name = name;
    fill<Reduced, Softmax>(table.kernels[FS_SOFTMAX]);
    fill<Reduced, LogSoftmax>(table.kernels[FS_LOG_SOFTMAX]);
    fill<Reduced, LogSumExp>(table.kernels[FS_LOGSUMEXP]);
    fill<Reduced, CrossEntropyLoss>(table.kernels[FS_CROSS_ENTROPY]);
    fill<Reduced, CrossEntropyGrad>(table.kernels[FS_CROSS_ENTROPY_GRAD]);
    fill<Reduced, CrossEntropyLoss>(table.kernels[FS_CROSS_ENTROPY_SPREAD]);
    fill<Reduced, CrossEntropySpreadGrad>(table.kernels[FS_CROSS_ENTROPY_SPREAD_GRAD]);
    fill<Vjp, SoftmaxGrad>(table.kernels[FS_SOFTMAX_GRAD]);
    fill<Vjp, LogSoftmaxGrad>(table.kernels[FS_LOG_SOFTMAX_GRAD]);
    table.exp_float = elementwise<F32, ExpFunction>;
    table.exp_double = elementwise<F64, ExpFunction>;
    table.log1p_float = elementwise<F32, Log1pFunction>;
    table.log1p_double = elementwise<F64, Log1pFunction>;
    return table;
}

#endif
