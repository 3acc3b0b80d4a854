"""The measurement on a GPU, without one: its rules, its tables, and a run of it on arrays of NumPy."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax

CHECKOUT = Path(__file__).resolve().parents[1]
GPU = CHECKOUT / "benchmarks" / "gpu"
MODULES = [
    "arrays",
    "bench",
    "chart",
    "contestants",
    "device",
    "judge",
    "measure",
    "report",
    "smoke",
    "targets",
    "timing",
]
INDIRECTLY = ["cases", "ceilings", "errors", "render", "shared"]

if not GPU.exists():
    pytest.skip("the benchmarks do not lie beside these tests", allow_module_level=True)

in_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


# ---- A device that is the host


class FakeKernel:
    kernel = types.SimpleNamespace(ptr=0)

    def __init__(self, name, options):
        self.operation, _, number = name.partition("_")
        self.number = int(options[-1].partition("=")[2] if name == "number_of_next" else number or 0)

    def __call__(self, grid, block, arguments):
        if self.operation == "copy":
            source, target, size = arguments
            assert size == source.nbytes == target.nbytes
            assert grid[0] * block[0] * self.number * 16 >= size
            target[...] = source
        elif self.operation == "combine":
            a, b, target, _ = arguments
            target[...] = (a.view(np.uint8) ^ b.view(np.uint8)).view(a.dtype)
        elif self.operation == "number":
            block = np.arange(grid[0])
            arguments[0][...] = block // self.number * self.number + (block + 1) % self.number


class FakeEvent:
    done = False  # the device is still waiting

    def record(self):
        self.time = time.perf_counter()

    def synchronize(self):
        pass


def fake_cupy(free=2**40):
    """Build a module with what the measurement uses of CuPy; its arrays are NumPy's."""
    error = type("FakeError", (Exception,), {})
    runtime = types.SimpleNamespace(
        CUDARuntimeError=error,
        deviceSynchronize=lambda: None,
        driverGetVersion=lambda: 13000,
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda device: {"name": b"NVIDIA Fake 100"},
        memGetInfo=lambda: (free, 2**40),
        runtimeGetVersion=lambda: 13000,
    )
    attributes = {
        "GlobalMemoryBusWidth": 5120,
        "L2CacheSize": 2**12,
        "MemoryClockRate": 2619000,
        "MultiProcessorCount": 132,
    }
    device = types.SimpleNamespace(attributes=attributes, compute_capability="90", id=0, pci_bus_id="none")
    cupy = types.ModuleType("cupy")
    for name in ("add", "asarray", "empty", "empty_like", "from_dlpack", "uint64", "zeros"):
        setattr(cupy, name, getattr(np, name))
    cupy.__version__ = "0"
    cupy.asnumpy = np.asarray
    cupy.RawModule = lambda code, options: types.SimpleNamespace(get_function=lambda name: FakeKernel(name, options))
    cupy.get_default_memory_pool = lambda: types.SimpleNamespace(free_all_blocks=lambda: None)
    cupy.cuda = types.SimpleNamespace(
        Device=lambda: device,
        Event=FakeEvent,
        driver=types.SimpleNamespace(CUDADriverError=error, funcSetAttribute=lambda *arguments: None),
        get_elapsed_time=lambda begin, end: (end.time - begin.time) * 1e3,
        runtime=runtime,
    )
    return cupy


@pytest.fixture
def gpu(monkeypatch):
    """Import the scripts' modules as the scripts do, and forget them afterwards."""
    monkeypatch.syspath_prepend(GPU)
    monkeypatch.setattr(sys, "path", sys.path.copy())  # shared.py appends to it
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    monkeypatch.setitem(sys.modules, "cupyx", None)
    yield types.SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    for name in MODULES + INDIRECTLY:
        sys.modules.pop(name, None)


# ---- What is measured


def test_targets(gpu):
    cases = {case.name: case for case in gpu.targets.every_case()}
    assert len(cases) == len(gpu.targets.every_case())  # --only and the tables need names that differ
    assert cases["softmax (32768, 256), bfloat16"].target == 0.90
    assert cases["cross_entropy (32768, 256), float32"].target == 0.85
    assert cases["cross_entropy_with_grad (4096, 262144), bfloat16"].target == 0.95
    assert cases["softmax_grad (32768, 256), float32"].target is None
    sweep = [case for case in cases.values() if case.group == "sweep"]
    assert {case.array_bytes for case in sweep} == {2**29}
    assert {case.n for case in sweep} == {2**k for k in range(4, 21)}
    assert any(map(gpu.targets.is_quick, cases.values()))


@pytest.mark.parametrize(
    ("op", "moved", "ceiling"),
    [
        ("softmax", 2 * 2000, "copy"),
        ("cross_entropy_with_grad", 2 * 2000 + 10 * 8, "copy"),
        ("softmax_grad", 3 * 2000, "combine"),
        ("logsumexp", 2000 + 10 * 2, "read"),
        ("cross_entropy", 2000 + 10 * 8 + 10 * 4, "read"),
    ],
)
def test_bytes_that_must_be_moved(gpu, op, moved, ceiling):
    case = gpu.targets.Case(op, (10, 100), "bfloat16")
    assert (case.moved_bytes, case.ceiling) == (moved, ceiling)


def test_arrays_outgrow_the_l2(gpu):
    pytest.importorskip("ml_dtypes", reason="bfloat16 is the ml_dtypes package's")
    case = gpu.targets.Case("softmax_grad", (3, 400000), "bfloat16")
    slots = gpu.arrays.make(case, 10 * 2**20)
    assert len(slots) * case.moved_bytes > 40 * 2**20 >= (len(slots) - 1) * case.moved_bytes
    flat = slots[-1].x.reshape(-1)
    period = gpu.arrays.PERIOD
    np.testing.assert_array_equal(flat[period:], flat[: flat.size - period])
    assert np.unique(flat[:1000]).size > 100
    assert slots[0].y.astype(np.float64).sum(axis=1) == pytest.approx(1, rel=0.01)
    assert len({slot.x.ctypes.data for slot in slots}) == len(slots)


@pytest.mark.parametrize(
    ("op", "axis"),
    [
        ("softmax", 1),
        ("softmax", 0),
        ("logsumexp", 0),
        ("softmax_grad", 0),
        ("cross_entropy", 1),
        ("cross_entropy_with_grad", 1),
    ],
)
def test_judge(gpu, op, axis):
    case = gpu.targets.Case(op, (40, 50), axis=axis)
    slots = gpu.arrays.make(case, 1)
    judge = gpu.judge.Judge(case, slots[0])
    if case.writes:
        gpu.judge.poison(slots[0].out)
        with pytest.raises(gpu.judge.WrongError, match="not written"):
            judge.error(slots[0].out, np.dtype("float32"))
    right = gpu.contestants.call_ours(case, slots).caller()(0)
    error = judge.error(right, right.dtype)
    assert (error is None) if op == "softmax_grad" else 0 < error <= 4
    with pytest.raises(gpu.judge.WrongError, match="is right"):
        judge.error(right + np.float32(0.01) * np.abs(right).max(), right.dtype)
    with pytest.raises(gpu.judge.WrongError, match="expected"):
        judge.error(right[1:], right.dtype)


# ---- How it is timed


class FakeStopwatch:
    """A device on which a call takes as long as it says; the host is ahead if it may wait long enough."""

    def __init__(self):
        self.waits = []

    def on_host(self, call, count):
        return 10e-6

    def on_device(self, call, count, wait):
        self.waits.append(wait)
        taken = [call() for _ in range(count)]
        return sum(seconds for seconds, _ in taken) / count, wait >= max(needed for _, needed in taken)


def test_contestants_take_turns_over_all_slots(gpu):
    order, device = [], FakeStopwatch()

    def contestant(name, seconds, needed=0):
        noise = itertools.cycle([1, 1, 1, 1, 1, 1, 10])
        return lambda slot: order.append((name, slot)) or (seconds * next(noise), needed)

    calls = {"fast": contestant("fast", 1e-3), "slow": contestant("slow", 8e-3), "late": contestant("late", 1e-3, 4e-4)}
    times = gpu.timing.interleave(calls, 3, 7, device)
    assert times["slow"].seconds == 8e-3  # one call a turn: the disturbed ones are not the median
    assert all(found.ahead for found in times.values())
    for name in calls:
        slots = [slot for contestant, slot in order if contestant == name]
        assert slots == [i % 3 for i in range(len(slots))]
    turns = [name for name, _ in itertools.groupby(order[-20:], key=lambda taken: taken[0])]
    assert turns == (["fast", "slow", "late"] * 7)[-len(turns) :]


def test_waiting_contestants_are_marked(gpu):
    device = FakeStopwatch()
    times = gpu.timing.interleave({"waits": lambda slot: (1e-3, np.inf)}, 1, 4, device)
    assert not times["waits"].ahead
    assert len(device.waits) == 1 + 4 + gpu.timing.PATIENCE
    assert device.waits[-1] == device.waits[1] * 2**gpu.timing.PATIENCE


# ---- The command


def script(*command, **variables):
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **variables}
    return subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, timeout=60, check=False)


def test_help_needs_no_device():
    done = script(sys.executable, GPU / "bench.py", "--help")
    assert done.returncode == 0
    assert "--only" in done.stdout


def test_without_a_device_it_says_so():
    done = script(sys.executable, GPU / "bench.py", "--quick")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("nothing is measured: ")
    assert "Traceback" not in done.stderr


@in_bash
def test_check_without_a_device_says_so():
    done = script("bash", GPU / "check.sh", PYTHON=sys.executable)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
@pytest.mark.parametrize(
    ("source", "arch"),
    [("kernels", "sm_80"), ("kernels", "sm_90"), ("kernels", "sm_100"), ("clusters", "sm_90")],
)
def test_kernels_compile(source, arch, tmp_path):
    cubin = tmp_path / "kernels.cubin"
    options = ["-std=c++17", f"-arch={arch}", "-DCLUSTER=16", "-Werror", "all-warnings", "-Xptxas", "-v"]
    done = script("nvcc", "-cubin", *options, "-o", cubin, GPU / f"{source}.cu")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(" 0 bytes spill loads") == done.stderr.count(" bytes spill loads") > 0
    if source == "kernels":
        found = cubin.read_bytes()
        names = [f"{kind}_{vectors}" for kind in ("copy", "combine", "read") for vectors in (1, 2, 4, 8)]
        assert all(name.encode() in found for name in [*names, "delay"])


@pytest.fixture
def run(gpu, monkeypatch, tmp_path, capsys):
    """Run the command on small cases, beside a peer that is NumPy, one that fails, and one that is wrong."""

    def numpy(case, slots):
        from fastsoftmax import reference

        return gpu.contestants.Contestant(f"{case.op}(s.x, 1)", {case.op: getattr(reference, case.op)}, slots)

    def fail(case, slots):
        raise TypeError("no such | dtype\nand more")

    def wrong(case, slots):
        return gpu.contestants.Contestant("s.x", {}, slots)

    library, ours = gpu.contestants.Library, gpu.contestants.OURS
    peers = [library("CuPy", numpy, ("numpy",)), library("Liger", fail, ("numpy",))]
    peers += [library("Triton", wrong, ("numpy",)), library("PyTorch", numpy, ("no_such_module",))]
    monkeypatch.setattr(gpu.contestants, "LIBRARIES", [ours, *peers])
    case = gpu.targets.Case
    cases = [
        case("softmax", (500, 64)),
        case("softmax", (64, 300), group="odd"),
        case("softmax", (64, 7), group="sweep"),
    ]
    monkeypatch.setitem(gpu.targets.TARGETS, (500, 64), {"copy": (1e9, 1e9)})
    monkeypatch.setattr(gpu.bench, "every_case", lambda: cases)

    def call(*options):
        path = tmp_path / "gpu-fake.json"
        status = gpu.bench.main([*options, "--json", str(path), "--rounds", "2"])
        return status, capsys.readouterr().out, json.loads(path.read_text()), path

    fastsoftmax.set_num_threads(1)
    yield call
    fastsoftmax.set_num_threads(None)


def test_run(gpu, run):
    status, printed, results, path = run()
    assert status == 0
    about, records = results["about"], results["records"]
    assert about["device"]["gpu"] == "NVIDIA Fake 100"
    assert about["device"]["peak, GB/s"] == 3352
    assert about["clusters"] == dict.fromkeys(["2", "4", "8", "16"], "works")
    assert about["calls, µs"]["fastsoftmax.softmax, out"] > 0
    assert any(line.startswith("PyTorch is left out: No module named") for line in about["left out"])
    assert [record["name"] for record in records] == [case.name for case in gpu.bench.every_case()]
    for record in records:
        found = record["results"]
        assert found["ours"]["ulp"] <= 4
        assert found["ours"]["fraction"] == pytest.approx(found["ours"]["GB/s"] / record["ceiling"]["GB/s"], rel=1e-3)
        ratio = found["CuPy"]["seconds"] / found["ours"]["seconds"]
        assert found["CuPy"]["ratio"] == pytest.approx(ratio, rel=1e-3)
        assert found["Liger"] == {"failed": "TypeError: no such / dtype"}
        assert "is right" in found["Triton"]["wrong"]
    assert records[0]["results"]["ours"]["met"] is False
    assert "0 of 1 are met." in printed
    text = path.with_suffix(".md").read_text()
    for record in records:
        line = gpu.report.row(record, ["CuPy", "Liger", "Triton"])
        assert f"{line}\n" in text
        assert f"{line}\n" in printed
    assert "| softmax | ours | `softmax(s.x, 1, out=s.out)` |" in text


def test_run_goes_on_where_a_case_fails(gpu, run, monkeypatch):
    measure = gpu.bench.measure

    def fails_once(case, *arguments):
        if case.group == "odd":
            raise MemoryError("none left")
        return measure(case, *arguments)

    monkeypatch.setattr(gpu.bench, "measure", fails_once)
    monkeypatch.setattr(gpu.chart, "draw", lambda *arguments: [])
    status, _, results, _ = run()
    assert status == 1
    assert len(results["records"]) == 2
    assert "softmax (64, 300), float32, odd is left out: MemoryError: none left" in results["about"]["left out"]


def test_missing_memory_is_told(gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(free=1000))
    with pytest.raises(ValueError, match="too little memory"):
        gpu.measure.measure(gpu.targets.Case("softmax", (500, 64)), [], 1, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--only", "no such case"], "no case is named like 'no such case'"), (["--rounds", "0"], "must be at least 1")],
)
def test_bench_refuses(gpu, options, message, capsys):
    with pytest.raises(SystemExit):
        gpu.bench.main(options)
    assert message in capsys.readouterr().err


# ---- What is shown


def made_up(gpu, name, group="main", shape=(32768, 256), dtype="float32", ours=3000.0, **results):
    op = name
    record = {"name": f"{op} {shape}, {dtype}", "group": group, "op": op, "shape": shape, "dtype": dtype}
    record["ceiling"] = {"kernel": "copy_4", "seconds": 1e-4, "GB/s": 4000.0}
    mine = {"expression": f"{op}(s.x)", "seconds": 2e-4, "GB/s": ours, "fraction": ours / 4000, "ulp": 1.25}
    if group == "main":
        mine |= {"target": 0.7, "met": ours / 4000 >= 0.7}
    return record | {"results": {"ours": mine, **results}}


def peer(ratio, **more):
    return {"expression": "f(s.x)", "seconds": ratio * 2e-4, "GB/s": 3000 / ratio, "ratio": ratio, **more}


def test_row(gpu):
    record = made_up(gpu, "softmax", PyTorch=peer(1.5), CuPy=peer(12.0, gaps=True), Liger={"failed": "TypeError: no"})
    expected = "200 | 3,000 | 0.750 ≥ 0.70 | 4,000 (copy_4) | 1.2 | 1.50 | 12.0\\* | failed |  |"
    assert gpu.report.row(record, ["PyTorch", "CuPy", "Liger", "Triton"]) == f"| {record['name']} | {expected}"
    assert "| **0.500 < 0.70** |" in gpu.report.row(made_up(gpu, "softmax", ours=2000.0), [])
    assert "| 0.500 |" in gpu.report.row(made_up(gpu, "softmax", group="odd", ours=2000.0), [])


def test_summary(gpu):
    records = [
        made_up(gpu, "softmax", PyTorch=peer(1.0), Triton={"expression": "", "wrong": "1 where 2 is right"}),
        made_up(gpu, "softmax", shape=(32768, 1024), ours=2000.0, PyTorch=peer(4.0)),
        made_up(gpu, "cross_entropy", PyTorch=peer(1.9)),
    ]
    met, averages, published, not_timed = map(
        "\n".join, gpu.report.summary({"about": {"device": {"peak, GB/s": 4800}}, "records": records})
    )
    assert "2 of 3 are met." in met
    assert "| softmax (32768, 1024), float32 | 0.500 | 0.70 |" in met
    assert "| softmax | PyTorch | 2.00 ≥ 1.7 | 1.00 | 4.00 | 2 |" in averages
    assert "| cross_entropy | PyTorch | **1.90 < 2** |" in averages
    assert "| softmax (32768, 256), float32 | 0.625 | 0.704 | **0.887 < 1** |" in published
    assert "| Triton | softmax (32768, 256), float32 | wrong: 1 where 2 is right |" in not_timed


def test_chart(gpu, tmp_path):
    pytest.importorskip("matplotlib", reason="the chart needs matplotlib")
    records = [
        made_up(gpu, "softmax", "sweep", (2**27 // n, n), dtype, 100.0 * k, PyTorch=peer(k), Liger={"failed": "no"})
        for dtype in ("float32", "bfloat16")
        for k, n in enumerate([16, 256, 4096], start=1)
    ]
    results = {"about": {"device": {"gpu": "NVIDIA Fake 100", "date": "2026-01-01"}}, "records": records}
    assert gpu.chart.curves(records)["float32"]["ours"] == ([16, 256, 4096], [100.0, 200.0, 300.0])
    png, svg = gpu.chart.draw(results, tmp_path / "gpu-fake.json")
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert "NVIDIA Fake 100" not in svg.name
    assert svg.read_text().count("<svg") == 1
    assert gpu.chart.draw({"records": []}, tmp_path / "none.json") == []


def test_expressions_are_those_of_the_library(gpu):
    for op in gpu.targets.TRAFFIC:
        case = gpu.targets.Case(op, (6, 5))
        slots = gpu.arrays.make(case, 1)
        contestant = gpu.contestants.call_ours(case, slots)
        assert contestant.names == {op: getattr(fastsoftmax, op)}
        result = contestant.caller()(0)
        assert result is slots[0].out or op == "cross_entropy"
