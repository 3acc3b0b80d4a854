"""What runs first: which cluster sizes the device launches, and what a call costs the host.

Clusters. A kernel with __cluster_dims__ is launched as every RawKernel is; its blocks read one another's shared memory,
and the answer is checked. Sizes above 8 are not portable: a function must be told that they are allowed.

Calls. The time of a call on a tiny array until it returns, without waiting for the device: for small arrays that is
what a user pays.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import ceilings
import contestants
import device
from measure import reason
from timing import Stopwatch

CLUSTER_SIZES = (2, 4, 8, 16)
NON_PORTABLE_CLUSTER_SIZE_ALLOWED = 14  # of CUfunction_attribute
PORTABLE = 8
SHAPE = (32, 10)
CALLS = 200  # so few that the device's queue never fills


def cluster(size: int) -> str:
    """Launch clusters of a size; say "works", or what went wrong."""
    import cupy

    if device.compute_capability() < (9, 0):
        return "the device has no clusters"
    blocks = 4 * size
    seen = cupy.zeros(blocks, "uint32")
    try:
        kernel = ceilings.kernel("number_of_next", "clusters.cu", (f"-DCLUSTER={size}",))
        if size > PORTABLE:
            cupy.cuda.driver.funcSetAttribute(kernel.kernel.ptr, NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)
        kernel((blocks,), (32,), (seen,))
        cupy.cuda.runtime.deviceSynchronize()
    except Exception as error:  # of the compiler, the driver or the runtime
        return reason(error)
    expected = [block // size * size + (block + 1) % size for block in range(blocks)]
    return "works" if cupy.asnumpy(seen).tolist() == expected else "wrong numbers from the next block's shared memory"


def clusters() -> dict[str, str]:
    """Try every size; keys are as JSON has them."""
    return {str(size): cluster(size) for size in CLUSTER_SIZES}


def tiny_calls(libraries: list[contestants.Library]) -> dict[str, Callable[[], object]]:
    """Give the calls by name; those with out write into an array that is there already."""
    import cupy

    x = cupy.zeros(SHAPE, "float32")
    out = cupy.empty_like(x)
    kernel, arguments = ceilings.kernel("copy_1"), (x, out, cupy.uint64(x.nbytes))
    calls: dict[str, Callable[[], object]] = {
        "RawKernel": lambda: kernel((1,), (ceilings.THREADS,), arguments),
        "cupy.add, out": lambda: cupy.add(x, x, out=out),
    }
    names = [library.name for library in libraries]
    if "ours" in names:
        import fastsoftmax

        calls["fastsoftmax.softmax, out"] = lambda: fastsoftmax.softmax(x, -1, out=out)
        calls["fastsoftmax.softmax"] = lambda: fastsoftmax.softmax(x)
    if "PyTorch" in names:
        import torch

        tensor, tensor_out = contestants.to_torch(x), contestants.to_torch(out)
        calls["torch.softmax, out"] = lambda: torch.softmax(tensor, -1, out=tensor_out)
        calls["torch.softmax"] = lambda: torch.softmax(tensor, -1)
    return calls


def call_costs(libraries: list[contestants.Library], stopwatch: Stopwatch, rounds: int) -> dict[str, float | str]:
    """Microseconds of each call, the median of rounds taken in turns; or what went wrong."""
    costs: dict[str, float | str] = {}
    times: dict[str, list[float]] = {}
    calls = tiny_calls(libraries)
    for name, call in calls.items():
        try:
            stopwatch.on_host(call, CALLS)
            times[name] = []
        except Exception as error:
            costs[name] = reason(error)
    for _ in range(rounds):
        for name, found in times.items():
            found.append(stopwatch.on_host(calls[name], CALLS))
    return {name: costs.get(name) or round(statistics.median(times[name]) * 1e6, 2) for name in calls}
