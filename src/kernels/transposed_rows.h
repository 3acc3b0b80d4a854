// Rows of a few elements, transposed: as many as a vector has lanes go together, a row in each lane. No lane is idle then, as
// most would be along a row of ten, and nothing is reduced over lanes; what is left are columns side by side.
//
// Three groups are on their way together: one begins, the one before it is summed, and the one before that written. What a
// group computes once, its scale and its factors, has the time of the others' passes to be ready.
#ifndef FASTSOFTMAX_KERNELS_TRANSPOSED_ROWS_H
#define FASTSOFTMAX_KERNELS_TRANSPOSED_ROWS_H

// Transposes kRows vectors of as many lanes in place, by perfect shuffles; only the first `wanted` results are made.
template <int kRows, class V>
FS_INLINE void transpose(V *rows, int64_t wanted) {
    if constexpr (kRows > 1) {
        constexpr int half = kRows / 2;
#pragma GCC unroll 8
        for (int i = 0; i < half; ++i) {
            const V a = rows[i], b = rows[i + half];
            rows[i] = interleave_low(a, b);
            rows[i + half] = interleave_high(a, b);
        }
        transpose<half>(rows, wanted);
        if (wanted > half) transpose<half>(rows + half, wanted - half);
    }
}

// Rows of at most so many elements; beyond, the rows' own passes are as fast. (What is not written is faster so up to 44
// elements: it is not transposed back. But a loss has the same bits with its gradient and without.)
constexpr int64_t kTransposed = 20;

// The passes of a group are functions of their own, each with all registers: in one function they spill, and take a fifth
// longer.
template <class V, class E, class Op>
class TransposedRows {
    using T = typename V::T;
    static constexpr bool kWrites = Op::kWrite != Write::kNothing;
    static constexpr bool kExponentials = Op::kWrite == Write::kExponentials;
    static constexpr T lowest = -__builtin_inff();
    static constexpr int64_t kRoom = ceil_divide(kTransposed, V::W) * V::W;
    static constexpr int kNear = V::W < 4 ? V::W : 4;  // rows that one pointer leads to, by multiples of their distance

   public:
    static void run(const fs_call &call, int64_t begin, int64_t end) {
        TransposedRows flying[3];
        const int64_t groups = ceil_divide(end - begin, V::W);
        for (int64_t g = 0; g < groups + 2; ++g) {
            const int64_t first = begin + g * V::W;
            if (g < groups) flying[g % 3].begin(call, first, smaller(V::W, end - first));
            if (g >= 1 && g <= groups) flying[(g + 2) % 3].sum();
            if (g >= 2) flying[(g + 1) % 3].write();
        }
    }

   private:
    __attribute__((noinline)) void begin(const fs_call &call, int64_t first, int64_t count) {
        lanes.template start_rows<kWrites>(call, first, count);
        n = call.n;

        const V maximum = count == 1 ? copy_row() : transpose_in();
        set_maximum<Op::kExceptMax>(stats, maximum);
        op.begin(call, lanes, maximum);
    }

    __attribute__((noinline)) void sum() {
        const ExpScale<V> scale = stats.scale;
        T *own = tile;
        V top(0);
        Sum<V> sum = Sum<V>::zero();
        auto add = [&](const auto &exponential) FS_INLINE_LAMBDA {
            auto term = [&](int64_t i) FS_INLINE_LAMBDA {
                const V y = exponential(i);
                if constexpr (Op::kExceptMax) return without_largest(top, y);
                return y;
            };
            // (Two at once: a block of 16 is nearly the row.)
            add_terms<V, false, 2>(sum, n, 0, term, [](int64_t, int64_t) { return V(0); });
        };
        if (lanes.count == 1) {
            for (int64_t i = 0; i < n; i += V::W) exp_scaled(V::load(own + i), scale).store(own + kRoom + i);
            add([&](int64_t i) FS_INLINE_LAMBDA { return V(own[kRoom + i]); });
        } else {
            add([&](int64_t) FS_INLINE_LAMBDA {
                const V y = exp_scaled(V::load(own), scale);
                if constexpr (kExponentials) y.store(own);
                own += V::W;
                return y;
            });
        }
        stats.sum = sum.wide();
        factor = op.finish(stats);
    }

    __attribute__((noinline)) void write() {
        if constexpr (kWrites) lanes.count == 1 ? write_row() : transpose_out();
        op.done();
    }

    // The columns, and their maximum.
    FS_INLINE V transpose_in() {
        const E *x = lanes.x;
        int64_t x_lane = lanes.x_lane;
        E copy[V::W * kRoom];
        if (lanes.count < V::W) {
            for (int64_t row = 0; row < V::W; ++row) {  // lanes without a row have one of zeros
                for (int64_t i = 0; i < n; i += V::W) {
                    const V v = row < lanes.count ? load_some<V>(x + row * x_lane + i, smaller(V::W, n - i)) : V(0);
                    v.store(copy + row * kRoom + i);
                }
            }
            x = copy;
            x_lane = kRoom;
        }
        V maximum(lowest);
        for (int64_t i = 0; i < n; i += V::W, x += V::W) {
            const int64_t some = smaller(V::W, n - i);
            const E *from = x;
            V v[V::W];
            auto load = [&](auto whole) FS_INLINE_LAMBDA {
#pragma GCC unroll 4
                for (int row = 0; row < V::W; row += kNear, from += kNear * x_lane) {
#pragma GCC unroll 4
                    for (int r = 0; r < kNear; ++r)
                        v[row + r] = whole.value ? V::load(from + r * x_lane) : V::load(from + r * x_lane, some, 0);
                }
            };
            !V::kMasked && some == V::W ? load(Int<true>()) : load(Int<false>());
            transpose<V::W>(v, some);
#pragma GCC unroll 16
            for (int c = 0; c < V::W; ++c) {
                if (c >= some) break;
                v[c].store(tile + (i + c) * V::W);
                maximum = max(maximum, v[c]);
            }
        }
        return maximum;
    }

    FS_INLINE void transpose_out() {
        const ExpScale<V> scale = stats.scale;
        const Pair<V> f = factor;
        const int64_t out_lane = lanes.out_lane;
        for (int64_t i = 0; i < n; i += V::W) {
            const int64_t some = smaller(V::W, n - i);
            T *columns = tile + i * V::W;
            V v[V::W] = {};
#pragma GCC unroll 16
            for (int c = 0; c < V::W; ++c) {
                if (c >= some) break;
                v[c] = output<Op::kWrite, kExponentials>(V::load(columns + c * V::W), scale, f);
            }
            transpose<V::W>(v, V::W);
            E *out = lanes.out + i;
            auto store = [&](auto whole) FS_INLINE_LAMBDA {
#pragma GCC unroll 4
                for (int row = 0; row < V::W; row += kNear, out += kNear * out_lane) {
#pragma GCC unroll 4
                    for (int r = 0; r < kNear; ++r)
                        whole.value ? v[row + r].store(out + r * out_lane) : v[row + r].store(out + r * out_lane, some);
                }
            };
            if (!Op::kSubtracts && lanes.count == V::W) {
                !V::kMasked && some == V::W ? store(Int<true>()) : store(Int<false>());
                continue;
            }
#pragma GCC unroll 16
            for (int row = 0; row < V::W; ++row) v[row].store(columns + row * V::W);
            for (int64_t row = 0; row < lanes.count; ++row) {
                V value = V::load(columns + row * V::W);
                if constexpr (Op::kSubtracts) value = value - op.along(row, i, some);
                store_some(value, out + row * out_lane, some);
            }
        }
    }

    // One row alone stays a row, which takes 50 to 70 ns less. Its exponentials are added one by one, as a lane adds its own, to
    // the same bits; of the factors lane 0 is its own.
    FS_INLINE V copy_row() {
        V maximum(lowest);
        for (int64_t i = 0; i < n; i += V::W) {
            const V v = V::load(lanes.x + i, smaller(V::W, n - i), lowest);
            v.store(tile + i);
            maximum = max(maximum, v);
        }
        return V(reduce_max(maximum));
    }
    FS_INLINE void write_row() const {
        const Pair<V> own = {V(factor.hi.v[0]), V(factor.lo.v[0])};
        for (int64_t i = 0; i < n; i += V::W) {
            const int64_t some = smaller(V::W, n - i);
            const T *from = tile + (kExponentials ? kRoom : 0) + i;
            row_output<kExponentials>(V::load(from), stats.scale, own, op, 0, i, some).store(lanes.out + i, some);
        }
    }

    Lanes<E> lanes;
    int64_t n;
    Op op;
    Stats<V> stats;
    Pair<V> factor;
    // Element i of all rows at i * W: logits, then exponentials where they are written. Of one row alone the logits, and from
    // kRoom on the exponentials.
    alignas(64) T tile[kRoom * V::W];
};

#endif
