"""The emulation of CUDA in cuda_emulation/: right kernels run in every order, faults are found, CuPy's rules hold."""

import importlib
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

FOLDER = Path(__file__).parent / "cuda_emulation"
EXAMPLE = np.dtype([("x", "u8"), ("out", "u8"), ("rows", "i8"), ("n", "i8")])
ORDERS = [0, 1, 2, 3, 4]


def load(name):
    """Import a module of the folder, where a CuPy of the same name may be installed too."""
    own = {key: sys.modules.pop(key) for key in [*sys.modules] if key.partition(".")[0] == name}
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))
        for key in [key for key in sys.modules if key.partition(".")[0] == name]:
            del sys.modules[key]
        sys.modules.update(own)


emulator = load("emulator")
pytestmark = pytest.mark.skipif(emulator.compiler() is None, reason="no C++ compiler")

# Kernels with a fault, and what is said of it.
FAULTS = {
    "sums<NO_BARRIER_AFTER_WRITES>": "race|nobody has written",
    "sums<NO_BARRIER_BEFORE_NEXT_WRITES>": "race",
    "cluster_sums<EARLY_ARRIVAL, 4>": "race|nobody has written",
    "cluster_sums<NO_FIRST_WAIT, 4>": "before any cluster_wait",
    "cluster_sums<NO_LAST_WAIT, 4>": "has ended|ends before its peers",
    "misuse<PART_OF_A_WARP>": r"deadlock; 16 threads at a barrier, examples.cuh:\d+ .*; 16 threads at a shuffle",
    "misuse<LANE_ENDED>": "deadlock; 31 threads at a shuffle.* ended",
    "misuse<TWO_BARRIERS>": r"is at the barrier examples.cuh:\d+, others at examples.cuh:\d+",
    "misuse<TWO_MASKS>": "by 1, lanes of its warp at .* by 2|by 2, lanes of its warp at .* by 1",
    "misuse<TWO_ARRIVALS>": "arrives twice",
    "misuse<NOT_SHARED>": "not shared memory",
    "misuse<BEYOND_SHARED>": r"touches byte \d+ of 12 of shared memory",
}
CONVERSIONS = {
    "FROM_FLOAT16": "convert<FROM_FLOAT16, float, unsigned short>",
    "TO_FLOAT16": "convert<TO_FLOAT16, unsigned short, float>",
    "FROM_BFLOAT16": "convert<FROM_BFLOAT16, float, unsigned short>",
    "TO_BFLOAT16": "convert<TO_BFLOAT16, unsigned short, float>",
    "EXP2": "convert<EXP2, float, float>",
    "HALF32": "convert<HALF_THE_LEAST, float, float>",
    "HALF64": "convert<HALF_THE_LEAST, double, double>",
}
NAMES = ["sums<NONE>", "cluster_sums<NONE, 4>", *FAULTS, *CONVERSIONS.values()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="module")
def library(folder):
    return emulator.build(NAMES, ["examples.cuh"], folder)


@pytest.fixture(autouse=True)
def first_order(request):
    yield
    if "library" in request.fixturenames:
        request.getfixturevalue("library").set_order(0)


def test_primitives_are_those_of_the_device():
    real = FOLDER.parents[1] / "fastsoftmax" / "cuda" / "device.cuh"
    if not real.exists():
        pytest.skip("the tests lie outside a checkout")
    function = re.compile(r"^(?:__device__ __forceinline__|inline|T) .*?(\w+)\(.*\) \{", re.MULTILINE)
    defined = [set(function.findall(text)) for text in (real.read_text(), (FOLDER / "device.cuh").read_text())]
    assert "peer_value" in defined[0]
    assert defined[0] <= defined[1]


def launch(library, name, x, out, blocks, threads=64, rows=1, n=None, cluster=1):
    job = np.array([(x.ctypes.data, out.ctypes.data, rows, x.size // rows if n is None else n)], EXAMPLE)
    library.launch(name, (blocks,), (threads,), job.tobytes(), cluster=cluster, shared_bytes=4 * (threads // 32 + 1))
    return out


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("name", "blocks", "cluster"), [("sums<NONE>", 3, 1), ("cluster_sums<NONE, 4>", 40, 4)])
@pytest.mark.parametrize("threads", [32, 256])
def test_sums(library, order, name, blocks, cluster, threads):
    x = np.arange(10_000, dtype=np.float32).reshape(10, 1000) % 127
    library.set_order(order)
    out = launch(library, name, x, np.zeros(10, np.float32), blocks, threads, rows=10, cluster=cluster)
    np.testing.assert_array_equal(out, x.sum(axis=1))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_found_in_every_order(library, order, name):
    x, out = np.ones((10, 1000), np.float32), np.zeros(64, np.float32)
    library.set_order(order)
    with pytest.raises(emulator.LaunchError, match=FAULTS[name]):
        launch(library, name, x, out, 4, rows=10, cluster=4 if "cluster" in name else 1)


def test_launches_that_cannot_be(library):
    x, out = np.ones(1000, np.float32), np.zeros(1, np.float32)
    for name, options, message in [
        ("sums<SOME>", {"blocks": 1}, "no kernel"),
        ("sums<NONE>", {"blocks": 1, "threads": 48}, "whole warps"),
        ("sums<NONE>", {"blocks": 0}, "a grid of"),
        ("cluster_sums<NONE, 4>", {"blocks": 6, "cluster": 4}, "6 blocks in clusters of 4"),
    ]:
        with pytest.raises(emulator.LaunchError, match=message):
            launch(library, name, x, out, **options)
    with pytest.raises(emulator.LaunchError, match="takes 32 bytes, got 8"):
        library.launch("sums<NONE>", (1,), (32,), bytes(8))


def test_halves(library):
    bits = np.arange(1 << 16, dtype=np.uint16)
    for half, floats in [("FLOAT16", np.float16), ("BFLOAT16", ml_dtypes.bfloat16)]:
        wide = launch(library, CONVERSIONS[f"FROM_{half}"], bits, np.zeros(1 << 16, np.float32), 8)
        np.testing.assert_array_equal(wide, bits.view(floats).astype(np.float32))
        # Every half, what lies between it and the next, and just beside that.
        with np.errstate(invalid="ignore", over="ignore"):
            between = (wide[:-1].astype(np.float64) + wide[1:]) / 2
            x = np.concatenate([wide, between, np.nextafter(between, np.inf), np.nextafter(between, -np.inf)])
            x = x.astype(np.float32)
        narrow = launch(library, CONVERSIONS[f"TO_{half}"], x, np.zeros(x.size, np.uint16), 8).view(floats)
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(narrow.astype(np.float32), x.astype(floats).astype(np.float32))


def test_exp2_errs_as_the_instruction_may(library):
    x = np.linspace(-126, 127.9, 100_003, dtype=np.float32)
    exact = np.exp2(x.astype(np.float64))
    spacing = np.spacing(exact.astype(np.float32)).astype(np.float64)
    for errs, least, most in [(True, 1.8, 2.0), (False, 0.4, 0.5)]:
        library.set_exp2_errs(errs)
        found = launch(library, CONVERSIONS["EXP2"], x, np.zeros(x.size, np.float32), 8)
        error = (np.abs(found - exact) / spacing)[1:].max()
        assert least < error <= most + 1e-6
    library.set_exp2_errs(True)
    special = np.array([0, -0.0, 1e-40, -np.inf, np.inf, np.nan, -127, -1e30, 200], np.float32)
    found = launch(library, CONVERSIONS["EXP2"], special, np.zeros(special.size, np.float32), 1)
    np.testing.assert_array_equal(found, np.array([1, 1, 1, 0, np.inf, np.nan, 0, 0, np.inf], np.float32))


def test_subnormals_are_flushed_in_float32_alone(library):
    for name, dtype, flushed in [("HALF32", np.float32, True), ("HALF64", np.float64, False)]:
        x = np.full(1, np.finfo(dtype).tiny)
        out = launch(library, CONVERSIONS[name], x, np.ones(1, dtype), 1)
        assert (out[0] == 0) == flushed
    assert np.float32(4e-45) / 2 != 0  # the caller's mode is as it was


def test_what_was_built_is_kept(library, folder):
    (path,) = folder.iterdir()
    built = path.stat().st_mtime_ns
    assert emulator.build(reversed(NAMES), ["examples.cuh"], folder).names == set(NAMES)
    assert [path.stat().st_mtime_ns for path in folder.iterdir()] == [built]


def test_beyond_shared_memory(tmp_path):
    preload = emulator.environment(["address"])
    if not Path(preload["LD_PRELOAD"]).is_absolute():
        pytest.skip("the compiler has no libasan.so")
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        import emulator, numpy
        name = "misuse<BEYOND_SHARED>"
        library = emulator.build([name], ["examples.cuh"], sys.argv[2], sanitize=["address"])
        out = numpy.zeros(64, numpy.float32)
        job = numpy.array([0, out.ctypes.data, 0, 0]).tobytes()
        library.launch(name, (1,), (64,), job, shared_bytes=260)
        print("within", flush=True)
        library.launch(name, (1,), (64,), job, shared_bytes=256)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), FOLDER, tmp_path],
        env={**os.environ, **preload},
        capture_output=True,
        text=True,
    )
    assert run.stdout == "within\n", run.stderr
    assert "heap-buffer-overflow" in run.stderr
    assert "examples.cuh" in run.stderr


@pytest.fixture
def cupy(library):
    module = load("cupy")
    module.emulation = library
    return module


def test_cupy_refuses_the_host(cupy):
    x, host = cupy.ones(3), np.ones(3)
    for mix in [lambda: x + host, lambda: host + x, lambda: np.add(x, host), lambda: np.concatenate([x, host])]:
        with pytest.raises(TypeError, match=r"Unsupported type <class 'numpy.ndarray'>"):
            mix()
    with pytest.raises(TypeError, match="Implicit conversion to a NumPy array"):
        np.asarray(x)
    with pytest.raises(ValueError, match="non-scalar"):
        x[...] = host
    for attribute in ("ctypes", "flat", "setflags"):
        assert not hasattr(x, attribute)
    assert not hasattr(x.flags, "aligned")
    assert cupy.synchronisations == []


def test_cupy_gives_arrays(cupy):
    x = cupy.array([[0, 1, 2], [3, 4, 5]], dtype=np.float32)
    for result in [x.sum(), x[0, 1], np.max(x), 2 * x[0, 0], x.T[1, 0], cupy.array(1.0)]:
        assert type(result) is cupy.ndarray
        assert result.shape == ()
    view = x[:, ::-1]
    assert view.base is x
    assert view.data.ptr == x.data.ptr + 8
    view[0] = -1
    assert (x[0] == -1).all().item() is True
    assert x.data.ptr % 512 == 0
    assert np.isnan(cupy.empty(3).get()).all()
    assert cupy.synchronisations == ["get", "get"]


def test_cupy_launches(cupy):
    x = cupy.arange(1000, dtype=np.float32)
    out = cupy.empty(1, np.float32)
    job = np.array([(x.data.ptr, out.data.ptr, 1, 1000)], EXAMPLE)
    module = cupy.RawModule(code="", name_expressions=["sums<NONE>", "cluster_sums<NONE, 4>"])
    kernel = module.get_function("cluster_sums<NONE, 4>")
    kernel((4,), (64,), (job,), shared_mem=12)
    assert out.item() == 499_500
    assert [(launch.name, launch.grid, launch.cluster) for launch in cupy.launches] == [(kernel.name, (4, 1, 1), 4)]
    assert cupy.compilations == [("sums<NONE>", "cluster_sums<NONE, 4>")]
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="shared memory"):
        kernel((4,), (64,), (job,), shared_mem=50_000)
    kernel.max_dynamic_shared_size_bytes = 50_000
    kernel((4,), (64,), (job,), shared_mem=50_000)
    cupy.emulated.compute_capability = "80"
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="clusters"):
        kernel((4,), (64,), (job,), shared_mem=12)
