"""What is measured: every cell of the performance contract, with the floor that it must reach.

A floor is the least ratio (the other's time over ours) that we promise; `np.copyto` and a pure read are measured like a
library, so that "half the speed of a copy" is a floor of 0.5. A floor is one number for 1 and 2 threads, or a pair.

There are three groups. "main" is the contract itself. "avx2" and "baseline" are measured once more with that
instruction set forced on both sides. "sweep" walks the row length at a constant amount of work, for the charts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastsoftmax import reference

SHAPES = [(32, 10), (65536, 10), (128, 1000), (4096, 1000), (64, 32000), (256, 128256)]
HALVES = ["float16", "bfloat16"]
FORCED = ["avx2", "baseline"]
SWEEP_ELEMENTS = 2**20
# Vector-Jacobian products, of a forward pass of which the output was saved.
PRODUCTS = {"softmax_grad": "softmax", "log_softmax_grad": "log_softmax"}

Floor = float | tuple[float | None, float | None]


class Case(NamedTuple):
    """One row of the tables, at any number of threads."""

    op: str
    shape: tuple[int, int]
    floors: dict[str, Floor]  # by the name of the library or yardstick
    axis: int = 1
    dtype: str = "float32"
    out: bool = True  # whoever can writes into an array that is there already
    group: str = "main"
    readme: bool = False  # in the README's table

    @property
    def name(self) -> str:
        """What --only looks at, and the tables show."""
        words = [f"{self.op} {self.shape}"]
        words += ["axis 0"] * (self.axis == 0) + [self.dtype] * (self.dtype != "float32")
        # A logsumexp's own output is small, and no other library writes a gradient in place.
        words += ["fresh"] * (not self.out and self.op in ("softmax", "log_softmax"))
        words += [self.group] * (self.group != "main")
        return ", ".join(words)

    @property
    def n(self) -> int:
        """Length of a slice."""
        return self.shape[self.axis]

    @property
    def batch(self) -> int:
        """Number of slices."""
        return self.shape[1 - self.axis]

    def floor(self, name: str, threads: int, isa: str) -> float | None:
        """The ratio to `name` that is promised; none for other numbers of threads, or with lesser kernels."""
        promised_on = "avx512" if self.group == "main" else self.group
        floor = self.floors.get(name)
        if floor is None or isa != promised_on or threads not in (1, 2):
            return None
        return floor[threads - 1] if isinstance(floor, tuple) else floor


class Data(NamedTuple):
    """What every contestant of a case is given."""

    x: np.ndarray  # logits; of a vector-Jacobian product the upstream gradient
    labels: np.ndarray
    saved: np.ndarray | None  # what a vector-Jacobian product is given besides

    @classmethod
    def of(cls, case: Case) -> Data:
        """Normal logits of deviation 5: exponentials of very different sizes, as a trained model's."""
        rng = np.random.default_rng(0)
        labels = rng.integers(0, case.n, case.batch)
        x = rng.standard_normal(case.shape, "float64" if case.dtype == "float64" else "float32") * 5
        x = x.astype(dtype_of(case.dtype), copy=False)
        forward = PRODUCTS.get(case.op)
        saved = getattr(reference, forward)(np.flip(x), case.axis) if forward else None
        return cls(x, labels, saved)


def dtype_of(name: str) -> np.dtype:
    """NumPy's dtype; bfloat16 is that of ml_dtypes."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


# More than a million elements that fit the caches: here a second thread must pay.
SCALING: dict[str, Floor] = {"1 thread": (None, 1.8)}


def softmax(shape: tuple[int, int], torch: Floor, numpy: Floor, copy: Floor | None = None, **options: object) -> Case:
    """One row of the contract's table of softmax."""
    floors: dict[str, Floor] = {"PyTorch": torch, "NumPy": numpy} | options.pop("also", {})
    if copy is not None:
        floors["copy"] = copy
    return Case("softmax", shape, floors, **options)


def table_of_softmax() -> list[Case]:
    """List the contract's table, in its order."""
    ort_short, ort_long, ort_columns = ({"ONNX Runtime": floor} for floor in (2.5, 1.25, 5))
    first, wide = {"out": False, "readme": True}, {"dtype": "float64"}
    return [
        softmax((1, 10), (4, None), (13, None), **first),
        softmax((32, 10), (10, None), (12, None), **first),
        softmax((65536, 10), 20, (12, 20), 0.15, also=ort_short, readme=True),
        softmax((65536, 10), 10, (5, 9), 0.12, **wide),
        softmax((40000, 37), 5, (6, 10), 0.25, also=SCALING),
        softmax((128, 1000), 2.3, (5, 8), 0.30, also=ort_long, readme=True),
        softmax((4096, 1000), 1.8, (6, 9), 0.50, also=ort_long, readme=True),
        softmax((64, 32000), (2.3, 2.0), (5, 7), 0.40, also=ort_long | SCALING, readme=True),
        softmax((64, 32000), 1.7, (4, 7), 0.40, readme=True, **wide),
        softmax((256, 128256), (1.9, 1.4), (6, 8), (0.90, 1.2), also=ort_long, readme=True),
        softmax((256, 128256), 3.8, (2.8, 4), out=False),
        softmax((1000, 4096), 3.5, (3, 6), 0.30, axis=0, also=ort_columns, readme=True),
        softmax((10, 65536), 2.6, (3, 5), 0.28, axis=0, also=ort_columns),
        softmax((32000, 64), (3.5, 2.2), 6, 0.40, axis=0, also=ort_columns | SCALING),
    ]


def other_operations() -> list[Case]:
    """List the half precisions, log_softmax, logsumexp, the loss with its gradient, and (no floors) the products."""
    largest = SHAPES[-1]
    shown = {("log_softmax", (4096, 1000)), ("logsumexp", (64, 32000)), ("cross_entropy_with_grad", (128, 1000))}
    shown.add(("cross_entropy_with_grad", largest))
    loss = dict(zip(SHAPES, (15, 5, 3.3, 3.3, 5, 15), strict=True))
    cases = [
        softmax(shape, 2, 10, dtype=dtype, readme=shape == (4096, 1000), also=SCALING if shape == (64, 32000) else {})
        for dtype in HALVES
        for shape in ((4096, 1000), (64, 32000))
    ]
    for op, out in (("log_softmax", True), ("logsumexp", False), ("cross_entropy_with_grad", False)):
        for shape in SHAPES:
            floors: dict[str, dict[str, Floor]] = {
                "log_softmax": {"PyTorch": 1.6 if shape == largest else 2},
                "logsumexp": {"PyTorch": 5, "SciPy": 12} | ({"read": 0.6} if shape == largest else {}),
                "cross_entropy_with_grad": {"PyTorch": loss[shape]},
            }
            scaling = SCALING if shape == (64, 32000) else {}
            cases.append(Case(op, shape, floors[op] | scaling, out=out, readme=(op, shape) in shown))
    products = [((65536, 10), 1), ((128, 1000), 1), ((4096, 1000), 1), ((64, 32000), 1), ((1000, 4096), 0)]
    return cases + [Case(op, shape, {}, axis=axis) for op in PRODUCTS for shape, axis in products]


def forced(cases: list[Case]) -> list[Case]:
    """List the cases that are measured with a forced instruction set too; where there are floors, AVX2 has its own."""
    chosen = [
        case
        for case in cases
        if (case.op == "softmax" and case.out and case.dtype == "float32")
        or (case.op == "softmax" and case.shape == (64, 32000) and case.dtype == "float64")
        or (case.shape == (4096, 1000) and case.dtype in ("float16", "float32"))
    ]
    floors: dict[str, Floor] = {"PyTorch": 1.2}
    return [
        case._replace(group=isa, floors=floors if isa == "avx2" and case.floors else {}, readme=False)
        for isa in FORCED
        for case in chosen
    ]


def sweep() -> list[Case]:
    """List row lengths 1 to 2^20, always 2^20 elements."""
    lengths = [2**k for k in range(SWEEP_ELEMENTS.bit_length())]
    return [Case("softmax", (SWEEP_ELEMENTS // n, n), {}, group="sweep") for n in lengths]


MAIN = table_of_softmax() + other_operations()
CASES = MAIN + forced(MAIN) + sweep()


def is_quick(case: Case) -> bool:
    """Tell whether --quick keeps a case: the small ones, and each fifth point of the sweep."""
    if case.group == "sweep":
        return (case.n.bit_length() - 1) % 5 == 0
    return case.n * case.batch < SWEEP_ELEMENTS
