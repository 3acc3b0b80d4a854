"""Every memory layout, axis and output: the same answers, and inputs left as they were."""

import array

import numpy as np
import pytest

import fastsoftmax
import oracles
from fastsoftmax._layout import arrange, normalize_axes, plain_slices
from oracles import EXACT_DTYPES, NAMES

pytestmark = pytest.mark.usefixtures("backend")

AXES = [0, 1, 2, -1, (0, 2), (-1, 0), None]


def _sliced(x):
    # NaN in the gaps: an entry read from them would show.
    big = np.full([2 * n + 1 for n in x.shape], np.nan, x.dtype)
    view = big[tuple(slice(1, None, 2) for _ in x.shape)]
    view[...] = x
    return view


def _record(x):
    # Strides of itemsize + 1 bytes: most entries are unaligned.
    records = np.zeros(x.shape, [("gap", "u1"), ("value", x.dtype)])
    records["value"] = x
    return records["value"]


def _at_offset(x, offset):
    buffer = bytearray(offset) + bytearray(x.tobytes())
    return np.frombuffer(buffer, x.dtype, offset=offset).reshape(x.shape)


def _read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


# Each makes an equal array of another layout; all but the last two are writable too.
LAYOUTS = {
    "C": lambda x: x.copy(),
    "Fortran": lambda x: np.asfortranarray(x),
    "outer axes swapped": lambda x: x.swapaxes(0, -1).copy().swapaxes(0, -1),
    "inner axes swapped": lambda x: x.swapaxes(-2, -1).copy().swapaxes(-2, -1),
    "negative strides": lambda x: np.flip(np.flip(x).copy()),
    "rows from last to first": lambda x: x[::-1].copy()[::-1],
    "sliced": _sliced,
    "part of each row": lambda x: np.concatenate([x, x], -1)[..., : x.shape[-1]],
    "unaligned": lambda x: _at_offset(x, 1),
    "itemsize-aligned": lambda x: _at_offset(x, x.itemsize),
    "record field": _record,
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "read-only": _read_only,
}
WRITABLE = [name for name in LAYOUTS if name not in ("byte-swapped", "read-only")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float16", *EXACT_DTYPES])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axis", AXES)
def test_input_layouts(name, dtype, layout, axis):
    original = oracles.normal((5, 17, 19), dtype)
    x = LAYOUTS[layout](original)
    got = getattr(fastsoftmax, name)(x, axis=axis)
    oracles.check(name, got, original, axis)
    np.testing.assert_array_equal(x, original)  # the input is as it was
    if name != "logsumexp":
        assert not np.shares_memory(got, x)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(5, 17, 19), (5, 17, 1), (11,), (1, 1), (0, 3)])
def test_what_is_plain(layout, shape):
    """The short way has the sizes that the general one finds, for the arrays that this leaves as they are."""
    if len(shape) == 1 and "axes swapped" in layout:
        pytest.skip("there is one axis")
    x = LAYOUTS[layout](oracles.normal(shape, "float32"))
    plain = []
    for axis in range(-x.ndim, x.ndim):
        slices = plain_slices(x, axis)
        if slices is not None:
            source, order = arrange(x, normalize_axes(axis, x.ndim))
            assert source is x
            assert order.view(x).shape == slices
            plain.append(axis)
    behaved = layout not in ("unaligned", "record field", "byte-swapped") and x.flags.c_contiguous and x.size > 0
    assert bool(plain) == behaved
    for axis in (x.ndim, -x.ndim - 1, None, (0,), 1.0):
        assert plain_slices(x, axis) is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(11,), (4, 9), (3, 4, 5), (2, 3, 4, 5), (2, 3, 2, 3, 4)])
def test_every_axis_of_every_rank(name, shape):
    x = oracles.normal(shape, "float32")
    rank = len(shape)
    single = range(-rank, rank)
    pairs = [(a, b) for a in range(rank) for b in range(-rank, rank) if a != b % rank]
    for axis in [*single, *pairs, tuple(range(rank)), tuple(range(rank // 2, rank)), None]:
        oracles.check(name, getattr(fastsoftmax, name)(x, axis=axis), x, axis)
    oracles.check(name, getattr(fastsoftmax, name)(x, axis=np.int64(0)), x, 0)


def test_no_axis_at_all_makes_every_entry_a_slice():
    x = oracles.normal((3, 4), "float64")
    np.testing.assert_array_equal(fastsoftmax.softmax(x, axis=()), np.ones((3, 4)))
    np.testing.assert_array_equal(fastsoftmax.log_softmax(x, axis=()), np.zeros((3, 4)))
    np.testing.assert_array_equal(fastsoftmax.logsumexp(x, axis=()), x)


def test_the_last_axis_is_the_default():
    x = oracles.normal((3, 4, 5), "float32")
    for name in NAMES:
        oracles.check(name, getattr(fastsoftmax, name)(x), x, -1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("axis", [0, 1, 2, (0, 1), None])
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 9, 1), (1, 1, 21), (4, 9, 1), (1, 9, 21)])
def test_broadcast_input(name, axis, shape):
    small = oracles.normal(shape, "float32")
    x = np.broadcast_to(small, (4, 9, 21))  # zero strides
    oracles.check(name, getattr(fastsoftmax, name)(x, axis=axis), x.copy(), axis)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [1, 5, 40, 4100])
def test_axes_of_length_one_around(name, n):
    rows = oracles.normal((3, n), "float32")
    for shape, axis in [((3, 1, n, 1), 2), ((1, 3, n), -1), ((3, n, 1, 1), 1), ((3, n), 1)]:
        got = getattr(fastsoftmax, name)(rows.reshape(shape), axis=axis)
        oracles.check(name, got, rows.reshape(shape), axis)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8"])
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4), (0, 0)])
def test_empty(dtype, shape):
    x = np.zeros(shape, dtype)
    expected = np.dtype("float64" if dtype == "int8" else dtype)
    for axis in [*range(-len(shape), len(shape)), None]:
        for name in ("softmax", "log_softmax"):
            got = getattr(fastsoftmax, name)(x, axis=axis)
            assert (got.shape, got.dtype) == (shape, expected)
        # Over an empty axis a sum of nothing, -inf; of an empty batch nothing at all.
        lse = fastsoftmax.logsumexp(x, axis=axis)
        sums = np.sum(x, axis=axis)
        np.testing.assert_array_equal(lse, np.full(np.shape(sums), -np.inf))
        assert lse.dtype == expected
        assert fastsoftmax.logsumexp(x, axis=axis, keepdims=True).ndim == len(shape)
    out = np.empty(shape, expected)
    assert fastsoftmax.softmax(x, axis=0, out=out) is out


@pytest.mark.parametrize("axis", [-1, 0, None])
@pytest.mark.parametrize("value", [3.0, 7, True, np.float32(2.5), np.float16(1), np.array(4.0)])
def test_zero_dimensional(value, axis):
    dtype = np.asarray(value).dtype
    dtype = dtype if dtype.kind == "f" else np.dtype("float64")
    for name, expected in [("softmax", 1), ("log_softmax", 0), ("logsumexp", float(value))]:
        got = getattr(fastsoftmax, name)(value, axis=axis)
        assert type(got) is dtype.type
        assert got == expected


def test_zero_dimensional_with_out_keepdims_and_where():
    out = np.empty((), "float32")
    assert fastsoftmax.softmax(np.float32(2), out=out) is out
    assert out == 1
    assert fastsoftmax.logsumexp(np.float64(2), keepdims=True) == 2.0
    assert fastsoftmax.softmax(2.0, where=False) == 0.0
    assert fastsoftmax.logsumexp(2.0, where=False) == -np.inf
    for x, kwargs in [(np.arange(3.0), {}), (np.ones((2, 2), "float32"), {"axis": None})]:
        assert isinstance(fastsoftmax.logsumexp(x, **kwargs), np.floating)


@pytest.mark.parametrize(
    "x",
    [
        [1, 2, 3],
        (1.0, 2.0, 3.0),
        [[1, 2.5], [3, 4]],
        [True, False],
        range(4),
        [np.float32(1), np.float32(2)],
        [np.arange(3), np.arange(3)],
        array.array("f", [1.0, 2.0]),
    ],
    ids=repr,
)
def test_sequences(x):
    for name in NAMES:
        oracles.check(name, getattr(fastsoftmax, name)(x), np.asarray(x))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("layout", WRITABLE)
@pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), None])
def test_out_layouts(name, dtype, layout, axis):
    x = oracles.normal((5, 17, 19), dtype)
    shape = x.shape if name != "logsumexp" else np.sum(x, axis=axis).shape
    if (len(shape) < 2 and "axes" in layout) or not shape:
        layout = "C"  # too few axes to lay out in another way
    out = LAYOUTS[layout](np.zeros(shape, dtype))
    around = out.base if layout in ("sliced", "record field") else None
    before = None if around is None else around.copy()
    got = getattr(fastsoftmax, name)(x, axis=axis, out=out)
    assert got is out
    oracles.check(name, out, x, axis)
    if around is not None:  # what lies between the entries is as it was
        out[...] = 0
        assert around.tobytes() == before.tobytes()


@pytest.mark.parametrize("keepdims", [False, True])
def test_out_of_logsumexp_has_the_shape_of_the_result(keepdims):
    x = oracles.normal((3, 4, 5), "float32")
    out = np.empty((3, 1, 5) if keepdims else (3, 5), "float32")
    assert fastsoftmax.logsumexp(x, axis=1, keepdims=keepdims, out=out) is out
    oracles.check("logsumexp", out.reshape(3, 5), x, 1)
    for wrong in [(3, 4), (4, 5), (5, 3), (15,)]:
        with pytest.raises(ValueError, match="out"):
            fastsoftmax.logsumexp(x, axis=1, keepdims=keepdims, out=np.empty(wrong, "float32"))


@pytest.mark.parametrize("dtype", ["float16", "int64", "float32"])
def test_out_where_the_input_is_converted(dtype):
    x = np.arange(12).reshape(3, 4).astype(dtype)
    out = np.empty((3, 4), oracles.result_dtype(x.dtype))
    where = np.arange(4) != 1
    assert fastsoftmax.softmax(x, out=out, where=where) is out
    oracles.check("softmax", out, x, where=where)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dtype", ["float16", *EXACT_DTYPES])
@pytest.mark.parametrize("layout", WRITABLE)
@pytest.mark.parametrize("axis", [0, 1, -1, None])
def test_in_place(name, dtype, layout, axis):
    original = oracles.normal((5, 17, 33), dtype)
    x = LAYOUTS[layout](original)
    assert getattr(fastsoftmax, name)(x, axis=axis, out=x) is x
    oracles.check(name, x, original, axis)


OVERLAPS = {
    "one entry later": lambda b: (b[:-1], b[1:]),
    "one entry earlier": lambda b: (b[1:], b[:-1]),
    "one row later": lambda b: (b[: -b.size // 8], b[b.size // 8 :]),
    "half of it": lambda b: (b[: b.size // 2], b[b.size // 4 : b.size // 4 + b.size // 2]),
    "reversed": lambda b: (b, b[::-1]),
    "interleaved": lambda b: (b[: b.size // 2 * 2 : 2], b[1::2][: b.size // 2]),
    "every other from dense": lambda b: (b[: b.size // 2], b[: b.size // 2 * 2 : 2]),
    "the same by another view": lambda b: (b, b[:]),
    "unaligned over aligned": lambda b: (b[:-1], b.view("u1")[1 : 1 - b.itemsize].view(b.dtype)),
}


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("n", [5, 24, 1000, 100_000])
def test_out_overlaps_the_input(name, dtype, overlap, n):
    for batch in (1, 3, 40):
        if batch * n > 1_000_000:
            continue
        buffer = oracles.normal(batch * n + 2 * n, dtype)
        x, out = OVERLAPS[overlap](buffer)
        size = x.size // n * n
        x, out = x[:size].reshape(-1, n), out[:size].reshape(-1, n)
        # reshape of these 1-D views is a view as well, or the test would show nothing.
        assert np.shares_memory(out, buffer)
        original = x.copy()
        getattr(fastsoftmax, name)(x, out=out)
        oracles.check(name, out, original)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("n", [4, 33, 300])
def test_out_is_the_transposed_input(axis, n):
    x = oracles.normal((n, n), "float32")
    original = x.copy()
    fastsoftmax.softmax(x, axis=axis, out=x.T)
    oracles.check("softmax", x.T, original, axis)


@pytest.mark.parametrize(
    "part",
    [lambda x: x[:, 3], lambda x: x.ravel()[5000:5200], lambda x: x.ravel()[-200:]],
    ids=["a column", "rows", "the last rows"],
)
def test_logsumexp_into_its_input(part):
    x = oracles.normal((200, 50), "float32")
    original = x.copy()
    out = part(x)
    assert np.shares_memory(out, x)
    fastsoftmax.logsumexp(x, out=out)
    oracles.check("logsumexp", out, original)


def test_out_overlaps_where():
    x = np.zeros((3, 64), "float32")
    memory = np.zeros((3, 64), "float32")
    where = memory.view(bool).reshape(3, 256)[:, :64]
    where[:, ::2] = True
    hidden = ~where
    fastsoftmax.softmax(x, where=where, out=memory)
    np.testing.assert_array_equal(memory == 0, hidden)


@pytest.mark.parametrize("name", NAMES)
def test_a_length_one_axis_may_have_any_stride(name):
    # NumPy leaves strides of such axes undefined: a 0 there is no overlap, -8 is not backwards.
    x = oracles.normal((1, 30, 1), "float64")
    odd = np.lib.stride_tricks.as_strided(x, (1, 30, 1), (0, 8, -8))
    shape, strides = ((1, 30, 1), (0, 8, 0)) if name != "logsumexp" else ((1, 1), (0, 0))
    out = np.lib.stride_tricks.as_strided(np.zeros(30), shape, strides)
    for axis in (1, -2):
        getattr(fastsoftmax, name)(odd, axis=axis, out=out)
        oracles.check(name, out, x, axis)


@pytest.mark.parametrize("axis", [0, 1])
def test_strides_beyond_32_bits(tmp_path, axis):
    """Entries, then slices, 2**31 elements apart: in a sparse file, which takes up no room."""
    apart = 2**31 + 8
    try:
        x, out = (np.memmap(tmp_path / name, np.float32, "w+", shape=(2 * apart + 64,)) for name in ("x", "out"))
    except OSError as error:
        pytest.skip(f"no sparse file of 16 GiB can be mapped here: {error}")
    x, out = (np.lib.stride_tricks.as_strided(a, (3, 20), (4 * apart, 4)) for a in (x, out))
    x[...] = oracles.normal((3, 20), "float32")
    fastsoftmax.softmax(x, axis=axis, out=out)
    oracles.check("softmax", out.copy(), x.copy(), axis)


@pytest.mark.parametrize("dtype", oracles.DTYPES)
def test_any_byte_but_zero_is_true(dtype):
    x = np.linspace(-3, 3, 12).reshape(3, 4).astype(dtype)
    bytes_of_where = np.array([[1, 0, 255, 2], [0, 128, 0, 7], [255, 255, 0, 255]], np.uint8)
    for function in (fastsoftmax.softmax, fastsoftmax.log_softmax, fastsoftmax.logsumexp):
        got = function(x, where=bytes_of_where.view(bool))
        np.testing.assert_array_equal(got, function(x, where=bytes_of_where != 0))
