"""`cupy.ndarray`: around a NumPy array in device memory, with CuPy's rules where they differ from NumPy's.

No implicit way leads to the host or back: NumPy's arrays are refused, and results are never NumPy scalars. What waits
for the device is counted.
"""

import warnings
import weakref

import numpy as np

from . import cuda
from ._memory import MemoryPointer, allocate, checked_dtype, memory_of, on_device
from ._records import operations, synchronisations


class Flags:
    """What CuPy knows of an array's layout."""

    def __init__(self, array):
        self.c_contiguous = array._inside.flags.c_contiguous
        self.f_contiguous = array._inside.flags.f_contiguous
        self.owndata = array.base is None

    fnc = property(lambda self: self.f_contiguous and not self.c_contiguous)
    forc = property(lambda self: self.f_contiguous or self.c_contiguous)

    def __getitem__(self, name):
        return {"C_CONTIGUOUS": self.c_contiguous, "F_CONTIGUOUS": self.f_contiguous, "OWNDATA": self.owndata}[name]


# The names of the module, for what NumPy's functions are to call.
public = {}


def wrap(inside):
    """Give the cupy.ndarray of a NumPy array in device memory."""
    array = object.__new__(ndarray)
    array._inside = inside
    memory = memory_of(inside)
    array.base = memory.owner()
    if array.base is None:
        memory.owner = weakref.ref(array)
    return array


def _refuse_host(x):
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {type(x)}")


def unwrap(x):
    """Give what NumPy computes with: arrays from inside, scalars as they are."""
    _refuse_host(x)
    return x._inside if isinstance(x, ndarray) else x


def _is_bfloat16(x):
    return isinstance(x, np.ndarray) and x.dtype.name == "bfloat16"


def compute(function, args, kwargs):
    """Call a function of NumPy on what is inside of arrays; its results are arrays, or out."""
    args = [tuple(map(unwrap, x)) if isinstance(x, (tuple, list)) else unwrap(x) for x in args]
    out = kwargs.get("out")
    kwargs = {name: unwrap(x) for name, x in kwargs.items()}
    name = function.__name__
    with np.errstate(all="ignore"):
        if name in ("sum", "prod", "mean") and _is_bfloat16(args[0]) and out is None:
            result = function(args[0].astype(np.float32), *args[1:], **kwargs).astype(args[0].dtype)
        else:
            result = function(*args, **kwargs)
    if out is not None:
        operations.append(name)
        return out
    if isinstance(result, (tuple, list)):
        return tuple(_delivered(x, name) for x in result)
    return _delivered(result, name)


def _delivered(result, name):
    inside = on_device(result)
    if inside is not result:
        operations.append(name)
    return wrap(inside)


class ndarray:  # noqa: N801
    """An array on a device."""

    __module__ = "cupy"
    __array_priority__ = 100

    def __new__(cls, shape, dtype=float, memptr=None, strides=None, order="C"):
        shape = tuple(shape) if np.iterable(shape) else (shape,)
        if memptr is None:
            return wrap(allocate(shape, dtype, order))
        memory = np.asarray(memptr.mem)[memptr.ptr - memptr.mem.ptr :]
        return wrap(np.ndarray(shape, checked_dtype(dtype), memory, strides=strides, order=order))

    dtype = property(lambda self: self._inside.dtype)
    strides = property(lambda self: self._inside.strides)
    size = property(lambda self: self._inside.size)
    ndim = property(lambda self: self._inside.ndim)
    itemsize = property(lambda self: self._inside.itemsize)
    nbytes = property(lambda self: self._inside.nbytes)
    T = property(lambda self: wrap(self._inside.T))
    real = property(lambda self: wrap(self._inside.real))
    imag = property(lambda self: wrap(self._inside.imag))
    flags = property(Flags)
    device = property(lambda self: self.data.device)

    @property
    def shape(self):
        return self._inside.shape

    @shape.setter
    def shape(self, shape):
        self._inside = self._inside.reshape(shape, copy=False)

    @property
    def data(self):
        memory = memory_of(self._inside)
        return MemoryPointer(memory, self._inside.ctypes.data - memory.ptr)

    @property
    def __cuda_array_interface__(self):
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "descr": self.dtype.descr,
            "stream": cuda.get_current_stream().ptr or 1,
            "version": 3,
            "strides": None if self.flags.c_contiguous else self.strides,
            "data": (self.data.ptr if self.size else 0, False),
        }

    def __dlpack_device__(self):
        return (2, self.device.id)

    def __dlpack__(self, *, stream=None, **options):
        return self  # in a capsule's stead

    def __array__(self, dtype=None):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        function = public.get(ufunc.__name__)
        if method != "__call__" or function is None:
            return NotImplemented
        outs = kwargs.pop("out", ())
        if not all(isinstance(x, _KNOWN) for x in (*inputs, *outs)):
            return NotImplemented
        if outs:
            (kwargs["out"],) = outs
        return function(*inputs, **kwargs)

    def __array_function__(self, function, types, args, kwargs):
        found = public.get(function.__name__)
        if function.__module__ != "numpy" or found in (None, function):
            return NotImplemented
        if not all(issubclass(kind, (ndarray, np.ndarray)) for kind in types):
            return NotImplemented
        return found(*args, **kwargs)

    def get(self, stream=None, order="C", out=None, blocking=True):
        synchronisations.append("get")
        if out is None:
            return self._inside.copy(order=order)
        if not isinstance(out, np.ndarray):
            raise TypeError("Only numpy.ndarray can be obtained fromcupy.ndarray")
        if self.dtype != out.dtype:
            raise TypeError(f"{out.dtype} array cannot be obtained from {self.dtype} array")
        if self.shape != out.shape:
            raise ValueError(f"Shape mismatch. Expected shape: {self.shape}, actual shape: {out.shape}")
        out[...] = self._inside
        return out

    def set(self, arr, stream=None):
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype or arr.shape != self.shape:
            raise ValueError(f"{arr.dtype} {arr.shape} set to {self.dtype} {self.shape}")
        self._inside[...] = arr

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def tobytes(self, order="C"):
        return self.get().tobytes(order)

    def __int__(self):
        return int(self.get())

    def __float__(self):
        return float(self.get())

    def __complex__(self):
        return complex(self.get())

    def __bool__(self):
        if self.size == 1:
            return bool(self.get())
        if self.size == 0:
            warnings.warn("The truth value of an empty array is ambiguous.", DeprecationWarning, stacklevel=2)
            return False
        raise ValueError("The truth value of an array with more than one element is ambiguous. Use a.any() or a.all()")

    def __repr__(self):
        return repr(self.get())

    def __str__(self):
        return str(self.get())

    def __format__(self, specification):
        return format(self.get(), specification)

    __hash__ = None

    def __len__(self):
        if self.ndim == 0:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __iter__(self):
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def __getitem__(self, index):
        index = _inside_index(index)
        if any(np.asarray(x).dtype == bool for x in index if isinstance(x, (list, np.ndarray))):
            synchronisations.append("mask")  # whose elements are counted
        found = self._inside[index]
        if not isinstance(found, np.ndarray):  # an element, of which CuPy gives a view
            found = self._inside[(*index, ...)]
        return _delivered(found, "getitem")

    def __setitem__(self, index, value):
        if not isinstance(value, ndarray):
            value = _scalar(value, self.dtype)
        operations.append("setitem")
        self._inside[_inside_index(index)] = unwrap(value)

    def fill(self, value):
        if isinstance(value, ndarray):
            if value.shape != ():
                raise ValueError("non-scalar cupy.ndarray cannot be used for fill")
            value = value._inside
        else:
            value = _scalar(value, self.dtype)
        operations.append("fill")
        self._inside[...] = value

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        if casting is not None or subok is not None:
            raise TypeError("casting is not supported yet" if casting is not None else "subok is not supported yet")
        dtype = checked_dtype(dtype)
        with np.errstate(all="ignore"):
            result = self._inside.astype(dtype, order=order or "K", copy=copy)
        if result is self._inside:
            return self
        operations.append("astype")
        return _laid_out(result)

    def copy(self, order="C"):
        return self.astype(self.dtype, order=order)

    def view(self, dtype=None, type=None):
        if type is not None:
            raise NotImplementedError("subclasses")
        return wrap(self._inside.view() if dtype is None else self._inside.view(dtype))


def _laid_out(result):
    """Give a new array with the memory order that NumPy's has."""
    axes = sorted(range(result.ndim), key=lambda axis: -abs(result.strides[axis]))
    inside = allocate([result.shape[axis] for axis in axes], result.dtype).transpose(np.argsort(axes))
    inside[...] = result
    return wrap(inside)


def _scalar(value, dtype):
    value = np.asarray(value, dtype=dtype)
    if value.shape != ():
        raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
    return value[()]


def _inside_index(index):
    return tuple(x._inside if isinstance(x, ndarray) else x for x in (index if isinstance(index, tuple) else (index,)))


# What a ufunc takes, or refuses by itself.
_KNOWN = (ndarray, np.ndarray, np.generic, bool, int, float, complex)
