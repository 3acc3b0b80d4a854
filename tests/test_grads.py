"""softmax_grad and log_softmax_grad: vector-Jacobian products from the saved outputs.

Values, where, special values and bits; their arguments as arrays are in test_grads_arrays.py.
"""

import itertools

import numpy as np
import pytest

import fastsoftmax
import oracles
from fastsoftmax import _registry, log_softmax_grad, softmax_grad
from oracles import EXACT_DTYPES, HALVES
from oracles_grads import check, problem

pytestmark = pytest.mark.usefixtures("backend")

FUNCTIONS = [softmax_grad, log_softmax_grad]
SIZES = [1, 2, 3, 10, 16, 17, 37, 64, 65, 100, 257, 300, 1000, 5000]


def forward(function):
    return fastsoftmax.softmax if function is softmax_grad else fastsoftmax.log_softmax


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [*EXACT_DTYPES, *HALVES])
@pytest.mark.parametrize("n", SIZES)
def test_against_exact_values(function, dtype, n):
    for layout, scale in itertools.product(["rows", "columns", "middle"], [0.0, 5.0]):
        g, y = problem(function.__name__, (35 if n < 300 else 3, n), dtype, scale=scale)
        (g, axis), (y, _) = oracles.arrange(g, layout), oracles.arrange(y, layout)
        check(function.__name__, function(g, y, axis), g, y, axis)
        # Products of one sign, and an offset that log-softmax's sum does not cancel.
        check(function.__name__, function(np.abs(g), y, axis), np.abs(g), y, axis)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", EXACT_DTYPES)
def test_a_long_slice(function, dtype):
    g, y = problem(function.__name__, (1_000_000,), dtype, scale=1)
    for upstream in (g, np.abs(g), np.ones_like(g)):
        check(function.__name__, function(upstream, y), upstream, y)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("inner", [127, 128, 129, 255, 256, 257, 600])
def test_many_columns(function, dtype, inner):
    """Around the groups in which columns are computed."""
    for n, axis in itertools.product([3, 40], [0, 1]):
        g, y = problem(function.__name__, (n, inner) if axis == 0 else (2, n, inner), dtype, axis)
        check(function.__name__, function(g, y, axis), g, y, axis)


@pytest.mark.parametrize("dtype", [*EXACT_DTYPES, *HALVES])
@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_logarithms_far_above_0(dtype, layout):
    """What no log-softmax gives is taken as it is, up to the largest exponential."""
    high = min(np.log(float(oracles.finfo(oracles.dtype_of(dtype)).max)), 700) - 8
    for n, low in itertools.product([3, 20, 300], [-20, high - 1]):
        y = np.linspace(low, high, 5 * n).reshape(n, 5).T
        g = oracles.normal((5, n), dtype, scale=1)
        (g, axis), (y, _) = oracles.arrange(g, layout), oracles.arrange(y.astype(g.dtype), layout)
        check("log_softmax_grad", log_softmax_grad(g, y, axis), g, y, axis)


@pytest.mark.parametrize("dtype", EXACT_DTYPES)
def test_its_exponential_is_the_kernels(dtype):
    """To the bit, above where a log-softmax ends and below where a result is subnormal."""
    low, high = np.log(np.finfo(dtype).smallest_subnormal) - 2, np.log(np.finfo(dtype).max) - 0.01
    y = np.stack([np.zeros(100_003), np.linspace(low, high, 100_003)]).astype(dtype)
    g = np.array([[1], [0]], dtype) + np.zeros_like(y)
    oracles.assert_same_bits(0 - log_softmax_grad(g, y, 0)[1], _registry.current().exp(y[1]))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("n", [2, 10, 100])
def test_against_mpmath(function, n):
    mpmath = pytest.importorskip("mpmath", reason="judges float64: not installed")
    g, y = problem(function.__name__, (2, n), "float64")
    got = function(g, y)
    with mpmath.workdps(40):
        for row in range(2):
            upstream, saved = ([mpmath.mpf(float(v)) for v in values[row]] for values in (g, y))
            p = saved if function is softmax_grad else [mpmath.exp(v) for v in saved]
            total = mpmath.fsum(u * (q if function is softmax_grad else 1) for u, q in zip(upstream, p, strict=True))
            size = mpmath.fsum(
                abs(u) * (q if function is softmax_grad else 1) for u, q in zip(upstream, p, strict=True)
            )
            for i, (u, q) in enumerate(zip(upstream, p, strict=True)):
                exact = q * (u - total) if function is softmax_grad else u - q * total
                bound = q * (abs(u) + size) if function is softmax_grad else abs(u) + q * size
                assert abs(float(got[row, i]) - exact) <= 4 * 2**-52 * bound


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("axis", [0, 1, (0, 1), None])
def test_it_is_the_derivative(function, axis):
    """Central differences of the upstream gradient's inner product with the output."""
    x, g = oracles.normal((6, 5), "float64", scale=1.5), oracles.normal((6, 5), "float64", scale=1, seed=1)
    grad = function(g, forward(function)(x, axis=axis), axis)
    h = 1e-5
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = h
        more, less = (np.vdot(g, forward(function)(x + d, axis=axis)) for d in (step, -step))
        np.testing.assert_allclose(grad[index], (more - less) / (2 * h), atol=2e-9)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_pytorch_agrees(function, axis):
    torch = pytest.importorskip("torch", reason="PyTorch, whose autograd is compared with, is not installed")
    x, g = oracles.normal((7, 9, 4), "float64"), oracles.normal((7, 9, 4), "float64", seed=1)
    tensor = torch.tensor(x, requires_grad=True)
    (torch.softmax if function is softmax_grad else torch.log_softmax)(tensor, axis).backward(torch.tensor(g))
    got = function(g, forward(function)(x, axis=axis), axis)
    np.testing.assert_allclose(got, tensor.grad.numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("shape", [(11,), (4, 9), (3, 4, 5), (2, 3, 4, 5)])
def test_every_axis(function, shape):
    rank = len(shape)
    pairs = [(a, b) for a in range(rank) for b in range(-rank, rank) if a != b % rank]
    for axis in [*range(-rank, rank), *pairs, tuple(range(rank)), (), None, np.int64(0)]:
        axes = tuple(a % rank for a in axis) if isinstance(axis, tuple) else axis
        g, y = problem(function.__name__, shape, "float32", axes)
        check(function.__name__, function(g, y, axis), g, y, axes)
    g, y = problem(function.__name__, shape, "float32")
    check(function.__name__, function(g, y), g, y)  # the last by default


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("axis", [-1, 0, None])
def test_numbers(function, axis):
    """A slice of one: its probability is 1 whatever the logit."""
    got = function(np.float32(3), np.float32(1 if function is softmax_grad else 0), axis)
    assert isinstance(got, np.float32)
    assert got == 0
    out = np.full((), 7, "float32")
    assert function(np.float32(3), np.float32(1 if function is softmax_grad else 0), axis, out=out) is out
    assert out == 0


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)])
@pytest.mark.parametrize("axis", [0, -1, None])
def test_empty(function, shape, axis):
    got = function(np.zeros(shape, "float32"), np.zeros(shape, "float32"), axis)
    assert got.shape == shape
    assert got.dtype == np.float32


class TestWhere:
    @pytest.mark.parametrize("function", FUNCTIONS)
    @pytest.mark.parametrize("dtype", [*EXACT_DTYPES, *HALVES])
    @pytest.mark.parametrize("layout", ["rows", "columns", "middle"])
    def test_hidden_entries(self, function, dtype, layout):
        """They get 0, whatever they and their upstream gradients hold; a slice that is hidden whole is 0."""
        for n, junk in itertools.product((2, 10, 65, 300), (np.nan, np.inf, 7.0)):
            x, axis = oracles.arrange(oracles.normal((20, n), dtype), layout)
            where = np.random.default_rng(n).random((20, n)) < 0.6
            where[3] = False
            where[4], where[4, 1] = False, True
            where[5] = True
            where, _ = oracles.arrange(where, layout)
            y = forward(function)(x, axis=axis, where=where)
            g = oracles.normal(x.shape, dtype, seed=1)
            g[~where] = junk
            got = function(g, y, axis, where=where)
            check(function.__name__, got, g, y, axis, where)
            assert not got[~where].any()
            y[~where] = junk
            oracles.assert_same_bits(function(g, y, axis, where=where), got)
            for target in (0, 1):
                inputs = [g.copy(), y.copy()]
                oracles.assert_same_bits(function(*inputs, axis, where=where, out=inputs[target]), got)

    @pytest.mark.parametrize("function", FUNCTIONS)
    @pytest.mark.parametrize("axis", [0, 1, (0, 2), None])
    def test_broadcasting(self, function, axis):
        g, y = problem(function.__name__, (4, 5, 6), "float64", axis)
        rng = np.random.default_rng(0)
        for shape in [(4, 5, 6), (6,), (5, 1), (4, 1, 1), (1, 5, 6), ()]:
            where = rng.random(shape) < 0.6
            got = function(g, y, axis, where=where)
            check(function.__name__, got, g, y, axis, where)
            oracles.assert_same_bits(function(g, y, axis, where=where.tolist()), got)

    @pytest.mark.parametrize("function", FUNCTIONS)
    def test_true_hides_nothing(self, function):
        g, y = problem(function.__name__, (4, 5), "float32")
        oracles.assert_same_bits(function(g, y, where=True), function(g, y))
        oracles.assert_same_bits(function(g, y, where=np.ones((4, 5), bool)), function(g, y))
        assert not function(g, y, where=False).any()

    @pytest.mark.parametrize("function", FUNCTIONS)
    def test_in_the_memory_of_out(self, function):
        g, y = problem(function.__name__, (4, 5), "float32")
        where = np.random.default_rng(0).random((4, 5)) < 0.6
        expected = function(g, y, where=where)
        out = np.zeros((4, 5), "float32")
        shared = out.view(bool).reshape(-1)[3:23].reshape(4, 5)
        shared[...] = where
        oracles.assert_same_bits(function(g, y, where=shared, out=out), expected)


class TestSpecialValues:
    @pytest.mark.parametrize("function", FUNCTIONS)
    @pytest.mark.parametrize("layout", ["rows", "columns"])
    @pytest.mark.parametrize("n", [3, 10, 40, 300, 5000])
    def test_nan_stays_in_its_slice(self, function, layout, n):
        for target in (0, 1):
            inputs = list(problem(function.__name__, (20, n), "float32"))
            clean = function(*(oracles.arrange(a, layout)[0] for a in inputs), 0 if layout == "columns" else -1)
            inputs[target] = inputs[target].copy()
            inputs[target][7, 1] = np.nan
            got = function(*(oracles.arrange(a, layout)[0] for a in inputs), 0 if layout == "columns" else -1)
            got, clean = (got, clean) if layout == "rows" else (got.T, clean.T)
            # An output holds NaN everywhere or nowhere; what a lone one makes of its neighbours is no rule.
            assert np.isnan(got[7]).all() if target == 0 or function is softmax_grad else np.isnan(got[7, 1])
            np.testing.assert_array_equal(np.delete(got, 7, 0), np.delete(clean, 7, 0))

    @pytest.mark.parametrize("function", FUNCTIONS)
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize(("batch", "n"), [*itertools.product([1, 20], [3, 10, 40, 300]), (1, 40_000)])
    def test_an_infinite_upstream(self, function, dtype, batch, n):
        """The sum is infinite, and what it rounds off is not NaN: the formula's values, whoever stands beside."""
        g, y = problem(function.__name__, (batch, n), dtype, scale=0)
        g[-1, 1] = np.inf
        expected = np.full(n, -np.inf)
        expected[1] = np.nan
        np.testing.assert_array_equal(function(g, y)[-1], expected)
        np.testing.assert_array_equal(function(g.T.copy(), y.T.copy(), 0)[:, -1], expected)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("sign", [1, -1])
    def test_an_infinite_product(self, dtype, sign):
        """It has no rest, whatever the sum's own rounding was."""
        exponent = int(np.log10(np.finfo(dtype).max)) - 8
        for top in (np.log(np.finfo(dtype).max) - 0.5, 1e4, np.inf):
            y = np.array([[top, -1.0]], dtype)
            g = np.array([[10.0**exponent, sign * 10.0**exponent * np.finfo(dtype).eps / 5]], dtype)
            for got in (log_softmax_grad(g, y), log_softmax_grad(g.T.copy(), y.T.copy(), 0).T):
                np.testing.assert_array_equal(got[0, 0], -np.inf)
                np.testing.assert_allclose(got[0, 1], -np.exp(-1) * 10.0**exponent, rtol=1e-6)

    @pytest.mark.parametrize("function", FUNCTIONS)
    @pytest.mark.parametrize("n", [3, 10, 40, 300])
    def test_impossible_classes(self, function, n):
        """Probability 0, log-probability -inf: no gradient through softmax; through log_softmax the upstream alone."""
        x = oracles.normal((20, n), "float32")
        x[:, 1] = -np.inf
        g = oracles.normal((20, n), "float32", seed=1)
        for axis in (0, 1):
            logits, upstream = (x, g) if axis else (x.T.copy(), g.T.copy())
            y = forward(function)(logits, axis=axis)
            got = function(upstream, y, axis)
            check(function.__name__, got, upstream, y, axis)
            got = got if axis else got.T
            np.testing.assert_array_equal(got[:, 1], 0 if function is softmax_grad else g[:, 1])

    @pytest.mark.parametrize("n", [3, 10, 40, 300])
    def test_constant_upstream_gives_nothing(self, n):
        """Probabilities always sum to 1, so what is left is the rounding of that sum."""
        _, p = problem("softmax_grad", (20, n), "float64")
        got = softmax_grad(np.full_like(p, 3), p)
        assert np.all(np.abs(got) <= 3 * p * 8 * np.finfo("float64").eps)


class TestReproducibility:
    @pytest.mark.parametrize("function", FUNCTIONS)
    @pytest.mark.parametrize("dtype", ["float32", "float64", *HALVES])
    @pytest.mark.parametrize("n", [1, 3, 10, 17, 40, 65, 257, 4097])
    def test_bits_of_a_slice_whatever_the_batch(self, function, dtype, n):
        g, y = problem(function.__name__, (35, n), dtype)
        rows, columns = function(g, y), function(g.T.copy(), y.T.copy(), 0)
        for part in [slice(0, 1), slice(34, 35), slice(5, 7), slice(1, 18), slice(7, 33), slice(0, 34)]:
            oracles.assert_same_bits(function(g[part].copy(), y[part].copy()), rows[part])
            if part.stop - part.start > 1:  # a lone column, copied, is a row
                got = function(g[part].T.copy(), y[part].T.copy(), 0)
                oracles.assert_same_bits(got, columns[:, part].copy())
        oracles.assert_same_bits(function(g[3], y[3]), rows[3])

    @pytest.mark.parametrize("distance", [1, 2, 4, 8, 16])  # so many lanes apart
    @pytest.mark.parametrize("n", [33, 40_000])
    def test_a_sum_that_just_overflows(self, n, distance):
        """Whether it does is no matter of the batch."""
        g, y = np.zeros((20, n)), np.full((20, n), -3.0)
        g[:, 0] = np.finfo("float64").max
        g[:, [distance, 2 * distance]] = 2.0**969
        rows = log_softmax_grad(g, y)
        assert not np.isnan(rows).any()
        oracles.assert_same_bits(log_softmax_grad(g[3], y[3]), rows[3])
        oracles.assert_same_bits(log_softmax_grad(g, y, n_threads=2), rows)

    @pytest.mark.parametrize("function", FUNCTIONS)
    @pytest.mark.parametrize("dtype", ["float32", "float64", *HALVES])
    @pytest.mark.parametrize(("n", "batch"), [(10, 8000), (300, 200), (20_000, 3)])
    @pytest.mark.parametrize("axis", [0, 1])
    def test_bits_whatever_the_threads(self, function, dtype, n, batch, axis):
        g, y = (a if axis else a.T.copy() for a in problem(function.__name__, (batch, n), dtype))
        expected = function(g, y, axis, n_threads=1)
        for n_threads in (2, 64):
            oracles.assert_same_bits(function(g, y, axis, n_threads=n_threads), expected)

    @pytest.mark.parametrize("function", FUNCTIONS)
    @pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
    @pytest.mark.parametrize("n", [3, 10, 40, 300])
    def test_bits_whatever_the_alignment(self, function, dtype, n):
        g, y = problem(function.__name__, (5, n), dtype)
        expected = function(g, y)
        for offset in (*range(0, 64, g.itemsize), 1):
            buffers = [bytearray(o) + bytearray(a.tobytes()) for o, a in ((offset, g), (64 - offset, y))]
            moved = [
                np.frombuffer(b, g.dtype, offset=o).reshape(5, n)
                for b, o in zip(buffers, (offset, 64 - offset), strict=True)
            ]
            oracles.assert_same_bits(function(*moved), expected)
