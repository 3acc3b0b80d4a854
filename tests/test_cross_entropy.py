"""Cross-entropy of index labels and its gradient, unweighted: values, labels, special logits."""

import re

import numpy as np
import pytest

import fastsoftmax
import oracles
from fastsoftmax import cross_entropy, cross_entropy_grad, cross_entropy_with_grad
from oracles import EXACT_DTYPES, HALVES

pytestmark = pytest.mark.usefixtures("backend")

FUNCTIONS = [cross_entropy, cross_entropy_grad, cross_entropy_with_grad]
SIZES = [1, 2, 3, 9, 10, 15, 16, 17, 31, 33, 63, 64, 65, 100, 257, 1000, 4097, 40_000]
INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


def problem(dtype, layout="rows", batch=35, n=10, seed=0, **kwargs):
    rows = oracles.normal((batch, n), dtype, seed=seed, **kwargs)
    logits, axis = oracles.arrange(rows, layout)
    shape = np.delete(logits.shape, axis)
    return logits, np.random.default_rng(seed).integers(0, n, shape), axis


def check_gradient(grad, exact):
    assert grad.shape == exact.shape
    assert oracles.worst(grad, exact) <= (0.51 if grad.dtype.itemsize == 2 else 4)


@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("layout", ["rows", "columns", "middle"])
@pytest.mark.parametrize("n", SIZES)
def test_against_exact_values(dtype, layout, n):
    logits, labels, axis = problem(dtype, layout, 35 if n < 300 else 3, n, seed=n)
    exact_loss, exact_grad, exact_lse = oracles.cross_entropy(logits, labels, axis)
    m, log1p_r = oracles.logsumexp_parts(logits, axis)

    loss, lse = cross_entropy(logits, labels, axis, reduction="none", return_lse=True)
    grad = cross_entropy_grad(logits, labels, axis, reduction="none")
    both = cross_entropy_with_grad(logits, labels, axis, reduction="none", return_lse=True)
    assert len(both) == 3
    for got in (loss, cross_entropy(logits, labels, axis, reduction="none"), both[0]):
        assert got.dtype == dtype
        assert got.shape == labels.shape
        assert oracles.worst(got, exact_loss) <= 4
    for got in (grad, both[1], cross_entropy_with_grad(logits, labels, axis, reduction="none")[1]):
        assert got.dtype == dtype
        check_gradient(got, exact_grad)
    for got in (lse, both[2]):
        assert got.dtype == dtype
        assert np.all(np.abs(got - exact_lse) <= 4 * np.finfo(dtype).eps * (np.abs(m) + log1p_r))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("n", [1, 3, 10, 17, 40, 300, 5000])
def test_half_precision(dtype, layout, n):
    logits, labels, axis = problem(dtype, layout, 20, n)
    exact_loss, exact_grad, _ = oracles.cross_entropy(logits, labels, axis)
    loss, grad = cross_entropy_with_grad(logits, labels, axis, reduction="none")
    assert loss.dtype == np.float32
    assert oracles.worst(loss, exact_loss) <= 4
    check_gradient(grad, exact_grad)
    check_gradient(cross_entropy_grad(logits, labels, axis, reduction="none"), exact_grad)


@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("layout", ["rows", "columns", "middle"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("n_ignored", [0, 7])
@pytest.mark.parametrize(("batch", "n"), [(1, 10), (33, 10), (40, 70), (20_000, 10), (3, 5000)])
def test_reductions(dtype, layout, reduction, n_ignored, batch, n):
    logits, labels, axis = problem(dtype, layout, batch, n)
    exact_loss, exact_grad, _ = oracles.cross_entropy(logits, labels, axis)
    ignored = np.zeros(labels.shape, bool)
    ignored.flat[:n_ignored] = labels.size > n_ignored
    labels[ignored] = -100
    divisor = np.sum(~ignored) if reduction == "mean" else 1
    exact_loss = np.where(ignored, 0, exact_loss).sum() / divisor
    exact_grad = np.where(np.expand_dims(ignored, axis), 0, exact_grad) / divisor
    eps = np.finfo(dtype).eps
    loss, grad = cross_entropy_with_grad(logits, labels, axis, reduction=reduction)
    assert isinstance(loss, np.dtype(dtype).type)
    for got in (loss, cross_entropy(logits, labels, axis, reduction=reduction)):
        assert abs(got - exact_loss) <= 8 * eps * exact_loss
    for got in (grad, cross_entropy_grad(logits, labels, axis, reduction=reduction)):
        # The division by the number of slices may cost one rounding more.
        assert oracles.worst(got, exact_grad) <= 5


def test_mean_is_the_default_reduction():
    logits, labels, _ = problem("float64")
    assert cross_entropy(logits, labels) == cross_entropy(logits, labels, reduction="mean")
    mean, total = (cross_entropy_grad(logits, labels, reduction=r) for r in ("mean", "sum"))
    np.testing.assert_array_equal(cross_entropy_grad(logits, labels), mean)
    np.testing.assert_allclose(mean * 35, total, rtol=1e-15)


def test_one_dimensional_logits_take_a_scalar_label():
    logits = np.array([3.0, 1.0, 0.2])
    for label in (1, np.int8(1), np.array(1)):
        for reduction in ("mean", "sum", "none"):
            loss, grad = cross_entropy_with_grad(logits, label, reduction=reduction)
            assert isinstance(loss, np.float64)
            assert loss == pytest.approx(-np.log(0.11314284146556), rel=1e-13)
            np.testing.assert_allclose(grad, [0.8360188, 0.11314284 - 1, 0.05083836], atol=5e-8)
    _, lse = cross_entropy(logits, 1, return_lse=True)
    assert lse == fastsoftmax.logsumexp(logits)
    assert cross_entropy(logits, -100) == 0


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3, np.int64(1)])
def test_every_axis(axis):
    logits = oracles.normal((3, 4, 5), "float32")
    labels = np.random.default_rng(0).integers(0, logits.shape[axis], np.delete((3, 4, 5), axis))
    exact_loss, exact_grad, _ = oracles.cross_entropy(logits, labels, axis)
    loss, grad = cross_entropy_with_grad(logits, labels, axis, reduction="none")
    assert oracles.worst(loss, exact_loss) <= 4
    check_gradient(grad, exact_grad)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_label_dtypes(dtype, layout):
    logits, labels, axis = problem("float32", layout)
    expected = cross_entropy_grad(logits, labels, axis)
    other = labels.astype(dtype)
    spread = np.zeros((35, 3), dtype)
    spread[:, 1] = labels
    for same in (other, other.astype(other.dtype.newbyteorder()), spread[:, 1], other[::-1][::-1]):
        oracles.assert_same_bits(cross_entropy_grad(logits, same, axis), expected)
        np.testing.assert_array_equal(same, labels)
    oracles.assert_same_bits(cross_entropy_grad(logits, labels.tolist(), axis), expected)


def test_label_layouts():
    logits = oracles.normal((6, 7, 4), "float32")
    labels = np.random.default_rng(0).integers(0, 4, (6, 7))
    expected = cross_entropy(logits, labels, reduction="none")
    read_only = labels.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + labels.tobytes(), labels.dtype, offset=1).reshape(6, 7)
    for same in (np.asfortranarray(labels), read_only, unaligned, np.flip(np.flip(labels).copy())):
        oracles.assert_same_bits(cross_entropy(logits, same, reduction="none"), expected)
    one = cross_entropy(logits, np.broadcast_to(labels[:1, :1], (6, 7)), reduction="none")
    equal = labels == labels[0, 0]
    np.testing.assert_array_equal(one[equal], expected[equal])


@pytest.mark.parametrize(
    ("label_dtype", "ignore_index"),
    [
        ("int64", -100),
        ("int8", -100),
        ("int64", -1),
        ("int32", 3),  # one of the classes
        ("uint8", 3),
        ("int64", 10),  # the first beyond them
        ("uint8", 255),
        ("uint64", 2**64 - 1),
        ("int64", -(2**63)),
    ],
)
@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_ignore_index(label_dtype, ignore_index, layout):
    logits, labels, axis = problem("float64", layout)
    labels[labels == ignore_index] = 0
    exact_loss, exact_grad, _ = oracles.cross_entropy(logits, labels, axis)
    ignored = np.arange(35) % 3 == 1
    labels = labels.astype(label_dtype)
    labels[ignored] = ignore_index
    options = {"ignore_index": ignore_index, "reduction": "none"}
    loss, grad = cross_entropy_with_grad(logits, labels, axis, **options)
    np.testing.assert_allclose(loss, np.where(ignored, 0, exact_loss).astype(float), rtol=1e-14)
    exact_grad = np.where(np.expand_dims(ignored, axis), 0, exact_grad).astype(float)
    np.testing.assert_allclose(grad, exact_grad, rtol=1e-14)
    mean = cross_entropy(logits, labels, axis, ignore_index=ignore_index)
    assert mean == pytest.approx(loss.sum() / 23, rel=1e-14)


@pytest.mark.parametrize("label_dtype", ["int8", "uint8", "int64"])
def test_ignore_index_that_no_label_can_hold(label_dtype):
    logits, labels, _ = problem("float32")
    expected = cross_entropy(logits, labels)
    for ignore_index in (300, -129, 2**62):
        got = cross_entropy(logits, labels.astype(label_dtype), ignore_index=ignore_index)
        assert got == expected


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("shape", [(5, 3), (0, 3), (2, 0)])
def test_nothing_to_average(dtype, shape):
    """All labels ignored, or an empty batch, or no class at all: 0, where PyTorch gives NaN."""
    logits = np.full(shape, np.nan, dtype)
    labels = np.full(shape[0], -100)
    for reduction in ("mean", "sum"):
        loss, grad = cross_entropy_with_grad(logits, labels, reduction=reduction)
        assert loss == 0
        assert cross_entropy(logits, labels, reduction=reduction) == 0
        np.testing.assert_array_equal(grad, np.zeros(shape))
    loss = cross_entropy(logits, labels, reduction="none")
    np.testing.assert_array_equal(loss, np.zeros(shape[0]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("n", [3, 10, 40, 300, 5000])
@pytest.mark.parametrize("special", [np.nan, np.inf])
def test_slices_with_nan_or_infinity(dtype, layout, n, special):
    rows = oracles.normal((20, n), dtype)
    labels = np.arange(20) % n
    logits, axis = oracles.arrange(rows, layout)
    finite = cross_entropy_grad(logits, labels, axis, reduction="none")
    rows[[2, 5], labels[[2, 5]]] = special  # one slice counts, the other is ignored
    labels[5] = -100
    logits, axis = oracles.arrange(rows, layout)
    loss, grad = cross_entropy_with_grad(logits, labels, axis, reduction="none")
    assert np.isnan(loss[2])
    assert np.isnan(cross_entropy(logits, labels, axis))
    assert np.isfinite(np.delete(loss, 2)).all()
    grad, finite = (grad, finite) if axis else (grad.T, finite.T)
    assert np.isnan(grad[2]).all()
    assert loss[5] == 0
    assert not grad[5].any()
    np.testing.assert_array_equal(np.delete(grad, [2, 5], 0), np.delete(finite, [2, 5], 0))
    labels[2] = -100
    assert np.isfinite(cross_entropy(logits, labels, axis))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [2, 10, 40, 300, 5000])
def test_logits_of_minus_infinity(dtype, n):
    logits = np.zeros((3, n), dtype)
    logits[0, 0] = logits[1, 0] = -np.inf
    logits[2] = -np.inf
    loss, grad = cross_entropy_with_grad(logits, [1, 0, 0], reduction="none")
    # An impossible class that is not the label costs nothing; one that is costs everything.
    assert loss[0] == pytest.approx(np.log(n - 1), rel=1e-6)
    assert loss[1] == np.inf
    assert grad[0, 0] == 0
    assert grad[1, 0] == -1
    np.testing.assert_allclose(grad[1, 1:], np.full(n - 1, 1 / (n - 1)), rtol=1e-6)
    assert np.isnan(loss[2])
    assert np.isnan(grad[2]).all()


class TestGradient:
    @pytest.mark.parametrize("dtype", ["float32", "float64", *HALVES])
    @pytest.mark.parametrize("gap", [3, 7, 12, 20, 30, 60])
    @pytest.mark.parametrize("n", [2, 10, 40, 1000])
    def test_true_class_keeps_its_digits_when_p_is_near_1(self, dtype, gap, n):
        """p - 1 would have lost them: at p = 0.999 all of them in bfloat16."""
        mpmath = pytest.importorskip("mpmath", reason="judges the gradient: not installed")
        row = np.linspace(-gap, -gap - 2, n).astype(oracles.dtype_of(dtype))
        row[n // 2] = 0
        with mpmath.workdps(50):
            others = mpmath.fsum(mpmath.exp(float(v)) for v in np.delete(row, n // 2))
            exact = np.longdouble(mpmath.nstr(-others / (1 + others), 30))
        for batch in (1, 20):
            logits, labels = np.tile(row, (batch, 1)), np.full(batch, n // 2)
            for axis, x in [(1, logits), (0, logits.T.copy())]:
                grad = cross_entropy_with_grad(x, labels, axis, reduction="none")[1]
                alone = cross_entropy_grad(x, labels, axis, reduction="none")
                for got in (grad, alone):
                    true = got[:, n // 2] if axis else got[n // 2]
                    check_gradient(true, np.full(batch, exact))

    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_finite_differences(self, axis, reduction):
        logits = oracles.normal((3, 4, 5), "float64", scale=2.0)
        labels = np.random.default_rng(1).integers(0, logits.shape[axis], np.delete((3, 4, 5), axis))
        labels.flat[2] = -100
        grad = cross_entropy_grad(logits, labels, axis, reduction=reduction)
        numeric = np.empty_like(logits)
        for index in np.ndindex(logits.shape):
            step = np.zeros_like(logits)
            step[index] = 1e-5
            up, down = (cross_entropy(logits + sign * step, labels, axis, reduction=reduction) for sign in (1, -1))
            numeric[index] = (up - down) / 2e-5
        np.testing.assert_allclose(grad, numeric, rtol=1e-6, atol=1e-9)

    def test_against_mpmath(self):
        mpmath = pytest.importorskip("mpmath", reason="judges the gradient: not installed")
        logits, labels, _ = problem("float64", batch=4, n=30)
        loss, grad = cross_entropy_with_grad(logits, labels, reduction="none")
        with mpmath.workdps(50):
            for row, label, one_loss, one_grad in zip(logits, labels, loss, grad, strict=True):
                e = [mpmath.exp(mpmath.mpf(float(v))) for v in row]
                total = mpmath.fsum(e)
                assert abs(one_loss + mpmath.log(e[label] / total)) <= 4 * np.spacing(one_loss)
                for i, got in enumerate(one_grad):
                    exact = (-(total - e[label]) if i == label else e[i]) / total
                    assert abs(got - exact) <= 4 * np.spacing(abs(float(exact)))

    @pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
    def test_against_pytorch(self, reduction):
        torch = pytest.importorskip("torch", reason="compares with PyTorch: not installed")
        logits, labels, _ = problem("float64")
        labels[:4] = -100
        theirs = torch.tensor(logits, requires_grad=True)
        expected = torch.nn.functional.cross_entropy(theirs, torch.tensor(labels), reduction=reduction)
        expected.sum().backward()
        loss, grad = cross_entropy_with_grad(logits, labels, reduction=reduction)
        np.testing.assert_allclose(loss, expected.detach().numpy(), rtol=1e-13)
        np.testing.assert_allclose(grad, theirs.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("function", [cross_entropy_grad, cross_entropy_with_grad])
@pytest.mark.parametrize("dtype", ["float32", "float64", *HALVES])
@pytest.mark.parametrize("layout", ["rows", "columns", "middle"])
@pytest.mark.parametrize(("batch", "n"), [(1, 10), (40, 10), (7, 50), (3, 5000), (3, 300_000)])
def test_in_place(function, dtype, layout, batch, n):
    logits, labels, axis = problem(dtype, layout, batch, n)
    before = logits.copy()
    expected = function(logits, labels, axis)
    np.testing.assert_array_equal(logits, before)  # overwritten only when asked to
    got = function(logits, labels, axis, out=logits)
    if function is cross_entropy_with_grad:
        oracles.assert_same_bits(got[0], expected[0])
        got, expected = got[1], expected[1]
    assert got is logits
    oracles.assert_same_bits(got, expected)


@pytest.mark.parametrize("out_of", [np.asfortranarray, lambda x: np.repeat(x, 2, -1)[..., ::2]])
@pytest.mark.parametrize("axis", [0, 1])
def test_out_of_another_layout(out_of, axis):
    logits, labels, _ = problem("float32", batch=35, n=35)
    out = out_of(np.zeros_like(logits))
    _, grad = cross_entropy_with_grad(logits, labels, axis, reduction="none", out=out)
    assert grad is out
    check_gradient(out, oracles.cross_entropy(logits, labels, axis)[1])


@pytest.mark.parametrize("validate", [None, True, False])
def test_right_labels_pass_whatever_validate_says(validate):
    logits, labels, _ = problem("float64")
    assert cross_entropy(logits, labels, validate=validate) == cross_entropy(logits, labels)


class TestLabelErrors:
    @pytest.mark.parametrize("function", [cross_entropy, cross_entropy_grad, cross_entropy_with_grad])
    @pytest.mark.parametrize("dtype", ["int64", "int8", "uint8", "uint64"])
    @pytest.mark.parametrize(
        ("shape", "axis", "position", "label"),
        [
            ((13,), 0, (), 77),
            ((9, 13), 1, (5,), 77),
            ((13, 9), 0, (8,), 13),
            ((9, 13), 1, (0,), 13),
            ((4, 6, 13), -1, (1, 2), 77),
            ((4, 13, 6), 1, (3, 5), -1),
            ((200_000, 13), -1, (123_456,), 77),
        ],
    )
    def test_label_out_of_range(self, function, dtype, shape, axis, position, label):
        if label < 0 and dtype.startswith("u"):
            label = np.iinfo(dtype).max  # above the range of int64 where it is uint64
        logits = np.full(shape, 2.0, "float32")
        labels = np.zeros(np.delete(shape, axis), dtype)
        labels[position] = label
        if labels.ndim:
            labels.flat[-1] = labels[position]  # a later one is not the one to name
        kwargs = {} if function is cross_entropy else {"out": logits}
        with pytest.raises(IndexError) as caught:
            function(logits, labels, axis, **kwargs)
        numbers = " ".join(re.findall(r"-?\d+", str(caught.value)))
        for named in [position, (label,), (13,)]:
            assert " ".join(map(str, named)) in numbers
        assert np.all(logits == 2), "written to before the labels were checked"

    def test_the_position_is_not_the_one_among_ignored_labels(self):
        labels = np.array([-100, -100, 0, 5, -100, 7])
        with pytest.raises(IndexError) as caught:
            cross_entropy(np.zeros((6, 3)), labels)
        assert {"3", "5"} <= set(re.findall(r"\d+", str(caught.value)))

    def test_minus_100_is_a_label_like_others_when_not_ignored(self):
        with pytest.raises(IndexError, match="-100"):
            cross_entropy(np.zeros((2, 3)), [0, -100], ignore_index=-1)

    @pytest.mark.parametrize("shape", [(4,), (6,), (1, 5, 1), (5, 3, 1), ()])
    def test_wrong_shape(self, shape):
        with pytest.raises(ValueError, match=r"\(5,\)") as caught:
            cross_entropy(np.zeros((5, 3)), np.zeros(shape, int))
        assert str(shape) in str(caught.value)

    @pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "object", "<U1"])
    def test_wrong_dtype(self, dtype):
        with pytest.raises(TypeError, match="label") as caught:
            cross_entropy(np.zeros((5, 3)), np.zeros(5, dtype))
        assert any(word in str(caught.value) for word in (dtype, np.dtype(dtype).name))
