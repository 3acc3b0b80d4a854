// The passes over one row, or a piece of it: maximum; exponentials and their sum, with a neighbour's output and maximum beside
// them; output. What rows.h makes whole rows of.
#ifndef FASTSOFTMAX_KERNELS_ROW_PASSES_H
#define FASTSOFTMAX_KERNELS_ROW_PASSES_H

// How far ahead memory is fetched into the second cache: beyond what is in flight already (2048 bytes: 2 to 6% slower).
// Outputs as well as inputs: on Zen 4 no hardware fetches what is only written (softmax of (64, 32000) 1.3 times as fast,
// (4096, 1000) 1.4, (40000, 64) 1.8). PREFETCHW, which is meant for them, takes most of that away again.
constexpr int64_t kFetchAhead = 6144;

// (As an integer, because it may lie beyond the array.)
template <class Element>
FS_INLINE void fetch_ahead(const Element *p, int64_t bytes = kFetchAhead) {
    __builtin_prefetch(reinterpret_cast<const void *>(reinterpret_cast<uintptr_t>(p) + uintptr_t(bytes)), 0, 2);
}

// The maximum over a piece of a row, lane by lane.
template <class V, class E>
V piece_max(const E *x, int64_t n) {
    constexpr typename V::T lowest = -__builtin_inff();
    V m[4] = {V(lowest), V(lowest), V(lowest), V(lowest)};
    int64_t i = 0;
    for (; i + 4 * V::W <= n; i += 4 * V::W) {
#pragma GCC unroll 4
        for (int q = 0; q < 4; ++q) m[q] = max(m[q], V::load(x + i + q * V::W));
    }
    for (; i + V::W <= n; i += V::W) m[0] = max(m[0], V::load(x + i));
    if (i < n) m[1] = max(m[1], V::load(x + i, n - i, lowest));
    return max(max(m[0], m[1]), max(m[2], m[3]));
}

// One vector of a row's output, of classes first.. of slice `lane`.
template <bool kHaveExp, class V, class Op>
FS_INLINE V row_output(V loaded, const ExpScale<V> &scale, Pair<V> factor, const Op &op, int64_t lane, int64_t first,
                       int64_t count) {
    const V p = output<Op::kWrite, kHaveExp>(loaded, scale, factor);
    if constexpr (Op::kSubtracts) return p - op.along(lane, first, count);
    return p;
}

// Writes the output of one row, or of a piece of it, vector by vector: begin(), then every j from 0 to the number of whole
// vectors in any order, then end(). It is made of logits, or of exponentials (kHaveExp).
template <class V, class E, class Op, bool kHaveExp>
class RowWriter {
    using S = typename Either<kHaveExp, typename V::T, E>::Type;

   public:
    RowWriter(const S *source, E *out, int64_t first, int64_t n, const ExpScale<V> &scale, Pair<V> factor, const Op &op,
              int64_t lane, bool stream)
        : source(source), out(out), first(first), n(n), scale(scale), factor(factor), op(op), lane(lane), stream(stream) {
        constexpr uintptr_t bytes = V::W * sizeof(E);
        if (stream) head = smaller(n, int64_t((bytes - reinterpret_cast<uintptr_t>(out) % bytes) % bytes / sizeof(E)));
        whole = (n - head) / V::W;
    }

    void begin() const {
        if (head > 0) some(0, head);
    }
    FS_INLINE void operator()(int64_t j) const {
        const int64_t i = head + j * V::W;
        if (!stream) {
            fetch_ahead(out + i);
            value(V::load(source + i), i, V::W).store(out + i);
        } else if (j < whole) {
            value(V::load(source + i), i, V::W).stream(out + i);
        }
    }
    void end() const {
        const int64_t i = head + whole * V::W;
        if (i < n) some(i, n - i);
        if (stream) fence();  // here, on the thread that wrote
    }

   private:
    FS_INLINE V value(V loaded, int64_t i, int64_t count) const {
        return row_output<kHaveExp>(loaded, scale, factor, op, lane, first + i, count);
    }
    void some(int64_t i, int64_t count) const { value(V::load(source + i, count, 0), i, count).store(out + i, count); }

    const S *source;
    E *out;
    int64_t first, n;  // where the piece begins in its row, and its elements
    // Copies, which no store can change: behind a reference they would be loaded anew for every vector.
    const ExpScale<V> scale;
    const Pair<V> factor;
    const Op &op;
    const int64_t lane;
    const bool stream;
    int64_t head = 0, whole;  // elements before the first aligned vector, and vectors from there on
};

// The middle pass over a piece: exponentials, kept if `kKeep`, and their sum; beside them a neighbour is written and the
// maximum of another found, lane by lane, or (kLone) of the row itself. (What the loop carries stands in local variables, so
// that it stays in registers: behind a reference it would go through memory, a dozen cycles a vector.)
template <bool kSingly, bool kKeep, bool kLone, class V, class E, class Writer>
Sum<V> piece_sum(const E *x, typename V::T *kept, int64_t n, const ExpScale<V> scale, const Writer write, const E *next,
                 V *next_maximum) {
    constexpr typename V::T lowest = -__builtin_inff();
    Sum<V> sum = Sum<V>::zero();
    V maximum(lowest);
    write.begin();
    auto whole = [&](int64_t j) FS_INLINE_LAMBDA {
        const V logits = V::load(x + j * V::W), y = exp_scaled(logits, scale);
        if constexpr (kKeep) {
            y.store(kept + j * V::W);
            fetch_ahead(kept + j * V::W);
        }
        write(j);
        maximum = max(maximum, kLone ? logits : V::load(next + j * V::W));
        fetch_ahead(next + j * V::W);
        return y;
    };
    auto partial = [&](int64_t j, int64_t count) FS_INLINE_LAMBDA {
        const V logits = V::load(x + j * V::W, count, lowest), y = exp_scaled(logits, scale);
        if constexpr (kKeep) y.store(kept + j * V::W, count);
        maximum = max(maximum, kLone ? logits : V::load(next + j * V::W, count, lowest));
        return y;
    };
    constexpr int at_once = sizeof(E) < sizeof(typename V::T) ? 2 : 4;  // (beside conversions: two)
    add_terms<V, kSingly, at_once>(sum, n / V::W, n % V::W, whole, partial);
    write.end();
    *next_maximum = maximum;
    return sum;
}

// The sum of a piece without the first maximum of each lane, and how many lanes had one; from logits, or from exponentials
// (kHaveExp). `peak` is the maximum, or its exponential.
template <bool kHaveExp, class V, class S>
Sum<V> piece_rest(const S *source, int64_t n, const ExpScale<V> scale, const V peak, int64_t &left_out) {
    typename V::Mask seen = no_lanes<V>();
    Sum<V> sum = Sum<V>::zero();
    auto term = [&](V loaded) FS_INLINE_LAMBDA {
        const auto at_maximum = equal(loaded, peak);
        const V y = keep_unless(without(at_maximum, seen), kHaveExp ? loaded : exp_scaled(loaded, scale));
        seen = with(seen, at_maximum);
        return y;
    };
    constexpr typename V::T fill = kHaveExp ? 0 : -__builtin_inff();
    auto whole = [&](int64_t j) FS_INLINE_LAMBDA { return term(V::load(source + j * V::W)); };
    auto partial = [&](int64_t j, int64_t count) FS_INLINE_LAMBDA { return term(V::load(source + j * V::W, count, fill)); };
    add_terms<V, false>(sum, n / V::W, n % V::W, whole, partial);
    left_out = lanes_set<V>(seen);
    return sum;
}

#endif
