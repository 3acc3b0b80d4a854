"""How slices are shared out to a GPU's threads: the numbers that ``slices.cuh`` is told.

All follows from the operation, the dtype, the slice's length and the layout, so that a slice keeps its bits whatever
the batch around it; the card decides by its compute capability alone how a row's chunks meet, and they meet in the same
tree either way.
"""

from __future__ import annotations

import functools
from typing import NamedTuple


class Operation(NamedTuple):
    """What ``slices.cuh`` is instantiated with."""

    template: str
    has_y: bool  # a second array of elements is read
    writes: bool  # elements are written
    state: int  # numbers of a state
    addends: int  # and of what is added up when states meet


OPERATIONS = {
    "softmax": Operation("Softmax", False, True, 2, 2),
    "log_softmax": Operation("LogSoftmax", False, True, 2, 2),
    "softmax_grad": Operation("SoftmaxGrad", True, True, 2, 2),
    "log_softmax_grad": Operation("LogSoftmaxGrad", True, True, 2, 2),
    "cross_entropy": Operation("CrossEntropy", False, False, 2, 2),
    "cross_entropy_grad": Operation("CrossEntropyGrad", False, True, 2, 2),
    "cross_entropy_spread": Operation("CrossEntropySpread", True, False, 4, 5),
    "cross_entropy_spread_grad": Operation("CrossEntropySpreadGrad", True, True, 4, 5),
}

TYPES = {"float32": "float", "float64": "double", "float16": "Float16", "bfloat16": "Bfloat16"}

# Of slices.cuh.
THREADS, LONG_THREADS, COLUMN_GROUP, WARP = 256, 512, 8, 32

# Bytes of a vector.
VECTOR = 16

# What writes nothing reads so many times the elements that a block holds before its part becomes a chunk.
LOOPS = 4

# Blocks of a cluster, at most: what every card with clusters allows, and what it may allow when asked.
PORTABLE_CLUSTER, LARGEST_CLUSTER = 8, 16


class Plan(NamedTuple):
    """How a slice is cut, and the kernel for it."""

    kernel: str
    threads: int  # of a block
    group: int  # threads that share a chunk of a row; columns side by side
    units: int  # chunks of a block
    chunk: int
    chunks: int
    cluster: int  # blocks; 1: none
    access: str

    @property
    def split(self) -> bool:
        """Whether a slice's chunks meet in memory, in three launches."""
        return self.chunks > self.cluster


def shared_bytes(addends: int, state: int, itemsize: int) -> int:
    """Give the size of struct Room of slices.cuh."""
    return (THREADS * (addends + 1) + state) * itemsize


def _power(n: int) -> int:
    """Give the least power of two that is not less."""
    return 1 << max(n - 1, 0).bit_length()


def elements(operation: Operation, itemsize: int) -> tuple[int, int]:
    """Give how many elements a thread holds: of short slices, and of others."""
    if itemsize == 8:
        return 4, 8
    return 8, 16 if operation.has_y else 32


@functools.lru_cache(maxsize=4096)
def plan(name: str, dtype: str, n: int, inner: int, columns: bool, aligned: bool, largest_cluster: int) -> Plan:
    """Cut a slice of n elements.

    inner is the number of columns side by side, which only says how wide a block is; aligned, whether every row begins
    at a multiple of 16 bytes in every array; largest_cluster, how many blocks may make one.
    """
    operation = OPERATIONS[name]
    itemsize = {"float64": 8, "float32": 4}.get(dtype, 2)
    few, many = elements(operation, itemsize)
    op = f"{operation.template}<{TYPES[dtype]}>"
    if columns:
        held = few if n <= COLUMN_GROUP * few else many
        chunks, chunk = _cut(n, COLUMN_GROUP * held * (1 if operation.writes else LOOPS), 1)
        lanes = min(_power(inner), WARP)
        units = THREADS // (COLUMN_GROUP * lanes)
        return Plan(f"slices<{op}, {held}, COLUMN>", THREADS, lanes, units, chunk, chunks, 1, "COLUMN")
    together = VECTOR // itemsize
    access = "SINGLE" if n % together else ("WHOLE" if aligned else "SPLIT")
    held = few if n <= WARP * few else many
    if n <= THREADS * held:
        group = _power(-(-n // held))
        threads = THREADS if held == few or group > THREADS // 2 else THREADS // 2
        return Plan(f"slices<{op}, {held}, {access}>", threads, group, threads // group, n, 1, 1, access)
    limit = LONG_THREADS * held * (1 if operation.writes else LOOPS)
    chunks, chunk = _cut(n, limit, 1 if access == "SINGLE" else together)
    cluster = chunks if chunks <= largest_cluster else 1
    kernel = f"long_slices<{op}, {held}, {access}, {cluster}>"
    return Plan(kernel, LONG_THREADS, LONG_THREADS, 1, chunk, chunks, cluster, access)


def _cut(n: int, limit: int, together: int) -> tuple[int, int]:
    """Give the number of chunks, and the length of all but the last: at most limit, a multiple of `together`."""
    chunks = -(-n // limit)
    if chunks <= LARGEST_CLUSTER:
        chunks = _power(chunks)
    return chunks, -(-n // (chunks * together)) * together
