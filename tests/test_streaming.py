"""Outputs beyond the last-level cache are written past it: to the same bits, and nowhere else."""

import numpy as np
import pytest

import fastsoftmax
import oracles
from fastsoftmax import _native
from oracles import DTYPES, HALVES

# Around every vector width, the group of short rows, the size from which a row stands alone, and (with NumPy's 16-byte
# alignment, and odd lengths) every number of elements before the first aligned vector.
SIZES = [1, 10, 16, 33, 64, 65, 100, 127, 128, 129, 255, 1000, 1001, 2047, 2048, 2049, 32_769]
FUNCTIONS = ["softmax", "log_softmax", "cross_entropy_grad"]


@pytest.fixture
def no_cache():
    _native._set_cache_size(0)
    yield
    _native._set_cache_size(-1)


def compute(function, x, axis, out):
    if function == "cross_entropy_grad":
        labels = np.arange(x.size // x.shape[axis]) % x.shape[axis]
        labels[::3] = -100
        options = {"label_smoothing": 0.1} if x.shape[axis] % 2 else {}
        fastsoftmax.cross_entropy_grad(x, labels, axis, out=out, **options)
    else:
        getattr(fastsoftmax, function)(x, axis, out=out)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [*DTYPES, *HALVES])
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.usefixtures("no_cache")
def test_same_bits_and_nothing_beside(function, dtype, layout):
    for n in SIZES:
        x, axis = oracles.arrange(oracles.normal((1 if n > 10_000 else 21, n), dtype, seed=n), layout)
        expected = np.empty_like(x)
        _native._set_cache_size(-1)
        compute(function, x, axis, expected)
        _native._set_cache_size(0)
        for offset in (0, 1, 7):
            room = np.full(x.size + 64, 7, x.dtype)
            out = room[offset : offset + x.size].reshape(x.shape)
            compute(function, x, axis, out)
            oracles.assert_same_bits(out, expected)
            assert np.all(room[:offset] == 7)
            assert np.all(room[offset + x.size :] == 7)
        inplace = x.copy()
        compute(function, inplace, axis, inplace)
        oracles.assert_same_bits(inplace, expected)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2048, 5000, 40_000])
@pytest.mark.usefixtures("no_cache")
def test_in_place_far_from_zero(function, dtype, n):
    """Where x - m is taken before the exponential, it matters which m that is."""
    x = (oracles.normal((5, n), dtype) + (290 if dtype == "float32" else 2080)).astype(dtype)
    x[:, :600] -= 10  # the maximum comes late
    x[3] -= x[3].max() - (255 if dtype == "float32" else 2047)  # none is shifted
    x[4] -= x[4].max() - (257 if dtype == "float32" else 2049)  # its beginning alone is not
    _native._set_cache_size(-1)
    expected = np.empty_like(x)
    compute(function, x, 1, expected)
    for cache_size in (-1, 0):
        _native._set_cache_size(cache_size)
        fresh, inplace = np.empty_like(x), x.copy()
        compute(function, x, 1, fresh)
        compute(function, inplace, 1, inplace)
        oracles.assert_same_bits(fresh, expected)
        oracles.assert_same_bits(inplace, expected)


@pytest.mark.parametrize(
    ("dtype", "late", "low", "factor"), [("float32", 40, -70, 1e20), ("float64", 300, -455, 1e100)]
)
@pytest.mark.usefixtures("no_cache")
def test_in_place_below_what_a_softmax_shows(dtype, late, low, factor):
    """A factor above 1 shows what is 0 in a softmax: what is cut off must not depend on a guessed maximum."""
    x = np.zeros((2, 5000), dtype)
    x[:, 4000] = late
    x[:, 100] = low + np.arange(2)
    results = []
    for cache_size in (-1, 0):
        _native._set_cache_size(cache_size)
        fresh, inplace = np.empty_like(x), x.copy()
        for out, source in ((fresh, x), (inplace, inplace)):
            fastsoftmax.cross_entropy_grad(source, [0, 0], reduction="sum", grad_output=factor, out=out)
            results.append(out)
    for got in results[1:]:
        oracles.assert_same_bits(got, results[0])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_in_place_between_two_exponents(function):
    """Where x / log 2 comes out half way between two integers, it must not matter which maximum is added to it."""
    log2e = np.float32(1 / np.log(2))
    halves = np.arange(-330, -280, dtype="float32") + np.float32(0.5)
    near = (halves / log2e)[:, np.newaxis] + np.spacing(np.float32(200)) * np.arange(-3, 4, dtype="float32")
    ties = near[near * log2e == halves[:, np.newaxis]]
    assert len(ties) >= 20
    for maximum in np.float32(-192) - np.arange(6, dtype="float32") * np.float32(0.7):
        x = np.full((1, 5000), -215, "float32")
        x[0, 1000 : 1000 + len(ties)] = ties
        x[0, :512] = -196.5  # what stands for the maximum in memory that is read once
        x[0, 4000] = maximum
        fresh, inplace = np.empty_like(x), x.copy()
        compute(function, x, 1, fresh)
        compute(function, inplace, 1, inplace)
        oracles.assert_same_bits(inplace, fresh)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [*DTYPES, *HALVES])
@pytest.mark.parametrize("n", [1, 10, 16, 17, 64, 65, 100, 2049, 5000])
@pytest.mark.usefixtures("no_cache")
def test_columns_of_whole_cache_lines(function, dtype, n):
    """Only those are written past the caches, from the first one on; beside them there are vectors not full."""
    slices, width = (410, 416) if n <= 100 else (90, 96)
    x = oracles.normal((n, slices), dtype, seed=n)
    expected = np.empty_like(x)
    _native._set_cache_size(-1)
    compute(function, x, 0, expected)
    memory = np.empty(n * width + 128, x.dtype)
    line = -memory.ctypes.data % 64 // x.itemsize
    for cache_size in (0, -1):
        _native._set_cache_size(cache_size)
        for offset in (0, 1, 5):
            memory[...] = 7
            start = line + offset
            room = memory[start : start + n * width].reshape(n, width)
            out = room[:, :slices]
            compute(function, x, 0, out)
            oracles.assert_same_bits(np.ascontiguousarray(out), expected)
            assert np.all(memory[:start] == 7)
            assert np.all(room[:, slices:] == 7)
            assert np.all(memory[start + n * width :] == 7)


@pytest.mark.parametrize("axis_before", [False, True])
@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize(
    ("n", "slices", "dtype"),
    [(20, slices, dtype) for slices in (255, 256, 257, 300, 512, 1000) for dtype in ("float32", "float16")]
    + [(n, 300, "float32") for n in (600, 1100, 2040, 4000)],  # whose groups are narrower
)
def test_columns_that_begin_within_a_cache_line(n, slices, dtype, n_threads, axis_before):
    """Units of work begin at lines: none is missing and none is done twice, wherever the first one is."""
    width = (slices + 31) // 32 * 32
    shape = (3, n, slices) if axis_before else (n, slices)
    x = oracles.normal(shape, dtype)
    expected = fastsoftmax.softmax(x, -2, n_threads=1)
    memory = np.empty(x.size // slices * width + 64, dtype)
    for offset in range(33) if n == 20 else (1, 15):
        start = -memory.ctypes.data % 64 // x.itemsize + offset
        room = memory[start : start + x.size // slices * width].reshape((*shape[:-1], width))
        room[...] = 7
        out = room[..., :slices]
        fastsoftmax.softmax(x, -2, out=out, n_threads=n_threads)
        oracles.assert_same_bits(np.ascontiguousarray(out), expected)
        assert np.all(room[..., slices:] == 7)
        np.copyto(out, x)
        oracles.assert_same_bits(fastsoftmax.logsumexp(out, -2), fastsoftmax.logsumexp(x, -2))
        fastsoftmax.softmax(out, -2, out=out, n_threads=n_threads)
        oracles.assert_same_bits(np.ascontiguousarray(out), expected)


@pytest.mark.usefixtures("no_cache")
def test_threads_see_all_that_was_written():
    x = oracles.normal((64, 40_000), "float32")
    for _ in range(20):
        oracles.assert_same_bits(fastsoftmax.softmax(x, n_threads=2), fastsoftmax.softmax(x, n_threads=1))
