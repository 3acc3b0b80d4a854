// Cross-entropy of index labels: loss = (m - x_label) + log1p(r) with r as in operation.h, and its gradient
// grad_scale * (softmax - onehot). The label's gradient is -(sum of the other exponentials) / sum: p - 1 would lose
// the digits of 1 - p where p is near 1. An ignored slice has loss and gradient 0, whatever it holds.
#ifndef FASTSOFTMAX_KERNELS_CROSS_ENTROPY_H
#define FASTSOFTMAX_KERNELS_CROSS_ENTROPY_H

template <class V, class E, Write kOutput>
class CrossEntropy {
    using T = typename V::T;
    static constexpr bool kGrad = kOutput == Write::kExponentials;
    // The labels were checked, but their owner may have changed them since: each is read once, and one that is no class
    // gives NaN instead of reaching beyond the slice.
    static constexpr int64_t kIgnored = -1, kWrong = -2;

   public:
    static constexpr Write kWrite = kOutput;
    static constexpr bool kExceptMax = true;

    static bool skip(const fs_call &call, const Lanes<E> &lanes) {
        if (call.lse != nullptr || call.labels[lanes.slice] != call.ignore_index) return false;
        if (call.loss != nullptr) static_cast<T *>(call.loss)[lanes.slice] = 0;
        if constexpr (kGrad) clear(call, lanes, 0);
        return true;
    }

    void begin(const fs_call &the_call, const Lanes<E> &the_lanes, V maximum) {
        call = &the_call;
        lanes = &the_lanes;
        lse.begin(*call, *lanes, maximum);
        V(0).store(logit);
        for (int64_t lane = 0; lane < lanes->count; ++lane) {
            const int64_t given = call->labels[lanes->slice + lane];
            if (given == call->ignore_index) {
                label[lane] = kIgnored;
            } else if (uint64_t(given) < uint64_t(call->n)) {
                label[lane] = given;
                logit[lane] = element<V>(lanes->x + lane * lanes->x_lane + given * lanes->x_n);
            } else {
                label[lane] = kWrong;
                logit[lane] = T(__builtin_nanf(""));
            }
        }
    }

    Pair<V> finish(const Stats<V> &stats) {
        const V label_logit = V::load(logit);
        if (call->lse != nullptr || call->loss != nullptr) {
            const V rest = log_rest(stats);
            lse.store(stats.maximum, rest);
            if (call->loss != nullptr) store_loss((stats.maximum - label_logit) + rest);
        }
        if constexpr (!kGrad) return {V(0), V(0)};
        Pair<V> sum = two_sum(stats.sum.hi, stats.top);
        sum.lo = sum.lo + stats.sum.lo;
        const Pair<V> factor = quotient(call->grad_scale, sum);
        // If the label is the maximum, the same number that two_sum added is taken away: the rest comes back with its
        // digits. If not, the maximum remains, and nothing cancels.
        const V others = (sum.hi - exp_scaled(label_logit, stats.scale)) + sum.lo;
        (V(0) - fma(others, factor.hi, others * factor.lo)).store(label_grad);
        return factor;
    }

    void done() {
        if constexpr (kGrad) {
            for (int64_t lane = 0; lane < lanes->count; ++lane) {
                if (label[lane] == kIgnored) {
                    clear(*call, *lanes, lane);
                } else if (label[lane] != kWrong) {
                    V(label_grad[lane]).store(lanes->out + lane * lanes->out_lane + label[lane] * lanes->out_n, 1);
                }
            }
        }
    }

   private:
    void store_loss(V values) const {
        T *loss = static_cast<T *>(call->loss) + lanes->slice;
        values.store(loss, lanes->count);
        for (int64_t lane = 0; lane < lanes->count; ++lane)
            if (label[lane] == kIgnored) loss[lane] = 0;
    }

    static void clear(const fs_call &call, const Lanes<E> &lanes, int64_t lane) {
        for (int64_t i = 0; i < call.n; ++i) V(0).store(lanes.out + lane * lanes.out_lane + i * lanes.out_n, 1);
    }

    const fs_call *call;
    const Lanes<E> *lanes;
    LogSumExpOutput<V, E> lse;
    int64_t label[V::W];
    T logit[V::W], label_grad[V::W];
};

template <class V, class E>
using CrossEntropyLoss = CrossEntropy<V, E, Write::kNothing>;
template <class V, class E>
using CrossEntropyGrad = CrossEntropy<V, E, Write::kExponentials>;

#endif
