"""What every public function checks of its arguments, before anything is computed or written."""

from __future__ import annotations

import operator
from array import array
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import numpy as np

from fastsoftmax import _registry
from fastsoftmax._layout import is_native, same_elements
from fastsoftmax.adapters import adapter_of, type_name

# What np.asarray is asked to read: everything else that is no array of a known library is refused by its type.
_PLAIN_TYPES = (bool, int, float, complex, np.generic, Sequence, array, memoryview)

_NO_DEVICE = nullcontext()


def as_array(x: Any, name: str, beside: Any = None) -> Any:
    """Give x as an array of NumPy or CuPy, of whatever dtype, on the device of the one beside it.

    Lists and numbers are copied there. TypeError for masked arrays, what is no array, and arrays on another device.
    """
    if isinstance(x, np.ma.MaskedArray):
        instead = "x.data and where=~x.mask" if name == "x" else "its data"
        raise TypeError(f"{name}: a masked array's mask would be ignored; pass {instead}")
    if isinstance(x, _PLAIN_TYPES):
        return np.asarray(x) if beside is None or not on_gpu(beside) else np.asarray(x, like=beside)
    array, device = x, _registry.device_of(x)
    if device is None:
        adapter = adapter_of(x)
        if adapter is None:
            raise TypeError(f"{name}: expected an array, a sequence or a number, got {type_name(x)}")
        array = adapter.array(x, name)
        device = _registry.device_of(array)
    if beside is not None and (device == "gpu") != on_gpu(beside):
        expected = "GPU" if on_gpu(beside) else "CPU"
        raise TypeError(f"{name}: expected an array on the {expected}, as the others are, got {type_name(x)}")
    if device == "gpu" and beside is not None:
        _check_device(array, name, beside)
    return array if device == "gpu" else np.asarray(array)


def _check_device(x: Any, name: str, beside: Any) -> None:
    """Refuse an array on another GPU, or of a kind that others do not mix with."""
    if own_backend(x) != own_backend(beside):
        raise TypeError(f"{name}: expected a {type_name(beside)}, as the others are, got {type_name(x)}")
    if x.device != beside.device:
        raise ValueError(f"{name}: expected an array on {beside.device}, as the others are, got one on {x.device}")


def on_device_of(x: Any) -> AbstractContextManager:
    """Make an array's device the current one in a ``with`` block, so that what is made there is on it."""
    return x.device if on_gpu(x) else _NO_DEVICE


def backend_for(x: Any) -> ModuleType:
    """Give the backend in use for an array, or the only one that knows its type."""
    own = own_backend(x)
    return _registry.load(own) if own else _registry.current("gpu" if on_gpu(x) else "cpu")


def own_backend(x: Any) -> str | None:
    """Name the only backend that knows arrays of this type, whose entries NumPy's functions do not compute; or None."""
    return getattr(type(x), "backend", None)


def on_gpu(x: Any) -> bool:
    """Whether x is an array on a GPU."""
    return not isinstance(x, np.ndarray) and _registry.device_of(x) == "gpu"


def as_real(x: Any, name: str, beside: Any = None) -> Any:
    """Give x as an array of a floating dtype, integers and bool as float64."""
    x = as_array(x, name, beside)
    if x.dtype.kind in "biu":
        return x.astype(np.float64)
    # By character: ml_dtypes calls some of its 8-bit floats kind "f" too.
    if x.dtype.char in "efdg" or is_native(x.dtype):
        return x
    raise TypeError(f"{name}: expected a real or integer dtype, got {x.dtype}")


def check_where(where: Any, x: Any, out: Any = None) -> Any:
    """Give where in the shape of x, which it is applied to, apart from out; None if it hides nothing."""
    if where is None or where is True:
        return None
    where = as_array(where, "where", x)
    if where.dtype != np.bool_:
        raise TypeError(f"where: expected dtype bool, got {where.dtype}")
    if type(out) is type(where) and np.may_share_memory(where, out):
        where = where.copy()
    try:
        return np.broadcast_to(where, x.shape)
    except ValueError:
        raise ValueError(f"where: expected a shape that broadcasts to {x.shape}, got {where.shape}") from None


def check_out(out: Any, x: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Refuse an out that is no array as x is, does not fit exactly or cannot be written."""
    if out is None:
        return
    fits = on_gpu(out) if on_gpu(x) else isinstance(out, np.ndarray) and not isinstance(out, np.ma.MaskedArray)
    if not fits:
        expected = type_name(x) if on_gpu(x) else "NumPy array"
        raise TypeError(f"out: expected a {expected}, got {type_name(out)}")
    if on_gpu(x):
        _check_device(out, "out", x)
    if out.dtype != dtype:
        raise TypeError(f"out: expected dtype {dtype}, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"out: expected shape {shape}, got {out.shape}")
    if not getattr(out.flags, "writeable", True):
        raise ValueError("out: expected a writeable array, got a read-only one")
    if _overlaps_itself(out):
        raise ValueError("out: expected distinct elements, got an array whose elements overlap")


def _overlaps_itself(x: np.ndarray) -> bool:
    span = x.itemsize  # of the dimensions so far, which those of larger strides step over
    steps = sorted((abs(stride), size) for stride, size in zip(x.strides, x.shape, strict=True) if size > 1)
    for stride, size in steps:
        if stride < span:
            break
        span += stride * (size - 1)
    else:
        return False
    # Dimensions that interleave may still never meet.
    offsets = np.zeros(1, np.int64)
    for stride, size in steps:
        offsets = np.add.outer(offsets, stride * np.arange(size)).reshape(-1)
    return x.size > 1 and bool(np.diff(np.sort(offsets)).min() < x.itemsize)


def plain(out: Any) -> Any:
    """Give out without a subclass of ndarray's own ways."""
    return out.view(np.ndarray) if isinstance(out, np.ndarray) else out


def result(values: Any, out: Any) -> Any:
    """Give out, filled, if there is one; else the values, a scalar if they are 0-d and NumPy's."""
    if out is None:
        return values[()]
    if values is not out and not same_elements(values, plain(out)):
        plain(out)[...] = values
    return out


def check_index(value: Any, name: str) -> int:
    """Give an int."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an int, got {value!r} of type {type(value).__name__}") from None
