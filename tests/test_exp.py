"""exp and log1p of the kernels: within 1 ulp, over every float32 and a dense sample of float64."""

import os

import numpy as np
import pytest

import oracles
from fastsoftmax import _registry
from oracles import BOUNDS, DTYPES

pytestmark = pytest.mark.usefixtures("backend")

exhaustive = pytest.mark.skipif(
    "FASTSOFTMAX_EXHAUSTIVE" not in os.environ,
    reason="takes 3 to 9 s with AVX-512 or AVX2, half a minute without: set FASTSOFTMAX_EXHAUSTIVE=1 to run it",
)


def kernels_exp(x):
    return _registry.current().exp(x)


def kernels_log1p(x):
    return _registry.current().log1p(x)


def check_against_mpmath(name, x, got):
    """Hold each float64 to 1 ulp."""
    mpmath = pytest.importorskip("mpmath", reason="judges float64: not installed")
    with mpmath.workdps(40):
        for v, g in zip(x, got, strict=True):
            exact = getattr(mpmath, name)(mpmath.mpf(float(v)))
            spacing = oracles.spacing(np.float64(exact), x.dtype)
            assert abs(mpmath.mpf(float(g)) - exact) <= mpmath.mpf(float(spacing))


class TestEveryFloat32:
    """The walk over all bit patterns, on functions whose errors are known."""

    def test_segments_cover_every_pattern_once(self):
        for name, last in [("exp", 0xFFFFFFFF), ("log1p", 0x7FFFFFFF)]:
            following = 0
            for segment in oracles.EVERY_FLOAT32[name]:
                assert segment[0] == following
                following = segment[1] + 1
            assert following == last + 1

    @pytest.mark.parametrize("name", ["exp", "log1p"])
    def test_an_error_anywhere_is_seen(self, name, monkeypatch):
        # Of each segment its ends and a piece.
        table = [
            (first, last, expected)
            for start, stop, expected in oracles.EVERY_FLOAT32[name]
            for first, last in {(start, min(stop, start + 99)), (max(start, stop - 99), stop)}
        ]
        monkeypatch.setitem(oracles.EVERY_FLOAT32, name, table)

        def rounded(x, wrong=None, change=None):
            with np.errstate(all="ignore"):
                y = getattr(np, name)(x.astype("f8")).astype("f4")
            return y if wrong is None else np.where(x.view("u4") == wrong, change(y), y)

        assert 0.4 < oracles.worst_of_every_float32(name, rounded) <= 0.5
        for first, last, expected in table:
            for wrong in (first, last, (first + last) // 2):
                for change in [
                    lambda y: np.where(np.isfinite(y), np.nextafter(np.nextafter(y, np.float32(9)), np.float32(9)), 1),
                    lambda y: np.where(np.isnan(y), np.float32(0), np.float32(np.nan)),
                ]:
                    largest = oracles.worst_of_every_float32(name, lambda x, w=wrong, c=change: rounded(x, w, c))
                    assert not largest <= 1, (hex(wrong), expected)


def hooked(function, x):
    x = np.ascontiguousarray(x)
    got = function(x)
    assert (got.dtype, got.shape) == (x.dtype, x.shape)
    return got


class TestExp:
    @staticmethod
    def check(x):
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            exact = np.exp(x.astype("f8" if x.dtype == np.float32 else np.longdouble))
        assert oracles.worst(hooked(kernels_exp, x), exact) <= BOUNDS["exp"][x.dtype.name]

    def test_float32_on_a_sample_of_all_numbers(self):
        self.check(np.arange(0, 2**32, 1009, dtype="u4").view("f4"))

    def test_float32_on_all_numbers_of_some_ranges(self):
        for low, high in [(0.34, 0.36), (-0.36, -0.34), (-87.5, -87.2), (88.6, 88.8), (-104, -103)]:
            first, last = np.sort(np.array([low, high], "f4").view("u4"))
            self.check(np.arange(first, last, dtype="u4").view("f4"))

    @exhaustive
    def test_float32_on_every_number(self):
        assert oracles.worst_of_every_float32("exp", kernels_exp) <= BOUNDS["exp"]["float32"]

    @oracles.wide_longdouble
    def test_float64_on_a_dense_sample(self):
        rng = np.random.default_rng(0)
        self.check(rng.uniform(-746, 710, 600_000))
        self.check(rng.uniform(-746, -707, 200_000))  # subnormal results
        self.check(np.exp(rng.uniform(-45, 7, 100_000)) * rng.choice([-1, 1], 100_000))
        self.check(rng.integers(0, 2**64, 200_000, dtype="u8").view("f8"))

    @oracles.wide_longdouble
    def test_float64_where_the_reduction_is_worst(self):
        # Next to the odd multiples of ln(2)/2 the integer exponent changes; next to the even
        # ones the reduced argument is all cancellation.
        k = np.arange(-2150, 2048)
        near = np.asarray(k * np.log(np.longdouble(2)) / 2, "f8")
        steps = np.arange(-20, 21)[:, np.newaxis] * np.spacing(near)
        self.check((near + steps).ravel())

    def test_float64_against_mpmath(self):
        x = np.random.default_rng(1).uniform(-740, 709, 3000)
        check_against_mpmath("exp", x, kernels_exp(x))

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_special_values(self, dtype):
        info = np.finfo(dtype)
        x = [0.0, -0.0, np.inf, -np.inf, np.nan, info.max, info.min, info.smallest_subnormal]
        expected = [1, 1, np.inf, 0, np.nan, np.inf, 0, 1]
        for n in range(1, 40):  # in every lane, and in every length of tail
            got = kernels_exp(np.resize(np.array(x, dtype), n))
            np.testing.assert_array_equal(got, np.resize(np.array(expected, dtype), n))


class TestLog1p:
    """For arguments of at least 0: they are sums of exponentials."""

    @staticmethod
    def check(x):
        exact = np.log1p(x.astype("f8" if x.dtype == np.float32 else np.longdouble))
        assert oracles.worst(hooked(kernels_log1p, x), exact) <= BOUNDS["log1p"][x.dtype.name]

    def test_float32_on_a_sample_of_all_numbers(self):
        self.check(np.arange(0, 0x7F800001, 521, dtype="u4").view("f4"))
        first, last = np.array([0.25, 1.5], "f4").view("u4")
        self.check(np.arange(first, last, 5, dtype="u4").view("f4"))

    @exhaustive
    def test_float32_on_every_number(self):
        assert oracles.worst_of_every_float32("log1p", kernels_log1p) <= BOUNDS["log1p"]["float32"]

    @oracles.wide_longdouble
    def test_float64_on_a_dense_sample(self):
        rng = np.random.default_rng(0)
        self.check(rng.integers(0, 0x7FF0000000000001, 500_000, dtype="u8").view("f8"))
        self.check(np.exp(rng.uniform(-40, 40, 300_000)))
        self.check(rng.uniform(0, 3, 300_000))

    def test_float64_against_mpmath(self):
        x = np.exp(np.random.default_rng(1).uniform(-40, 20, 3000))
        check_against_mpmath("log1p", x, kernels_log1p(x))

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_special_values(self, dtype):
        least = np.finfo(dtype).smallest_subnormal
        x, expected = np.array([[0, np.inf, np.nan, least], [0, np.inf, np.nan, least]], dtype)
        for n in range(1, 40):
            got = kernels_log1p(np.resize(x, n))
            np.testing.assert_array_equal(got, np.resize(expected, n))
