"""docs/accuracy.md says what the tests assert: its bounds are theirs, and no figure of ours is above its bound."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import oracles
from oracles import BOUNDS

DOCS = Path(__file__).resolve().parents[1] / "docs"
ISAS = {"avx512", "avx2", "baseline"}

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="the tests lie outside a checkout")


@pytest.fixture(scope="module")
def script():
    """docs/accuracy.py as a module; it finds what it imports through sys.path."""
    spec = importlib.util.spec_from_file_location("accuracy_script", DOCS / "accuracy.py")
    module = importlib.util.module_from_spec(spec)
    kept = sys.path.copy()
    spec.loader.exec_module(module)
    sys.path[:] = kept
    return module


@pytest.fixture(scope="module")
def page():
    return (DOCS / "accuracy.md").read_text()


def tables(text):
    """Each table, as dicts by column, under the heading that stands nearest above it."""
    found, heading, header = {}, None, None
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if not line.startswith("|"):
            header = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if header is None:
            header = cells
            rows = found.setdefault(heading, [])
        elif set(cells) != {"---"}:
            rows.append(dict(zip(header, cells, strict=True)))
    return found


def figure(cell):
    return float(cell.replace("∞", "inf"))


def test_bounds_and_text_are_those_of_the_tests_and_the_kernels(script, page):
    assert script.bounds_table() in page
    assert script.accuracy_text.explanation() in page
    for name, dtypes in BOUNDS.items():
        for dtype, bound in dtypes.items():
            assert re.match(rf"{bound} ", script.accuracy_text.limit(name, dtype))


def test_every_table_is_there_and_no_figure_of_ours_is_above_its_bound(script, page):
    found = tables(page)
    for name in script.FUNCTIONS:
        for dtype, bound in BOUNDS[name].items():
            limit = script.accuracy_text.limit(name, dtype)
            rows = found.pop(f"{script.accuracy_text.TITLES[name]}, {dtype}: at most {limit}")
            assert [row["logits"] for row in rows] == list(script.FAMILIES)
            own = [figure(cell) for row in rows for column, cell in row.items() if column in ISAS]
            assert len(own) >= len(script.FAMILIES)
            assert max(own) <= bound
            (summary,) = (
                row
                for row in found["The largest errors found"]
                if (row["function"], row.get("dtype")) == (script.accuracy_text.TITLES[name], dtype)
            )
            assert summary["bound"] == limit
            assert figure(summary["fastsoftmax"]) == max(own)
    kernels = [row for row in found["The largest errors found"] if "fastsoftmax" not in row]
    assert {(row["function"].strip("`"), row["dtype"]) for row in kernels} == {
        (name, dtype) for name in script.KERNELS for dtype in BOUNDS[name]
    }
    for row in kernels:
        bound = BOUNDS[row["function"].strip("`")][row["dtype"]]
        own = [figure(cell) for column, cell in row.items() if column in ISAS]
        assert own
        assert max(own) <= bound
    assert not [heading for heading in found if "at most" in heading]


def test_figures_are_rounded_up(script):
    assert [script.shown(error) for error in (0.0, 0.5, 0.5001, 4, 4.0001, 3.999, 12.31, 1234.5)] == [
        *("0", "0.5", "0.501", "4", "4.01", "4", "12.4"),
        "1240",
    ]
    assert [script.shown(error) for error in (None, np.inf, np.nan, 8_388_608.0)] == ["", "∞", "∞", "8.4e+06"]


@oracles.wide_longdouble
def test_measurement(script):
    """A few rows through the script: the errors of ours, of an altered result, and of one that refuses."""
    ours = script.ours()

    def spoil(function):
        def spoilt(*args):
            got = function(*args)
            return got * got.dtype.type(1 + 2.0**-6)

        return spoilt

    families = {"few": lambda rng, dtype: [rng.normal(0, 5, (7, 10)).astype(dtype)]}

    def refuse(*_):
        raise NotImplementedError

    contestants = {
        "ours": ours,
        "spoilt": {name: spoil(function) for name, function in ours.items()},
        "refuses": dict.fromkeys(ours, refuse),
    }
    found = script.measure(contestants, families=families, refusal=NotImplementedError)
    for name in script.FUNCTIONS:
        for dtype, bound in BOUNDS[name].items():
            assert 0 < found["ours"][name][dtype]["few"] <= bound
            assert found["spoilt"][name][dtype]["few"] > bound
            assert found["refuses"][name][dtype]["few"] is None
    with pytest.raises(NotImplementedError):
        script.measure({"ours": dict.fromkeys(ours, refuse)}, families=families)
