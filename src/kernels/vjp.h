// Vector-Jacobian products from the saved output y of a slice, for its upstream gradient g:
//
//     softmax:     y (g - sum(g y))
//     log_softmax: g - exp(y) sum(g)
//
// Two passes, one adding and one writing, over vectors that run along a slice (rows of any length) or hold a slice in each
// lane (columns). The sums have signs: they are kept wider than their terms, and used with what their rounding loses.
#ifndef FASTSOFTMAX_KERNELS_VJP_H
#define FASTSOFTMAX_KERNELS_VJP_H

template <class V, class>
struct SoftmaxGrad {
    static void add(SignedSum<V> &sum, V g, V y) { sum.add_product(g, y); }
    static V value(V g, V y, Pair<V> sum) { return y * ((g - sum.hi) - sum.lo); }
};

template <class V, class>
struct LogSoftmaxGrad {
    static void add(SignedSum<V> &sum, V g, V) { sum.add(g); }
    static V value(V g, V y, Pair<V> sum) {
        const V p = exp_full(y), product = p * sum.hi;
        return (g - product) - fma(p, sum.lo, product_rest(p, sum.hi, product));
    }

   private:
    // What the product's rounding lost, where that is a number: an infinite product has no rest.
    static V product_rest(V a, V b, V product) {
        if constexpr (V::kFused) return rest_of(product, fma(a, b, V(0) - product));
        return V(0);
    }
};

// A slice, or (columns) up to W neighbours, of two arrays and the output.
template <class V, class E, class Op, bool kAlong>
struct VjpUnit {
    const fs_call &call;
    const E *g, *y;
    E *out;
    int64_t lanes;  // of a vector that hold slices

    static int64_t piece_size() { return kAlong ? kRowPiece : kColumnPiece; }
    static int64_t pieces(const fs_call &call) { return ceil_divide(call.n, piece_size()); }

    // visit(element offset from the unit's begin along the slice, lanes) for each vector of a piece.
    template <class Visit>
    void walk(int64_t piece, const Visit &visit) const {
        const int64_t first = piece * piece_size(), end = smaller(first + piece_size(), call.n);
        if constexpr (kAlong) {
            int64_t i = first;
            for (; i + V::W <= end; i += V::W) visit(i, V::W);
            if (i < end) visit(i, end - i);
        } else {
            for (int64_t i = first; i < end; ++i) visit(i, lanes);
        }
    }

    Pair<V> sum(int64_t piece) const {
        SignedSum<V> sum = SignedSum<V>::zero();
        walk(piece, [&](int64_t i, int64_t count) {
            Op::add(sum, load_some<V>(g + i * call.x_strides.n, count), load_some<V>(y + i * call.y_strides.n, count));
        });
        return sum.wide().pair();
    }

    void write(int64_t piece, Pair<V> sum) const {
        walk(piece, [&](int64_t i, int64_t count) {
            const V upstream = load_some<V>(g + i * call.x_strides.n, count);
            const V saved = load_some<V>(y + i * call.y_strides.n, count);
            store_some(Op::value(upstream, saved, sum), out + i * call.out_strides.n, count);
        });
    }
};

template <class V, class E, class Op, bool kAlong>
fs_status vjp(const fs_call &call, int64_t begin, int64_t end, const Team &team, bool) {
    using T = typename V::T;
    using Unit = VjpUnit<V, E, Op, kAlong>;
    const int64_t pieces = Unit::pieces(call);
    Scratch<Pair<V>, 16> sums(pieces);
    if (sums.data == nullptr) return FS_NO_MEMORY;
    const int64_t groups = ceil_divide(call.inner, V::W);
    for (int64_t i = begin; i < end; ++i) {
        const int64_t outer = kAlong ? i : i / groups, inner = kAlong ? 0 : i % groups * V::W;
        const Unit unit{call,
                        static_cast<const E *>(call.x) + outer * call.x_strides.outer + inner,
                        static_cast<const E *>(call.y) + outer * call.y_strides.outer + inner,
                        static_cast<E *>(call.out) + outer * call.out_strides.outer + inner,
                        smaller(call.inner - inner, V::W)};
        auto add = [&](int64_t p) { sums.data[p] = unit.sum(p); };
        team.for_each(pieces, add);
        SignedSum<V> sum = SignedSum<V>::zero();
        for (int64_t p = 0; p < pieces; ++p) {
            sum.add(sums.data[p].hi);
            sum.add(sums.data[p].lo);
        }
        Pair<V> total = sum.wide().pair();
        if constexpr (kAlong) {
            const double value = sum.over_lanes();
            const V hi = V(T(value));
            total = {hi, rest_of(hi, V(T(value - double(hi.v[0]))))};
        }
        auto write = [&](int64_t p) { unit.write(p, total); };
        team.for_each(pieces, write);
    }
    return FS_OK;
}

#endif
