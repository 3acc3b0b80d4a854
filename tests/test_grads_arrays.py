"""The vector-Jacobian products' arguments: dtypes, layouts, the memory that is written to, and what is refused."""

import itertools

import numpy as np
import pytest

import oracles
from fastsoftmax import log_softmax_grad, softmax_grad
from oracles import EXACT_DTYPES, HALVES
from oracles_grads import check, exact_and_size, problem

pytestmark = pytest.mark.usefixtures("backend")

FUNCTIONS = [softmax_grad, log_softmax_grad]


def saved_name(function):
    return "probs" if function is softmax_grad else "log_probs"


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int64", "uint64"])
def test_integers_and_bool_are_computed_in_float64(function, dtype):
    """What is saved of a slice with one class left: probabilities 0 and 1, log-probabilities 0 and below."""
    g = np.array([[1, 0, 1], [1, 1, 0]]).astype(dtype)
    y = np.array([[0, 1, 0], [0, 0, 1]]).astype(dtype)
    expected = function(g.astype("float64"), y.astype("float64"))
    assert expected.dtype == np.float64
    oracles.assert_same_bits(function(g, y), expected)
    oracles.assert_same_bits(function(g.tolist(), y.tolist()), expected)
    oracles.assert_same_bits(function(g, y.astype("float64")), expected)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_longdouble_is_computed_by_the_reference(function):
    g, y = problem(function.__name__, (3, 4), "float64")
    got = function(g.astype(np.longdouble), y.astype(np.longdouble))
    assert got.dtype == np.longdouble
    exact, size = exact_and_size(function.__name__, g, y)
    assert np.all(np.abs(got - exact) <= 4 * np.finfo(np.longdouble).eps * size)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float16", *EXACT_DTYPES])
@pytest.mark.parametrize("layout", oracles.ARRANGEMENTS)
def test_layouts(function, dtype, layout):
    """Of either input, of both, and of out, each of a layout of its own."""
    for axis in (0, 1, 2, (0, 2), None):
        g, y = problem(function.__name__, (5, 17, 19), dtype, axis)
        for change_g, change_y in itertools.product([np.copy, oracles.ARRANGEMENTS[layout]], repeat=2):
            upstream, saved = change_g(g), change_y(y)
            got = function(upstream, saved, axis)
            check(function.__name__, got, g, y, axis)
            np.testing.assert_array_equal(upstream, g)
            np.testing.assert_array_equal(saved, y)
            assert not np.shares_memory(got, upstream)
            assert not np.shares_memory(got, saved)
        if layout not in ("byte-swapped", "read-only"):
            out = oracles.ARRANGEMENTS[layout](np.zeros_like(g))
            assert function(g, y, axis, out=out) is out
            check(function.__name__, out, g, y, axis)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("axis", [0, 1, None])
def test_broadcast_inputs(function, axis):
    """A zero stride: the upstream gradient of a sum is one number."""
    _, y = problem(function.__name__, (12, 13), "float32", axis)
    for shape in ((1, 1), (1, 13), (12, 1)):
        g = np.broadcast_to(oracles.normal(shape, "float32"), (12, 13))
        check(function.__name__, function(g, y, axis), g.copy(), y, axis)
        broadcast = np.broadcast_to(y[: shape[0], : shape[1]], (12, 13))
        check(function.__name__, function(y, broadcast, axis), y, broadcast.copy(), axis)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64", *HALVES])
@pytest.mark.parametrize("n", [2, 10, 37, 65, 300, 5000])
def test_in_place_over_either_input(function, dtype, n):
    for layout in ("rows", "columns", "middle"):
        g, y = problem(function.__name__, (35 if n < 300 else 3, n), dtype)
        (g, axis), (y, _) = oracles.arrange(g, layout), oracles.arrange(y, layout)
        expected = function(g, y, axis)
        for target in (0, 1):
            inputs = [g.copy(), y.copy()]
            assert function(*inputs, axis, out=inputs[target]) is inputs[target]
            oracles.assert_same_bits(inputs[target], expected)
            oracles.assert_same_bits(inputs[1 - target], [g, y][1 - target])


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shift", [-37, -36, -1, 1, 36, 37])
def test_out_overlapping_an_input_partly(function, axis, shift):
    g, y = problem(function.__name__, (36, 36), "float32", axis)
    expected = function(g, y, axis)
    for target in (0, 1):
        memory = np.zeros(36 * 40, "float32")
        start, end = 72, 72 + 36 * 36
        inputs = [g, y]
        overlapping = memory[start:end].reshape(36, 36)
        overlapping[...] = inputs[target]
        inputs[target] = overlapping
        out = memory[start + shift : end + shift].reshape(36, 36)
        function(*inputs, axis, out=out)
        oracles.assert_same_bits(out.copy(), expected)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_both_inputs_may_be_one_array(function):
    g, _ = problem(function.__name__, (35, 10), "float32", scale=1)
    for axis in (0, 1):
        expected = function(g, g.copy(), axis)
        x = g.copy()
        oracles.assert_same_bits(function(x, x, axis), expected)
        oracles.assert_same_bits(function(x, x, axis, out=x), expected)


def refused(error, function, match, grad_output=None, saved=None, **kwargs):
    """Call on arrays of shape (3, 4): nothing may be written. Returns what the error says."""
    g = np.ones((3, 4), "float32") if grad_output is None else grad_output
    y = np.ones((3, 4), "float32") if saved is None else saved
    out = kwargs.setdefault("out", np.full((3, 4), 7, "float32"))
    before = np.array(out)
    with pytest.raises(error, match=match) as caught:
        function(g, y, **kwargs)
    np.testing.assert_array_equal(out, before)
    return str(caught.value)


@pytest.mark.parametrize("function", FUNCTIONS)
class TestErrors:
    @pytest.mark.parametrize("shape", [(4,), (3, 5), (4, 3), (1, 4), (3, 1), (1, 3, 4), ()])
    def test_inputs_of_two_shapes(self, function, shape):
        other = np.ones(shape, "float32")
        said = refused(ValueError, function, saved_name(function), saved=other)
        assert "(3, 4)" in said
        assert str(shape) in said
        said = refused(ValueError, function, saved_name(function), grad_output=other, out=np.zeros(shape, "float32"))
        assert "(3, 4)" in said
        assert str(shape) in said

    @pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "bool"])
    def test_inputs_of_two_dtypes(self, function, dtype):
        got = "float64" if dtype in ("int32", "bool") else dtype  # what it is converted to
        for kwargs in ({"saved": np.ones((3, 4), dtype)}, {"grad_output": np.ones((3, 4), dtype), "out": None}):
            said = refused(TypeError, function, saved_name(function), **kwargs)
            assert "float32" in said
            assert got in said or dtype in said

    @pytest.mark.parametrize("saved", [None, [None], {}])
    def test_saved_output_that_is_no_array(self, function, saved):
        g = np.ones((3, 4), "float32")
        with pytest.raises((TypeError, ValueError), match=saved_name(function)):
            function(g, saved)

    @pytest.mark.parametrize("dtype", ["complex64", "object", "<U1", "datetime64[s]"])
    def test_dtypes(self, function, dtype):
        for name, kwargs in [
            ("grad_output", {"grad_output": np.zeros((3, 4), dtype)}),
            (saved_name(function), {"saved": np.zeros((3, 4), dtype)}),
        ]:
            said = refused(TypeError, function, name, **kwargs)
            assert any(word in said for word in (dtype, np.dtype(dtype).name))

    def test_types(self, function):
        for wrong in (np.ma.ones((3, 4), "float32"), object()):
            refused(TypeError, function, "grad_output", grad_output=wrong)
            refused(TypeError, function, saved_name(function), saved=wrong)

    @pytest.mark.parametrize(("axis", "error"), [(2, "Axis"), (-3, "Axis"), ((0, 2), "Axis"), ((0, 0), "Value")])
    def test_axis(self, function, axis, error):
        refused(np.exceptions.AxisError if error == "Axis" else ValueError, function, "axis", axis=axis)

    @pytest.mark.parametrize("axis", [1.0, "0", (0, 1.0)])
    def test_axis_is_an_integer(self, function, axis):
        refused(TypeError, function, "axis", axis=axis)

    def test_where(self, function):
        said = refused(TypeError, function, "where", where=np.ones((3, 4)))
        assert "bool" in said
        assert "float64" in said
        said = refused(ValueError, function, "where", where=np.ones((3, 5), bool))
        assert "(3, 4)" in said
        assert "(3, 5)" in said

    def test_out(self, function):
        for shape in [(4, 3), (12,), (1, 3, 4)]:
            said = refused(ValueError, function, "out", out=np.full(shape, 7, "float32"))
            assert "(3, 4)" in said
            assert str(shape) in said
        for dtype in ["float64", "float16", "int32", ">f4"]:
            assert "float32" in refused(TypeError, function, "out", out=np.full((3, 4), 7, dtype))
        read_only = np.full((3, 4), 7, "float32")
        read_only.flags.writeable = False
        refused(ValueError, function, r"read-only|writeable", out=read_only)
        refused(ValueError, function, "overlap", out=np.lib.stride_tricks.as_strided(read_only.copy(), (3, 4), (0, 4)))
        refused(TypeError, function, "out", out=[[7.0] * 4] * 3)

    @pytest.mark.parametrize(("n_threads", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError)])
    def test_threads(self, function, n_threads, error):
        refused(error, function, None if error is TypeError else "n_threads", n_threads=n_threads)
