"""Arrays in Numba's device memory, for as long as a public function has them in hand.

Exactly what those functions ask of an array on a GPU, without CuPy. All that shapes and strides are about is NumPy's
own: an array has a `shadow`, a NumPy array that claims to lie at the device's address, and that nobody reads or writes.
What is computed of entries, kernels compute (``elementwise``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda

from fastsoftmax.backends.numba_cuda import elementwise
from fastsoftmax.backends.numba_cuda.kernels import THREADS
from fastsoftmax.backends.numba_cuda.launches import Memory, address, array_at, interface, launch, power_of_two


class DeviceArray:
    """An array on a device."""

    # What stands beside one in a NumPy expression is left to the operators below.
    __array_ufunc__ = None

    backend = "numba_cuda"  # the one that knows such arrays
    type_name = "numba.cuda.DeviceNDArray"  # for errors

    def __init__(self, shadow: np.ndarray, owner: Any, stream: Any, device: AbstractContextManager) -> None:
        self.shadow = shadow
        self.owner = owner  # of the memory
        self.stream = stream
        self.device = device

    @classmethod
    def of(cls, array: Any) -> DeviceArray:
        """Give a Numba array's memory as such an array."""
        dtype = np.dtype(array.dtype)
        if not dtype.isnative:
            raise TypeError(f"expected an array in the machine's byte order, got {dtype}")
        memory = getattr(array, "gpu_data", None)  # the simulator has none
        device = cuda.gpus[0 if memory is None else memory.context.device.id]
        shadow = _shadow(address(array), tuple(array.shape), tuple(array.strides), dtype)
        return cls(shadow, array, array.stream, device)

    @property
    def numba(self) -> Any:
        """The Numba array of the same memory."""
        with self.device:  # whose context the array is to belong to
            found = array_at(self.data.ptr, self.shape, self.strides, self.dtype, self.owner)
        return (found.view(self.dtype) if found.dtype != self.dtype else found).bind(self.stream)

    shape = property(lambda self: self.shadow.shape)
    strides = property(lambda self: self.shadow.strides)
    dtype = property(lambda self: self.shadow.dtype)
    ndim = property(lambda self: self.shadow.ndim)
    size = property(lambda self: self.shadow.size)
    itemsize = property(lambda self: self.shadow.itemsize)
    flags = property(lambda self: self.shadow.flags)
    data = property(lambda self: SimpleNamespace(ptr=self.shadow.__array_interface__["data"][0]))

    def _seen_as(self, shadow: np.ndarray) -> DeviceArray:
        return DeviceArray(shadow, self.owner, self.stream, self.device)

    def transpose(self, *axes: Any) -> DeviceArray:
        """View with the dimensions in another order."""
        return self._seen_as(self.shadow.transpose(*axes))

    def view(self, dtype: Any) -> DeviceArray:
        """View of the same bytes."""
        return self._seen_as(self.shadow.view(dtype))

    def reshape(self, *shape: Any) -> DeviceArray:
        """View in another shape; a copy where there is none."""
        try:
            return self._seen_as(self.shadow.reshape(*shape, copy=False))
        except ValueError:
            contiguous = self.copy()
            return contiguous._seen_as(contiguous.shadow.reshape(*shape, copy=False))

    def empty(self, shape: Any, dtype: Any, order: Sequence[int] | None = None) -> DeviceArray:
        """Give new memory beside this array's; `order` are the dimensions from the slowest to the fastest."""
        shape = tuple(shape) if isinstance(shape, Sequence) else (shape,)
        dtype = np.dtype(dtype)
        strides, step = [0] * len(shape), dtype.itemsize
        for d in reversed(range(len(shape)) if order is None else order):
            strides[d], step = step, step * max(shape[d], 1)
        owner = cuda.device_array(math.prod(shape) * dtype.itemsize, np.uint8, stream=self.stream)
        return DeviceArray(_shadow(address(owner), shape, tuple(strides), dtype), owner, self.stream, self.device)

    def empty_like(self, dtype: Any = None) -> DeviceArray:
        """Give new memory of this array's shape and order of dimensions."""
        order = sorted(range(self.ndim), key=lambda d: -abs(self.strides[d]))
        return self.empty(self.shape, self.dtype if dtype is None else dtype, order)

    def astype(self, dtype: Any, order: str = "K", copy: bool = True) -> DeviceArray:
        """Copy, converted; order is K or C."""
        if not copy and self.dtype == dtype:
            return self
        return _map("copy", self.empty_like(dtype) if order == "K" else self.empty(self.shape, dtype), self)

    def copy(self, order: str = "C") -> DeviceArray:
        """Copy, in C order unless order is K."""
        return self.astype(self.dtype, order)

    def get(self) -> np.ndarray:
        """Copy to the host, which waits for the device."""
        host = self.copy().numba.copy_to_host(stream=self.stream)
        if self.stream:  # else the copy has waited
            self.stream.synchronize()
        return host

    def __getitem__(self, index: Any) -> Any:
        """Give the array itself for () or an ellipsis, else what is there, on the host."""
        if index is Ellipsis or index == ():
            return self
        return self.get()[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write everywhere, or a number where a mask is true."""
        if isinstance(index, DeviceArray):
            _map("fill_where", self, index, self, value)
        elif isinstance(value, DeviceArray):
            _map("copy", self, value)
        else:
            _map("fill", self, self, None, value)

    def __invert__(self) -> DeviceArray:
        """Logical not."""
        return _map("invert", self.empty_like(), self)

    def __array_function__(self, function: Callable, types: Any, args: tuple, kwargs: dict) -> Any:
        """Call what there is for a function of NumPy."""
        found = _FUNCTIONS.get(function)
        return NotImplemented if found is None else found(self, *args, **kwargs)


def _shadow(pointer: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.asarray(Memory(interface(pointer, shape, strides, dtype), None)).view(dtype)


def _operator(name: str, result: Any = None) -> Callable:
    """Make the method of an operator, whose result is of its first operand's dtype by default."""

    def compute(a: DeviceArray, b: Any) -> DeviceArray:
        shape = np.broadcast_shapes(a.shape, getattr(b, "shape", ()))
        out = a.empty_like(result) if shape == a.shape else a.empty(shape, result or a.dtype)
        return _map(name, out, a, *((b,) if isinstance(b, DeviceArray) else (None, b)))

    return compute


def _in_place(name: str) -> Callable:
    def compute(a: DeviceArray, b: Any) -> DeviceArray:
        return _map(name, a, a, *((b,) if isinstance(b, DeviceArray) else (None, b)))

    return compute


for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(DeviceArray, f"__{_name}__", _operator(_name, np.dtype(np.bool_)))
for _name in ("sub", "mul", "and"):
    setattr(DeviceArray, f"__{_name}__", _operator(_name))
for _name in ("and", "xor"):
    setattr(DeviceArray, f"__i{_name}__", _in_place(_name))


def _merged(shape: tuple[int, ...], strides: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Give dimensions, each its size and its stride in every array, of which no two neighbours could be one."""
    dims: list[tuple[int, ...]] = []
    for size, *steps in zip(shape, *strides, strict=True):
        if size == 1:
            continue
        if dims and all(outer == inner * size for outer, inner in zip(dims[-1][1:], steps, strict=True)):
            dims[-1] = (dims[-1][0] * size, *steps)
        else:
            dims.append((size, *steps))
    return dims


def _map(name: str, out: DeviceArray, a: DeviceArray, b: DeviceArray | None = None, scalar: Any = 0) -> DeviceArray:
    """Write a function of ``elementwise`` of a and b, or of a and a number, to out, and give it."""
    given = [x for x in (a, b, out) if x is not None]
    dims = _merged(out.shape, [np.broadcast_to(x.shadow, out.shape).strides for x in given])
    outer, dims = dims[: -elementwise.RANK], dims[-elementwise.RANK :]
    dims = [(1, *[0] * len(given))] * (elementwise.RANK - len(dims)) + dims
    shape, *strides = zip(*dims, strict=True)
    beside = (a if name != "fill" else out) if b is None else b
    source = elementwise.map_kernel(name, a.dtype.name, beside.dtype.name, out.dtype.name)
    count = math.prod(shape)
    threads = min(THREADS, power_of_two(-(-count // elementwise.PER_THREAD)))
    blocks = -(-count // (threads * elementwise.PER_THREAD))
    for index in np.ndindex(*(size for size, *_ in outer)):
        if not out.size:
            break
        arrays = []
        for k, x in enumerate(given):
            offset = sum(i * steps[k] for i, (_, *steps) in zip(index, outer, strict=True))
            arrays.append(array_at(x.data.ptr + offset, shape, strides[k], x.dtype, x.owner))
        if b is None:
            arrays.insert(1, array_at(0, (0,) * elementwise.RANK, (0,) * elementwise.RANK, beside.dtype))
        launch(source, blocks, threads, out.stream, *arrays[:2], scalar, arrays[-1])
    return out


def _from_host(beside: DeviceArray, values: Any, dtype: Any = None) -> DeviceArray:
    """Copy what NumPy makes an array of numbers of."""
    host = np.asarray(values, dtype)
    if host.dtype.kind not in "biuf":
        raise TypeError(f"expected real numbers beside an array on a GPU, got dtype {host.dtype}")
    # (For the number 0, the default stream, Numba's copies wait for the device.)
    stream = beside.stream or cuda.default_stream()
    owner = cuda.to_device(np.ascontiguousarray(host).reshape(-1), stream=stream)
    shadow = _shadow(address(owner), (host.size,), (host.itemsize,), host.dtype).reshape(host.shape, copy=False)
    return DeviceArray(shadow, owner, beside.stream, beside.device)


def _zeros(beside: DeviceArray, shape: Any, dtype: Any) -> DeviceArray:
    found = beside.empty(shape, dtype)
    found[...] = 0
    return found


# NumPy's functions, which come with an array among their arguments, or as `like`.
_FUNCTIONS = {
    np.asarray: _from_host,
    np.atleast_1d: lambda _, x: x if x.ndim else x.reshape(1),
    np.broadcast_to: lambda _, x, shape: x._seen_as(np.broadcast_to(x.shadow, shape)),
    np.empty: lambda beside, shape, dtype: beside.empty(shape, dtype),
    np.empty_like: lambda _, x, dtype=None: x.empty_like(dtype),
    np.flatnonzero: lambda _, x: np.flatnonzero(x.get()),
    np.may_share_memory: lambda _, a, b: np.may_share_memory(a.shadow, b.shadow),
    np.ndim: lambda _, x: x.ndim,
    np.zeros: _zeros,
}
