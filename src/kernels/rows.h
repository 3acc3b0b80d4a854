// Rows: slices contiguous in memory, one at a time, the lanes running along it. Three passes (maximum; exponentials and
// their sum; output), the later ones out of the cache that the first one filled. The exponentials wait in the output
// where it has the precision for that; a half-precision output is computed from the logits again.
#ifndef FASTSOFTMAX_KERNELS_ROWS_H
#define FASTSOFTMAX_KERNELS_ROWS_H

template <class V, class E>
typename V::T row_max(const E *x, int64_t n) {
    constexpr typename V::T lowest = -__builtin_inff();
    V m[4] = {V(lowest), V(lowest), V(lowest), V(lowest)};
    int64_t i = 0;
    for (; i + 4 * V::W <= n; i += 4 * V::W) {
#pragma GCC unroll 4
        for (int q = 0; q < 4; ++q) m[q] = max(m[q], V::load(x + i + q * V::W));
    }
    for (; i + V::W <= n; i += V::W) m[0] = max(m[0], V::load(x + i));
    if (i < n) m[1] = max(m[1], V::load(x + i, n - i, lowest));
    return reduce_max(max(max(m[0], m[1]), max(m[2], m[3])));
}

// What a pass over a row adds up: exponentials, which it may keep in the output; or, where the sum was dominated by the
// maximum, all terms but the first maximum of each lane, from the logits or from the exponentials kept before.
enum class Pass { kSum, kSumAndKeep, kRest, kRestOfKept };

template <class V, class E, Pass kPass>
struct RowTerm {
    static constexpr bool kRest = kPass == Pass::kRest || kPass == Pass::kRestOfKept;
    static constexpr typename V::T kFill = kPass == Pass::kRestOfKept ? 0 : -__builtin_inff();
    const E *source;
    E *kept;
    // A copy, which no store can change: behind a reference it would be loaded anew for every vector.
    const ExpScale<V> scale;
    const V peak;  // the maximum, or its exponential
    typename V::Mask &seen;

    V value(V loaded) const {
        V y = kPass == Pass::kRestOfKept ? loaded : exp_scaled(loaded, scale);
        if constexpr (kRest) {
            const auto at_maximum = equal(loaded, peak);
            y = keep_unless(without(at_maximum, seen), y);
            seen = with(seen, at_maximum);
        }
        return y;
    }
    V operator()(int64_t j) const {
        const V y = value(V::load(source + j * V::W));
        if constexpr (kPass == Pass::kSumAndKeep) y.store(kept + j * V::W);
        return y;
    }
    V partial(int64_t j, int64_t count) const {
        const V y = value(V::load(source + j * V::W, count, kFill));
        if constexpr (kPass == Pass::kSumAndKeep) y.store(kept + j * V::W, count);
        return y;
    }
};

// The sum of one piece of a row, in double (double: as a pair), and in how many lanes a maximum was left out.
struct RowSum {
    Pair<double> sum;
    int left_out;
};

inline Pair<double> reduce(Pair<F32> s) {
    return {reduce_add((low(s.hi) + low(s.lo)) + (high(s.hi) + high(s.lo))), 0};
}
inline Pair<double> reduce(Pair<F64> s) {
    double hi[F64::W], lo[F64::W];
    s.hi.store(hi);
    s.lo.store(lo);
    for (int step = F64::W / 2; step > 0; step /= 2)
        for (int i = 0; i < step; ++i) add_to(hi[i], lo[i], hi[i + step], lo[i + step]);
    return {hi[0], lo[0]};
}

template <class V, Pass kPass, class E>
RowSum row_sum(const E *source, E *kept, int64_t n, const Stats<V> &stats) {
    using Term = RowTerm<V, E, kPass>;
    typename V::Mask seen = no_lanes<V>();
    SliceSum<V, Term::kRest> sum;
    const V peak = kPass == Pass::kRestOfKept ? stats.top : stats.maximum;
    add_terms<V>(sum, n / V::W, n % V::W, Term{source, kept, stats.scale, peak, seen});
    return {reduce(sum.total()), lanes_set<V>(seen)};
}

template <class V, class E, class Op>
class Row {
    using T = typename V::T;
    static constexpr bool kKeep = Op::kWrite == Write::kExponentials && sizeof(E) == sizeof(T);

   public:
    struct Piece {
        T maximum;
        RowSum sum;
    };

    Row(const fs_call &call, int64_t i, Piece *pieces, const Team &team)
        : n(call.n),
          pieces(pieces),
          team(team),
          lanes{static_cast<const E *>(call.x) + i * call.x_strides.outer,
                static_cast<E *>(call.out) + i * call.out_strides.outer,
                0, 1, 0, 1, i, 1} {
        op.begin(call, lanes);
    }

    void run() {
        if (op.skip()) return;
        auto find_max = [this](int64_t p) { pieces[p].maximum = row_max<V>(lanes.x + start(p), size(p)); };
        team.for_each(count(n), find_max);
        V maximum = V(pieces[0].maximum);
        for (int64_t p = 1; p < count(n); ++p) maximum = max(maximum, V(pieces[p].maximum));

        stats.maximum = maximum;
        stats.scale = exp_scale(maximum);
        stats.top = exp_scaled(maximum, stats.scale);
        const double top = double(stats.top.v[0]);
        Pair<double> sum = total<kKeep ? Pass::kSumAndKeep : Pass::kSum>(lanes.x, top);
        if constexpr (Op::kExceptMax) {
            // Taking the maximum away again is exact enough where the rest is no smaller than it.
            if (!(sum.hi < 2 * top))
                add_to(sum.hi, sum.lo, -top, 0);
            else if (kKeep)  // what was kept stands in the place of the logits, if out is x
                sum = total<Pass::kRestOfKept>(lanes.out, top);
            else
                sum = total<Pass::kRest>(lanes.x, top);
        }
        const V hi = V(T(sum.hi));
        stats.sum = {hi, V(T((sum.hi - double(hi.v[0])) + sum.lo))};
        factor = op.finish(stats);
        if constexpr (Op::kWrite != Write::kNothing) {
            auto write = [this](int64_t p) { write_piece(lanes.x + start(p), lanes.out + start(p), size(p)); };
            team.for_each(count(n), write);
        }
        op.done();
    }

    static int64_t count(int64_t n) { return (n + kRowPiece - 1) / kRowPiece; }

   private:
    int64_t start(int64_t p) const { return p * kRowPiece; }
    int64_t size(int64_t p) const { return smaller(kRowPiece, n - start(p)); }

    // The pieces' sums, added in order.
    template <Pass kPass>
    Pair<double> total(const E *source, double top) {
        auto sum_piece = [this, source](int64_t p) {
            E *kept = kPass == Pass::kSumAndKeep ? lanes.out + start(p) : nullptr;
            pieces[p].sum = row_sum<V, kPass>(source + start(p), kept, size(p), stats);
        };
        team.for_each(count(n), sum_piece);
        Pair<double> sum = pieces[0].sum.sum;
        int64_t left_out = pieces[0].sum.left_out;
        for (int64_t p = 1; p < count(n); ++p) {
            add_to(sum.hi, sum.lo, pieces[p].sum.sum.hi, pieces[p].sum.sum.lo);
            left_out += pieces[p].sum.left_out;
        }
        // Only the first maximum of the row is to be missing.
        if (RowTerm<V, E, kPass>::kRest) add_to(sum.hi, sum.lo, double(left_out - 1) * top, 0);
        return sum;
    }

    static V value(V loaded, const ExpScale<V> &scale, const Pair<V> &f) {
        if constexpr (Op::kWrite == Write::kLogarithms) return (loaded - f.hi) - f.lo;
        const V y = kKeep ? loaded : exp_scaled(loaded, scale);
        return fma(y, f.hi, y * f.lo);
    }

    void write_piece(const E *x, E *out, int64_t size) const {
        const E *source = kKeep ? out : x;
        const ExpScale<V> scale = stats.scale;  // copies: see RowTerm
        const Pair<V> f = factor;
        int64_t i = 0;
        for (; i + V::W <= size; i += V::W) value(V::load(source + i), scale, f).store(out + i);
        if (i < size) value(V::load(source + i, size - i, 0), scale, f).store(out + i, size - i);
    }

    const int64_t n;
    Piece *const pieces;
    const Team &team;
    const Lanes<E> lanes;
    Op op;
    Stats<V> stats;
    Pair<V> factor;
};

template <class V, class E, class Op>
fs_status rows(const fs_call &call, int64_t begin, int64_t end, const Team &team) {
    using OneRow = Row<V, E, Op>;
    typename OneRow::Piece few[16], *pieces = few;
    const int64_t count = OneRow::count(call.n);
    if (count > 16) pieces = static_cast<typename OneRow::Piece *>(malloc(size_t(count) * sizeof few[0]));
    if (pieces == nullptr) return FS_NO_MEMORY;
    for (int64_t i = begin; i < end; ++i) OneRow(call, i, pieces, team).run();
    if (pieces != few) free(pieces);
    return FS_OK;
}

#endif
