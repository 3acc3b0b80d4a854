"""What the cross-entropy family checks of its arguments, and the form in which a backend takes them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastsoftmax._arguments import as_array, as_real, check_index

# Index labels in 64 bits: classes as they are, and these two.
IGNORED, _WRONG = -2, -1


def check_reduction(reduction: Any) -> None:
    """Refuse what is none of the three names."""
    if not isinstance(reduction, str) or reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: expected 'mean', 'sum' or 'none', got {reduction!r}")


def check_number(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Give a finite number of low to high as a float."""
    if type(value) is not float:
        value = as_array(value, name)
        if value.ndim or value.dtype.kind not in "biuf":
            raise TypeError(f"{name}: expected a number, got an array of shape {value.shape} and dtype {value.dtype}")
    number = float(value)
    if not (math.isfinite(number) and low <= number <= high):
        expected = "a finite number" if math.isinf(low) else f"a number from {low:g} to {high:g}"
        raise ValueError(f"{name}: expected {expected}, got {number}")
    return number


def check_labels(
    labels: Any, logits: np.ndarray, axis: int, ignore_index: Any, validate: bool
) -> tuple[np.ndarray | None, np.ndarray | None, int]:
    """Give (class indices, None) or (None, probabilities), and what stands in the indices, int64, for ignored ones.

    Labels of as many dimensions as the logits are probabilities. Without validation indices that are out of range stay
    so, whatever they become.
    """
    given, labels = labels, as_array(labels, "labels", logits)
    ignore_index = check_index(ignore_index, "ignore_index")
    shape = logits.shape[:axis] + logits.shape[axis + 1 :]
    if labels.shape == logits.shape:
        return None, as_real(labels, "labels", logits), IGNORED
    if labels.shape != shape:
        raise ValueError(
            f"labels: expected shape {shape} (class indices) or {logits.shape} (probabilities) for logits of shape "
            f"{logits.shape} along axis {axis}, got {labels.shape}"
        )
    if labels.size == 0 and labels is not given:
        labels = labels.astype(np.int64)  # an empty list has no dtype of its own
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels: expected an integer dtype for class indices, got {labels.dtype}")
    classes = logits.shape[axis]
    indices = labels.astype(np.int64, order="C", copy=True)
    if not validate and labels.dtype != np.uint64 and -(2**63) <= ignore_index < 2**63:
        return indices, None, ignore_index
    # (Of uint64 what is no int64 became negative.)
    wrong = ~((indices >= 0) & (indices < classes))
    if isinstance(wrong, np.ndarray) and not (0 <= ignore_index < classes or wrong.any()):
        return indices, None, IGNORED  # as it mostly is
    indices[wrong] = _WRONG
    own = np.iinfo(labels.dtype)
    if own.min <= ignore_index <= own.max:
        indices[labels == ignore_index] = IGNORED
    if validate:
        wrong = np.flatnonzero(indices == _WRONG)
        if wrong.size:
            raise _label_error(labels, int(wrong[0]), classes)
    return indices, None, IGNORED


def _label_error(labels: np.ndarray, position: int, classes: int) -> IndexError:
    """Make the error for the label at a position in C order."""
    index = tuple(int(i) for i in np.unravel_index(position, labels.shape))
    place = "" if labels.ndim == 0 else f" at position {position if labels.ndim == 1 else index}"
    return IndexError(
        f"label {labels[index]}{place} is out of range: expected 0 to {classes - 1} "
        f"(logits of {classes} classes) or ignore_index"
    )


def check_numbers(values: Any, name: str, shape: tuple[int, ...], dtype: np.dtype, beside: Any) -> np.ndarray | None:
    """Give weights and the like, of exactly this shape, as an array of their own in dtype; None stays None."""
    if values is None:
        return None
    values = as_real(values, name, beside)
    if values.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {values.shape}")
    # A copy: out may be the memory that they stand in.
    return values.astype(dtype, order="C", copy=True)


def mean_divisor(
    indices: np.ndarray | None, weight: np.ndarray | None, sample_weight: np.ndarray | None, count: int
) -> np.ndarray | int:
    """Give what divides a mean's losses: the float64 numbers, one per slice, whose sum does, or that sum."""
    if indices is None:
        return count if sample_weight is None else sample_weight.astype(np.float64)
    valid = indices != IGNORED
    if weight is None and sample_weight is None:
        return int(np.count_nonzero(valid))
    shares = np.zeros(indices.shape)
    shares[valid] = 1 if weight is None else weight[indices[valid]]
    if sample_weight is not None:
        shares[valid] *= sample_weight[valid]
    return shares
