"""A softmax of rows in Triton, as its tutorial teaches it, for the benchmark alone.

Short rows share a program; a row of up to 32768 elements stays in the registers of one, which reads and writes it once;
a longer one is read twice, the first time for its maximum and sum, rescaled from block to block.
"""

from __future__ import annotations

import triton
import triton.language as tl

IN_REGISTERS = 32768
TILE = 2048  # elements of a program that has several rows
LOOP_BLOCK = 8192


@triton.jit
def whole_rows(x, out, rows, n, ROWS: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (column < n)
    logits = tl.load(x + row * n + column, mask=inside, other=-float("inf")).to(tl.float32)
    exponentials = tl.exp(logits - tl.max(logits, axis=1)[:, None])
    probabilities = exponentials / tl.sum(exponentials, axis=1)[:, None]
    tl.store(out + row * n + column, probabilities.to(out.dtype.element_ty), mask=inside)


@triton.jit
def long_rows(x, out, n, BLOCK: tl.constexpr):  # noqa: N803
    start = tl.program_id(0).to(tl.int64) * n
    column = tl.arange(0, BLOCK)
    largest = tl.full([BLOCK], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(0, n, BLOCK):
        logits = tl.load(x + start + first + column, mask=first + column < n, other=-float("inf")).to(tl.float32)
        larger = tl.maximum(largest, logits)
        total = total * tl.exp(largest - larger) + tl.exp(logits - larger)
        largest = larger
    maximum = tl.max(largest, axis=0)
    scale = 1 / tl.sum(total * tl.exp(largest - maximum), axis=0)
    for first in range(0, n, BLOCK):
        inside = first + column < n
        logits = tl.load(x + start + first + column, mask=inside, other=-float("inf")).to(tl.float32)
        probabilities = tl.exp(logits - maximum) * scale
        tl.store(out + start + first + column, probabilities.to(out.dtype.element_ty), mask=inside)


def softmax(x: object, out: object) -> object:
    """Compute softmax of the rows of a contiguous matrix into another; both are PyTorch's."""
    rows, n = x.shape
    block = triton.next_power_of_2(n)
    if block > IN_REGISTERS:
        long_rows[(rows,)](x, out, n, BLOCK=LOOP_BLOCK, num_warps=16)
    else:
        together = max(1, TILE // block)
        warps = min(32, max(4, block * together // 1024))
        whole_rows[(triton.cdiv(rows, together),)](x, out, rows, n, ROWS=together, BLOCK=block, num_warps=warps)
    return out
