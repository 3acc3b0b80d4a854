"""Arrays of any library that speaks a protocol of arrays: DLPack, NumPy's or CUDA's.

Results are made by the library's own namespace where its arrays name one (the array API standard); else they are
NumPy's or CuPy's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastsoftmax.adapters import Adapter, cupy_for, type_name

# Device types of DLPack.
_CPU, _CUDA, _CUDA_HOST, _CUDA_MANAGED = 1, 2, 3, 13


class _Protocols(Adapter):
    def array(self, x: Any, name: str) -> Any:
        if hasattr(x, "__dlpack_device__"):
            device = x.__dlpack_device__()[0]
            if device in (_CUDA, _CUDA_MANAGED):
                return cupy_for(x).from_dlpack(x)
            if device not in (_CPU, _CUDA_HOST):
                place = getattr(x, "device", f"DLPack's device {device}")
                raise TypeError(f"{name}: expected an array on the CPU or a CUDA device, got one on {place}")
        elif hasattr(x, "__cuda_array_interface__"):
            return cupy_for(x).asarray(x)
        # (It has every dtype that NumPy has, DLPack the common ones.)
        if hasattr(x, "__array__") or hasattr(x, "__array_interface__"):
            return np.asarray(x)
        return np.from_dlpack(x)

    def like(self, values: Any, x: Any, reduced: tuple[int, ...]) -> Any:
        if not hasattr(x, "__array_namespace__"):
            return values
        library = x.__array_namespace__()
        if isinstance(values, (np.ndarray, np.generic)):
            return library.asarray(np.asarray(values), device=x.device)
        return library.from_dlpack(values)

    def writable(self, out: Any, x: Any) -> Any:
        if isinstance(out, np.ndarray) and not hasattr(x, "__array_namespace__"):
            return out
        if type(out) is not type(x):
            raise TypeError(f"out: expected a {type_name(x)}, as the first argument is, got {type_name(out)}")
        # What __array__ gives may be a copy.
        if not hasattr(out, "__dlpack__"):
            return super().writable(out, x)
        array = self.array(out, "out")
        return np.from_dlpack(out) if isinstance(array, np.ndarray) else array


ADAPTER = _Protocols()
