"""CuPy arrays: the cross-entropy family with every option; the edges are in test_cupy_losses_edges.py."""

import itertools

import numpy as np
import pytest

import fastsoftmax
import gpu as helpers
import oracles
import oracles_loss
from oracles import EXACT_DTYPES, HALVES
from pairwise import all_pairs

REDUCTIONS = ["mean", "sum", "none"]
KINDS = ["index", "ignored", "probabilities"]
DTYPES = [*EXACT_DTYPES, *HALVES]
INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
# Short rows, rows of a warp, of two, of a block and of a cluster; columns of one chunk and of several.
SIZES = [1, 2, 10, 37, 200, 1500, 5000, 20_000]
# What there may be beside logits and labels.
OPTIONS = {"weight": [False, True], "sample_weight": [False, True], "label_smoothing": [0, 0.1], "z_loss": [0, 0.05]}


@pytest.fixture(scope="module")
def gpu(request):
    with helpers.found(request.config) as found:
        yield found


class TestOptions:
    @pytest.mark.parametrize("layout", ["rows", "columns"])
    @pytest.mark.parametrize("n", [10, 300])
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_combination(self, gpu, layout, n, kind):
        logits, labels, axis = helpers.loss_problem(kind, "float32", layout, n)
        for i, values in enumerate(itertools.product(*OPTIONS.values())):
            given = oracles_loss.options(dict(zip(OPTIONS, values, strict=True)), logits, axis)
            for reduction in REDUCTIONS if n == 10 else REDUCTIONS[i % 3 :][:1]:
                helpers.hold_losses(gpu, logits, labels, axis, reduction, given, (*values, reduction))

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("clusters", [True, False])
    def test_pairs_of_everything(self, gpu, dtype, clusters):
        factors = {
            "n": SIZES,
            "layout": ["rows", "columns", "middle"],
            "kind": KINDS,
            "reduction": REDUCTIONS,
            **OPTIONS,
        }
        factors |= {"label_smoothing": [0, 1e-9, 0.1, 1.0], "z_loss": [0, 0.05, -0.3]}
        for chosen in all_pairs(factors):
            logits, labels, axis = helpers.loss_problem(chosen["kind"], dtype, chosen["layout"], chosen["n"])
            given = oracles_loss.options(chosen, logits, axis)
            if clusters:
                helpers.hold_losses(gpu, logits, labels, axis, chosen["reduction"], given, chosen.values())
            elif chosen["n"] == SIZES[-1]:
                with gpu.without_clusters():
                    helpers.hold_losses(gpu, logits, labels, axis, chosen["reduction"], given, chosen.values())

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("smoothing", [0, 0.1])
    def test_off_the_boundary(self, gpu, kind, smoothing):
        """Logits and probabilities whose rows are not at multiples of 16 bytes, one of them or both: the same bits."""
        for n, dtype in itertools.product([8, 64, 1600, 20_000], ["float32", "float16", "float64"]):
            logits, labels, _ = helpers.loss_problem(kind, dtype, n=n, batch=3)
            given = {"label_smoothing": smoothing, "return_lse": True, "reduction": "none"}
            expected = gpu("cross_entropy_with_grad", logits, labels, **given)
            for one, other in [((1, 0), (0, 0)), ((0, 0), (0, 1))]:
                x = gpu.placed(logits, *one)[0]
                y = gpu.placed(labels, *other)[0] if kind == "probabilities" else labels
                for got, same in zip(gpu("cross_entropy_with_grad", x, y, **given), expected, strict=True):
                    oracles.assert_same_bits(got, same)

    @pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float16", "bfloat16", "float32", "float64"])
    def test_probabilities_of_any_dtype(self, gpu, dtype):
        for logits_dtype, layout, n in itertools.product(
            ["float32", "float64", *HALVES], ["rows", "columns"], [10, 1600]
        ):
            logits, labels, axis = helpers.loss_problem("index", logits_dtype, layout, n)
            labels = oracles_loss.one_hot(labels, n, axis)
            if dtype.endswith(("16", "32", "64")) and dtype != "uint64":
                labels = np.abs(labels - 0.1)
            helpers.hold_losses(
                gpu, logits, labels.astype(oracles.dtype_of(dtype)), axis, "mean", {"label_smoothing": 0.1}
            )

    @pytest.mark.parametrize("dtype", INTEGERS)
    def test_labels_of_any_integer(self, gpu, dtype):
        for layout in ("rows", "columns", "middle"):
            logits, labels, axis = helpers.loss_problem("index", "float32", layout, 10)
            expected = gpu("cross_entropy_with_grad", logits, labels, axis)
            for got, same in zip(
                gpu("cross_entropy_with_grad", logits, labels.astype(dtype), axis), expected, strict=True
            ):
                oracles.assert_same_bits(got, same)
            for ignored in {0, 7, int(np.iinfo(dtype).max), -1}:
                some = np.where(np.arange(labels.size).reshape(labels.shape) % 3 == 1, ignored, labels)
                if np.can_cast(np.min_scalar_type(ignored), dtype):
                    helpers.hold_losses(gpu, logits, some.astype(dtype), axis, "mean", {"ignore_index": ignored})

    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_an_upstream_number(self, gpu, reduction):
        """Of any kind, it serves every slice."""
        logits, labels, _ = helpers.loss_problem("index", "float32", batch=35)
        expected = gpu("cross_entropy_grad", logits, labels, reduction=reduction) * np.float32(-1.75)
        for number in (-1.75, np.float32(-1.75), np.array(-1.75), np.array(-1.75, "float16")):
            for weight in (None, np.ones(35)):
                got = gpu(
                    "cross_entropy_grad", logits, labels, reduction=reduction, grad_output=number, sample_weight=weight
                )
                np.testing.assert_allclose(got, expected, rtol=1e-6)

    def test_arguments_in_the_memory_of_out(self, gpu):
        logits, labels, _ = helpers.loss_problem("ignored", "float64", n=300)
        given = {"sample_weight": np.linspace(0.5, 2, 9), "lse": np.linspace(7, 9, 9), "weight": np.linspace(0, 2, 300)}
        expected = gpu("cross_entropy_grad", logits, labels, **given)
        for name, value in [("labels", labels), *given.items()]:
            out = gpu.put(np.zeros((9, 300)))
            inside = out.view(value.dtype).reshape(-1)[301:][: value.size]
            inside[...] = gpu.put(value)
            arguments = {**helpers.on_device(gpu, {"labels": labels, **given}), name: inside}
            fastsoftmax.cross_entropy_grad(gpu.put(logits), out=out, **arguments)
            oracles.assert_same_bits(gpu.get(out), expected)

    def test_sequences(self, gpu):
        """What is no array is taken to the logits' device."""
        logits, labels, _ = helpers.loss_problem("ignored", "float32", n=3)
        given = {"weight": [0.5, 1, 2], "sample_weight": np.linspace(0, 1, 9).tolist(), "reduction": "none"}
        for y in (labels, oracles_loss.one_hot(np.maximum(labels, 0), 3)):
            expected = fastsoftmax.cross_entropy_grad(logits, y, grad_output=labels.tolist(), **given)
            got = gpu("cross_entropy_grad", logits, y.tolist(), grad_output=labels.tolist(), **given)
            np.testing.assert_allclose(got, expected, rtol=1e-5)

    @pytest.mark.parametrize("dtype", EXACT_DTYPES)
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("batch", [257, 8192, 8193, 20_000])
    def test_sums_over_a_large_batch(self, gpu, dtype, kind, batch):
        """Of one launch, of two; a chain of float32 additions would lose hundreds of eps."""
        logits, labels, axis = helpers.loss_problem(kind, dtype, n=3, batch=batch)
        weights = {"weight": np.full(3, 0.7), "sample_weight": np.linspace(1, 1.5, batch)}
        for reduction, given in [("mean", weights), ("mean", {}), ("sum", {"label_smoothing": 0.1})]:
            exact = oracles_loss.reduced(oracles_loss.slices(logits, labels, axis, **given), reduction)
            loss, grad = gpu("cross_entropy_with_grad", logits, labels, axis, reduction=reduction, **given)
            helpers.assert_loss(loss, exact, logits, (batch, reduction))
            helpers.assert_grad(grad, exact, logits, (batch, reduction))


class TestShapes:
    def test_a_single_slice(self, gpu):
        for n in (1, 2, 10, 5000):
            logits = oracles.normal((n,), "float32")
            for label in (n - 1, np.array(n - 1), np.int8(0)):
                for reduction in REDUCTIONS:
                    loss, grad, lse = gpu(
                        "cross_entropy_with_grad", logits, label, reduction=reduction, return_lse=True
                    )
                    assert (loss.shape, lse.shape) == ((), ())
                    exact = oracles_loss.slices(logits, label)
                    helpers.assert_loss(loss, exact, logits)
                    helpers.assert_grad(grad, exact, logits)
            helpers.assert_loss(
                gpu("cross_entropy", logits, np.full(n, 0.25)), oracles_loss.slices(logits, np.full(n, 0.25)), logits
            )

    @pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2])
    def test_many_dimensions(self, gpu, axis):
        for order in ("C", "F"):
            logits = np.asarray(oracles.normal((2, 3, 4, 5), "float32"), order=order)
            shape = tuple(np.delete(logits.shape, axis))
            labels = np.random.default_rng(0).integers(0, logits.shape[axis], shape)
            s = np.linspace(0, 1, labels.size).reshape(shape)
            for y in (labels, oracles_loss.one_hot(labels, logits.shape[axis], axis)):
                helpers.hold_losses(gpu, logits, y, axis, "none", {"sample_weight": s})
            views = gpu.put(logits)[::-1, :, ::-1], gpu.put(labels)
            expected = gpu("cross_entropy", logits[::-1, :, ::-1].copy(), labels, axis, reduction="none")
            got = gpu("cross_entropy", *views, axis, reduction="none")
            np.testing.assert_allclose(got, expected, rtol=1e-5)

    @pytest.mark.parametrize("shape", [(0, 5), (0,), (3, 0), (2, 0, 4)])
    def test_empty(self, gpu, shape):
        logits = np.zeros(shape, "float32")
        for labels in (np.full(shape[:-1], -100), np.zeros(shape)):
            for reduction in REDUCTIONS:
                got = gpu("cross_entropy_with_grad", logits, labels, reduction=reduction, return_lse=True)
                loss, grad, lse = got
                assert loss.shape == (shape[:-1] if reduction == "none" else ())
                assert not loss.any()
                assert grad.shape == shape
                np.testing.assert_array_equal(lse, np.full(shape[:-1], -np.inf))

    @pytest.mark.parametrize("dtype", ["float32", "float64", *HALVES, "int8", "bool"])
    def test_dtypes(self, gpu, dtype):
        x = np.array([[2, 0, 1], [0, 0, 1]]).astype(oracles.dtype_of(dtype))
        result = oracles.result_dtype(x.dtype)
        for reduction in REDUCTIONS:
            loss, grad, lse = gpu("cross_entropy_with_grad", x, [0, 1], reduction=reduction, return_lse=True)
            assert loss.dtype == lse.dtype == (np.float32 if dtype in HALVES else result)
            assert grad.dtype == result
        np.testing.assert_allclose(loss, fastsoftmax.cross_entropy(x, [0, 1], reduction="none"), rtol=1e-6)
