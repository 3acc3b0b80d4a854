"""What is measured, and the fraction of the memory's speed that each case must reach.

Every operation here is bound by memory: a case's ceiling is a kernel that only moves the bytes which the operation
must move (ceilings.py), timed beside it. A target is the least fraction of that kernel's bandwidth.

Groups: "main" has the targets; "grad" is the softmax's gradient, two reads and a write; "axis 0" has strided slices;
"odd" has row lengths that 16-byte loads do not divide; "few" has too few rows to fill the device with a block each;
"dtypes" the other two dtypes; "sweep" walks the row length at a constant number of bytes, for the chart.
"""

from __future__ import annotations

from typing import NamedTuple

# (rows, row length): least fraction of a copy, then of a pure read, each for float32 and bfloat16.
TARGETS = {
    (32768, 256): {"copy": (0.95, 0.90), "read": (0.85, 0.75)},
    (32768, 1024): {"copy": (0.96, 0.95), "read": (0.90, 0.85)},
    (16384, 4096): {"copy": (0.97, 0.97), "read": (0.95, 0.90)},
    (8192, 16384): {"copy": (0.97, 0.97), "read": (0.97, 0.95)},
    (8192, 32000): {"copy": (0.97, 0.97), "read": (0.97, 0.95)},
    (4096, 65536): {"copy": (0.97, 0.97), "read": (0.97, 0.95)},
    (8192, 128256): {"copy": (0.96, 0.96), "read": (0.97, 0.95)},
    (4096, 262144): {"copy": (0.95, 0.95), "read": (0.96, 0.94)},
}
DTYPES = ("float32", "bfloat16")
ITEMSIZE = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}

# The geometric mean, over the main group, of PyTorch's eager time over ours.
AVERAGES = {"softmax": 1.7, "log_softmax": 1.7, "cross_entropy": 2.0, "cross_entropy_with_grad": 2.5}

# QuACK's published GB/s on an H100 of 3350 GB/s, by row length: https://github.com/Dao-AILab/quack. To be beaten, as
# fractions of the peak, up to rows of 1024; to be reached beyond.
QUACK_PEAK = 3350
QUACK = {
    ("softmax", "float32"): {256: 2360, 1024: 2850, 16384: 2970, 65536: 3015, 262144: 3010},
    ("softmax", "bfloat16"): {256: 1900, 1024: 2630, 16384: 2975, 65536: 3005, 262144: 3013},
    ("cross_entropy", "float32"): {256: 1040, 1024: 2340, 16384: 3160, 65536: 3205, 262144: 3075},
    ("cross_entropy", "bfloat16"): {256: 1110, 1024: 1905, 16384: 3060, 65536: 3185, 262144: 3035},
}

# Whole arrays that an operation reads and writes, and the kernel that moves as many.
TRAFFIC = {
    "softmax": (1, 1),
    "log_softmax": (1, 1),
    "cross_entropy_with_grad": (1, 1),
    "softmax_grad": (2, 1),
    "logsumexp": (1, 0),
    "cross_entropy": (1, 0),
}
UNNAMED = ("main", "grad", "dtypes")  # groups whose cases differ by the rest of their names

CEILINGS = {(1, 1): "copy", (1, 0): "read", (2, 1): "combine"}

SWEEP_BYTES = 2**29
SWEEP_LENGTHS = [2**k for k in range(4, 21)]
QUICK_ELEMENTS = 2**25


class Case(NamedTuple):
    """One row of the tables."""

    op: str
    shape: tuple[int, int]
    dtype: str = "float32"
    axis: int = 1
    group: str = "main"

    @property
    def name(self) -> str:
        """What --only looks at, and the tables show."""
        words = [f"{self.op} {self.shape}", self.dtype]
        return ", ".join(words + [self.group] * (self.group not in UNNAMED))

    @property
    def n(self) -> int:
        """Length of a slice."""
        return self.shape[self.axis]

    @property
    def batch(self) -> int:
        """Number of slices."""
        return self.shape[1 - self.axis]

    @property
    def array_bytes(self) -> int:
        """Size of the logits."""
        return self.n * self.batch * ITEMSIZE[self.dtype]

    @property
    def has_labels(self) -> bool:
        """Whether each slice has a class, an int64."""
        return self.op.startswith("cross_entropy")

    @property
    def writes(self) -> bool:
        """Whether the result is as large as the logits."""
        return TRAFFIC[self.op][1] > 0

    @property
    def moved_bytes(self) -> int:
        """The least that must be read and written: whole arrays, labels, and a number for each slice."""
        numbers = 0 if self.writes else self.batch * (4 if self.has_labels else ITEMSIZE[self.dtype])
        return sum(TRAFFIC[self.op]) * self.array_bytes + 8 * self.batch * self.has_labels + numbers

    @property
    def ceiling(self) -> str:
        """The kernel that only moves the bytes."""
        return CEILINGS[TRAFFIC[self.op]]

    @property
    def target(self) -> float | None:
        """The least fraction of the ceiling."""
        if self.group != "main" or self.dtype not in DTYPES:
            return None
        return TARGETS[self.shape][self.ceiling][DTYPES.index(self.dtype)]


def every_case() -> list[Case]:
    """List the cases, group after group."""
    both = [(shape, dtype) for shape in TARGETS for dtype in DTYPES]
    main = ("softmax", "log_softmax", "cross_entropy_with_grad", "logsumexp", "cross_entropy")
    cases = [Case(op, shape, dtype) for op in main for shape, dtype in both]
    cases += [Case("softmax_grad", shape, dtype, group="grad") for shape, dtype in both]
    groups = {
        "axis 0": [(128, 1048576), (1024, 65536), (32000, 2048)],
        "odd": [(32768, 1001), (8192, 50257)],
        "few": [(1, 2**24), (16, 2**20), (64, 262144)],
    }
    for group, shapes in groups.items():
        ops = ("softmax",) if group == "axis 0" else ("softmax", "logsumexp")
        ops += ("cross_entropy_with_grad",) * (group == "odd")
        axis = 0 if group == "axis 0" else 1
        cases += [Case(op, shape, dtype, axis, group) for op in ops for shape in shapes for dtype in DTYPES]
    others = [(dtype, shape) for dtype in ("float16", "float64") for shape in ((16384, 4096), (8192, 32000))]
    cases += [Case("softmax", shape, dtype, group="dtypes") for dtype, shape in others]
    for dtype in DTYPES:
        elements = SWEEP_BYTES // ITEMSIZE[dtype]
        cases += [Case("softmax", (elements // n, n), dtype, group="sweep") for n in SWEEP_LENGTHS]
    return cases


def is_quick(case: Case) -> bool:
    """Tell whether --quick keeps a case: the small ones, and each fourth point of the sweep."""
    if case.group == "sweep":
        return (case.n.bit_length() - 1) % 4 == 0
    return case.n * case.batch <= QUICK_ELEMENTS
