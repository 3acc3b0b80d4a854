"""Wrong arguments: which exception, what it says, and that out is left as it was."""

import os

import numpy as np
import pytest

import fastsoftmax
import oracles
from oracles import NAMES

pytestmark = pytest.mark.usefixtures("backend")

GRADIENTS = ["cross_entropy_grad", "cross_entropy_with_grad"]
FAMILY = [*NAMES, "cross_entropy", *GRADIENTS]
X = np.zeros((3, 4), "float32")


def call(name, x=X, **kwargs):
    """Call any public function on logits of shape (3, 4), with labels where it takes some."""
    if "cross" in name:
        kwargs.setdefault("labels", np.zeros(3, int))
    return getattr(fastsoftmax, name)(x, **kwargs)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize(("shape", "axis"), [((3, 4), 2), ((3, 4), -3), ((3,), 1), ((), 1), ((), -2), ((0, 3), 2)])
def test_axis_out_of_range(name, shape, axis):
    with pytest.raises(np.exceptions.AxisError, match=str(axis) if shape else "0"):
        call(name, np.zeros(shape), axis=axis)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("axis", [(0, 2), (-3, 1), (5,)])
def test_axis_out_of_range_in_a_tuple(name, axis):
    with pytest.raises(np.exceptions.AxisError):
        call(name, axis=axis)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("axis", [(0, 0), (0, -2), (1, 0, -1)])
def test_duplicate_axes(name, axis):
    with pytest.raises(ValueError, match=r"duplicate|distinct") as caught:
        call(name, axis=axis)
    assert not isinstance(caught.value, np.exceptions.AxisError)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("axis", [1.0, "0", (0, 1.0)])
def test_axis_is_an_integer(name, axis):
    with pytest.raises(TypeError):
        call(name, axis=axis)


@pytest.mark.parametrize("name", ["cross_entropy", *GRADIENTS])
@pytest.mark.parametrize("axis", [None, (0,), (0, 1)])
def test_cross_entropy_takes_one_axis(name, axis):
    with pytest.raises(TypeError, match="axis"):
        call(name, axis=axis)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("n_threads", [0, -1, -(2**40), -(2**70)])
def test_too_few_threads(name, n_threads):
    with pytest.raises(ValueError, match="n_threads"):
        call(name, n_threads=n_threads)
    with pytest.raises(ValueError, match="1"):
        fastsoftmax.set_num_threads(n_threads)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("n_threads", [1, 2, 10_000, 2**31, 2**40, 2**70, np.int64(2)])
def test_too_many_threads_are_clamped(name, n_threads):
    np.testing.assert_equal(call(name, n_threads=n_threads), call(name))


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("n_threads", [1.5, 2.0, "2"])
def test_threads_are_counted_in_integers(name, n_threads):
    with pytest.raises(TypeError):
        call(name, n_threads=n_threads)


def out_shape(name):
    return (3,) if name == "logsumexp" else (3, 4)


WITH_OUT = [*NAMES, *GRADIENTS]


@pytest.mark.parametrize("name", WITH_OUT)
@pytest.mark.parametrize("shape", [(4, 3), (3, 5), (12,), (1, 3, 4), (4,), (), (3, 1)])
def test_out_of_the_wrong_shape(name, shape):
    out = np.full(shape, 7, "float32")
    with pytest.raises(ValueError, match="out") as caught:
        call(name, out=out)
    assert str(out_shape(name)) in str(caught.value)
    assert str(shape) in str(caught.value)
    assert np.all(out == 7)


@pytest.mark.parametrize("name", WITH_OUT)
@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "complex64", "object", ">f4"])
def test_out_of_the_wrong_dtype(name, dtype):
    out = np.full(out_shape(name), 7, dtype)
    with pytest.raises(TypeError, match="float32") as caught:
        call(name, out=out)
    assert any(word in str(caught.value) for word in (np.dtype(dtype).name, dtype))
    assert np.all(out == 7)


@pytest.mark.parametrize("name", WITH_OUT)
def test_out_of_the_wrong_dtype_for_converted_input(name):
    with pytest.raises(TypeError, match="float64"):
        call(name, X.astype("int32"), out=np.zeros(out_shape(name), "int32"))


@pytest.mark.parametrize("name", WITH_OUT)
@pytest.mark.parametrize("out", [[[0.0] * 4] * 3, 1.0, "out", np.ma.zeros((3, 4), "float32")])
def test_out_that_is_no_array(name, out):
    with pytest.raises(TypeError):
        call(name, out=out)


@pytest.mark.parametrize("name", WITH_OUT)
def test_out_that_is_read_only(name):
    out = np.full(out_shape(name), 7, "float32")
    out.flags.writeable = False
    with pytest.raises(ValueError, match=r"read-only|writeable|writable"):
        call(name, out=out)
    assert np.all(out == 7)


@pytest.mark.parametrize("name", WITH_OUT)
@pytest.mark.parametrize("stride", [0, 4, 8, -4])
def test_out_that_overlaps_itself(name, stride):
    memory = np.full(40, 7, "float32")
    strides = (0,) if name == "logsumexp" else (stride, 4)
    out = np.lib.stride_tricks.as_strided(memory[20:], out_shape(name), strides)
    with pytest.raises(ValueError, match="overlap"):
        call(name, out=out)
    assert np.all(memory == 7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32", "object"])
def test_where_of_the_wrong_dtype(name, dtype):
    with pytest.raises(TypeError, match="where") as caught:
        call(name, where=np.ones((3, 4), dtype))
    assert "bool" in str(caught.value)
    assert dtype in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3,), (4, 3), (3, 5), (2, 3, 4), (1, 3, 4)])
def test_where_of_the_wrong_shape(name, shape):
    with pytest.raises(ValueError, match="where") as caught:
        call(name, where=np.ones(shape, bool))
    assert str(shape) in str(caught.value)
    assert "(3, 4)" in str(caught.value)


@pytest.mark.parametrize("b", [np.ones(3), np.ones((3, 5)), np.ones((4, 3))])
def test_factors_of_the_wrong_shape(b):
    with pytest.raises(ValueError, match="b") as caught:
        call("logsumexp", b=b)
    assert str(b.shape) in str(caught.value)
    assert "(3, 4)" in str(caught.value)


@pytest.mark.parametrize("name", ["cross_entropy", *GRADIENTS])
@pytest.mark.parametrize("reduction", ["average", "", None, "MEAN"])
def test_unknown_reduction(name, reduction):
    with pytest.raises(ValueError, match="reduction") as caught:
        call(name, reduction=reduction)
    assert all(word in str(caught.value) for word in ("mean", "sum", "none"))


@pytest.mark.parametrize("name", ["cross_entropy", *GRADIENTS])
def test_cross_entropy_of_a_number(name):
    with pytest.raises(ValueError, match=r"axis|dimension|label"):
        call(name, np.float32(1), labels=0)


@pytest.mark.parametrize("name", FAMILY)
def test_ragged_input(name):
    with pytest.raises((ValueError, TypeError)):
        call(name, [[1, 2], [3]])


BAD_ARGUMENTS = {
    "axis": {"axis": 2},
    "axis type": {"axis": 0.5},
    "n_threads": {"n_threads": 0},
    "n_threads type": {"n_threads": "1"},
    "unknown name": {"temperature": 2.0},
}
BAD_FAMILY = {
    "axes": {"axis": (0, 0)},
    "where dtype": {"where": np.ones((3, 4))},
    "where shape": {"where": np.ones((3, 3), bool)},
}
BAD_LABELS = {
    "label": {"labels": [0, 0, 4]},
    "label shape": {"labels": [0, 0]},
    "label dtype": {"labels": [0.0, 0.0, 0.0]},
    "reduction": {"reduction": "median"},
    "ignore_index": {"ignore_index": "no"},
    "label_smoothing": {"label_smoothing": 1.5},
    "weight": {"weight": np.ones(3)},
}


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        pytest.param(name, kwargs, id=f"{name}-{case}")
        for names, cases in [
            (WITH_OUT, BAD_ARGUMENTS),
            (NAMES, BAD_FAMILY),
            (GRADIENTS, BAD_LABELS),
        ]
        for name in names
        for case, kwargs in cases.items()
    ],
)
@pytest.mark.parametrize("rows", [3, 30_000])
def test_nothing_is_written_when_an_argument_is_wrong(name, kwargs, rows):
    if rows > 3:  # the same mistakes in work that is split among threads
        kwargs = dict(kwargs)
        for key in ("labels", "where"):
            if key in kwargs and len(kwargs[key]) == 3:
                kwargs[key] = np.tile(kwargs[key], (rows // 3,) + (1,) * (np.ndim(kwargs[key]) - 1))
    x = np.zeros((rows, 4), "float32")
    out = np.full((rows,) if name == "logsumexp" else x.shape, 7, "float32")
    if "cross" in name and "labels" not in kwargs:
        kwargs = {**kwargs, "labels": np.zeros(rows, int)}
    with pytest.raises((ValueError, TypeError, IndexError)):
        getattr(fastsoftmax, name)(x, out=out, **kwargs)
    assert np.all(out == 7)


def test_set_num_threads_clamps():
    before = fastsoftmax.get_num_threads()
    try:
        fastsoftmax.set_num_threads(10**6)
        assert 1 <= fastsoftmax.get_num_threads() <= os.cpu_count()
        oracles.check("softmax", fastsoftmax.softmax(X), X)
        fastsoftmax.set_num_threads(2**70)
    finally:
        fastsoftmax.set_num_threads(None)  # as OpenMP says
    assert fastsoftmax.get_num_threads() == before
