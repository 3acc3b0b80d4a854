"""Hold a contestant's answer to the exact one before it is timed.

The exact answer is computed on the host, in float64 (long double for float64) as in benchmarks/peers, for a sample of
slices, the first and the last among them. That every element was written is looked at on the device: an output that was
there before is filled with a NaN whose bits no result has.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from arrays import Slot, bits
from shared import HAS_WIDE, RELATIVE, dtype_of, exact_answer, exact_product, finfo, ulp_error
from targets import Case

SAMPLE = 2**18  # elements


class WrongError(Exception):
    """The answer is to something else."""


def poison(out: Any) -> None:
    """Set every bit: a NaN in every dtype."""
    out.view("uint8")[...] = 255


def has_poison(array: Any) -> bool:
    """Tell whether an element was not written."""
    numbers = bits(array)
    return bool((numbers == np.iinfo(numbers.dtype).max).any())


def exact(case: Case, x: np.ndarray, y: np.ndarray | None, labels: np.ndarray | None) -> np.ndarray:
    """Compute the operation for each row, in the rows' own, wide, type."""
    if case.op == "softmax_grad":
        return exact_product(case.op, x, y)[0]
    if case.op == "cross_entropy":
        return -exact_answer("log_softmax", x, labels, 1)[np.arange(len(x)), labels]
    return exact_answer(case.op, x, labels, case.batch)


class Judge:
    """Knows the exact answer to a case, for a sample of its slices."""

    def __init__(self, case: Case, slot: Slot) -> None:
        self.case = case
        wanted = min(case.batch, max(2, SAMPLE // case.n))
        self.chosen = np.unique(np.linspace(0, case.batch - 1, wanted).astype(int))
        wide = np.longdouble if case.dtype == "float64" else np.float64
        x, y = (None if a is None else self.slices(a).astype(wide) for a in (slot.x, slot.y))
        labels = None if slot.labels is None else self.slices(slot.labels)
        self.exact = exact(case, x, y, labels)
        eps = float(finfo(dtype_of(case.dtype)).eps)
        self.tolerance = RELATIVE[case.dtype] * np.abs(self.exact) + 4 * eps * np.abs(self.exact).max()

    def slices(self, array: Any) -> np.ndarray:
        """Bring the chosen slices to the host, as rows."""
        import cupy

        index = cupy.asarray(self.chosen)
        numbers = bits(array)
        numbers = numbers[index] if array.ndim == 1 or self.case.axis == 1 else numbers[:, index].T
        return np.ascontiguousarray(cupy.asnumpy(numbers)).view(array.dtype)

    def error(self, answer: Any, dtype: np.dtype) -> float | None:
        """Largest error in ulp, if the operation has one; an array on the device holds the bits of the answer."""
        expected = self.case.shape if self.case.writes else (self.case.batch,)
        if answer.shape != expected:
            raise WrongError(f"an array of shape {answer.shape}, expected {expected}")
        if has_poison(answer):
            raise WrongError("an element was not written")
        got = self.slices(answer).view(dtype)
        difference = np.abs(got.astype(self.exact.dtype) - self.exact)
        right = difference <= self.tolerance  # False for NaN
        if not right.all():
            at = tuple(map(int, np.argwhere(~right)[0]))
            raise WrongError(f"{got[at]} where {float(self.exact[at]):.9g} is right")
        # (A gradient of softmax is a difference, whose digits no bound is given for.)
        if self.case.op == "softmax_grad" or (self.exact.dtype == np.longdouble and not HAS_WIDE):
            return None
        return float(ulp_error(got, self.exact, self.exact, dtype).max())
