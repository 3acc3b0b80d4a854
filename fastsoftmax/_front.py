"""What stands in front of ``_api``: the compiled functions of ``_native``, or nothing where they were not built.

The rest of the package asks here, so that it reads the same with the extension and without.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from fastsoftmax._adapters import adapted

HAS_EXTENSION = importlib.util.find_spec("fastsoftmax._native") is not None

if HAS_EXTENSION:
    from fastsoftmax import _native

    set_fast = _native.set_fast
    set_default_threads = _native.set_default_threads

    def register(function: Callable) -> Any:
        """Take a function of ``_api`` for what the compiled one of its name falls back on."""
        return _native.register(adapted(function))

    def public(name: str) -> Callable:
        """Give the public function of a name."""
        return getattr(_native, name)

else:
    _functions: dict[str, Callable] = {}

    def register(function: Callable) -> Any:
        """Take a function of ``_api`` for the public one."""
        public = adapted(function)
        public.__module__ = "fastsoftmax"
        _functions[function.__name__] = public
        return public

    def public(name: str) -> Callable:
        """Give the public function of a name."""
        return _functions[name]

    def set_fast(enabled: bool) -> None:
        """Open or close the fast path, which is not there."""

    def set_default_threads(n_threads: int) -> None:
        """Tell the fast path of the default."""
