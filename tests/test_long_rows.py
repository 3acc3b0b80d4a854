"""Accuracy of rows up to the longest length promised, made to gather error.

Such rows have few distinct values, or are ramps: the exact sums then have a closed form, and 2^24 entries are judged in
about the time that the library takes to compute them.
"""

import numpy as np
import pytest

import fastsoftmax
import oracles
from oracles import BOUNDS, EXACT_DTYPES

pytestmark = pytest.mark.usefixtures("backend")

# Rows longer than 2^15 are summed in pieces, columns longer than 2^12.
LENGTHS = [1000, 2**15 + 5, 2**20 + 1, 2**24]


class Slices:
    """Logits of n entries along axis 0, one slice or five side by side, and an array for results.

    Fresh pages cost more than the computation here: both arrays are used again and again.
    """

    def __init__(self, dtype, n, count):
        self.x = np.empty((n, count) if count > 1 else n, dtype)
        self.out = np.empty_like(self.x)

    def fill(self, row):
        self.x[...] = row if self.x.ndim == 1 else row[:, np.newaxis]

    def softmax(self):
        return fastsoftmax.softmax(self.x, axis=0, out=self.out)

    def log_softmax(self):
        return fastsoftmax.log_softmax(self.x, axis=0, out=self.out)

    def logsumexp(self):
        return fastsoftmax.logsumexp(self.x, axis=0)

    def loss_and_gradient(self, label):
        """Loss, and the gradient of the label."""
        labels = np.full(self.x.shape[1:], label)
        loss, grad = fastsoftmax.cross_entropy_with_grad(self.x, labels, 0, reduction="none", out=self.out)
        return loss, grad[label]


def slices_of(dtype, n):
    return [Slices(dtype, n, count) for count in ([1, 5] if n < 2**20 else [1, 2] if n < 2**24 else [1])]


def check(name, got, exact, size=None):
    dtype = got.dtype.name
    exact = np.full(got.shape, exact)
    size = exact if size is None else np.full(got.shape, size)
    assert oracles.errors(name, got, exact, size).max() <= BOUNDS[name][dtype]


def check_sum(probs):
    one = probs if probs.ndim == 1 else probs[:, 0]
    pieces = [one[i : i + 2**16].astype(np.longdouble).sum() for i in range(0, one.size, 2**16)]
    assert abs(sum(pieces) - 1) <= BOUNDS["sum of softmax"][one.dtype.name] * np.finfo(one.dtype).eps


def check_two_values(slices, high, low, is_high):
    """Hold every function to the contract on slices that are `high` where is_high, and `low` elsewhere."""
    slices.fill(np.where(is_high, high, low))
    wide = np.longdouble
    count = np.count_nonzero(is_high)
    gap = wide(high) - wide(low)
    r = wide(count - 1) + wide(is_high.size - count) * np.exp(-gap)
    log1p_r = np.log1p(r)
    # (where the value stands, its distance from the maximum)
    kinds = [(is_high, wide(0))] + ([(~is_high, gap)] if count < is_high.size else [])

    def check_entries(name, got, exact):
        # No other entry is farther from what all of them should be.
        for (chosen, _), e in zip(kinds, exact, strict=True):
            values = got[chosen]
            check(name, np.array([values.min(), values.max()]), e)

    check("logsumexp", slices.logsumexp(), wide(high) + log1p_r, abs(wide(high)) + log1p_r)
    log_p = [-(distance + log1p_r) for _, distance in kinds]
    check_entries("log_softmax", slices.log_softmax(), log_p)
    probs = slices.softmax()
    check_entries("softmax", probs, [np.exp(-distance) / (1 + r) for _, distance in kinds])
    check_sum(probs)
    for (chosen, distance), e in zip(kinds, log_p, strict=True):
        loss, true = slices.loss_and_gradient(int(chosen.argmax()))
        others = r if distance == 0 else 1 + (r - np.exp(-distance))
        check("cross_entropy", loss, -e)
        check("cross_entropy_grad", true, -others / (1 + r))


@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("n", LENGTHS)
class TestRowsOfTwoValues:
    def test_constant(self, dtype, n):
        for slices in slices_of(dtype, n):
            check_two_values(slices, *np.array([0.7, 0.7], dtype), np.ones(n, bool))

    def test_alternating(self, dtype, n):
        for slices in slices_of(dtype, n):
            check_two_values(slices, *np.array([300.3, 299.1], dtype), np.arange(n) % 2 == 1)

    def test_one_value_after_the_other(self, dtype, n):
        rng = np.random.default_rng(n)
        for slices in slices_of(dtype, n):
            for _ in range(10 if n < 2**20 else 1):
                high, low = np.sort(rng.uniform(-5, 5, 2).astype(dtype))[::-1]
                first = np.arange(n) < rng.integers(n // 4, n)
                check_two_values(slices, high, low, first)
                check_two_values(slices, high, low, ~first)

    def test_one_dominant_and_many_that_matter_together(self, dtype, n):
        """Each of the many is lost when it is added to 1 by itself, and their sum is the whole of log p."""
        for slices in slices_of(dtype, n):
            for i, together in enumerate([1.0, 1e-4, 1e-11]):
                high, low = np.array([2.5, 2.5 + np.log(together / (n - 1))], dtype)
                for place in [0, n // 3, n - 1] if n < 2**20 else [[n // 3, n - 1, 0][i]]:
                    check_two_values(slices, high, low, np.arange(n) == place)


@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("n", [2**10, 2**16, 2**20, 2**24])
def test_slow_ramp(dtype, n):
    """No two terms alike, down to exp(-16): a geometric series, for every logit is exact."""
    wide = np.longdouble
    step = 16 / n
    row = (np.arange(n) * -step).astype(dtype)
    assert float(row[-1]) == -(n - 1) * step
    # q + q^2 + ... + q^(n-1), q = exp(-step)
    r = np.exp(wide(-step)) * np.expm1(-(n - 1) * wide(step)) / np.expm1(wide(-step))
    some = np.unique(np.append(np.arange(0, n, 997), n - 1))
    for slices in slices_of(dtype, n):
        for ramp in (row, row[::-1]):
            slices.fill(ramp)
            gap = -ramp[some].astype(wide)
            gap = gap if slices.x.ndim == 1 else np.tile(gap[:, np.newaxis], slices.x.shape[1])
            check("logsumexp", slices.logsumexp(), np.log1p(r))
            check("log_softmax", slices.log_softmax()[some], -(gap + np.log1p(r)))
            probs = slices.softmax()
            check("softmax", probs[some], np.exp(-gap) / (1 + r))
            check_sum(probs)


class TestMaximumFarFromTheBeginning:
    """A long slice is computed with the maximum of its beginning, and anew if its own turns out to lie far above."""

    # On both sides of what the exponent has room for, of the shift, and beyond.
    HEIGHTS = (0.1, 30, 46.9, 47.1, 60, 200, 256, 290, 310, 500, 1e4)
    # Around the beginnings (of columns 64 elements, of longer ones and of rows 512) and the longest columns in a tile.
    SIZES = (("rows", [2048, 5000, 40_000]), ("columns", [64, 65, 80, 300, 2048, 2049, 5000]))

    @pytest.mark.parametrize("dtype", EXACT_DTYPES)
    @pytest.mark.parametrize(("layout", "n"), [(layout, n) for layout, sizes in SIZES for n in sizes])
    @pytest.mark.parametrize("beginning", [0.0, -250.0, -300.0, 250.0])
    @pytest.mark.parametrize("in_place", [False, True])
    def test_accuracy(self, dtype, layout, n, beginning, in_place):
        # In columns three groups, the last with a vector that is not full.
        heights = np.resize(self.HEIGHTS, 150 if layout == "columns" and n <= 300 else len(self.HEIGHTS))
        rows = oracles.normal((heights.size, n), dtype, scale=3.0) + np.asarray(beginning, dtype)
        rows[:, n - 7 :: 2] = beginning + heights.astype(dtype)[:, np.newaxis]
        x, axis = oracles.arrange(rows, layout)
        for name in ("softmax", "log_softmax", "logsumexp"):
            logits = x.copy()
            out = {} if name == "logsumexp" else {"out": logits if in_place else np.empty_like(x)}
            oracles.check(name, getattr(fastsoftmax, name)(logits, axis, **out), x, axis)

    @pytest.mark.parametrize("dtype", [*oracles.DTYPES, *oracles.HALVES])
    @pytest.mark.parametrize(("layout", "n"), [("rows", 5000), ("columns", 100), ("columns", 5000)])
    @pytest.mark.parametrize("beginning", [-np.inf, np.nan, np.inf, 1.0])
    @pytest.mark.parametrize("rest", [-np.inf, np.nan, np.inf, 1.0, 60.0])
    @pytest.mark.parametrize("in_place", [False, True])
    def test_infinities_and_nan(self, dtype, layout, n, beginning, rest, in_place):
        rows = np.full((3, n), rest, oracles.dtype_of(dtype))
        rows[1, : n * 4 // 5] = beginning  # beside two slices of one value
        x, axis = oracles.arrange(rows, layout)
        with np.errstate(invalid="ignore"):
            expected = oracles.softmax(x, axis), oracles.log_softmax(x, axis)
        for function, exact in zip((fastsoftmax.softmax, fastsoftmax.log_softmax), expected, strict=True):
            logits = x.copy()
            got = function(logits, axis, out=logits if in_place else np.empty_like(x)).astype("f8")
            np.testing.assert_allclose(got, exact.astype("f8"), rtol=0.01, atol=1e-7)

    @pytest.mark.parametrize(
        ("dtype", "scales"), [("float32", (1e-9, 1e-16, 1e-24)), ("float64", (1e-29, 1e-200, 1e-260))]
    )
    @pytest.mark.parametrize(("layout", "n"), [("rows", 3000), ("columns", 100), ("columns", 3000)])
    def test_gradients_of_small_weight(self, dtype, scales, layout, n):
        """The factor of a small weight would underflow beside a sum made large by a maximum that stands too low."""
        for height in (10, 30, 47, 100, 500, 590):
            rows = np.zeros((19, n), dtype)
            rows[:, -1], rows[:, -2] = height, height - 1
            x, axis = oracles.arrange(rows, layout)
            labels = np.resize([n - 1, n - 2, 0], 19)
            full = fastsoftmax.cross_entropy_grad(x, labels, axis, reduction="sum").astype(np.longdouble)
            for scale in scales:
                got = fastsoftmax.cross_entropy_grad(x, labels, axis, reduction="sum", grad_output=scale)
                exact = full * np.longdouble(np.array(scale, dtype))
                spacing = oracles.spacing(exact, np.dtype(dtype))
                assert np.all(np.abs(got - exact) <= 4 * spacing)

    @pytest.mark.parametrize("dtype", [*oracles.DTYPES, *oracles.HALVES])
    @pytest.mark.parametrize("n", [100, 5000])
    def test_neighbours_keep_their_bits(self, dtype, n):
        """Of columns that share a vector only the one that needs it is computed anew."""
        x = oracles.normal((n, 40), dtype, scale=1.0)
        x[:, 1] += np.asarray(300, x.dtype)  # computed otherwise if its maximum stood for it
        alone = x.copy()
        x[-1, ::4] += np.asarray(200, x.dtype)
        same = np.arange(40) % 4 != 0
        for name in ("softmax", "log_softmax", "logsumexp"):
            function = getattr(fastsoftmax, name)
            oracles.assert_same_bits(function(x, 0)[..., same], function(alone, 0)[..., same])
