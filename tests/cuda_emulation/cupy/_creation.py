"""CuPy's functions that make arrays."""

import numpy as np

from . import cuda
from ._array import compute, ndarray, unwrap, wrap
from ._memory import allocate, on_device
from ._records import operations

__all__ = [
    "arange",
    "array",
    "asanyarray",
    "asarray",
    "ascontiguousarray",
    "asnumpy",
    "copy",
    "empty",
    "empty_like",
    "from_dlpack",
    "full",
    "full_like",
    "ones",
    "ones_like",
    "zeros",
    "zeros_like",
]


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    if subok:
        raise NotImplementedError
    if isinstance(obj, ndarray):
        if copy is not True and dtype in (None, obj.dtype) and order in (None, "K") and ndmin <= obj.ndim:
            return obj
        result = obj.astype(obj.dtype if dtype is None else dtype, order=order, copy=True)
    else:
        if isinstance(obj, (list, tuple)) and _holds_arrays(obj):
            return compute(np.stack, [[array(x, dtype, ndmin=ndmin - 1) for x in obj]], {})
        host = np.array(obj, dtype=dtype, order=order or "K", ndmin=ndmin)
        result = ndarray(host.shape, host.dtype.newbyteorder("="), order="F" if host.flags.fnc else "C")
        result._inside[...] = host
        operations.append("array")
    return result.reshape((1,) * (ndmin - result.ndim) + result.shape) if ndmin > result.ndim else result


def _holds_arrays(nested):
    return any(isinstance(x, ndarray) or (isinstance(x, (list, tuple)) and _holds_arrays(x)) for x in nested)


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    return array(a, dtype, copy, order, blocking=blocking)


def asanyarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    return array(a, dtype, copy, order, blocking=blocking)


def ascontiguousarray(a, dtype=None):
    if not isinstance(a, ndarray):
        raise TypeError(f"Argument 'a' has incorrect type (expected cupy.ndarray, got {type(a)})")
    result = a.astype(a.dtype if dtype is None else dtype, order="C", copy=False)
    return result.ravel() if result.ndim == 0 else result


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    if isinstance(a, ndarray):
        return a.get(stream=stream, order=order, out=out, blocking=blocking)
    host = np.asarray(a, order=order)
    if out is None:
        return host
    out[...] = host
    return out


def arange(start, stop=None, step=1, dtype=None):
    start, stop = (0, start) if stop is None else (start, stop)
    return wrap(on_device(np.arange(start, stop, step, dtype)))


def copy(a, order="K"):
    return a.copy(order=order)


def empty(shape, dtype=float, order="C"):
    return ndarray(shape, dtype, order=order)


def from_dlpack(x, *, device=None, copy=None):
    if x.__dlpack_device__()[0] not in (2, 13):
        raise TypeError("CPU arrays cannot be directly imported to CuPy. Use `cupy.array(numpy.from_dlpack(input))`.")
    # The consumer's stream, the legacy default one being 1. In a capsule's stead comes the array itself.
    return x.__dlpack__(stream=cuda.get_current_stream().ptr or 1).view()


def full(shape, fill_value, dtype=None, order="C"):
    if dtype is None:
        dtype = fill_value.dtype if isinstance(fill_value, ndarray) else np.asarray(fill_value).dtype
    result = ndarray(shape, dtype, order=order)
    result.fill(fill_value)
    return result


def zeros(shape, dtype=float, order="C"):
    return full(shape, 0, dtype, order)


def ones(shape, dtype=float, order="C"):
    return full(shape, 1, dtype, order)


def empty_like(prototype, dtype=None, order="K", subok=None, shape=None):
    if subok is not None:
        raise TypeError("subok is not supported yet")
    like = np.empty_like(unwrap(prototype), dtype, order, shape=shape)
    axes = sorted(range(like.ndim), key=lambda axis: -like.strides[axis])
    return wrap(allocate([like.shape[axis] for axis in axes], like.dtype).transpose(np.argsort(axes)))


def full_like(a, fill_value, dtype=None, order="K", subok=None, shape=None):
    result = empty_like(a, dtype, order, subok, shape)
    result.fill(fill_value)
    return result


def zeros_like(a, dtype=None, order="K", subok=None, shape=None):
    return full_like(a, 0, dtype, order, subok, shape)


def ones_like(a, dtype=None, order="K", subok=None, shape=None):
    return full_like(a, 1, dtype, order, subok, shape)
