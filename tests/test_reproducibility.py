"""A slice's result has the same bits whatever is around it, and however the work is split.

Two slices in one layout agree to the bit; across layouts (rows and columns) nothing is promised.
"""

import functools

import numpy as np
import pytest

import fastsoftmax
import oracles
from oracles import DTYPES, HALVES, NAMES

pytestmark = pytest.mark.usefixtures("backend")

OPERATIONS = [*NAMES, "loss", "gradient", "loss with gradient"]
THREADS = [1, 2, 64]
DTYPES = [*DTYPES, *HALVES]
# Short rows, rows, rows of several blocks; around the widths of vectors.
SIZES = [1, 2, 3, 7, 10, 16, 17, 31, 33, 64, 65, 100, 257, 1000, 4097]
FEWER_SIZES = [1, 3, 10, 17, 40, 65, 257, 4097]


def compute(operation, x, axis, labels=None, **kwargs):
    """The results of every slice by itself, as a list of arrays."""
    if operation in NAMES:
        got = getattr(fastsoftmax, operation)(x, axis=axis, **kwargs)
    else:
        function = {
            "loss": fastsoftmax.cross_entropy,
            "gradient": fastsoftmax.cross_entropy_grad,
            "loss with gradient": fastsoftmax.cross_entropy_with_grad,
        }[operation]
        kwargs.setdefault("reduction", "none")
        got = function(x, labels, axis, **kwargs)
    return list(got) if isinstance(got, tuple) else [got]


def labels_of(batch, n):
    return np.random.default_rng(n).integers(0, n, batch)


def assert_same(got, expected):
    for one, other in zip(got, expected, strict=True):
        oracles.assert_same_bits(one, other)


def parts(slices, n):
    """Slices of a batch: every size up to all, and every start in a register block of 16."""
    sizes = range(1, slices) if n <= 40 else [1, 2, 3, 5, 8, 15, 16, 17, 33, slices - 1]
    starts = range(1, 18) if n <= 40 else [1, 2, 4, 11, 16]
    cuts = [(0, size) for size in sizes if size < slices]
    cuts += [(start, start + size) for start in starts for size in (1, 18)]
    cuts += [(start, slices) for start in starts if start < slices]
    return [slice(*cut) for cut in cuts if cut[1] <= slices]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_rows_of_any_batch(operation, dtype, n):
    slices = 70 if n <= 100 else 19
    x, labels = oracles.normal((slices, n), dtype), labels_of(slices, n)
    expected = compute(operation, x, -1, labels)
    for part in parts(slices, n):
        got = compute(operation, x[part].copy(), -1, labels[part])
        assert_same(got, [e[part] for e in expected])
    if operation in NAMES:
        for i in (0, slices - 1):
            assert_same(compute(operation, x[i], -1), [e[i] for e in expected])


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_columns_of_any_number(operation, dtype, n):
    """Copied they have other strides; as a view of the whole the same ones, and may be alone."""
    slices = 70 if n <= 100 else 19
    x, labels = oracles.normal((n, slices), dtype), labels_of(slices, n)
    expected = compute(operation, x, 0, labels)
    for part in parts(slices, n):
        views = [x[:, part]]
        if part.stop - part.start > 1:  # a lone column, copied, is a row
            views.append(x[:, part].copy())
        for view in views:
            got = compute(operation, view, 0, labels[part])
            assert_same(got, [e[..., part] for e in expected])


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 10, 33, 100, 1000])
def test_a_middle_axis_is_columns(operation, dtype, n):
    x = oracles.normal((3, n, 21), dtype)
    labels = labels_of((3, 21), n)
    expected = compute(operation, x, 1, labels)
    for i in range(3):
        assert_same(compute(operation, x[i], 0, labels[i]), [e[i] for e in expected])
    assert_same(compute(operation, x[::-1], 1, labels[::-1]), [e[::-1] for e in expected])


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("n", FEWER_SIZES)
def test_alignment(operation, dtype, layout, n):
    x, axis = oracles.arrange(oracles.normal((5, n), dtype), layout)
    labels = labels_of(5, n)
    expected = compute(operation, x, axis, labels)
    for offset in [*range(0, 64, x.itemsize), 1, 3]:
        buffer = bytearray(offset) + bytearray(x.tobytes())
        moved = np.frombuffer(buffer, x.dtype, offset=offset).reshape(x.shape)
        assert_same(compute(operation, moved, axis, labels), expected)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", FEWER_SIZES)
def test_distance_between_rows(operation, dtype, n):
    x, labels = oracles.normal((20, n), dtype), labels_of(20, n)
    expected = compute(operation, x, -1, labels)
    for gap in (1, 5, 16):
        wide = np.full((20, n + gap), 100, x.dtype)
        wide[:, :n] = x
        assert_same(compute(operation, wide[:, :n], -1, labels), expected)
    assert_same(compute(operation, x[::-1], -1, labels[::-1]), [e[::-1] for e in expected])


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o != "loss"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("n", [*FEWER_SIZES, 40_000])
def test_out_given_or_not_and_in_place(operation, dtype, layout, n):
    x, axis = oracles.arrange(oracles.normal((9, n), dtype), layout)
    labels = labels_of(9, n)
    expected = compute(operation, x, axis, labels)
    shape = expected[-1].shape
    outs = [np.empty(shape, x.dtype), np.empty(shape, x.dtype, order="F")]
    outs.append(np.empty((*shape[:-1], 2 * shape[-1]), x.dtype)[..., ::2])
    outs.append(np.frombuffer(bytearray(x.nbytes + 7), "u1", x.nbytes, 7).view(x.dtype))
    outs[-1] = outs[-1][: np.prod(shape)].reshape(shape)
    for out in outs:
        assert_same(compute(operation, x, axis, labels, out=out), expected)
    if operation != "logsumexp":
        inplace = x.copy()
        assert_same(compute(operation, inplace, axis, labels, out=inplace), expected)
        overlapping = np.concatenate([x.ravel(), x.ravel()[:1]])
        source, out = overlapping[:-1].reshape(x.shape), overlapping[1:].reshape(x.shape)
        assert_same(compute(operation, source, axis, labels, out=out), expected)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("n", FEWER_SIZES)
def test_neighbours(operation, dtype, layout, n):
    """What the data decide (NaN, the shift of large logits) is decided slice by slice."""
    slices = 40 if n <= 100 else 20  # a group of columns, or a register block of rows, and more
    rows, labels = oracles.normal((slices, n), dtype), labels_of(slices, n)
    x, axis = oracles.arrange(rows, layout)
    expected = compute(operation, x, axis, labels)
    kept = np.arange(slices) % 3 == 1
    for neighbour in (np.nan, np.inf, -np.inf, 300, -60_000):
        rows[~kept] = neighbour
        got = compute(operation, oracles.arrange(rows, layout)[0], axis, labels)
        index = kept if layout == "rows" else (..., kept)
        assert_same([g[index] for g in got], [e[index] for e in expected])


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((20_000, 10), 1),
        ((5000, 37), 1),
        ((300, 1000), 1),
        ((1000, 300), 0),
        ((100_000, 3), 0),
        ((4, 100, 700), 1),
        ((2, 100_001), 1),
    ],
)
def test_threads(operation, dtype, shape, axis):
    x = oracles.normal(shape, dtype)
    labels = labels_of(np.delete(shape, axis), shape[axis])
    expected = compute(operation, x, axis, labels, n_threads=1)
    for n_threads in [*THREADS[1:], None]:
        assert_same(compute(operation, x, axis, labels, n_threads=n_threads), expected)


@functools.cache
def nine_million_numbers():
    return oracles.normal((3, 3_000_000), "float32", scale=2.0)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_slices_that_are_split_among_threads(operation, dtype):
    """Fewer slices than threads: one alone and three of three million entries."""
    x = nine_million_numbers().astype(oracles.dtype_of(dtype))
    labels = labels_of(3, 3_000_000)
    expected = compute(operation, x, -1, labels, n_threads=1)
    assert_same(compute(operation, x, -1, labels), expected)
    for n_threads in (1, 2):
        got = compute(operation, x[1:2], -1, labels[1:2], n_threads=n_threads)
        assert_same(got, [e[1:2] for e in expected])
    # In place, which writes the block that another thread may still have to read.
    if operation != "loss":
        kwargs = {"out": x} if operation != "logsumexp" else {}
        assert_same(compute(operation, x, -1, labels, **kwargs), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("shape", "axis"), [((100_003, 10), 1), ((3001, 257), 1), ((257, 3001), 0), ((3, 500_000), 1)])
def test_reduced_losses(dtype, reduction, shape, axis):
    x = oracles.normal(shape, dtype)
    labels = labels_of(np.delete(shape, axis), shape[axis])
    labels[::5] = -100
    for operation in ("loss", "loss with gradient"):
        expected = compute(operation, x, axis, labels, reduction=reduction, n_threads=1)
        for n_threads in [*THREADS, None, None]:
            kwargs = {"reduction": reduction, "n_threads": n_threads}
            assert_same(compute(operation, x, axis, labels, **kwargs), expected)


def test_processes_and_their_settings(run_python):
    """From run to run, and whatever number of threads the environment asks for."""
    code = """
        import hashlib
        import numpy as np
        import fastsoftmax

        digest = hashlib.sha256()
        for shape in [(20_000, 10), (3000, 100), (70, 5000), (2, 300_000)]:
            for dtype in ("float16", "float32", "float64"):
                x = np.random.default_rng(0).normal(size=shape).astype(dtype)
                labels = np.arange(shape[0]) % shape[1]
                loss, grad = fastsoftmax.cross_entropy_with_grad(x, labels)
                for axis in (0, 1):
                    digest.update(fastsoftmax.softmax(x, axis=axis).tobytes())
                    digest.update(fastsoftmax.logsumexp(x, axis=axis).tobytes())
                digest.update(loss.tobytes())
                digest.update(grad.tobytes())
        print(digest.hexdigest())
    """
    settings = [{"OMP_NUM_THREADS": n} for n in (1, 2, None)]
    settings.append({"OMP_NUM_THREADS": 2, "OMP_DYNAMIC": "true", "OMP_SCHEDULE": "dynamic"})
    assert len({run_python(code, **variables).stdout for variables in settings}) == 1


@pytest.mark.parametrize("operation", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_where_of_any_batch(operation, dtype):
    x = oracles.normal((40, 33), dtype)
    where = np.random.default_rng(0).random(x.shape) < 0.7
    expected = compute(operation, x, -1, where=where, n_threads=1)
    for i in range(40):
        part = slice(i, i + 1 + i % 7)
        got = compute(operation, x[part], -1, where=where[part])
        assert_same(got, [e[part] for e in expected])
