"""Corners where two rules meet, each of which was wrong once."""

import warnings

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import _native
from fastsoftmax.compat import scipy as compat

pytestmark = pytest.mark.usefixtures("backend")


class TestOut:
    @pytest.mark.parametrize(("shape", "axis"), [((5, 1), 1), ((1, 5), 0), ((3, 4), 0), ((3, 4), -1), ((3, 4), ())])
    def test_a_subclass_that_keeps_two_dimensions(self, shape, axis):
        memory = np.full(40, 7.0)
        x = np.arange(float(np.prod(shape))).reshape(shape)
        out = memory[: x.size].reshape(shape).view(np.matrix)
        assert fastsoftmax.softmax(x, axis, out=out) is out
        np.testing.assert_array_equal(np.asarray(out), fastsoftmax.softmax(x, axis))
        assert np.all(memory[x.size :] == 7)

    @pytest.mark.parametrize(("shape", "strides"), [((4,), (2,)), ((2, 2), (6, 4)), ((3, 2), (4, 4)), ((4,), (0,))])
    def test_elements_that_overlap_by_bytes(self, shape, strides):
        out = np.lib.stride_tricks.as_strided(np.zeros(40, "float32"), shape, strides)
        with pytest.raises(ValueError, match="overlap"):
            fastsoftmax.softmax(np.zeros(shape, "float32"), out=out)

    def test_elements_that_interleave_without_meeting(self):
        out = np.lib.stride_tricks.as_strided(np.zeros(40), (3, 2), (16, 24))
        fastsoftmax.softmax(np.zeros((3, 2)), out=out)
        np.testing.assert_array_equal(out, np.full((3, 2), 0.5))

    @pytest.mark.parametrize("n", [3, 65, 1000])
    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_lse_of_infinite_slices_whose_logits_become_the_gradient(self, dtype, n):
        logits = np.zeros((4, n), dtype)
        logits[0, n // 2], logits[1], logits[2, 1:] = np.inf, -np.inf, [np.inf] * (n - 2) + [np.nan]
        _, _, lse = fastsoftmax.cross_entropy_with_grad(logits, np.zeros(4, int), out=logits, return_lse=True)
        np.testing.assert_allclose(lse, [np.inf, -np.inf, np.nan, np.log(n)], rtol=1e-6)


class TestSums:
    @pytest.mark.parametrize("n", [1 << 12, 1 << 15, 1 << 18, 1 << 20])
    @pytest.mark.parametrize("small", [-13.8, -14.35, -15.159490585327148, -15.6])
    @pytest.mark.parametrize("columns", [False, True])
    def test_many_small_terms_beside_one_large(self, n, small, columns):
        """Where the large one sets the scale of the roundings, the small ones must not add them up."""
        x = np.full(n, small, "float32")
        x[0] = 0
        e = np.exp(x[1].astype(float))
        total = 1 + (n - 1) * e
        batch = np.repeat(x[:, np.newaxis], 2, 1) if columns else x
        got = fastsoftmax.softmax(batch, 0).reshape(n, -1)[:2, 0]
        for value, exact in zip(got, [1 / total, e / total], strict=True):
            assert abs(float(value) - exact) <= 4 * np.spacing(np.float32(exact))
        lse = fastsoftmax.logsumexp(batch, 0).reshape(-1)[0]
        assert abs(float(lse) - np.log(total)) <= 4 * np.finfo("float32").eps * np.log(total)

    @pytest.mark.parametrize("gap", [5.0, 10.0, 11.0, 11.2, 12.0, 20.0, 60.0])
    @pytest.mark.parametrize("n", [9, 100, 40_000])
    def test_the_rest_beside_a_dominant_logit(self, gap, n):
        """Taken from the whole sum, or summed again where that has lost its digits: the same accuracy."""
        x = np.random.default_rng(0).normal(-gap, 0.5, n).astype("float32")
        x[n // 3] = 0
        rest = np.exp(np.delete(x, n // 3).astype(float)).sum()
        got = fastsoftmax.log_softmax(x)[n // 3]
        assert abs(float(got) + np.log1p(rest)) <= 4 * np.spacing(np.float32(np.log1p(rest)))


class TestLogsumexpWithWeights:
    def test_a_wider_b_sets_the_precision(self):
        x = np.array([1.6944277, -0.97238183], np.float32)
        b = np.array([0.33992299, 2.6111081])
        exact = np.log((b * np.exp(x.astype(float))).sum())
        np.testing.assert_allclose(fastsoftmax.logsumexp(x, b=b), exact, rtol=1e-15)

    @pytest.mark.parametrize("b", [2.0, 2, [1, 2], np.array([1, 2], np.int8), np.array([1, 2], np.float16)])
    def test_numbers_and_integers_leave_the_dtype(self, b):
        assert fastsoftmax.logsumexp(np.zeros(2, np.float16), b=b).dtype == np.float16

    def test_axis_counts_in_the_broadcast_shape(self):
        got = fastsoftmax.logsumexp(np.zeros(3), axis=1, b=np.ones((2, 3)))
        np.testing.assert_allclose(got, np.log([3, 3]))


class TestLabels:
    def test_a_label_that_changes_after_the_check_reaches_no_memory(self):
        """Another thread may write to the labels while a kernel runs: such a loss is NaN."""
        x = np.zeros((3, 100, 1), "float32")
        out, loss = np.full_like(x, 7), np.zeros(3, "float32")
        labels = np.array([2, 10**13, -(10**13)])
        _native.run(_native.CROSS_ENTROPY_GRAD, x, out, loss=loss, labels=labels, ignore_index=-100)
        assert np.isnan(loss).tolist() == [False, True, True]
        np.testing.assert_allclose(out[0, [1, 2], 0], [0.01, -0.99], rtol=1e-6)

    def test_an_empty_list(self):
        loss, grad = fastsoftmax.cross_entropy_with_grad(np.zeros((0, 3)), [])
        assert (loss, grad.shape) == (0, (0, 3))

    @pytest.mark.parametrize("dtype", ["float32", "longdouble"])
    def test_no_classes_and_nothing_but_ignored_labels(self, dtype):
        loss, lse = fastsoftmax.cross_entropy(np.zeros((2, 0), dtype), [-100, -100], return_lse=True)
        assert loss == 0
        assert lse.tolist() == [-np.inf, -np.inf]

    @pytest.mark.parametrize("shape", [(5, 1), (1, 5)])
    def test_a_dimension_too_many(self, shape):
        with pytest.raises(ValueError, match=r"expected shape \(5,\)"):
            fastsoftmax.cross_entropy(np.zeros((5, 3)), np.zeros(shape, int))


@pytest.mark.parametrize("function", [fastsoftmax.softmax, fastsoftmax.log_softmax, fastsoftmax.logsumexp])
def test_no_axis_at_all_of_an_array_with_gaps(function):
    x = np.arange(30.0).reshape(3, 10)[:, :8:2]
    expected = {"softmax": np.ones_like(x), "log_softmax": np.zeros_like(x), "logsumexp": x}[function.__name__]
    np.testing.assert_array_equal(function(x, axis=()), expected)


def test_no_warning_of_an_overflow_that_is_the_answer():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logits = np.array([[3e38, 0]] * 3, "float32")
        assert fastsoftmax.cross_entropy(logits, [1, 1, 1], reduction="sum") == np.inf
        assert fastsoftmax.logsumexp(np.full(10_000_000, 65504, np.float16)) == np.inf


def test_floats_of_eight_bits_are_refused():
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="the 8-bit floats are the ml_dtypes package's")
    for dtype in (ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn):
        with pytest.raises(TypeError, match="float8"):
            fastsoftmax.softmax(np.zeros(4, dtype))


def test_compat_looks_at_complex_arguments_too():
    assert compat.softmax(np.array([1j, 1j]), axis=np.int64(0)).tolist() == [0.5, 0.5]
    with pytest.raises(TypeError, match="mask"):
        compat.softmax(np.ma.array([1j, 2], mask=[0, 1]))


class TestRunRefuses:
    """The entry point of the backend checks what memory depends on."""

    @pytest.mark.parametrize(
        ("op", "arrays"),
        [
            (_native.SOFTMAX, {"out": None}),
            (_native.SOFTMAX, {"out": np.zeros((2, 3, 2))}),
            (_native.SOFTMAX, {"out": np.zeros((2, 3, 1), "float32")}),
            (_native.LOGSUMEXP, {"out": np.zeros((2, 3, 1))}),
            (_native.LOGSUMEXP, {"lse": np.zeros(1)}),
            (_native.LOGSUMEXP, {"lse": np.zeros(2, "float32")}),
            (_native.CROSS_ENTROPY, {"loss": np.zeros(2)}),
            (_native.CROSS_ENTROPY, {"loss": np.zeros(2), "labels": np.zeros(2, np.int32)}),
            (_native.CROSS_ENTROPY, {"loss": np.zeros(2), "labels": np.zeros(3, np.int64)}),
            (_native.CROSS_ENTROPY, {"labels": np.zeros(2, np.int64), "y": np.zeros((2, 3, 1))}),
            (_native.CROSS_ENTROPY, {"labels": np.zeros(2, np.int64), "weight": np.zeros(2)}),
            (_native.CROSS_ENTROPY, {"labels": np.zeros(2, np.int64), "weight": np.zeros(3, "float32")}),
            (_native.CROSS_ENTROPY, {"labels": np.zeros(2, np.int64), "sample_weight": np.zeros(3)}),
            (_native.CROSS_ENTROPY, {"labels": np.zeros(2, np.int64), "given_lse": np.zeros(2, "float32")}),
            (_native.CROSS_ENTROPY_SPREAD, {"y": np.zeros((2, 3, 1), "float32")}),
            (_native.CROSS_ENTROPY_SPREAD, {"y": np.zeros((2, 1, 3))}),
            (_native.SOFTMAX_GRAD, {"out": np.zeros((2, 3, 1))}),
            (_native.SOFTMAX_GRAD, {"out": np.zeros((2, 3, 1)), "y": np.zeros((2, 3, 1), "float32")}),
        ],
    )
    def test_arrays_that_do_not_fit(self, op, arrays):
        with pytest.raises(ValueError, match="expected"):
            _native.run(op, np.zeros((2, 3, 1)), **arrays)

    @pytest.mark.parametrize("op", [-1, _native.LOG_SOFTMAX_GRAD + 1])
    def test_an_operation_that_is_none(self, op):
        with pytest.raises(ValueError, match="operation"):
            _native.run(op, np.zeros((2, 3, 1)))

    def test_two_dimensions(self):
        with pytest.raises(ValueError, match="three dimensions"):
            _native.run(_native.SOFTMAX, np.zeros((2, 3)), np.zeros((2, 3)))

    @pytest.mark.parametrize("hook", [_native._exp, _native._log1p])
    def test_half_precision_in_the_hooks_of_the_tests(self, hook):
        with pytest.raises(TypeError, match="float16"):
            hook(np.zeros(4, np.float16))


class TestLimitsOfTheNumberFormat:
    """Options so small or large that a factor alone would leave the range in which the result is an ordinary number."""

    @pytest.mark.parametrize(("dtype", "small"), [("float32", 1e-25), ("float64", 1e-250)])
    def test_a_small_weight_scales_the_gradient(self, dtype, small):
        x = np.array([[1, 2, 3]], dtype)
        expected = fastsoftmax.cross_entropy_grad(x, [0]) * np.asarray(small, dtype)
        for options in ({"sample_weight": [small]}, {"grad_output": small}):
            got = fastsoftmax.cross_entropy_grad(x, [0], reduction="sum", **options)
            np.testing.assert_allclose(got, expected, rtol=1e-6)

    def test_a_mean_over_subnormal_weights(self):
        x = np.array([[1, 2, 3], [1, 1, 1]], "float32")
        small = np.full(2, 1e-39, "float32")
        got = fastsoftmax.cross_entropy_grad(x, [0, 1], sample_weight=small, label_smoothing=0.1)
        np.testing.assert_allclose(got, fastsoftmax.cross_entropy_grad(x, [0, 1], label_smoothing=0.1), rtol=1e-5)

    def test_products_near_the_largest_number(self):
        got = fastsoftmax.softmax_grad(np.array([1e300, 2e300, 1e300, 0]), np.full(4, 0.25))
        np.testing.assert_allclose(got, [0, 2.5e299, 0, -2.5e299], rtol=1e-15)

    def test_the_loss_of_no_longdouble_has_its_dtype(self):
        assert fastsoftmax.cross_entropy(np.zeros((0, 3), np.longdouble), np.zeros(0, int)).dtype == np.longdouble
