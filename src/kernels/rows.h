// Rows: slices contiguous in memory, the lanes running along each. Three passes (maximum; exponentials and their sum;
// output) that run side by side on three rows: while one is exponentiated, which keeps the arithmetic busy, the row
// before it is written and the maximum of the row after it found, which keep the memory busy; and the long latencies
// between two passes over a row are hidden behind another. The exponentials wait in the output where it has the precision
// for that; a half-precision output is computed from the logits again.
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

// Writes the output of one row, or of a piece of it, vector by vector. kKept: the source holds exponentials.
template <class V, class E, class Op, bool kKept>
struct RowWriter {
    const E *source;
    E *out;
    // Copies, which no store can change: behind a reference they would be loaded anew for every vector.
    const ExpScale<V> scale;
    const Pair<V> factor;
    const Op &op;
    const int64_t first;  // where the piece begins in its row

    V value(V loaded, int64_t j, int64_t count) const {
        const V p = output<Op::kWrite, kKept>(loaded, scale, factor);
        if constexpr (Op::kSubtracts) return p - op.along(first + j * V::W, count);
        return p;
    }
    void operator()(int64_t j) const { value(V::load(source + j * V::W), j, V::W).store(out + j * V::W); }
    void partial(int64_t j, int64_t count) const {
        value(V::load(source + j * V::W, count, 0), j, count).store(out + j * V::W, count);
    }
};

struct WritesNothing {
    void operator()(int64_t) const {}
    void partial(int64_t, int64_t) const {}
};

// What is done beside the exponentials of a row: the row before it is written, the maximum of the row after it found.
template <class V, class E, class Writer>
struct Alongside {
    // How far ahead memory is fetched into the second cache: beyond what is in flight already, within a page.
    static constexpr int64_t kAhead = 2048 / sizeof(E);
    const Writer write;
    const E *next;
    V &next_maximum;

    void operator()(int64_t j) const {
        write(j);
        next_maximum = max(next_maximum, V::load(next + j * V::W));
        __builtin_prefetch(next + j * V::W + kAhead, 0, 2);
    }
    void partial(int64_t j, int64_t count) const {
        write.partial(j, count);
        next_maximum = max(next_maximum, V::load(next + j * V::W, count, -__builtin_inff()));
    }
};

template <class V, class E, Pass kPass, class Beside>
struct RowTerm {
    static constexpr bool kRest = kPass == Pass::kRest || kPass == Pass::kRestOfKept;
    static constexpr typename V::T kFill = kPass == Pass::kRestOfKept ? 0 : -__builtin_inff();
    const E *source;
    E *kept;
    const ExpScale<V> scale;
    const V peak;  // the maximum, or its exponential
    const Beside beside;
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
        beside(j);
        return y;
    }
    V partial(int64_t j, int64_t count) const {
        const V y = value(V::load(source + j * V::W, count, kFill));
        if constexpr (kPass == Pass::kSumAndKeep) y.store(kept + j * V::W, count);
        beside.partial(j, count);
        return y;
    }
};

// The sum of one piece of a row, in double (double: as a pair), and in how many lanes a maximum was left out.
struct RowSum {
    Pair<double> sum;
    int left_out;
};

template <class V, Pass kPass, bool kSingly, class E, class Beside>
RowSum row_sum(const E *source, E *kept, int64_t n, const Stats<V> &stats, const Beside &beside) {
    using Term = RowTerm<V, E, kPass, Beside>;
    typename V::Mask seen = no_lanes<V>();
    Sum<V> sum;
    const V peak = kPass == Pass::kRestOfKept ? stats.top : stats.maximum;
    add_terms<V, kSingly>(sum, n / V::W, n % V::W, Term{source, kept, stats.scale, peak, beside, seen});
    return {reduce(sum.total()), lanes_set<V>(seen)};
}

// One row, in the pieces that fix its order of summation.
template <class V, class E, class Op>
class Row {
    using T = typename V::T;
    static constexpr bool kWrites = Op::kWrite != Write::kNothing;
    static constexpr bool kKeep = Op::kWrite == Write::kExponentials && sizeof(E) == sizeof(T);

   public:
    struct Piece {
        T next_maximum;
        RowSum sum;
    };
    static int64_t count(int64_t n) { return ceil_divide(n, kRowPiece); }

    // False if the row is settled already.
    bool start(const fs_call &the_call, int64_t i) {
        call = &the_call;
        n = call->n;
        lanes = {static_cast<const E *>(call->x) + i * call->x_strides.outer,
                 static_cast<E *>(call->out) + i * call->out_strides.outer,
                 0, 1, 0, 1, i, 1, true};
        return !Op::skip(*call, lanes);
    }

    // The maximum of a row that no other goes before.
    void find_maximum(Piece *pieces, const Team &team) {
        auto find = [this, pieces](int64_t p) {
            pieces[p].next_maximum = row_max<V>(lanes.x + piece(p), piece_size(p));
        };
        team.for_each(count(n), find);
    }

    // All but the output, of a row whose maximum stands in the pieces. `before` is the row that still waits for its own
    // output, or NULL; `next` the row whose maximum is to be left in the pieces.
    void reduce_row(Piece *pieces, const Team &team, const Row *before, const Row *next) {
        V maximum = V(pieces[0].next_maximum);
        for (int64_t p = 1; p < count(n); ++p) maximum = max(maximum, V(pieces[p].next_maximum));
        stats = stats_of(maximum);
        op.begin(*call, lanes, maximum);

        auto sum_piece = [this, pieces, before, next](int64_t p) {
            constexpr Pass kPass = kKeep ? Pass::kSumAndKeep : Pass::kSum;
            const E *x = lanes.x + piece(p);
            E *kept = kKeep ? lanes.out + piece(p) : nullptr;
            V next_maximum = V(-__builtin_inff());
            auto sum = [&](auto writer) {
                const Alongside<V, E, decltype(writer)> beside{writer, next->lanes.x + piece(p), next_maximum};
                pieces[p].sum = row_sum<V, kPass, Op::kExceptMax>(x, kept, piece_size(p), stats, beside);
            };
            if constexpr (kWrites) {
                if (before != nullptr) {
                    sum(before->template writer<kKeep>(p));
                } else {
                    sum(WritesNothing());
                }
            } else {
                sum(WritesNothing());
            }
            pieces[p].next_maximum = reduce_max(next_maximum);
        };
        team.for_each(count(n), sum_piece);
        Pair<double> sum = total(pieces);
        if constexpr (Op::kExceptMax) sum = without_maximum(sum, pieces, team);
        const double rounded = sum.hi + sum.lo;
        const T hi = T(rounded);
        stats.sum = {V(hi), V(T((sum.hi - double(hi)) + sum.lo))};
        factor = op.finish(stats);
    }

    // What reduce_row does, of a row whose logsumexp is known.
    void take_lse() {
        const V lse = V(static_cast<const T *>(call->given_lse)[lanes.slice]);
        stats = stats_of(lse);
        stats.sum = {V(0), V(0)};
        op.begin(*call, lanes, lse);
        factor = op.finish(stats);
    }

    // kKept: reduce_row left exponentials in the output.
    template <bool kKept = kKeep>
    void write(const Team &team) const {
        if constexpr (kWrites) {
            auto write_piece = [this](int64_t p) {
                const auto write = writer<kKept>(p);
                const int64_t size = piece_size(p);
                for (int64_t j = 0; j < size / V::W; ++j) write(j);
                if (size % V::W) write.partial(size / V::W, size % V::W);
            };
            team.for_each(count(n), write_piece);
        }
    }

    void done() { op.done(); }

   private:
    int64_t piece(int64_t p) const { return p * kRowPiece; }
    int64_t piece_size(int64_t p) const { return smaller(kRowPiece, n - piece(p)); }

    template <bool kKept>
    RowWriter<V, E, Op, kKept> writer(int64_t p) const {
        E *out = lanes.out + piece(p);
        return {kKept ? out : lanes.x + piece(p), out, stats.scale, factor, op, piece(p)};
    }

    Pair<double> total(const Piece *pieces) const {
        Pair<double> sum = pieces[0].sum.sum;
        for (int64_t p = 1; p < count(n); ++p) add_to(sum.hi, sum.lo, pieces[p].sum.sum.hi, pieces[p].sum.sum.lo);
        return sum;
    }

    Pair<double> without_maximum(Pair<double> sum, Piece *pieces, const Team &team) const {
        const double top = double(stats.top.v[0]);
        // The sum, added singly, is exact to 2^-44 or so: it keeps the digits of all but a very small rest when the maximum
        // is taken away again. (Summing the rest in the first place would cost every row a comparison for each term.)
        Pair<double> rest = sum;
        add_to(rest.hi, rest.lo, -top, 0);
        if (!(rest.hi + rest.lo < top * 0x1p-16)) return rest;
        auto sum_rest = [this, pieces](int64_t p) {
            // What was kept stands in the place of the logits, if out is x.
            constexpr Pass kPass = kKeep ? Pass::kRestOfKept : Pass::kRest;
            const E *source = kKeep ? lanes.out : lanes.x;
            pieces[p].sum = row_sum<V, kPass, false>(source + piece(p), static_cast<E *>(nullptr), piece_size(p), stats,
                                                     WritesNothing());
        };
        team.for_each(count(n), sum_rest);
        int64_t left_out = 0;
        for (int64_t p = 0; p < count(n); ++p) left_out += pieces[p].sum.left_out;
        sum = total(pieces);
        add_to(sum.hi, sum.lo, double(left_out - 1) * top, 0);  // only the first maximum is to be missing
        return sum;
    }

    const fs_call *call;
    int64_t n;
    Lanes<E> lanes;
    Op op;
    Stats<V> stats;
    Pair<V> factor;
};

template <class V, class E, class Op>
fs_status rows(const fs_call &call, int64_t begin, int64_t end, const Team &team) {
    using OneRow = Row<V, E, Op>;
    if constexpr (Op::kTakesLse) {
        if (call.given_lse != nullptr) {
            OneRow row;
            for (int64_t i = begin; i < end; ++i) {
                if (!row.start(call, i)) continue;
                row.take_lse();
                row.template write<false>(team);
                row.done();
            }
            return FS_OK;
        }
    }
    const Scratch<typename OneRow::Piece, 16> scratch(OneRow::count(call.n));
    typename OneRow::Piece *const pieces = scratch.data;
    if (pieces == nullptr) return FS_NO_MEMORY;
    OneRow three[3];
    int64_t started = 0, i = begin;
    auto start_next = [&]() -> OneRow * {
        OneRow *row = &three[started % 3];
        while (i < end)
            if (row->start(call, i++)) return ++started, row;
        return nullptr;
    };
    OneRow *before = nullptr, *row = start_next();
    if (row != nullptr) row->find_maximum(pieces, team);
    while (row != nullptr) {
        OneRow *next = start_next();
        row->reduce_row(pieces, team, before, next == nullptr ? row : next);
        if (before != nullptr) before->done();
        before = row;
        row = next;
    }
    if (before != nullptr) {
        before->write(team);
        before->done();
    }
    return FS_OK;
}

#endif
