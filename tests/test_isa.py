"""Each instruction set: forced by FASTSOFTMAX_ISA it is the one that runs, and it is right."""

import re

import numpy as np
import pytest

import oracles
from fastsoftmax import _native
from oracles import DTYPES, NAMES

SUPPORTED = list(_native.supported_isas())
BEST_FIRST = ["avx512", "avx2", "baseline"]

# Computes every operation on the arrays of a file, and writes the results to another.
COMPUTE = """
    import sys
    import numpy as np
    import fastsoftmax
    from fastsoftmax import _native

    results = {"isa": _native.isa()}
    for key, x in np.load(sys.argv[1]).items():
        operation, axis = key.split("-")[:2]
        if operation in ("exp", "log1p"):
            results[key] = getattr(_native, "_" + operation)(x)
        elif operation == "gradient":
            labels = np.arange(x.size // x.shape[int(axis)]) % x.shape[int(axis)]
            loss, results[key] = fastsoftmax.cross_entropy_with_grad(
                x, labels, int(axis), reduction="none")
            results["loss" + key] = loss
            results["alone" + key] = fastsoftmax.cross_entropy(
                x, labels, int(axis), reduction="none")
        else:
            results[key] = getattr(fastsoftmax, operation)(x, axis=int(axis))
    np.savez(sys.argv[2], **results)
    fastsoftmax.show_config()
"""


@pytest.fixture(scope="module")
def inputs():
    """Rows, short rows and columns of every operation; special entries among them."""
    arrays = {}
    for dtype in DTYPES:
        for i, n in enumerate([1, 2, 3, 5, 8, 10, 13, 16, 17, 31, 32, 33, 40, 64, 65, 100, 257]):
            for layout in ("rows", "columns"):
                rows = oracles.normal((37, n), dtype, seed=i, offset=[0, 300, -1000][i % 3])
                rows[5, n // 2], rows[8], rows[11, 0] = np.nan, -np.inf, -np.inf
                for operation in (*NAMES, "gradient"):
                    x, axis = oracles.arrange(rows, layout)
                    arrays[f"{operation}-{axis % 2}-{dtype}-{n}"] = x
        for n in (1000, 4099, 70_001):
            for layout in ("rows", "columns"):
                for operation in (*NAMES, "gradient"):
                    x, axis = oracles.arrange(oracles.normal((6, n), dtype), layout)
                    arrays[f"{operation}-{axis % 2}-{dtype}-{n}"] = x
        low, high = np.log(np.finfo(dtype).smallest_subnormal) - 1, np.log(np.finfo(dtype).max)
        arrays[f"exp-0-{dtype}"] = np.linspace(low, high - 0.01, 100_003).astype(dtype)
        arrays[f"log1p-0-{dtype}"] = np.geomspace(1e-37, 1e37, 100_003).astype(dtype)
    return arrays


@pytest.fixture(scope="module")
def results(inputs, tmp_path_factory):
    """Results by ISA, each computed in a process of its own when first asked for."""
    return {"folder": tmp_path_factory.mktemp("isa"), "inputs": inputs}


@pytest.fixture
def result_of(results, run_python):
    def result(isa):
        if isa not in results:
            folder = results["folder"]
            if not (folder / "inputs.npz").exists():
                np.savez(folder / "inputs.npz", **results["inputs"])
            output = folder / f"{isa}.npz"
            done = run_python(COMPUTE, folder / "inputs.npz", output, FASTSOFTMAX_ISA=isa)
            results[isa] = done.stdout, dict(np.load(output))
        return results[isa]

    return result


@pytest.mark.parametrize("isa", SUPPORTED)
def test_the_forced_one_is_in_use(result_of, isa):
    printed, computed = result_of(isa)
    assert computed["isa"] == isa
    # The first that is named: the list of the choices may follow.
    assert re.search("|".join(BEST_FIRST), printed)[0] == isa


@pytest.mark.parametrize("isa", SUPPORTED)
def test_results_keep_the_accuracy_contract(result_of, inputs, isa):
    _, computed = result_of(isa)
    for key, x in inputs.items():
        operation, axis, dtype = key.split("-")[:3]
        axis, got = int(axis), computed[key]
        if dtype == "float64" and np.finfo(np.longdouble).nmant == np.finfo(dtype).nmant:
            continue  # no wider type to judge it
        wide = x.astype(np.longdouble if dtype == "float64" else "float64")
        if operation in NAMES:
            oracles.check(operation, got, x, axis)
        elif operation == "gradient":
            labels = np.arange(x.size // x.shape[axis]) % x.shape[axis]
            loss, grad, _ = oracles.cross_entropy(x, labels, axis)
            assert oracles.worst(got, grad) <= 4, key
            assert oracles.worst(computed["loss" + key], loss) <= 4, key
            assert oracles.worst(computed["alone" + key], loss) <= 4, key
        else:
            exact = getattr(np, operation)(wide)
            assert oracles.worst(got, exact) <= 1, key


def bits(computed):
    return {k: v.tobytes() for k, v in computed.items() if k != "isa"}


@pytest.mark.skipif(len(SUPPORTED) < 2, reason="this machine has one instruction set alone")
def test_different_ones_give_different_bits(result_of):
    """So different code ran: vectors of another width sum a row in another order."""
    computed = {isa: bits(result_of(isa)[1]) for isa in SUPPORTED}
    for i, one in enumerate(SUPPORTED):
        for other in SUPPORTED[i + 1 :]:
            differing = {k for k in computed[one] if computed[one][k] != computed[other][k]}
            assert any(k.startswith("softmax-1-float64") for k in differing)


def test_the_best_supported_one_is_the_default(run_python):
    code = "from fastsoftmax import _native; print(_native.isa(), *_native.supported_isas())"
    chosen, *supported = run_python(code, FASTSOFTMAX_ISA=None).stdout.split()
    assert supported == SUPPORTED
    assert chosen == min(supported, key=BEST_FIRST.index)
    assert "baseline" in supported


UNSUPPORTED = [isa for isa in BEST_FIRST if isa not in SUPPORTED]


@pytest.mark.parametrize("name", ["sse9", "AVX", "avx2 ", "avx", *UNSUPPORTED])
def test_an_unknown_or_unsupported_name_is_an_error_at_import(run_python, name):
    done = run_python("import fastsoftmax", FASTSOFTMAX_ISA=name, check=False)
    assert done.returncode != 0
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError")
    assert repr(name) in message or name in message
    for choice in SUPPORTED:
        assert choice in message
