"""Arrays of other libraries for the tests: how each library makes one of NumPy's, and what it holds."""

import importlib.util
import inspect
from typing import NamedTuple

import numpy as np
import pytest

import fastsoftmax

ROWS, CLASSES = 5, 7

# The public functions of arrays: those whose first parameter is one.
FUNCTIONS = [
    name
    for name in fastsoftmax.__all__
    if next(iter(inspect.signature(getattr(fastsoftmax, name)).parameters), "") in ("x", "logits", "grad_output")
]

# Names of the dimensions, by the shape.
DIMS = {
    (): (),
    (ROWS,): ("row",),
    (CLASSES,): ("class",),
    (ROWS, CLASSES): ("row", "class"),
    (1, CLASSES): ("row", "class"),
    (ROWS, 1): ("row", "class"),
}


def sizes(x):
    return zip(DIMS[x.shape], x.shape, strict=True)


class Library(NamedTuple):
    """A kind of array: the modules that it takes, how one is made of NumPy's, and how it is looked into."""

    modules: tuple
    make: object
    values: object
    halves: bool = True  # whether it has float16 and bfloat16


def _torch(x):
    import torch

    if x.dtype.name == "bfloat16":
        return torch.from_numpy(x.view("i2")).view(torch.bfloat16)
    return torch.from_numpy(x)


def _torch_values(x):
    import ml_dtypes
    import torch

    return x.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if x.dtype == torch.bfloat16 else x.numpy()


def _jax(x):
    import jax

    with jax.enable_x64(True):
        return jax.device_put(x)


def _frame(x):
    import pandas as pd

    labels = [
        pd.Index([f"{name}{i}" for i in range(n)], name=name) for name, n in zip(DIMS[x.shape], x.shape, strict=True)
    ]
    return pd.DataFrame(x, *labels, copy=False) if x.ndim == 2 else pd.Series(x, *labels, name="own", copy=False)


def _data_array(x):
    import xarray as xr

    coords = {name: [f"{name}{i}" for i in range(n)] for name, n in sizes(x)}
    return xr.DataArray(x, coords | {"run": 3}, DIMS[x.shape], "own", {"units": "nats"})


def _strict(x):
    import array_api_strict

    return array_api_strict.asarray(x)


class Bare:
    """Nothing but NumPy's protocol."""

    def __init__(self, x):
        self.x = x

    def __array__(self, dtype=None, copy=None):
        return self.x if dtype is None else self.x.astype(dtype)


class BareDLPack:
    """Nothing but DLPack."""

    def __init__(self, x):
        self.x = x

    def __dlpack__(self, **options):
        return self.x.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.x.__dlpack_device__()


LIBRARIES = {
    "torch.Tensor": Library(("torch", "ml_dtypes"), _torch, _torch_values),
    "jax.Array": Library(("jax",), _jax, np.asarray),
    "pandas": Library(("pandas",), _frame, np.asarray, halves=False),
    "xarray.DataArray": Library(("xarray",), _data_array, np.asarray),
    "array API": Library(("array_api_strict",), _strict, np.asarray, halves=False),
    "__array__": Library((), Bare, np.asarray),
    "__dlpack__": Library((), BareDLPack, lambda x: getattr(x, "x", x), halves=False),
}


def library(name):
    """Give a library, or skip."""
    for module in LIBRARIES[name].modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    return LIBRARIES[name]


def example(function, dtype="float32"):
    """Give the array arguments of a public function."""
    rng = np.random.default_rng(7)
    x = rng.normal(0, 3, (ROWS, CLASSES)).astype(dtype)
    if function.startswith("cross_entropy"):
        return {"logits": x, "labels": np.array([0, 6, 2, -100, 3])}
    if function.endswith("softmax_grad"):
        saved = {"softmax_grad": "probs", "log_softmax_grad": "log_probs"}[function]
        y = getattr(fastsoftmax, function.removesuffix("_grad"))(x)
        return {"grad_output": rng.normal(0, 1, x.shape).astype(dtype), saved: y}
    return {"x": x}
