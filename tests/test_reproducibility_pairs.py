"""The factors of reproducibility in each other's company: every two levels of every two of them meet.

One at a time they are test_reproducibility.py's.
"""

import functools
import itertools

import numpy as np
import pytest

import oracles
from pairwise import all_pairs
from slicewise import DTYPES, OPERATIONS, assert_same, compute, labels_of, placed

FACTORS = {
    "slices": [1, 2, 16, 17, 70, 257],
    "first": [0, 1, 7, 33],  # where the batch begins in the one that it is compared with
    "n_threads": [1, 2, 3, 4],
    "offset": [0, 1, 3, -1],  # entries from a cache line's begin; -1: its last
    "gap": [0, 1, 16],  # entries after each row of memory
    "out": ["fresh", "given", "moved", "apart", "in place"],
}

# On both sides of where the code goes another way: the lengths of vectors, rows that go transposed (20), short ones
# (4 vectors), long ones (2048), kRowPiece (2^15), kColumnPiece (2^12), the first 64 elements of columns, and the n up
# to which columns fit a tile (2048 or 4096 with the width of a vector). Long slices come in small batches, where one
# slice is split among threads.
SIZES = {
    "rows": [1, 3, 10, 17, 20, 21, 63, 64, 65, 1000, 2048],
    "long rows": [32_767, 32_768, 32_769, 65_537],
    "columns": [2, 3, 10, 17, 64, 65, 300, 1024],
    "long columns": [1025, 2048, 2049, 4096, 4097, 8193],
}
FEWER = {
    "long rows": {"slices": [1, 2, 3], "first": [0, 1, 2]},
    "columns": {"slices": [2, 3, 16, 17, 70, 257]},  # a lone one without a gap is a row
    "long columns": {"slices": [2, 17, 70], "first": [0, 1, 7]},
}
# A loss has no out argument, and a logsumexp is one number per slice.
OUTS = {"loss": ["fresh"], "logsumexp": ["fresh", "given", "moved"]}


@functools.cache
def combinations(operation, layout):
    factors = {"n": SIZES[layout], **FACTORS, **FEWER.get(layout, {})}
    return all_pairs({**factors, "out": OUTS.get(operation, FACTORS["out"])})


@functools.cache
def logits(layout, n):
    most = {**FACTORS, **FEWER.get(layout, {})}
    batch = max(most["slices"]) + max(most["first"])
    return oracles.arrange(oracles.normal((batch, n), "float32", seed=n), layout.removeprefix("long "))


def check(operation, x, axis, labels, expected, chosen):
    """Hold one combination to the bits of the same slices in the plainest call."""
    part = slice(chosen["first"], chosen["first"] + chosen["slices"])
    index = (part, ...) if axis == -1 else (..., part)
    expected = [e[index] for e in expected]
    per_line = 64 // x.itemsize
    offset = chosen["offset"] % per_line
    logits, buffer = placed(x[index], offset, chosen["gap"], fill=7)
    if chosen["out"] == "fresh":
        out = None
    elif chosen["out"] == "in place":
        out = logits
    else:
        moved = per_line - 1 - offset if chosen["out"] == "moved" else 0
        values = np.zeros_like(np.atleast_2d(expected[-1]))
        out, buffer = placed(values, moved, gap=5 if chosen["out"] == "apart" else 0, fill=7)
        out = out.reshape(expected[-1].shape) if out.shape != expected[-1].shape else out
    kwargs = {} if out is None else {"out": out}
    got = compute(operation, logits, axis, labels[part], n_threads=chosen["n_threads"], **kwargs)
    assert_same(got, expected)
    if out is not None:
        assert got[-1] is out
        out[...] = 7  # and so is everything beside it, if nothing was written there
        assert (buffer == 7).all()


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", SIZES)
def test_every_two_levels_of_every_two_factors(operation, dtype, layout):
    plainest = {}
    for chosen in combinations(operation, layout):
        n = chosen["n"]
        if n not in plainest:
            x, axis = logits(layout, n)
            x = x.astype(oracles.dtype_of(dtype))
            labels = labels_of(x.size // n, n)
            plainest[n] = x, axis, labels, compute(operation, x, axis, labels, n_threads=1)
        check(operation, *plainest[n], chosen)


def test_all_pairs_holds_them_all_in_few_combinations():
    factors = {"n": SIZES["rows"], **FACTORS}
    found = all_pairs(factors)
    assert len(found) <= 1.3 * len(factors["n"]) * len(factors["slices"])  # the two longest ask for so many
    for a, b in itertools.combinations(factors, 2):
        met = {(chosen[a], chosen[b]) for chosen in found}
        assert met == set(itertools.product(factors[a], factors[b]))
