"""Load the kernels of this folder, and launch those that only move bytes, as the library launches its own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arrays import Slot
from targets import Case

THREADS = 256  # kThreads of the source
VECTORS = (1, 2, 4, 8)  # of 16 bytes, for each thread


@functools.cache
def kernel(name: str, source: str = "kernels.cu", options: tuple[str, ...] = ()) -> Any:
    """Compile, and find a kernel; once a process."""
    import cupy

    code = Path(__file__).with_name(source).read_text()
    return cupy.RawModule(code=code, options=("-std=c++17", *options)).get_function(name)


def delay(seconds: float) -> None:
    """Keep the device waiting."""
    import cupy

    kernel("delay")((1,), (1,), (cupy.uint64(round(seconds * 1e9)),))


def movers(case: Case, slots: list[Slot]) -> dict[str, Callable[[int], object]]:
    """Give the kernels that move as many arrays as a case does, by name; the fastest is its ceiling."""
    import cupy

    size = slots[0].x.nbytes
    operands = {
        "copy": lambda slot: (slot.x, slot.out),
        "combine": lambda slot: (slot.x, slot.y, slot.out),
        "read": lambda slot: (slot.x, sink),
    }[case.ceiling]
    sink = cupy.empty(1, "uint32")
    arguments = [(*operands(slot), cupy.uint64(size)) for slot in slots]

    def launcher(vectors: int) -> Callable[[int], object]:
        mover = kernel(f"{case.ceiling}_{vectors}")
        grid = (max(1, -(-size // (16 * THREADS * vectors))),)
        return lambda i: mover(grid, (THREADS,), arguments[i])

    return {f"{case.ceiling}_{vectors}": launcher(vectors) for vectors in VECTORS}
