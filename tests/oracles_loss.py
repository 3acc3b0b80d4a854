"""Exact losses and gradients with every option of cross-entropy, the sizes of their errors, and what they are asked on.

Nothing here calls the library, and the formulas are not those of its reference: the target distribution is written out
in full, and an entry's gradient is the sum over the classes c of w_c q_c (p_i - [i = c]), where 1 - p_i is formed from
the other exponentials. Everything is in the wider type of oracles.py; weights and probability labels enter as rounded
to the dtype that the library computes in, numbers (smoothing, z_loss) as they are.

A size is the sum of the magnitudes that a result is made of, so that "8 eps of its size" is what is left of 8 eps for
each operand when nothing is lost on the way. The shift by the maximum counts in a logsumexp (its error is measured in
|m| + log1p(r)), but not in lse - x_c = (m - x_c) + log1p(r), whose two parts are never negative.
"""

from typing import NamedTuple

import numpy as np

from oracles import arrange, finfo, normal, parts, spacing, to_rows, widen

EPS = 8  # the errors allowed, in eps of the size


class Exact(NamedTuple):
    """Slices as rows, whatever the layout of the logits; `back` returns a gradient to it."""

    loss: np.ndarray
    loss_size: np.ndarray
    grad: np.ndarray
    grad_size: np.ndarray
    lse: np.ndarray
    lse_size: np.ndarray
    share: np.ndarray  # of each slice in the divisor of the mean
    ignored: np.ndarray
    back: object


def computing_dtype(dtype):
    """Of the weights and of losses: float64 for float64 logits, else float32."""
    return np.dtype(np.float64 if dtype.itemsize == 8 else np.float32)


def slices(
    logits,
    labels,
    axis=-1,
    *,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    z_loss=0.0,
    lse=None,
):
    """Loss and gradient of every slice by itself."""
    x, back = to_rows(widen(logits), axis)
    wide, number = x.dtype.type, computing_dtype(np.asarray(logits).dtype)
    labels = np.asarray(labels)
    batch, classes = x.shape[:-1], x.shape[-1]

    def widened(values, shape):
        values = np.ones(shape) if values is None else np.asarray(values)
        return np.broadcast_to(values.astype(number).astype(wide), shape)

    w, s = widened(weight, (classes,)), widened(sample_weight, batch)
    if labels.ndim == np.ndim(logits):
        t, v = np.moveaxis(labels, axis, -1).astype(number).astype(wide), np.ones(batch, wide)
        ignored = np.zeros(batch, bool)
    else:
        ignored = labels == ignore_index
        index = np.where(ignored, 0, labels).astype(np.intp)
        t, v = np.equal.outer(index, np.arange(classes)).astype(wide), w[index]
    e, z = wide(label_smoothing), wide(z_loss)
    wq = w * ((1 - e) * t + e / classes)

    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        m, exps, r = parts(x)
        p, rest = exps / (1 + r), 1 - exps / (1 + r)
        np.put_along_axis(rest, x.argmax(axis=-1, keepdims=True), r / (1 + r), axis=-1)
        own = np.where(np.isfinite(m), m + np.log1p(r), m)[..., 0]
        own_size = np.where(np.isfinite(m), np.abs(m) + np.log1p(r), 0)[..., 0]
        distance = (m - x) + np.log1p(r)
        p_size = p
        ordinary = np.isfinite(m[..., 0])
        used, used_size = own, own_size
        if lse is not None:
            # p_i is exp(x_i - lse) of the lse that was given, whose digits are the caller's business. The subtraction
            # is one rounding of |x_i - lse|, so it may cost p half of that in eps.
            used = np.asarray(lse).astype(number).astype(wide)
            d = x - used[..., np.newaxis]
            p, rest, used_size = np.exp(d), -np.expm1(d), np.abs(used)
            p_size = p * (1 + np.where(p > 0, np.abs(d), 0) / (2 * EPS))
            ordinary = np.isfinite(used)

        weighed = s[..., np.newaxis] * wq
        terms = np.where(weighed == 0, 0, weighed * distance)
        z_term = s * v * z
        loss = terms.sum(axis=-1) + (z_term * own**2 if z_loss else 0)
        loss_size = np.abs(terms).sum(axis=-1) + (np.abs(z_term) * own_size**2 if z_loss else 0)
        pull, pull_size = weighed.sum(axis=-1), np.abs(weighed).sum(axis=-1)
        extra, extra_size = (2 * z_term * used, 2 * np.abs(z_term) * used_size) if z_loss else (0 * s, 0 * s)
        pull_of_others = pull[..., np.newaxis] - weighed
        if labels.ndim < np.ndim(logits) and not label_smoothing:
            pull_of_others[np.arange(classes) == index[..., np.newaxis]] = 0  # exactly
        grad = p * (pull_of_others + extra[..., np.newaxis]) - weighed * rest
        grad_size = p_size * (pull_size + extra_size)[..., np.newaxis] + np.abs(weighed)

    loss, loss_size = (np.where(np.isfinite(m[..., 0]), part, np.nan) for part in (loss, loss_size))
    grad = np.where(ordinary[..., np.newaxis], grad, np.nan)
    loss, loss_size = (np.where(ignored, 0, part) for part in (loss, loss_size))
    grad, grad_size = (np.where(ignored[..., np.newaxis], 0, part) for part in (grad, grad_size))
    return Exact(loss, loss_size, grad, grad_size, own, own_size, np.where(ignored, 0, s * v), ignored, back)


def reduced(exact, reduction, grad_output=None):
    """Reduce the losses, and scale the gradient to that of grad_output times the reduced loss."""
    loss, loss_size = exact.loss, exact.loss_size
    upstream = 1 if grad_output is None else np.where(exact.ignored, 0, np.asarray(grad_output).astype(loss.dtype))
    factor = np.ones_like(exact.share) * upstream
    excess = 1  # the condition of the divisor, whose error is one of the magnitudes that it adds
    if reduction != "none":
        loss, loss_size = loss.sum(), loss_size.sum()
    if reduction == "mean":
        divisor = exact.share.sum()
        if divisor == 0:
            return exact._replace(
                loss=np.zeros_like(loss),
                loss_size=np.zeros_like(loss),
                grad=np.zeros_like(exact.grad),
                grad_size=np.zeros_like(exact.grad),
            )
        excess = np.abs(exact.share).sum() / np.abs(divisor)
        loss, loss_size, factor = loss / divisor, excess * loss_size / np.abs(divisor), factor / divisor
    factor = factor[..., np.newaxis]
    with np.errstate(invalid="ignore"):
        grad, grad_size = exact.grad * factor, excess * exact.grad_size * np.abs(factor)
    return exact._replace(loss=loss, loss_size=loss_size, grad=grad, grad_size=grad_size)


def assert_within(got, exact, size, dtype, context=()):
    """Hold got, of dtype, to EPS eps of the sizes, in the precision that it was computed in."""
    got, exact = np.asarray(got), np.asarray(exact)
    assert got.dtype == dtype, context
    assert got.shape == exact.shape, context
    info = finfo(computing_dtype(dtype))
    value = got.astype(exact.dtype)
    finite = np.isfinite(exact)
    if not finite.all():
        np.testing.assert_array_equal(value[~finite], exact[~finite], err_msg=str(context))
        value, exact, size = value[finite], exact[finite], np.asarray(size)[finite]
    bound = EPS * np.maximum(info.eps * size, info.smallest_subnormal)
    if dtype.itemsize == 2:
        bound = bound + spacing(exact, dtype) / 2
    bound = np.where(size == 0, 0, bound)  # a sum of nothing is exactly 0
    error = np.abs(value - exact)
    if not np.all(error <= bound):
        worst = np.nanmax(np.where(error > bound, error / np.maximum(bound, info.smallest_subnormal), 0))
        raise AssertionError(f"{context}: the error is {worst:.3g} of what is allowed, or NaN")


def assert_loss(got, exact, dtype, context=()):
    assert_within(got, exact.loss, exact.loss_size, computing_dtype(dtype), context)


def assert_grad(got, exact, dtype, context=()):
    assert_within(got, exact.back(exact.grad), exact.back(exact.grad_size), dtype, context)


def assert_lse(got, exact, dtype, context=()):
    """4 eps (|m| + log1p(r)), as everywhere."""
    assert_within(got, exact.lse, exact.lse_size * 4 / EPS, computing_dtype(dtype), context)


def one_hot(labels, n, axis=-1):
    return np.moveaxis(np.equal.outer(labels, np.arange(n)).astype("f8"), -1, axis)


def problem(kind, dtype, layout, n, batch, **kwargs):
    """Logits, labels of a kind (index, ignored: some of them, probabilities), and the axis."""
    logits, axis = arrange(normal((batch, n), dtype, **kwargs), layout)
    rng = np.random.default_rng(n)
    shape = tuple(np.delete(logits.shape, axis))
    if kind == "probabilities":
        labels = rng.random((*shape, n)) ** 3
        labels[labels < 0.05] = 0
        labels /= np.maximum(labels.sum(axis=-1, keepdims=True), 0.05)
        return logits, np.ascontiguousarray(np.moveaxis(labels, -1, axis)).astype(logits.dtype), axis
    labels = rng.integers(0, n, shape)
    if kind == "ignored":
        labels.flat[::3] = -100
    return logits, labels, axis


def weights(n):
    """Of classes: one has none."""
    w = np.random.default_rng(1).uniform(0.3, 2, n)
    w[1:2] = 0
    return w


def sample_weights(shape):
    """Of slices: one has none; one is negative, where the others outweigh it in the mean."""
    s = np.random.default_rng(2).uniform(0.3, 2, shape)
    if s.size >= 5:
        s.flat[2], s.flat[4] = 0, -0.5
    return s


def options(chosen, logits, axis):
    """Make the arguments of a choice, in which weight and sample_weight are True or False."""
    given = {"label_smoothing": chosen["label_smoothing"], "z_loss": chosen["z_loss"]}
    if chosen["weight"]:
        given["weight"] = weights(logits.shape[axis])
    if chosen["sample_weight"]:
        given["sample_weight"] = sample_weights(tuple(np.delete(logits.shape, axis)))
    return given


def upstream(reduction, shape):
    return np.random.default_rng(3).normal(0, 2, shape) if reduction == "none" else -1.75
