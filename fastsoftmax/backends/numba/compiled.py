"""How the pieces of a kernel become one: helpers, and functions that are chosen by the types of their arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

_OPTIONS = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "error_model": "numpy"}

INLINE: dict[str, Any] = {"jit_options": _OPTIONS}
helper = numba.njit(**_OPTIONS)


def stub(function: Callable) -> Callable:
    """Mark a function whose body an overload gives, by the types of its arguments."""

    def refuse(*arguments: Any) -> None:
        raise NotImplementedError(f"{function.__name__} is for compiled code alone")

    refuse.__name__ = function.__name__
    refuse.__doc__ = function.__doc__
    return refuse
