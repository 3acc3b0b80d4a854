"""The side-by-side measurement: it runs, it measures the right thing, and the README shows its figures."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax
import oracles
import oracles_grads

CHECKOUT = Path(__file__).resolve().parents[1]
PEERS = CHECKOUT / "benchmarks" / "peers"
MODULES = ["cases", "charts", "errors", "render"]

if not PEERS.exists():
    pytest.skip("the benchmarks do not lie beside these tests", allow_module_level=True)
pytest.importorskip("matplotlib", reason="the charts need matplotlib")


@pytest.fixture(scope="module")
def peers():
    """Import the scripts' modules as the scripts do, and forget them afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PEERS)
        yield {name: importlib.import_module(name) for name in MODULES}
        for name in MODULES:
            sys.modules.pop(name, None)


def script(name, *arguments, cwd):
    command = [sys.executable, str(PEERS / name), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Run the command on a tiny case, one with a forced instruction set, and one point of the charts."""
    folder = tmp_path_factory.mktemp("peers")
    only = r"^softmax \(32, 10\), fresh$|^softmax \(128, 1000\), baseline$|^softmax \(1, 1048576\), sweep$"
    options = ["--quick", "--only", only, "--threads", 1, "--seconds", 0.001, "--note", "a test"]
    done = script("run.py", *options, "--out", folder, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout, json.loads((folder / "peers.json").read_text())


# ---- The command


def test_quick_run_measures_every_case_asked_for(quick):
    _, printed, results = quick
    names = [record["name"] for record in results["records"]]
    assert names == ["softmax (32, 10), fresh", "softmax (128, 1000), baseline", "softmax (1, 1048576), sweep"]
    for name in names:
        assert len(re.findall(rf"^\| {re.escape(name)} \| 1 \| [\d.,]+; [\d.]+ ulp \|", printed, re.MULTILINE)) == 1
    assert results["records"][1]["isa"] == "baseline"
    assert results["records"][1]["results"].keys() <= {"ours", "PyTorch", "NumPy"}


def test_quick_run_tells_ratios_floors_and_errors(quick, peers):
    by_name = {case.name: case for case in peers["cases"].CASES}
    for record in quick[2]["records"]:
        found = record["results"]
        assert found["ours"]["ulp"] <= 4
        assert found["NumPy"]["ulp"] > found["ours"]["ulp"]
        for name, result in found.items():
            if name == "ours" or "seconds" not in result:
                continue
            assert result["ratio"] == pytest.approx(result["seconds"] / found["ours"]["seconds"], rel=1e-3)
            floor = by_name[record["name"]].floor(name, 1, record["isa"])
            assert result.get("floor") == floor
            assert floor is None or result["met"] == (result["ratio"] >= floor)


def test_quick_run_says_who_is_there_and_who_is_not(quick):
    _, printed, results = quick
    about = results["about"]
    assert about["versions"]["ours"] == fastsoftmax.__version__
    for name in ("PyTorch", "ONNX Runtime", "JAX", "NumPy", "SciPy", "scikit-learn"):
        left_out = [line for line in about["left out"] if line.startswith(f"{name} is left out: ")]
        assert (name in about["versions"]) != bool(left_out)
        assert all(f"- {line}\n" in printed for line in left_out)
    assert "- **Note: a test**" in printed


def test_quick_run_draws(quick):
    for name in ("peers_time", "peers_error"):
        png, svg = ((quick[0] / f"{name}.{suffix}").read_bytes() for suffix in ("png", "svg"))
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        assert len(png) > 20_000
        assert b"<svg" in svg


def test_unknown_cases_are_refused(tmp_path):
    done = script("run.py", "--only", "no such case", cwd=tmp_path)
    assert done.returncode == 1
    assert "no case is named like 'no such case'" in done.stderr


# ---- What is published


def test_the_readme_and_the_charts_are_those_of_the_json(tmp_path):
    done = script("render.py", "--check", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_finds_what_was_changed(quick, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("above\n<!-- peers:begin -->\nold\n<!-- peers:end -->\nbelow\n")
    results = shutil.copytree(quick[0], tmp_path / "results")
    options = ["--results", results, "--readme", readme]

    def wrong():
        done = script("render.py", "--check", *options, cwd=tmp_path)
        assert done.returncode == bool(done.stdout), done.stderr
        return done.stdout

    assert "README.md" in wrong()
    assert script("render.py", *options, cwd=tmp_path).returncode == 0
    assert wrong() == ""
    text = readme.read_text()
    assert re.fullmatch(r"above\n.*\n\| softmax \(32, 10\), fresh \| .*\nbelow\n", text, re.DOTALL)
    readme.write_text(text.replace("softmax (32, 10)", "softmax (32, 11)"))
    assert "README.md" in wrong()
    readme.write_text(text)
    (results / "peers_error.svg").unlink()
    assert "peers_error.svg" in wrong()
    json_text = (results / "peers.json").read_text()
    (results / "peers.json").write_text(json_text.replace("a test", "another"))
    assert all(name in wrong() for name in ("README.md", "peers.md", "peers_time.png", "peers_error.png"))


# ---- What is measured


def judged(peers, op, shape, dtype, **options):
    case = peers["cases"].Case(op, shape, {}, dtype=dtype, **options)
    data = peers["cases"].Data.of(case)
    return case, data, peers["errors"].Judge(case, data)


@pytest.mark.parametrize("dtype", oracles.EXACT_DTYPES)
@pytest.mark.parametrize("op", [*oracles.NAMES, "cross_entropy_with_grad"])
def test_errors_are_those_of_the_oracles(peers, op, dtype):
    _, data, judge = judged(peers, op, (50, 23), dtype)
    if op == "cross_entropy_with_grad":
        exact = oracles.cross_entropy(data.x, data.labels)[1] / 50
        got = fastsoftmax.cross_entropy_with_grad(data.x, data.labels)[1]
    else:
        exact = sum(oracles.logsumexp_parts(data.x)) if op == "logsumexp" else getattr(oracles, op)(data.x)
        got = getattr(fastsoftmax, op)(data.x)
    np.testing.assert_allclose(judge.exact, exact, rtol=1e-3 * np.finfo(dtype).eps)
    assert judge.error(got) == pytest.approx(oracles.worst(got, exact), abs=0.01)
    assert judge.error(np.nextafter(got, np.inf)) != judge.error(got)


@pytest.mark.parametrize("dtype", oracles.EXACT_DTYPES)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("op", ["softmax_grad", "log_softmax_grad"])
def test_errors_of_products(peers, op, axis, dtype):
    """In units of the spacing at the size of the terms."""
    _, data, judge = judged(peers, op, (50, 23), dtype, axis=axis)
    exact, size = oracles_grads.exact_and_size(op, data.x, data.saved, axis)
    got = getattr(fastsoftmax, op)(data.x, data.saved, axis)
    # (Long double's eps is 5e-4 of float64's, and a column is added one by one.)
    assert np.all(np.abs(judge.slices(exact) - judge.exact) <= 1e-2 * np.finfo(dtype).eps * judge.size)
    error = np.abs(got.astype(exact.dtype) - exact) / oracles.spacing(size, np.dtype(dtype))
    assert judge.error(got) == pytest.approx(error.max(), abs=0.01)
    with pytest.raises(ValueError, match="is right"):
        judge.error(getattr(fastsoftmax, op)(data.x, data.saved, 1 - axis))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", [*oracles.DTYPES, *oracles.HALVES])
def test_wrong_answers_are_refused(peers, dtype, axis):
    oracles.dtype_of(dtype)  # skips without ml_dtypes
    _, data, judge = judged(peers, "softmax", (40, 40), dtype, axis=axis)
    right = fastsoftmax.softmax(data.x, axis=axis)
    judge.error(right)
    with pytest.raises(ValueError, match="is right"):
        judge.error(fastsoftmax.softmax(data.x, axis=1 - axis))
    one_wrong = right.copy()
    one_wrong[-1, -1] = np.nan
    with pytest.raises(ValueError, match="nan where"):
        judge.error(one_wrong)
    with pytest.raises(ValueError, match="expected"):
        judge.error(right[1:])


def test_floors_of_the_contract(peers):
    by_name = {case.name: case for case in peers["cases"].CASES}
    assert len(by_name) == len(peers["cases"].CASES)  # --only and the tables need names that differ
    wide = by_name["softmax (256, 128256)"]
    assert [wide.floor("PyTorch", threads, "avx512") for threads in (1, 2, 4)] == [1.9, 1.4, None]
    assert [wide.floor("copy", threads, "avx512") for threads in (1, 2)] == [0.9, 1.2]
    assert wide.floor("PyTorch", 1, "avx2") is None
    assert by_name["softmax (1, 10), fresh"].floor("PyTorch", 2, "avx512") is None
    assert by_name["softmax (4096, 1000), avx2"].floor("PyTorch", 2, "avx2") == 1.2
