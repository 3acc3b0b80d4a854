"""How the pieces of a kernel become one: helpers, and functions that are chosen by the types of their arguments.

(Formulas, in ``vectors``, are the third kind.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba.extending import overload

# What compiled code alone calls. Without a word on fastmath it would be that of a user's function, which reorders sums
# and forgets NaN.
_OPTIONS = {
    "nogil": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "error_model": "numpy",
    "fastmath": False,
}

helper = numba.njit(**_OPTIONS)

# LLVM goes through all that a function calls anew for every function on the way to the entry point. So what calls
# everything becomes part of its caller before that. (For helpers, this would take Numba itself much longer.)
part = numba.njit(inline="always", **_OPTIONS)


def by_types(choose: Callable) -> Callable:
    """Decorate a function of types that gives the function to be compiled for them.

    LLVM makes it part of its caller: these hand on thirty numbers each, which takes longer than a softmax of ten. (To
    do so with helpers as well, whose loops stand in two places, gains little, and compiling takes a third longer.)
    """

    def chosen(*arguments: Any) -> None:
        raise NotImplementedError(f"{choose.__name__} is for compiled code alone")

    chosen.__name__ = choose.__name__
    chosen.__doc__ = choose.__doc__
    overload(chosen, jit_options={**_OPTIONS, "forceinline": True})(choose)
    return chosen
