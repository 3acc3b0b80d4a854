"""CuPy arrays: a slice's bits whatever is around it; what is launched, where and when."""

import itertools
import re

import numpy as np
import pytest

import fastsoftmax
import gpu as helpers
import oracles
from oracles import NAMES

DTYPES = ["float32", "float64", "float16"]
GRADIENTS = ["softmax_grad", "log_softmax_grad"]
# Functions and options, so that every kind of kernel runs.
CALLS = {
    **{name: (name, {}) for name in [*NAMES, *GRADIENTS]},
    "loss": ("cross_entropy", {"reduction": "none", "return_lse": True}),
    "gradient": ("cross_entropy_grad", {"reduction": "none"}),
    "gradient from lse": ("cross_entropy_grad", {"reduction": "none"}),
    "loss and gradient": ("cross_entropy_with_grad", {"reduction": "none", "return_lse": True}),
    "smoothed loss": ("cross_entropy", {"reduction": "none", "label_smoothing": 0.1, "z_loss": 0.05}),
    "smoothed gradient": ("cross_entropy_grad", {"reduction": "none", "label_smoothing": 0.1, "z_loss": 0.05}),
    "of probabilities": ("cross_entropy_with_grad", {"reduction": "none", "return_lse": True}),
}
# The operation of plan.OPERATIONS, where it has another name.
KERNELS = {
    **dict.fromkeys(["logsumexp", "loss"], "cross_entropy"),
    **dict.fromkeys(["gradient", "gradient from lse", "loss and gradient"], "cross_entropy_grad"),
    "smoothed loss": "cross_entropy_spread",
    **dict.fromkeys(["smoothed gradient", "of probabilities"], "cross_entropy_spread_grad"),
}
WITH_OUT = [name for name in CALLS if name not in ("logsumexp", "loss", "smoothed loss")]


@pytest.fixture(scope="module")
def gpu(request):
    with helpers.found(request.config) as found:
        yield found


def is_loss(call):
    return "reduction" in CALLS[call][1]


def inputs(call, dtype, n, batch):
    """Give arrays by the names of their parameters; their first axis is the batch."""
    x = oracles.normal((batch, n), dtype, seed=n)
    if call in NAMES:
        return {"x": x}
    if call in GRADIENTS:
        name = "probs" if call == "softmax_grad" else "log_probs"
        return {"grad_output": x[::-1].copy(), name: getattr(oracles, call[: -len("_grad")])(x).astype(x.dtype)}
    rng = np.random.default_rng(n)
    given = {"logits": x, "labels": rng.integers(0, n, batch), "sample_weight": np.linspace(0.5, 2, batch)}
    if call == "of probabilities":
        given["labels"] = rng.random((batch, n)).astype(x.dtype)
    return given | ({"lse": rng.normal(9, 1, batch)} if "lse" in call else {})


def compute(gpu, call, given, columns=False, place=(0, 0), out=None):
    """Call on slices as rows or columns, matrices placed as gpu.placed says; give results as rows."""
    function, options = CALLS[call]
    given = {
        name: gpu.placed(np.ascontiguousarray(x.T if columns else x), *place)[0] if x.ndim == 2 else gpu.put(x)
        for name, x in given.items()
    }
    if out is not None:
        options = {**options, "out": given[out] if isinstance(out, str) else out}
    got = gpu(function, axis=0 if columns else -1, **given, **options)
    return [x.T if columns and x.ndim == 2 else x for x in (got if isinstance(got, tuple) else (got,))]


def assert_same(got, expected, part=slice(None)):
    for one, same in zip(got, expected, strict=True):
        oracles.assert_same_bits(one.copy(), same[part].copy())


def sizes(dtype, *some):
    """Fewer of them but in float32: the kernels are the same."""
    return some if dtype == "float32" else some[1::2]


@pytest.mark.parametrize("call", CALLS)
class TestBits:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("columns", [False, True])
    def test_whatever_the_batch(self, gpu, call, dtype, columns):
        for n in sizes(dtype, 1, 3, 10, 40, 300, 1600, 20_000):
            batch = 65 if n <= 300 else 9 if n == 1600 else 3
            given = inputs(call, dtype, n, batch)
            place = (0, 1 if columns else 0)  # a lone column of a wider table is one yet
            expected = compute(gpu, call, given, columns, place)
            for start, stop in [(0, 1), (batch - 1, batch), (1, 3), (2, 9), (1, batch)]:
                some = {name: x[start:stop] for name, x in given.items()}
                assert_same(compute(gpu, call, some, columns, place), expected, slice(start, stop))

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("columns", [False, True])
    def test_whatever_the_alignment(self, gpu, call, dtype, columns):
        vector = 16 // helpers.ITEMSIZES[dtype]
        for n in sizes(dtype, 3, 40, 512, 1600, 20_000):
            given = inputs(call, dtype, n, 3)
            expected = compute(gpu, call, given, columns)
            for place in [
                *((offset, 0) for offset in range(1, min(vector, 4))),
                (vector - 1, 0),
                (0, 1),
                (vector, vector),
            ]:
                assert_same(compute(gpu, call, given, columns, place), expected)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("columns", [False, True])
    def test_whatever_the_output(self, gpu, call, dtype, columns):
        """Over an input, or in memory of which nothing else may be touched."""
        if call not in WITH_OUT:
            return
        for n in sizes(dtype, 1, 3, 41, 512, 1601, 20_000):
            given = inputs(call, dtype, n, 5 if n <= 1601 else 2)
            expected = compute(gpu, call, given, columns)
            for name in given.keys() & {"x", "logits", "grad_output", "probs", "log_probs"}:
                for _ in gpu.orders():  # what is read must be so before others write
                    assert_same(compute(gpu, call, given, columns, (n % 2, 0), out=name), expected)
            matrix = given[name].T if columns else given[name]
            for offset, gap in [(0, 0), (3, 0), (0, 5)]:
                out, room = gpu.placed(np.full(matrix.shape, 7, matrix.dtype), offset, gap)
                assert_same(compute(gpu, call, given, columns, out=out), expected)
                assert np.isnan(gpu.get(room).astype("f4")).sum() == room.size - out.size

    @pytest.mark.parametrize("columns", [False, True])
    def test_whatever_the_order_of_threads(self, gpu, call, columns):
        for n in [2, 10, 40, 300, 512, 1600, 5000, 20_000]:
            given = inputs(call, "float32", n, 2)
            results = [compute(gpu, call, given, columns) for _ in gpu.orders()]
            for got in results[1:]:
                assert_same(got, results[0])

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_with_clusters_and_without(self, gpu, call, dtype):
        """A split of a row over blocks computes the same partials in the same tree."""
        chunk = helpers.chunk(KERNELS.get(call, call), dtype)
        for n, offset in [(chunk + 8, 0), (2 * chunk, 1), (3 * chunk + 1, 0), (8 * chunk, 0)]:
            if n > 300_000 or (n > 100_000 and dtype != "float32"):
                continue
            given = inputs(call, dtype, n, 2 if n < 30_000 else 1)
            expected = compute(gpu, call, given, place=(offset, 0))
            with gpu.without_clusters():
                assert_same(compute(gpu, call, given, place=(offset, 0)), expected)


def test_reduced_losses_have_one_order(gpu):
    """Of a batch that takes two launches, whatever the alignment and the order of threads."""
    for batch, reduction in itertools.product([300, 20_000], ["mean", "sum"]):
        x, labels = oracles.normal((batch, 3), "float32"), np.arange(batch) % 3
        given = {"reduction": reduction, "sample_weight": np.linspace(0.1, 3, batch)}
        results = [gpu("cross_entropy_with_grad", x, labels, **given) for _ in gpu.orders()]
        results.append(gpu("cross_entropy_with_grad", gpu.placed(x, 1, 2)[0], labels, **given))
        for got, same in itertools.product(results[1:], results[:1]):
            oracles.assert_same_bits(got[0], same[0])
            oracles.assert_same_bits(got[1], same[1])


@pytest.fixture
def emulated(gpu):
    """Give the stand-in, which keeps account of what is done, with clean books."""
    if not gpu.emulated:
        pytest.skip("the real CuPy keeps no account")
    cupy = gpu.cupy
    before = dict(vars(cupy.emulated))
    for book in (cupy.launches, cupy.operations, cupy.synchronisations, cupy.compilations):
        book.clear()
    yield cupy
    vars(cupy.emulated).update(before)


def on_device(gpu, call, dtype="float32", n=40, batch=3):
    """A call that does nothing but what the library does."""
    function, options = CALLS[call]
    given = {name: gpu.put(x) for name, x in inputs(call, dtype, n, batch).items()}
    return lambda **more: getattr(fastsoftmax, function)(**given, **{**options, **more})


class TestLaunches:
    @pytest.mark.parametrize("call", CALLS)
    def test_few(self, gpu, emulated, call):
        """One for slices that no blocks share; else the parts, what they are together, and the writing."""
        chunk = helpers.chunk(KERNELS.get(call, call), "float32")
        split = 3 if call in WITH_OUT else 2
        for n, capability, launches in [
            *((40, "90", 1), (chunk, "80", 1), (chunk + 8, "80", split)),
            *((chunk + 8, "90", 1), (8 * chunk, "90", 1), (8 * chunk + 8, "90", split)),
        ]:
            emulated.emulated.compute_capability = capability
            gpu.backend._largest_cluster.cache_clear()
            run = on_device(gpu, call, n=n, batch=1)
            emulated.launches.clear()
            run()
            assert len(emulated.launches) == (1 if "lse" in call else launches), (n, capability)
        gpu.backend._largest_cluster.cache_clear()

    def test_of_reductions(self, gpu, emulated):
        for batch, pieces in [(8192, 1), (8193, 2)]:
            for call, reduction, launches in [
                ("loss", "none", 1),
                ("loss", "sum", 1 + pieces),
                ("loss", "mean", 1 + 2 * pieces),
                ("loss and gradient", "mean", 1 + 2 * pieces),
                ("gradient", "mean", 1 + pieces),
                ("gradient", "sum", 1),
            ]:
                run = on_device(gpu, call, n=2, batch=batch)
                emulated.launches.clear()
                run(reduction=reduction)
                assert len(emulated.launches) == launches, (batch, call, reduction)

    @pytest.mark.parametrize(
        ("shape", "axis", "offset", "kernel", "blocks", "cluster"),
        [
            ((1000, 8), 1, 0, "slices.*WHOLE", 8, 1),
            ((1000, 10), 1, 0, "slices.*SINGLE", 16, 1),
            ((7, 1024), 1, 0, "slices.*WHOLE", 2, 1),
            ((7, 1024), 1, 1, "slices.*SPLIT", 2, 1),
            ((7, 8192), 1, 0, "slices.*WHOLE", 7, 1),
            ((3, 16384), 1, 0, "long_slices.*WHOLE", 3, 1),
            ((3, 32000), 1, 0, "long_slices.*WHOLE", 6, 2),
            ((1, 50001), 1, 0, "long_slices.*SINGLE", 4, 4),
            ((1, 131072), 1, 0, "long_slices.*WHOLE", 8, 8),
            ((10, 100), 0, 0, "slices.*COLUMN", 4, 1),
            ((100, 2), 0, 0, "slices.*COLUMN", 1, 1),
        ],
    )
    def test_the_mapping(self, gpu, emulated, shape, axis, offset, kernel, blocks, cluster):
        """What is fast: vectors where memory allows, as many slices in a block as fit, clusters."""
        x, _ = gpu.placed(np.zeros(shape, "float32"), offset)
        fastsoftmax.softmax(x, axis, out=x)
        (launch,) = emulated.launches
        assert re.match(kernel, launch.name)
        assert launch.cluster == cluster
        assert launch.grid[0] <= blocks

    @pytest.mark.parametrize("call", CALLS)
    def test_no_host_in_between(self, gpu, emulated, call):
        """Nothing waits for the device, all work stands on the current stream, kernels are compiled once."""
        for n, batch in [(10, 3), (3, 9000), (20_000, 1), (140_000, 1)]:
            run = on_device(gpu, call, n=n, batch=batch)
            for more in [{"reduction": reduction} for reduction in ("none", "mean", "sum")] if is_loss(call) else [{}]:
                run(**more)
                emulated.launches.clear()
                emulated.compilations.clear()
                with emulated.cuda.Stream() as stream:
                    run(**more)
                assert {launch.stream for launch in emulated.launches} == {stream.ptr}
                assert emulated.compilations == []
        assert emulated.synchronisations == []

    @pytest.mark.parametrize("call", CALLS)
    def test_no_kernels_of_cupy(self, gpu, emulated, call):
        """But for the copies of labels and weights, which out may lie over."""
        run = on_device(gpu, call)
        emulated.operations.clear()
        run()
        assert set(emulated.operations) <= ({"astype"} if is_loss(call) else set())

    @pytest.mark.parametrize("call", CALLS)
    def test_another_device_than_the_current_one(self, gpu, emulated, call):
        emulated.emulated.devices = 2
        for n, reduction in itertools.product([40, 300_000], ["mean", "none"]):
            more = {"reduction": reduction} if is_loss(call) else {}
            with emulated.cuda.Device(1):
                run = on_device(gpu, call, n=n, batch=2)
            emulated.launches.clear()
            got = run(**more)
            assert {launch.device for launch in emulated.launches} == {1}
            assert {x.device.id for x in (got if isinstance(got, tuple) else (got,))} == {1}
            assert emulated.cuda.Device().id == 0

    def test_checked_labels_wait(self, gpu, emulated):
        on_device(gpu, "loss and gradient")(validate=True)
        assert emulated.synchronisations

    def test_a_graph_captures_calls(self, gpu):
        """On the real device: nothing waits, and nothing leaves the current stream."""
        if gpu.emulated:
            pytest.skip("the stand-in has no graphs")
        for call in CALLS:
            run = on_device(gpu, call, n=40_000)
            stream = gpu.cupy.cuda.Stream(non_blocking=True)
            gpu.cupy.cuda.Device().synchronize()
            with stream:
                run()
                stream.begin_capture()
                got = run()
                stream.end_capture().launch(stream)
            stream.synchronize()
            expected = run()
            for one, same in zip(*(x if isinstance(x, tuple) else (x,) for x in (got, expected)), strict=True):
                oracles.assert_same_bits(gpu.get(one), gpu.get(same))
