"""What the benchmarks share: arrays, backends, and an operation timed beside plain NumPy.

A time alone says little on a machine that others use too, so what is tracked is our time over that of the same
operation in plain NumPy, the two taking turns in one process. The time per element stands beside it, to see which of
the two has moved. `gate/` times the same statements in two builds.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from abc import ABC, abstractmethod
from pathlib import Path
from timeit import Timer
from types import ModuleType

import numpy as np

import fastsoftmax

from .turns import interleave

# The backends for NumPy's arrays, and the baseline; what a commit or a machine lacks is skipped. asv knows a case by
# its place among the parameters, so these are written out: what a commit has must not move them.
BACKENDS = ("native", "numpy")
SHAPES = ((32, 10), (65536, 10), (1024, 1000), (64, 32000))
SECONDS = 0.1  # for each contestant of a measurement

Shape = tuple[int, ...]


@functools.cache
def baseline() -> ModuleType:
    """Load fastsoftmax/reference.py of this checkout: the commit that is measured may have another one."""
    path = Path(__file__).resolve().parents[2] / "fastsoftmax" / "reference.py"
    spec = importlib.util.spec_from_file_location("baseline", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def normal(seed: int = 0) -> np.ndarray:
    """Normal numbers of deviation 5: exponentials of very different sizes, as those of a trained model's logits.

    Their number is a prime, so that in no shape the same ones stand one above the other.
    """
    return np.random.default_rng(seed).standard_normal(65521) * 5


def logits(shape: Shape, dtype: str, seed: int = 0) -> np.ndarray:
    """Fill an array with the same numbers again and again: drawing millions would take longer than the benchmark."""
    if dtype == "bfloat16":
        try:
            import ml_dtypes  # noqa: F401
        except ImportError as missing:
            raise NotImplementedError(str(missing)) from None
    return np.resize(normal(seed).astype(dtype), shape)


def functions(backend: str) -> dict[str, object]:
    """Give the functions of a backend by name, on one thread. For a missing one asv gets the error that it skips."""
    if backend == "numpy":
        return vars(baseline())
    try:
        fastsoftmax.set_backend(backend)
    except (ImportError, ValueError) as missing:
        raise NotImplementedError(str(missing)) from None
    fastsoftmax.set_num_threads(1)
    return vars(fastsoftmax)


def timer(statement: str, backend: str, arrays: dict[str, object]) -> Timer:
    """Time a statement with a backend's functions; NumPy's have no out."""
    statement = statement.replace(", out=out", "") if backend == "numpy" else statement
    return Timer(statement, globals={**functions(backend), **arrays})


def ratio(timer: Timer, other: Timer) -> float:
    """Give the time of the one over the other's, taken in turns."""
    seconds = interleave({"one": timer, "other": other}, SECONDS)
    return seconds["one"] / seconds["other"]


def nanoseconds(timer: Timer) -> float:
    """Give the median time of a call."""
    return interleave({"": timer}, SECONDS)[""] * 1e9


class Operation(ABC):
    """An operation timed beside plain NumPy, on one thread."""

    params = (SHAPES, ("float32", "float64"), BACKENDS)
    param_names = ("shape", "dtype", "backend")

    @property
    @abstractmethod
    def statement(self) -> str:
        """The line of code that a user would write, of the names in `arrays`."""

    def arrays(self, shape: Shape, dtype: str) -> dict[str, object]:
        """Give what the statement names: logits x, labels of its rows, an array out."""
        x = logits(shape, dtype)
        return {"x": x, "labels": np.arange(len(x)) % x.shape[-1], "out": np.empty_like(x)}

    def setup(self, shape: Shape, dtype: str, backend: str) -> None:
        functions(backend)  # first: where there is none, no array is made
        self.names = self.arrays(shape, dtype)
        self.timed = self.on(backend)

    def on(self, backend: str) -> Timer:
        """Time the statement on a backend."""
        return timer(self.statement, backend, self.names)

    def track_ratio(self, shape: Shape, dtype: str, backend: str) -> float:
        return math.nan if backend == "numpy" else ratio(self.timed, self.on("numpy"))  # (asv shows nan as n/a)

    def track_ns_per_element(self, shape: Shape, dtype: str, backend: str) -> float:
        return nanoseconds(self.timed) / math.prod(self.names["x"].shape)

    track_ratio.unit = "of NumPy's time"
    track_ns_per_element.unit = "ns per element"
