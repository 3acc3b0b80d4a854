"""CuPy arrays: what is refused, in which words, and that nothing is written then; which backend it is."""

import numpy as np
import pytest

import fastsoftmax
import gpu as helpers
import oracles
from oracles import NAMES

GRADIENTS = ["softmax_grad", "log_softmax_grad"]
LOSSES = ["cross_entropy", "cross_entropy_grad", "cross_entropy_with_grad"]


@pytest.fixture(scope="module")
def gpu(request):
    with helpers.found(request.config) as found:
        yield found


X = np.zeros((3, 4), "float32")
# The arrays that each function takes beside the first one, as they may be.
_BESIDE_LOGITS = {"labels": np.zeros(3, int), "weight": X[0], "sample_weight": X[:, 0]}
ARRAYS = {
    "softmax": {"where": X > 0, "out": X},
    "log_softmax": {"where": X > 0, "out": X},
    "logsumexp": {"where": X > 0, "b": X, "out": X[:, 0]},
    "softmax_grad": {"grad_output": X, "where": X > 0, "out": X},
    "log_softmax_grad": {"grad_output": X, "where": X > 0, "out": X},
    "cross_entropy": _BESIDE_LOGITS,
    "cross_entropy_grad": {**_BESIDE_LOGITS, "lse": X[:, 0], "grad_output": X[:, 0], "out": X},
    "cross_entropy_with_grad": {**_BESIDE_LOGITS, "labels": X, "out": X},
}
MIXED = [(function, name) for function, names in ARRAYS.items() for name in names]


def complete(function, given, put=lambda x: x):
    """Add what a function needs to be called on logits, or the like, of shape (3, 4); give the first one's name too."""
    first = {"softmax_grad": "probs", "log_softmax_grad": "log_probs"}.get(function)
    first = first or ("logits" if function in LOSSES else "x")
    rest = {"grad_output": X} if function in GRADIENTS else {}
    rest |= {"labels": np.zeros(3, int), "reduction": "none"} if function in LOSSES else {}
    rest |= {"out": np.full((3, 4), 7, "float32")} if function not in ("logsumexp", "cross_entropy") else {}
    return {name: put(x) for name, x in ({first: X} | rest).items()} | given, first


def refused(gpu, error, function, match=None, **given):
    """Call: nothing may be launched or written. Returns what the error says."""
    given, _ = complete(function, given, gpu.put)
    before = {name: gpu.get(x) for name, x in given.items() if isinstance(x, gpu.cupy.ndarray)}
    count = len(gpu.cupy.launches) if gpu.emulated else 0
    with pytest.raises(error, match=match) as caught:
        getattr(fastsoftmax, function)(**given)
    assert not gpu.emulated or len(gpu.cupy.launches) == count
    for name, x in before.items():
        oracles.assert_same_bits(gpu.get(given[name]), x)
    return str(caught.value)


class TestErrors:
    @pytest.mark.parametrize(("function", "name"), MIXED)
    def test_arrays_of_the_host_among_those_of_a_device(self, gpu, function, name):
        said = refused(gpu, TypeError, function, name, **{name: ARRAYS[function][name]})
        assert "expected an array on the GPU, as the others are, got numpy.ndarray" in said or name == "out"
        assert "got numpy.ndarray" in said

    @pytest.mark.parametrize(("function", "name"), MIXED)
    def test_arrays_of_a_device_among_those_of_the_host(self, gpu, function, name):
        given, _ = complete(function, {name: gpu.put(ARRAYS[function][name])})
        with pytest.raises(TypeError, match=rf"{name}: expected (an array on the CPU|a NumPy array).* got cupy"):
            getattr(fastsoftmax, function)(**given)

    @pytest.mark.parametrize(("function", "name"), MIXED)
    def test_arrays_of_another_device(self, gpu, function, name):
        if not gpu.emulated:
            pytest.skip("one device may be all there is")
        gpu.cupy.emulated.devices = 2
        try:
            with gpu.cupy.cuda.Device(1):
                elsewhere = gpu.put(ARRAYS[function][name])
            said = refused(gpu, ValueError, function, name, **{name: elsewhere})
        finally:
            gpu.cupy.emulated.devices = 1
        # (The first array of the gradients is grad_output, that of their rules the saved one.)
        assert "others are, got one on <CUDA Device" in said

    @pytest.mark.parametrize("function", ARRAYS)
    def test_out(self, gpu, function):
        if function == "cross_entropy":
            return
        shape = (3,) if function == "logsumexp" else (3, 4)
        for wrong in [(4, 3), (12,), (), (1, 3, 4), (4,)]:
            said = refused(gpu, ValueError, function, "out", out=gpu.put(np.full(wrong, 7, "float32")))
            assert str(shape) in said
            assert str(wrong) in said
        for dtype in ("float64", "float16", "int32"):
            said = refused(gpu, TypeError, function, "float32", out=gpu.put(np.full(shape, 7, dtype)))
            assert dtype in said
        same = gpu.cupy.broadcast_to(gpu.put(np.full(1, 7, "float32")), shape)
        refused(gpu, ValueError, function, "overlap", out=same)
        refused(gpu, TypeError, function, "out: expected a cupy.ndarray, got list", out=[0.0])

    @pytest.mark.parametrize("function", [*NAMES, *GRADIENTS])
    def test_where_and_axis(self, gpu, function):
        for wrong in [(4, 3), (2,), (2, 3, 4)]:
            said = refused(gpu, ValueError, function, "where", where=gpu.put(np.ones(wrong, bool)))
            assert str(wrong) in said
        refused(gpu, TypeError, function, "where: expected dtype bool, got int64", where=gpu.put(np.ones(4, "i8")))
        for axis in (2, -3, (0, 2)):
            refused(gpu, np.exceptions.AxisError, function, axis=axis)
        refused(gpu, ValueError, function, "distinct", axis=(0, -2))
        refused(gpu, TypeError, function, "axis", axis=1.0)
        refused(gpu, ValueError, function, "n_threads", n_threads=0)

    @pytest.mark.parametrize("function", ARRAYS)
    @pytest.mark.parametrize("dtype", ["complex64", "complex128"])
    def test_complex_numbers(self, gpu, function, dtype):
        if function == "logsumexp":
            x = oracles.normal((3, 4), "float64") + 1j * oracles.normal((3, 4), "float64", seed=1)
            x = x.astype(dtype)
            for given in ({}, {"axis": 0, "return_sign": True}):
                expected = fastsoftmax.logsumexp(x, **given)
                np.testing.assert_allclose(gpu("logsumexp", x, **given), expected, rtol=1e-5)
            return
        _, first = complete(function, {})
        match = f"{first}: expected a real or integer dtype, got {dtype}"
        refused(gpu, TypeError, function, match, **{first: gpu.put(X.astype(dtype))})

    def test_gradients_of_two_shapes_or_dtypes(self, gpu):
        for function in GRADIENTS:
            said = refused(gpu, ValueError, function, "grad_output", grad_output=gpu.put(np.zeros((4, 3), "f4")))
            assert "(3, 4)" in said
            refused(gpu, TypeError, function, "float32, got float64", grad_output=gpu.put(X.astype("f8")))

    @pytest.mark.parametrize("function", LOSSES)
    def test_losses(self, gpu, function):
        rights = {"weight": (4,), "sample_weight": (3,), "labels": (3,)}
        rights |= {"lse": (3,), "grad_output": (3,)} if function == "cross_entropy_grad" else {}
        for name, right in rights.items():
            for wrong in {(2,), (3, 1), (1, 4), (3, 4, 1), ()} - ({()} if name == "grad_output" else set()):
                said = refused(gpu, ValueError, function, name, **{name: gpu.put(np.ones(wrong, int))})
                assert str(right) in said
                assert str(wrong) in said
        for dtype in ("float32", "bool"):
            refused(gpu, TypeError, function, f"integer dtype .* {dtype}", labels=gpu.put(np.zeros(3, dtype)))
        for given in ({"label_smoothing": 1.5}, {"z_loss": np.inf}, {"reduction": "max"}):
            refused(gpu, ValueError, function, next(iter(given)), **given)
        refused(gpu, TypeError, function, "axis", axis=(0,))

    @pytest.mark.parametrize("function", LOSSES)
    @pytest.mark.parametrize("dtype", ["int8", "int64", "uint8", "uint64"])
    def test_checked_labels(self, gpu, function, dtype):
        """IndexError names the first wrong one, before anything is written."""
        for label in (4, 5, 100, -1, 2**40):
            if not np.can_cast(np.min_scalar_type(label), dtype):
                continue
            labels = np.array([0, label, 9], dtype)
            said = refused(gpu, IndexError, function, labels=gpu.put(labels), validate=True)
            assert said.startswith(f"label {label} at position 1 is out of range: expected 0 to 3")
            given = {"labels": labels.reshape(1, 3), "logits": X[np.newaxis], "out": X[np.newaxis] + 7}
            given = {name: gpu.put(x) for name, x in given.items() if name != "out" or function != "cross_entropy"}
            assert "at position (0, 1)" in refused(gpu, IndexError, function, validate=True, **given)
        good = gpu.put(np.array([0, 3, 3], dtype))
        got = getattr(fastsoftmax, function)(gpu.put(X), good, validate=True)
        expected = getattr(fastsoftmax, function)(gpu.put(X), good)
        for one, same in zip(*(x if isinstance(x, tuple) else (x,) for x in (got, expected)), strict=True):
            oracles.assert_same_bits(gpu.get(one), gpu.get(same))


class TestBackends:
    def test_names(self, gpu, capsys):
        assert fastsoftmax.get_backend("gpu") == "cupy"
        fastsoftmax.show_config()
        assert "gpu backend cupy (in use): CuPy" in capsys.readouterr().out

    def test_each_keeps_to_its_device(self, gpu):
        before = fastsoftmax.get_backend()
        for name in ("cupy", before):
            with fastsoftmax.use_backend(name):
                assert fastsoftmax.get_backend() == before
                assert isinstance(fastsoftmax.softmax(gpu.put(X)), gpu.cupy.ndarray)
                assert isinstance(fastsoftmax.softmax(X), np.ndarray)
