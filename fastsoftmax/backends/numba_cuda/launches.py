"""Kernels compiled and launched, and memory as Numba's arrays: all that differs between a device and Numba's simulator.

The simulator (NUMBA_ENABLE_CUDASIM=1) runs kernels on the CPU: its device memory is the host's, it has one stream.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import config, cuda
from numba.cuda.cudadrv import devicearray

from fastsoftmax.backends.numba_cuda.kernels import Source

SIMULATED = bool(config.ENABLE_CUDASIM)
if not SIMULATED:
    from numba.cuda.dispatcher import CUDACache


class Memory:
    """What tells NumPy that there is an array at an address; keeps its owner alive."""

    def __init__(self, interface: dict, owner: Any) -> None:
        self.__array_interface__ = interface
        self.owner = owner


def interface(pointer: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype) -> dict:
    """Describe an array in memory; bfloat16, of which neither interface knows, by its bits."""
    known = np.dtype(np.uint16) if dtype.name == "bfloat16" else dtype
    return {"shape": shape, "strides": strides, "typestr": known.str, "data": (pointer, False), "version": 3}


def array_at(pointer: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype, owner: Any = None) -> Any:
    """Give the Numba array over device memory; of bfloat16 one of its bits."""
    described = interface(pointer, shape, strides, dtype)
    if SIMULATED:
        return devicearray.FakeCUDAArray(np.asarray(Memory(described, owner)))
    return cuda.from_cuda_array_interface(described, owner=owner, sync=False)


def address(array: Any) -> int:
    """Give the address of a Numba array."""
    if SIMULATED:
        return array.__array_interface__["data"][0]
    return array.device_ctypes_pointer.value or 0


@functools.cache
def _compiled(source: Source, capability: tuple[int, int]) -> Any:
    """Compile a kernel for devices of a compute capability, or fetch it from the disk.

    For its one signature: of arguments that are known, Numba's dispatch need not ask for the types. Not linked with
    anything that could be optimised along (lto), it is the code that the tests read.
    """
    # Numba's files on disk are of a function's name: two processes that wrote the kernels of one factory at once would
    # mix them up.
    source.function.__qualname__ = source.name
    options = {} if SIMULATED else {"lto": False}
    return cuda.jit(source.signature, cache=_is_cacheable(source), **options)(source.function)


def _is_cacheable(source: Source) -> bool:
    """Whether there is a folder to keep a kernel in."""
    if SIMULATED:
        return False
    try:
        CUDACache(source.function)
    except RuntimeError:  # neither beside this file nor in the user's home
        return False
    return True


def _configured(kernel: Any, blocks: int, threads: int, stream: Any) -> Any:
    if SIMULATED:  # which remembers a configuration in the kernel itself
        return kernel[blocks, threads, stream]
    # Numba warns of fewer blocks than these, which leave a device idle: that is for the caller's shapes to say. (It may
    # keep what it gives, so this is a copy; copy.copy would go by way of what is pickled.)
    enough = kernel[_NOT_WARNED_OF, threads, stream]
    configured = object.__new__(type(enough))
    vars(configured).update(vars(enough), griddim=(blocks, 1, 1))
    return configured


_NOT_WARNED_OF = 128

_configure = _configured if SIMULATED else functools.lru_cache(maxsize=1024)(_configured)


def power_of_two(n: int) -> int:
    """Give the least power of two that is not less."""
    return 1 << max(n - 1, 0).bit_length()


def launch(source: Source, blocks: int, threads: int, stream: Any, *arguments: Any) -> None:
    """Launch a kernel on a stream of the current device."""
    kernel = _compiled(source, cuda.get_current_device().compute_capability)
    _configure(kernel, blocks, threads, stream)(*arguments)
