"""Cross-entropy's options at their edges: terms without weight, slices that do not count, and those that are NaN."""

import itertools

import numpy as np
import pytest

import oracles
import oracles_loss
from fastsoftmax import cross_entropy, cross_entropy_grad, cross_entropy_with_grad
from oracles_loss import one_hot

pytestmark = pytest.mark.usefixtures("backend")

REDUCTIONS = ["mean", "sum", "none"]
DTYPES = ["float32", "float64", "float16"]
SIZES = [3, 10, 40, 1000]  # short rows, rows, rows of several blocks
FLOATS = ["float32", pytest.param("float64", marks=oracles.wide_longdouble)]


def check(logits, labels, axis=-1, **given):
    """Hold the results of one problem to the exact ones, in every reduction; return the last."""
    exact = oracles_loss.slices(logits, labels, axis, **given)
    dtype = oracles.result_dtype(np.asarray(logits).dtype)
    for reduction in REDUCTIONS:
        loss, grad = cross_entropy_with_grad(logits, labels, axis, reduction=reduction, **given)
        expected = oracles_loss.reduced(exact, reduction)
        oracles_loss.assert_loss(loss, expected, dtype, reduction)
        oracles_loss.assert_grad(grad, expected, dtype, reduction)
        oracles.assert_same_bits(cross_entropy_grad(logits, labels, axis, reduction=reduction, **given), grad)
        oracles.assert_same_bits(cross_entropy(logits, labels, axis, reduction=reduction, **given), loss)
    return loss, grad


class TestTermsWithoutWeight:
    """A term of weight 0 is 0, also where the class is impossible and its share of the loss would be infinite."""

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("layout", ["rows", "columns"])
    @pytest.mark.parametrize("n", SIZES)
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_classes_of_weight_0(self, dtype, layout, n, smoothing):
        rows = oracles.normal((35, n), dtype)
        labels = np.arange(35) % n
        rows[:, 1] = -np.inf  # the label of some slices, not of others
        w = np.linspace(0.5, 1.5, n)
        w[1] = 0
        x, axis = oracles.arrange(rows, layout)
        for y in (labels, one_hot(labels, n, axis)):
            loss, _ = check(x, y, axis, weight=w, label_smoothing=smoothing)
            assert np.isfinite(loss).all()
        assert not loss[labels == 1].any() or smoothing
        loss = cross_entropy(x, labels, axis, label_smoothing=smoothing, reduction="none")
        assert np.all(np.isinf(loss) == ((labels == 1) | bool(smoothing)))

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("n", SIZES)
    def test_slices_of_weight_0(self, dtype, n):
        x = oracles.normal((20, n), dtype)
        labels = np.arange(20) % n
        x[::2][np.arange(10), labels[::2]] = -np.inf
        s = np.arange(20) % 2 + 0.0
        for y, smoothing in itertools.product((labels, one_hot(labels, n)), (0.0, 0.1)):
            loss, grad = check(x, y, sample_weight=s, label_smoothing=smoothing)
            assert not loss[::2].any()
            assert not grad[::2].any()
            assert loss[1::2].all()

    @pytest.mark.parametrize("n", SIZES)
    def test_classes_of_probability_0(self, n):
        x = oracles.normal((20, n), "float32")
        x[:, 2] = -np.inf
        q = np.zeros((20, n))
        q[:, :2] = 0.25, 0.75
        loss, _ = check(x, q)
        assert np.isfinite(loss).all()
        assert cross_entropy(x, q, label_smoothing=0.1) == np.inf

    def test_infinities_of_both_signs(self):
        """Weights may be negative: so is what an impossible class then costs; of both signs it is undefined."""
        x = np.array([[0.0, -np.inf, 1.0, -np.inf]])
        loss = [cross_entropy(x, q) for q in ([[1, 0, 0, 1]], [[1, 0, 0, -1]], [[0, 1, 0, -1]])]
        np.testing.assert_equal(loss, [np.inf, -np.inf, np.nan])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("special", ["nan", "inf", "-inf"])
def test_slices_whose_softmax_is_nan(dtype, layout, n, special):
    """NaN whatever the weights, in that slice alone; but an ignored slice is 0."""
    rows = oracles.normal((35, n), dtype)
    labels = np.arange(35) % n
    bad = [2, 5, 17]
    if special == "-inf":
        rows[bad] = -np.inf
    else:
        rows[bad, 1] = float(special)
    ignored = np.where(np.arange(35) == 5, -100, labels)
    s = np.linspace(0, 1, 35)
    s[[2, 17]] = 0, 1
    w = np.linspace(0.5, 1, n)
    w[2] = 0
    x, axis = oracles.arrange(rows, layout)
    kinds = {"index": labels, "ignored": ignored, "probabilities": one_hot(labels, n, axis)}
    for (kind, y), smoothing, z_loss in itertools.product(kinds.items(), (0.0, 0.1), (0.0, 0.05)):
        given = {"sample_weight": s, "weight": w, "label_smoothing": smoothing, "z_loss": z_loss}
        loss, grad = cross_entropy_with_grad(x, y, axis, reduction="none", **given)
        exact = oracles_loss.slices(x, y, axis, **given)
        oracles_loss.assert_loss(loss, exact, x.dtype)
        oracles_loss.assert_grad(grad, exact, x.dtype)
        lost = np.isin(np.arange(35), [2, 17] if kind == "ignored" else bad)
        np.testing.assert_array_equal(np.isnan(loss), lost)
        for _ in range(2):
            grad = grad if layout == "rows" else grad.T
            np.testing.assert_array_equal(np.isnan(grad).all(axis=1), lost)
            np.testing.assert_array_equal(np.isnan(grad).any(axis=1), lost)
            # And again from the saved lse: NaN, infinite or -inf where they are lost.
            lse = cross_entropy(x, y, axis, return_lse=True)[1]
            grad = cross_entropy_grad(x, y, axis, lse=lse, reduction="none", **given)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("n", SIZES)
def test_ignored_slices_count_for_nothing_whatever_they_hold(dtype, layout, n):
    rows = oracles.normal((35, n), dtype)
    labels = np.arange(35) % n
    ignored = np.arange(35) % 3 == 1
    w, s, above = np.linspace(0.5, 1.5, n), np.linspace(-1, 2, 35), np.linspace(-2, 2, 35)
    x, axis = oracles.arrange(rows[~ignored], layout)
    for smoothing, z_loss, reduction in itertools.product((0.0, 0.1), (0.0, 0.05), REDUCTIONS):
        given = {"weight": w, "label_smoothing": smoothing, "z_loss": z_loss, "reduction": reduction}
        kept = {"sample_weight": s[~ignored], **given}
        expected = cross_entropy_with_grad(x, labels[~ignored], axis, return_lse=True, **kept)
        kept |= {"lse": expected[2], "grad_output": above[~ignored] if reduction == "none" else 3}
        expected_saved = cross_entropy_grad(x, labels[~ignored], axis, **kept)

        rows[ignored] = np.nan
        every, _ = oracles.arrange(rows, layout)
        lse = np.full(35, np.nan, expected[2].dtype)
        lse[~ignored] = expected[2]
        holes = {"sample_weight": np.where(ignored, np.nan, s), **given}
        y = np.where(ignored, -100, labels)
        loss, grad = cross_entropy_with_grad(every, y, axis, **holes)
        holes |= {"lse": lse, "grad_output": np.where(ignored, np.nan, above) if reduction == "none" else 3}
        saved = cross_entropy_grad(every, y, axis, **holes)
        if reduction == "none":
            assert not loss[ignored].any()
            loss = loss[~ignored]
            oracles.assert_same_bits(loss, expected[0])
        else:  # other slices are beside one another when they are summed
            np.testing.assert_allclose(loss, expected[0], rtol=1e-5)
        for got, same in [(grad, expected[1]), (saved, expected_saved)]:
            got, same = (got, same) if layout == "rows" else (got.T, same.T)
            assert not got[ignored].any()
            tolerance = {"rtol": 0} if reduction != "mean" else {"rtol": 2e-3 if dtype == "float16" else 1e-6}
            np.testing.assert_allclose(got[~ignored], same, **tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_divisor_of_0(dtype):
    """A mean over nothing is 0, not NaN, and so is its gradient."""
    x = oracles.normal((4, 3), dtype)
    x[0, 2] = -np.inf
    labels = np.array([0, 1, 1, 0])
    cases = [
        (np.full(4, -100), {}),
        (np.full(4, -100), {"weight": [1, 2, 3], "sample_weight": [1, 2, 3, 4]}),
        (labels, {"weight": [0, 0, 5]}),
        (labels, {"sample_weight": np.zeros(4)}),
        (labels, {"sample_weight": [1, -1, 2, -2]}),
        (one_hot(labels, 3), {"sample_weight": np.zeros(4)}),
        (one_hot(labels, 3), {"sample_weight": [1, -1, 2, -2]}),
    ]
    for (y, given), smoothing, z_loss in itertools.product(cases, (0.0, 0.1), (0.0, 0.05)):
        given = {**given, "label_smoothing": smoothing, "z_loss": z_loss}
        loss, grad, lse = cross_entropy_with_grad(x, y, return_lse=True, **given)
        assert loss == 0
        assert cross_entropy(x, y, **given) == 0
        for got in (
            grad,
            cross_entropy_grad(x, y, **given),
            cross_entropy_grad(x, y, lse=lse, grad_output=2, **given),
        ):
            np.testing.assert_array_equal(got, np.zeros((4, 3)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis"), [((0, 3), 1), ((3, 0), 0), ((2, 0, 3), 2), ((2, 0), 1), ((0, 0), 1)])
def test_nothing_to_sum(dtype, shape, axis):
    logits = np.zeros(shape, dtype)
    batch = tuple(np.delete(shape, axis))
    given = {"weight": np.ones(shape[axis]), "sample_weight": np.ones(batch), "label_smoothing": 0.1}
    kinds = [np.zeros(shape)] if shape[axis] == 0 else [np.zeros(shape), np.zeros(batch, int)]
    for y, reduction in itertools.product(kinds, REDUCTIONS):
        loss, grad = cross_entropy_with_grad(logits, y, axis, reduction=reduction, **given)
        np.testing.assert_array_equal(loss, np.zeros(batch) if reduction == "none" else 0)
        assert grad.shape == shape
        assert grad.dtype == dtype
        got = cross_entropy_grad(logits, y, axis, reduction=reduction, lse=np.zeros(batch), grad_output=2, **given)
        assert got.shape == shape


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(1,), (20, 1), (1, 20)])
def test_one_class(dtype, shape):
    x, axis = oracles.normal(shape, dtype), 0 if shape[0] == 1 else 1
    labels = np.zeros(np.delete(shape, axis), int)
    for y in (labels, np.full(shape, 0.75)):
        for smoothing, z_loss in itertools.product((0.0, 0.1), (0.0, 0.05)):
            check(x, y, axis, weight=[0.5], label_smoothing=smoothing, z_loss=z_loss)
    # Nothing to choose from: no loss, and nothing to learn, but for z_loss.
    loss, grad = cross_entropy_with_grad(x, labels, axis)
    assert loss == 0
    assert not grad.any()


def test_one_dimensional_logits():
    """One slice: what there is one of per slice is a scalar."""
    logits = np.array([3.0, 1.0, 0.2])
    given = {"weight": [1, 2, 3], "label_smoothing": 0.1, "z_loss": 0.05}
    for y, reduction in itertools.product((1, np.array([0.1, 0.7, 0.2])), REDUCTIONS):
        rows = cross_entropy_with_grad(logits[None], np.asarray(y)[None], sample_weight=[1.5], reduction="sum", **given)
        total = 1 if reduction != "mean" else 3 if np.ndim(y) == 0 else 1.5  # 1.5 w[1]
        for s in (1.5, np.float64(1.5), np.array(1.5)):
            loss, grad, lse = cross_entropy_with_grad(
                logits, y, sample_weight=s, reduction=reduction, return_lse=True, **given
            )
            assert isinstance(loss, np.float64)
            assert isinstance(lse, np.float64)
            np.testing.assert_allclose(loss, rows[0] / total, rtol=1e-15)
            np.testing.assert_allclose(grad, rows[1][0] / total, rtol=1e-14)
            got = cross_entropy_grad(
                logits, y, sample_weight=s, reduction=reduction, lse=lse, grad_output=np.array(2.0), **given
            )
            np.testing.assert_allclose(got, 2 * grad, rtol=1e-14)


def test_one_hot_probabilities_are_index_labels():
    logits = oracles.normal((35, 12), "float64")
    labels = np.arange(35) % 12
    given = {"weight": np.linspace(0.5, 1, 12), "label_smoothing": 0.1, "z_loss": 0.05, "reduction": "none"}
    got = cross_entropy_with_grad(logits, one_hot(labels, 12), **{**given, "z_loss": 0.0})
    for one, other in zip(got, cross_entropy_with_grad(logits, labels, **{**given, "z_loss": 0.0}), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)
    # z_loss counts once for probabilities, w[label] times for an index.
    loss = cross_entropy(logits, one_hot(labels, 12), z_loss=0.05, reduction="none")
    np.testing.assert_allclose(loss, cross_entropy(logits, labels, z_loss=0.05, reduction="none"), rtol=1e-12)


def test_labels_of_the_logits_shape_are_probabilities_whatever_their_dtype():
    """Integers too: nothing but the number of dimensions tells the kinds apart, and -100 is a number there."""
    logits = oracles.normal((4, 4), "float64")
    q = np.array([[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, -1], [0, 0, 0, 0]])
    check(logits, q)
    assert cross_entropy(logits, q, reduction="none")[3] == 0
    np.testing.assert_array_equal(
        cross_entropy(logits, q, ignore_index=2, reduction="none"), cross_entropy(logits, q, reduction="none")
    )
