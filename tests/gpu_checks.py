"""What the tests of every GPU backend check alike: slices and losses at their edges.

The test files choose the sizes, dtypes and options. `gpu` is the `Gpu` of gpu.py or the `NumbaArrays` of
numba_arrays.py: it calls a public function, by its name, on arrays of the host, and holds results to the contract.
"""

import contextlib
from unittest import mock

import numpy as np
import pytest

import oracles
import oracles_grads
import oracles_loss
from gpu import assert_grad, assert_loss, hold_losses, loss_problem


def shifted_logits(gpu, name, dtype, n):
    x = np.round(oracles.normal((3, n), dtype, seed=n) * 64) / 64
    for shift in (-1000.0, 257.0, 1e4):
        shifted = x + x.dtype.type(shift)
        got = gpu(name, shifted)
        gpu.check(name, got, shifted)
        if name != "logsumexp":
            gpu.check(name, got, x)


def special_entries(gpu, name, layout, rows, positions):
    """Put one special entry at a time into the second slice, at each of the positions."""
    clean = gpu(name, *oracles.arrange(rows, layout))
    along = -1 if layout == "columns" or name == "logsumexp" else 0
    for special in (np.nan, np.inf, -np.inf, 100.0, -6e4):
        for position in positions:
            x = rows.copy()
            x[1, position] = special
            x, axis = oracles.arrange(x, layout)
            got = gpu(name, x, axis)
            gpu.check(name, got, x, axis)
            oracles.assert_same_bits(np.delete(got, 1, along), np.delete(clean, 1, along))


def whole_slices(gpu, name, layout, n):
    x = np.ones((7, n), "float32")
    x[0] = -np.inf
    x[1] = np.inf
    x[2, -1] = np.nan
    x[3, 0], x[3, -1] = -np.inf, np.inf
    x[4, 0], x[4, -1] = np.inf, np.nan
    x[5], x[5, n // 2] = -np.inf, np.nan
    x[6], x[6, 0] = 1000, np.inf  # exponentials that are infinite themselves
    x, axis = oracles.arrange(x, layout)
    got = gpu(name, x, axis)
    if name == "logsumexp":
        np.testing.assert_array_equal(got, [-np.inf, np.inf, np.nan, np.inf, np.nan, np.nan, np.inf])
    else:
        assert np.isnan(got).all()


def hidden_entries(gpu, name, layout, n):
    for hidden, dtype in [(np.nan, "float32"), (np.inf, "float16"), (1e30, "bfloat16"), (np.nan, "float64")]:
        x = oracles.normal((6, n), dtype)
        where = np.random.default_rng(n).random((6, n)) < 0.6
        where[1] = False
        where[2] = True
        x[~where] = hidden
        x[3, where[3]] = -np.inf
        (x, axis), (where, _) = oracles.arrange(x, layout), oracles.arrange(where, layout)
        gpu.check(name, gpu(name, x, axis, where=where), x, axis, where)


def infinite_products(gpu, layout):
    """They have no rest, whatever the sum's own rounding was."""
    y, g = np.array([[1e4, -1], [88, -1]], "float32"), np.array([[1e30, -2e22], [1e30, -2e22]], "float32")
    (y, axis), (g, _) = oracles.arrange(y, layout), oracles.arrange(g, layout)
    got = np.moveaxis(gpu("log_softmax_grad", g, y, axis), axis, -1).reshape(-1, 2)
    np.testing.assert_array_equal(got[:, 0], -np.inf)
    np.testing.assert_allclose(got[:, 1], -1e30 * np.exp(-1), rtol=1e-6)


def nan_of_gradients(gpu, name, layout, n):
    inputs = oracles_grads.problem(name, (5, n), "float32")
    axis = 0 if layout == "columns" else -1
    clean = gpu(name, *(oracles.arrange(a, layout)[0] for a in inputs), axis)
    for target in (0, 1):
        spoilt = [a.copy() for a in inputs]
        spoilt[target][1, n // 2] = np.nan
        got = gpu(name, *(oracles.arrange(a, layout)[0] for a in spoilt), axis)
        got, expected = (got.T, clean.T) if layout == "columns" else (got, clean)
        nan = np.isnan(got[1])
        assert nan.all() if target == 0 or name == "softmax_grad" else nan[n // 2]
        oracles.assert_same_bits(np.delete(got, 1, 0), np.delete(expected, 1, 0))


def hidden_entries_of_gradients(gpu, name, layout, n):
    for junk, dtype in [(np.nan, "float32"), (np.inf, "float16"), (7, "bfloat16"), (np.nan, "float64")]:
        g, y = oracles_grads.problem(name, (4, n), dtype)
        where = np.random.default_rng(n).random((4, n)) < 0.6
        where[1] = False
        g[~where] = y[~where] = junk
        (g, axis), (y, _), (where, _) = (oracles.arrange(a, layout) for a in (g, y, where))
        got = gpu(name, g, y, axis, where=where)
        assert not got[~where].any()
        gpu.check_grad(name, got, g, y, axis, where)


def impossible_classes(gpu, name, layout, n):
    g, y = oracles_grads.problem(name, (4, n), "float32")
    y[:, n // 2] = 0 if name == "softmax_grad" else -np.inf
    (g, axis), (y, _) = oracles.arrange(g, layout), oracles.arrange(y, layout)
    gpu.check_grad(name, gpu(name, g, y, axis), g, y, axis)


def labels_out_of_range(gpu, layout, n, wrong, dtype, smoothing, within=None):
    """Label all slices but the first and the last wrongly, one of them n; `within` is the context of these calls."""
    last = len(wrong) + 1
    logits, labels, axis = loss_problem("index", dtype, layout, n, last + 1)
    given = {"return_lse": True, "label_smoothing": smoothing, "weight": np.ones(n)}
    clean = gpu("cross_entropy_with_grad", logits, labels, axis, reduction="none", **given)
    bad = labels.copy()
    bad[1:last] = wrong
    with within or contextlib.nullcontext():
        loss, grad, lse = gpu("cross_entropy_with_grad", logits, bad, axis, reduction="none", **given)
        saved = gpu("cross_entropy_grad", logits, bad, axis, reduction="none", lse=lse)
        mean, of_mean, _ = gpu("cross_entropy_with_grad", logits, bad, axis, **given)
    across = 0 if layout == "rows" else 1
    for got, same in zip((loss, grad, lse), clean, strict=True):
        kept = [0, last] if got is not lse else range(last + 1)
        along = across if got is grad else 0
        oracles.assert_same_bits(np.take(got, kept, along), np.take(same, kept, along))
    assert np.isnan(loss[1:last]).all()
    for each in (grad, saved, of_mean):
        lost = np.isnan(np.moveaxis(each, across, 0))
        assert lost[1:last].all()
        assert not lost[[0, last]].any()
    assert np.isnan(mean)
    unsigned = np.where(bad < 0, 2**64 - 5, bad.astype("u8")).astype("u8")
    got = gpu("cross_entropy", logits, unsigned, axis, reduction="none", ignore_index=-1)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(loss))
    with pytest.raises(IndexError, match=rf"label {n} at position 1 is out of range: expected 0 to {n - 1}"):
        gpu("cross_entropy", logits, bad, axis, validate=True)


def slices_whose_softmax_is_nan(gpu, layout, n, special, kind, smoothing, z_loss):
    rows = oracles.normal((9, n), "float32")
    y = np.arange(9) % n
    bad = [2, 5, 7]
    rows[bad, slice(None) if special == -np.inf else n // 2] = special
    s, w = np.linspace(0, 1, 9), np.linspace(0.5, 1, n)
    s[2], w[2] = 0, 0
    x, axis = oracles.arrange(rows, layout)
    if kind == "ignored":
        y[5] = -100
        bad.remove(5)
    else:
        y = oracles_loss.one_hot(y, n, axis)
    given = {"sample_weight": s, "weight": w, "label_smoothing": smoothing, "z_loss": z_loss}
    exact = oracles_loss.slices(x, y, axis, **given)
    got = gpu("cross_entropy_with_grad", x, y, axis, reduction="none", return_lse=True, **given)
    assert_loss(got[0], exact, x)
    assert_grad(got[1], exact, x)
    oracles_loss.assert_lse(got[2], exact, x.dtype)
    np.testing.assert_array_equal(np.isnan(got[0]), np.isin(np.arange(9), bad))
    saved = gpu("cross_entropy_grad", x, y, axis, lse=got[2], reduction="none", **given)
    assert_grad(saved, oracles_loss.slices(x, y, axis, lse=got[2], **given), x)


def ignored_slices(gpu, layout, n, batch, smoothing, reduction):
    logits, labels, axis = loss_problem("index", "float32", layout, n, batch)
    ignored = np.arange(batch) % 3 == 1
    s, above = np.linspace(0.5, 2, batch), np.linspace(-2, 2, batch)
    holes = np.where(ignored if layout == "columns" else ignored[:, np.newaxis], np.float32(np.nan), logits)
    given = {"label_smoothing": smoothing, "reduction": reduction, "z_loss": 0.05}
    y = np.where(ignored, -100, labels)
    expected = gpu("cross_entropy_with_grad", logits, y, axis, sample_weight=s, **given)
    spoilt = {"sample_weight": np.where(ignored, np.nan, s), **given}
    got = gpu("cross_entropy_with_grad", holes, y, axis, **spoilt)
    for one, same in zip(got, expected, strict=True):
        oracles.assert_same_bits(one, same)
        assert one.any()
        assert np.isfinite(one).all()
    if reduction == "none":
        assert not got[0][ignored].any()
        spoilt["grad_output"] = np.where(ignored, np.nan, above)
        grad = gpu("cross_entropy_grad", holes, y, axis, **spoilt)
        assert not np.moveaxis(grad, axis, -1)[ignored].any()
        assert np.isfinite(grad).all()


def terms_without_weight(gpu, layout, n, cases):
    """Let the second class be impossible; the cases say which losses are held to the exact ones in everything."""
    rows = oracles.normal((5, n), "float32")
    rows[:, 1] = -np.inf
    x, axis = oracles.arrange(rows, layout)
    labels = np.arange(5) % n
    y = {"index": labels, "probabilities": oracles_loss.one_hot(labels, n, axis)}
    w, s = np.linspace(0.5, 1.5, n), np.linspace(0.5, 1.5, 5)
    w[1], s[labels == 1] = 0, 0
    for smoothing, kind, reduction in cases:
        hold_losses(gpu, x, y[kind], axis, reduction, {"weight": w, "label_smoothing": smoothing})
    hold_losses(gpu, x, labels, axis, "mean", {"sample_weight": s})
    for smoothing in (0, 0.1):
        loss = gpu("cross_entropy", x, labels, axis, label_smoothing=smoothing, reduction="none")
        np.testing.assert_array_equal(np.isinf(loss), (labels == 1) | bool(smoothing))
    loss = gpu("cross_entropy", x, labels, axis, sample_weight=s, reduction="none")
    np.testing.assert_array_equal(loss == 0, labels == 1)
    probabilities = np.full((5, n), 1 / n)
    probabilities[:, 1] = 0
    assert np.isfinite(gpu("cross_entropy", x, oracles.arrange(probabilities, layout)[0], axis))


def a_divisor_of_0(gpu, layout, n, smoothing):
    logits, labels, axis = loss_problem("index", "float32", layout, n, 4)
    logits.flat[0] = np.nan
    ignored = np.full(4, -100)
    for y, given in [
        (ignored, {}),
        (ignored, {"weight": np.ones(n), "sample_weight": np.arange(4.0)}),
        (labels, {"weight": np.zeros(n)}),
        (labels, {"sample_weight": np.zeros(4)}),
        (oracles_loss.one_hot(labels, n, axis), {"sample_weight": np.array([1.0, -1, 2, -2])}),
    ]:
        loss, grad = gpu("cross_entropy_with_grad", logits, y, axis, label_smoothing=smoothing, **given)
        assert loss == 0
        assert not grad.any()
    assert gpu("cross_entropy", logits, ignored, axis, reduction="sum") == 0


def a_dominant_label(gpu, layout, n, dtype, gap, smoothing, bound):
    """The bound is that of the labels' own gradients, in ulp; they have it too from a logsumexp that was saved."""
    rows = oracles.normal((4, n), dtype, scale=0.5)
    labels = np.array([0, n // 2, n - 1, 1])
    rows[np.arange(4), labels] = gap
    rows[3, 2] = gap  # as large as the label's own
    x, axis = oracles.arrange(rows, layout)
    exact = oracles_loss.slices(x, labels, axis, label_smoothing=smoothing)
    given = {"label_smoothing": smoothing, "reduction": "none"}
    loss, grad = gpu("cross_entropy_with_grad", x, labels, axis, **given)
    # A half's exponent is rounded as a float32 number, which costs eps of the difference it is made of.
    slack = oracles_loss.EPS + (gap if dtype == "float16" else 0)
    with mock.patch.object(oracles_loss, "EPS", slack):
        for got in loss, gpu("cross_entropy", x, labels, axis, **given):
            assert_loss(got, exact, x, (dtype, gap, smoothing))
    assert_grad(grad, exact, x, (dtype, gap, smoothing))
    if smoothing:
        return
    lse = (gap + np.array([1e-6, 1e-5, 1e-4, 0])).astype(loss.dtype)
    saved = gpu("cross_entropy_grad", x, labels, axis, lse=lse, **given)
    for got, same in [(grad, exact), (saved, oracles_loss.slices(x, labels, axis, lse=lse))]:
        got = np.moveaxis(got, axis, -1)[np.arange(4), labels]
        assert oracles.worst(got, same.grad[np.arange(4), labels]) <= bound


def an_offset(gpu, layout, n, kind, smoothing, offset):
    logits, labels, axis = loss_problem(kind, "float32", layout, n, 3, offset=offset)
    given = {"label_smoothing": smoothing, "weight": np.linspace(0, 2, n)}
    exact = oracles_loss.slices(logits, labels, axis, **given)
    loss, grad = gpu("cross_entropy_with_grad", logits, labels, axis, reduction="none", **given)
    assert_loss(loss, exact, logits, (kind, smoothing))
    assert_grad(grad, exact, logits, (kind, smoothing))
