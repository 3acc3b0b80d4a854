"""Numba device arrays: the cross-entropy family, its options and its edges, in the simulator or on a device."""

import itertools

import numpy as np
import pytest

import fastsoftmax
import gpu as helpers
import gpu_checks as checks
import numba_arrays
import oracles
import oracles_loss
from oracles import EXACT_DTYPES
from pairwise import all_pairs

REDUCTIONS = ["mean", "sum", "none"]
KINDS = ["index", "ignored", "probabilities"]

pytestmark = numba_arrays.QUIET


@pytest.fixture(scope="module")
def gpu():
    return numba_arrays.found()


class TestOptions:
    @pytest.mark.parametrize("dtype", [*EXACT_DTYPES, "bfloat16"])
    def test_pairs_of_everything(self, gpu, dtype):
        factors = {
            "n": [1, 10, 70],
            "layout": ["rows", "columns"],
            "kind": KINDS,
            "reduction": REDUCTIONS,
            "weight": [False, True],
            "sample_weight": [False, True],
            "label_smoothing": [0, 0.1, 1.0],
            "z_loss": [0, 0.05, -0.3],
        }
        for chosen in all_pairs(factors):
            batch = 5 if chosen["n"] <= 10 and dtype == "float32" else 3
            logits, labels, axis = helpers.loss_problem(chosen["kind"], dtype, chosen["layout"], chosen["n"], batch)
            given = oracles_loss.options(chosen, logits, axis)
            helpers.hold_losses(gpu, logits, labels, axis, chosen["reduction"], given, chosen.values())

    @pytest.mark.parametrize("dtype", ["uint64", "float16", "bfloat16", "float64"])
    def test_probabilities_of_any_dtype(self, gpu, dtype):
        for logits_dtype in ("float32", "float64", "float16"):
            logits, labels, axis = helpers.loss_problem("index", logits_dtype, n=10, batch=3)
            labels = oracles_loss.one_hot(labels, 10, axis)
            if dtype != "uint64":
                labels = np.abs(labels - 0.1)
            labels = labels.astype(oracles.dtype_of(dtype))
            exact = oracles_loss.reduced(oracles_loss.slices(logits, labels, axis, label_smoothing=0.1), "mean")
            loss, grad = gpu("cross_entropy_with_grad", logits, labels, axis, label_smoothing=0.1)
            helpers.assert_loss(loss, exact, logits)
            helpers.assert_grad(grad, exact, logits)

    @pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64"])
    def test_labels_of_any_integer(self, gpu, dtype):
        logits, labels, axis = helpers.loss_problem("index", "float32", "columns", 10, 5)
        expected = gpu("cross_entropy", logits, labels, axis)
        oracles.assert_same_bits(gpu("cross_entropy", logits, labels.astype(dtype), axis), expected)
        for ignored in {7, int(np.iinfo(dtype).max)}:
            some = labels.astype(dtype)
            some[1::3] = ignored
            exact = oracles_loss.reduced(oracles_loss.slices(logits, some, axis, ignore_index=ignored), "mean")
            helpers.assert_loss(gpu("cross_entropy", logits, some, axis, ignore_index=ignored), exact, logits)

    def test_sequences(self, gpu):
        """What is no array is taken to the logits' device."""
        logits, labels, _ = helpers.loss_problem("ignored", "float32", n=3, batch=5)
        given = {"weight": [0.5, 1, 2], "sample_weight": np.linspace(0, 1, 5).tolist(), "reduction": "none"}
        for y in (labels, oracles_loss.one_hot(np.maximum(labels, 0), 3)):
            expected = fastsoftmax.cross_entropy_grad(logits, y, grad_output=labels.tolist(), **given)
            got = gpu("cross_entropy_grad", logits, y.tolist(), grad_output=labels.tolist(), **given)
            np.testing.assert_allclose(got, expected, rtol=1e-5)

    def test_in_place_over_several_blocks(self, gpu):
        for layout, smoothing in [("rows", 0), ("columns", 0.1)]:
            logits, labels, axis = helpers.loss_problem("index", "float32", layout, 3, 35)
            expected = gpu("cross_entropy_with_grad", logits, labels, axis, label_smoothing=smoothing)
            target = gpu.put(logits)
            loss, grad = fastsoftmax.cross_entropy_with_grad(
                target, gpu.put(labels), axis, label_smoothing=smoothing, out=target
            )
            assert grad is target
            oracles.assert_same_bits(gpu.get(target), expected[1])
            oracles.assert_same_bits(gpu.get(loss), expected[0])
            exact = oracles_loss.reduced(oracles_loss.slices(logits, labels, axis, label_smoothing=smoothing), "mean")
            helpers.assert_loss(expected[0], exact, logits)
            helpers.assert_grad(expected[1], exact, logits)

    def test_a_saved_logsumexp_that_is_none(self, gpu):
        """It is taken at its word: exponentials are infinite."""
        logits = oracles.normal((3, 5), "float64")
        got = gpu("cross_entropy_grad", logits, [1, 2, 3], lse=[-1e4, np.inf, 0])
        np.testing.assert_array_equal(np.delete(got[0], 1), np.full(4, np.inf))
        assert np.isnan(got[1]).all()
        assert np.isfinite(got[2]).all()

    def test_a_single_slice(self, gpu):
        logits = oracles.normal((10,), "float32")
        for label, reduction in itertools.product((9, np.array(9)), REDUCTIONS):
            loss, grad, lse = gpu("cross_entropy_with_grad", logits, label, reduction=reduction, return_lse=True)
            assert (loss.shape, lse.shape) == ((), ())
            exact = oracles_loss.slices(logits, label)
            helpers.assert_loss(loss, exact, logits)
            helpers.assert_grad(grad, exact, logits)

    def test_batches_of_two_dimensions(self, gpu):
        logits = oracles.normal((2, 5, 3), "float32")
        labels = np.random.default_rng(0).integers(0, 5, (2, 3))
        s = np.linspace(0, 1, 6).reshape(2, 3)
        for y in (labels, oracles_loss.one_hot(labels, 5, 1)):
            helpers.hold_losses(gpu, logits, y, 1, "none", {"sample_weight": s})

    @pytest.mark.parametrize("shape", [(0, 5), (0,), (3, 0)])
    def test_empty(self, gpu, shape):
        logits = np.zeros(shape, "float32")
        for labels, reduction in itertools.product((np.full(shape[:-1], -100), np.zeros(shape)), REDUCTIONS):
            loss, grad, lse = gpu("cross_entropy_with_grad", logits, labels, reduction=reduction, return_lse=True)
            assert loss.shape == (shape[:-1] if reduction == "none" else ())
            assert not loss.any()
            assert grad.shape == shape
            np.testing.assert_array_equal(lse, np.full(shape[:-1], -np.inf))


@pytest.mark.parametrize(("layout", "n"), [("rows", 3), ("rows", 20), ("columns", 10)])
class TestEdges:
    def test_labels_out_of_range(self, gpu, layout, n):
        """NaN in that slice alone; nothing is read where there is nothing, which the simulator refuses."""
        wrong = [n, -1, 2**40, -(2**62), 2**63 - 1]
        for smoothing in (0, 0.1):
            checks.labels_out_of_range(gpu, layout, n, wrong, "float32", smoothing)

    @pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
    def test_slices_whose_softmax_is_nan(self, gpu, layout, n, special):
        """NaN whatever the weights, in that slice alone; but an ignored slice is 0."""
        for kind, smoothing, z_loss in [("ignored", 0, 0), ("probabilities", 0.1, 0.05)]:
            checks.slices_whose_softmax_is_nan(gpu, layout, n, special, kind, smoothing, z_loss)

    def test_ignored_slices_count_for_nothing(self, gpu, layout, n):
        """Whatever they and their weights hold."""
        for smoothing, reduction in [(0, "mean"), (0.1, "none")]:
            checks.ignored_slices(gpu, layout, n, 5, smoothing, reduction)

    def test_terms_without_weight(self, gpu, layout, n):
        """0, also where the class is impossible and its share of the loss would be infinite."""
        checks.terms_without_weight(gpu, layout, n, [(0.1, "index", "mean"), (0, "probabilities", "mean")])

    def test_a_divisor_of_0(self, gpu, layout, n):
        """A mean over nothing is 0, not NaN, and so is its gradient."""
        checks.a_divisor_of_0(gpu, layout, n, 0.1)

    def test_digits_of_a_dominant_label(self, gpu, layout, n):
        """1 - p is 1e-12 at a gap of 28; p - 1 would have lost it. Also where other threads have the maximum."""
        for dtype, gap in [("float32", 7), ("float32", 28), ("float64", 60)]:
            checks.a_dominant_label(gpu, layout, n, dtype, gap, smoothing=0, bound=4)

    def test_an_offset_costs_no_digits(self, gpu, layout, n):
        for kind, smoothing, offset in [("index", 0, -300), ("probabilities", 0.1, 1e4)]:
            checks.an_offset(gpu, layout, n, kind, smoothing, offset)


class TestTotals:
    """Sums of one launch and of two, of numbers that one chain of float32 additions would round away."""

    def put(self, gpu, x):
        return gpu.backend.DeviceArray.of(gpu.put(x))

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("count", [1, 300, 8193])
    def test_losses(self, gpu, dtype, count):
        losses = np.random.default_rng(count).uniform(0, 2, count).astype(dtype)
        losses[count // 2] = 1e6
        given = self.put(gpu, losses)
        exact = np.sum(losses.astype(np.longdouble))
        divisors = [(self.put(gpu, np.array(3.0)), 3), (1.0, 1), (3.0, 3)]
        for divisor, number in divisors if count < 8192 else divisors[:1]:
            got = gpu.get(gpu.backend.reduced(given, divisor).numba)
            assert got.dtype == dtype
            assert oracles.worst(got, exact / number) <= (0.51 if dtype == "float32" else 1)
        if count == 1:
            assert gpu.get(gpu.backend.reduced(given, self.put(gpu, np.array(0.0))).numba) == 0
            assert gpu.get(gpu.backend.reduced(given, 0.0).numba) == 0

    @pytest.mark.parametrize("count", [5, 9000])
    def test_shares(self, gpu, count):
        rng = np.random.default_rng(count)
        labels, w, s = rng.integers(-1, 4, count), np.array([0.5, 1, 7], "f4"), rng.uniform(0, 1, count).astype("f4")
        counted = labels != 3  # ignored; -1 is no class, and counts with weight 1
        shares = np.where(labels >= 0, w[labels % 3], 1)
        labels, w, on_device = (self.put(gpu, a) for a in (labels, w, s))
        cases = [
            ((labels, 3, w, on_device), counted * shares * s.astype("f8")),
            ((labels, 3, w, None), counted * shares),
            ((labels, 3, None, None), counted),
            ((None, 0, None, on_device), s.astype("f8")),
        ]
        for arguments, terms in cases if count < 8192 else cases[:1]:
            got = gpu.get(gpu.backend.mean_divisor(*arguments, count).numba)
            np.testing.assert_allclose(got, terms.sum(), rtol=1e-14)
        assert gpu.backend.mean_divisor(None, 0, None, None, count) == count
