"""Every operation behind one signature, and matrices placed in memory at will: for the tests of reproducibility."""

import numpy as np

import fastsoftmax
import oracles

OPERATIONS = [*oracles.NAMES, "loss", "gradient", "loss with gradient"]
DTYPES = [*oracles.DTYPES, *oracles.HALVES]


def compute(operation, x, axis, labels=None, **kwargs):
    """The results of every slice by itself, as a list of arrays."""
    if operation in oracles.NAMES:
        got = getattr(fastsoftmax, operation)(x, axis=axis, **kwargs)
    else:
        function = {
            "loss": fastsoftmax.cross_entropy,
            "gradient": fastsoftmax.cross_entropy_grad,
            "loss with gradient": fastsoftmax.cross_entropy_with_grad,
        }[operation]
        kwargs.setdefault("reduction", "none")
        got = function(x, labels, axis, **kwargs)
    return list(got) if isinstance(got, tuple) else [got]


def labels_of(batch, n):
    return np.random.default_rng(n).integers(0, n, batch)


def assert_same(got, expected):
    for one, other in zip(got, expected, strict=True):
        oracles.assert_same_bits(one, other)


def placed(values, offset=0, gap=0, fill=np.nan):
    """Copy a matrix to `offset` entries behind a 64-byte boundary, with `gap` entries of `fill` after each of its rows.

    Returns the copy and the whole buffer, which begins at the boundary; before the matrix too it holds `fill`.
    """
    height, width = values.shape
    count = offset + height * (width + gap)
    room = np.empty(count * values.itemsize + 64, np.uint8)
    start = -room.__array_interface__["data"][0] % 64
    buffer = room[start : start + count * values.itemsize].view(values.dtype)
    buffer[...] = fill
    matrix = buffer[offset:].reshape(height, width + gap)[:, :width]
    matrix[...] = values
    return matrix, buffer
