"""Arrays of other libraries on a GPU: seen as CuPy's without a copy, on their stream, given back as their own.

Without a device PyTorch's tensors are ones of the CPU that say that they are on CUDA.
"""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

import fastsoftmax
import gpu as helpers
import oracles
from libraries import FUNCTIONS, LIBRARIES, example

STREAM = 0x7700


@pytest.fixture(scope="module")
def gpu(request):
    with helpers.found(request.config) as found:
        yield found


class Theirs:
    """An array of a library that speaks DLPack and has a namespace."""

    device = "a GPU of theirs"

    def __init__(self, array):
        self.array = array
        self.streams = []

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __dlpack__(self, *, stream=None, **options):
        self.streams.append(stream)
        return self.array.__dlpack__(stream=stream, **options)

    def __array_namespace__(self, api_version=None):
        return SimpleNamespace(from_dlpack=Theirs)


def as_tuple(results):
    return results if isinstance(results, tuple) else (results,)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_arrays_that_speak_dlpack(gpu, function):
    arguments = example(function)
    expected = as_tuple(gpu(function, **arguments))
    given = {name: Theirs(gpu.put(value)) for name, value in arguments.items()}
    with gpu.cupy.cuda.Stream() as stream:
        got = as_tuple(getattr(fastsoftmax, function)(**given))
    for ours, theirs in zip(got, expected, strict=True):
        assert type(ours) is Theirs
        oracles.assert_same_bits(gpu.get(ours.array), theirs)
    for value in given.values():
        assert set(value.streams) == {stream.ptr}


def test_out(gpu):
    x = example("softmax")["x"]
    memory = gpu.put(np.zeros_like(x))
    out = Theirs(memory)
    assert fastsoftmax.softmax(Theirs(gpu.put(x)), out=out) is out
    oracles.assert_same_bits(gpu.get(memory), gpu("softmax", x))
    with pytest.raises(TypeError, match=r"out: expected a .*Theirs, as the first argument is, got cupy\.ndarray"):
        fastsoftmax.softmax(Theirs(gpu.put(x)), out=memory)


def test_devices_do_not_mix(gpu):
    logits, labels = example("cross_entropy").values()
    with pytest.raises(TypeError, match=r"labels: expected an array on the GPU, as the others are, got numpy\.ndarray"):
        fastsoftmax.cross_entropy(Theirs(gpu.put(logits)), labels)
    with pytest.raises(TypeError, match=r"labels: expected an array on the CPU, as the others are, got .*Theirs"):
        fastsoftmax.cross_entropy(logits, Theirs(gpu.put(labels)))
    expected = gpu("cross_entropy", logits, labels)
    oracles.assert_same_bits(gpu.get(fastsoftmax.cross_entropy(gpu.put(logits), Theirs(gpu.put(labels)))), expected)
    assert gpu.get(fastsoftmax.cross_entropy(Theirs(gpu.put(logits)), labels.tolist()).array) == expected


@pytest.fixture
def on_cuda(gpu, monkeypatch):
    """Give a function that makes a tensor on CUDA of a NumPy array; `streams` and `allocated` record what was asked."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    own = LIBRARIES["torch.Tensor"]
    record = SimpleNamespace(torch=torch, streams=[], allocated=[], kept=[])
    if not gpu.emulated:
        if not torch.cuda.is_available():
            pytest.skip("this PyTorch has no CUDA")
        record.make = lambda x: own.make(x).cuda()
        record.values = lambda x: own.values(x.cpu())
        return record
    cupy, empty = gpu.cupy, torch.empty

    class OnCuda(torch.Tensor):
        device = property(lambda self: torch.device("cuda", 0))

        def record_stream(self, stream):
            record.kept.append(stream)

        def __dlpack_device__(self):
            return (2, 0)

        def __dlpack__(self, *, stream=None, **options):
            record.streams.append(stream)
            values = self.as_subclass(torch.Tensor).numpy()
            memory = cupy.cuda.UnownedMemory(self.data_ptr(), self.untyped_storage().nbytes(), self, 0)
            return cupy.ndarray(values.shape, values.dtype, cupy.cuda.MemoryPointer(memory, 0), values.strides)

    def allocate(size, *, dtype, device):
        assert device == torch.device("cuda", 0)
        record.allocated.append(size)
        return empty(size, dtype=dtype)

    def received(array):
        array.__dlpack__(stream=cupy.cuda.get_current_stream().ptr)
        return torch.from_numpy(array._inside).as_subclass(OnCuda)

    monkeypatch.setattr(torch, "empty", allocate)
    monkeypatch.setattr(torch, "from_dlpack", received)
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda ptr, device: ptr)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=STREAM))
    record.make = lambda x: own.make(x.copy()).as_subclass(OnCuda)
    record.values = lambda x: own.values(x.as_subclass(torch.Tensor))
    return record


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_tensors(gpu, on_cuda, function, dtype):
    arguments = example(function, oracles.dtype_of(dtype))
    expected = as_tuple(gpu(function, **arguments))
    given = {name: on_cuda.make(value) for name, value in arguments.items()}
    launches = len(gpu.cupy.launches) if gpu.emulated else 0
    got = as_tuple(getattr(fastsoftmax, function)(**given))
    for ours, theirs in zip(got, expected, strict=True):
        assert type(ours) is type(next(iter(given.values())))
        assert ours.device.type == "cuda"
        oracles.assert_same_bits(on_cuda.values(ours), theirs)
    if gpu.emulated:
        assert {launch.stream for launch in gpu.cupy.launches[launches:]} == {STREAM}
        assert set(on_cuda.streams) == {STREAM}
        assert on_cuda.allocated
        assert gpu.cupy.cuda.get_current_stream().ptr == 0


def test_tensors_in_place(gpu, on_cuda):
    logits, labels = example("cross_entropy").values()
    loss, grad = gpu("cross_entropy_with_grad", logits, labels)
    x = on_cuda.make(logits)
    got = fastsoftmax.cross_entropy_with_grad(x, on_cuda.make(labels), out=x)
    assert got[1] is x
    oracles.assert_same_bits(on_cuda.values(x), grad)
    oracles.assert_same_bits(on_cuda.values(got[0]), loss)


def test_tensors_beside_arrays_of_another_stream(gpu, on_cuda):
    """What another stream still writes, or still reads, is waited for on the device."""
    logits, labels = example("cross_entropy").values()
    expected = gpu("cross_entropy", logits, labels)
    if gpu.emulated:
        gpu.cupy.waits.clear()
    with gpu.cupy.cuda.Stream() as stream:
        theirs = gpu.put(labels)
        got = fastsoftmax.cross_entropy(on_cuda.make(logits), theirs)
        oracles.assert_same_bits(on_cuda.values(got), expected)
        if gpu.emulated:
            assert gpu.cupy.waits == [(STREAM, stream.ptr)]
            assert on_cuda.kept == []
        got = fastsoftmax.cross_entropy(gpu.put(logits), on_cuda.make(labels))
        oracles.assert_same_bits(gpu.get(got), expected)
        if gpu.emulated:
            assert on_cuda.kept == [stream.ptr]


class Place(NamedTuple):
    """A device of JAX."""

    platform: str


@pytest.fixture
def jax_on_gpu(gpu, monkeypatch):
    """Give a function that makes a JAX array on a GPU of a NumPy array, and one that looks into it."""
    jax = pytest.importorskip("jax", reason="jax is not installed")
    if not gpu.emulated:
        if jax.default_backend() != "gpu":
            pytest.skip("this JAX has no GPU")
        return jax.device_put, np.asarray

    class OnGpu(Theirs):
        __module__ = "jaxlib"
        dtype = property(lambda self: self.array.dtype)

        def devices(self):
            return frozenset([Place("gpu")])

    def bitcast(x, dtype):
        return OnGpu(x.array.view(np.dtype(dtype)))

    stand_in = SimpleNamespace(
        Array=OnGpu,
        core=jax.core,
        numpy=jax.numpy,
        lax=SimpleNamespace(bitcast_convert_type=bitcast),
        dlpack=SimpleNamespace(from_dlpack=OnGpu),
    )
    monkeypatch.setattr("fastsoftmax.adapters.jax.jax", stand_in)
    return (lambda x: OnGpu(gpu.put(x))), (lambda x: gpu.get(x.array))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_arrays_of_jax(gpu, jax_on_gpu, function, dtype):
    make, values = jax_on_gpu
    arguments = example(function, oracles.dtype_of(dtype))
    expected = as_tuple(gpu(function, **arguments))
    given = {name: make(value) for name, value in arguments.items()}
    got = as_tuple(getattr(fastsoftmax, function)(**given))
    for ours, theirs in zip(got, expected, strict=True):
        assert type(ours) is type(next(iter(given.values())))
        oracles.assert_same_bits(values(ours), theirs)


def test_gradients_of_tensors(gpu, on_cuda):
    """The path of training: no look at a number, and the logits' gradient scaled once."""
    if gpu.emulated:
        pytest.skip("autograd of PyTorch asks a real device")
    from fastsoftmax.integrations.torch import cross_entropy

    logits, labels = example("cross_entropy").values()
    leaf = on_cuda.make(logits).requires_grad_()
    (3 * cross_entropy(leaf, on_cuda.make(labels))).backward()
    expected = 3 * gpu("cross_entropy_grad", logits, labels)
    np.testing.assert_allclose(on_cuda.values(leaf.grad), expected, rtol=1e-6)
