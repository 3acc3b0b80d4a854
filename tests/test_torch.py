"""fastsoftmax.integrations.torch: gradients, torch.compile, and PyTorch's own loss as the measure of the drop-in."""

import doctest
import itertools
import warnings

import numpy as np
import pytest

import fastsoftmax

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")


from fastsoftmax.integrations import torch as ours  # noqa: E402

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# What PyTorch's own arithmetic loses, in units of the dtype's eps.
EPS = 64


def normal(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def labels_for(logits, axis=1, seed=1):
    shape = [n for d, n in enumerate(logits.shape) if d != axis]
    labels = torch.randint(logits.shape[axis], shape, generator=torch.Generator().manual_seed(seed))
    labels.view(-1)[::5] = -100
    return labels


def close(got, expected, eps=EPS):
    assert got.dtype == expected.dtype
    tolerance = eps * torch.finfo(got.dtype).eps
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


@pytest.fixture(params=[False, True], ids=["apart", "inplace"])
def inplace(request):
    return request.param


class TestNormalized:
    @pytest.mark.parametrize("name", ["softmax", "log_softmax"])
    @pytest.mark.parametrize("axis", [0, 1, -1])
    def test_derivatives(self, name, axis):
        x = normal(3, 4, 2).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: getattr(ours, name)(x, axis), x)
        assert torch.autograd.gradgradcheck(lambda x: getattr(ours, name)(x, axis), x)

    @pytest.mark.parametrize("name", ["softmax", "log_softmax"])
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_values_and_gradients(self, name, dtype):
        x = normal(5, 33, dtype=dtype).requires_grad_()
        above = normal(5, 33, dtype=dtype, seed=2)
        y = getattr(ours, name)(x)
        expected = getattr(fastsoftmax, name)(x.detach())
        assert torch.equal(y, expected)
        y.backward(above)
        assert torch.equal(x.grad, getattr(fastsoftmax, f"{name}_grad")(above, expected))

    def test_one_axis(self):
        for function in (ours.softmax, ours.log_softmax):
            for axis in ((0, 1), None, "a"):
                with pytest.raises(TypeError, match="axis: expected an int, got"):
                    function(normal(2, 3), axis)

    def test_strided(self):
        x = normal(4, 6, 5)[:, ::2].transpose(0, 2).requires_grad_()
        assert torch.equal(ours.softmax(x, 1), fastsoftmax.softmax(x.detach(), 1))
        assert torch.autograd.gradcheck(lambda x: ours.softmax(x, 1), x)


OPTIONS = list(itertools.product(["mean", "sum", "none"], [0.0, 0.1], [False, True], ["indices", "probabilities"]))


class TestCrossEntropy:
    @pytest.mark.parametrize(("reduction", "smoothing", "weighted", "kind"), OPTIONS)
    def test_derivative(self, reduction, smoothing, weighted, kind):
        x = normal(3, 4, 2).requires_grad_()
        labels = labels_for(x) if kind == "indices" else fastsoftmax.softmax(normal(3, 4, 2, seed=3), 1)
        options = {
            "weight": torch.tensor([1.0, 0.5, 2.0, 0.0], dtype=torch.float64) if weighted else None,
            "sample_weight": normal(3, 2, seed=4).abs() if weighted else None,
            "label_smoothing": smoothing,
            "z_loss": 0.02,
            "reduction": reduction,
        }
        assert torch.autograd.gradcheck(lambda x: 1.5 * ours.cross_entropy(x, labels, 1, **options), x)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("reduction", ["mean", "none"])
    @pytest.mark.parametrize("scale", [1.0, 3.0])
    def test_gradients_are_those_of_the_function(self, dtype, reduction, scale, inplace):
        if inplace and dtype == torch.float16:
            pytest.skip("float16 has no gradient in place: see test_refused")
        leaf = normal(6, 40, dtype=dtype).requires_grad_()
        labels = labels_for(leaf)
        loss, grad = fastsoftmax.cross_entropy_with_grad(leaf.detach(), labels, reduction=reduction)
        got = ours.cross_entropy(leaf + 0, labels, reduction=reduction, inplace=inplace)
        assert torch.equal(got, loss)
        (got.sum() * scale).backward()
        if scale == 1 and reduction == "mean":
            assert torch.equal(leaf.grad, grad)
        else:
            torch.testing.assert_close(
                leaf.grad, (grad.double() * scale).to(dtype), rtol=torch.finfo(dtype).eps, atol=0
            )

    def test_memory_in_place(self):
        leaf = normal(4, 9).requires_grad_()
        logits = leaf + 0
        before = logits.data_ptr()
        ours.cross_entropy(logits, labels_for(logits), inplace=True)
        _, grad = fastsoftmax.cross_entropy_with_grad(leaf.detach(), labels_for(leaf))
        assert logits.data_ptr() == before
        assert torch.equal(logits.detach(), grad)
        with torch.no_grad():
            kept = normal(4, 9)
            ours.cross_entropy(kept, labels_for(kept), inplace=True)
        assert torch.equal(kept, normal(4, 9))

    def test_in_place_over_what_a_backward_pass_needs(self):
        leaf = normal(4, 9).requires_grad_()
        loss = ours.cross_entropy(leaf.exp(), labels_for(leaf), inplace=True)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()

    def test_a_second_backward_pass(self, inplace):
        leaf = normal(4, 9).requires_grad_()
        loss = 2 * ours.cross_entropy(leaf + 0, labels_for(leaf), inplace=inplace)
        (first,) = torch.autograd.grad(loss, leaf, retain_graph=True)
        if inplace:
            with pytest.raises(RuntimeError, match="one backward pass: its gradient has been taken"):
                torch.autograd.grad(loss, leaf)
        else:
            assert torch.equal(torch.autograd.grad(loss, leaf)[0], first)

    def test_the_scale_of_a_loss_saves_small_gradients(self):
        """In float16 a mean over many makes numbers that only the scale brings into its range."""
        leaf = normal(4096, 16, dtype=torch.float16).requires_grad_()
        labels = labels_for(leaf)
        (ours.cross_entropy(leaf, labels) * 65536).backward()
        expected = fastsoftmax.cross_entropy_grad(leaf.detach().double(), labels) * 65536
        torch.testing.assert_close(leaf.grad, expected.half(), rtol=2e-3, atol=0)

    def test_no_second_derivative(self, inplace):
        leaf = normal(2, 3).requires_grad_()
        loss = ours.cross_entropy(leaf + 0, torch.tensor([0, 1]), inplace=inplace)
        with pytest.raises(RuntimeError, match="no second derivative: compose the loss of log_softmax"):
            torch.autograd.grad(loss, leaf, create_graph=True)

    def test_two_gradients_are_two(self):
        leaf = normal(4, 9).requires_grad_()
        loss = ours.cross_entropy(leaf + 0, labels_for(leaf))
        first, second = (torch.autograd.grad(loss, leaf, retain_graph=True)[0] for _ in range(2))
        assert torch.equal(first, second)
        first.zero_()
        assert second.any()

    def test_in_place_under_hooks_of_what_is_saved(self):
        leaf = normal(4, 9).requires_grad_()
        with torch.autograd.graph.save_on_cpu():
            loss = 3 * ours.cross_entropy(leaf + 0, labels_for(leaf), inplace=True)
        loss.backward(retain_graph=True)
        expected = fastsoftmax.cross_entropy_grad(leaf.detach(), labels_for(leaf))
        close(leaf.grad, 3 * expected, 2)
        with pytest.raises(RuntimeError, match="one backward pass"):
            loss.backward()

    def test_a_gradient_of_the_logits_keeps_no_graph(self, inplace):
        logits = normal(4, 9).requires_grad_() + 0
        (grad,) = torch.autograd.grad(ours.cross_entropy(logits, labels_for(logits), inplace=inplace), logits)
        assert not grad.requires_grad

    def test_half_precision_has_no_second_derivative_either(self):
        leaf = normal(2, 3, dtype=torch.float16).requires_grad_()
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.grad(ours.cross_entropy(leaf, torch.tensor([0, 1])), leaf, create_graph=True)

    @pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of PyTorch's own
    def test_forward_mode_is_refused(self):
        x = normal(2, 3)
        for function in (ours.softmax, ours.log_softmax, lambda x: ours.cross_entropy(x, torch.tensor([0, 1]))):
            with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
                torch.func.jvp(function, (x,), (x,))
        with pytest.raises(TypeError, match="x: there is no forward-mode derivative"):
            torch.func.jvp(fastsoftmax.softmax, (x,), (x,))

    def test_refused(self):
        leaf = normal(2, 3).requires_grad_()
        labels = torch.tensor([0, 1])
        weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
        with pytest.raises(ValueError, match=r"weight: only the logits get a gradient; pass weight\.detach"):
            ours.cross_entropy(leaf, labels, weight=weight)
        with pytest.raises(ValueError, match="labels: only"):
            ours.cross_entropy(leaf, (leaf * 0 + 1 / 3))
        for own in (leaf, leaf.view(2, 3), leaf.unflatten(0, (2,))):
            with pytest.raises(ValueError, match=r"inplace: .* a leaf"):
                ours.cross_entropy(own, labels, inplace=True)
        negated = torch.complex(leaf, leaf).conj().imag
        with pytest.raises(ValueError, match=r"inplace: .* negates"):
            ours.cross_entropy(negated, labels, inplace=True)
        with pytest.raises(TypeError, match=r"x: expected a tensor of a floating dtype, got torch\.int64"):
            ours.softmax(labels)
        with pytest.raises(TypeError, match=r"logits: expected a tensor of a floating dtype, got numpy\.ndarray"):
            ours.cross_entropy(leaf.detach().numpy(), labels)
        with pytest.raises(TypeError, match=r"labels: expected a tensor, got list"):
            ours.cross_entropy(leaf, [0, 1])
        with pytest.raises(ValueError, match="labels: only"):
            ours.cross_entropy(leaf.detach(), (leaf * 0 + 1 / 3))
        with pytest.raises(ValueError, match=r"inplace: .* float16"):
            ours.cross_entropy(leaf.half(), labels, inplace=True)
        with pytest.raises(IndexError, match="label 3 at position 1 is out of range"):
            ours.cross_entropy(leaf, torch.tensor([0, 3]))
        assert torch.equal(leaf.detach(), normal(2, 3))

    def test_threads_are_pytorchs(self, monkeypatch):
        seen = []
        monkeypatch.setattr(fastsoftmax, "softmax", lambda x, axis, out, n_threads: seen.append(n_threads) or out)
        before = torch.get_num_threads()
        try:
            for n in (1, 2):
                torch.set_num_threads(n)
                ours.softmax(torch.zeros(2))
        finally:
            torch.set_num_threads(before)
        assert seen == [1, min(2, fastsoftmax.get_num_threads())]


class TestOperators:
    """What torch.library asks of an operator: its schema, its fake kernel, and that it can be traced."""

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("name", ["softmax", "log_softmax"])
    def test_normalized(self, name, dtype):
        operators = torch.ops.fastsoftmax
        for x in (normal(3, 4, dtype=dtype), normal(4, 3, dtype=dtype).T, normal(3, 8, dtype=dtype)[:, ::2]):
            for axis in (0, -1):
                torch.library.opcheck(getattr(operators, name).default, (x.detach().requires_grad_(), axis))
                y = getattr(fastsoftmax, name)(x, axis)
                torch.library.opcheck(getattr(operators, f"{name}_grad").default, (x, y, axis))

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("reduction", ["mean", "none"])
    def test_losses(self, dtype, reduction):
        operators = torch.ops.fastsoftmax
        weight = torch.ones(4, dtype=torch.float64)
        for x in (normal(3, 4, 2, dtype=dtype), normal(2, 4, 3, dtype=dtype).transpose(0, 2)):
            rest = (labels_for(x), weight, None, 1, -100, 0.1, 0.01, reduction)
            above = torch.ones(3, 2) if reduction == "none" else torch.tensor(2.0)
            for name in ("cross_entropy", "cross_entropy_with_grad", "cross_entropy_"):
                torch.library.opcheck(getattr(operators, name).default, (x.clone(), *rest))
            torch.library.opcheck(operators.cross_entropy_grad.default, (x, above, *rest))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo's own
def test_in_place_over_a_view_of_a_leaf_while_compiled():
    leaf = torch.zeros(6, requires_grad=True)

    def step(x):
        return ours.cross_entropy(x.view(2, 3), torch.tensor([0, 1]), inplace=True)

    torch.compiler.reset()
    with pytest.raises((ValueError, RuntimeError)):
        torch.compile(step, fullgraph=True, backend="aot_eager")(leaf)
    assert not leaf.any()


# (Dynamo's own; the second of Python 3.13.0.)
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")
class TestCompile:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("strided", [False, True])
    def test_one_graph_with_the_same_bits(self, dtype, inplace, strided):
        if inplace and dtype == torch.float16:
            pytest.skip("float16 has no gradient in place: see test_refused")
        inputs, labels = normal(5, 6, dtype=dtype), labels_for(normal(5, 7))

        def step(weight):
            logits = (weight.T @ inputs.T).T if strided else inputs @ weight
            return (
                2 * ours.cross_entropy(logits, labels, label_smoothing=0.1, inplace=inplace)
                + ours.softmax(weight, 0)[0].sum().float()
                + ours.log_softmax(weight)[1, 2]
            )

        results = []
        torch.compiler.reset()
        for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
            weight = normal(6, 7, dtype=dtype, seed=5).requires_grad_()
            loss = function(weight)
            loss.backward()
            results.append((loss.detach(), weight.grad))
        (loss, grad), (compiled_loss, compiled_grad) = results
        close(compiled_loss, loss, 2)
        close(compiled_grad, grad, 4)


class TestDropIn:
    @pytest.mark.parametrize("shape", [(7,), (5, 7), (4, 7, 3), (2, 7, 3, 2)])
    @pytest.mark.parametrize(("reduction", "smoothing", "weighted", "kind"), OPTIONS)
    def test_pytorchs_values(self, shape, reduction, smoothing, weighted, kind):
        axis = 1 if len(shape) > 1 else 0
        x = normal(*shape).requires_grad_()
        labels = labels_for(x, axis) if kind == "indices" and axis else torch.tensor(3)
        if kind == "probabilities":
            labels = fastsoftmax.softmax(normal(*shape, seed=3), axis)
        weight = normal(7, seed=4).abs() if weighted else None
        arguments = {"weight": weight, "reduction": reduction, "label_smoothing": smoothing}
        results = []
        for module in (torch.nn.CrossEntropyLoss(**arguments), ours.CrossEntropyLoss(**arguments)):
            loss = module(x, labels)
            (grad,) = torch.autograd.grad((loss * 1.25).sum(), x)
            results.append((loss.detach(), grad))
        for expected, got in zip(*results, strict=True):
            close(got, expected)

    def test_arguments(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch's that are out of date
            assert ours.CrossEntropyLoss(size_average=False).reduction == "sum"
        module = ours.CrossEntropyLoss(torch.ones(3), None, 2, None, "sum", 0.1, z_loss=0.01, inplace=True)
        theirs = torch.nn.CrossEntropyLoss(torch.ones(3), None, 2, None, "sum", 0.1)
        assert isinstance(module, torch.nn.CrossEntropyLoss)
        assert repr(module) == repr(theirs)
        assert module.state_dict().keys() == theirs.state_dict().keys()
        assert module.double().weight.dtype == torch.float64
        x, labels = normal(4, 3), torch.tensor([0, 1, 2, 2])
        expected = fastsoftmax.cross_entropy(
            x, labels, weight=torch.ones(3), ignore_index=2, reduction="sum", label_smoothing=0.1, z_loss=0.01
        )
        assert torch.equal(module(x, labels), expected)
        assert ours.CrossEntropyLoss()(x, torch.full((4,), -100)) == 0  # PyTorch's is NaN

    @pytest.mark.parametrize("seed", range(3))
    def test_training_follows_the_same_curve(self, seed):
        """A small classifier on two moons, to the rounding of float32 that steps carry on."""

        def train(loss_of, steps=60):
            torch.manual_seed(seed)
            angle = torch.rand(400) * np.pi
            which = torch.arange(400) % 3
            points = torch.stack([angle.cos() + which, angle.sin() * (1 - which)], 1) + 0.1 * torch.randn(400, 2)
            model = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 3))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
            curve = []
            for step in range(steps):
                batch = slice(step % 4 * 100, step % 4 * 100 + 100)
                optimizer.zero_grad()
                loss = loss_of(model(points[batch]), which[batch])
                loss.backward()
                optimizer.step()
                curve.append(loss.item())
            return np.array(curve)

        theirs = train(torch.nn.CrossEntropyLoss(label_smoothing=0.05))
        assert theirs[-1] < 0.6 * theirs[0]
        for inplace in (False, True):
            curve = train(ours.CrossEntropyLoss(label_smoothing=0.05, inplace=inplace))
            np.testing.assert_allclose(curve, theirs, rtol=1e-4)
            np.testing.assert_allclose(curve[:5], theirs[:5], rtol=1e-6)


@pytest.mark.parametrize("name", ours.__all__)
def test_examples_of_docstrings(name):
    (example,) = [e for e in doctest.DocTestFinder().find(getattr(ours, name), name, globs={}) if e.examples]
    output = []
    runner = doctest.DocTestRunner()
    runner.run(example, out=output.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(output)


def test_import_is_the_users(run_python):
    """The library itself never imports PyTorch, and reads NumPy arrays beside it."""
    run_python("""
        import sys, numpy, fastsoftmax
        fastsoftmax.softmax(numpy.zeros(3))
        assert "torch" not in sys.modules
        import torch
        assert "fastsoftmax.integrations.torch" not in sys.modules
        fastsoftmax.softmax(torch.zeros(3))
        assert "fastsoftmax.integrations.torch" not in sys.modules
    """)
