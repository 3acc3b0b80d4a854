"""pandas: a DataFrame or Series keeps its labels. The other arguments go by position; no labels are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from fastsoftmax.adapters import Adapter, refuse_more_than


class _Pandas(Adapter):
    def array(self, x: Any, name: str) -> Any:
        if not isinstance(x, (pd.DataFrame, pd.Series)):
            return np.asarray(x)
        values = x.to_numpy()
        if values.dtype != object:
            return values
        # Different dtypes, nullable ones or Arrow's: numbers nevertheless, if all of them are.
        numbers = []
        for label, dtype in x.dtypes.items() if x.ndim == 2 else [(x.name, x.dtype)]:
            number = getattr(dtype, "numpy_dtype", dtype)
            if not isinstance(number, np.dtype) or number.kind not in "biuf":
                raise TypeError(f"{name}: expected columns of numbers, got dtype {dtype} in {label!r}")
            numbers.append(number)
        dtype = np.result_type(*set(numbers))
        if x.isna().to_numpy().any():
            return x.to_numpy(dtype if dtype.kind == "f" else np.float64, na_value=np.nan)
        return x.to_numpy(dtype)

    def beside(self, y: Any, name: str, x: Any, axes: tuple[int, ...]) -> Any:
        if name == "b":
            refuse_more_than(x, y)
        return y

    def like(self, values: Any, x: Any, reduced: tuple[int, ...]) -> Any:
        if not isinstance(x, (pd.DataFrame, pd.Series)) or values.ndim == 0:
            return values
        if values.ndim == x.ndim:
            labels = [pd.RangeIndex(1) if d in reduced else own for d, own in enumerate(x.axes)]
        else:
            labels = [own for d, own in enumerate(x.axes) if d not in reduced]
        if values.ndim == 2:
            return pd.DataFrame(values, *labels, copy=False)
        return pd.Series(values, *labels, name=x.name if isinstance(x, pd.Series) else None, copy=False)


ADAPTER = _Pandas()
