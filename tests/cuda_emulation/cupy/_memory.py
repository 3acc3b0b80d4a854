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
        self._describe(pointer.value, nbytes, cuda.runtime.getDevice())

    def _describe(self, ptr, nbytes, device_id):
        self.ptr = ptr
        self.size = nbytes
        self.device_id = device_id
        self.owner = lambda: None  # the array that is no view, while there is one
        self.__array_interface__ = {"version": 3, "shape": (nbytes,), "typestr": "|u1", "data": (ptr, False)}


class UnownedMemory(Memory):
    """Memory of another library, which `owner` keeps."""

    def __init__(self, ptr, size, owner, device_id=-1):
        self._describe(ptr, size, cuda.runtime.getDevice() if device_id < 0 else device_id)
        self._kept = owner


class MemoryPointer:
    """A place in device memory."""

    def __init__(self, mem, offset):
        self.mem = mem
        self.ptr = mem.ptr + offset if mem.size else 0
        self.device_id = mem.device_id

    device = property(lambda self: cuda.Device(self.device_id))


def checked_dtype(dtype):
    """Give a dtype that CuPy has arrays of."""
    dtype = np.dtype(dtype)
    if dtype.byteorder == ">" or not (dtype.char in _KINDS or dtype.name == "bfloat16" or dtype.fields):
        raise ValueError(f"Unsupported dtype {dtype}")
    return dtype


def allocate(shape, dtype, order="C"):
    """Give an array in memory of its own."""
    dtype = checked_dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    allocator = cuda.current_allocator()
    memory = Memory(nbytes) if allocator is None else allocator(nbytes).mem
    return np.asarray(memory)[:nbytes].view(dtype).reshape(shape, order=order)


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
