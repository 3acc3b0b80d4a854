"""A stand-in for CuPy on a machine without a GPU: its names, signatures and refusals, NumPy's arithmetic.

Found in CuPy's place by whoever puts the folder above in front of sys.path. Kernels run in `emulation`, an
emulator.Library to be set; `emulated` says what the device is; `launches`, `compilations`, `operations` and
`synchronisations` and `waits` are lists of what was done.
"""

import sys
import types

from . import _array
from . import cuda as cuda
from ._array import ndarray as ndarray
from ._creation import *  # noqa: F403
from ._device import emulated as emulated
from ._functions import FUNCTIONS as _FUNCTIONS
from ._kernels import RawKernel as RawKernel
from ._kernels import RawModule as RawModule
from ._kernels import state as _state
from ._records import compilations as compilations
from ._records import launches as launches
from ._records import operations as operations
from ._records import synchronisations as synchronisations
from ._records import waits as waits

__version__ = "14.2.0"

globals().update(_FUNCTIONS)
_array.public.update(globals())


class _Module(types.ModuleType):
    """This module, with the emulation's library as an attribute that can be set."""

    emulation = property(lambda self: _state.library, lambda self, library: setattr(_state, "library", library))


sys.modules[__name__].__class__ = _Module
