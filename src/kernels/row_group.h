// Up to a vector's width of rows, and the passes over them: what a row computes once is computed for all of them, a row in each
// lane. What rows.h makes whole arrays of.
#ifndef FASTSOFTMAX_KERNELS_ROW_GROUP_H
#define FASTSOFTMAX_KERNELS_ROW_GROUP_H

// The beginning of a long row whose maximum stands for the row's own: a first cache line or two would be too far below it too
// often.
constexpr int64_t kGuess = 512;

// Where the exponentials of a group's rows are kept.
template <class T>
struct Room {
    T *begin;
    int64_t distance;  // between rows
};

// Up to W rows. One that stands alone is summed in pieces, which fix its order of summation and which a team may share.
template <class V, class E, class Op>
class RowGroup {
    using T = typename V::T;
    static constexpr T lowest = -__builtin_inff();
    static constexpr bool kWrites = Op::kWrite != Write::kNothing;
    static constexpr bool kExponentials = Op::kWrite == Write::kExponentials;

   public:
    // What a pass over one piece leaves.
    struct Piece {
        V maximum;
        Sum<V> sum;
        int64_t left_out;
    };
    static int64_t pieces_of(int64_t n) { return ceil_divide(n, kRowPiece); }

    void start(const fs_call &the_call, int64_t first, int64_t count, const Room<T> &the_room, bool past_caches) {
        call = &the_call;
        n = call->n;
        pieces = pieces_of(n);
        lanes.template start_rows<kWrites>(*call, first, count);
        stream = past_caches;
        room = the_room;
    }
    // True if the first row is settled as it is.
    bool skip() const { return Op::skip(*call, lanes); }

    // The maxima of a group that no other goes before.
    void find_maxima(V (&found)[V::W]) const {
        int64_t row = 0;
        do found[row] = piece_max<V>(x(row), n);  // (there is a row, but no compiler sees it)
        while (++row < lanes.count);
    }
    // Takes maxima that were found lane by lane, or logsumexps that stand for them and for the whole sums.
    void prepare(V (&found)[V::W]) { prepare(max_of_rows(found, lanes.count)); }
    void prepare_with_lse() {
        prepare(V::load(static_cast<const T *>(call->given_lse) + lanes.slice, lanes.count, 0));
        stats.sum = wide_of(V(0));
        factor = op.finish(stats);
        room.begin = nullptr;
    }

    // All but the output. `before` is a group that waits for its own output, or NULL; `next` one whose maxima are to be found
    // lane by lane.
    void reduce(const RowGroup *before, const RowGroup *next, V (&found)[V::W]) {
        Piece scratch[V::W];
        with_kept([&](auto keep) {
            for (int64_t row = 0; row < lanes.count; ++row) {
                const RowGroup *other = row < next->lanes.count ? next : this;
                sum_piece<keep.value, false>(row, 0, before, other->x(row), scratch[row]);
            }
        });
        Folded<V> sums[V::W];
        for (int64_t row = 0; row < lanes.count; ++row) {
            sums[row] = scratch[row].sum.folded();
            found[row] = scratch[row].maximum;
        }
        finish(sum_of_rows(sums, lanes.count), scratch, {1, nullptr});
    }

    // The same of a row that stands alone: first its scale, then the pass. Whatever stands for the maximum, the bits are the
    // same: another maximum than the row's own is kept only where both need no shift (exp.h).
    void guess_maximum(Piece *scratch, const Team &team) {
        if (!in_place()) stats.maximum = V(reduce_max(piece_max<V>(x(0), kGuess)));
        if (in_place() || lanes_set<V>(needs_no_shift(stats.maximum)) == 0) {
            auto find = [&](int64_t p) { scratch[p].maximum = piece_max<V>(x(0) + piece(p), piece_size(p)); };
            team.for_each(pieces, find);
            stats.maximum = maximum_of_pieces(scratch);
        }
        stats.scale = exp_scale(stats.maximum);
        if (in_place()) op.begin(*call, lanes, stats.maximum);
    }
    void reduce_lone(Piece *scratch, const Team &team, const RowGroup *before) {
        auto pass = [&](const RowGroup *written) {
            with_kept([&](auto keep) {
                auto sum = [&](int64_t p) { sum_piece<keep.value, true>(0, p, written, nullptr, scratch[p]); };
                team.for_each(pieces, sum);
            });
            return maximum_of_pieces(scratch);
        };
        auto pass_anew = [&] {
            stats.scale = exp_scale(stats.maximum);
            pass(nullptr);
        };
        auto finish_pieces = [&] {
            if constexpr (Op::kExceptMax) stats.top = exp_scaled(stats.maximum, stats.scale);
            finish(sum_of_pieces(scratch), scratch, team);
        };
        const T guess = stats.maximum.v[0];
        stats.maximum = pass(before);
        const T maximum = stats.maximum.v[0];
        const bool serves = maximum == guess || (maximum - guess <= Exp<T>::kMargin &&
                                                 lanes_set<V>(needs_no_shift(stats.maximum)) > 0);
        if (!serves) pass_anew();
        if (!in_place()) op.begin(*call, lanes, stats.maximum);
        finish_pieces();
        if constexpr (kExponentials) {
            // (What lies kRange below the guess, not below the maximum, is seen only where outputs may be above 1.)
            const V hi = V(factor.hi.v[0]), largest = hi * exp_scaled(stats.maximum, stats.scale);
            const auto visible = with(faint(hi, V(op.numerator().v[0])), less(V(1), max(largest, V(0) - largest)));
            if (serves && maximum != guess && !in_place() && lanes_set<V>(visible) > 0) {
                pass_anew();
                finish_pieces();
            }
        }
    }

    // The passes over three groups of rows of C vectors, the last of which may be partial: `next` begins, `group` is summed,
    // `before` is written. Each may be NULL. (Not inlined, because the loop needs all registers.)
    template <int C>
    __attribute__((noinline)) static void run_short(RowGroup *before, RowGroup *group, RowGroup *next) {
        if (before != nullptr && group != nullptr && next != nullptr && next->lanes.count == V::W) {
            V found[V::W];
            Folded<V> sums[V::W];
            const Short<C> b(*before), g(*group), n(*next);
            for (int64_t row = 0; row < V::W; ++row) {
                found[row] = n.largest(row);
                sums[row] = g.sum(row);
                b.write(row);
            }
            next->prepare(max_of_rows(found, V::W));
            group->finish_short(sums);
            before->done();
            return;
        }
        if (next != nullptr) {
            V found[V::W];
            int64_t row = 0;
            do found[row] = Short<C>(*next).largest(row);
            while (++row < next->lanes.count);
            next->prepare(max_of_rows(found, next->lanes.count));
        }
        if (group != nullptr) {
            Folded<V> sums[V::W];
            sums[0] = Sum<V>::zero().folded();  // (there is a row, but no compiler sees it)
            int64_t row = 0;
            do sums[row] = Short<C>(*group).sum(row);
            while (++row < group->lanes.count);
            group->finish_short(sums);
        }
        if (before != nullptr) {
            for (int64_t row = 0; row < before->lanes.count; ++row) Short<C>(*before).write(row);
            before->done();
        }
    }

    // The output of rows first.. that no other group went beside.
    void write(int64_t first, const Team &team) const {
        if constexpr (kWrites) {
            for (int64_t row = first; row < lanes.count; ++row) {
                auto write_piece = [this, row](int64_t p) {
                    const int64_t whole = piece_size(p) / V::W;
                    auto all = [whole](const auto &writer) {
                        writer.begin();
                        for (int64_t j = 0; j < whole; ++j) writer(j);
                        writer.end();
                    };
                    kExponentials && kept(row) != nullptr ? all(writer<kExponentials>(row, p)) : all(writer<false>(row, p));
                };
                team.for_each(pieces, write_piece);
            }
        }
    }

    void done() { op.done(); }
    int64_t count() const { return lanes.count; }

   private:
    // From the rows' sums, row i's in lane i, to the factors.
    FS_INLINE void finish(const Wide<V> &sum, Piece *scratch, const Team &team) {
        stats.sum = sum;
        if constexpr (Op::kExceptMax) {
            // The sums, added singly, keep the digits of all but a very small rest when the maximum is taken away again.
            // (Summing the rest in the first place would cost every row a comparison for each term.)
            stats.sum = sum + wide_of(V(0) - stats.top);
            const auto small = less(stats.sum.rounded(), stats.top * V(T(0x1p-16)));
            if (lanes_set<V>(small) > 0) sum_rest(small, scratch, team);
        }
        factor = op.finish(stats);
    }

    FS_INLINE void finish_short(Folded<V> (&sums)[V::W]) {
        Piece scratch;
        finish(sum_of_rows(sums, lanes.count), &scratch, {1, nullptr});
    }

    int64_t piece(int64_t p) const { return p * kRowPiece; }
    int64_t piece_size(int64_t p) const { return smaller(kRowPiece, n - piece(p)); }
    const E *x(int64_t row) const { return lanes.x + row * lanes.x_lane; }
    E *out(int64_t row) const { return lanes.out + row * lanes.out_lane; }
    // Where a row's exponentials are kept; NULL: nowhere.
    T *kept(int64_t row) const { return room.begin == nullptr ? nullptr : room.begin + row * room.distance; }
    // Whether the exponentials take the place of the logits: then a second try would find none.
    bool in_place() const { return static_cast<const void *>(room.begin) == lanes.x; }
    ExpScale<V> scale(int64_t row) const {
        return {V(stats.scale.shift.v[row]), V(stats.scale.round.v[row]), V(stats.scale.lowest.v[row])};
    }

    void prepare(V maximum) {
        set_maximum<Op::kExceptMax>(stats, maximum);
        op.begin(*call, lanes, maximum);
    }

    template <bool kHaveExp>
    RowWriter<V, E, Op, kHaveExp> writer(int64_t row, int64_t p) const {
        const Pair<V> f = {V(factor.hi.v[row]), V(factor.lo.v[row])};
        E *to = out(row) + piece(p);
        if constexpr (kHaveExp) {
            return {kept(row) + piece(p), to, piece(p), piece_size(p), scale(row), f, op, row, stream};
        } else {
            return {x(row) + piece(p), to, piece(p), piece_size(p), scale(row), f, op, row, stream};
        }
    }

    // Calls f(Int<whether the exponentials are kept>).
    template <class F>
    void with_kept(const F &f) const {
        if constexpr (!kExponentials) {
            f(Int<false>());
        } else if constexpr (sizeof(E) == sizeof(T)) {
            f(Int<true>());
        } else {
            room.begin == nullptr ? f(Int<false>()) : f(Int<true>());
        }
    }

    template <bool kKeep, bool kLone>
    void sum_piece(int64_t row, int64_t p, const RowGroup *before, const E *next, Piece &result) const {
        auto sum = [&](const auto &writer) {
            T *keep = kKeep ? kept(row) + piece(p) : nullptr;
            result.sum = piece_sum<Op::kExceptMax, kKeep, kLone, V>(
                x(row) + piece(p), keep, piece_size(p), scale(row), writer, kLone ? x(row) + piece(p) : next,
                &result.maximum);
        };
        if constexpr (kWrites) {
            if (before != nullptr && row < before->lanes.count) return sum(before->template writer<kKeep>(row, p));
        }
        sum(Nothing());
    }

    // (Of one row, as the next one.)
    V maximum_of_pieces(const Piece *scratch) const {
        V m = scratch[0].maximum;
        for (int64_t p = 1; p < pieces; ++p) m = max(m, scratch[p].maximum);
        return V(reduce_max(m));
    }
    Wide<V> sum_of_pieces(const Piece *scratch) const {
        Pair<double> sum = {0, 0};
        for (int64_t p = 0; p < pieces; ++p) {
            const Pair<double> piece = sum_of_row(scratch[p].sum.folded());
            add_to(sum.hi, sum.lo, piece.hi, piece.lo);
        }
        return Wide<V>::of({sum.hi + sum.lo, (sum.hi - (sum.hi + sum.lo)) + sum.lo});
    }

    // Adds the rows of some lanes anew without their first maximum.
    void sum_rest(typename V::Mask meant, Piece *scratch, const Team &team) {
        const V chosen = select(meant, V(1), V(0));
        Folded<V> sums[V::W];
        T surplus[V::W] = {};  // the maxima left out beside the first
        for (int64_t row = 0; row < lanes.count; ++row) {
            sums[row] = Sum<V>::zero().folded();
            if (chosen.v[row] == 0) continue;
            auto sum_piece = [this, row, scratch](int64_t p) {
                Piece &result = scratch[p];
                // What was kept may stand in the place of the logits, if out is x.
                if (kExponentials && kept(row) != nullptr) {
                    result.sum = piece_rest<true>(kept(row) + piece(p), piece_size(p), scale(row), V(stats.top.v[row]),
                                                  result.left_out);
                } else {
                    result.sum = piece_rest<false>(x(row) + piece(p), piece_size(p), scale(row),
                                                   V(stats.maximum.v[row]), result.left_out);
                }
            };
            team.for_each(pieces, sum_piece);
            surplus[row] = -1;
            for (int64_t p = 0; p < pieces; ++p) surplus[row] += T(scratch[p].left_out);
            sums[row] = scratch[0].sum.folded();
        }
        SignedSum<V> maxima = SignedSum<V>::zero();
        maxima.add_product(V::load(surplus), stats.top);
        const Wide<V> rest = pieces == 1 ? sum_of_rows(sums, lanes.count) : sum_of_pieces(scratch);
        stats.sum = choose(chosen, rest + maxima.wide(), stats.sum);
    }

    // One row of a group of short ones. (Copies: behind a reference they would be loaded anew after every store.)
    template <int C>
    struct Short {
        static_assert(C > 1);  // rows of one vector are transposed
        const RowGroup &group;
        const E *const x;
        T *const kept;
        E *const out;
        const int64_t x_lane, out_lane, last;

        explicit Short(const RowGroup &g)
            : group(g), x(g.lanes.x), kept(g.room.begin), out(g.lanes.out), x_lane(g.lanes.x_lane),
              out_lane(g.lanes.out_lane), last(g.n - (C - 1) * V::W) {}

        FS_INLINE static void fetch(const E *p) {
#pragma GCC unroll 4
            for (int c = 0; c < C; ++c) fetch_ahead(p + c * V::W);
        }
        FS_INLINE V load(int64_t row, int c, T fill) const {
            const E *p = x + row * x_lane + c * V::W;
            return c < C - 1 ? V::load(p) : V::load(p, last, fill);
        }
        FS_INLINE V largest(int64_t row) const {
            fetch(x + row * x_lane);
            V m = load(row, C - 1, lowest);
#pragma GCC unroll 4
            for (int c = 0; c < C - 1; ++c) m = max(m, load(row, c, lowest));
            return m;
        }
        FS_INLINE Folded<V> sum(int64_t row) const {
            const ExpScale<V> scale = group.scale(row);
            V y[C];
#pragma GCC unroll 4
            for (int c = 0; c < C; ++c) {
                y[c] = exp_scaled(load(row, c, lowest), scale);
                if constexpr (kExponentials) y[c].store(kept + (row * C + c) * V::W);
            }
            constexpr int step = Op::kExceptMax ? 1 : 2;
            Sum<V> sum = Sum<V>::of(step == 1 ? y[0] : y[0] + y[1]);
#pragma GCC unroll 4
            for (int c = step; c < C; c += step) sum.add(step == 1 || c + 1 == C ? y[c] : y[c] + y[c + 1]);
            return sum.folded();
        }
        FS_INLINE void write(int64_t row) const {
            if constexpr (kWrites) {
                const Pair<V> f = {V(group.factor.hi.v[row]), V(group.factor.lo.v[row])};
                fetch(out + row * out_lane);
#pragma GCC unroll 4
                for (int c = 0; c < C; ++c) {
                    V loaded;
                    if constexpr (kExponentials) {
                        loaded = V::load(kept + (row * C + c) * V::W);
                    } else {
                        loaded = load(row, c, 0);
                    }
                    const int64_t some = c < C - 1 ? V::W : last;
                    const V value = row_output<kExponentials>(loaded, group.stats.scale, f, group.op, row, c * V::W, some);
                    E *p = out + row * out_lane + c * V::W;
                    if (c < C - 1) {
                        value.store(p);
                    } else {
                        value.store(p, last);
                    }
                }
            }
        }
    };

    const fs_call *call;
    int64_t n, pieces;
    Lanes<E> lanes;
    Room<T> room;
    bool stream;
    Op op;
    Stats<V> stats;  // row i in lane i, as in factor
    Pair<V> factor;
};

#endif
