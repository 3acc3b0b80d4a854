"""Device memory: allocations of the C library, begun with NaN patterns and as exact as CuPy's are aligned.

NumPy arrays that lie in such memory are the inside of `cupy.ndarray`; whether one does is told by its chain of bases.
"""

import ctypes
import math
import weakref

import numpy as np

from . import cuda
from ._errors import OutOfMemoryError

_libc = ctypes.CDLL(None)
_libc.posix_memalign.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
_libc.free.argtypes = [ctypes.c_void_p]
_libc.free.restype = None

_ALIGNMENT = 512
_KINDS = "?bhilqBHILQefdFD"


class Memory:
    """One allocation of a device."""

    def __init__(self, nbytes):
        pointer = ctypes.c_void_p()
        if _libc.posix_memalign(ctypes.byref(pointer), _ALIGNMENT, nbytes):
            raise OutOfMemoryError(f"out of memory allocating {nbytes} bytes")
        weakref.finalize(self, _libc.free, pointer.value)
        ctypes.memset(pointer.value, 0xFF, nbytes)
        self.device_id = cuda.runtime.getDevice()
        self.size = nbytes
        self.owner = lambda: None  # the array that is no view, while there is one
        self.__array_interface__ = {
            "version": 3,
            "shape": (nbytes,),
            "typestr": "|u1",
            "data": (pointer.value, False),
        }


def checked_dtype(dtype):
    """Give a dtype that CuPy has arrays of."""
    dtype = np.dtype(dtype)
    if dtype.byteorder == ">" or not (dtype.char in _KINDS or dtype.name == "bfloat16" or dtype.fields):
        raise ValueError(f"Unsupported dtype {dtype}")
    return dtype


def allocate(shape, dtype, order="C"):
    """Give an array in memory of its own."""
    dtype = checked_dtype(dtype)
    memory = Memory(math.prod(shape) * dtype.itemsize)
    return np.asarray(memory).view(dtype).reshape(shape, order=order)


def memory_of(array):
    """Give the device memory that a NumPy array lies in; None if it does not."""
    while array is not None and not isinstance(array, Memory):
        array = getattr(array, "base", None)
    return array


def on_device(result):
    """Give what NumPy computed as an array in device memory: a view stays one."""
    result = np.asarray(result)
    if memory_of(result) is not None:
        return result
    copy = allocate(result.shape, result.dtype)
    copy[...] = result
    return copy
