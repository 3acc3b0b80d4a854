"""The Numba backend beside what every backend does: threading layers, instruction sets, what is kept on disk."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax
import oracles

numba = pytest.importorskip("numba", reason="Numba is not installed")

PACKAGE = Path(fastsoftmax.__file__).parent


def layer_is_there(name):
    if name == "workqueue":
        return True
    try:
        __import__(f"numba.np.ufunc.{name}pool")
    except ImportError:
        return False
    return True


LAYERS = [
    pytest.param(name, marks=pytest.mark.skipif(not layer_is_there(name), reason=f"Numba has no layer {name} here"))
    for name in ("workqueue", "omp", "tbb")
]

# Fills `x`, and checks every result against what was computed alone before.
THREADS = """
    import os, sys, threading, warnings
    import numpy as np
    import fastsoftmax
    import numba

    warnings.simplefilter("ignore", DeprecationWarning)  # of forks of threaded processes
    x = np.random.default_rng(0).normal(size=(2000, 100)).astype("float32")
    labels = np.arange(2000) % 100
    alone = [fastsoftmax.softmax(x, n_threads=1), *fastsoftmax.cross_entropy_with_grad(x, labels, n_threads=1)]

    def check(times=1):
        for _ in range(times):
            got = [fastsoftmax.softmax(x), *fastsoftmax.cross_entropy_with_grad(x, labels)]
            assert all(np.array_equal(a, b) for a, b in zip(got, alone)), "wrong"
"""


@pytest.mark.parametrize("layer", LAYERS)
class TestThreadingLayers:
    """Of which workqueue aborts the process where two calls come at once, and omp where a forked child calls."""

    def run(self, run_python, layer, code):
        variables = {"NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": 2, "FASTSOFTMAX_BACKEND": "numba"}
        return run_python(THREADS + code, **variables)

    def test_concurrent_calls(self, run_python, layer):
        code = """
    check()
    assert numba.threading_layer() == sys.argv[1] if len(sys.argv) > 1 else numba.threading_layer()
    failed = []
    def work():
        try:
            check(200)
        except BaseException as error:
            failed.append(error)
    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(numba.threading_layer(), len(failed))
"""
        assert self.run(run_python, layer, code).stdout.split() == [layer, "0"]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
    @pytest.mark.parametrize("first", ["check()", "pass", "numba.njit(parallel=True)(lambda: np.ones(9999).sum())()"])
    def test_fork(self, run_python, layer, first):
        code = f"""
    {first}
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            check(3)
            print("right", end=" ", flush=True)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    check()
    print(status, numba.threading_layer())
"""
        assert self.run(run_python, layer, code).stdout.split() == ["right", "0", layer]


# Places arrays of some dtypes so that they end where no memory is to be read, and begin behind such a place.
GUARDED = """
    import ctypes, mmap, sys
    import numpy as np
    import fastsoftmax

    PAGE = mmap.PAGESIZE
    kept = []
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    def guarded(values, at_end):
        size = -(-max(values.nbytes, 1) // PAGE) * PAGE
        room = mmap.mmap(-1, size + 2 * PAGE)
        kept.append(room)
        base = np.frombuffer(room, np.uint8)
        start = base.__array_interface__["data"][0]
        for place in (start, start + PAGE + size):
            assert protect(place, PAGE, 0) == 0
        offset = PAGE + (size - values.nbytes if at_end else 0)
        array = base[offset : offset + values.nbytes].view(values.dtype).reshape(values.shape)
        array[...] = values
        return array

    rng = np.random.default_rng(0)
    count = 0
    for dtype in sys.argv[1:]:
        for shape in [(1, 1), (3, 5), (5, 17), (2, 37), (257, 3), (20, 100)]:
            for at_end in (False, True):
                x = guarded(rng.normal(size=shape).astype(dtype), at_end)
                p = guarded(fastsoftmax.softmax(x), at_end)
                out = guarded(x, at_end)
                weight = guarded(np.ones(shape[1]), at_end)
                for a, b, o, axis in [(x, p, out, 1), (x.T, p.T, out.T, 0)]:
                    fastsoftmax.softmax(a, axis, out=o)
                    fastsoftmax.log_softmax(a, axis, out=o)
                    fastsoftmax.logsumexp(a, axis)
                    fastsoftmax.softmax_grad(a, b, axis, out=o)
                    labels = guarded(np.zeros(shape[0], np.int64), at_end)
                    for y in (labels, b):
                        options = {"weight": weight, "label_smoothing": 0.1}
                        fastsoftmax.cross_entropy_with_grad(a, y, axis, out=o)
                        fastsoftmax.cross_entropy_with_grad(a, y, axis, out=o, **options)
                        fastsoftmax.cross_entropy(a, y, axis, **options)
                        count += 1
                # The same matrix as columns in memory.
                a, b = guarded(x.T.copy(), at_end), guarded(p.T.copy(), at_end)
                fastsoftmax.softmax(a, 0, out=guarded(a, at_end))
                fastsoftmax.cross_entropy_with_grad(a, b, 0, out=guarded(a, at_end), weight=weight)
                fastsoftmax.cross_entropy(a, b, 0)
                fastsoftmax.log_softmax_grad(a, b, 0)
    print(count)
"""


@pytest.mark.parametrize("dtypes", [["float32", "float16"], ["float64"]], ids=" ".join)
def test_nothing_beyond_the_arrays_is_touched(run_python, dtypes):
    assert int(run_python(GUARDED, *dtypes, timeout=300, FASTSOFTMAX_BACKEND="numba").stdout) == 48 * len(dtypes)


def test_fewer_threads_than_asked_for(run_python):
    code = "import fastsoftmax as f; print(f.get_num_threads()); f.set_num_threads(99); print(f.get_num_threads())"
    done = run_python(code, NUMBA_NUM_THREADS=1, FASTSOFTMAX_BACKEND="numba")
    assert done.stdout.split() == ["1", "1"]


# Features that Numba is to compile for: they decide how wide vectors are, whether there is an FMA, and how halves are
# converted.
NARROWER = {"sse2": "+sse2", "avx2": "+sse2,+sse4.2,+avx,+avx2", "avx2 with FMA": "+sse4.2,+avx,+avx2,+fma,+f16c"}

NARROW = """
    import sys
    import numpy as np
    import fastsoftmax
    from fastsoftmax.backends.numba import exp, log1p
    from fastsoftmax.backends.numba.vectors import FUSED, VECTOR_BYTES

    results = {"vectors": np.array([VECTOR_BYTES, FUSED])}
    for key, x in np.load(sys.argv[1]).items():
        name, dtype, axis, _ = key.split("-")
        if dtype == "bfloat16":
            import ml_dtypes
            x = x.view(ml_dtypes.bfloat16)
        if name == "gradient":
            labels = np.arange(x.shape[1 - int(axis)]) % x.shape[int(axis)]
            value = fastsoftmax.cross_entropy_grad(x, labels, int(axis), reduction="none")
        elif name in ("exp", "log1p"):
            value = globals()[name](x)
        else:
            value = getattr(fastsoftmax, name)(x, axis=int(axis))
        results[key] = value.view("uint16") if dtype == "bfloat16" else value
    np.savez(sys.argv[2], **results)
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the instruction sets are those of x86-64")
@pytest.mark.parametrize("features", NARROWER)
def test_narrower_machines(run_python, tmp_path, features):
    with open("/proc/cpuinfo") as info:
        if "avx2" in features and "avx2" not in info.read():
            pytest.skip("this machine has no AVX2")
    arrays = {}
    for name, dtype, layout in [
        ("softmax", "float32", "rows"),
        ("log_softmax", "float64", "rows"),
        ("softmax", "float64", "columns"),
        ("gradient", "float16", "rows"),
        ("softmax", "bfloat16", "rows"),
    ]:
        oracles.dtype_of(dtype)  # skips where there is none
        for n in (1, 3, 5, 17, 40, 300):
            x, axis = oracles.arrange(oracles.normal((5, n), dtype, seed=n, offset=[0, 300, -1000][n % 3]), layout)
            arrays[f"{name}-{dtype}-{axis % 2}-{n}"] = x.view("uint16") if dtype == "bfloat16" else x
    for dtype in oracles.DTYPES:
        low, high = np.log(np.finfo(dtype).smallest_subnormal) - 1, np.log(np.finfo(dtype).max)
        arrays[f"exp-{dtype}-0-0"] = np.linspace(low, high - 0.01, 10_003).astype(dtype)
        arrays[f"log1p-{dtype}-0-0"] = np.geomspace(1e-37, 1e37, 10_003).astype(dtype)
    np.savez(tmp_path / "in.npz", **arrays)
    variables = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": NARROWER[features], "FASTSOFTMAX_BACKEND": "numba"}
    run_python(NARROW, tmp_path / "in.npz", tmp_path / "out.npz", timeout=300, **variables)
    got = np.load(tmp_path / "out.npz")
    assert got["vectors"].tolist() == [16 if features == "sse2" else 32, features == "avx2 with FMA"]
    for key, x in arrays.items():
        name, dtype, axis, _ = key.split("-")
        value = got[key]
        if dtype == "bfloat16":
            x, value = x.view(oracles.dtype_of(dtype)), value.view(oracles.dtype_of(dtype))
        if name == "gradient":
            labels = np.arange(x.shape[1 - int(axis)]) % x.shape[int(axis)]
            oracles.check("cross_entropy_grad", value, x, int(axis), labels=labels)
        elif name in ("exp", "log1p"):
            exact = getattr(np, name)(x.astype(np.longdouble))
            assert np.max(np.abs(value - exact) / oracles.spacing(exact, x.dtype)) <= 1
        else:
            oracles.check(name, value, x, int(axis))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_assembly(monkeypatch, dtype):
    """Vectors of the machine's full width, no function of a mathematics library, no flag that lets NaN be forgotten."""
    from fastsoftmax.backends.numba import entries
    from fastsoftmax.backends.numba.vectors import VECTOR_BYTES

    fresh = numba.njit(nogil=True)(entries.normalize.py_func)  # what came from the disk has no text
    monkeypatch.setattr(entries, "normalize", fresh)
    with fastsoftmax.use_backend("numba"):
        for axis in (0, 1):
            fastsoftmax.softmax(np.zeros((40, 40), dtype), axis, n_threads=1)
    assert len(fresh.signatures) == 2
    register = {64: "%zmm", 32: "%ymm", 16: "%xmm"}[VECTOR_BYTES]
    if os.uname().machine == "x86_64":
        assert all(text.count(register) > 50 for text in fresh.inspect_asm().values())
    for text in fresh.inspect_asm().values():
        assert not any(name in text for name in ("svml", "expf", "exp@", "logf", "log@", "fmaf"))
    for text in fresh.inspect_llvm().values():
        for flag in (" fast ", " nnan ", " ninf ", " nsz ", " reassoc ", " contract ", " afn ", " arcp "):
            assert flag not in text, flag


def test_nowhere_to_keep_kernels(run_python):
    """As in a container whose files are all read-only."""
    code = """
        from numba.core import caching
        caching.CompileResultCacheImpl._locator_classes.clear()
        import fastsoftmax
        print(fastsoftmax.softmax([0.0, 0.0]))
    """
    assert run_python(code, FASTSOFTMAX_BACKEND="numba").stdout.strip() == "[0.5 0.5]"


def test_compiler_turned_off(run_python):
    code = """
        import fastsoftmax, numba
        f = numba.njit(lambda x: fastsoftmax.softmax(x, axis=0))
        print(f([0.0, 0.0]))
        try:
            fastsoftmax.set_backend("numba")
        except ImportError as error:
            print(error)
    """
    done = run_python(code, NUMBA_DISABLE_JIT=1)
    assert done.stdout.splitlines() == [
        "[0.5 0.5]",
        "the numba backend needs Numba's compiler, which NUMBA_DISABLE_JIT turns off",
    ]


STATISTICS = """
    import json
    import numpy as np
    import fastsoftmax
    from fastsoftmax.backends.numba import entries

    fastsoftmax.softmax(np.zeros((3, 40), "float32"))
    stats = entries.normalize.stats
    print(json.dumps([sum(stats.cache_hits.values()), sum(stats.cache_misses.values())]))
"""


def test_kernels_are_kept_on_disk_until_their_source_changes(run_python, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(PACKAGE, copy / "fastsoftmax", ignore=shutil.ignore_patterns("__pycache__"))
    variables = {"NUMBA_CACHE_DIR": tmp_path / "cache", "PYTHONPATH": copy, "FASTSOFTMAX_BACKEND": "numba"}

    def hits_and_misses():
        return json.loads(run_python(STATISTICS, **variables).stdout)

    assert hits_and_misses() == [0, 1]
    assert hits_and_misses() == [1, 0]
    # Not the file of the entry point, which Numba itself would look at.
    with open(copy / "fastsoftmax" / "backends" / "numba" / "sums.py", "a") as source:
        source.write("\n")
    assert hits_and_misses() == [0, 1]
