// logsumexp: m + log1p(r), r as in operation.h. No element is written.
#ifndef FASTSOFTMAX_KERNELS_LOGSUMEXP_H
#define FASTSOFTMAX_KERNELS_LOGSUMEXP_H

// An infinite maximum makes every scaled exponential NaN, so these slices are settled here: their logsumexp is the
// maximum, unless a NaN stands beside it.
template <class V, class E>
void store_logsumexp(const fs_call &call, const Lanes<E> &lanes, V maximum, V log_rest) {
    using T = typename V::T;
    if (call.lse == nullptr) return;
    T *lse = static_cast<T *>(call.lse) + lanes.slice;
    (maximum + log_rest).store(lse, lanes.count);
    for (int64_t lane = 0; lane < lanes.count; ++lane) {
        if (__builtin_isinf(maximum.v[lane])) {
            lse[lane] = maximum.v[lane];
            for (int64_t i = 0; i < call.n; ++i) {
                const T x = element<V>(lanes.x + lane * lanes.x_lane + i * lanes.x_n);
                if (x != x) lse[lane] = x;
            }
        }
    }
}

template <class V, class E>
struct LogSumExp {
    static constexpr Write kWrite = Write::kNothing;
    static constexpr bool kExceptMax = true;
    const fs_call *call;
    const Lanes<E> *lanes;

    void begin(const fs_call &the_call, const Lanes<E> &the_lanes) {
        call = &the_call;
        lanes = &the_lanes;
    }
    bool skip() { return false; }
    Pair<V> finish(const Stats<V> &stats) {
        store_logsumexp(*call, *lanes, stats.maximum, log_rest(stats));
        return {V(0), V(0)};
    }
    void done() {}
};

#endif
