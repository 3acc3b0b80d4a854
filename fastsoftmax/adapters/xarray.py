"""xarray: a DataArray keeps its dimensions, coordinates and name; an axis may be a dimension's name.

Other DataArrays are brought into the order of the first one's dimensions; no coordinates are compared.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import xarray as xr

from fastsoftmax.adapters import Adapter, adapter_of, refuse_more_than, type_name


class _XArray(Adapter):
    def array(self, x: Any, name: str) -> Any:
        if not isinstance(x, xr.DataArray):
            raise TypeError(f"{name}: expected an xarray.DataArray, got {type_name(x)}")
        inner = adapter_of(x.data)
        return x.data if inner is None else inner.array(x.data, name)

    def around(self, x: Any) -> AbstractContextManager:
        inner = adapter_of(x.data) if isinstance(x, xr.DataArray) else None
        return super().around(x) if inner is None else inner.around(x.data)

    def like(self, values: Any, x: Any, reduced: tuple[int, ...]) -> Any:
        gone = {x.dims[d] for d in reduced}
        dims = x.dims if values.ndim == x.ndim else [dim for dim in x.dims if dim not in gone]
        # What stands along a dimension that was reduced, to size 1 by keepdims, means nothing any more.
        stale = [name for name, coord in x.coords.items() if gone & set(coord.dims)]
        return xr.DataArray(values, x.coords.to_dataset().drop_vars(stale).coords, dims, x.name)

    def axis(self, x: Any, axis: Any) -> Any:
        if isinstance(axis, (tuple, list)):
            return tuple(self.axis(x, a) for a in axis)
        if not isinstance(axis, str):
            return axis
        if axis not in x.dims:
            raise ValueError(f"axis: expected one of the dimensions {x.dims}, got {axis!r}")
        return x.dims.index(axis)

    def beside(self, y: Any, name: str, x: Any, axes: tuple[int, ...]) -> Any:
        if not isinstance(y, xr.DataArray):
            if name == "b":
                refuse_more_than(x, y)
            return y
        along = tuple(x.dims[d] for d in axes)
        batch = tuple(dim for dim in x.dims if dim not in along)
        if name in ("where", "b"):
            if not set(y.dims) <= set(x.dims):
                raise ValueError(f"{name}: expected dimensions of {x.dims}, got {y.dims}")
            y = y.expand_dims({dim: 1 for dim in x.dims if dim not in y.dims})
            return y.transpose(*x.dims)
        expected = {
            "weight": (along,),
            "sample_weight": (batch,),
            "lse": (batch,),
            "grad_output": (batch, ()),
            "labels": (batch, x.dims),
            "out": (batch, x.dims),
        }.get(name, (x.dims,))
        for dims in expected:
            if set(y.dims) == set(dims):
                return y.transpose(*dims)
        raise ValueError(f"{name}: expected the dimensions {' or '.join(map(str, expected))}, got {y.dims}")

    def writable(self, out: Any, x: Any) -> Any:
        if not isinstance(out, xr.DataArray):
            raise TypeError(f"out: expected an xarray.DataArray, as the first argument is, got {type_name(out)}")
        if not isinstance(out.data, np.ndarray):
            raise TypeError(f"out: expected data of NumPy, got {type_name(out.data)}")
        return out.data


ADAPTER = _XArray()
