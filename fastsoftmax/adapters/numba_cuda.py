"""Numba's device arrays, its simulator's too: computed by the Numba-CUDA kernels, whether CuPy is there or not."""

from __future__ import annotations

from typing import Any

from numba import cuda

from fastsoftmax import _registry
from fastsoftmax.adapters import Adapter, type_name


class _NumbaCuda(Adapter):
    def array(self, x: Any, name: str) -> Any:
        if not hasattr(x, "copy_to_host"):
            raise TypeError(f"{name}: expected an array of Numba, got {type_name(x)}")
        if x.dtype.kind == "c":
            raise TypeError(f"{name}: expected a real or integer dtype, got {x.dtype}")
        return _registry.load("numba_cuda").DeviceArray.of(x)

    def beside(self, y: Any, name: str, x: Any, axes: tuple[int, ...]) -> Any:
        if name == "b":
            raise TypeError(f"b: not supported beside a {type_name(x)}")
        if type(y) is not type(x):
            return y
        # All of a call's work is on the stream of x.
        _let_wait(x.stream, y.stream)
        return y.bind(x.stream)

    def like(self, values: Any, x: Any, reduced: tuple[int, ...]) -> Any:
        return values.numba

    def writable(self, out: Any, x: Any) -> Any:
        if type(out) is not type(x):
            raise TypeError(f"out: expected a {type_name(x)}, as the first argument is, got {type_name(out)}")
        return self.array(out, "out")

    def written(self, out: Any, x: Any) -> None:
        _let_wait(out.stream, x.stream)


def _let_wait(later: Any, earlier: Any) -> None:
    """Let a stream wait, on the device, for what another one has been given so far."""
    if int(later) != int(earlier):
        event = cuda.event(timing=False)
        event.record(earlier)
        event.wait(later)


ADAPTER = _NumbaCuda()
