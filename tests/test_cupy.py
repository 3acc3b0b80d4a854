"""CuPy arrays: values of softmax, log_softmax, logsumexp and the vector-Jacobian products, in every layout and dtype.

On the real CuPy where there is a CUDA device, else on the stand-in that runs the same kernels on the CPU (gpu.py). The
bits of the results and the launches are in test_cupy_calls.py, the losses in test_cupy_losses.py.
"""

import itertools

import numpy as np
import pytest

import fastsoftmax
import gpu as helpers
import gpu_checks as checks
import oracles
import oracles_grads
from oracles import EXACT_DTYPES, HALVES, NAMES

KERNELS = {"softmax": "softmax", "log_softmax": "log_softmax", "logsumexp": "cross_entropy"}
GRADIENTS = ["softmax_grad", "log_softmax_grad"]
DTYPES = [*EXACT_DTYPES, *HALVES]
# Rows of a few elements, of a group, a warp, two warps, a block and a cluster; columns of one chunk and of several.
SOME_SIZES = [1, 2, 3, 10, 40, 300, 1500, 5000, 20_000]


@pytest.fixture(scope="module")
def gpu(request):
    with helpers.found(request.config) as found:
        yield found


def batch_of(n):
    return 5 if n <= 2100 else 2 if n <= 20_000 else 1


def columns_of(rows, inner):
    return np.resize(rows, (inner, rows.shape[1])).T.copy()


@pytest.mark.parametrize("dtype", DTYPES)
class TestEveryLength:
    """The tables of lengths are made from the plans, so that every branch of them is met."""

    @pytest.mark.parametrize("name", NAMES)
    def test_rows(self, gpu, name, dtype):
        for n in helpers.lengths(KERNELS[name], dtype):
            x = helpers.rows(n, dtype, batch_of(n))
            got = gpu(name, x)
            gpu.check(name, got, x)
            for offset, gap in [(1, 0), (0, 1)] if n <= 20_000 else []:
                view, _ = gpu.placed(x, offset, gap)
                oracles.assert_same_bits(gpu(name, view), got)

    @pytest.mark.parametrize("name", NAMES)
    def test_columns(self, gpu, name, dtype):
        for n, inner in zip(helpers.lengths(KERNELS[name], dtype, True), itertools.cycle([2, 3, 5, 33, 40])):
            x = columns_of(helpers.rows(n, dtype), inner if n < 2000 else 3)
            got = gpu(name, x, 0)
            gpu.check(name, got, x, 0)
            view, _ = gpu.placed(x, 1, 3)
            oracles.assert_same_bits(gpu(name, view, 0), got)

    @pytest.mark.parametrize("name", GRADIENTS)
    def test_rows_of_gradients(self, gpu, name, dtype):
        for n in helpers.lengths(name, dtype):
            g, y = oracles_grads.problem(name, (batch_of(n), n), dtype, seed=n)
            got = gpu(name, g, y)
            gpu.check_grad(name, got, g, y)
            # One of the two out of line is enough for neither to be read in vectors.
            for one, other in [((1, 0), (0, 0)), ((0, 0), (0, 1))] if n <= 20_000 else []:
                views = gpu.placed(g, *one)[0], gpu.placed(y, *other)[0]
                oracles.assert_same_bits(gpu(name, *views), got)

    @pytest.mark.parametrize("name", GRADIENTS)
    def test_columns_of_gradients(self, gpu, name, dtype):
        for n, inner in zip(helpers.lengths(name, dtype, True), itertools.cycle([2, 3, 5, 33, 40])):
            g, y = oracles_grads.problem(name, (n, inner if n < 2000 else 3), dtype, 0, seed=n)
            gpu.check_grad(name, gpu(name, g, y, 0), g, y, 0)


@pytest.mark.parametrize("n", [2, 3, 10, 33, 129, 1000, 3000, 40_000])
class TestErrors:
    """Many slices of each kind, for the bounds of float32 and float64."""

    def problems(self, n, dtype):
        for seed, scale in enumerate([0.1, 1.0, 5.0, 20.0]):
            for columns in (False, True):
                x = oracles.normal((max(1, 8000 // n), n), dtype, scale=scale, seed=seed)
                yield (x.T.copy(), 0) if columns else (x, 1)

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("dtype", EXACT_DTYPES)
    def test_ordinary_slices(self, gpu, name, dtype, n):
        for x, axis in self.problems(n, dtype):
            gpu.check(name, gpu(name, x, axis), x, axis)

    def test_with_an_exact_power(self, gpu, n):
        with gpu.exact_exp2():
            for x, axis in self.problems(n, "float32"):
                gpu.check("softmax", gpu("softmax", x, axis), x, axis)

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("dtype", EXACT_DTYPES)
    def test_shifted_logits(self, gpu, name, dtype, n):
        """Multiples of 1/64, so that the shifted logits are exact, and naive exponentials overflow."""
        checks.shifted_logits(gpu, name, dtype, n)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("n", SOME_SIZES)
class TestSpecialSlices:
    @pytest.mark.parametrize("dtype", [*EXACT_DTYPES, "float16"])
    def test_they_spoil_no_other(self, gpu, name, layout, n, dtype):
        """NaN and +inf; -inf as an entry and alone; an outlier. The oracle has the rules."""
        rows = oracles.normal((7 if n <= 1500 else 3, n), dtype, scale=2.0)
        checks.special_entries(gpu, name, layout, rows, {0, n // 2, n - 1} if n <= 1500 else {n - 1})

    def test_whole_slices(self, gpu, name, layout, n):
        checks.whole_slices(gpu, name, layout, n)

    def test_hidden_entries(self, gpu, name, layout, n):
        """They count for nothing, whatever they hold; a slice that is hidden whole is no NaN."""
        checks.hidden_entries(gpu, name, layout, n)


@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_infinite_products(gpu, layout):
    checks.infinite_products(gpu, layout)


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("n", SOME_SIZES)
class TestSpecialGradients:
    def test_nan_stays_in_its_slice(self, gpu, name, layout, n):
        checks.nan_of_gradients(gpu, name, layout, n)

    def test_hidden_entries(self, gpu, name, layout, n):
        checks.hidden_entries_of_gradients(gpu, name, layout, n)

    def test_impossible_classes(self, gpu, name, layout, n):
        """Probability 0, log-probability -inf: no gradient through softmax; through log_softmax the upstream alone."""
        checks.impossible_classes(gpu, name, layout, n)


SHAPE = (5, 17, 24)
# Of an array of that shape: the shape of a buffer, and the view of it that is the array.
LAYOUTS = {
    "C": (SHAPE, lambda buffer: buffer),
    "Fortran": (SHAPE[::-1], lambda buffer: buffer.T),
    "outer axes swapped": ((24, 17, 5), lambda buffer: buffer.swapaxes(0, -1)),
    "inner axes swapped": ((5, 24, 17), lambda buffer: buffer.swapaxes(-2, -1)),
    "negative strides": (SHAPE, lambda buffer: buffer[::-1, :, ::-1]),
    "from the last to the first": (SHAPE, lambda buffer: buffer[::-1]),
    "off the boundary": (5 * 17 * 24 + 1, lambda buffer: buffer[1:].reshape(SHAPE)),
    "part of each row": ((5, 17, 27), lambda buffer: buffer[..., 2:-1]),
    "every other element": ((11, 35, 49), lambda buffer: buffer[1::2, 1::2, 1::2]),
}
AXES = [0, 1, 2, -1, (0, 2), (-1, 0), (1, 2), None, ()]


def laid_out(layout, x, fill=np.nan):
    """Give a buffer on the host that holds x in a layout, and the way to look at it."""
    shape, view = LAYOUTS[layout]
    buffer = np.full(shape, fill, x.dtype)
    view(buffer)[...] = x
    return buffer, view


@pytest.mark.parametrize("name", [*NAMES, *GRADIENTS])
@pytest.mark.parametrize("axis", AXES)
class TestLayouts:
    def problem(self, name, dtype, axis):
        if name in NAMES:
            return (oracles.normal(SHAPE, dtype),)
        return oracles_grads.problem(name, SHAPE, dtype, axis)

    def check(self, gpu, name, got, inputs, axis):
        (gpu.check if name in NAMES else gpu.check_grad)(name, got, *inputs, axis)

    def test_of_inputs(self, gpu, name, axis):
        for dtype in ("float16", "float32", "float64"):
            inputs = self.problem(name, dtype, axis)
            for layout, other in zip(LAYOUTS, [*LAYOUTS][3:] + [*LAYOUTS][:3], strict=True):
                views = []
                for x, of in zip(inputs, (layout, other), strict=False):
                    buffer, view = laid_out(of, x)
                    views.append(view(gpu.put(buffer)))
                self.check(gpu, name, gpu(name, *views, axis), inputs, axis)

    def test_of_out(self, gpu, name, axis):
        """Nothing beside out is written; it may be an input, or overlap one."""
        if name == "logsumexp":
            return
        inputs = self.problem(name, "float32", axis)
        for layout in LAYOUTS:
            expected, view = laid_out(layout, inputs[0], 7)
            buffer = gpu.put(expected)
            for target in (view(buffer), None):
                given = [gpu.put(x) for x in inputs]
                if target is None:  # in place
                    given[0] = target = view(buffer)
                    target[...] = gpu.put(inputs[0])
                assert getattr(fastsoftmax, name)(*given, axis, out=target) is target
                self.check(gpu, name, np.ascontiguousarray(gpu.get(target)), inputs, axis)
                view(expected)[...] = gpu.get(target)
                np.testing.assert_array_equal(gpu.get(buffer), expected)
        flat = gpu.put(np.append(inputs[0], np.float32(7)))
        given = flat[:-1].reshape(SHAPE), *map(gpu.put, inputs[1:])
        got = getattr(fastsoftmax, name)(*given, axis, out=flat[1:].reshape(SHAPE))
        self.check(gpu, name, gpu.get(got), inputs, axis)

    def test_broadcast_inputs(self, gpu, name, axis):
        for shape in [(5, 1, 1), (1, 17, 1), (1, 1, 24), (5, 1, 24)]:
            inputs = [x[tuple(slice(n) for n in shape)] for x in self.problem(name, "float32", axis)]
            views = [gpu.cupy.broadcast_to(gpu.put(x), SHAPE) for x in inputs]
            full = [np.broadcast_to(x, SHAPE).copy() for x in inputs]
            self.check(gpu, name, gpu(name, *views, axis), full, axis)


@pytest.mark.parametrize("name", NAMES)
class TestShapesAndDtypes:
    @pytest.mark.parametrize(
        "dtype", ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
    )
    def test_integers_are_computed_in_float64(self, gpu, name, dtype):
        x = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, (30, 40)).astype(dtype)
        if dtype != "bool":
            x[3, 3], x[4, 4:6] = np.iinfo(dtype).min, np.iinfo(dtype).max
        for axis in (0, 1):
            gpu.check(name, gpu(name, x, axis), x, axis)

    @pytest.mark.parametrize("dtype", ["float32", "float64", *HALVES])
    @pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4), (0, 0)])
    def test_empty(self, gpu, name, dtype, shape):
        x = np.zeros(shape, oracles.dtype_of(dtype))
        for axis in [0, -1, None, *([(0, 1)] if x.ndim > 1 else [])]:
            got = gpu(name, x, axis)
            assert got.dtype == x.dtype
            if name == "logsumexp":
                expected = np.full(x.sum(axis=axis).shape, -np.inf, x.dtype)
                np.testing.assert_array_equal(got, expected)
                assert gpu(name, x, axis, keepdims=True).shape == x.sum(axis=axis, keepdims=True).shape
            else:
                assert got.shape == shape

    @pytest.mark.parametrize("axis", [-1, 0, None])
    def test_numbers(self, gpu, name, axis):
        got = gpu(name, np.array(3, "float32"), axis)
        assert got.shape == ()
        assert got == {"softmax": 1, "log_softmax": 0, "logsumexp": 3}[name]

    def test_slices_of_one_entry(self, gpu, name):
        for shape, axis in [((40, 1), 1), ((1, 40), 0), ((5, 1, 8), 1), ((1,), 0), ((1, 1), None)]:
            x = oracles.normal(shape, "float32", scale=1e3)
            gpu.check(name, gpu(name, x, axis), x, axis)

    def test_axes_of_length_one_around(self, gpu, name):
        for n in (1, 5, 40, 4100, 9000):
            rows = oracles.normal((3, n), "float32")
            for shape, axis in [((3, 1, n, 1), 2), ((1, 3, n), -1), ((3, n, 1, 1), 1), ((3, n), 1)]:
                x = rows.reshape(shape)
                gpu.check(name, gpu(name, x, axis), x, axis)

    @pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), None])
    def test_masks_broadcast(self, gpu, name, axis):
        rng = np.random.default_rng(3)
        masks = [rng.random(shape) < 0.6 for shape in [(4, 6, 5), (5,), (6, 1), (4, 1, 1), ()]]
        for dtype in ("float32", "bfloat16"):
            x = oracles.normal((4, 6, 5), dtype)
            for where in masks:
                got = gpu(name, x, axis, where=where)
                gpu.check(name, got, x, axis, where)
                oracles.assert_same_bits(gpu(name, x, axis, where=where.tolist()), got)


class TestLogsumexp:
    def test_infinity_among_large_numbers(self, gpu):
        """Whose exponentials are infinite too, where +inf is not subtracted."""
        for dtype, n in itertools.product(("float32", "float64", "float16"), (2, 40, 1500, 20_000)):
            x = np.full((2, n), 1e4, dtype)
            x[0, n // 2] = np.inf
            assert gpu("logsumexp", x)[0] == np.inf
            assert gpu("logsumexp", np.ascontiguousarray(x.T), 0)[0] == np.inf

    @pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), None])
    def test_shape_sign_and_out(self, gpu, axis):
        for dtype in ("float32", "float16", "float64"):
            x = oracles.normal((3, 4, 5), dtype)
            x[0, 0, 0], x[1], x[:, 2] = np.nan, -np.inf, np.inf
            lse = gpu("logsumexp", x, axis)
            gpu.check("logsumexp", lse, x, axis)
            for keepdims in (False, True):
                shape = np.max(x, axis=axis, keepdims=keepdims).shape
                got, sign = gpu("logsumexp", x, axis, keepdims=keepdims, return_sign=True)
                oracles.assert_same_bits(got, lse.reshape(shape))
                expected = np.where(np.isnan(got), got, (got > -np.inf).astype(dtype))
                np.testing.assert_array_equal(sign, expected)
                assert sign.dtype == x.dtype
                out = gpu.put(np.full(shape, 7, dtype))
                assert fastsoftmax.logsumexp(gpu.put(x), axis, keepdims=keepdims, out=out) is out
                oracles.assert_same_bits(gpu.get(out), got)

    @pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), None])
    @pytest.mark.parametrize("keepdims", [False, True])
    def test_factors(self, gpu, axis, keepdims):
        """Computed by CuPy's own functions, as the reference has it."""
        x = oracles.normal((3, 4, 5), "float64", offset=2000.0)
        for shape in [(3, 4, 5), (5,), (4, 1), (2, 3, 4, 5), ()]:
            b = np.random.default_rng(1).normal(size=shape)
            b.flat[0] = 0 if b.size > 1 else -2
            for where in (None, np.arange(5) != 2):
                given = {"b": b, "keepdims": keepdims, "return_sign": True, "where": where}
                expected = fastsoftmax.logsumexp(x, axis, **given)
                for got, same in zip(gpu("logsumexp", x, axis, **given), expected, strict=True):
                    np.testing.assert_allclose(got, same, rtol=1e-13)
                    assert got.shape == np.shape(same)

    def test_factors_keep_the_dtype(self, gpu):
        for dtype in ("float32", "float16", "bfloat16"):
            x = oracles.normal((6, 50), dtype)
            b = np.linspace(-1, 2, 50).astype(x.dtype)
            got = gpu("logsumexp", x, b=b)
            assert got.dtype == x.dtype
            expected = fastsoftmax.logsumexp(x.astype("f8"), b=b.astype("f8"))
            np.testing.assert_allclose(got.astype("f8"), expected, rtol=2 * float(oracles.finfo(x.dtype).eps))
