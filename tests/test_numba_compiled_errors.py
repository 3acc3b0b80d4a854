"""What the functions refuse while a user's code is compiled."""

import numpy as np
import pytest

import fastsoftmax
import oracles

numba = pytest.importorskip("numba", reason="Numba is not installed")

X, Y = np.zeros((3, 4), "float32"), np.zeros(3, int)


@pytest.mark.parametrize(
    ("call", "arguments", "message"),
    [
        (lambda x: fastsoftmax.softmax(x), (np.zeros((3, 4), "int64"),), "x: expected a 1-D or 2-D array"),
        (lambda x: fastsoftmax.softmax(x), (np.zeros((3, 4, 5)),), "x: expected a 1-D or 2-D array"),
        (lambda x: fastsoftmax.softmax(x["b"]), (np.zeros(3, "i1, f4").view([("a", "i1"), ("b", "f4")]),), "aligned"),
        (lambda x: fastsoftmax.log_softmax(x), (1.0,), "log_softmax: x: expected"),
        (lambda x, axis: fastsoftmax.softmax(x, axis=axis), (X, 1), "axis: expected a literal"),
        (lambda x: fastsoftmax.softmax(x, axis=2), (X,), "axis: 2 is out of bounds"),
        (lambda x: fastsoftmax.logsumexp(x, axis=-3), (X,), "axis: -3 is out of bounds"),
        (lambda x: fastsoftmax.softmax(x, axis=None), (X,), "axis: expected a literal"),
        (lambda x, out: fastsoftmax.softmax(x, out=out), (X, np.zeros((3, 4))), "out: expected"),
        (lambda x, out: fastsoftmax.softmax(x, out=out), (X, np.zeros((6, 8), "float32")[::2, ::2]), "out: expected"),
        (lambda x, m: fastsoftmax.softmax(x, where=m), (X, np.ones((3, 4), bool)), "where: not available"),
        (lambda x: fastsoftmax.softmax(x, n_threads=2), (X,), "n_threads: not available"),
        (lambda x: fastsoftmax.logsumexp(x, keepdims=True), (X,), "keepdims: not available"),
        (lambda x, b: fastsoftmax.logsumexp(x, b=b), (X, X), "b: not available"),
        (lambda x, y: fastsoftmax.cross_entropy(x, y), (X, X), "labels: expected"),
        (lambda x, y: fastsoftmax.cross_entropy(x, y), (X[0], Y), "labels: expected"),
        (lambda x, y: fastsoftmax.cross_entropy(x, y), (X, np.zeros(6, int)[::2]), "labels: expected"),
        (lambda x, y, w: fastsoftmax.cross_entropy(x, y, weight=w), (X, Y, np.ones(4)), "weight: expected"),
        (lambda x, y: fastsoftmax.cross_entropy(x, y, reduction="max"), (X, Y), "reduction: expected"),
        (lambda x, y: fastsoftmax.cross_entropy(x, y, return_lse=True), (X, Y), "return_lse: not available"),
        (lambda x, y: fastsoftmax.cross_entropy_with_grad(x, y, out=y), (X, Y), "cross_entropy_with_grad: out:"),
    ],
)
def test_typing_errors_name_the_argument(call, arguments, message):
    with pytest.raises(numba.TypingError, match=message):
        numba.njit(call)(*arguments)


def test_a_read_only_out():
    out = np.zeros((3, 4), "float32")
    out.flags.writeable = False
    with pytest.raises(numba.TypingError, match="out: expected a writeable array"):
        numba.njit(lambda x, out: fastsoftmax.softmax(x, out=out))(X, out)
    oracles.check("softmax", numba.njit(lambda x: fastsoftmax.softmax(x))(out), out)
