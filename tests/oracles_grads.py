"""Exact vector-Jacobian products of softmax and log_softmax, and the sizes that their errors are measured in.

Errors are held to 4 eps of the magnitudes that an entry is made of: |p| (|g| + sum |g p|) for softmax, |g| + p sum |g|
for log_softmax. The exact answer is that for the outputs that were given, in the wider type of oracles.py. Functions
are told by their names; nothing here calls the library.
"""

import numpy as np

import oracles


def problem(name, shape, dtype, axis=-1, seed=0, scale=5.0):
    """An upstream gradient, and what there is saved of softmax's or log-softmax's output."""
    x = oracles.normal(shape, "float64", seed=seed, scale=scale)
    y = (oracles.softmax if name == "softmax_grad" else oracles.log_softmax)(x, axis)
    g = oracles.normal(shape, dtype, seed=seed + 1, scale=2)
    return g, y.astype(g.dtype)


def exact_and_size(name, g, y, axis=-1, where=None):
    g, y = (oracles.widen(a) for a in (g, y))
    shown = np.broadcast_to(True if where is None else where, g.shape)
    axes = tuple(range(g.ndim)) if axis is None else axis
    g = np.where(shown, g, 0)
    if name == "softmax_grad":
        p = np.where(shown, y, 0)
        exact = p * (g - np.sum(g * p, axis=axes, keepdims=True))
        size = np.abs(p) * (np.abs(g) + np.sum(np.abs(g * p), axis=axes, keepdims=True))
    else:
        p = np.where(shown, np.exp(np.where(shown, y, 0)), 0)
        exact = g - p * np.sum(g, axis=axes, keepdims=True)
        size = np.abs(g) + p * np.sum(np.abs(g), axis=axes, keepdims=True)
    return exact, size


def check(name, got, g, y, axis=-1, where=None):
    exact, size = exact_and_size(name, g, y, axis, where)
    dtype = oracles.result_dtype(np.asarray(g).dtype)
    assert got.dtype == dtype
    assert got.shape == exact.shape
    computed = np.finfo(np.float32 if dtype.itemsize == 2 else dtype)
    bound = 4 * np.maximum(computed.eps * size, computed.smallest_subnormal)
    if dtype.itemsize == 2:
        bound = bound + oracles.spacing(exact, dtype) / 2
    error = np.abs(np.asarray(got).astype(exact.dtype) - exact)
    assert np.all(error <= np.where(size == 0, 0, bound)), (error / bound).max()
