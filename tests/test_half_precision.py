"""float16 and bfloat16: computed and summed in float32, rounded once, so within 0.51 ulp (oracles.BOUNDS)."""

import numpy as np
import pytest

import fastsoftmax
import oracles
from oracles import HALVES, NAMES

pytestmark = pytest.mark.usefixtures("backend")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("layout", ["rows", "columns", "middle"])
@pytest.mark.parametrize("n", [*range(1, 35), 63, 64, 65, 128, 255, 256, 257, 1000, 5001, 70_001])
def test_every_size_class(name, dtype, layout, n):
    x, axis = oracles.arrange(oracles.normal((18 if n < 300 else 3, n), dtype, seed=n), layout)
    oracles.check(name, getattr(fastsoftmax, name)(x, axis=axis), x, axis)


@pytest.mark.parametrize("dtype", HALVES)
def test_special_entries(dtype):
    x = np.array([[np.nan, 0], [np.inf, 0], [-np.inf, 0], [-np.inf, -np.inf]])
    x = x.astype(oracles.dtype_of(dtype))
    for name in NAMES:
        oracles.check(name, getattr(fastsoftmax, name)(x), x)


def every_number(dtype):
    """All 65536 bit patterns; NaN that signal are among them."""
    return np.arange(2**16, dtype="uint16").view(oracles.dtype_of(dtype))


def binades(x):
    """The exponents of the finite numbers of x other than 0."""
    x = x.astype("f8")
    return set(np.frexp(x[np.isfinite(x) & (x != 0)])[1].tolist())


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("layout", ["rows", "columns"])
class TestTwoClasses:
    @staticmethod
    def results(first, second, layout):
        with np.errstate(invalid="ignore"):  # NaN that signal
            x, axis = oracles.arrange(np.stack([first, second], -1), layout)
            for name in NAMES:
                got = getattr(fastsoftmax, name)(x, axis=axis)
                oracles.check(name, got, x, axis)
                yield got
            labels = np.arange(first.size) % 2
            loss, grad = fastsoftmax.cross_entropy_with_grad(x, labels, axis, reduction="none")
            oracles.check("cross_entropy", loss, x, axis, labels=labels)
            oracles.check("cross_entropy_grad", grad, x, axis, labels=labels)
            yield grad

    def test_every_number_beside_0(self, dtype, layout):
        """Their results reach every size that a probability and a log-probability can have."""
        every = every_number(dtype)
        probs, logs, _, grad = self.results(every, np.zeros_like(every), layout)
        info = oracles.finfo(every.dtype)
        least = int(np.frexp(float(info.smallest_subnormal))[1])
        assert binades(probs) == set(range(least, 2))
        assert binades(grad) == set(range(least, 2))
        assert binades(logs) == set(range(least, int(np.frexp(float(info.max))[1]) + 1))

    def test_every_number_beside_its_neighbours_and_any_other(self, dtype, layout):
        every = every_number(dtype)
        for other in [np.roll(every, 1), np.roll(every, 40), np.random.default_rng(0).permutation(every)]:
            *_, grad = self.results(every, other, layout)
            assert np.isfinite(grad).any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", HALVES)
def test_every_number_beside_two_others(name, dtype):
    every = every_number(dtype)
    with np.errstate(invalid="ignore"):
        x = np.stack([every, np.zeros_like(every), every[::-1]], -1)
        oracles.check(name, getattr(fastsoftmax, name)(x), x)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("n", [2, 10, 33, 65, 300, 5000])
def test_digits_near_certainty(dtype, n):
    """log p and the true class's gradient p - 1 where p rounds to 1 (in bfloat16, to within 1e-12 of 1 and closer)."""
    rng = np.random.default_rng(n)
    dtype = oracles.dtype_of(dtype)
    batch = 200 if n < 1000 else 30
    farthest = -np.log(float(oracles.finfo(dtype).smallest_subnormal)) - 1
    rows = -np.log(n) - rng.uniform(0, 30, (batch, n)) - np.linspace(4, farthest, batch)[:, np.newaxis]
    rows[:, 0] = -np.linspace(4, farthest, batch)
    labels = rng.integers(1, n, batch)
    rows[np.arange(batch), labels] = 0
    for layout in ("rows", "columns"):
        x, axis = oracles.arrange(rows.astype(dtype), layout)
        logs = fastsoftmax.log_softmax(x, axis=axis)
        oracles.check("log_softmax", logs, x, axis)
        loss, grad = fastsoftmax.cross_entropy_with_grad(x, labels, axis, reduction="none")
        oracles.check("cross_entropy", loss, x, axis, labels=labels)
        for got in (grad, fastsoftmax.cross_entropy_grad(x, labels, axis, reduction="none")):
            oracles.check("cross_entropy_grad", got, x, axis, labels=labels)
            true = np.take_along_axis(got, np.expand_dims(labels, axis), axis).astype("f8")
            assert np.all(true < 0)
            # p itself is 1 long before.
            assert -true.max() < (1e-12 if dtype.name == "bfloat16" else 1e-6)
