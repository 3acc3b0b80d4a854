"""CuPy arrays: the cross-entropy family at its edges: wrong labels, slices that do not count, terms without weight."""

import contextlib
import itertools
from unittest import mock

import numpy as np
import pytest

import gpu as helpers
import oracles
import oracles_loss

REDUCTIONS = ["mean", "sum", "none"]
KINDS = ["index", "ignored", "probabilities"]
# Layouts and sizes: rows of a few elements, of a warp, of two, of two blocks; columns of one chunk and of several.
CASES = [*(("rows", n) for n in (3, 10, 300, 1500, 17_000)), *(("columns", n) for n in (3, 10, 300, 1500))]


@pytest.fixture(scope="module")
def gpu(request):
    with helpers.found(request.config) as found:
        yield found


@pytest.mark.parametrize(("layout", "n"), CASES)
class TestEdges:
    @pytest.mark.parametrize("clusters", [True, False])
    def test_labels_out_of_range(self, gpu, layout, n, clusters):
        """NaN in that slice alone; nothing is read where there is nothing."""
        wrong = [n, n + 1, -1, -101, 2**31, 2**40, -(2**62), 2**63 - 1, -(2**63)]
        for dtype, kind in itertools.product(["float32", "float16"], ["index", "smooth"]):
            logits, labels, axis = helpers.loss_problem("index", dtype, layout, n, 11)
            given = {"return_lse": True, "label_smoothing": 0.1 if kind == "smooth" else 0, "weight": np.ones(n)}
            clean = gpu("cross_entropy_with_grad", logits, labels, axis, reduction="none", **given)
            bad = labels.copy()
            bad[1:10] = wrong
            with contextlib.nullcontext() if clusters else gpu.without_clusters():
                loss, grad, lse = gpu("cross_entropy_with_grad", logits, bad, axis, reduction="none", **given)
                saved = gpu("cross_entropy_grad", logits, bad, axis, reduction="none", lse=lse)
                means = gpu("cross_entropy_with_grad", logits, bad, axis, **given)
            across = 0 if layout == "rows" else 1
            for got, same in zip((loss, grad, lse), clean, strict=True):
                kept = [0, 10] if got is not lse else range(11)
                along = across if got is grad else 0
                oracles.assert_same_bits(np.take(got, kept, along), np.take(same, kept, along))
            assert np.isnan(loss[1:10]).all()
            for each in (grad, saved, means[1]):
                lost = np.isnan(np.moveaxis(each, across, 0).astype("f4"))
                assert lost[1:10].all()
                assert not lost[[0, 10]].any()
            assert np.isnan(means[0])
            unsigned = np.where(bad < 0, 2**64 - 5, bad.astype("u8"))
            got = gpu("cross_entropy", logits, unsigned.astype("u8"), axis, reduction="none", ignore_index=-1)
            np.testing.assert_array_equal(np.isnan(got), np.isnan(loss))

    @pytest.mark.parametrize("special", ["nan", "inf", "-inf"])
    def test_slices_whose_softmax_is_nan(self, gpu, layout, n, special):
        """NaN whatever the weights, in that slice alone; but an ignored slice is 0."""
        rows = oracles.normal((9, n), "float32")
        labels = np.arange(9) % n
        bad = [2, 5, 7]
        if special == "-inf":
            rows[bad] = -np.inf
        else:
            rows[bad, n // 2] = float(special)
        s, w = np.linspace(0, 1, 9), np.linspace(0.5, 1, n)
        s[2], w[2] = 0, 0
        x, axis = oracles.arrange(rows, layout)
        kinds = {
            "ignored": np.where(np.arange(9) == 5, -100, labels),
            "probabilities": helpers.one_hot(labels, n, axis),
        }
        for (kind, y), (smoothing, z_loss) in itertools.product(kinds.items(), [(0, 0), (0.1, 0.05)]):
            given = {"sample_weight": s, "weight": w, "label_smoothing": smoothing, "z_loss": z_loss}
            exact = oracles_loss.slices(x, y, axis, **given)
            got = gpu("cross_entropy_with_grad", x, y, axis, reduction="none", return_lse=True, **given)
            helpers.assert_loss(got[0], exact, x)
            helpers.assert_grad(got[1], exact, x)
            oracles_loss.assert_lse(got[2], exact, x.dtype)
            np.testing.assert_array_equal(np.isnan(got[0]), np.isin(np.arange(9), [2, 7] if kind == "ignored" else bad))
            saved = gpu("cross_entropy_grad", x, y, axis, lse=got[2], reduction="none", **given)
            helpers.assert_grad(saved, oracles_loss.slices(x, y, axis, lse=got[2], **given), x)

    def test_ignored_slices_count_for_nothing(self, gpu, layout, n):
        """Whatever they, their weights and their upstream gradients hold."""
        logits, labels, axis = helpers.loss_problem("index", "float32", layout, n, 9)
        ignored = np.arange(9) % 3 == 1
        s, above = np.linspace(0.5, 2, 9), np.linspace(-2, 2, 9)
        holes = np.where(ignored if layout == "columns" else ignored[:, np.newaxis], np.float32(np.nan), logits)
        for smoothing, reduction in itertools.product((0.0, 0.1), REDUCTIONS):
            given = {"label_smoothing": smoothing, "reduction": reduction, "z_loss": 0.05}
            y = np.where(ignored, -100, labels)
            expected = gpu("cross_entropy_with_grad", logits, y, axis, sample_weight=s, **given)
            spoilt = {"sample_weight": np.where(ignored, np.nan, s), **given}
            got = gpu("cross_entropy_with_grad", holes, y, axis, **spoilt)
            for one, same in zip(got, expected, strict=True):
                oracles.assert_same_bits(one, same)
            if reduction == "none":
                assert not got[0][ignored].any()
                spoilt["grad_output"] = np.where(ignored, np.nan, above)
                grad = gpu("cross_entropy_grad", holes, y, axis, **spoilt)
                assert not np.moveaxis(grad, axis, -1)[ignored].any()
                assert np.isfinite(grad).all()

    def test_terms_without_weight(self, gpu, layout, n):
        """0, also where the class is impossible and its share of the loss would be infinite."""
        rows = oracles.normal((5, n), "float32")
        labels = np.arange(5) % n
        rows[:, 1] = -np.inf
        w, s = np.linspace(0.5, 1.5, n), np.linspace(0.5, 1.5, 5)
        w[1] = 0
        x, axis = oracles.arrange(rows, layout)
        probabilities = np.ones((5, n)) / n
        probabilities[:, 1] = 0
        for smoothing in (0.0, 0.1):
            for y, reduction in [(labels, "mean"), (helpers.one_hot(labels, n, axis), "none")]:
                helpers.hold_losses(gpu, x, y, axis, reduction, {"weight": w, "label_smoothing": smoothing})
            loss = gpu("cross_entropy", x, labels, axis, label_smoothing=smoothing, reduction="none")
            np.testing.assert_array_equal(np.isinf(loss), (labels == 1) | bool(smoothing))
        assert np.isfinite(gpu("cross_entropy", x, oracles.arrange(probabilities, layout)[0], axis))
        s[labels == 1] = 0
        helpers.hold_losses(gpu, x, labels, axis, "mean", {"sample_weight": s})

    def test_a_divisor_of_0(self, gpu, layout, n):
        """A mean over nothing is 0, not NaN, and so is its gradient."""
        logits, labels, axis = helpers.loss_problem("index", "float32", layout, n, 4)
        logits.flat[0] = np.nan
        cases = [
            (np.full(4, -100), {}),
            (np.full(4, -100), {"weight": np.ones(n), "sample_weight": np.arange(4.0)}),
            (labels, {"weight": np.zeros(n)}),
            (labels, {"sample_weight": np.zeros(4)}),
            (helpers.one_hot(labels, n, axis), {"sample_weight": np.array([1.0, -1, 2, -2])}),
        ]
        for (y, given), smoothing in itertools.product(cases, (0.0, 0.1)):
            loss, grad = gpu("cross_entropy_with_grad", logits, y, axis, label_smoothing=smoothing, **given)
            assert loss == 0
            assert not grad.any()
            if y is cases[0][0]:
                assert gpu("cross_entropy", logits, y, axis, reduction="sum") == 0

    def test_digits_of_a_dominant_label(self, gpu, layout, n):
        """1 - p is 1e-12 at a gap of 28; p - 1 would have lost it. Also where other threads have the maximum."""
        for dtype, gap in itertools.product(["float32", "float64", "float16"], [7, 28, 60]):
            rows = oracles.normal((4, n), dtype, scale=0.5)
            labels = np.array([0, n // 2, n - 1, 1])
            rows[np.arange(4), labels] = gap
            rows[3, 2] = gap  # as large as the label's own
            x, axis = oracles.arrange(rows, layout)
            # A half's exponent is rounded as a float32 number, which costs eps of the difference it is made of.
            slack = oracles_loss.EPS + (gap if dtype == "float16" else 0)
            for smoothing in (0, 0.1):
                exact = oracles_loss.slices(x, labels, axis, label_smoothing=smoothing)
                given = {"label_smoothing": smoothing, "reduction": "none"}
                loss, grad = gpu("cross_entropy_with_grad", x, labels, axis, **given)
                with mock.patch.object(oracles_loss, "EPS", slack):
                    for got in loss, gpu("cross_entropy", x, labels, axis, **given):
                        helpers.assert_loss(got, exact, x, (dtype, gap, smoothing))
                helpers.assert_grad(grad, exact, x, (dtype, gap, smoothing))
                if smoothing == 0:
                    got = np.moveaxis(grad, axis, -1)[np.arange(4), labels]
                    exact = exact.grad[np.arange(4), labels]
                    error = oracles.ulp_error(helpers.forgiven(got, exact, n), exact)
                    assert error.max() <= (0.51 if dtype == "float16" else 8)

    def test_an_offset_costs_no_digits(self, gpu, layout, n):
        for kind, smoothing, offset in itertools.product(KINDS, (0, 0.1), (-300, 1e4)):
            logits, labels, axis = helpers.loss_problem(kind, "float32", layout, n, 3, offset=offset)
            given = {"label_smoothing": smoothing, "weight": np.linspace(0, 2, n)}
            exact = oracles_loss.slices(logits, labels, axis, **given)
            loss, grad = gpu("cross_entropy_with_grad", logits, labels, axis, reduction="none", **given)
            helpers.assert_loss(loss, exact, logits, (kind, smoothing))
            helpers.assert_grad(grad, exact, logits, (kind, smoothing))
