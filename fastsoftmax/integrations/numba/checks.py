"""What is refused in compiled code, before anything is compiled."""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.core.errors import TypingError


def value_of(t: Any) -> Any:
    """Give a literal's or a default's value; the type itself where there is none."""
    if isinstance(t, types.Omitted):
        return t.value
    if isinstance(t, types.Literal):
        return t.literal_value
    return None if t is None or t == types.none else t


def refuse(function: str, **options: tuple[Any, Any]) -> None:
    """Refuse each option whose (type, default) is not its default."""
    for name, (given, default) in options.items():
        if value_of(given) != default:
            raise TypingError(f"{function}: {name}: not available in compiled code")


def check_array(function: str, name: str, x: Any) -> None:
    """Refuse what no kernel reads."""
    if not (isinstance(x, types.Array) and x.ndim in (1, 2) and x.dtype in (types.float32, types.float64)):
        raise TypingError(f"{function}: {name}: expected a 1-D or 2-D array of float32 or float64, got {x}")
    if not x.aligned:
        raise TypingError(f"{function}: {name}: expected an aligned array, got {x}")


def check_axis(function: str, axis: Any, ndim: int) -> int:
    """Give the axis, counted from 0."""
    value = value_of(axis)
    if not isinstance(value, int):
        raise TypingError(f"{function}: axis: expected a literal integer, got {axis}")
    if not -ndim <= value < ndim:
        raise TypingError(f"{function}: axis: {value} is out of bounds for an array of {ndim} dimensions")
    return value % ndim


def check_out(function: str, out: Any, x: types.Array) -> types.Array | None:
    """Give out's type, if there is one."""
    if value_of(out) is None:
        return None
    if not (isinstance(out, types.Array) and out.ndim == x.ndim and out.dtype == x.dtype):
        raise TypingError(f"{function}: out: expected an array of {x.ndim} dimensions and {x.dtype}, got {out}")
    if not out.mutable or out.layout not in "CF":
        raise TypingError(f"{function}: out: expected a writeable array that is contiguous, got {out}")
    return out


def target_type(x: types.Array, out: types.Array | None) -> types.Array:
    """Give the type of the array that the result goes to."""
    return out or x.copy(layout="F" if x.layout == "F" and x.ndim == 2 else "C")
