"""What a kernel is compiled for, as values whose Numba type says it: an operation, a way through memory."""

from __future__ import annotations

import enum
import hashlib
from pathlib import Path
from typing import Any

from numba.core import types
from numba.core.imputils import lower_constant
from numba.extending import NativeValue, models, register_model, typeof_impl, unbox


class Write(enum.Enum):
    """What an operation writes for each element."""

    NOTHING = enum.auto()
    EXPONENTIALS = enum.auto()  # times the slice's factor
    LOGARITHMS = enum.auto()  # (x - hi) - lo


def _fingerprint() -> str:
    """Condense the source of this package.

    Compiled code that Numba keeps on disk is looked up by its signature, and thrown away when the file of its entry
    point changes, but not when a file does whose functions it calls. With this in the markers' types, a change anywhere
    asks for another signature.
    """
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_FINGERPRINT = _fingerprint()


class Marker:
    """A name that decides how a kernel is compiled; it has no value at run time."""

    def __init__(self, name: str, write: Write = Write.NOTHING, spread: bool = False) -> None:
        self.type = MarkerType(name, write, spread)


class MarkerType(types.Type):
    """The type of a marker."""

    def __init__(self, name: str, write: Write, spread: bool) -> None:
        self.write = write
        self.spread = spread  # of a loss: whether every class may have a share of the target
        super().__init__(name=f"Marker({name}, {_FINGERPRINT})")


register_model(MarkerType)(models.OpaqueModel)


@typeof_impl.register(Marker)
def _typeof(marker: Marker, context: Any) -> MarkerType:
    return marker.type


@unbox(MarkerType)
def _unbox(kind: MarkerType, value: Any, c: Any) -> NativeValue:
    return NativeValue(c.context.get_dummy_value())


@lower_constant(MarkerType)
def _constant(context: Any, builder: Any, kind: MarkerType, value: Marker) -> Any:
    return context.get_dummy_value()


ROWS = Marker("rows")
COLUMNS = Marker("columns")

SOFTMAX = Marker("softmax", Write.EXPONENTIALS)
LOG_SOFTMAX = Marker("log_softmax", Write.LOGARITHMS)
CROSS_ENTROPY = Marker("cross_entropy")  # and logsumexp, which is one of its results
CROSS_ENTROPY_GRAD = Marker("cross_entropy_grad", Write.EXPONENTIALS)
CROSS_ENTROPY_SPREAD = Marker("cross_entropy_spread", spread=True)
CROSS_ENTROPY_SPREAD_GRAD = Marker("cross_entropy_spread_grad", Write.EXPONENTIALS, spread=True)
SOFTMAX_GRAD = Marker("softmax_grad")
LOG_SOFTMAX_GRAD = Marker("log_softmax_grad")
EXP = Marker("exp")
LOG1P = Marker("log1p")
