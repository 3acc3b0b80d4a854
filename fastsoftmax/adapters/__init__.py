"""Arrays of other libraries: seen as NumPy's or CuPy's, without a copy where there is a way, and results made theirs.

Each public function looks at its first argument, and calls `adapted` if that is such an array: its library decides what
comes back; the other arguments may be of any library on the same device. (A decorator in front of the functions would
cost every other call the memory and the time of its keywords.)

To add a library, add a file with its `Adapter`, and the name of its module to `_LIBRARIES`.
A library without an adapter of its own is read by the protocols that its arrays have (``protocols``). No library is
imported to recognise its arrays.
"""

from __future__ import annotations

import functools
import importlib
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import numpy as np

from fastsoftmax import _front, _registry
from fastsoftmax._layout import normalize_axes

# Module of an array's type, or one above it -> file of its adapter.
_LIBRARIES = {
    "torch": "torch",
    "jax": "jax",
    "jaxlib": "jax",
    "pandas": "pandas",
    "xarray": "xarray",
    "dask": "dask",
    "numba.cuda": "numba_cuda",
}

_PROTOCOLS = ("__dlpack__", "__array__", "__array_interface__", "__cuda_array_interface__")

_NOTHING = nullcontext()


class Adapter:
    """How a library's arrays become ours, and ours its own."""

    def array(self, x: Any, name: str) -> Any:
        """Give x as a NumPy or CuPy array."""
        raise NotImplementedError

    def like(self, values: Any, x: Any, reduced: tuple[int, ...]) -> Any:
        """Give a result as x is: of its shape but for the reduced axes, which are gone or have size 1."""
        raise NotImplementedError

    def axis(self, x: Any, axis: Any) -> Any:
        """Give the axis that an argument of a public function means."""
        return axis

    def beside(self, y: Any, name: str, x: Any, axes: tuple[int, ...]) -> Any:
        """Give an argument beside x, of a call along axes, in a form that can be read by position."""
        return y

    def writable(self, out: Any, x: Any) -> Any:
        """Give an array that shares the memory of out, which came through `beside`."""
        raise TypeError(f"out: not supported beside a {type_name(x)}; leave it out, or pass arrays of NumPy throughout")

    def written(self, out: Any, x: Any) -> None:
        """Tell out, an argument beside x, that its memory was written to."""

    def around(self, x: Any) -> AbstractContextManager:
        """Give what is to be entered while x, on a GPU, is computed with."""
        return _NOTHING


def adapter_of(x: Any) -> Adapter | None:
    """Give the adapter of an array of another library; None for what is none, or needs none."""
    return _adapter_of_type(type(x))


@functools.cache
def _adapter_of_type(cls: type) -> Adapter | None:
    if _registry.device_of_type(cls) is not None or issubclass(cls, (list, tuple)):
        return None
    for base in cls.__mro__:
        for library, file in _LIBRARIES.items():
            if f"{base.__module__}.".startswith(f"{library}."):
                return _adapter(file)
    return _adapter("protocols") if any(hasattr(cls, protocol) for protocol in _PROTOCOLS) else None


@functools.cache
def _adapter(file: str) -> Adapter:
    return importlib.import_module(f"{__name__}.{file}").ADAPTER


def adapted(function: str, arguments: dict[str, Any]) -> Any:
    """Call a public function, by its name, with its arguments in order, of which the first is another library's."""
    first = next(iter(arguments))
    given, out = arguments[first], arguments.get("out")
    adapter = adapter_of(given)
    arguments["axis"] = adapter.axis(given, arguments["axis"])
    with adapter.around(given):
        x = arguments[first] = adapter.array(given, first)
        axes = normalize_axes(arguments["axis"], x.ndim)[: x.ndim]
        for name, value in arguments.items():
            if name == first or value is None:
                continue
            value = adapter.beside(value, name, given, axes)
            if name == "out":
                arguments[name] = adapter.writable(value, given)
            elif (other := adapter_of(value)) is not None:
                arguments[name] = other.array(value, name)
            else:
                arguments[name] = value
        results = _front.public(function)(**arguments)

        def own(values: Any) -> Any:
            if out is not None and values is arguments["out"]:
                adapter.written(out, given)
                return out
            if values.ndim == 0:
                reduced = tuple(range(x.ndim))
            elif values.ndim < x.ndim or arguments.get("keepdims", False):
                reduced = axes
            else:
                reduced = ()
            return adapter.like(values, given, reduced)

        return tuple(own(values) for values in results) if isinstance(results, tuple) else own(results)


def cupy_for(x: Any) -> ModuleType:
    """Import CuPy for an array on a CUDA device."""
    try:
        import cupy
    except ImportError:
        remedy = 'pip install "fastsoftmax[cuda13]", or [cuda12]'
        raise ImportError(f"{type_name(x)} on a CUDA device needs CuPy: {remedy}") from None
    return cupy


def refuse_more_than(x: Any, b: Any) -> None:
    """Refuse a b whose shape is more than that of x, which has labels: there are none for what b adds."""
    shape = np.shape(b)
    if np.broadcast_shapes(x.shape, shape) != x.shape:
        raise ValueError(f"b: expected a shape that broadcasts to {x.shape}, that of x, got {shape}")


def type_name(x: Any) -> str:
    """Name the type of x as messages do."""
    cls = type(x)
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    return getattr(cls, "type_name", name)
