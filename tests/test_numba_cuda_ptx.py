"""Every Numba-CUDA kernel compiles, without a device, and its PTX is what was meant; so are the launches of a call.

Not in the simulator, which compiles nothing. What only a device can show is in test_numba_cuda*.py, on one.
"""

import importlib.util
import itertools
import os
import re
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

import numba_arrays

DTYPES = ["float32", "float64", "float16", "bfloat16"]
CAPABILITIES = [(8, 0), (9, 0), (10, 0)]
EXHAUSTIVE = bool(os.environ.get("FASTSOFTMAX_EXHAUSTIVE"))
exhaustive = pytest.mark.skipif(not EXHAUSTIVE, reason="compiles for 10 s: set FASTSOFTMAX_EXHAUSTIVE=1")


@pytest.fixture(scope="module")
def sources():
    """Give every kernel by its name; skips where nothing compiles."""
    if numba_arrays.SIMULATED:
        pytest.skip("the simulator compiles nothing")
    if importlib.util.find_spec("numba_cuda") is None:
        pytest.skip("numba-cuda is not installed")
    from numba import cuda

    try:
        cuda.compile(lambda: None, (), device=False, abi="numba", cc=CAPABILITIES[0])
    except (AttributeError, TypeError):  # of a version that does not go with the others
        raise
    except Exception as error:  # each of its libraries that may be missing raises its own
        pytest.skip(f"numba-cuda finds no compiler: {error}")
    from fastsoftmax.backends.numba_cuda import elementwise, kernels, totals

    found = {}
    for dtype in DTYPES:
        for operation in ("softmax", "log_softmax", "softmax_grad", "log_softmax_grad"):
            found[operation, dtype] = kernels.element_kernel(operation, dtype)
        for spread, gradient in itertools.product((False, True), repeat=2):
            found["cross_entropy", dtype, spread, gradient] = kernels.loss_kernel(dtype, dtype, spread, gradient)
    found["cross_entropy", "bfloat16", "targets"] = kernels.loss_kernel("bfloat16", "float32", True, True)
    for terms, number, result in [
        ("losses", "float32", "float32"),
        ("losses", "float64", "float64"),
        ("shares", "float32", "float64"),
        ("shares", "float64", "float64"),
        ("pieces", "float64", "float32"),
    ]:
        found["total", number, terms, result] = totals.total_kernel(terms, number, result)
    conversions = [("copy", a, a, b) for a in ("bool", "int8", "uint64", "bfloat16") for b in ("int64", "float64")]
    halves = [("copy", "float32", "float32", half) for half in ("float16", "bfloat16")]
    masks = [("fill_where", "bool", dtype, dtype) for dtype in ("int64", "bfloat16", "float64")]
    for arguments in [*conversions, *halves, *masks, ("fill", "float32", "float32", "float32")]:
        found[("elementwise", *arguments)] = elementwise.map_kernel(*arguments)
    for name in elementwise.FUNCTIONS:
        if name not in ("copy", "fill", "fill_where"):
            dtype = "bool" if name == "invert" else "int64"
            found["elementwise", name] = elementwise.map_kernel(name, dtype, dtype, dtype)
    return found


def compiled(source, capability):
    """Compile a kernel to PTX: device functions ask for a device, which is none."""
    from numba import cuda
    from numba.cuda import dispatcher

    device = SimpleNamespace(compute_capability=capability)
    with mock.patch.object(dispatcher, "get_current_device", return_value=device):
        return cuda.compile(source.function, source.signature, device=False, abi="numba", cc=capability)[0]


@pytest.fixture(scope="module", params=CAPABILITIES)
def ptx(sources, request):
    """Give the PTX of every kernel for a capability; for all but one of them, of those of one dtype."""
    everything = EXHAUSTIVE or request.param == CAPABILITIES[1]
    chosen = {name: source for name, source in sources.items() if everything or name[1] == "float32"}
    return {name: compiled(source, request.param) for name, source in chosen.items()}


def instructions(text):
    return re.findall(r"^\s*(?:@!?%p\d+ )?([a-z][\w.:]*)\s", text, re.MULTILINE)


def assembled(text):
    """Assemble PTX, and give the registers of a thread and the bytes that do not fit into them."""
    linker = pytest.importorskip("cuda.bindings.nvjitlink")
    (target,) = re.findall(r"\.target (sm_\d+)", text)
    options = [f"-arch={target}", "-verbose", "-Xptxas=-v"]
    handle = linker.create(len(options), options)
    code = text.encode() + b"\0"
    linker.add_data(handle, linker.InputType.PTX, code, len(code), "kernel")
    linker.complete(handle)
    log = bytearray(linker.get_info_log_size(handle))
    linker.get_info_log(handle, log)
    linker.destroy(handle)
    registers = re.findall(r"Used (\d+) registers", log.decode())
    spills = re.findall(r"(\d+) bytes (?:stack frame|spill)", log.decode())
    assert len(registers) == 1
    assert len(spills) == 3
    return int(registers[0]), sum(map(int, spills))


def test_registers(ptx):
    """No spills; room for three blocks of 256 threads at a time, of most kernels four, among 65,536 registers."""
    for name, text in ptx.items():
        if name[0] in ("elementwise", "total") or name[1] == "float16":
            continue
        registers, spilled = assembled(text)
        assert registers <= (80 if name[0] == "cross_entropy" and name[1] == "float64" else 64), name
        assert spilled == 0, name


def test_memory(ptx):
    """64-bit addresses; nothing is kept in local memory, nothing called, no pointer but a kernel's own."""
    for name, text in ptx.items():
        assert ".address_size 64" in text, name
        assert not re.search(r"\.local|ld\.local|st\.local", text), name
        assert not re.search(r"^\s*(?:\{|call)[^;]*call", text, re.MULTILINE), name
        assert "call" not in {i.partition(".")[0] for i in instructions(text)}, name


def test_indices_have_64_bits(ptx):
    """What an element's address is made of; factors of 32 bits are the numbers of threads and blocks, products of 32
    bits what the compiler makes of a division by numbers that turn out to be so short."""
    for name, text in ptx.items():
        numbers = set(re.findall(r"mov\.u32 \t(%r\d+), %(?:tid|ctaid|ntid|nctaid)\.x", text))
        quotients = set(re.findall(r"div\.u32 \t(%r\d+)", text))
        for width, product in re.findall(r"(?:mul|mad)\.(lo|wide)\.[su]32(.*)", text):
            assert set(re.findall(r"%r\d+", product)) & (numbers if width == "wide" else quotients), (name, product)


def test_numbers_of_32_bits_stay_so(ptx):
    """No arithmetic in double precision beside them: a constant without a type would be enough.

    The mean's divisor is a double on the device, which is read and converted.
    """
    allowed = {"ld.f64", "ld.global.f64", "cvt.rn.f32.f64"}
    for (kind, dtype, *rest), text in ptx.items():
        if dtype != "float64" and kind not in ("total", "elementwise"):
            doubles = {i for i in instructions(text) if "f64" in i}
            assert doubles <= (allowed if kind == "cross_entropy" and rest[-1] else set()), (kind, dtype, rest)


def test_accuracy_of_instructions(ptx):
    """Division is correctly rounded; nothing flushes subnormal numbers but the power inside of libdevice's exp."""
    for name, text in ptx.items():
        divisions = {i for i in instructions(text) if re.match(r"(div|rcp)\..*f(32|64)", i)}
        assert all(".rn" in i or i == "rcp.approx.ftz.f64" for i in divisions), (name, divisions)
        flushing = {i for i in instructions(text) if "ftz" in i}
        assert flushing <= {"ex2.approx.ftz.f32", "rcp.approx.ftz.f64"}, (name, flushing)


def test_barriers(ptx):
    """Three for each meeting of a team, which all threads reach."""
    meetings = {"softmax": 2, "log_softmax": 2, "softmax_grad": 1, "log_softmax_grad": 1, "total": 1, "elementwise": 0}
    for name, text in ptx.items():
        spread = name[0] == "cross_entropy" and name[2] in (True, "targets")
        expected = 3 * meetings.get(name[0], 4 if spread else 2)
        assert instructions(text).count("bar.sync") == expected, name


def test_what_a_sum_lost_is_computed(ptx):
    """All seven additions to a term of a compensated sum are there; reassociated they would cancel to one."""
    text = ptx["log_softmax_grad", "float32"]
    loop = text[: text.index("bar.sync")]
    assert len(re.findall(r"(?:add|sub)(?:\.rn)?\.f32", loop)) >= 7


class TestRows:
    """The device functions of integrations/numba_cuda.py."""

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_they_compile_in_one_kernel(self, sources, dtype):
        from numba import cuda, from_dtype, types

        from fastsoftmax.integrations.numba_cuda import logsumexp_row, softmax_row

        def kernel(x, out, lse):
            softmax_row(x[cuda.blockIdx.x], out[cuda.blockIdx.x])
            lse[cuda.blockIdx.x] = logsumexp_row(x[cuda.blockIdx.x])

        for layout in ("C", "A"):
            rows = types.Array(from_dtype(np.dtype(dtype)), 2, layout)
            signature = rows, types.Array(from_dtype(np.dtype(dtype)), 2, "C"), types.float64[::1]
            text = compiled(SimpleNamespace(function=kernel, signature=signature), CAPABILITIES[1])
            assert instructions(text).count("bar.sync") == 13
            assert ".local" not in text
            registers, spilled = assembled(text)
            assert registers <= 64  # for 1024 threads
            assert spilled == 0

    def test_refusals(self, sources):
        from numba import types
        from numba.core.errors import TypingError

        from fastsoftmax.integrations.numba_cuda import softmax_row

        def kernel(x, out):
            softmax_row(x, out)

        for x, out, message in [
            (types.float32[:, ::1], types.float32[:, ::1], "x: expected an array of one dimension"),
            (types.int64[::1], types.int64[::1], "x: expected an array of one dimension and dtype float16, float32"),
            (types.float32[::1], types.float64[::1], "out: expected dtype float32, got float64"),
        ]:
            with pytest.raises(TypingError, match=message):
                compiled(SimpleNamespace(function=kernel, signature=(x, out)), CAPABILITIES[1])


HOST = """
    import sys, warnings
    sys.path.insert(0, sys.argv[1])
    import numba_driver
    from numba_driver import depths, launches, waits
    numba_driver.install()
    warnings.simplefilter("error")
    import numpy as np
    import fastsoftmax
    from numba import cuda
    from fastsoftmax.backends.numba_cuda import arithmetic, kernels, launches as compiling
"""


@pytest.fixture(scope="module")
def common(tmp_path_factory):
    """Give a folder for the kernels of tests that do not ask where they are kept."""
    return tmp_path_factory.mktemp("kernels")


class TestHost:
    """What the host does in a call, with a driver that does nothing (numba_driver.py)."""

    @pytest.fixture
    def run(self, sources, run_python, tmp_path):
        here = Path(__file__).parent
        return lambda code, *args, cache=tmp_path: (
            run_python(HOST + code, here, *args, NUMBA_CACHE_DIR=cache, timeout=120).stdout
        )

    @pytest.mark.parametrize(
        "dtypes", [("float64", "bfloat16"), pytest.param(("float32", "float16"), marks=exhaustive)]
    )
    def test_every_function(self, run, common, dtypes):
        """Results are device arrays on the stream; kernels get as many arguments as they have; nothing waits."""
        run(
            """
    import oracles

    stream = 7
    for dtype in sys.argv[2:]:
        x = cuda.to_device(np.zeros((3, 10), oracles.dtype_of(dtype))).bind(stream)
        results = [fastsoftmax.softmax(x, axis=axis, where=[True] * 10) for axis in (0, 1, None)]
        results += fastsoftmax.logsumexp(x, axis=0, return_sign=True)
        results += [fastsoftmax.softmax_grad(x, x), fastsoftmax.log_softmax_grad(x, x, axis=0)]
        assert [r.shape for r in results] == [(3, 10)] * 3 + [(10,)] * 2 + [(3, 10)] * 2
        assert {r.dtype for r in results} == {x.dtype}
        numbers = np.dtype("f8" if dtype == "float64" else "f4")
        for reduction in ("mean", "sum", "none"):
            for labels in ([1, 2, -100], np.zeros((3, 10)).tolist()):
                for given in ({}, {"weight": [1.0] * 10, "sample_weight": [1, 2, 3], "z_loss": 0.1}):
                    given = {"reduction": reduction, **given}
                    loss, grad, lse = fastsoftmax.cross_entropy_with_grad(x, labels, return_lse=True, **given)
                    assert loss.shape == ((3,) if reduction == "none" else ())
                    assert loss.dtype == lse.dtype == numbers
                    assert fastsoftmax.cross_entropy_grad(x, labels, lse=lse, out=x, **given) is x
                    results += [loss, grad, lse]
        assert all(type(r) is type(x) and r.stream == stream for r in results)
        assert fastsoftmax.softmax(x[:0]).shape == (0, 10)
    assert len(launches) > 75 * len(sys.argv[2:])
    for launch in launches:
        assert launch.stream == stream
        assert len(launch.arguments) == launch.ptx.count(".param .") > 0
        assert all(n > 0 for n in (*launch.config.grid, *launch.config.block))
            """,
            *dtypes,
            cache=common,
        )

    def test_one_stream_a_call(self, run, common):
        """That of the first array: it waits for those of the others, and out's for it."""
        run(
            """
    x = cuda.to_device(np.zeros((3, 10), "f4")).bind(7)
    labels = cuda.to_device(np.zeros(3, int)).bind(9)
    out = cuda.to_device(np.zeros((3, 10), "f4")).bind(11)
    where = cuda.to_device(np.ones((3, 10), bool)).bind(13)
    for call, others in [
        (lambda: fastsoftmax.cross_entropy_with_grad(x, labels, weight=[1.0] * 10, out=out), [9, 11]),
        (lambda: fastsoftmax.softmax(x, where=where, out=out), [13, 11]),
    ]:
        del launches[:], waits[:]
        call()
        assert {launch.stream for launch in launches} == {7}
        assert sorted(waits) == sorted([(7, other) for other in others] + [(11, 7)])
    assert out.stream == 11
            """,
            cache=common,
        )

    def test_arrays_belong_to_the_device_of_the_call(self, run, common):
        run(
            """
    x = cuda.to_device(np.zeros((3, 10), "f4"))
    del depths[:]
    fastsoftmax.cross_entropy_with_grad(x, [1, 2, 3], return_lse=True)
    fastsoftmax.softmax(x)
    assert depths and all(depths)
            """,
            cache=common,
        )

    def test_files_of_its_own(self, run, tmp_path):
        """No two kernels share a file on disk, which two processes could write at once."""
        run("    compiling._compiled(kernels.element_kernel('softmax', 'float32'), (9, 0))")
        run("    compiling._compiled(kernels.element_kernel('log_softmax', 'float32'), (9, 0))")
        names = {path.name.split("-")[0] for path in tmp_path.rglob("*.nbi")}
        assert names == {"kernels.softmax_float32", "kernels.log_softmax_float32"}

    def test_without_a_folder_to_keep_kernels_in(self, run):
        run(
            """
    from numba.cuda.core import caching
    for locator in vars(caching).values():
        if isinstance(locator, type) and hasattr(locator, "ensure_cache_path"):
            locator.from_function = classmethod(lambda *_: None)
    fastsoftmax.softmax(cuda.to_device(np.zeros((3, 10), "f4")))
    assert launches
            """
        )

    def test_kept_on_disk(self, run):
        """Found again by another process; not once a line of the package is another one."""
        code = """
    if {changed}:
        arithmetic._FINGERPRINT = "another"
    for source in (kernels.element_kernel("softmax", "float32"), kernels.element_kernel("log_softmax", "bfloat16")):
        compiling._compiled(source, (9, 0))
        kernel = compiling._compiled(source, (9, 0))
        print(sum(kernel._cache_hits.values()), sum(kernel._cache_misses.values()))
        """
        assert run(code.format(changed=False)).split() == ["0", "1", "0", "1"]
        assert run(code.format(changed=False)).split() == ["1", "0", "1", "0"]
        assert run(code.format(changed=True)).split() == ["0", "1", "0", "1"]

    def test_what_is_in_use(self, run):
        lines = run("    fastsoftmax.show_config()")
        assert re.search(r"gpu backend numba_cuda.*: numba-cuda [\d.]+, compute capability 9.0", lines)
