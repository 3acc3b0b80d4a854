// logsumexp: m + log1p(r), r as in operation.h. No element is written.
#ifndef FASTSOFTMAX_KERNELS_LOGSUMEXP_H
#define FASTSOFTMAX_KERNELS_LOGSUMEXP_H

// Where a logsumexp is asked for beside something else too.
template <class V, class E>
class LogSumExpOutput {
    using T = typename V::T;

   public:
    // An infinite maximum makes every scaled exponential NaN; the logsumexp is then the maximum, unless a NaN stands
    // beside it. That is looked up now, while the logits are there.
    void begin(const fs_call &call, const Lanes<E> &lanes, V maximum) {
        lse = call.lse == nullptr ? nullptr : static_cast<T *>(call.lse) + lanes.slice;
        count = lanes.count;
        // (Infinity less itself is NaN.)
        any_infinite = lse != nullptr && lanes_set<V>(equal(maximum - maximum, V(0))) < V::W;
        if (!any_infinite) return;
        for (int64_t lane = 0; lane < count; ++lane) {
            infinite[lane] = 0;
            if (!__builtin_isinf(maximum.v[lane])) continue;
            infinite[lane] = maximum.v[lane];
            for (int64_t i = 0; i < call.n; ++i) {
                const T x = element<V>(lanes.x + lane * lanes.x_lane + i * lanes.x_n);
                if (x != x) infinite[lane] = x;
            }
        }
    }

    void store(V maximum, V log_rest) const {
        if (lse == nullptr) return;
        (maximum + log_rest).store(lse, count);
        if (!any_infinite) return;
        for (int64_t lane = 0; lane < count; ++lane)
            if (infinite[lane] != 0) lse[lane] = infinite[lane];
    }

   private:
    T *lse;
    int64_t count;
    bool any_infinite;
    T infinite[V::W];  // the result in the lanes where it is no sum; else 0
};

template <class V, class E>
struct LogSumExp {
    static constexpr Write kWrite = Write::kNothing;
    static constexpr bool kExceptMax = true;
    static constexpr bool kTakesLse = false;
    static constexpr bool kSubtracts = false;
    LogSumExpOutput<V, E> lse;

    static bool skip(const fs_call &, const Lanes<E> &) { return false; }
    void begin(const fs_call &call, const Lanes<E> &lanes, V maximum) { lse.begin(call, lanes, maximum); }
    Pair<V> finish(const Stats<V> &stats) {
        lse.store(stats.maximum, log_rest(stats));
        return {V(0), V(0)};
    }
    void done() {}
};

#endif
