"""The arrays of a case: what every contestant reads and writes, in several sets.

One set would stay in the L2 from call to call, so that the cache would be measured: as many sets are made as together
are larger than four times the L2, and calls go from one to the next. All hold the same numbers.

Logits are normal with deviation 5: exponentials of very different sizes, as a trained model's. A prime number of them
is drawn on the host and repeated, so that in no shape the same ones stand one above the other, and without cuRAND.
"""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple

import numpy as np

from shared import dtype_of
from targets import Case

PERIOD = 1048573  # a prime
TIMES_L2 = 4
# Room for what contestants allocate: copies of the logits, exponentials, gradients.
SPARE_ARRAYS = 10


class Slot(NamedTuple):
    """One set."""

    x: Any  # logits; of softmax_grad the gradient of the output
    y: Any  # probabilities, of softmax_grad alone
    labels: Any  # int64, of the cross-entropies alone
    out: Any  # of the result's shape and dtype; none for cross_entropy, which has no out


def bits(array: Any) -> Any:
    """View the numbers of an array as unsigned integers: not every dtype can be computed with everywhere."""
    return array.view(f"uint{8 * array.dtype.itemsize}")


def repeated(numbers: np.ndarray, shape: tuple[int, int]) -> Any:
    """Fill an array on the device with the same numbers again and again, doubling what is there."""
    import cupy

    array = cupy.empty(shape, numbers.dtype)
    flat = bits(array).reshape(-1)
    there = min(numbers.size, flat.size)
    flat[:there] = cupy.asarray(bits(numbers)[:there])
    while there < flat.size:
        more = min(there, flat.size - there)
        flat[there : there + more] = flat[:more]
        there += more
    return array


def count(case: Case, l2: int) -> int:
    """Number of sets, whose bytes together exceed TIMES_L2 times the L2."""
    return TIMES_L2 * l2 // case.moved_bytes + 1


def fits(case: Case, l2: int, free: int) -> bool:
    """Tell whether a case's arrays and those of the contestants find room."""
    return count(case, l2) * case.moved_bytes + SPARE_ARRAYS * case.array_bytes <= free


def make(case: Case, l2: int) -> list[Slot]:
    """Make the sets of a case."""
    import cupy

    rng = np.random.default_rng(0)
    dtype = dtype_of(case.dtype)
    size = min(PERIOD, math.prod(case.shape))
    logits = (rng.standard_normal(size) * 5).astype(dtype)
    probabilities = (rng.random(size) * (2 / case.n)).astype(dtype)  # they add up to about 1
    labels = rng.integers(0, case.n, case.batch) if case.has_labels else None
    out_shape = case.shape if case.writes else (case.batch,)
    return [
        Slot(
            repeated(logits, case.shape),
            repeated(probabilities, case.shape) if case.op == "softmax_grad" else None,
            None if labels is None else cupy.asarray(labels),
            None if case.op == "cross_entropy" else cupy.empty(out_shape, dtype),
        )
        for _ in range(count(case, l2))
    ]


def release() -> None:
    """Give what no array holds any longer back to the device, so that the next library finds it."""
    import cupy

    cupy.get_default_memory_pool().free_all_blocks()
    if "torch" in sys.modules:
        sys.modules["torch"].cuda.empty_cache()
