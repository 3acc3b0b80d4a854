"""The accuracy contract of rows: softmax, log_softmax, logsumexp, and cross-entropy where its digits are at stake.

The bounds and their units stand in oracles.BOUNDS; oracles.check asserts them. exp and log1p by themselves are in
test_exp.py, float16 and bfloat16 in test_half_precision.py.
"""

import numpy as np
import pytest

import fastsoftmax
import oracles
from oracles import BOUNDS, DTYPES, EXACT_DTYPES, NAMES

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
        assert oracles.ulp_error(np.float32(np.inf), np.float64(2.0**128)) == 0
        assert oracles.ulp_error(np.float32(np.inf), np.float64(2.0**128 * (1 - 2.0**-25) - 1e30)) == np.inf
        assert oracles.ulp_error(np.finfo("f4").max, np.float64(-(2.0**128))) == np.inf


class TestAgainstMpmath:
    """Each result itself, where long double does not judge: the oracles are not in between."""

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize(
        ("n", "scale", "offset"),
        [(1, 5, 0), (2, 5, 0), (10, 5, 0), (10, 5, 1e4), (37, 0.01, -3), (65, 60, 300), (65, 300, 0), (200, 5, -700)],
    )
    def test_family(self, dtype, layout, n, scale, offset):
        mpmath = pytest.importorskip("mpmath", reason="judges the results: not installed")
        rows = oracles.normal((3, n), dtype, scale=scale, offset=offset, seed=n)
        rows[2] -= rows[2].min() + 3  # the largest stands out
        rows[2, n // 2] = 60 if dtype == "float32" else 500
        x, axis = oracles.arrange(rows, layout)
        lse = fastsoftmax.logsumexp(x, axis=axis)
        labels = np.array([0, n // 3, n // 2])
        loss, grad = fastsoftmax.cross_entropy_with_grad(x, labels, axis, reduction="none")
        results = [fastsoftmax.softmax(x, axis=axis), fastsoftmax.log_softmax(x, axis=axis), grad]
        probs, logs, grad = (result if axis else result.T for result in results)
        eps = mpmath.mpf(float(np.finfo(dtype).eps))

        def error(got, exact):
            return abs(mpmath.mpf(float(got)) - exact) / float(oracles.spacing(np.float64(exact), np.dtype(dtype)))

        with mpmath.workdps(50):
            for i, row in enumerate(rows):
                m = mpmath.mpf(float(row.max()))
                e = [mpmath.exp(mpmath.mpf(float(v)) - m) for v in row]
                total = mpmath.fsum(e)
                rest = mpmath.log1p(mpmath.fsum(e[: row.argmax()] + e[row.argmax() + 1 :]))
                exact_loss = m - mpmath.mpf(float(row[labels[i]])) + rest
                assert abs(mpmath.mpf(float(lse[i])) - (m + rest)) <= BOUNDS["logsumexp"][dtype] * eps * (abs(m) + rest)
                assert error(loss[i], exact_loss) <= BOUNDS["cross_entropy"][dtype]
                for j, v in enumerate(e):
                    others = mpmath.fsum(e[:j] + e[j + 1 :])
                    assert error(probs[i, j], v / total) <= BOUNDS["softmax"][dtype]
                    assert error(logs[i, j], -mpmath.log1p(others / v)) <= BOUNDS["log_softmax"][dtype]
                    exact = -others / total if j == labels[i] else v / total
                    assert error(grad[i, j], exact) <= BOUNDS["cross_entropy_grad"][dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [*range(1, 65), 127, 128, 129, 1000, 4095, 4096, 65_537, 500_009])
def test_constant_rows(dtype, n):
    """One chain of additions breaks the bound on these from n = 17 on; their answer is 1/n."""
    batch = 20 if n < 100 else 2
    labels = np.arange(batch) % n
    for value in (0.0, 0.7, 300.3) if n < 10_000 else (0.7,):
        for layout in LAYOUTS:
            x, axis = oracles.arrange(np.full((batch, n), value, dtype), layout)
            log_n = np.log(np.longdouble(n))
            m = x.flat[0].astype(np.longdouble)
            grad = np.full((batch, n), 1 / np.longdouble(n))
            grad[np.arange(batch), labels] = (1 - np.longdouble(n)) / n
            loss, got_grad = fastsoftmax.cross_entropy_with_grad(x, labels, axis, reduction="none")
            probs = fastsoftmax.softmax(x, axis=axis)
            lse = fastsoftmax.logsumexp(x, axis=axis)
            for name, got, exact in [
                ("softmax", probs, np.full(x.shape, 1 / np.longdouble(n))),
                ("log_softmax", fastsoftmax.log_softmax(x, axis=axis), np.full(x.shape, -log_n)),
                ("logsumexp", lse, np.full(batch, m + log_n)),  # m >= 0: as large as |m| + log1p(r)
                ("cross_entropy", loss, np.full(batch, log_n)),
                ("cross_entropy_grad", got_grad, grad if axis else grad.T),
            ]:
                assert oracles.errors(name, got, exact, exact).max() <= BOUNDS[name][dtype], name
            distance = oracles.distance_of_sums_from_1(probs, axis)
            assert np.all(distance <= BOUNDS["sum of softmax"][dtype] * np.finfo(dtype).eps)


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
@pytest.mark.parametrize("n", [2, 10, 33, 64, 65, 300, 5000])
def test_digits_near_certainty(dtype, n):
    """log p and the true class's gradient p - 1, with p within 1e-12 of 1 and closer: to 1e-37, or 1e-307."""
    rng = np.random.default_rng(n)
    batch = 200 if n < 1000 else 30
    nearest, farthest = 28 + np.log(n), -np.log(np.finfo(dtype).tiny)
    rows = -rng.uniform(nearest, farthest, (batch, 1)) - rng.uniform(0, 30, (batch, n))
    rows[:, 0] = -np.linspace(nearest, farthest, batch, endpoint=False)  # so that 1 - p is no subnormal number
    labels = rng.integers(1, n, batch)
    rows[np.arange(batch), labels] = 0
    rows = rows.astype(dtype)
    for layout in LAYOUTS:
        x, axis = oracles.arrange(rows, layout)
        check_all(rows, [layout])
        loss, grad = fastsoftmax.cross_entropy_with_grad(x, labels, axis, reduction="none")
        alone = fastsoftmax.cross_entropy_grad(x, labels, axis, reduction="none")
        oracles.check("cross_entropy", loss, x, axis, labels=labels)
        oracles.check("cross_entropy_grad", grad, x, axis, labels=labels)
        oracles.check("cross_entropy_grad", alone, x, axis, labels=labels)
        exact_loss, exact_grad, _ = oracles.cross_entropy(x, labels, axis)
        log_probs = fastsoftmax.log_softmax(x, axis=axis)
        at_label = np.expand_dims(labels, axis)
        for got, exact in [(loss, exact_loss), (log_probs, -exact_loss), (grad, exact_grad), (alone, exact_grad)]:
            if exact.ndim == 2:
                exact = np.take_along_axis(exact, at_label, axis).ravel()
            if got.ndim == 2:
                got = np.take_along_axis(got, at_label, axis).ravel()
            assert np.all(np.abs(exact) < 1e-12)
            assert np.abs(exact).min() < 1e-30
            assert np.all(np.abs(got - exact) <= 4 * np.finfo(dtype).eps * np.abs(exact))


@pytest.mark.parametrize("dtype", EXACT_DTYPES)
def test_a_million_entries(dtype):
    check_all(np.random.default_rng(0).uniform(-3, 3, (1, 1_000_000)).astype(dtype), ["rows"])
