"""JAX arrays on the CPU and on CUDA devices; they cannot be written to, and tracers hold no data."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from fastsoftmax.adapters import Adapter, cupy_for, type_name


class _Jax(Adapter):
    def array(self, x: Any, name: str) -> Any:
        if isinstance(x, jax.core.Tracer):
            raise TypeError(f"{name}: a traced array has no data yet: call this outside of jax.jit, grad and vmap")
        if not isinstance(x, jax.Array):
            raise TypeError(f"{name}: expected a jax.Array, got {type_name(x)}")
        devices = x.devices()
        platform = next(iter(devices)).platform
        if len(devices) > 1 or platform not in ("cpu", "gpu"):
            raise TypeError(f"{name}: expected an array on the CPU or a GPU, got one on {', '.join(map(str, devices))}")
        if platform == "cpu":
            return np.asarray(x)
        from_dlpack = cupy_for(x).from_dlpack
        if x.dtype.name == "bfloat16":
            return from_dlpack(jax.lax.bitcast_convert_type(x, jax.numpy.int16)).view(x.dtype)
        return from_dlpack(x)

    def like(self, values: Any, x: Any, reduced: tuple[int, ...]) -> Any:
        if isinstance(values, (np.ndarray, np.generic)):
            return jax.device_put(values, next(iter(x.devices())) if x.committed else None)
        if values.dtype.name == "bfloat16":
            return jax.lax.bitcast_convert_type(jax.dlpack.from_dlpack(values.view(np.int16)), values.dtype)
        return jax.dlpack.from_dlpack(values)


ADAPTER = _Jax()
