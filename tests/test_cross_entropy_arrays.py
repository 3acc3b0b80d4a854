"""Cross-entropy's options as arrays: axes, layouts, dtypes, and where the gradient is written."""

import numpy as np
import pytest

import oracles
import oracles_loss
from fastsoftmax import cross_entropy, cross_entropy_grad, cross_entropy_with_grad

pytestmark = pytest.mark.usefixtures("backend")

REDUCTIONS = ["mean", "sum", "none"]
FLOATS = ["float32", pytest.param("float64", marks=oracles.wide_longdouble)]


def check(logits, labels, axis, **given):
    """Hold the loss and gradient of every slice to the exact ones."""
    exact = oracles_loss.slices(logits, labels, axis, **given)
    loss, grad = cross_entropy_with_grad(logits, labels, axis, reduction="none", **given)
    dtype = oracles.result_dtype(logits.dtype)
    oracles_loss.assert_loss(loss, exact, dtype)
    oracles_loss.assert_grad(grad, exact, dtype)


@pytest.mark.parametrize("shape", [(1, 2, 1), (3, 2, 1), (1, 3, 2), (2, 1, 1), (1, 1, 1), (3, 5, 4, 1)], ids=str)
def test_axes_of_size_1(shape):
    """What has one element along an axis is contiguous in many orders: all of a call's arrays are read in the same."""
    logits = oracles.normal(shape, "float32")
    if len(shape) == 4:
        logits = logits[..., 0][..., np.newaxis]  # of stride 0
    gaps = np.empty((*shape[:-1], 3), "float32")[..., : shape[-1]]
    for axis in range(len(shape)):
        batch = np.delete(shape, axis)
        labels = (np.arange(np.prod(batch)).reshape(batch) % shape[axis]).astype("int32")
        check(logits, labels, axis)
        check(logits, labels, axis, sample_weight=np.random.default_rng(0).random(batch))
        expected = cross_entropy_grad(logits, labels, axis)
        np.testing.assert_array_equal(cross_entropy_grad(logits, labels, axis, out=gaps), expected)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3, np.int64(1)])
def test_every_axis(axis):
    logits = oracles.normal((3, 4, 5), "float32")
    rng = np.random.default_rng(0)
    batch, n = tuple(np.delete((3, 4, 5), axis)), logits.shape[axis]
    given = {"weight": rng.random(n), "sample_weight": rng.random(batch), "label_smoothing": 0.1, "z_loss": 0.05}
    for y in (rng.integers(0, n, batch), rng.random((3, 4, 5))):
        check(logits, y, axis, **given)
        lse = cross_entropy(logits, y, axis, return_lse=True)[1]
        assert lse.shape == batch
        saved = oracles_loss.slices(logits, y, axis, lse=lse, **given)
        above = rng.random(batch)
        got = cross_entropy_grad(logits, y, axis, lse=lse, grad_output=above, reduction="none", **given)
        oracles_loss.assert_grad(got, oracles_loss.reduced(saved, "none", above), got.dtype)


@pytest.mark.parametrize("layout", oracles.ARRANGEMENTS)
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", FLOATS)
def test_layouts(layout, axis, dtype):
    """Of the logits, of probability labels, of both, and of what there is one of per slice or class."""
    change = oracles.ARRANGEMENTS[layout]
    logits = oracles.normal((5, 17, 19), dtype)
    rng = np.random.default_rng(0)
    batch, n = tuple(np.delete(logits.shape, axis)), logits.shape[axis]
    q = rng.random(logits.shape).astype(dtype)
    arrays = {"weight": rng.random((n, 2))[:, 0], "sample_weight": rng.random(batch)}
    changed = {name: change(values[np.newaxis])[0] for name, values in arrays.items()}
    for x, y in [(change(logits), q), (logits, change(q)), (change(logits), change(q))]:
        check(x, y, axis, **changed, label_smoothing=0.1)
        np.testing.assert_array_equal(x, logits)
        np.testing.assert_array_equal(y, q)
    lse, above = cross_entropy(logits, q, axis, return_lse=True)[1], rng.random(batch)
    saved = oracles_loss.reduced(oracles_loss.slices(logits, q, axis, lse=lse, **arrays), "none", above)
    lse, above = (change(values[np.newaxis])[0] for values in (lse, above))
    got = cross_entropy_grad(change(logits), q, axis, reduction="none", lse=lse, grad_output=above, **changed)
    oracles_loss.assert_grad(got, saved, logits.dtype)


@pytest.mark.parametrize("layout", oracles.ARRANGEMENTS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_layouts_of_out(layout, axis):
    """Beside logits that are plain, and beside probabilities."""
    logits = oracles.normal((5, 17, 19), "float32")
    rng = np.random.default_rng(0)
    batch, n = tuple(np.delete(logits.shape, axis)), logits.shape[axis]
    for y in (rng.integers(0, n, batch), rng.random(logits.shape)):
        loss, grad = cross_entropy_with_grad(logits, y, axis)
        out = oracles.ARRANGEMENTS[layout](np.full_like(logits, 7))
        if not out.flags.writeable or not out.dtype.isnative:
            return
        got, written = cross_entropy_with_grad(logits, y, axis, out=out)
        assert written is out
        assert got == loss
        np.testing.assert_allclose(out, grad, rtol=1e-6, atol=1e-9)  # the order of addition is the layout's own


NUMBERS = ["bool", "int8", "uint8", "int64", "uint64", "float16", "float32", "float64", "longdouble", ">f4"]


@pytest.mark.parametrize("dtype", ["float32", "float64", *oracles.HALVES])
@pytest.mark.parametrize("axis", [0, 1])
def test_dtypes_of_the_options(dtype, axis):
    """Small whole numbers are the same in every dtype, and so are the results, to the bit."""
    logits = oracles.normal((6, 6), dtype)
    y = np.eye(6)[:, [2, 0, 1, 5, 3, 4]]
    w, s, lse, above = np.arange(6) % 2, np.arange(6) < 4, np.ones(6), np.arange(6) % 3
    expected = cross_entropy_with_grad(logits, y, axis, weight=w + 0.0, sample_weight=s + 0.0, label_smoothing=0.1)
    saved = cross_entropy_grad(logits, y, axis, lse=lse, grad_output=above + 0.0, reduction="none")
    given = [*NUMBERS, list] if dtype != "bfloat16" else [*NUMBERS, list, logits.dtype]
    for to in given:
        q, w1, s1, lse1, above1 = (
            v.tolist() if to is list else v.astype(to) for v in (y, w.astype(bool), s, lse, above)
        )
        got = cross_entropy_with_grad(logits, q, axis, weight=w1, sample_weight=s1, label_smoothing=0.1)
        for one, other in zip(got, expected, strict=True):
            oracles.assert_same_bits(one, other)
        if to != "bool":
            got = cross_entropy_grad(logits, q, axis, lse=lse1, grad_output=above1, reduction="none")
            oracles.assert_same_bits(got, saved)


def test_integer_logits_are_computed_in_float64():
    logits = np.array([[2, 0, 1], [0, 0, 255]], "uint8")
    given = {"weight": [0.1, 0.2, 0.3], "label_smoothing": 0.1, "z_loss": 0.05}
    for y in ([0, 1], [[0.5, 0.5, 0], [0, 0, 1]]):
        got = cross_entropy_with_grad(logits, y, **given)
        for one, other in zip(got, cross_entropy_with_grad(logits.astype(float), y, **given), strict=True):
            oracles.assert_same_bits(one, other)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_longdouble_is_computed_by_the_reference(reduction):
    x = oracles.normal((7, 5), "float64")
    rng = np.random.default_rng(0)
    given = {"weight": rng.random(5), "sample_weight": rng.random(7), "label_smoothing": 0.1, "z_loss": 0.05}
    given["reduction"] = reduction
    for y in (np.array([0, 1, -100, 2, 3, 4, 0]), rng.random((7, 5))):
        expected = cross_entropy_with_grad(x, y, return_lse=True, **given)
        got = cross_entropy_with_grad(x.astype(np.longdouble), y, return_lse=True, **given)
        saved = {"lse": expected[2], "grad_output": rng.random(7) if reduction == "none" else 2}
        expected = [*expected, cross_entropy_grad(x, y, **given, **saved)]
        got = [*got, cross_entropy_grad(x.astype(np.longdouble), y, **given, **saved)]
        for one, other in zip(got, expected, strict=True):
            assert one.dtype == np.longdouble
            np.testing.assert_allclose(one.astype(float), other, rtol=1e-13, atol=1e-16)


class TestOut:
    @pytest.mark.parametrize("dtype", ["float32", "float64", *oracles.HALVES])
    @pytest.mark.parametrize("layout", ["rows", "columns", "middle"])
    @pytest.mark.parametrize("n", [2, 10, 37, 300, 5000])
    def test_in_place(self, dtype, layout, n):
        rows = oracles.normal((35 if n < 300 else 5, n), dtype)
        x, axis = oracles.arrange(rows, layout)
        rng = np.random.default_rng(0)
        batch = tuple(np.delete(x.shape, axis))
        given = {"weight": rng.random(n), "sample_weight": rng.random(batch), "label_smoothing": 0.1, "z_loss": 0.05}
        for y in (rng.integers(0, n, batch), rng.random(x.shape).astype(x.dtype)):
            expected = cross_entropy_with_grad(x, y, axis, return_lse=True, **given)
            for function, more in [(cross_entropy_with_grad, {}), (cross_entropy_grad, {"lse": expected[2]})]:
                fresh = function(x, y, axis, **given, **more)
                logits = x.copy()
                got = function(logits, y, axis, out=logits, **given, **more)
                got, fresh = [got, fresh] if more else [got[1], fresh[1]]
                assert got is logits
                oracles.assert_same_bits(got, fresh)
            oracles.assert_same_bits(cross_entropy_with_grad(x.copy(), y, axis, out=x, **given)[0], expected[0])

    @pytest.mark.parametrize("axis", [0, 1])
    @pytest.mark.parametrize("shift", [-36, -1, 0, 1, 36])
    def test_overlapping_logits_or_probabilities(self, axis, shift):
        """The result is as if they did not overlap: also where out is the labels' own memory."""
        x = oracles.normal((36, 36), "float32")
        q = np.random.default_rng(0).random((36, 36), "float32")
        expected = cross_entropy_grad(x, q, axis, label_smoothing=0.1)
        for name in ("logits", "labels"):
            memory = np.zeros(36 * 40, "float32")
            start, end = 72, 72 + 36 * 36
            out = memory[start + shift : end + shift].reshape(36, 36)
            overlapping = memory[start:end].reshape(36, 36)
            overlapping[...] = x if name == "logits" else q
            arguments = {"logits": x, "labels": q, name: overlapping}
            got = cross_entropy_grad(**arguments, axis=axis, label_smoothing=0.1, out=out)
            assert got is out
            oracles.assert_same_bits(got.copy(), expected)

    @pytest.mark.parametrize("axis", [0, 1])
    @pytest.mark.parametrize("name", ["labels", "weight", "sample_weight", "lse", "grad_output"])
    def test_overlapping_an_option(self, axis, name):
        x = oracles.normal((8, 8), "float64")
        values = {"labels": np.arange(8), "weight": 1.0, "sample_weight": 2.0, "lse": 30.0, "grad_output": 3.0}
        given = {key: np.broadcast_to(v, 8).copy() for key, v in values.items()}
        given["grad_output"][::2] = -1
        expected = cross_entropy_grad(x, axis=axis, reduction="none", **given)
        out = np.zeros((8, 8))
        memory = out.reshape(-1).view(given[name].dtype)[3:11]
        memory[...] = given[name]
        given[name] = memory
        got = cross_entropy_grad(x, axis=axis, reduction="none", out=out, **given)
        oracles.assert_same_bits(got, expected)

    @pytest.mark.parametrize("out_of", [np.asfortranarray, lambda x: np.repeat(x, 2, -1)[..., ::2], oracles.unaligned])
    @pytest.mark.parametrize("axis", [0, 1])
    def test_of_another_layout(self, out_of, axis):
        x = oracles.normal((35, 35), "float32")
        q = np.random.default_rng(0).random((35, 35))
        out = out_of(np.zeros_like(x))
        assert cross_entropy_grad(x, q, axis, reduction="none", out=out) is out
        oracles_loss.assert_grad(out, oracles_loss.slices(x, q, axis), x.dtype)


def test_options_are_never_modified():
    rng = np.random.default_rng(0)
    x = oracles.normal((9, 7), "float32")
    given = {"weight": rng.random(7), "sample_weight": rng.random(9), "lse": np.ones(9), "grad_output": rng.random(9)}
    for y in (rng.integers(0, 7, 9), rng.random((9, 7), "float32")):
        arrays = {"logits": x, "labels": y, **given}
        before = {name: values.copy() for name, values in arrays.items()}
        cross_entropy_grad(**arrays, reduction="none", label_smoothing=0.1, z_loss=0.1)
        cross_entropy_with_grad(x, y, weight=given["weight"], sample_weight=given["sample_weight"])
        for name, values in arrays.items():
            oracles.assert_same_bits(values, before[name])
