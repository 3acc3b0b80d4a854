"""Numba device arrays: values of softmax, log_softmax, logsumexp and the vector-Jacobian products, and their bits.

In Numba's simulator unless there is a CUDA device (numba_arrays.py); sizes are chosen for few threads. The losses are
in test_numba_cuda_losses.py, the arrays themselves in test_numba_cuda_arrays.py, the device functions in
test_numba_cuda_rows.py, what is compiled in test_numba_cuda_ptx.py.
"""

import numpy as np
import pytest

import fastsoftmax
import gpu as helpers
import gpu_checks as checks
import numba_arrays
import oracles
import oracles_grads
from oracles import EXACT_DTYPES, HALVES, NAMES

GRADIENTS = ["softmax_grad", "log_softmax_grad"]
DTYPES = [*EXACT_DTYPES, *HALVES]

pytestmark = numba_arrays.QUIET


@pytest.fixture(scope="module")
def gpu():
    return numba_arrays.found()


def batch_of(n):
    return 5 if n <= 64 else 2 if n <= 1024 else 1


@pytest.mark.parametrize("dtype", DTYPES)
class TestEveryMapping:
    """Teams of 8, 32 and 256 threads, some of them without elements; and every number of elements a thread may have."""

    @pytest.mark.parametrize("name", NAMES)
    def test_rows(self, gpu, name, dtype):
        for n in (1, 3, 8, 10, 65, 300, *([1100] if dtype == "float32" else [])):
            x = helpers.rows(n, dtype, batch_of(n))
            gpu.check(name, gpu(name, x), x)

    @pytest.mark.parametrize("name", NAMES)
    def test_columns(self, gpu, name, dtype):
        for n, inner in [(1, 2), (3, 5), (10, 2), (100, 3), (300, 2)]:
            x = np.resize(helpers.rows(n, dtype), (inner, n)).T.copy()
            gpu.check(name, gpu(name, x, 0), x, 0)

    @pytest.mark.parametrize("name", GRADIENTS)
    def test_rows_of_gradients(self, gpu, name, dtype):
        for n in (1, 3, 10, 65, *([1100] if dtype == "float32" else [])):
            g, y = oracles_grads.problem(name, (batch_of(n), n), dtype, seed=n)
            gpu.check_grad(name, gpu(name, g, y), g, y)

    @pytest.mark.parametrize("name", GRADIENTS)
    def test_columns_of_gradients(self, gpu, name, dtype):
        for n, inner in [(3, 5), (100, 3), (300, 2)]:
            g, y = oracles_grads.problem(name, (n, inner), dtype, 0, seed=n)
            gpu.check_grad(name, gpu(name, g, y, 0), g, y, 0)


@pytest.mark.parametrize("name", NAMES)
class TestErrors:
    @pytest.mark.parametrize("dtype", EXACT_DTYPES)
    def test_scales(self, gpu, name, dtype):
        for seed, scale in enumerate([0.1, 1.0, 20.0]):
            x = oracles.normal((4, 60), dtype, scale=scale, seed=seed)
            gpu.check(name, gpu(name, x), x)

    @pytest.mark.parametrize("dtype", EXACT_DTYPES)
    def test_far_below_the_maximum(self, gpu, name, dtype):
        """Where the rounding of x - m alone would be worth many ulp, down to the subnormal numbers and to 0."""
        x = oracles.normal((4, 60), dtype, scale=25)
        x += x.dtype.type(np.pi)
        x[1] *= x.dtype.type(40 if dtype == "float64" else 5)
        x[2, 0] = np.finfo(x.dtype).max
        x[3, 0], x[3, 1] = 100, np.finfo(x.dtype).min
        gpu.check(name, gpu(name, x), x)

    @pytest.mark.parametrize("dtype", EXACT_DTYPES)
    def test_shifted_logits(self, gpu, name, dtype):
        """Multiples of 1/64, so that the shifted logits are exact, and naive exponentials overflow."""
        checks.shifted_logits(gpu, name, dtype, 30)

    def test_many_terms_of_a_thread(self, gpu, name):
        """One chain of float32 additions would lose tens of eps."""
        x = np.full((1, 40_000), np.float32(0.1))
        x[0, 7] = 5
        gpu.check(name, gpu(name, x), x)

    def test_small_beside_a_large_one(self, gpu, name):
        """All that there is of log p and of 1 - p is in terms that 1 would swallow, met across threads."""
        for dtype in ("float32", "float64"):
            x = np.full((2, 40), -30, dtype)
            x[:, 17] = 10
            x[1, 5] = 10
            gpu.check(name, gpu(name, x), x)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", ["rows", "columns"])
class TestSpecialSlices:
    def test_they_spoil_no_other(self, gpu, name, layout):
        """NaN and +inf; -inf as an entry; outliers. The oracle has the rules."""
        checks.special_entries(gpu, name, layout, oracles.normal((4, 10), "float32", scale=2.0), (0, 9))

    @pytest.mark.parametrize("n", [2, 10, 70])
    def test_whole_slices(self, gpu, name, layout, n):
        checks.whole_slices(gpu, name, layout, n)

    def test_hidden_entries(self, gpu, name, layout):
        """They count for nothing, whatever they hold; a slice that is hidden whole is no NaN."""
        checks.hidden_entries(gpu, name, layout, 10)


@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_infinite_products(gpu, layout):
    checks.infinite_products(gpu, layout)


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("layout", ["rows", "columns"])
class TestSpecialGradients:
    def test_nan_stays_in_its_slice(self, gpu, name, layout):
        checks.nan_of_gradients(gpu, name, layout, 10)

    def test_hidden_entries(self, gpu, name, layout):
        checks.hidden_entries_of_gradients(gpu, name, layout, 10)

    def test_impossible_classes(self, gpu, name, layout):
        """Probability 0, log-probability -inf: no gradient through softmax; through log_softmax the upstream alone."""
        checks.impossible_classes(gpu, name, layout, 10)

    def test_infinite_upstream(self, gpu, name, layout):
        g, y = oracles_grads.problem(name, (2, 5), "float32")
        g[1, 2] = np.inf
        (g, axis), (y, _) = oracles.arrange(g, layout), oracles.arrange(y, layout)
        expected = getattr(fastsoftmax, name)(g, y, axis)
        np.testing.assert_allclose(gpu(name, g, y, axis), expected, rtol=1e-5)


class TestBits:
    """A slice has the same bits in any batch, at any place in memory and whatever is written to."""

    @pytest.mark.parametrize(("name", "dtype"), [*zip(NAMES, ["float32", "float16", "float32"], strict=True)])
    def test_of_rows_in_any_batch(self, gpu, name, dtype):
        for n in (10, 70):
            x = oracles.normal((33 if n == 10 else 5, n), dtype)
            got = gpu(name, x)
            for row in (0, 3, len(x) - 1):
                oracles.assert_same_bits(gpu(name, x[row]), got[row])
            buffer = gpu.put(np.zeros((len(x), n + 3), x.dtype))
            view = buffer[:, 1:-2]
            view[:] = gpu.put(x)
            oracles.assert_same_bits(gpu.get(getattr(fastsoftmax, name)(view)), got)

    @pytest.mark.parametrize("name", [*NAMES, "softmax_grad"])
    def test_of_columns_in_any_batch(self, gpu, name):
        arrays = oracles_grads.problem(name, (20, 35), "float32", 0) if name in GRADIENTS else ()
        x = arrays or (oracles.normal((20, 35), "float32"),)
        got = gpu(name, *x, 0)
        for first, last in [(0, 2), (3, 5), (32, 35)]:
            some = gpu(name, *(np.ascontiguousarray(a[:, first:last]) for a in x), 0)
            oracles.assert_same_bits(some, got[..., first:last])

    @pytest.mark.parametrize("name", ["softmax", "log_softmax", *GRADIENTS])
    @pytest.mark.parametrize("axis", [0, 1])
    def test_in_place(self, gpu, name, axis):
        # More slices than a block has teams, and not so many that the last block has one for each.
        shape = (35, 3) if axis else (7, 40)
        inputs = oracles_grads.problem(name, shape, "float32", axis) if name in GRADIENTS else ()
        inputs = inputs or (oracles.normal(shape, "float32"),)
        expected = gpu(name, *inputs, axis)
        for target in range(len(inputs)):
            given = [gpu.put(x) for x in inputs]
            assert getattr(fastsoftmax, name)(*given, axis, out=given[target]) is given[target]
            oracles.assert_same_bits(gpu.get(given[target]), expected)


SHAPE = (3, 4, 5)
# Of an array of that shape: the shape of a buffer, and the view of it that is the array.
LAYOUTS = {
    "C": (SHAPE, lambda buffer: buffer),
    "part of each row": ((3, 4, 8), lambda buffer: buffer[..., 2:-1]),
    "every other element": ((7, 9, 11), lambda buffer: buffer[1::2, 1::2, 1::2]),
}


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), None])
class TestLayouts:
    @pytest.mark.parametrize("name", ["softmax", "logsumexp"])
    def test_of_inputs(self, gpu, name, axis):
        x = oracles.normal(SHAPE, "float32")
        for shape, view in LAYOUTS.values():
            buffer = gpu.put(np.full(shape, np.nan, "float32"))
            view(buffer)[:] = gpu.put(x)
            gpu.check(name, gpu.get(getattr(fastsoftmax, name)(view(buffer), axis)), x, axis)

    def test_of_out(self, gpu, axis):
        """Nothing beside out is written."""
        x = oracles.normal(SHAPE, "float32")
        for shape, view in list(LAYOUTS.values())[1:]:
            expected = np.full(shape, 7, "float32")
            buffer = gpu.put(expected)
            target = view(buffer)
            assert fastsoftmax.softmax(gpu.put(x), axis, out=target) is target
            got = gpu.get(buffer)
            gpu.check("softmax", np.ascontiguousarray(view(got)), x, axis)
            view(expected)[...] = view(got)
            np.testing.assert_array_equal(got, expected)
