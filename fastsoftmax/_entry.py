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
from fastsoftmax._layout import normalize_axes
from fastsoftmax.adapters import Adapter, adapter_of


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
    arguments["axis"] = adapter.axis(given, arguments.get("axis", -1))
    with adapter.around(given):
        x = arguments[first] = adapter.array(given, first)
        axes = normalize_axes(arguments["axis"], x.ndim)[: x.ndim]
        for name, value in arguments.items():
            if name == first or value is None:
                continue
            value = adapter.beside(value, name, given, axes)
            if name == "out":
                arguments[name] = adapter.writable(value, given)
            elif (other := adapter_of(value)) is not None:
                arguments[name] = other.array(value, name)
            else:
                arguments[name] = value
        results = function(**arguments)

        def own(values: Any) -> Any:
            if out is not None and values is arguments["out"]:
                adapter.written(out, given)
                return out
            whole = values.ndim == x.ndim and not arguments.get("keepdims", False)
            return adapter.like(values, given, () if whole else axes if values.ndim else tuple(range(x.ndim)))

        return tuple(own(values) for values in results) if isinstance(results, tuple) else own(results)
