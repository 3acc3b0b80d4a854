"""Time cross-entropy, forward and backward, through PyTorch's autograd: fastsoftmax's loss beside PyTorch's own.

    python benchmarks/training/run.py [--threads 1 2] [--seconds 1] [--device cpu]

A step is what a training loop does: the loss of given logits, and their gradient by autograd. The contestants take
turns in one process; the figure that counts is the ratio of the medians. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import functools
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from timeit import Timer

import torch
from torch.nn import functional

import fastsoftmax
from fastsoftmax.integrations.torch import cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.turns import interleave

# Tokens and classes; the vocabularies are those of an MNIST, an ImageNet, Llama 2 and Llama 3.
SHAPES = [(4096, 10), (512, 1000), (256, 32000), (64, 128256)]
DTYPES = [torch.float32, torch.bfloat16]


def steps(shape: tuple[int, int], dtype: torch.dtype, device: str) -> dict[str, Callable[[], None]]:
    """Give a training step of each contestant."""
    torch.manual_seed(0)
    logits = (2 * torch.randn(shape, device=device)).to(dtype).requires_grad_()
    labels = torch.randint(shape[1], shape[:1], device=device)

    def step(loss: Callable) -> None:
        # What reaches the layer before: .backward() would add it to the .grad of logits that have no such layer.
        torch.autograd.grad(loss(logits, labels), logits)
        if device != "cpu":
            torch.cuda.synchronize()

    losses = {"fastsoftmax": cross_entropy, "PyTorch": functional.cross_entropy}
    return {name: functools.partial(step, loss) for name, loss in losses.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=1.0, help="time for a contestant in each case")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(f"fastsoftmax {fastsoftmax.__version__}, PyTorch {torch.__version__}, {platform.machine()}\n")
    print("| shape | dtype | threads | PyTorch, ms | fastsoftmax, ms | times faster |")
    print("|---|---|---|---|---|---|")
    for shape in SHAPES:
        for dtype in DTYPES:
            for threads in options.threads:
                torch.set_num_threads(threads)
                timers = {name: Timer(step) for name, step in steps(shape, dtype, options.device).items()}
                times = interleave(timers, options.seconds)
                theirs, ours = times["PyTorch"], times["fastsoftmax"]
                name = str(dtype).removeprefix("torch.")
                print(f"| {shape} | {name} | {threads} | {theirs * 1e3:.3g} | {ours * 1e3:.3g} | {theirs / ours:.1f} |")


if __name__ == "__main__":
    main()
