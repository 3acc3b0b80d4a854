// Cross-entropy of index labels: loss = (m - x_label) + log1p(r) with r as in operation.h, and its gradient
// grad_scale * (softmax - onehot). The label's gradient is -(sum of the other exponentials) / sum: p - 1 would lose
// the digits of 1 - p where p is near 1. An ignored slice has loss and gradient 0, whatever it holds.
#ifndef FASTSOFTMAX_KERNELS_CROSS_ENTROPY_H
#define FASTSOFTMAX_KERNELS_CROSS_ENTROPY_H

template <class V, class E, Write kOutput>
struct CrossEntropy {
    using T = typename V::T;
    static constexpr Write kWrite = kOutput;
    static constexpr bool kExceptMax = true;
    static constexpr bool kGrad = kOutput == Write::kExponentials;
    const fs_call *call;
    const Lanes<E> *lanes;
    const int64_t *labels;
    T label_logit[V::W];
    T label_grad[V::W];

    void begin(const fs_call &the_call, const Lanes<E> &the_lanes) {
        call = &the_call;
        lanes = &the_lanes;
        labels = call->labels + lanes->slice;
        V(0).store(label_logit);
        for (int64_t lane = 0; lane < lanes->count; ++lane)
            if (!ignored(lane))
                label_logit[lane] = element<V>(lanes->x + lane * lanes->x_lane + labels[lane] * lanes->x_n);
    }

    bool ignored(int64_t lane) const { return labels[lane] == call->ignore_index; }

    bool skip() {
        if (call->lse != nullptr || !ignored(0)) return false;
        if (call->loss != nullptr) static_cast<T *>(call->loss)[lanes->slice] = 0;
        done();
        return true;
    }

    Pair<V> finish(const Stats<V> &stats) {
        const V logit = V::load(label_logit);
        if (call->lse != nullptr || call->loss != nullptr) {
            const V rest = log_rest(stats);
            store_logsumexp(*call, *lanes, stats.maximum, rest);
            if (call->loss != nullptr) store_loss((stats.maximum - logit) + rest);
        }
        if constexpr (!kGrad) return {V(0), V(0)};
        // The first maximum is the largest term, or all others are at least as large together: no cancellation in either.
        Pair<V> sum = two_sum(stats.sum.hi, stats.top);
        sum.lo = sum.lo + stats.sum.lo;
        const Pair<V> factor = quotient(call->grad_scale, sum);
        const V without_label = (sum.hi - exp_scaled(logit, stats.scale)) + sum.lo;
        const V others = select(equal(logit, stats.maximum), stats.sum.hi + stats.sum.lo, without_label);
        (V(0) - fma(others, factor.hi, others * factor.lo)).store(label_grad);
        return factor;
    }

    void store_loss(V values) {
        T *loss = static_cast<T *>(call->loss) + lanes->slice;
        values.store(loss, lanes->count);
        for (int64_t lane = 0; lane < lanes->count; ++lane)
            if (ignored(lane)) loss[lane] = 0;
    }

    void done() {
        if constexpr (kGrad) {
            for (int64_t lane = 0; lane < lanes->count; ++lane) {
                E *out = lanes->out + lane * lanes->out_lane;
                if (ignored(lane)) {
                    for (int64_t i = 0; i < call->n; ++i) V(0).store(out + i * lanes->out_n, 1);
                } else {
                    V(label_grad[lane]).store(out + labels[lane] * lanes->out_n, 1);
                }
            }
        }
    }
};

template <class V, class E>
using CrossEntropyLoss = CrossEntropy<V, E, Write::kNothing>;
template <class V, class E>
using CrossEntropyGrad = CrossEntropy<V, E, Write::kExponentials>;

#endif
