// Vector-Jacobian products from the saved output y of a slice, for its upstream gradient g:
//
//     softmax:     y (g - sum(g y))
//     log_softmax: g - exp(y) sum(g)
//
// Two passes, one adding and one writing. The sums have signs: they are kept wider than their terms, and used with what their
// rounding loses.
//
// Rows: while one is summed, one before it, which is still in a cache, is written. They go by groups, whose sums are reduced
// together, a row in each lane. Rows longer than a piece go alone, and a team may share them.
// Columns: groups of neighbours, row by row; the second pass finds them in the second cache, or not at all.
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
        const V p = exp_of_logs(y), product = p * sum.hi;
        const V lost = V::kFused ? fma(p, sum.hi, V(0) - product) : V(0);
        return (g - product) - rest_of(product, fma(p, sum.lo, lost));
    }
};

// Rows of more than four vectors go so many elements at a time, one row at least; of shorter ones there is one for each lane.
constexpr int64_t kVjpElements = 512;

// visit(place, lanes) for each vector from begin to end.
template <class V, class Visit>
FS_INLINE void for_vectors(int64_t begin, int64_t end, const Visit &visit) {
    for (; begin + V::W <= end; begin += V::W) visit(begin, V::W);
    if (begin < end) visit(begin, end - begin);
}

// A row of C vectors (0: of any number).
template <class V, class E, class Op, int C>
class VjpRow {
   public:
    VjpRow(const fs_call &call, int64_t row)
        : g(static_cast<const E *>(call.x) + row * call.x_strides.outer),
          y(static_cast<const E *>(call.y) + row * call.y_strides.outer),
          out(static_cast<E *>(call.out) + row * call.out_strides.outer),
          n(call.n) {}

    // The output, vector by vector.
    struct Writer {
        const VjpRow row;
        const Pair<V> total;

        FS_INLINE void operator()(int64_t i, int64_t count) const {
            fetch_ahead(row.out + i);
            const V upstream = load_some<V>(row.g + i, count), saved = load_some<V>(row.y + i, count);
            store_some(Op::value(upstream, saved, total), row.out + i, count);
        }
    };
    FS_INLINE void write(int64_t piece, Pair<V> total) const { walk(piece, Writer{*this, total}); }

    // The sum of a piece; beside it another row's is written.
    template <class Beside>
    FS_INLINE SignedSum<V> sum(int64_t piece, const Beside &write) const {
        SignedSum<V> sum = SignedSum<V>::zero();
        walk(piece, [&](int64_t i, int64_t count) FS_INLINE_LAMBDA {
            fetch_ahead(g + i);
            fetch_ahead(y + i);
            Op::add(sum, load_some<V>(g + i, count), load_some<V>(y + i, count));
            write(i, count);
        });
        return sum;
    }

   private:
    template <class Visit>
    FS_INLINE void walk(int64_t piece, const Visit &visit) const {
        if constexpr (C > 0) {
#pragma GCC unroll 4
            for (int c = 0; c < C - 1; ++c) visit(c * V::W, V::W);
            visit((C - 1) * V::W, n - (C - 1) * V::W);
        } else {
            for_vectors<V>(piece * kRowPiece, smaller((piece + 1) * kRowPiece, n), visit);
        }
    }

    const E *const g, *const y;
    E *const out;
    const int64_t n;
};

template <int C, class V, class E, class Op>
fs_status vjp_of_groups(const fs_call &call, int64_t begin, int64_t end) {
    using Row = VjpRow<V, E, Op, C>;
    const int64_t together = C > 0 ? V::W : smaller(ceil_divide(kVjpElements, call.n), V::W);
    Pair<V> totals = {V(0), V(0)};  // of the rows before `first` that are not written yet
    auto total_of = [&](int64_t i) -> Pair<V> { return {V(totals.hi.v[i]), V(totals.lo.v[i])}; };
    auto write = [&](int64_t first, int64_t count) {
        for (int64_t i = 0; i < count; ++i) Row(call, first + i).write(0, total_of(i));
    };
    int64_t waiting = 0;
    for (int64_t first = begin; first < end; first += together) {
        const int64_t count = smaller(together, end - first);
        Folded<V> rows[V::W];
        if (waiting == count) {
            for (int64_t i = 0; i < count; ++i) {
                const typename Row::Writer before{Row(call, first - count + i), total_of(i)};
                rows[i] = Row(call, first + i).sum(0, before).folded();
            }
        } else {
            for (int64_t i = 0; i < count; ++i) rows[i] = Row(call, first + i).sum(0, Nothing()).folded();
            write(first - waiting, waiting);
        }
        totals = sum_of_rows(rows, count).pair();
        waiting = count;
    }
    write(end - waiting, waiting);
    return FS_OK;
}

template <class V, class E, class Op>
fs_status vjp_of_long_rows(const fs_call &call, int64_t begin, int64_t end, const Team &team) {
    const int64_t pieces = ceil_divide(call.n, kRowPiece);
    const Scratch<SignedSum<V>, 16> sums(pieces);
    if (sums.data == nullptr) return FS_NO_MEMORY;
    for (int64_t i = begin; i < end; ++i) {
        const VjpRow<V, E, Op, 0> row(call, i);
        auto add = [&](int64_t p) { sums.data[p] = row.sum(p, Nothing()); };
        team.for_each(pieces, add);
        for (int64_t p = 1; p < pieces; ++p) sums.data[0].add(sums.data[p]);
        const Pair<V> total = Wide<V>::of(sum_of_row(sums.data[0].folded())).pair();
        auto write = [&](int64_t p) { row.write(p, total); };
        team.for_each(pieces, write);
    }
    return FS_OK;
}

template <class V, class E, class Op>
fs_status vjp_of_rows(const fs_call &call, int64_t begin, int64_t end, const Team &team, bool) {
    if (call.n > kRowPiece) return vjp_of_long_rows<V, E, Op>(call, begin, end, team);
    switch (ceil_divide(call.n, V::W)) {
        case 1: return vjp_of_groups<1, V, E, Op>(call, begin, end);
        case 2: return vjp_of_groups<2, V, E, Op>(call, begin, end);
        case 3: return vjp_of_groups<3, V, E, Op>(call, begin, end);
        case 4: return vjp_of_groups<4, V, E, Op>(call, begin, end);
        default: return vjp_of_groups<0, V, E, Op>(call, begin, end);
    }
}

// Vectors of a group of columns, of so many units as threads share: the wider it is, the longer are the pieces in which memory
// is read. (With one unit, as in columns.h, softmax_grad of (64, 128, 256) along axis 1 takes twice as long, along axis 0 of
// (10, 65536) 1.4 times.)
constexpr int kVjpUnits = 4, kVjpGroup = kVjpUnits * kGroup;

template <class V, class E, class Op>
class VjpColumns {
   public:
    // `count` slices from `inner` on of `outer`.
    VjpColumns(const fs_call &call, int64_t outer, int64_t inner, int64_t count)
        : g(static_cast<const E *>(call.x) + outer * call.x_strides.outer + inner),
          y(static_cast<const E *>(call.y) + outer * call.y_strides.outer + inner),
          out(static_cast<E *>(call.out) + outer * call.out_strides.outer + inner),
          g_n(call.x_strides.n), y_n(call.y_strides.n), out_n(call.out_strides.n), n(call.n), count(count) {}

    int64_t columns() const { return ceil_divide(count, V::W); }

    void sum(int64_t piece, SignedSum<V> *sums) const {
        for (int64_t c = 0; c < columns(); ++c) sums[c] = SignedSum<V>::zero();
        for (int64_t i = piece * kColumnPiece; i < end(piece); ++i) {
            const int64_t g_ahead = bytes_ahead(i, g_n), y_ahead = bytes_ahead(i, y_n);
            for_vectors<V>(0, count, [&](int64_t at, int64_t some) FS_INLINE_LAMBDA {
                const E *const from = g + i * g_n + at, *const beside = y + i * y_n + at;
                fetch_ahead(from, g_ahead);
                fetch_ahead(beside, y_ahead);
                Op::add(sums[at / V::W], load_some<V>(from, some), load_some<V>(beside, some));
            });
        }
    }
    void write(int64_t piece, const Pair<V> *totals) const {
        for (int64_t i = piece * kColumnPiece; i < end(piece); ++i) {
            const int64_t out_ahead = bytes_ahead(i, out_n);
            for_vectors<V>(0, count, [&](int64_t at, int64_t some) FS_INLINE_LAMBDA {
                const V upstream = load_some<V>(g + i * g_n + at, some), saved = load_some<V>(y + i * y_n + at, some);
                E *const to = out + i * out_n + at;
                fetch_ahead(to, out_ahead);
                store_some(Op::value(upstream, saved, totals[at / V::W]), to, some);
            });
        }
    }

   private:
    int64_t end(int64_t piece) const { return smaller((piece + 1) * kColumnPiece, n); }
    // From row i to the one a block after it, which may be the next group's.
    int64_t bytes_ahead(int64_t i, int64_t stride) const {
        const int64_t back = n > kBlock ? n - kBlock : 0;
        return (i + kBlock < n ? kBlock * stride : count - back * stride) * int64_t(sizeof(E));
    }

    const E *const g, *const y;
    E *const out;
    const int64_t g_n, y_n, out_n, n, count;
};

template <class V, class E, class Op>
fs_status vjp_of_columns(const fs_call &call, int64_t begin, int64_t end, const Team &team, bool) {
    constexpr int64_t width = kGroup * V::W;
    const int64_t pieces = ceil_divide(call.n, kColumnPiece), units = ceil_divide(call.inner, width);
    const int64_t columns = smaller(ceil_divide(call.inner, V::W), kVjpGroup);  // at once, at most
    const Scratch<SignedSum<V>, 4 * kVjpGroup> sums(pieces * columns);
    if (sums.data == nullptr) return FS_NO_MEMORY;
    for (int64_t unit = begin, together; unit < end; unit += together) {
        together = smaller(smaller(kVjpUnits, end - unit), units - unit % units);
        const int64_t inner = unit % units * width;
        const VjpColumns<V, E, Op> group(call, unit / units, inner, smaller(call.inner - inner, together * width));
        auto add = [&](int64_t p) { group.sum(p, sums.data + p * columns); };
        team.for_each(pieces, add);
        Pair<V> totals[kVjpGroup];
        for (int64_t c = 0; c < group.columns(); ++c) {
            for (int64_t p = 1; p < pieces; ++p) sums.data[c].add(sums.data[p * columns + c]);
            totals[c] = sums.data[c].wide().pair();
        }
        auto write = [&](int64_t p) { group.write(p, totals); };
        team.for_each(pieces, write);
    }
    return FS_OK;
}

#endif
