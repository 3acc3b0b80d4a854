"""A slice's result has the same bits whatever is around it, and however the work is split: each factor swept alone.

Two slices in one layout agree to the bit; across layouts (rows and columns) and instruction sets nothing is promised.
The factors in each other's company are test_reproducibility_pairs.py's; the instruction set is one factor more, which
.ci/run adds by running both files under each FASTSOFTMAX_ISA.
"""

import functools

import numpy as np
import pytest

import oracles
from oracles import NAMES
from slicewise import DTYPES, OPERATIONS, assert_same, compute, labels_of, placed

pytestmark = pytest.mark.usefixtures("backend")

THREADS = [1, 2, 3, 4, 64]
# Rows that go transposed (20), short rows, rows, rows of several blocks; around the widths of vectors.
SIZES = [1, 2, 3, 7, 10, 16, 17, 20, 21, 31, 33, 64, 65, 100, 257, 1000, 4097]
FEWER_SIZES = [1, 3, 10, 17, 40, 65, 257, 4097]
# Sizes whose batches are of every size up to 257: in rows both traversals, in columns a group and a tail.
THOROUGH = [10, 33, 65]


def parts(n):
    """The number of slices of a batch, and parts of it: of every size, and every slice alone, or some of them."""
    if n in THOROUGH:
        slices = 257
        cuts = [(0, size) for size in range(1, slices)]
        starts = range(slices)
    else:
        slices = 70 if n <= 100 else 19
        cuts = [(0, size) for size in (1, 2, 3, 5, 8, 15, 16, 17, 33, 40, 63, 64, 65, slices - 1)]
        starts = [*range(1, 18), slices - 1]
    cuts += [(start, start + 1) for start in starts]
    # From every place in a register block, to beyond the next block and to the end.
    cuts += [(start, end) for start in range(1, 18) for end in (start + 18, slices)]
    return slices, [slice(*cut) for cut in cuts if cut[1] <= slices]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_rows_of_any_batch(operation, dtype, n):
    slices, cuts = parts(n)
    x, labels = oracles.normal((slices, n), dtype), labels_of(slices, n)
    expected = compute(operation, x, -1, labels)
    for part in cuts:
        got = compute(operation, x[part], -1, labels[part])
        assert_same(got, [e[part] for e in expected])
    if operation in NAMES:
        for i in (0, slices - 1):
            assert_same(compute(operation, x[i], -1), [e[i] for e in expected])


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_columns_of_any_number(operation, dtype, n):
    """Copied they have other strides; as a view of the whole the same ones, and may be alone."""
    slices, cuts = parts(n)
    x, labels = oracles.normal((n, slices), dtype), labels_of(slices, n)
    expected = compute(operation, x, 0, labels)
    for i, part in enumerate(cuts):
        views = [x[:, part]]
        if part.stop - part.start > 1:  # a lone column, copied, is a row
            views.append(x[:, part].copy())
        if n in THOROUGH:
            views = [views[i % len(views)]]  # in turn: there are enough parts for both
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
def test_tails(operation, dtype, layout):
    """Whatever part of a vector, or of a group of them, is left over: what lies behind it has no influence."""
    tails = [*range(1, 70), 127, 129, 1023, 1025, 4095, 4097]
    for tail in tails:
        # In rows the tail is of the slices themselves, in columns of their number.
        shape, axis = ((3, tail), -1) if layout == "rows" else ((7, max(tail, 2)), 0)
        x = oracles.normal(shape, dtype, seed=tail)
        labels = labels_of(np.delete(shape, axis), shape[axis])
        expected = compute(operation, x, axis, labels)
        for fill in (np.nan, 100):
            assert_same(compute(operation, placed(x, gap=17, fill=fill)[0], axis, labels), expected)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("n", FEWER_SIZES)
def test_alignment(operation, dtype, layout, n):
    """Of the input, of the output, and of both in place: every entry of a cache line, and no whole entry."""
    x, axis = oracles.arrange(oracles.normal((5, n), dtype), layout)
    labels = labels_of(5, n)
    expected = compute(operation, x, axis, labels)
    shape = expected[-1].shape if operation != "loss" else None
    for offset in range(64 // x.itemsize):
        moved = placed(x, offset)[0]
        assert_same(compute(operation, moved, axis, labels), expected)
        if shape is not None:
            out = placed(np.empty((1, np.prod(shape)), x.dtype), offset)[0].reshape(shape)
            assert_same(compute(operation, x, axis, labels, out=out), expected)
        if shape == x.shape:
            assert_same(compute(operation, moved, axis, labels, out=moved), expected)
    for odd in (1, 3):
        moved = np.frombuffer(bytearray(odd) + bytearray(x.tobytes()), x.dtype, offset=odd).reshape(x.shape)
        assert_same(compute(operation, moved, axis, labels), expected)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", FEWER_SIZES)
def test_distance_between_rows(operation, dtype, n):
    x, labels = oracles.normal((20, n), dtype), labels_of(20, n)
    expected = compute(operation, x, -1, labels)
    for gap in (1, 5, 16):
        assert_same(compute(operation, placed(x, gap=gap, fill=100)[0], -1, labels), expected)
    assert_same(compute(operation, x[::-1], -1, labels[::-1]), [e[::-1] for e in expected])


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o != "loss"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("n", [*FEWER_SIZES, 40_000])
def test_out_given_or_not_and_in_place(operation, dtype, layout, n):
    slices = 9 if n < 40_000 else 2
    x, axis = oracles.arrange(oracles.normal((slices, n), dtype), layout)
    labels = labels_of(slices, n)
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
        # Work for four threads: 2^16 entries and more.
        ((7000, 10), 1),
        ((2000, 37), 1),
        ((77, 1000), 1),
        ((300, 257), 0),
        ((30_000, 3), 0),  # fewer groups than threads: each is split
        ((4, 60, 300), 1),
        ((2, 65_537), 1),
    ],
)
def test_threads(operation, dtype, shape, axis):
    x = oracles.normal(shape, dtype)
    labels = labels_of(np.delete(shape, axis), shape[axis])
    expected = compute(operation, x, axis, labels, n_threads=1)
    for n_threads in [*THREADS[1:], None]:
        assert_same(compute(operation, x, axis, labels, n_threads=n_threads), expected)


@functools.cache
def three_long_rows():
    """Of more than 16 pieces each, whose partial results then stand in memory that is asked for."""
    return oracles.normal((3, 600_001), "float32", scale=2.0)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_slices_that_are_split_among_threads(operation, dtype):
    """Fewer slices than threads: one alone and three."""
    x = three_long_rows().astype(oracles.dtype_of(dtype))
    labels = labels_of(*x.shape)
    expected = compute(operation, x, -1, labels, n_threads=1)
    assert_same(compute(operation, x, -1, labels), expected)
    for n_threads in THREADS[:4]:
        got = compute(operation, x[1:2], -1, labels[1:2], n_threads=n_threads)
        assert_same(got, [e[1:2] for e in expected])
    # In place, which writes the block that another thread may still have to read.
    if operation not in ("loss", "logsumexp"):
        alone = x[1:2].copy()
        assert_same(compute(operation, alone, -1, labels[1:2], out=alone), [e[1:2] for e in expected])
        assert_same(compute(operation, x, -1, labels, out=x), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("shape", "axis"), [((30_003, 10), 1), ((3001, 257), 1), ((257, 3001), 0), ((3, 70_000), 1)])
def test_reduced_losses(dtype, reduction, shape, axis):
    x = oracles.normal(shape, dtype)
    labels = labels_of(np.delete(shape, axis), shape[axis])
    labels[::5] = -100
    for operation in ("loss", "loss with gradient"):
        expected = compute(operation, x, axis, labels, reduction=reduction, n_threads=1)
        for n_threads in [*THREADS, None]:
            kwargs = {"reduction": reduction, "n_threads": n_threads}
            assert_same(compute(operation, x, axis, labels, **kwargs), expected)


@pytest.mark.parametrize("dtypes", [["float32"], ["float16", "float64"]], ids="-".join)
def test_processes_and_their_settings(run_python, dtypes):
    """From run to run, and whatever number of threads the environment asks for."""
    code = """
        import hashlib, sys
        import numpy as np
        import fastsoftmax

        digest = hashlib.sha256()
        for shape in [(20_000, 10), (3000, 100), (70, 5000), (2, 300_000)]:
            for dtype in sys.argv[1:]:
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
    assert len({run_python(code, *dtypes, **variables).stdout for variables in settings}) == 1


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
