"""Which dtypes go in and come out, and what is refused by name."""

import sys

import numpy as np
import pytest

import fastsoftmax
import oracles
from oracles import EXACT_DTYPES, HALVES, NAMES

pytestmark = pytest.mark.usefixtures("backend")

INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


def family(name):
    """Each public function as one of an array of logits of shape (rows, 3)."""
    function = getattr(fastsoftmax, name)
    if name in NAMES:
        return function
    return lambda x: function(x, np.zeros(np.shape(x)[:-1], int))


FAMILY = [*NAMES, "cross_entropy", "cross_entropy_grad", "cross_entropy_with_grad"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [*EXACT_DTYPES, *HALVES])
@pytest.mark.parametrize("axis", [0, 1])
def test_floats_keep_their_dtype(name, dtype, axis):
    x = oracles.normal((30, 40), dtype)
    oracles.check(name, getattr(fastsoftmax, name)(x, axis=axis), x, axis)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["bool", *INTEGERS])
@pytest.mark.parametrize("axis", [0, 1])
def test_integers_and_bool_are_computed_in_float64(name, dtype, axis):
    info = np.iinfo(dtype) if dtype != "bool" else None
    x = np.random.default_rng(0).integers(0, 2 if info is None else 100, (30, 40)).astype(dtype)
    if info is not None:
        x[3, 3] = info.min
        x[4, 4:6] = info.max
    oracles.check(name, getattr(fastsoftmax, name)(x, axis=axis), x, axis)


@pytest.mark.parametrize("dtype", [*HALVES, "float32", "float64"])
def test_dtypes_of_losses_and_gradients(dtype):
    logits = oracles.normal((4, 5), dtype)
    loss_dtype = np.float32 if dtype in HALVES else dtype
    for reduction in ("mean", "sum", "none"):
        loss, grad = fastsoftmax.cross_entropy_with_grad(logits, [0, 1, 2, 3], reduction=reduction)
        assert loss.dtype == loss_dtype
        assert grad.dtype == logits.dtype


def test_integer_logits_of_cross_entropy():
    logits = np.array([[2, 0, 1], [0, 0, 255]], "uint8")
    loss, grad = fastsoftmax.cross_entropy_with_grad(logits, [0, 1])
    expected = fastsoftmax.cross_entropy_with_grad(logits.astype("float64"), [0, 1])
    oracles.assert_same_bits(loss, expected[0])
    oracles.assert_same_bits(grad, expected[1])


class TestLongdoubleAndComplex:
    """Served by plain NumPy: no speed, but the precision of the dtype."""

    @oracles.wide_longdouble
    @pytest.mark.parametrize("axis", [0, 1, None])
    def test_longdouble(self, axis):
        mpmath = pytest.importorskip("mpmath", reason="judges long double: not installed")
        x = oracles.normal((3, 4), "float64").astype(np.longdouble) / 3
        probs = fastsoftmax.softmax(x, axis=axis)
        log_probs = fastsoftmax.log_softmax(x, axis=axis)
        lse = fastsoftmax.logsumexp(x, axis=axis)
        assert {probs.dtype, log_probs.dtype, lse.dtype} == {np.dtype(np.longdouble)}
        with mpmath.workdps(40):
            exact = np.vectorize(lambda v: mpmath.mpf(v.as_integer_ratio()[0]) / v.as_integer_ratio()[1])
            e = np.vectorize(mpmath.exp)(exact(x))
            total = e.sum(axis=axis, keepdims=True)
            logs = np.vectorize(mpmath.log)(total)
            tolerance = float(100 * np.finfo(np.longdouble).eps)
            for got, mp in [(probs, e / total), (log_probs, exact(x) - logs), (lse, logs)]:
                mp = mp if got.ndim == x.ndim else np.squeeze(mp, axis)
                assert np.all(np.asarray(np.abs(exact(got) - mp), float) < tolerance)

    def test_longdouble_follows_the_rules(self):
        x = np.array([[np.nan, 0], [-np.inf, 0], [-np.inf, -np.inf], [np.inf, 0]], np.longdouble)
        probs = fastsoftmax.softmax(x)
        assert np.isnan(probs[[0, 2, 3]]).all()
        np.testing.assert_array_equal(probs[1], [0, 1])
        np.testing.assert_array_equal(fastsoftmax.logsumexp(x), [np.nan, 0, -np.inf, np.inf])
        out = np.empty_like(x)
        assert fastsoftmax.softmax(x, where=np.isfinite(x), out=out) is out
        np.testing.assert_array_equal(out, [[0, 1], [0, 1], [0, 0], [0, 1]])
        hidden = fastsoftmax.log_softmax(x, where=np.isfinite(x))
        np.testing.assert_array_equal(np.exp(hidden), out)
        assert fastsoftmax.softmax(x[:0], n_threads=3).shape == (0, 2)

    @pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
    def test_longdouble_cross_entropy(self, reduction):
        x, labels = oracles.normal((6, 5), "float64"), np.array([0, 4, -100, 2, 1, 3])
        results = []
        for logits in (x, x.astype(np.longdouble)):
            options = {"reduction": reduction, "return_lse": True}
            loss, grad, lse = fastsoftmax.cross_entropy_with_grad(logits, labels, **options)
            assert {loss.dtype, grad.dtype, lse.dtype} == {logits.dtype}
            alone = fastsoftmax.cross_entropy(logits, labels, **options)
            np.testing.assert_allclose(alone[0], loss, rtol=1e-15)
            out = np.empty_like(logits)
            fastsoftmax.cross_entropy_grad(logits, labels, reduction=reduction, out=out)
            np.testing.assert_allclose(out, grad, rtol=1e-15)
            results.append((loss, grad, lse[labels >= 0]))
        for ours, theirs in zip(*results, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-13)

    @pytest.mark.parametrize("dtype", ["complex64", "complex128"])
    @pytest.mark.parametrize("axis", [0, 1, None])
    def test_complex_logsumexp(self, dtype, axis):
        x = oracles.normal((3, 4), "float64") + 1j * oracles.normal((3, 4), "float64", seed=1)
        got = fastsoftmax.logsumexp((x + 900).astype(dtype), axis=axis)
        assert got.dtype == dtype
        tolerance = 1e-3 if dtype == "complex64" else 1e-11
        # As exponentials: the imaginary part is an angle.
        np.testing.assert_allclose(np.exp(got - 900), np.exp(x).sum(axis=axis), rtol=tolerance)

    @pytest.mark.parametrize("name", [n for n in FAMILY if n != "logsumexp"])
    @pytest.mark.parametrize("dtype", ["complex64", "complex128", "clongdouble"])
    def test_complex_is_refused_elsewhere(self, name, dtype):
        with pytest.raises(TypeError, match=np.dtype(dtype).name):
            family(name)(np.zeros((2, 3), dtype))


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize(
    "x",
    [
        np.array([[1, None, 2]], object),
        [[1, None, 2]],
        np.array([["a", "b", "c"]]),
        [["a", "b", "c"]],
        np.array([[b"a", b"b", b"c"]]),
        np.zeros((1, 3), "datetime64[D]"),
        np.zeros((1, 3), "timedelta64[s]"),
        np.zeros((1, 3), [("x", "f4")]),
    ],
    ids=lambda x: np.asarray(x).dtype.name,
)
def test_other_dtypes_are_refused_by_name(name, x):
    dtype = np.asarray(x).dtype
    with pytest.raises(TypeError) as caught:
        family(name)(x)
    assert any(word in str(caught.value) for word in (dtype.name, str(dtype)))


@pytest.mark.parametrize("name", FAMILY)
def test_masked_arrays_are_refused(name):
    masked = np.ma.masked_array(np.ones((2, 3)), mask=[[0, 1, 0], [0, 0, 0]])
    # The cross-entropy family has no `where` to send them to.
    with pytest.raises(TypeError, match="where" if name in NAMES else "mask would be ignored"):
        family(name)(masked)


class DeviceArray:
    """What arrays of other libraries have in common; converting one by stealth would copy it."""

    shape = (2, 3)
    ndim = 2
    dtype = np.dtype("float32")

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("converted without being asked to")

    def __dlpack__(self, **kwargs):
        raise AssertionError("converted without being asked to")

    def __dlpack_device__(self):
        return (2, 0)

    def __array_namespace__(self, api_version=None):
        raise AssertionError("converted without being asked to")


NEEDS = r'DeviceArray on a CUDA device needs CuPy: pip install "fastsoftmax\[cuda13\]"'


@pytest.mark.parametrize("name", FAMILY)
def test_arrays_of_another_device_without_what_reads_them(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ImportError, match=NEEDS):
        family(name)(DeviceArray())


def test_arrays_of_another_device_as_labels_and_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    x = np.zeros((2, 3), "float32")
    with pytest.raises(TypeError, match=r"out: expected a NumPy array, got .*DeviceArray"):
        fastsoftmax.softmax(x, out=DeviceArray())
    for function, kwargs in [
        (fastsoftmax.softmax, {"where": DeviceArray()}),
        (fastsoftmax.logsumexp, {"b": DeviceArray()}),
        (fastsoftmax.cross_entropy, {"labels": DeviceArray()}),
    ]:
        with pytest.raises(ImportError, match=NEEDS):
            function(x, **kwargs)


class TestFaultsOfScipy:
    """Inputs on which scipy.special.softmax 1.17 fails or is wrong."""

    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
    def test_unsigned(self, dtype):
        probs = fastsoftmax.softmax(np.array([2, 0, 1], dtype))
        np.testing.assert_allclose(probs, [0.66524096, 0.09003057, 0.24472847], atol=5e-9)

    def test_signed_differences_that_overflow(self):
        probs = fastsoftmax.softmax(np.array([100, -100], "int8"))
        np.testing.assert_allclose(probs, [1, np.exp(-200.0)], rtol=1e-15)

    @pytest.mark.parametrize("dtype", HALVES)
    def test_sum_of_many_zeros(self, dtype):
        x = np.zeros((4096, 4), oracles.dtype_of(dtype))
        probs = fastsoftmax.softmax(x, axis=0)
        assert np.all(probs == 1 / 4096)
        assert np.all(fastsoftmax.softmax(x[:, 0]) == 1 / 4096)

    @pytest.mark.parametrize("dtype", ["float16", "float32"])
    def test_long_columns(self, dtype):
        x = np.random.default_rng(0).normal(size=(1_048_576, 4)).astype(dtype)
        probs = fastsoftmax.softmax(x, axis=0)
        oracles.check("softmax", probs, x, 0)  # in float32 the sums as well, to 4 eps
        # Most float16 results here are subnormal, each rounded to a multiple of 6e-8.
        np.testing.assert_allclose(probs.sum(axis=0, dtype="f8"), np.ones(4), atol=1e-3)

    def test_bool_and_empty(self):
        probs = fastsoftmax.softmax(np.array([True, False]))
        np.testing.assert_allclose(probs, [0.73105858, 0.26894142], atol=5e-9)
        assert fastsoftmax.softmax(np.empty((0, 3))).shape == (0, 3)
        assert fastsoftmax.softmax([]).shape == (0,)
