"""dask arrays: refused, because they hold no data yet, and to compute it is the caller's to say."""

from __future__ import annotations

from typing import Any

from fastsoftmax.adapters import Adapter


class _Dask(Adapter):
    def array(self, x: Any, name: str) -> Any:
        raise TypeError(f"{name}: a dask array holds no data yet; pass x.compute(), or use x.map_blocks")


ADAPTER = _Dask()
