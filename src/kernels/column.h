// One vector of slices side by side, a slice in each lane, and the passes over its rows: maximum; exponentials and their sum,
// with a neighbour's output and another's maximum beside them; output. What columns.h makes whole arrays of.
#ifndef FASTSOFTMAX_KERNELS_COLUMN_H
#define FASTSOFTMAX_KERNELS_COLUMN_H

// The first rows, whose maximum stands for a slice's own: of slices in a tile, which they have to go through (a multiple of
// kBlock), and of longer ones.
constexpr int64_t kGuessRows = 64;
constexpr int64_t kLongGuessRows = 512;

template <class V, class E, class Op>
class Column {
    using T = typename V::T;
    static constexpr bool kWrites = Op::kWrite != Write::kNothing;
    static constexpr bool kExponentials = Op::kWrite == Write::kExponentials;

   public:
    // What the passes over a piece leave; the first block of its rows begins it. With kExceptMax the sum is that of all
    // exponentials but the largest, which is `top`.
    struct Piece {
        V maximum, top;
        Sum<V> sum;
    };

    // `count` slices from `inner` on of `outer`. `tile`: of rows `tile_row` apart, for what one pass hands on to the next; NULL:
    // exponentials stand in the output, where they fit, and nothing else is handed on.
    void start(const fs_call &the_call, int64_t outer, int64_t inner, int64_t count, T *tile, int64_t tile_row,
               bool past_caches) {
        call = &the_call;
        // (One by one: copied as a whole they would be read again before they have left the store buffer.)
        lanes.x = static_cast<const E *>(call->x) + outer * call->x_strides.outer + inner;
        lanes.out = static_cast<E *>(call->out);
        if constexpr (kWrites) lanes.out += outer * call->out_strides.outer + inner;
        lanes.x_lane = lanes.out_lane = 1;
        lanes.x_n = call->x_strides.n;
        lanes.out_n = call->out_strides.n;
        lanes.slice = outer * call->inner + inner;
        lanes.count = count;
        lanes.rows = false;
        // Past the caches a line is to be written whole.
        constexpr uintptr_t line = 64;
        stream = past_caches && V::W * sizeof(E) == line && whole() &&
                 (reinterpret_cast<uintptr_t>(lanes.out) | uintptr_t(lanes.out_n * int64_t(sizeof(E)))) % line == 0;
        in_tile = tile != nullptr;
        kept = tile;
        kept_n = tile_row;
        if (!in_tile && kExponentials && sizeof(E) == sizeof(T) && !stream && call->x != call->out) {
            kept = static_cast<T *>(static_cast<void *>(lanes.out));
            kept_n = lanes.out_n;
        }
        stats.maximum = V(-__builtin_inff());
    }

    // The maximum of some rows, which go into the tile if there is one.
    void find_maximum(int64_t first, int64_t rows) {
        V m = stats.maximum;
        for (int64_t j = first; j < first + rows; ++j) {
            const V v = load_some<V>(lanes.x + j * lanes.x_n, lanes.count);
            if (in_tile) v.store(kept + j * kept_n);
            m = max(m, v);
        }
        stats.maximum = m;
    }
    // From the maximum, or what stands for it.
    void set_scale() { stats.scale = exp_scale(stats.maximum); }

    // The sum of some rows, all of them from x.
    void sum(int64_t first, int64_t rows, Piece &piece) const {
        kept != nullptr ? sum_singly<true, kWrites>(first, rows, piece) : sum_singly<true, false>(first, rows, piece);
    }
    // The same with what find_maximum put into the tile, and beside it the output of `before` and the maximum of `next`, which
    // may be NULL.
    void sum_beside(int64_t first, int64_t rows, Piece &piece, const Column *before, Column *next) const {
        const bool write_too = kWrites && whole() && before != nullptr && before->whole();
        if (first >= kGuessRows) {
            if (write_too) return sum_rows<true, true, kWrites, true, false>(first, rows, piece, before, nullptr);
            sum_singly<true, kWrites>(first, rows, piece);
        } else {
            if (write_too && next != nullptr && next->whole())
                return sum_rows<true, false, kExponentials, true, true>(first, rows, piece, before, next);
            sum_singly<false, kExponentials>(first, rows, piece);
            if (next != nullptr) next->find_maximum(first, rows);
        }
        if (before != nullptr) before->write(first, rows);
    }

    // The maximum of the whole slices from their pieces, `distance` apart. True: some lie so far above what stood for them that
    // their sums are to be found again.
    bool settle(const Piece *pieces, int64_t count, int64_t distance) {
        V m = pieces[0].maximum;
        for (int64_t p = 1; p < count; ++p) m = max(m, pieces[p * distance].maximum);
        stand_in = stats.maximum;
        stats.maximum = m;
        return give_way(less(V(Exp<T>::kMargin), m - stand_in));
    }
    // The same for factors that turn out to have lost digits.
    bool faded() {
        if constexpr (kExponentials) return give_way(without(faint(factor.hi, op.numerator()), equal(stand_in, stats.maximum)));
        return false;
    }

    // From the sums of the pieces to the factors.
    void finish(const Piece *pieces, int64_t count, int64_t distance) {
        op.begin(*call, lanes, stats.maximum);
        stats.sum = pieces[0].sum.wide();
        V top = pieces[0].top;
        for (int64_t p = 1; p < count; ++p) {
            const Piece &piece = pieces[p * distance];
            stats.sum = stats.sum + piece.sum.wide();
            if constexpr (Op::kExceptMax) stats.sum = stats.sum + wide_of(without_largest(top, piece.top));
        }
        if constexpr (Op::kExceptMax) stats.top = exp_scaled(stats.maximum, stats.scale);
        factor = op.finish(stats);
    }
    // From logsumexps that stand for the maxima and for the whole sums.
    void finish_with_lse() {
        set_maximum<Op::kExceptMax>(stats, V::load(static_cast<const T *>(call->given_lse) + lanes.slice, lanes.count, 0));
        op.begin(*call, lanes, stats.maximum);
        stats.sum = wide_of(V(0));
        factor = op.finish(stats);
        kept = nullptr;
    }

    void write(int64_t first, int64_t rows) const {
        if constexpr (kWrites) {
            if (kept != nullptr) {
                write_rows<kExponentials>(kept + first * kept_n, kept_n, first, rows);
            } else {
                write_rows<false>(lanes.x + first * lanes.x_n, lanes.x_n, first, rows);
            }
        }
    }
    void done() { op.done(); }

   private:
    // In some lanes the maximum takes the place of what stood for it; the others' bits are not to change. False: in none.
    bool give_way(typename V::Mask some) {
        if (lanes_set<V>(some) == 0) return false;
        stand_in = select(some, stats.maximum, stand_in);
        stats.scale = exp_scale(stand_in);
        return true;
    }

    bool whole() const { return lanes.count == V::W; }

    template <bool kHaveExp, class S>
    void write_rows(const S *source, int64_t source_n, int64_t first, int64_t rows) const {
        // Copies, which no store can change: behind a reference they would be loaded anew for every vector.
        const ExpScale<V> scale = stats.scale;
        const Pair<V> f = factor;
        E *out = lanes.out + first * lanes.out_n;
        const int64_t out_n = lanes.out_n, count = lanes.count;
        const bool past_caches = stream;
        for (int64_t j = 0; j < rows; ++j) {
            const V v = column_output<kHaveExp>(load_some<V>(source + j * source_n, count), scale, f, op, first + j);
            if (past_caches) {
                v.stream(out + j * out_n);
            } else {
                store_some(v, out + j * out_n, count);
            }
        }
    }
    template <bool kHaveExp>
    FS_INLINE static V column_output(V loaded, const ExpScale<V> &scale, Pair<V> factor, const Op &op, int64_t i) {
        const V p = output<Op::kWrite, kHaveExp>(loaded, scale, factor);
        if constexpr (Op::kSubtracts) return p - op.across(i);
        return p;
    }

    // From a block of rows to the next of rows begin..end-1, which may be that of the group after this one.
    int64_t ahead(int64_t first, int64_t begin, int64_t end, int64_t n_stride) const {
        return first + kBlock < end ? kBlock * n_stride : (begin - first) * n_stride + kept_n;
    }

    // Both ends, for a vector may lie across two lines (with one of them 4096 slices of 1000 elements take twice as long).
    FS_INLINE static void fetch(const E *p) {
        __builtin_prefetch(p, 0, 2);
        __builtin_prefetch(p + V::W - 1, 0, 2);
    }

    // What stands beside a sum. `own` is the row, in the tile, of the vector that is summed. Memory is fetched a block ahead,
    // because rows far apart look to the hardware like no sequence at all (for 4096 slices of 1000 elements, 1.7 times as fast).
    struct BesideOutput {
        E *out;
        const int64_t from, out_n, fetched, first;
        const Pair<V> factor;
        const Op &op;
        const bool stream;

        BesideOutput(const Column &c, const T *tile, int64_t first)
            : out(c.lanes.out + first * c.lanes.out_n), from(c.kept - tile), out_n(c.lanes.out_n),
              fetched(c.ahead(first, 0, c.call->n, out_n)), first(first), factor(c.factor), op(c.op), stream(c.stream) {}

        FS_INLINE void operator()(int64_t j, const T *own) {
            const V v = column_output<kExponentials>(V::load(own + from), ExpScale<V>(), factor, op, first + j);
            if (stream) {
                v.stream(out);
            } else {
                v.store(out);
                fetch(out + fetched);
            }
            out += out_n;
        }
    };
    struct BesideMaximum {
        const E *x;
        const int64_t to, x_n, fetched;

        BesideMaximum(const Column &c, const T *tile, int64_t first)
            : x(c.lanes.x + first * c.lanes.x_n), to(c.kept - tile), x_n(c.lanes.x_n),
              fetched(c.ahead(first, 0, smaller(c.call->n, kGuessRows), x_n)) {}

        FS_INLINE void operator()(T *own, V &maximum) {
            const V v = V::load(x);
            fetch(x + fetched);
            v.store(own + to);
            x += x_n;
            maximum = max(maximum, v);
        }
    };

    template <bool kFromX, bool kKeep>
    void sum_singly(int64_t first, int64_t rows, Piece &piece) const {
        if (whole()) {
            sum_rows<true, kFromX, kKeep, false, false>(first, rows, piece, this, nullptr);
        } else {
            sum_rows<false, kFromX, kKeep, false, false>(first, rows, piece, this, nullptr);
        }
    }

    // From x, or from the tile; kKeep: the exponentials, or else the logits, are handed on. (Not inlined, because the loop
    // needs all registers.)
    template <bool kWhole, bool kFromX, bool kKeep, bool kBefore, bool kNext>
    __attribute__((noinline)) void sum_rows(int64_t first, int64_t rows, Piece &piece, const Column *before,
                                            Column *next) const {
        const ExpScale<V> scale = stats.scale;
        const int64_t count = lanes.count, x_n = lanes.x_n, own_n = kept_n;
        const int64_t fetched = in_tile ? ahead(first, kGuessRows, call->n, x_n) : kBlock * x_n;
        const E *x = lanes.x + first * x_n;
        constexpr bool kHasOwn = kKeep || !kFromX || kBefore;
        T *own = kHasOwn ? kept + first * own_n : nullptr;
        typename Either<kBefore && kWrites, BesideOutput, Nothing>::Type write(*before, kept, first);
        typename Either<kNext, BesideMaximum, Nothing>::Type find(kNext ? *next : *this, kept, first);

        const bool begins = first % kColumnPiece == 0;
        V maximum = begins ? stats.maximum : piece.maximum, top = begins ? V(0) : piece.top;
        V found = kNext ? next->stats.maximum : maximum;
        Sum<V> sum = Sum<V>::zero();
        if (!begins) sum = piece.sum;
        auto term = [&](int64_t j) FS_INLINE_LAMBDA {
            V logits;
            if constexpr (kFromX) {
                logits = kWhole ? V::load(x) : V::load(x, count, 0);
                fetch(x + fetched);
                x += x_n;
                maximum = max(maximum, logits);
            } else {
                logits = V::load(own);
            }
            const V y = exp_scaled(logits, scale);
            if constexpr (kKeep) {
                const V kept_value = kExponentials ? y : logits;
                if (kWhole || in_tile) {
                    kept_value.store(own);
                } else {
                    kept_value.store(own, count);
                }
            }
            write(j, own);
            find(own, found);
            if constexpr (kHasOwn) own += own_n;
            if constexpr (Op::kExceptMax) return without_largest(top, y);
            return y;
        };
        add_terms<V, false, kBefore ? 2 : 4>(sum, rows, 0, term, [](int64_t, int64_t) { return V(0); });
        piece.maximum = maximum;
        piece.top = top;
        piece.sum = sum;
        if constexpr (kNext) next->stats.maximum = found;
    }

    const fs_call *call;
    Lanes<E> lanes;
    T *kept;  // what the passes hand on, its rows kept_n apart; NULL: nothing
    int64_t kept_n;
    bool in_tile, stream;
    Op op;
    Stats<V> stats;
    V stand_in;  // for the maximum, in the scale
    Pair<V> factor;
};

#endif
