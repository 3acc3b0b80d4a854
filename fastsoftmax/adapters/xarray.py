"""xarray: a DataArray keeps its dimensions, coordinates and name; an axis may be a dimension's name.

Other DataArrays are brought into the order of the first one's dimensions; no coordinates are compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from fastsoftmax.adapters import Adapter, adapter_of, type_name


class _XArray(Adapter):
    def array(self, x: Any, name: str) -> Any:
        if not isinstance(x, xr.DataArray):
            raise TypeError(f"{name}: expected an xarray.DataArray, got {type_name(x)}; take a variable of it")
        inner = adapter_of(x.data)
        return x.data if inner is None else inner.array(x.data, name)

    def like(self, values: Any, x: Any, axes: tuple[int, ...]) -> Any:
        kept = [d for d in range(x.ndim) if values.ndim == x.ndim or d not in axes]
        dims = [x.dims[d] for d in kept]
        sizes = dict(zip(dims, values.shape, strict=True))
        # Those along a dimension that is gone, or that keepdims has left with size 1, have no meaning any more.
        gone = [name for name, coord in x.coords.items() if any(sizes.get(d) != n for d, n in coord.sizes.items())]
        return xr.DataArray(values, x.coords.to_dataset().drop_vars(gone).coords, dims, x.name)

    def axis(self, x: Any, axis: Any) -> Any:
        if isinstance(axis, (tuple, list)):
            return tuple(self.axis(x, a) for a in axis)
        if not isinstance(axis, str):
            return axis
        if axis not in x.dims:
            raise ValueError(f"axis: expected one of the dimensions {x.dims}, got {axis!r}")
        return x.dims.index(axis)

    def beside(self, y: Any, name: str, x: Any) -> Any:
        if not isinstance(y, xr.DataArray):
            return y
        strange = [dim for dim in y.dims if dim not in x.dims]
        if strange:
            raise ValueError(f"{name}: expected dimensions of {x.dims}, got {y.dims}")
        y = y.transpose(*(dim for dim in x.dims if dim in y.dims))
        if name not in ("where", "b"):
            return y
        # What broadcasts does so by name.
        return y.expand_dims({dim: 1 for dim in x.dims if dim not in y.dims}).transpose(*x.dims)

    def writable(self, out: Any, x: Any) -> Any:
        if not isinstance(out, xr.DataArray):
            raise TypeError(f"out: expected an xarray.DataArray, as the first argument is, got {type_name(out)}")
        if not isinstance(out.data, np.ndarray):
            raise TypeError(f"out: expected data of NumPy, got {type_name(out.data)}")
        return self.beside(out, "out", x).data


ADAPTER = _XArray()
