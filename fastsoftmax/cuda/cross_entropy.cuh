// Cross-entropy, its gradient, logsumexp. In the notation of the public docstrings, with lse = m + log1p(r):
//
//   loss   = s (sum_c w_c q_c ((m - x_c) + log1p(r)) + v z lse^2)
//   grad_c = s (p_c (sum_c w_c q_c + 2 v z lse) - w_c q_c)
//
// What an index label asks for, `hot` at its class, is kept apart from what every class may get (SPREAD: by smoothing,
// or by probability labels): the true class's hot (p - 1) is -hot times the sum of the others, which keeps its digits.
//
// A label out of range makes its slice's loss and gradient NaN; nothing is read there.
#ifndef FASTSOFTMAX_CUDA_CROSS_ENTROPY
#define FASTSOFTMAX_CUDA_CROSS_ENTROPY

#include <normalizers.cuh>

template <class Element, bool SPREAD, bool GRADIENT>
struct Entropy {
    using T = Element;
    using N = NumberOf<T>;
    static constexpr bool HAS_Y = SPREAD, WRITES = GRADIENT, HAS_MAXIMUM = true;

    template <bool, class Narrow, class Wide>
    struct Choice {
        using Type = Narrow;
    };
    template <class Narrow, class Wide>
    struct Choice<true, Narrow, Wide> {
        using Type = Wide;
    };
    using State = typename Choice<SPREAD, Peak<T>, SpreadPeak<T>>::Type;

    // In the place of a label: the slice is ignored; the label is no class; there is none.
    static constexpr long long IGNORED = -1, WRONG = -2, NONE = -3;

    long long label;
    int label_slot = -1;   // which of the thread's elements it is; -1: none
    const N* weight_here;  // of the chunk's first class
    // Of the gradient.
    N factor, scale, label_value;
    bool cleared;

    // (Few numbers are kept from here to the end: registers are what the elements need.)
    __device__ __forceinline__ Entropy(const Job& job, long long slice) {
        label = job.labels ? job.labels[slice] : NONE;
        if (job.labels && label == job.ignore_index) {
            label = IGNORED;
        } else if (job.labels && (label < 0 || label >= job.n)) {
            label = WRONG;
        }
    }

    // The label's class weight.
    __device__ __forceinline__ N label_weight(const Job& job) const {
        return job.weight && label >= 0 ? static_cast<const N*>(job.weight)[label] : N(1);
    }

    __device__ __forceinline__ N hot(const Job& job) const {
        return label >= 0 ? static_cast<N>(job.kept) * label_weight(job) : N(0);
    }

    static __device__ __forceinline__ N slice_weight(const Job& job, long long slice) {
        return job.sample_weight ? static_cast<const N*>(job.sample_weight)[slice] : N(1);
    }

    template <class Place>
    __device__ __forceinline__ void enter_chunk(const Job& job, const Place& place) {
        const long long here = label - place.begin(job);
        label_slot = label >= 0 && here >= 0 && here < place.count ? place.slot(static_cast<int>(here)) : -1;
        weight_here = job.weight ? static_cast<const N*>(job.weight) + place.begin(job) : nullptr;
    }

    // Whether the label's logit is needed by itself: by the leader for the loss, by the thread that holds it.
    __device__ __forceinline__ bool needs_single(const Job& job, bool leader) const {
        return label >= 0 && ((leader && job.losses) || label_slot >= 0);
    }

    static __device__ __forceinline__ N fill() {
        return -infinity<N>();
    }

    static __device__ __forceinline__ const Peak<T>& peak_in(const Peak<T>& state) {
        return state;
    }

    static __device__ __forceinline__ const Peak<T>& peak_in(const SpreadPeak<T>& state) {
        return state.peak;
    }

    static __device__ __forceinline__ N shares_in(const Peak<T>&) {
        return 0;
    }

    static __device__ __forceinline__ N shares_in(const SpreadPeak<T>& state) {
        return state.shares;
    }

    static __device__ __forceinline__ N spread_loss(const Peak<T>&, N) {
        return 0;
    }

    static __device__ __forceinline__ N spread_loss(const SpreadPeak<T>& state, N log_sum) {
        return state.shares == 0 ? state.terms : state.terms + state.shares * log_sum;
    }

    // Of a chunk whose slice's state is known, or stands in a saved logsumexp.
    template <class Place>
    __device__ __forceinline__ N known_maximum(const Job& job, const Place& place) const {
        return job.partials ? peak_in(state_of_chunk<State>(job, place)).maximum : saved_lse(job, place.slice(job));
    }

    static __device__ __forceinline__ N saved_lse(const Job& job, long long slice) {
        return static_cast<const N*>(job.given_lse)[slice];
    }

    // y becomes the classes' shares.
    template <int E, class Place>
    __device__ __forceinline__ typename State::Addends local(
        const Job& job, N (&x)[E], N* y, N m, const Place& place, int turn) {
        if constexpr (SPREAD) {
            const N kept = static_cast<N>(job.kept), spread = static_cast<N>(job.spread);
            const N shift = is_finite(m) ? m : N(0);
            N shares = 0, terms = 0;
#pragma unroll
            for (int k = 0; k < E; ++k) {
                N share = 0;
                if (place.has(k, turn)) {
                    share = job.y ? multiply_add(kept, y[k], spread) : spread;
                    share = weight_here ? share * weight_here[place.of(k, turn)] : share;
                }
                y[k] = share;
                shares += share;
                terms += share == 0 ? N(0) : share * (shift - x[k]);
            }
            return {sum_below<T, GRADIENT>(x, m), {terms, 0}, shares};
        } else {
            return sum_below<T, GRADIENT>(x, m);
        }
    }

    // x_label: read before anything was written, which may be over x.
    __device__ __forceinline__ void write_slice(const Job& job, long long slice, const State& whole, N x_label) const {
        const Peak<T>& peak = peak_in(whole);
        const N logsumexp = peak.logsumexp();
        if (job.lses) {
            static_cast<N*>(job.lses)[slice] = logsumexp;
        }
        if (!job.losses) {
            return;
        }
        N loss = 0;
        if (label == WRONG || ((!is_finite(peak.maximum) || peak.rest != peak.rest) && label != IGNORED)) {
            loss = not_a_number<N>();
        } else if (label != IGNORED) {
            const N log_sum = log_1p(peak.rest), s = slice_weight(job, slice);
            if (s != 0) {
                loss = spread_loss(whole, log_sum);
                if (hot(job) != 0) {
                    loss += hot(job) * ((peak.maximum - x_label) + log_sum);
                }
                if (job.z_loss != 0) {
                    loss += label_weight(job) * static_cast<N>(job.z_loss) * logsumexp * logsumexp;
                }
                loss *= s;
            }
        }
        static_cast<N*>(job.losses)[slice] = loss;
    }

    __device__ __forceinline__ void prepare(const Job& job, long long slice, N m, const State& whole, N x_label) {
        const bool saved = job.given_lse != nullptr;
        Peak<T> peak = peak_in(whole);
        if (saved) {  // in the place of the maximum: the sum is 1 then
            peak = {saved_lse(job, slice), 0};
        }
        N rest = shares_in(whole);
        if (job.z_loss != 0) {
            const N lse = saved ? peak.maximum : peak.logsumexp();
            rest += 2 * label_weight(job) * static_cast<N>(job.z_loss) * lse;
        }
        if (label == WRONG || !is_finite(peak.maximum)) {
            peak.maximum = not_a_number<N>();
        }
        const double divisor = job.divisor ? *job.divisor : 1;
        cleared = label == IGNORED || divisor == 0;
        scale = static_cast<N>(1 / divisor) * slice_weight(job, slice);
        const N one_over_sum = 1 / (1 + peak.rest);
        factor = Exponential<T, false>::of_difference(m, peak.maximum) * one_over_sum * (hot(job) + rest) * scale;
        label_value = 0;
        if (label_slot >= 0) {
            const N term = Exponential<T, false>::of_difference(x_label, peak.maximum);
            // (The rest leaves a term 1 out: the label's own, or one as large.)
            const N others = saved ? -exp_m1(x_label - peak.maximum)
                                   : (term == 1 ? peak.rest : peak.rest + (1 - term)) * one_over_sum;
            label_value = scale * (term * one_over_sum * rest - hot(job) * others);
        }
    }

    // y is the class's share.
    __device__ __forceinline__ N value(N x, N y, int k) const {
        const N result = k == label_slot ? label_value : x * factor;
        return cleared ? N(0) : (SPREAD ? result - scale * y : result);
    }
};

template <class T>
using CrossEntropy = Entropy<T, false, false>;

template <class T>
using CrossEntropyGrad = Entropy<T, false, true>;

template <class T>
using CrossEntropySpread = Entropy<T, true, false>;

template <class T>
using CrossEntropySpreadGrad = Entropy<T, true, true>;

#endif
