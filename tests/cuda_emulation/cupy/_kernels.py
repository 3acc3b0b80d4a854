"""`cupy.RawModule`: its kernels are those of the emulation's library, whatever the source says.

`library`, an emulator.Library, must be set before anything is launched (as `cupy.emulation`).
"""

import itertools
import re
from types import SimpleNamespace

import numpy as np

from . import cuda
from ._device import MOST_SHARED, NON_PORTABLE_CLUSTER, emulated
from ._errors import CompileException, CUDADriverError
from ._records import Launch, compilations, launches

state = SimpleNamespace(library=None)
_handles = itertools.count(0x1000, 16)


def cluster_of(name):
    """Give how many blocks a cluster of a kernel has: its last template argument where that is a number."""
    found = re.fullmatch(r".*[<,] *(\d+)>", name)
    return int(found[1]) if found else 1


class Function:
    """A kernel that is compiled."""

    def __init__(self, name):
        self.name = name
        self.ptr = next(_handles)

    def __call__(self, grid, block, args, shared_mem=0, stream=None, enable_cooperative_groups=False):
        if not isinstance(grid, tuple) or not isinstance(block, tuple):
            raise TypeError(f"expected tuples, got {type(grid).__name__} and {type(block).__name__}")
        grid, block = (tuple(max(1, int(n)) for n in (*size, 1, 1)[:3]) for size in (grid, block))
        (job,) = map(_bytes_of, args)
        cluster = cluster_of(self.name)
        self._check(cluster, shared_mem)
        stream = cuda.get_current_stream() if stream is None else stream
        device = cuda.runtime.getDevice()
        state.library.launch(self.name, grid, block, job, cluster=cluster, shared_bytes=shared_mem)
        launches.append(Launch(self.name, grid, block, cluster, shared_mem, stream.ptr, device))

    def _check(self, cluster, shared_mem):
        """Refuse what the hardware would."""
        if shared_mem > cuda.driver.funcGetAttribute(MOST_SHARED, self.ptr):
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument (shared memory)")
        if cluster == 1:
            return
        if int(emulated.compute_capability) < 90:
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument (clusters)")
        if cluster > 8 and not cuda.driver.funcGetAttribute(NON_PORTABLE_CLUSTER, self.ptr):
            raise CUDADriverError("CUDA_ERROR_INVALID_CLUSTER_SIZE: cluster misconfiguration")


def _bytes_of(argument):
    if not isinstance(argument, np.ndarray):
        raise TypeError(f"the emulation passes structures alone by value, not {type(argument)}")
    if argument.size != 1:
        raise TypeError(
            f"You are trying to pass a numpy.ndarray of shape {argument.shape} as a kernel parameter. "
            "Only numpy.ndarrays of size one can be passed by value."
        )
    return argument.tobytes()


class RawKernel:
    """A kernel of a RawModule, compiled when first used on a device."""

    def __init__(self, name):
        self.name = name
        self._functions = {}

    @property
    def kernel(self):
        return self._functions.setdefault(cuda.runtime.getDevice(), Function(self.name))

    def __call__(self, grid, block, args, *, shared_mem=0):
        self.kernel(grid, block, args, shared_mem)

    @property
    def max_dynamic_shared_size_bytes(self):
        return cuda.driver.funcGetAttribute(MOST_SHARED, self.kernel.ptr)

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, nbytes):
        cuda.driver.funcSetAttribute(self.kernel.ptr, MOST_SHARED, nbytes)


class RawModule:
    """Source whose instances are looked up by their name expressions."""

    def __init__(
        self,
        code=None,
        *,
        path=None,
        options=(),
        backend="nvrtc",
        translate_cucomplex=False,
        enable_cooperative_groups=False,
        name_expressions=None,
        jitify=None,
    ):
        if not isinstance(code, str) or path is not None:
            raise TypeError("the emulation has modules of source code alone")
        if not isinstance(options, tuple) or not all(isinstance(option, str) for option in options):
            raise TypeError(f"Argument 'options' has incorrect type (expected tuple of str, got {options!r})")
        if backend != "nvrtc":
            raise ValueError("only nvrtc supports retrieving the mangled names for the given name expressions")
        self.name_expressions = tuple(name_expressions)
        self._compiled = False

    def compile(self, log_stream=None):
        unknown = [name for name in self.name_expressions if name not in state.library.names]
        if unknown:
            raise CompileException(f"no instance in the emulation's library: {', '.join(unknown)}")
        compilations.append(self.name_expressions)
        self._compiled = True

    def get_function(self, name):
        if not self._compiled:
            self.compile()
        if name not in self.name_expressions:
            raise CUDADriverError("CUDA_ERROR_NOT_FOUND: named symbol not found")
        return RawKernel(name)
