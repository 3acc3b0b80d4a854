"""What every public function does first: to see arrays of other libraries as NumPy's or CuPy's (``adapters``).

The results are given back as the library's own. The device of an array on a GPU is made the current one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from fastsoftmax import _front
from fastsoftmax._arguments import on_device_of
from fastsoftmax.adapters import Adapter, adapter_of, result_axes


def public_function(function: Callable) -> Callable:
    """Decorate a function of NumPy's or CuPy's arrays: its first argument decides what comes back."""
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

    @functools.wraps(function)
    def public(*args: Any, **options: Any) -> Any:
        x = args[0] if args else options.get(names[0])
        adapter = adapter_of(x)
        if adapter is not None and len(args) <= len(names):
            arguments = {**dict(zip(names, args, strict=False)), **options}
            return _adapted(_front.public(function.__name__), adapter, names[0], arguments)
        with on_device_of(x):
            return function(*args, **options)

    return _front.register(public)


def _adapted(function: Callable, adapter: Adapter, first: str, arguments: dict[str, Any]) -> Any:
    """Call a public function with arrays of an adapter's library."""
    given, out = arguments[first], arguments.get("out")
    axis = arguments["axis"] = adapter.axis(given, arguments.get("axis", -1))
    with adapter.around(given):
        x = arguments[first] = adapter.array(given, first)
        for name, value in arguments.items():
            others = adapter_of(value) if name not in (first, "out") else None
            if others is not None:
                arguments[name] = others.array(adapter.beside(value, name, given), name)
        if out is not None:
            arguments["out"] = adapter.writable(out, given)
        results = function(**arguments)

        def own(values: Any) -> Any:
            if out is None or values is not arguments["out"]:
                return adapter.like(values, given, result_axes(axis if values.ndim else None, x.ndim))
            adapter.written(out)
            return out

        return tuple(own(values) for values in results) if isinstance(results, tuple) else own(results)
