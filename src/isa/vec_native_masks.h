// Comparisons and selections of the vector layer for ISAs whose masks are vectors of all-ones and all-zero lanes.
#ifndef FASTSOFTMAX_VEC_NATIVE_MASKS_H
#define FASTSOFTMAX_VEC_NATIVE_MASKS_H

// Element by element: a partial vector must not touch the memory behind it.
template <class E>
void copy_elements(E *to, const E *from, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

template <class V>
typename V::Mask less(V a, V b) {
    return a.v < b.v;
}
template <class V>
typename V::Mask equal(V a, V b) {
    return a.v == b.v;
}
template <class V>
V select(typename V::Mask m, V a, V b) {
    using Bits = typename V::Bits;
    return {(decltype(V::v))(((Bits)a.v & (Bits)m) | ((Bits)b.v & ~(Bits)m))};
}
template <class V>
V keep_unless(typename V::Mask m, V a) {
    using Bits = typename V::Bits;
    return {(decltype(V::v))((Bits)a.v & ~(Bits)m)};
}
template <class V>
V fma_unless_less(V a, V b, V c, V x, V limit) {
    return keep_unless(less(x, limit), fma(a, b, c));
}
template <class Mask>
Mask with(Mask a, Mask b) {
    return a | b;
}
template <class Mask>
Mask without(Mask a, Mask seen) {
    return a & ~seen;
}
template <class V>
typename V::Mask no_lanes() {
    return typename V::Mask{};
}
template <class V>
int lanes_set(typename V::Mask m) {
    return __builtin_popcount(V::signs(m));
}

#endif
