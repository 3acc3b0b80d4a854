"""Numba's device arrays for the tests of their backend: on a CUDA device, or in Numba's simulator.

The simulator runs kernels on the CPU, in some 2 ms a thread, and is chosen before Numba is imported:

    NUMBA_ENABLE_CUDASIM=1 pytest tests/test_numba_cuda.py tests/test_numba_cuda_*.py
"""

import importlib.util
import os
import sys
from unittest import mock

import numpy as np
import pytest

import fastsoftmax
import oracles
import oracles_grads
from fastsoftmax import _registry

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"

# The simulator's kernels compute with NumPy's numbers, which warn of what is meant to be infinite or NaN; on a device
# Numba warns of kernels of the tests' own that leave it idle.
QUIET = [pytest.mark.filterwarnings(f"ignore:{what}") for what in (":RuntimeWarning", "Grid size")]


def found():
    """Give `NumbaArrays`; skips where there is neither a device nor the simulator."""
    if importlib.util.find_spec("numba_cuda") is None:
        pytest.skip("numba-cuda is not installed")
    from numba import cuda

    if not SIMULATED and not cuda.is_available():
        pytest.skip("there is no CUDA device, and NUMBA_ENABLE_CUDASIM=1 is not set")
    return NumbaArrays(cuda)


def _shared_array(self, shape, dtype, alignment=None):
    """Give the block's array of the caller's line, begun with NaN patterns.

    The simulator's own looks for it, and then makes it: two threads at once make two, and each thinks that it shares.
    (It also takes a whole stack trace to know the line.)
    """
    frame = sys._getframe(1)
    dtype = np.dtype(dtype)
    fresh = np.full(shape * dtype.itemsize, 0xFF, np.uint8).view(dtype)
    return self._allocations.setdefault((frame.f_code.co_filename, frame.f_lineno), fresh)


class NumbaArrays:
    """What tests do with device arrays: arrays on the host go in and come out."""

    def __init__(self, cuda):
        self.cuda = cuda
        self.backend = _registry.load("numba_cuda")
        self.type = type(cuda.to_device(np.zeros(1)))
        if SIMULATED:
            from numba.cuda.simulator import kernelapi

            kernelapi.FakeCUDAShared.array = _shared_array
            sys.setswitchinterval(5e-4)  # the simulator's threads wait for one another all the time

    def put(self, x):
        """Copy an array to the device; what is none stays as it is."""
        return self.cuda.to_device(np.array(x, order="C")) if isinstance(x, np.ndarray) else x

    def get(self, x):
        """Copy results, one or a tuple, to the host."""
        if isinstance(x, tuple):
            return tuple(map(self.get, x))
        assert type(x) is self.type
        return x.copy_to_host()

    def __call__(self, function, *args, **kwargs):
        """Call a public function, by its name, on arrays or their copies; what is not out must be left as it was."""
        args, kwargs = [self.put(x) for x in args], {name: self.put(x) for name, x in kwargs.items()}
        inputs = [x for x in [*args, *kwargs.values()] if type(x) is self.type and x is not kwargs.get("out")]
        before = [self.get(x).tobytes() for x in inputs]
        got = self.get(getattr(fastsoftmax, function)(*args, **kwargs))
        assert [self.get(x).tobytes() for x in inputs] == before
        return got

    def check(self, name, got, x, axis=-1, where=None):
        """Hold a result of softmax, log_softmax or logsumexp to the contract."""
        with mock.patch.dict(oracles.BOUNDS[name], {} if SIMULATED else {"float32": 6}):
            oracles.check(name, got, x, axis, where)

    def check_grad(self, name, got, g, y, axis=-1, where=None):
        """Hold a vector-Jacobian product to the contract, as on the CPU."""
        oracles_grads.check(name, got, g, y, axis, where)
