"""pandas: a DataFrame or Series keeps its labels. The other arguments go by position; no labels are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from fastsoftmax.adapters import Adapter


class _Pandas(Adapter):
    def array(self, x: Any, name: str) -> Any:
        if not isinstance(x, (pd.DataFrame, pd.Series)):
            return np.asarray(x)
        dtypes = list(x.dtypes) if isinstance(x, pd.DataFrame) else [x.dtype]
        # What the nullable dtypes, and Arrow's, are made of; others have no numbers, and to_numpy gives objects.
        own = [getattr(dtype, "numpy_dtype", None) for dtype in dtypes if not isinstance(dtype, np.dtype)]
        if not own or any(dtype is None or dtype.kind not in "biuf" for dtype in own):
            return x.to_numpy()
        dtype = np.result_type(*own, *(dtype for dtype in dtypes if isinstance(dtype, np.dtype)))
        return x.to_numpy(dtype if dtype.kind == "f" else np.float64, na_value=np.nan)

    def like(self, values: Any, x: Any, axes: tuple[int, ...]) -> Any:
        if not isinstance(x, (pd.DataFrame, pd.Series)) or values.ndim == 0:
            return values
        if values.ndim == x.ndim:
            labels = [own if len(own) == n else pd.RangeIndex(n) for own, n in zip(x.axes, values.shape, strict=True)]
        else:
            labels = [own for d, own in enumerate(x.axes) if d not in axes]
        if values.ndim == 2:
            return pd.DataFrame(values, *labels, copy=False)
        return pd.Series(values, *labels, name=x.name if isinstance(x, pd.Series) else None, copy=False)


ADAPTER = _Pandas()
