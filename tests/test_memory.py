"""No call on a native dtype and a plain layout takes memory in the size of its arrays, beyond its result.

Measured in a process of its own, twice for each call: by tracemalloc, to which NumPy reports its arrays, to the byte;
and by the peak of the resident size, where the kernels' own memory is seen too. Both are held to what a call may take:

- kernels: for each thread the tiles of three groups of columns (src/kernels/columns.h), in resident memory alone;
- logsumexp and the losses: one number of the computing dtype for each slice, which is rounded or summed afterwards
  (rounded to a half, it is one number more, before it is copied to out);
- the labels of any call that takes the general way (bfloat16 logits, or another backend than native): an int64 for each
  slice.
"""

import json
from pathlib import Path

import pytest

import oracles

CHECKOUT = Path(__file__).resolve().parents[1]

TILES = 3 << 17  # three of kTileBytes
THREADS = 2
OBJECTS = 4096  # Python's, of a call
# Of resident memory, which Linux may count by up to 64 pages late for each thread.
SLACK = THREADS * 64 * 4096

LAYOUTS = ["short rows", "rows", "long rows", "columns", "long columns"]
OUTS = {
    "softmax": ["given", "in place", "fresh"],
    "log_softmax": ["given", "in place", "fresh"],
    "logsumexp": ["given", "fresh"],
    "cross_entropy": ["fresh"],
    "cross_entropy_grad": ["given", "in place", "fresh"],
    "cross_entropy_with_grad": ["given", "in place", "fresh"],
}
CASES = [(name, layout, out) for name, outs in OUTS.items() for layout in LAYOUTS for out in outs]

# Prints, for each case and for a copy of the logits: the bytes that tracemalloc saw, the growth of resident memory or
# null, the bytes of the fresh results, and the number of slices.
MEASURE = """
    import json, re, sys, tracemalloc
    import numpy as np
    import fastsoftmax

    backend, dtype, cases = json.loads(sys.argv[1])
    if dtype == "bfloat16":
        import ml_dtypes
        dtype = ml_dtypes.bfloat16
    elements = (4 << 20) // np.dtype(dtype).itemsize
    shapes = {
        "short rows": (elements // 10, 10), "rows": (elements // 1000, 1000), "long rows": (2, elements // 2),
        "columns": (1000, elements // 1000), "long columns": (elements // 40, 40),
    }

    def resident(name):
        with open("/proc/self/status") as status:
            return 1024 * int(re.search(rf"{name}:\\s+(\\d+) kB", status.read())[1])

    def measure(call):
        tracemalloc.start()
        try:
            with open("/proc/self/clear_refs", "w") as switch:
                switch.write("5")  # sets the peak back to what is resident now
            before = resident("VmRSS")
        except OSError:
            before = None
        tracemalloc.reset_peak()
        already, _ = tracemalloc.get_traced_memory()
        call()
        _, peak = tracemalloc.get_traced_memory()
        growth = None if before is None else resident("VmHWM") - before
        tracemalloc.stop()
        return peak - already, growth

    def call_of(name, layout, out):
        x, batch = logits[layout], 1 if layout.endswith("columns") else 0
        slices, axis, kwargs = x.shape[batch], 1 - batch, {}
        if out == "in place":
            kwargs["out"] = x
        elif out == "given":
            kwargs["out"] = np.ones(slices if name == "logsumexp" else x.shape, dtype)
        args = (x, np.zeros(slices, int), axis) if name.startswith("cross") else (x, axis)
        return slices, lambda: getattr(fastsoftmax, name)(*args, **kwargs)

    line = np.linspace(-5, 5, elements).astype(dtype)
    logits = {layout: np.resize(line, shape) for layout, shape in shapes.items()}
    measured = {}
    with fastsoftmax.use_backend(backend):
        for case in [*cases, None]:
            slices, call = call_of(*case) if case else (0, line.copy)
            results = call()  # this first call starts threads and fills caches, too
            results = results if isinstance(results, tuple) else (results,)
            size = 0 if case and case[2] == "in place" else sum(result.nbytes for result in results)
            if case and case[2] == "given":
                size -= results[-1].nbytes
            del results
            measured["-".join(case or ["copy"])] = *measure(call), size, slices
    print(json.dumps(measured))
"""


@pytest.fixture(scope="module")
def measurements():
    """What has been measured, by backend and dtype: filled when first asked for."""
    return {}


@pytest.fixture
def measured(backend, measurements, run_python):
    def of(dtype, case):
        oracles.dtype_of(dtype)  # skips where there is none
        if (backend, dtype) not in measurements:
            # Fixed, the threshold hands every freed array back at once: kept, it would hide the next one.
            variables = {"OMP_NUM_THREADS": THREADS, "OMP_WAIT_POLICY": "passive", "MALLOC_MMAP_THRESHOLD_": 1 << 16}
            done = run_python(MEASURE, json.dumps([backend, dtype, CASES]), **variables)
            measurements[backend, dtype] = json.loads(done.stdout)
        return measurements[backend, dtype]["-".join(case)]

    return of


def allowed(backend, name, dtype, result, slices):
    """Bytes of a call's arrays: its fresh results, and some numbers for each slice."""
    computed = 8 if dtype == "float64" else 4
    if name.endswith("softmax"):
        return result
    if name == "logsumexp":
        rounded = 2 if dtype in oracles.HALVES else 0
        return result + (computed + rounded) * slices
    general = dtype == "bfloat16" or backend != "native"
    return result + (computed + (8 if general else 0)) * slices


@pytest.mark.parametrize("name", OUTS)
@pytest.mark.parametrize("dtype", [*oracles.DTYPES, *oracles.HALVES])
def test_arrays(measured, backend, dtype, name):
    for case in CASES:
        if case[0] == name:
            traced, _, result, slices = measured(dtype, case)
            assert traced <= allowed(backend, name, dtype, result, slices) + OBJECTS, case


@pytest.mark.parametrize("name", OUTS)
@pytest.mark.parametrize("dtype", [*oracles.DTYPES, *oracles.HALVES])
def test_resident_memory(measured, backend, dtype, name):
    for case in CASES:
        if case[0] == name:
            _, growth, result, slices = measured(dtype, case)
            if growth is None:
                pytest.skip("the peak of the resident size cannot be set back here (Linux: /proc/self/clear_refs)")
            assert growth <= allowed(backend, name, dtype, result, slices) + THREADS * TILES + SLACK, case


@pytest.mark.parametrize("dtype", oracles.DTYPES)
def test_a_copy_is_seen(measured, dtype):
    """Or what is measured above would say nothing."""
    traced, growth, size, _ = measured(dtype, ["copy"])
    assert size > 2 * (THREADS * TILES + SLACK)
    assert size <= traced <= size + OBJECTS
    if growth is not None:
        assert size - SLACK <= growth <= size + SLACK


def test_the_tiles_are_those_of_the_kernels():
    source = CHECKOUT / "src" / "kernels" / "columns.h"
    if not source.exists():
        pytest.skip("the tests lie outside a checkout")
    assert "kTileBytes = int64_t(1) << 17;" in source.read_text()
