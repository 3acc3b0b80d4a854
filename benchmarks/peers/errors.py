"""How far a contestant's answer is from the exact one, in ulp: units of the spacing of its dtype at the exact value.

The exact answer is computed in a wider type: float64 for the dtypes up to float32, long double for float64. Where long
double is no wider (macOS on arm64) an answer in float64 is still held to be right, but gets no figure.

A sample of slices is judged, the first and the last among them. A vector-Jacobian product is a difference: its spacing
is taken at the size of its terms.
"""

from __future__ import annotations

import numpy as np

from cases import PRODUCTS, Case, Data, dtype_of

SAMPLE = 2**20  # elements

# Nobody is timed who computes something else. Wide enough for any rounding on the way, in half precision too (SciPy
# subtracts the maximum in the dtype itself); far too narrow for another axis, formula, or entry.
RELATIVE = {"float64": 1e-9, "float32": 1e-3, "float16": 0.1, "bfloat16": 0.2}

HAS_WIDE = np.finfo(np.longdouble).nmant > np.finfo(np.float64).nmant


def finfo(dtype: np.dtype) -> object:
    """NumPy's, or for bfloat16 that of ml_dtypes."""
    if dtype.name == "bfloat16":
        import ml_dtypes

        return ml_dtypes.finfo(dtype)
    return np.finfo(dtype)


def ulp_error(got: np.ndarray, exact: np.ndarray, size: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """|got - exact| over the distance between neighbours of dtype at size, subnormals included."""
    info = finfo(dtype)
    exponent = np.frexp(size)[1] - 1
    exponent = np.where(size == 0, info.minexp, np.maximum(exponent, info.minexp))
    spacing = np.ldexp(np.ones_like(exact), exponent - info.nmant)
    return np.abs(got.astype(exact.dtype) - exact) / spacing


def exact_answer(op: str, rows: np.ndarray, labels: np.ndarray, divisor: int) -> np.ndarray:
    """Compute op for each row in the rows' own, wide, type; the gradient is of the mean loss over divisor rows."""
    each = np.arange(len(rows))
    first = rows.argmax(axis=1)
    m = rows[each, first][:, np.newaxis]
    e = np.exp(rows - m)
    others = e.copy()
    others[each, first] = 0
    r = others.sum(axis=1, keepdims=True)  # never s - 1: the digits of a small r count
    if op == "softmax":
        return e / (1 + r)
    if op == "log_softmax":
        return -((m - rows) + np.log1p(r))
    if op == "logsumexp":
        return (m + np.log1p(r))[:, 0]
    others[each, first] = 1
    others[each, labels] = 0
    grad = e / (1 + r)
    grad[each, labels] = -others.sum(axis=1) / (1 + r[:, 0])
    return grad / divisor


def exact_product(op: str, upstream: np.ndarray, saved: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute a vector-Jacobian product of rows in their own, wide, type, and the size of its terms."""
    if op == "softmax_grad":
        total, size = ((of(upstream) * saved).sum(axis=1, keepdims=True) for of in (np.positive, np.abs))
        return saved * (upstream - total), saved * (np.abs(upstream) + size)
    p = np.exp(saved)
    total, size = (of(upstream).sum(axis=1, keepdims=True) for of in (np.positive, np.abs))
    return upstream - p * total, np.abs(upstream) + p * size


class Judge:
    """Knows the exact answer to a case, for a sample of its slices."""

    def __init__(self, case: Case, data: Data) -> None:
        self.case = case
        self.dtype = dtype_of(case.dtype)
        count = min(case.batch, max(2, SAMPLE // case.n))
        self.chosen = np.unique(np.linspace(0, case.batch - 1, count).astype(int))
        wide = np.longdouble if case.dtype == "float64" else np.float64
        rows = self.slices(data.x).astype(wide)
        if case.op in PRODUCTS:
            self.exact, self.size = exact_product(case.op, rows, self.slices(data.saved).astype(wide))
        else:
            self.exact = self.size = exact_answer(case.op, rows, data.labels[self.chosen], case.batch)
        largest = np.abs(self.exact).max()
        # The label's own gradient is a difference from 1: it may lose its digits, not its size.
        self.tolerance = RELATIVE[case.dtype] * np.abs(self.size) + 4 * float(finfo(self.dtype).eps) * largest

    def slices(self, a: np.ndarray) -> np.ndarray:
        """Take the chosen slices, as rows."""
        if a.ndim == 1:
            return a[self.chosen]
        return a[self.chosen] if self.case.axis == 1 else a[:, self.chosen].T

    def error(self, answer: np.ndarray) -> float | None:
        """Return the largest error in ulp; ValueError if the answer is to something else."""
        expected = (self.case.batch,) if self.case.op == "logsumexp" else self.case.shape
        if answer.shape != expected or answer.dtype != self.dtype:
            raise ValueError(f"{answer.dtype} of shape {answer.shape}, expected {self.dtype} of {expected}")
        got = self.slices(answer)
        difference = np.abs(got.astype(self.exact.dtype) - self.exact)
        right = difference <= self.tolerance  # False for NaN
        if not right.all():
            at = tuple(map(int, np.argwhere(~right)[0]))
            raise ValueError(f"{got[at]} where {float(self.exact[at]):.9g} is right")
        if self.exact.dtype == np.longdouble and not HAS_WIDE:
            return None
        return float(ulp_error(got, self.exact, self.size, self.dtype).max())
