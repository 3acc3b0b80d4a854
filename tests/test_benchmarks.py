"""The asv benchmarks and the gate: they load, they time what they say, and the gate judges as it promises."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax

CHECKOUT = Path(__file__).resolve().parents[1]
BENCHMARKS = CHECKOUT / "benchmarks"
GATE = ["builds", "pairs", "run", "worker"]

if not BENCHMARKS.exists():
    pytest.skip("the benchmarks do not lie beside these tests", allow_module_level=True)


@pytest.fixture(scope="module")
def gate():
    """Import the gate's modules as its script does, and forget them afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS / "gate")
        patch.syspath_prepend(BENCHMARKS)
        yield {name: importlib.import_module(name) for name in GATE}
        for name in [name for name in sys.modules if name.partition(".")[0] in (*GATE, "benchmarks")]:
            del sys.modules[name]


@pytest.fixture
def one_thread():
    """What the benchmarks set stays theirs."""
    yield
    fastsoftmax.set_num_threads(None)


def run(*command, cwd):
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


# ---- asv


def test_asv_finds_no_fault():
    pytest.importorskip("asv", reason="the benchmarks need asv")
    done = run("-m", "asv", "check", "--python=same", cwd=BENCHMARKS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No problems found" in done.stdout


def test_the_baseline_computes_the_same(gate, one_thread, monkeypatch):
    pytest.importorskip("ml_dtypes", reason="the benchmarks have bfloat16 too")
    common = importlib.import_module("benchmarks.common")
    monkeypatch.setattr(common, "Timer", lambda statement, globals: (statement, globals))

    def result(cls, params, backend):
        benchmark = cls()
        benchmark.setup(*params[:-1], backend)
        statement, names = benchmark.timed
        exec(statement if "] = " in statement else f"result = {statement}", names)
        return names.get("result", names["x"])

    found = gate["worker"].cases()
    assert len(found) > 50
    for name, case in found.items():
        cls, params = case.args
        ours, numpy = (result(cls, params, backend) for backend in ("native", "numpy"))
        tolerance = 2.0**-7 if "float16" in name else 1e-4
        # (Of numbers to 20 that all but cancel, NumPy adds a thousand in a column one by one.)
        cancelled = 1e-4 if "bench_grads" in name else 1e-6
        for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (ours, numpy)), strict=True):
            np.testing.assert_allclose(
                np.asarray(a, np.float64), np.asarray(b, np.float64), tolerance, cancelled, err_msg=name
            )


def test_missing_backends_are_skipped(gate, one_thread):
    common = importlib.import_module("benchmarks.common")
    with pytest.raises(NotImplementedError, match="expected one of"):
        common.functions("no such backend")


# ---- How times are taken


class FakeTimer:
    """A timer whose calls take as long as it says, and every fifth turn ten times as long."""

    def __init__(self, seconds, turns):
        self.seconds, self.turns, self.calls = seconds, turns, 0

    def timeit(self, number):
        self.calls += 1
        self.turns.append(self)
        return self.seconds * number * (10 if self.calls % 5 == 0 else 1)


def test_contestants_take_turns(gate, monkeypatch):
    module = importlib.import_module("benchmarks.turns")
    monkeypatch.setattr(module, "wait_for_idle_workers", lambda: None)
    turns = []
    fast, slow = FakeTimer(30e-3, turns), FakeTimer(120e-3, turns)
    times = module.interleave({"fast": fast, "slow": slow}, seconds=0.6)
    assert times == pytest.approx({"fast": 30e-3, "slow": 120e-3})
    order = "".join("f" if timer is fast else "s" for timer in turns)
    # Two calls each to see how long one takes; then 20 turns against 5, evenly spread.
    assert order == "ffss" + "ffffs" * 5


# ---- The gate's verdict


@pytest.mark.parametrize(
    ("ratios", "slower"),
    [
        ([1.15] * 9, True),
        ([1.1] * 9, True),
        ([1.09] * 9, False),
        ([1.0] * 9, False),
        ([0.8] + [1.15] * 8, True),  # one disturbed sample clears nobody
        ([1.01, 1.02] + [1.15] * 7, False),  # two leave a doubt
        ([1.0] * 5 + [2.0] * 4, False),  # and noise that slows some samples convicts nobody
        ([1.06] * 4 + [1.2] * 5, True),
        ([1.04] * 2 + [1.2] * 7, False),
    ],
)
def test_verdict(gate, ratios, slower):
    assert gate["run"].is_slower(ratios, 1.1) == slower
    assert gate["run"].is_slower(ratios[::-1], 1.1) == slower


class FakePair:
    """Ratios from a script: those of the screening, then those of the confirmation."""

    def __init__(self, ratios):
        self.ratios = {name: iter(found) for name, found in ratios.items()}

    def __call__(self, base, head, number):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def ratio(self, name):
        found = next(self.ratios[name])
        return [] if found is None else [found]


def test_suspects_are_measured_again(gate, monkeypatch, capsys):
    pair = FakePair(
        {
            "equal": [1.0, 1.01, 0.99],
            "faster": [0.5, 0.5, 0.5],
            "absent": [None, None, None],
            "slower": [1.15, 1.16, 1.14, *[1.15] * 9],
            "noise": [1.3, 1.3, 1.3, *[1.0] * 9],
        }
    )
    monkeypatch.setattr(gate["run"], "Pair", pair)
    assert gate["run"].compare(("base", "head"), list(pair.ratios), 1.1, 3) == ["slower"]
    printed = capsys.readouterr().out
    assert "| slower | 1.150 | 1.140 to 1.160 | 1.150, **slower** |" in printed
    assert "| noise | 1.300 | 1.300 to 1.300 | 1.000 |" in printed
    assert "| equal | 1.000 | 0.990 to 1.010 |  |" in printed
    assert "absent does not run with base." in printed
    assert all(next(left, "used up") == "used up" for left in pair.ratios.values())


# ---- Its command


def test_gate_runs(tmp_path):
    # No noise reaches this threshold: that the gate sees slowdowns is not for a test that is timed.
    only = r"Softmax\(\(32, 10\), float32\)"
    arguments = ["installed", "installed", "--quick", "--only", only, "--threshold", 1000]
    done = run(BENCHMARKS / "gate" / "run.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| bench_softmax.Softmax((32, 10), float32) | " in done.stdout
    assert done.stdout.endswith("0 of 2 cases are slower\n")  # softmax and log_softmax


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-commit"], "'no-such-commit' is no commit of "),
        (["installed", "--only", "no such case"], "no case is named like 'no such case'"),
        (["installed", "--threshold", "1"], "--threshold must be above 1"),
    ],
)
def test_gate_refuses(arguments, message, tmp_path):
    done = run(BENCHMARKS / "gate" / "run.py", *arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr


def test_workers_import_their_own_build(gate, tmp_path):
    fake = tmp_path / "fastsoftmax"
    fake.mkdir()
    (fake / "__init__.py").write_text("raise SystemExit('the fake build')")
    with pytest.raises(SystemExit, match="the worker of fake ended with status 1"):
        gate["pairs"].Worker(gate["builds"].Build("fake", tmp_path))
