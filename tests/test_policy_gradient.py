"""examples/policy_gradient.py, which docs/numba.md shows."""

import importlib.util
import inspect
from pathlib import Path

import numpy as np
import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
EXAMPLE = CHECKOUT / "examples" / "policy_gradient.py"

pytestmark = pytest.mark.skipif(not EXAMPLE.exists(), reason="the tests lie without the example beside them")


@pytest.fixture(scope="module")
def example():
    pytest.importorskip("numba", reason="Numba is not installed")
    spec = importlib.util.spec_from_file_location("policy_gradient", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_compiled_loop_is_the_one_in_numpy(example):
    """The same draws lead to the same policy."""
    chances = np.random.default_rng(0).uniform(0.1, 0.9, (5, 7))
    results = [f(chances, 1000, 0.1, np.random.default_rng(1)) for f in (example.train, example.train_in_numpy)]
    (logits, reward), (expected, expected_reward) = results
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert reward == expected_reward


def test_it_learns(example):
    chances = np.random.default_rng(0).uniform(0.1, 0.9, (5, 7))
    _, reward = example.train(chances, 100_000, 0.1, np.random.default_rng(1))
    best, chance = chances.max(axis=1).mean(), chances.mean()
    assert reward > chance + 0.8 * (best - chance)


def test_draw(example):
    probs = np.array([0.25, 0.5, 0.25], np.float32)
    assert [example.draw(probs, u) for u in (0.0, 0.2, 0.3, 0.7, 0.8, 1.0)] == [0, 0, 1, 1, 2, 2]


def test_main(example, capsys):
    example.main(["--steps", "2000", "--arms", "4"])
    printed = capsys.readouterr().out
    assert "@njit" in printed
    assert "plain NumPy" in printed


def test_the_page_shows_it(example):
    page = CHECKOUT / "docs" / "numba.md"
    if not page.exists():
        pytest.skip("the tests lie outside a checkout")
    for function in (example.train.py_func, example.draw.py_func):
        assert inspect.getsource(function) in page.read_text()
