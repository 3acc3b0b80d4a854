"""Arrays of other libraries: the same bits as NumPy's, given back in the type that came in."""

from pathlib import Path

import numpy as np
import pytest

import fastsoftmax
import libraries
import oracles
from libraries import CLASSES, FUNCTIONS, LIBRARIES, ROWS, Bare, BareDLPack, example

PAGE = Path(__file__).parents[1] / "docs" / "arrays.md"

DTYPES = ["float32", "float64", "float16", "bfloat16"]


@pytest.fixture(params=LIBRARIES)
def kind(request):
    return request.param


def as_tuple(results):
    return results if isinstance(results, tuple) else (results,)


def given_back(kind, expected):
    """Give the type in which a result comes."""
    if kind in ("__array__", "__dlpack__"):
        return type(expected)
    if kind == "pandas":
        import pandas as pd

        return (type(expected), pd.Series, pd.DataFrame)[np.ndim(expected)]
    return type(LIBRARIES[kind].make(np.zeros((), "f4")))


def hold(kind, function, arguments, **options):
    """Hold what a library's arrays give to what NumPy's give, and return it."""
    own = LIBRARIES[kind]
    given = {name: own.make(value) for name, value in arguments.items()}
    before = {name: value.copy() for name, value in arguments.items()}
    expected = as_tuple(getattr(fastsoftmax, function)(**arguments, **options))
    got = as_tuple(getattr(fastsoftmax, function)(**given, **options))
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert type(ours) is given_back(kind, theirs)
        oracles.assert_same_bits(np.asarray(own.values(ours)), np.asarray(theirs))
    for name, value in before.items():
        oracles.assert_same_bits(own.values(given[name]), value)
    return got


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_function(kind, function, dtype):
    own = libraries.library(kind)
    if dtype in DTYPES[2:] and not own.halves:
        pytest.skip(f"{kind} has no {dtype}")
    if kind == "jax.Array" and dtype == "float64":
        import jax

        with jax.enable_x64(True):
            hold(kind, function, example(function, oracles.dtype_of(dtype)))
    else:
        hold(kind, function, example(function, oracles.dtype_of(dtype)))


@pytest.mark.parametrize(
    ("function", "options"),
    [
        ("softmax", {"axis": 0}),
        ("softmax", {"axis": None}),
        ("log_softmax", {"axis": (0, -1)}),
        ("logsumexp", {"axis": 0}),
        ("logsumexp", {"axis": (0, 1)}),
        ("logsumexp", {"axis": 0, "keepdims": True}),
        ("logsumexp", {"axis": -1, "return_sign": True}),
        ("logsumexp", {"axis": None, "keepdims": True, "return_sign": True}),
        ("cross_entropy", {"reduction": "none", "return_lse": True}),
        ("cross_entropy", {"reduction": "sum", "label_smoothing": 0.1, "z_loss": 0.01}),
        ("cross_entropy_with_grad", {"reduction": "none", "return_lse": True}),
        ("softmax_grad", {"axis": 0}),
    ],
)
def test_options(kind, function, options):
    libraries.library(kind)
    hold(kind, function, example(function), **options)


def test_every_array_argument(kind):
    libraries.library(kind)
    rng = np.random.default_rng(3)
    x = example("softmax")["x"]
    where = rng.random(x.shape) < 0.7
    hold(kind, "softmax", {"x": x, "where": where})
    hold(kind, "log_softmax", {"x": x, "where": where[:1]}, axis=0)
    hold(kind, "logsumexp", {"x": x, "b": rng.normal(0, 1, x.shape).astype("f4"), "where": where})
    weights = {"weight": rng.random(CLASSES).astype("f4"), "sample_weight": rng.random(ROWS).astype("f4")}
    given = example("cross_entropy") | weights
    hold(kind, "cross_entropy", given)
    hold(kind, "cross_entropy", given | {"labels": fastsoftmax.softmax(x)})
    lse = fastsoftmax.logsumexp(x)
    hold(
        kind, "cross_entropy_grad", given | {"lse": lse, "grad_output": rng.random(ROWS).astype("f4")}, reduction="none"
    )


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_integers(kind, dtype):
    own = libraries.library(kind)
    x = np.arange(ROWS * CLASSES).reshape(ROWS, CLASSES).astype(dtype)
    got = np.asarray(own.values(fastsoftmax.softmax(own.make(x))))
    expected = fastsoftmax.softmax(x)
    if kind == "jax.Array":  # without its x64 there is no float64
        expected = expected.astype("f4")
    oracles.assert_same_bits(got, expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_columns_in_memory(kind, axis):
    own = libraries.library(kind)
    x = own.make(np.asfortranarray(example("softmax")["x"]))
    expected = fastsoftmax.softmax(np.asarray(own.values(x)), axis=axis)  # (JAX has but one layout)
    oracles.assert_same_bits(np.asarray(own.values(fastsoftmax.softmax(x, axis=axis))), expected)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0,), ()])
def test_nothing_and_a_number(kind, shape):
    own = libraries.library(kind)
    libraries.DIMS.setdefault(shape, ("row", "class")[: len(shape)])
    x = np.zeros(shape, "f4")
    if kind == "pandas" and shape in ((), (4, 0)):
        pytest.skip("pandas has no array of no dimensions, and no dtype for no columns")
    for function in ("softmax", "logsumexp"):
        got = getattr(fastsoftmax, function)(own.make(x))
        expected = getattr(fastsoftmax, function)(x)
        assert np.shape(got) == np.shape(expected)
        oracles.assert_same_bits(np.asarray(own.values(got)), np.asarray(expected))


def test_the_others_may_be_of_another_library(kind):
    own = libraries.library(kind)
    given = example("cross_entropy")
    x, labels = given.values()
    expected = np.asarray(fastsoftmax.cross_entropy(x, labels))
    oracles.assert_same_bits(np.asarray(fastsoftmax.cross_entropy(x, own.make(labels))), expected)
    oracles.assert_same_bits(np.asarray(own.values(fastsoftmax.cross_entropy(own.make(x), labels))), expected)
    oracles.assert_same_bits(np.asarray(own.values(fastsoftmax.cross_entropy(own.make(x), labels.tolist()))), expected)
    assert type(fastsoftmax.cross_entropy(x, Bare(labels))) is np.float32
    expected = fastsoftmax.cross_entropy(x.tolist(), labels)
    assert fastsoftmax.cross_entropy(x.tolist(), own.make(labels)) == expected


def test_errors_are_those_of_numpy_arrays(kind):
    own = libraries.library(kind)
    x, labels = (own.make(value) for value in example("cross_entropy").values())
    with pytest.raises(np.exceptions.AxisError):
        fastsoftmax.softmax(x, axis=2)
    with pytest.raises(ValueError, match=r"labels: expected (shape|the dimensions)"):
        fastsoftmax.cross_entropy(x, own.make(np.zeros(CLASSES, int)))
    with pytest.raises(IndexError, match="label 9 at position 1"):
        fastsoftmax.cross_entropy(x, own.make(np.array([0, 9, 0, 0, 0])))
    with pytest.raises(TypeError, match="n_thread"):
        fastsoftmax.cross_entropy(x, labels, n_thread=1)
    with pytest.raises(TypeError):
        fastsoftmax.softmax(x, 0, None)
    with pytest.raises(TypeError, match="x"):
        fastsoftmax.softmax()


WRITEABLE = ["torch.Tensor", "xarray.DataArray", "array API", "__dlpack__"]


@pytest.mark.parametrize("name", WRITEABLE)
@pytest.mark.parametrize("function", [f for f in FUNCTIONS if f != "cross_entropy"])
def test_out(name, function):
    own = libraries.library(name)
    if name in ("__dlpack__", "array API") and np.lib.NumpyVersion(np.__version__) < "2.1.0":
        pytest.skip("this NumPy reads DLPack's arrays without the right to write to them")
    arguments = example(function)
    expected = as_tuple(getattr(fastsoftmax, function)(**arguments))
    expected = expected[function == "cross_entropy_with_grad"]
    memory = np.full_like(expected, 9)
    out = own.make(memory)
    given = {key: own.make(value) for key, value in arguments.items()}
    got = as_tuple(getattr(fastsoftmax, function)(**given, out=out))[function == "cross_entropy_with_grad"]
    assert got is out
    oracles.assert_same_bits(memory, expected)
    # In place, by the very object.
    if function in ("softmax", "cross_entropy_with_grad"):
        first = next(iter(given))
        assert as_tuple(getattr(fastsoftmax, function)(**given, out=given[first]))[-1] is given[first]
        oracles.assert_same_bits(arguments[first], expected)
    wrong = np.zeros((CLASSES,) if function == "logsumexp" else (ROWS, 1), "f4")
    with pytest.raises(ValueError, match=r"out: expected (shape|the dimensions)"):
        getattr(fastsoftmax, function)(**given, out=own.make(wrong))
    with pytest.raises(TypeError, match="out: expected dtype float32"):
        getattr(fastsoftmax, function)(**given, out=own.make(memory.astype("f8")))
    with pytest.raises(TypeError, match="out"):
        getattr(fastsoftmax, function)(**given, out=np.empty_like(memory) if name != "__dlpack__" else [1])
    with pytest.raises(TypeError, match="out: expected a NumPy array"):
        getattr(fastsoftmax, function)(**arguments, out=out)


@pytest.mark.parametrize("name", ["jax.Array", "pandas", "__array__"])
def test_what_cannot_be_written_to(name):
    own = libraries.library(name)
    x = np.zeros((ROWS, CLASSES), "f4")
    given, out = (Copying(x), Copying(x)) if name == "__array__" else (own.make(x), own.make(x))
    with pytest.raises(TypeError, match=r"out: not supported beside a"):
        fastsoftmax.softmax(given, out=out)


class Copying(Bare):
    def __array__(self, dtype=None, copy=None):
        return self.x.copy()


def test_numpy_arrays_for_what_has_no_namespace():
    x = example("softmax")["x"]
    out = np.empty_like(x)
    assert fastsoftmax.softmax(Bare(x), out=out) is out
    oracles.assert_same_bits(out, fastsoftmax.softmax(x))


class Interface:
    """Nothing but NumPy's older protocol, as images of PIL have it."""

    def __init__(self, x):
        self.__array_interface__ = x.__array_interface__
        self.x = x


def test_the_older_protocol():
    x = example("softmax")["x"]
    Interface.__array_interface__ = None  # (a class tells by it that its objects have one)
    oracles.assert_same_bits(fastsoftmax.softmax(Interface(x)), fastsoftmax.softmax(x))


class Cached(Bare):
    """Gives the same copy each time."""

    def __init__(self, x):
        super().__init__(x.copy())
        self.real = x


def test_out_that_only_seems_to_share_memory():
    x = example("softmax")["x"]
    with pytest.raises(TypeError, match=r"out: not supported beside a"):
        fastsoftmax.softmax(Cached(x), out=Cached(x))


class Elsewhere(BareDLPack):
    device = "a device of their own"

    def __dlpack_device__(self):
        return (8, 0)


def test_refused():
    x = np.zeros((2, 3), "f4")
    with pytest.raises(TypeError, match="x: expected an array on the CPU or a CUDA device, got one on a device of"):
        fastsoftmax.softmax(Elsewhere(x))
    with pytest.raises(TypeError, match="x: expected an array, a sequence or a number, got"):
        fastsoftmax.softmax(type("Nameless", (), {"__module__": None})())
    lazy = type("Array", (Bare,), {"__module__": "dask.array.core"})
    with pytest.raises(TypeError, match="x: a dask array holds no data yet"):
        fastsoftmax.softmax(lazy(x))
    with pytest.raises(TypeError, match=r"x: a masked array's mask would be ignored"):
        fastsoftmax.softmax(np.ma.masked_array(x))
    with pytest.raises(TypeError, match=r"x: expected a real or integer dtype, got object"):
        fastsoftmax.softmax(Bare(np.array([None])))
    for nothing in (object(), {1: 2}, {1, 2}, None, iter([1])):
        with pytest.raises(
            TypeError,
            match=r"x: expected an array, a sequence or a number, got [a-zN]",
        ):
            fastsoftmax.softmax(nothing)
        with pytest.raises(
            TypeError,
            match=r"labels: expected an array, a sequence or a number, got [a-zN]",
        ):
            fastsoftmax.cross_entropy(x, nothing)


# A line of the page -> what its cells say, and the key in LIBRARIES of what proves them. (On a GPU: test_cupy*.py,
# test_cupy_adapters.py, test_numba_cuda*.py.)
LINES = {
    ("`numpy.ndarray`, sequences, numbers", "CPU"): ("yes", None),
    ("`torch.Tensor`", "CPU"): ("yes", "torch.Tensor"),
    ("`jax.Array`", "CPU"): ("yes", "jax.Array"),
    ("`pandas.DataFrame`, `Series`", "CPU"): ("yes", "pandas"),
    ("`xarray.DataArray`", "CPU"): ("yes", "xarray.DataArray"),
    ("of the array API standard", "CPU"): ("yes", "array API"),
    ("with `__array__` alone", "CPU"): ("yes", "__array__"),
    ("with `__dlpack__` alone", "CPU"): ("yes", "__dlpack__"),
    ("`cupy.ndarray`", "GPU"): ("emulated", None),
    ("Numba's device arrays", "GPU"): ("simulated", None),
    ("`torch.Tensor`", "GPU"): ("emulated", None),
    ("of the array API standard, `__dlpack__`", "GPU"): ("emulated", None),
    ("`jax.Array`", "GPU"): ("emulated", None),
}


@pytest.mark.skipif(not PAGE.exists(), reason="the tests lie outside a checkout")
def test_the_page_promises_what_is_tested():
    lines = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("|")]
    head, _, *rows = lines[[line[:2] for line in lines].index(["arrays", "device"]) :]
    assert sorted(head[2:-1]) == sorted(FUNCTIONS)
    assert {tuple(row[:2]) for row in rows} == LINES.keys()
    assert {key for _, key in LINES.values() if key} == LIBRARIES.keys()
    for array, device, *cells, out in rows:
        word, key = LINES[array, device]
        assert set(cells) == {word}
        assert (out == word) == (key in WRITEABLE or (key is None and "jax" not in array))
