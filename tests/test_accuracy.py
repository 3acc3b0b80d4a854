"""The accuracy contract, in units of the output's spacing at the exact value (ulp).

exp and log1p of the kernels 1; softmax and log_softmax 4; logsumexp 4 eps (|m| + log1p(r)), where
m is the maximum and r the sum of exp(x - m) over all entries but the first maximum; the sum of
probabilities within 4 eps of 1. oracles.check asserts these.
"""

import numpy as np
import pytest

import fastsoftmax
import oracles
from oracles import DTYPES, EXACT_DTYPES, NAMES

pytestmark = pytest.mark.usefixtures("backend")

LAYOUTS = ["rows", "columns"]


def check_all(rows, layouts=LAYOUTS, names=NAMES):
    for layout in layouts:
        x, axis = oracles.arrange(rows, layout)
        for name in names:
            oracles.check(name, getattr(fastsoftmax, name)(x, axis=axis), x, axis)


class TestOracles:
    """The judges themselves, against mpmath."""

    @pytest.mark.parametrize("dtype", EXACT_DTYPES)
    @pytest.mark.parametrize("scale", [0.01, 5.0, 60.0])
    def test_family(self, dtype, scale):
        mpmath = pytest.importorskip("mpmath", reason="judges the oracles: not installed")
        x = oracles.normal((3, 40), dtype, scale=scale, offset=300.0)
        got = oracles.softmax(x), oracles.log_softmax(x), sum(oracles.logsumexp_parts(x))
        labels = np.array([0, 7, 39])
        loss, grad, _ = oracles.cross_entropy(x, labels)
        with mpmath.workdps(60):

            def error(value, exact):
                value = mpmath.fdiv(*value.as_integer_ratio())
                return abs(value - exact) / float(oracles.spacing(np.float64(exact), x.dtype))

            for i, row in enumerate(x):
                e = [mpmath.exp(mpmath.mpf(float(v))) for v in row]
                total = mpmath.fsum(e)
                assert error(got[2][i], mpmath.log(total)) < 0.01
                assert error(loss[i], mpmath.log(total / e[labels[i]])) < 0.01
                for j, v in enumerate(e):
                    rest = mpmath.fsum(e[:j] + e[j + 1 :])
                    assert error(got[0][i, j], v / total) < 0.01
                    assert error(got[1][i, j], -mpmath.log1p(rest / v)) < 0.01
                    exact = -rest / total if j == labels[i] else v / total
                    assert error(grad[i, j], exact) < 0.01

    def test_ulp_error(self):
        tiny = np.float32(1e-45)
        assert oracles.ulp_error(tiny, np.float64(tiny) * 1.25) == 0.25
        assert oracles.ulp_error(np.float32(0), np.float64(2.0**-150)) == 0.5
        assert oracles.ulp_error(np.float32(1) + np.float32(2**-23), np.float64(1)) == 1
        assert oracles.ulp_error(np.float32(1) - np.float32(2**-24), np.float64(1)) == 0.5
        assert oracles.ulp_error(np.float32(np.nan), np.float64(1)) == np.inf
        assert oracles.ulp_error(np.float32(np.inf), np.float64(np.inf)) == 0
        assert oracles.ulp_error(np.float32(0), np.float64(-np.inf)) == np.inf


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [*range(1, 65), 127, 128, 129, 1000, 4095, 4096, 65_537, 500_009])
def test_constant_rows(dtype, n):
    """One chain of additions breaks the bound on these from n = 17 on; their answer is 1/n."""
    batch = 20 if n < 100 else 2
    for value in (0.0, 0.7, 300.3) if n < 10_000 else (0.7,):
        for layout in LAYOUTS:
            x, axis = oracles.arrange(np.full((batch, n), value, dtype), layout)
            probs = fastsoftmax.softmax(x, axis=axis)
            exact = np.longdouble(1) / n
            assert oracles.worst(probs, np.full(x.shape, exact)) <= 4
            distance = oracles.distance_of_sums_from_1(probs, axis)
            assert np.all(distance <= 4 * np.finfo(dtype).eps)
            logs = fastsoftmax.log_softmax(x, axis=axis)
            assert oracles.worst(logs, np.full(x.shape, -np.log(np.longdouble(n)))) <= 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_constant_row_of_the_longest_length_promised(dtype):
    probs = fastsoftmax.softmax(np.zeros(2**24, dtype))
    assert probs.min() == probs.max()
    assert oracles.worst(probs[:1], np.full(1, np.longdouble(2.0**-24))) <= 4


@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 5.0, 30.0, 300.0])
@pytest.mark.parametrize("n", [2, 3, 5, 8, 10, 17, 37, 64, 65, 100, 257, 1000, 2048, 5000, 32_000, 128_256])
def test_random_rows(dtype, scale, n):
    check_all(oracles.normal((max(2, min(3000, 50_000 // n)), n), dtype, scale=scale, seed=n))


@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("offset", [-1e8, -1e6, -1e4, -300, -257, -255.5, 200, 255, 256, 257, 700, 1e4, 1e6, 1e16])
@pytest.mark.parametrize("n", [2, 10, 40, 300, 5000])
def test_offsets(dtype, offset, n):
    # Where the exponential's argument is large, an error of its product would show.
    check_all(oracles.normal((60 if n < 1000 else 8, n), dtype, offset=offset, seed=n))


@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("n", [2, 10, 40, 300, 5000])
def test_rows_on_both_sides_of_where_the_shift_begins(dtype, n):
    # Beside |max| = 256, from logits of either sign, dominant or in company.
    rng = np.random.default_rng(n)
    rows = rng.uniform(-20, 0, (64, n)) + rng.uniform(255, 257, (64, 1)) * rng.choice([-1, 1], (64, 1))
    check_all(rows.astype(dtype))


@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("low", [-20.0, -80.0, -87.4, -103.0])
@pytest.mark.parametrize("n", [10, 1000, 20_000])
def test_uniform_rows_down_to_the_least_results(dtype, low, n):
    low = low if dtype == "float32" else low * 7.1
    check_all(np.random.default_rng(n).uniform(low, 0, (20 if n < 2000 else 3, n)).astype(dtype))


@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("offset", [0.0, 3.5, -300.0, 1e4])
@pytest.mark.parametrize("n", [2, 3, 10, 16, 40, 300, 5000])
def test_dominant_logits_keep_their_digits(dtype, offset, n):
    """log_softmax of the dominant one is -log1p(r), for r down to 1e-40 and below."""
    gaps = [0.0, 0.1, 0.7, 1, 2, 5, 10, 15, 17, 20, 40, 80, 86, 88, 92, 100]
    gaps += [] if dtype == "float32" else [150, 300, 650, 700, 707, 709, 720, 740]
    rows = np.empty((len(gaps), n), dtype)
    rng = np.random.default_rng(n)
    for row, gap in zip(rows, gaps, strict=True):
        row[...] = offset - gap - rng.uniform(0, 3, n)
        row[rng.integers(n)] = offset
    check_all(rows)


@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("seed", range(5))
def test_two_valued_rows_searched_at_random(dtype, seed):
    """Equal exponentials err alike: errors that cancel in random rows add up in these."""
    rng = np.random.default_rng(seed)
    for _ in range(40):
        n = int(2 ** rng.uniform(1, 11.5))
        high = rng.uniform(-3, 3, (12, 1)) * rng.choice([1, 90, 1000])
        low = high - 10 ** rng.uniform(-3, 1.5, (12, 1))
        rows = np.where(rng.random((12, n)) < rng.random((12, 1)), high, low)
        check_all(rows.astype(dtype), names=["softmax", "log_softmax", "logsumexp"])


@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("n", [2, 10, 33, 1000])
def test_logsumexp_near_zero(dtype, n):
    # m and log1p(r) cancel: an error of 4 eps of their sizes is promised, not of the result's.
    rows = oracles.normal((200, n), dtype, scale=1.0)
    rows -= np.asarray(sum(oracles.logsumexp_parts(rows)), dtype)[:, np.newaxis]
    check_all(rows, names=["logsumexp"])


@pytest.mark.parametrize("dtype", EXACT_DTYPES)
def test_a_million_entries(dtype):
    check_all(np.random.default_rng(0).uniform(-3, 3, (1, 1_000_000)).astype(dtype), ["rows"])
