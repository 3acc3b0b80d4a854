"""Cross-entropy with every option, in any combination: values, derivatives, and the bits of the three functions.

The rules at the edges, and what is refused, are in test_cross_entropy_edges.py.
"""

import itertools

import numpy as np
import pytest

import oracles
import oracles_loss
from fastsoftmax import cross_entropy, cross_entropy_grad, cross_entropy_with_grad
from oracles import EXACT_DTYPES, HALVES
from oracles_loss import options, upstream, weights

pytestmark = pytest.mark.usefixtures("backend")

REDUCTIONS = ["mean", "sum", "none"]
KINDS = ["index", "ignored", "probabilities"]
# Short rows, rows, rows of several blocks.
SIZES = [1, 2, 10, 37, 64, 65, 300, 5000]
FACTORS = {
    "kind": KINDS,
    "weight": [False, True],
    "sample_weight": [False, True],
    "label_smoothing": [0.0, 0.1],
    "z_loss": [0.0, 0.05],
}
COMBINATIONS = [dict(zip(FACTORS, levels, strict=True)) for levels in itertools.product(*FACTORS.values())]


def problem(kind, dtype, layout="rows", n=10, batch=None, **kwargs):
    """More than two register blocks of 16 where slices are short."""
    batch = batch or (35 if n < 100 else 9 if n < 1000 else 3)
    return oracles_loss.problem(kind, dtype, layout, n, batch, **kwargs)


@pytest.mark.parametrize("dtype", [*EXACT_DTYPES, *HALVES])
@pytest.mark.parametrize("layout", ["rows", "columns", "middle"])
@pytest.mark.parametrize("n", SIZES)
def test_every_combination(dtype, layout, n):
    # All of them on short rows and, in one dtype, on rows; a fifth of them on each of the other problems.
    full = n == 10 or (n == 300 and dtype == "float32")
    for combination in COMBINATIONS if full else COMBINATIONS[SIZES.index(n) % 5 :: 5]:
        logits, labels, axis = problem(combination["kind"], dtype, layout, n)
        given = options(combination, logits, axis)
        exact = oracles_loss.slices(logits, labels, axis, **given)
        saved = None
        for reduction in REDUCTIONS:
            context = (*combination.values(), reduction)
            arguments = {**given, "reduction": reduction}
            loss, grad, lse = cross_entropy_with_grad(logits, labels, axis, return_lse=True, **arguments)
            expected = oracles_loss.reduced(exact, reduction)
            oracles_loss.assert_loss(loss, expected, logits.dtype, context)
            oracles_loss.assert_grad(grad, expected, logits.dtype, context)
            oracles_loss.assert_lse(lse, expected, logits.dtype, context)
            for got, same in zip(
                cross_entropy(logits, labels, axis, return_lse=True, **arguments), (loss, lse), strict=True
            ):
                oracles.assert_same_bits(got, same)
            oracles.assert_same_bits(cross_entropy_grad(logits, labels, axis, **arguments), grad)

            above = upstream(reduction, lse.shape)
            got = cross_entropy_grad(logits, labels, axis, grad_output=above, **arguments)
            expected = oracles_loss.reduced(exact, reduction, above)
            oracles_loss.assert_grad(got, expected, logits.dtype, (*context, "grad_output"))

            saved = saved or oracles_loss.slices(logits, labels, axis, lse=lse, **given)
            for given_above in (None, above):
                got = cross_entropy_grad(logits, labels, axis, lse=lse, grad_output=given_above, **arguments)
                expected = oracles_loss.reduced(saved, reduction, given_above)
                oracles_loss.assert_grad(got, expected, logits.dtype, (*context, "lse", given_above))


@pytest.mark.parametrize("dtype", [*EXACT_DTYPES, *HALVES])
@pytest.mark.parametrize("layout", ["rows", "columns", "middle"])
@pytest.mark.parametrize("n", [2, 10, 37, 300, 5000])
def test_a_saved_lse_is_taken_at_its_word(dtype, layout, n):
    """It may be that of more classes than are here: of a vocabulary that is shared out over several machines."""
    for kind, smoothing, z_loss in itertools.product(KINDS, [0.0, 0.1], [0.0, 0.05]):
        logits, labels, axis = problem(kind, dtype, layout, n)
        given = {"weight": weights(n), "label_smoothing": smoothing, "z_loss": z_loss}
        lse = cross_entropy(logits, labels, axis, return_lse=True)[1]
        lse += np.random.default_rng(4).uniform(0.1, 3, lse.shape).astype(lse.dtype)
        exact = oracles_loss.slices(logits, labels, axis, lse=lse, **given)
        got = cross_entropy_grad(logits, labels, axis, lse=lse, reduction="none", **given)
        oracles_loss.assert_grad(got, exact, logits.dtype, (kind, smoothing, z_loss))


def test_one_upstream_number_serves_every_slice():
    for kind in KINDS:
        logits, labels, _ = problem(kind, "float32")
        every = cross_entropy_grad(logits, labels, grad_output=np.full(35, -1.75), reduction="none")
        for number in (-1.75, np.float32(-1.75), np.array(-1.75)):
            got = cross_entropy_grad(logits, labels, grad_output=number, reduction="none")
            oracles.assert_same_bits(got, every)


@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("n", [10, 300])
@pytest.mark.parametrize("offset", [-300, 1e4])
def test_an_offset_of_the_logits_costs_no_digits(dtype, layout, n, offset):
    """A loss is a sum of w q (lse - x); were lse and the sum of w q x formed apart, the offset would remain."""
    for kind, smoothing in itertools.product(KINDS, [0.0, 0.1]):
        logits, labels, axis = problem(kind, dtype, layout, n, offset=offset)
        given = {"label_smoothing": smoothing, "weight": weights(n), "reduction": "none"}
        loss, grad = cross_entropy_with_grad(logits, labels, axis, **given)
        del given["reduction"]
        exact = oracles_loss.slices(logits, labels, axis, **given)
        oracles_loss.assert_loss(loss, exact, logits.dtype, (kind, smoothing))
        oracles_loss.assert_grad(grad, exact, logits.dtype, (kind, smoothing))


@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("smoothing", [1e-9, 0.5, 0.999, 1 - 1e-9, 1.0])
def test_smoothing_of_any_size(dtype, kind, smoothing):
    """1 - e is formed of the number that was given, not of its rounding to float32."""
    logits, labels, axis = problem(kind, dtype, n=37)
    exact = oracles_loss.slices(logits, labels, axis, label_smoothing=smoothing)
    loss, grad = cross_entropy_with_grad(logits, labels, axis, label_smoothing=smoothing, reduction="none")
    oracles_loss.assert_loss(loss, exact, logits.dtype)
    oracles_loss.assert_grad(grad, exact, logits.dtype)


@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("z_loss", [-0.3, 1e-30, 1e3])
def test_z_loss_of_any_size(dtype, kind, z_loss):
    logits, labels, axis = problem(kind, dtype, n=37)
    exact = oracles_loss.slices(logits, labels, axis, z_loss=z_loss, weight=weights(37))
    loss, grad = cross_entropy_with_grad(logits, labels, axis, z_loss=z_loss, weight=weights(37), reduction="none")
    oracles_loss.assert_loss(loss, exact, logits.dtype)
    oracles_loss.assert_grad(grad, exact, logits.dtype)


@pytest.mark.parametrize("dtype", [*EXACT_DTYPES, "float16"])
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("kind", KINDS)
def test_sums_over_a_large_batch(dtype, layout, kind):
    """Losses and weights of one sign: a chain of float32 additions would lose hundreds of eps of either sum."""
    logits, labels, axis = problem(kind, dtype, layout, 10, 50_000)
    given = {"weight": np.full(10, 0.7), "sample_weight": np.full(50_000, 1.3), "label_smoothing": 0.1}
    slices = oracles_loss.slices(logits, labels, axis, **given)
    for reduction in ("mean", "sum"):
        exact = oracles_loss.reduced(slices, reduction)
        loss, grad = cross_entropy_with_grad(logits, labels, axis, reduction=reduction, **given)
        oracles_loss.assert_loss(loss, exact, logits.dtype, reduction)
        oracles_loss.assert_grad(grad, exact, logits.dtype, reduction)


@pytest.mark.parametrize("dtype", [*EXACT_DTYPES, *HALVES])
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("n", [2, 10, 37, 300])
@pytest.mark.parametrize("gap", [7, 28, 60])
def test_true_class_keeps_its_digits_when_p_is_near_1(dtype, layout, n, gap):
    """1 - p is 1e-12 at a gap of 28; p - 1 would have lost it whatever the weights."""
    rows = oracles.normal((35, n), dtype, scale=0.5)
    labels = np.arange(35) % n
    rows[np.arange(35), labels] = gap
    logits, axis = oracles.arrange(rows, layout)
    given = {"weight": np.linspace(0.5, 1.5, n), "sample_weight": np.linspace(0.5, 1.5, 35)}
    for left_out in [("weight", "sample_weight"), ("weight",), ("sample_weight",), ()]:
        some = {name: value for name, value in given.items() if name not in left_out}
        slices = oracles_loss.slices(logits, labels, axis, **some)
        for reduction, above in [("none", None), ("none", np.linspace(-1, 1, 35)), ("sum", None), ("mean", 0.3)]:
            exact = oracles_loss.reduced(slices, reduction, above).grad[np.arange(35), labels]
            got = cross_entropy_grad(logits, labels, axis, reduction=reduction, grad_output=above, **some)
            got = (got if layout == "rows" else got.T)[np.arange(35), labels]
            # The halves are computed in float32, whose 8 ulp are a thousandth of theirs at most.
            assert oracles.worst(got, exact) <= (0.51 if got.dtype.itemsize == 2 else 8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("layout", ["rows", "middle"])
def test_pytorch_agrees(kind, reduction, layout):
    torch = pytest.importorskip("torch", reason="PyTorch, which defines these options too, is not installed")
    logits, labels, axis = problem(kind, "float64", layout, 12)
    w = weights(12)
    for weighted, smoothing in itertools.product([False, True], [0.0, 0.2]):
        x = torch.tensor(logits, requires_grad=True)
        loss = torch.nn.functional.cross_entropy(
            x,
            torch.tensor(labels),
            weight=torch.tensor(w) if weighted else None,
            ignore_index=-100,
            label_smoothing=smoothing,
            reduction=reduction,
        )
        above = np.asarray(upstream(reduction, tuple(loss.shape)))
        loss.backward(torch.tensor(above))
        given = {"weight": w if weighted else None, "label_smoothing": smoothing, "reduction": reduction}
        got = cross_entropy(logits, labels, axis, **given)
        np.testing.assert_allclose(got, loss.detach().numpy(), rtol=1e-12, atol=1e-14)
        got = cross_entropy_grad(logits, labels, axis, grad_output=above, **given)
        np.testing.assert_allclose(got, x.grad.numpy(), rtol=1e-12, atol=1e-14)


def test_gradients_are_the_derivatives():
    """By central differences, in one class of every slice at a time: no slice's loss depends on another's logits."""
    h = 1e-5
    for combination in COMBINATIONS:
        logits, labels, axis = problem(combination["kind"], "float64", n=6, batch=11)
        given = options(combination, logits, axis)
        above = upstream("none", (11,))
        grad = cross_entropy_grad(logits, labels, axis, reduction="none", grad_output=above, **given)
        for c in range(6):
            step = np.zeros(6)
            step[c] = h
            more, less = (cross_entropy(logits + d, labels, reduction="none", **given) for d in (step, -step))
            # The rounding of losses of some 10, over h; the third derivative times h^2.
            np.testing.assert_allclose(grad[:, c], above * (more - less) / (2 * h), atol=2e-9, rtol=1e-7)
        for reduction in ("mean", "sum"):
            direction = h * np.random.default_rng(3).normal(size=logits.shape)
            more, less = (
                cross_entropy(x, labels, reduction=reduction, **given) for x in (logits + direction, logits - direction)
            )
            grad = cross_entropy_grad(logits, labels, reduction=reduction, grad_output=-2.5, **given)
            np.testing.assert_allclose(np.vdot(grad, direction), -2.5 * (more - less) / 2, atol=2e-13, rtol=1e-7)


def parts_of_a_batch(slices):
    """A slice alone, a few, all but one, and starts anywhere in a register block of 16."""
    return [slice(1, 2), slice(5, 7), slice(1, 18), slice(7, 33), slice(1, slices), slice(0, slices - 1)]


@pytest.mark.parametrize("dtype", ["float32", "float64", *HALVES])
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("n", [1, 10, 37, 65, 300])
def test_bits_of_a_slice_whatever_the_batch(dtype, layout, n):
    batch = 35
    above = upstream("none", (batch,))
    for combination in COMBINATIONS[3::4] if n > 10 else COMBINATIONS:
        logits, labels, axis = problem(combination["kind"], dtype, layout, n, batch)
        given = {**options(combination, logits, axis), "reduction": "none"}
        expected = cross_entropy_with_grad(logits, labels, axis, return_lse=True, **given)
        saved = {"lse": expected[2], "grad_output": above}
        expected_saved = cross_entropy_grad(logits, labels, axis, **given, **saved)
        for part in parts_of_a_batch(batch):
            cut = (slice(None), part) if layout == "columns" else part
            if layout == "columns" and part.stop - part.start == 1:
                continue  # a lone column, copied, is a row
            some = {name: v[part] if name == "sample_weight" else v for name, v in given.items()}
            y = labels[cut] if combination["kind"] == "probabilities" else labels[part]
            got = cross_entropy_with_grad(logits[cut].copy(), y.copy(), axis, return_lse=True, **some)
            for one, other in zip(got, (expected[0][part], expected[1][cut], expected[2][part]), strict=True):
                oracles.assert_same_bits(one, other)
            some.update({name: v[part] for name, v in saved.items()})
            oracles.assert_same_bits(cross_entropy_grad(logits[cut].copy(), y, axis, **some), expected_saved[cut])


@pytest.mark.parametrize("dtype", ["float32", "float64", *HALVES])
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize(("n", "batch"), [(10, 8000), (300, 200), (20_000, 3)])
def test_bits_whatever_the_threads(dtype, layout, n, batch):
    for kind, reduction in itertools.product(KINDS, ["mean", "none"]):
        logits, labels, axis = problem(kind, dtype, layout, n, batch)
        given = {**options(COMBINATIONS[-1], logits, axis), "reduction": reduction}  # all of them
        expected = cross_entropy_with_grad(logits, labels, axis, return_lse=True, n_threads=1, **given)
        saved = {"lse": expected[2], "grad_output": upstream(reduction, (batch,))}
        expected_saved = cross_entropy_grad(logits, labels, axis, n_threads=1, **given, **saved)
        for n_threads in (2, 64):
            got = cross_entropy_with_grad(logits, labels, axis, return_lse=True, n_threads=n_threads, **given)
            for one, other in zip(got, expected, strict=True):
                oracles.assert_same_bits(one, other)
            got = cross_entropy_grad(logits, labels, axis, n_threads=n_threads, **given, **saved)
            oracles.assert_same_bits(got, expected_saved)
