// softmax: exp(x - m) / sum exp(x - m); log_softmax: -((m - x) + log1p(r)), r as in operation.h.
#ifndef FASTSOFTMAX_KERNELS_SOFTMAX_H
#define FASTSOFTMAX_KERNELS_SOFTMAX_H

template <class V, class E>
struct Softmax {
    static constexpr Write kWrite = Write::kExponentials;
    static constexpr bool kExceptMax = false;
    static constexpr bool kTakesLse = false;
    static constexpr bool kSubtracts = false;

    static bool skip(const fs_call &, const Lanes<E> &) { return false; }
    void begin(const fs_call &, const Lanes<E> &, V) {}
    FS_INLINE Pair<V> finish(const Stats<V> &stats) { return quotient(1, numerator(), stats.sum); }
    V numerator() const { return V(1); }
    void done() {}
};

template <class V, class E>
struct LogSoftmax {
    static constexpr Write kWrite = Write::kLogarithms;
    static constexpr bool kExceptMax = true;
    static constexpr bool kTakesLse = false;
    static constexpr bool kSubtracts = false;

    static bool skip(const fs_call &, const Lanes<E> &) { return false; }
    void begin(const fs_call &, const Lanes<E> &, V) {}
    Pair<V> finish(const Stats<V> &stats) { return {stats.maximum, log_rest(stats)}; }
    void done() {}
};

#endif
