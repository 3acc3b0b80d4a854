// Cross-entropy and its gradient. With the target q = (1-e) onehot + e/K, or (1-e) t + e/K of probability labels t, the
// class weights w, the slice's weight s, and v the label's weight (1 for probability labels):
//
//     loss = s (sum_c w_c q_c (lse - x_c) + v z lse^2),    lse - x_c = (m - x_c) + log1p(r) with r as in operation.h
//     gradient_c = grad_scale s ((A + 2 v z lse) p_c - w_c q_c),    A = sum_c w_c q_c.
//
// The one-hot part of an index label stands apart from the shares of all classes, which only the spread form has (e > 0 or
// probability labels): its gradient is -(sum of the other exponentials) / sum, because p - 1 would lose the digits of 1 - p
// where p is near 1. A term of factor 0 is 0 even at a logit of -inf. An ignored slice has loss and gradient 0, whatever it
// holds.
#ifndef FASTSOFTMAX_KERNELS_CROSS_ENTROPY_H
#define FASTSOFTMAX_KERNELS_CROSS_ENTROPY_H

// a * b, or 0 where a is 0 and b infinite.
template <class V>
V weighted(V a, V b) {
    return keep_unless(equal(a, V(0)), a * b);
}

// Of the spread form: w_c q_c of every class, but for the one-hot part.
template <class V, class E>
class Shares {
    using T = typename V::T;

   public:
    Shares() = default;
    Shares(const fs_call &call, const Lanes<E> &lanes)
        : weight(static_cast<const T *>(call.weight)),
          y(call.y),
          same(call.y_dtype == call.dtype),
          n_stride(call.y_strides.n),
          lane_stride(call.inner == 1 ? call.y_strides.outer : 1),
          first(lanes.slice / call.inner * call.y_strides.outer + lanes.slice % call.inner),
          count(lanes.count),
          keep(T(1 - call.label_smoothing)),
          even(T(call.label_smoothing / double(call.n))) {}

    // Classes i.. of one slice, `some` of them.
    V along(int64_t lane, int64_t i, int64_t some) const {
        V share = even;
        if (y != nullptr) share = fma(keep, load(first + lane * lane_stride + i * n_stride, some), share);
        return weight == nullptr ? share : share * load_some<V>(weight + i, some);
    }

    // Class i of the slices side by side.
    V across(int64_t i) const {
        V share = even;
        if (y != nullptr) share = fma(keep, load(first + i * n_stride, count), share);
        return weight == nullptr ? share : share * V(weight[i]);
    }

   private:
    V load(int64_t at, int64_t lanes) const {
        return same ? load_some<V>(static_cast<const E *>(y) + at, lanes)
                    : load_some<V>(static_cast<const T *>(y) + at, lanes);
    }

    const T *weight;
    const void *y;
    bool same;  // whether y has the dtype of the logits, else the computing dtype
    int64_t n_stride, lane_stride, first, count;
    V keep, even;
};

// What a slice's loss and gradient are made of, a number for each lane.
template <class V>
struct Mixture {
    V one;     // s (1-e) w_label, of the one-hot part
    V shares;  // s times the sum of the shares
    V spread;  // s times the sum of share_c (m - x_c)
    V square;  // s v z
};

// The gradient's two forms are kernels of their own, because what they write differs. A loss writes no element, so that one
// kernel does for both forms.
template <class V, class E, bool kGrad, bool kSpreadGrad = false>
class CrossEntropy {
    using T = typename V::T;
    // The labels were checked, but their owner may have changed them since: what is written is decided by one reading, and
    // a label that is no class gives NaN instead of reaching beyond the slice.
    static constexpr int64_t kIgnored = -1, kNone = -2;

   public:
    static constexpr Write kWrite = kGrad ? Write::kExponentials : Write::kNothing;
    static constexpr bool kExceptMax = true;
    static constexpr bool kTakesLse = kGrad;
    static constexpr bool kSubtracts = kSpreadGrad;

    static bool skip(const fs_call &call, const Lanes<E> &lanes) {
        if (call.labels == nullptr || call.lse != nullptr) return false;
        if (label_of(call, lanes.slice) != call.ignore_index) return false;
        if (call.loss != nullptr) static_cast<T *>(call.loss)[lanes.slice] = 0;
        if constexpr (kGrad) clear(call, lanes, 0);
        return true;
    }

    void begin(const fs_call &the_call, const Lanes<E> &the_lanes, V maximum) {
        call = &the_call;
        lanes = &the_lanes;
        lse.begin(*call, *lanes, maximum);
        general = spread() || call->z_loss != 0;
        T one[V::W] = {}, scale[V::W] = {}, square[V::W] = {};
        V(0).store(logit);
        const T *weight = static_cast<const T *>(call->weight);
        const T *sample_weight = static_cast<const T *>(call->sample_weight);
        const T keep = T(1 - call->label_smoothing), z_loss = T(call->z_loss);
        for (int64_t lane = 0; lane < lanes->count; ++lane) {
            const int64_t slice = lanes->slice + lane;
            scale[lane] = sample_weight == nullptr ? 1 : sample_weight[slice];
            label[lane] = kNone;
            if (call->labels == nullptr) {
                square[lane] = scale[lane] * z_loss;
                continue;
            }
            const int64_t given = label_of(*call, slice);
            if (given == call->ignore_index) {
                label[lane] = kIgnored;
            } else if (uint64_t(given) < uint64_t(call->n)) {
                label[lane] = given;
                logit[lane] = element<V>(lanes->x + lane * lanes->x_lane + given * lanes->x_n);
                const T weighted_scale = weight == nullptr ? scale[lane] : scale[lane] * weight[given];
                one[lane] = weighted_scale * keep;
                square[lane] = weighted_scale * z_loss;
            } else {
                one[lane] = T(__builtin_nanf(""));
            }
        }
        mixture = {V::load(one), V(0), V(0), V::load(square)};
        if (spread()) {
            shares = Shares<V, E>(*call, *lanes);
            // (The product, because grad_scale alone may be beyond a float.)
            T product[V::W];
            for (int64_t lane = 0; lane < V::W; ++lane) product[lane] = T(double(scale[lane]) * call->grad_scale);
            subtrahend_scale = V::load(product);
            sum_shares(V::load(scale), maximum);
        }
    }

    Pair<V> finish(const Stats<V> &stats) {
        const V total = mixture.one + mixture.shares, label_logit = V::load(logit);
        V slope(0);  // 2 s v z lse
        if (call->lse != nullptr || call->loss != nullptr || general) {
            const V rest = log_rest(stats), own_lse = stats.maximum + rest;
            lse.store(stats.maximum, rest);
            if (call->z_loss != 0) slope = V(2) * (mixture.square * own_lse);
            if (call->loss != nullptr) {
                V loss = weighted(mixture.one, stats.maximum - label_logit) + total * rest;
                if (spread()) loss = loss + mixture.spread;
                // (Halved first: the square itself may overflow where its factor is 0.)
                if (call->z_loss != 0) loss = loss + (V(0.5) * slope) * own_lse;
                store_loss(loss);
            }
        }
        if constexpr (!kGrad) return {V(0), V(0)};
        const Wide<V> sum = stats.sum + wide_of(stats.top);
        whole = total + slope;
        const Pair<V> factor = quotient(call->grad_scale, whole, sum);
        // If the label is the maximum, the others are the rest, with all its digits. If not, nothing cancels.
        const V y = exp_scaled(label_logit, stats.scale), others = (stats.sum + wide_of(stats.top - y)).rounded();
        if (!general) {
            (V(0) - fma(others, factor.hi, others * factor.lo)).store(label_grad);
        } else {
            const Pair<V> one = quotient(call->grad_scale, mixture.one, sum);
            const Pair<V> more = quotient(call->grad_scale, mixture.shares + slope, sum);
            (fma(y, more.hi, y * more.lo) - fma(others, one.hi, others * one.lo)).store(label_grad);
        }
        return factor;
    }

    V numerator() const { return whole; }

    // What the spread form takes away from p times its factor.
    V along(int64_t lane, int64_t i, int64_t count) const {
        return V(subtrahend_scale.v[lane]) * shares.along(lane, i, count);
    }
    V across(int64_t i) const { return subtrahend_scale * shares.across(i); }

    void done() {
        if constexpr (kGrad) {
            for (int64_t lane = 0; lane < lanes->count; ++lane) {
                if (label[lane] == kIgnored) {
                    clear(*call, *lanes, lane);
                } else if (label[lane] != kNone) {
                    T grad = label_grad[lane];
                    if constexpr (kSpreadGrad) grad -= along(lane, label[lane], 1).v[0];
                    V(grad).store(lanes->out + lane * lanes->out_lane + label[lane] * lanes->out_n, 1);
                }
            }
        }
    }

   private:
    // Whether every class may have a share of the target.
    bool spread() const { return kGrad ? kSpreadGrad : call->op == FS_CROSS_ENTROPY_SPREAD; }

    // (So that the compiler, too, reads it once.)
    static int64_t label_of(const fs_call &call, int64_t slice) {
        return __atomic_load_n(call.labels + slice, __ATOMIC_RELAXED);
    }

    void sum_shares(V s, V maximum) {
        T total[V::W] = {}, spread[V::W] = {};
        if (lanes->rows) {
            for (int64_t lane = 0; lane < lanes->count; ++lane) {
                SignedSum<V> share_sum = SignedSum<V>::zero(), term_sum = SignedSum<V>::zero();
                const V peak = V(maximum.v[lane]);
                const E *x = lanes->x + lane * lanes->x_lane;
                for (int64_t i = 0; i < call->n; i += V::W) {
                    const int64_t some = smaller(call->n - i, V::W);
                    V share = shares.along(lane, i, some), logits = V::load(x + i, some, 0);
                    if (some < V::W) {  // behind the end there is no share, not even the even one
                        T inside[V::W];
                        share.store(inside);
                        share = V::load(inside, some, 0);
                    }
                    share_sum.add(share);
                    term_sum.add(weighted(share, peak - logits));
                }
                total[lane] = T(sum_of_row(share_sum.folded()).hi);
                spread[lane] = T(sum_of_row(term_sum.folded()).hi);
            }
        } else {
            SignedSum<V> share_sum = SignedSum<V>::zero(), term_sum = SignedSum<V>::zero();
            for (int64_t i = 0; i < call->n; ++i) {
                const V share = shares.across(i);
                share_sum.add(share);
                term_sum.add(weighted(share, maximum - V::load(lanes->x + i * lanes->x_n, lanes->count, 0)));
            }
            share_sum.wide().rounded().store(total);
            term_sum.wide().rounded().store(spread);
        }
        mixture.shares = s * V::load(total);
        mixture.spread = weighted(s, V::load(spread));
    }

    void store_loss(V values) const {
        T *loss = static_cast<T *>(call->loss) + lanes->slice;
        values.store(loss, lanes->count);
        for (int64_t lane = 0; lane < lanes->count; ++lane)
            if (label[lane] == kIgnored) loss[lane] = 0;
    }

    static void clear(const fs_call &call, const Lanes<E> &lanes, int64_t lane) {
        for (int64_t i = 0; i < call.n; ++i) V(0).store(lanes.out + lane * lanes.out_lane + i * lanes.out_n, 1);
    }

    const fs_call *call;
    const Lanes<E> *lanes;
    LogSumExpOutput<V, E> lse;
    bool general;  // whether the label's gradient has parts other than the one-hot one
    Mixture<V> mixture;
    Shares<V, E> shares;
    V subtrahend_scale, whole;
    int64_t label[V::W];
    T logit[V::W], label_grad[V::W];
};

template <class V, class E>
using CrossEntropyLoss = CrossEntropy<V, E, false>;
template <class V, class E>
using CrossEntropyGrad = CrossEntropy<V, E, true>;
template <class V, class E>
using CrossEntropySpreadGrad = CrossEntropy<V, E, true, true>;

#endif
