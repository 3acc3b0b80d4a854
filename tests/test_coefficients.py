"""The constants of src/kernels/exp.h are those that src/kernels/coefficients.py derives."""

import importlib.util
import re
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[1] / "src" / "kernels"

pytestmark = pytest.mark.skipif(not KERNELS.exists(), reason="the sources are not beside the tests")


@pytest.fixture(scope="module")
def coefficients():
    pytest.importorskip("mpmath", reason="mpmath, which derives the constants, is not installed")
    spec = importlib.util.spec_from_file_location("coefficients", KERNELS / "coefficients.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tables(coefficients):
    return coefficients.tables()


def constants(begin, end):
    """The hexadecimal floats that stand in exp.h between two texts."""
    text = (KERNELS / "exp.h").read_text()
    start = text.index(begin)
    return [float.fromhex(x) for x in re.findall(r"-?0x[\da-f.]+p[+-]?\d+", text[start : text.index(end, start)])]


def array(struct, name):
    """The numbers of an array in one of exp.h's structs."""
    text = (KERNELS / "exp.h").read_text()
    values = re.search(rf"{name}\[\w+\] = {{(.*?)}}", text[text.index(struct) :], re.DOTALL)[1]
    return [float.fromhex(x.rstrip("f")) if "x" in x else int(x) for x in re.split(r",\s*", values)]


@pytest.mark.parametrize("dtype", ["float", "double"])
def test_exp(tables, dtype):
    assert constants(f"struct Exp<{dtype}>", "kRound") == [*tables[f"{dtype} LN2"], *tables[f"{dtype} LOG2E"]]


@pytest.mark.parametrize(("dtype", "steps"), [("float", 16), ("float", 8), ("float", 1), ("double", 8), ("double", 1)])
def test_exp_in_steps(tables, dtype, steps):
    struct = f"struct ExpSteps<{dtype}, {steps}>"
    assert array(struct, "kPolynomial") == tables[f"{dtype} EXP {steps}"]
    if steps > 1:
        assert array(struct, "kPowers") == tables[f"{dtype} POWERS {steps}"]
        assert array(struct, "kLost") == tables[f"{dtype} LOST {steps}"]


def test_log(tables):
    assert constants("kLog[] =", "constexpr uint64_t") == tables["double LOG"]


def test_numba(tables):
    """The Numba backend has the same, of exp and log."""
    pytest.importorskip("numba", reason="Numba is not installed")
    from fastsoftmax.backends.numba import exponential

    for dtype, c in [("float", exponential.FLOAT32), ("double", exponential.FLOAT64)]:
        assert list(c.polynomial) == tables[f"{dtype} EXP 1"]
        assert [c.ln2_high, c.ln2_low] == tables[f"{dtype} LN2"]
        assert [c.log2e] == tables[f"{dtype} LOG2E"]
    assert list(exponential._LOG) == tables["double LOG"]


@pytest.mark.parametrize(
    ("polynomial", "arguments", "bits"),
    [
        ("exp_polynomial", (3, 16), 28),
        ("exp_polynomial", (4, 8), 32),
        ("exp_polynomial", (6, 1), 28),
        ("exp_polynomial", (7, 8), 58),
        ("exp_polynomial", (11, 1), 56),
        ("log_polynomial", (7,), 58),
    ],
)
def test_error_of_the_polynomials(coefficients, polynomial, arguments, bits):
    """Far below half an ulp, so that rounding alone decides what the kernels' error is."""
    _, error = getattr(coefficients, polynomial)(*arguments)
    assert error < 2.0**-bits
