"""What the compiler makes of the CUDA kernels, without a device: registers, blocks on a multiprocessor, instructions.

python benchmarks/gpu/compiled.py writes benchmarks/results/gpu_compiled.md. It needs nvcc, of the machine or of the
package nvidia-cuda-nvcc; with nvdisasm (nvidia-cuda-nvdisasm) it counts instructions too. Nothing here is a time.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from fastsoftmax import cuda
from fastsoftmax.cuda.plan import LONG_THREADS, OPERATIONS, THREADS, TYPES, Operation, elements, shared_bytes

RESULT = Path(__file__).resolve().parents[1] / "results" / "gpu_compiled.md"
SIZES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}

# Of a multiprocessor of compute capability 8.0 and 9.0: registers, in parts of 256 for a warp; threads; blocks.
REGISTERS, PART, WARP, MOST_THREADS, MOST_BLOCKS = 65536, 256, 32, 2048, 32


class Report(NamedTuple):
    """What ptxas says of a kernel."""

    registers: int
    stack: int
    spilled: int


def find(tool: str) -> str | None:
    """Give the path of one of NVIDIA's tools."""
    found = shutil.which(tool)
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations if found is None and spec else ():
        found = found or next((str(path) for path in Path(folder).glob(f"*/bin/{tool}")), None)
    return found


def instances(accesses: Iterable[str], dtypes: Iterable[str] = TYPES, short: bool = True) -> Iterator[str]:
    """Name the kernels of all operations; those for short slices too."""
    for operation in OPERATIONS.values():
        for dtype in dtypes:
            few, many = elements(operation, SIZES[dtype])
            op = f"{operation.template}<{TYPES[dtype]}>"
            yield f"merge<{op}>"
            for access in accesses:
                yield from (f"slices<{op}, {held}, {access}>" for held in ((few, many) if short else (many,)))
                if access != "COLUMN":
                    yield f"long_slices<{op}, {many}, {access}, 1>"


TOTALS = [f"total<{terms}<{number}>>" for terms in ("Losses", "Shares", "Pieces") for number in ("float", "double")]


def compiled(folder: Path, arch: str, names: Iterable[str], *flags: str) -> str:
    """Compile kernels as CuPy's NVRTC would; give what the compiler says."""
    jobs = {True: "TotalJob", False: "Job"}
    lines = [f"template __global__ void {name}(const {jobs[name.startswith('total')]});" for name in names]
    path = folder / "kernels.cu"
    path.write_text(cuda.source() + "\n".join(lines))
    nvcc = find("nvcc")
    assert nvcc is not None
    # (A constant that no kernel uses is no fault: 177.)
    command = [nvcc, "-std=c++17", "-ftz=true", f"-arch={arch}", "-Werror", "all-warnings", "-diag-suppress", "177"]
    done = subprocess.run([*command, *flags, str(path)], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout[-3000:] + done.stderr[-3000:])
    return done.stdout + done.stderr


def resources(folder: Path, arch: str, names: Iterable[str]) -> dict[str, Report]:
    """Compile kernels to kernels.cubin; give what they take, by their mangled names."""
    text = compiled(folder, arch, names, "-cubin", "-o", "kernels.cubin", "-Xptxas", "-v")
    pattern = (
        r"Compiling entry function '(\w+)' for.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill"
        r" loads.*?Used (\d+) registers"
    )
    return {
        name: Report(int(registers), int(stack), int(stores) + int(loads))
        for name, stack, stores, loads, registers in re.findall(pattern, text, re.DOTALL)
    }


def blocks_at_once(registers: int, threads: int, shared: int) -> int:
    """Count the blocks of a kernel that share a multiprocessor of an H100."""
    of_warp = -(-registers * WARP // PART) * PART
    by_registers = REGISTERS // of_warp // (threads // WARP)
    return min(by_registers, MOST_THREADS // threads, MOST_BLOCKS, 228 * 1024 // (shared + 1024))


def instructions(folder: Path) -> dict[str, int]:
    """Count the instructions of the only kernel in kernels.cubin, by their first name."""
    tool = find("nvdisasm")
    if tool is None:
        return {}
    text = subprocess.run([tool, "-c", "kernels.cubin"], cwd=folder, capture_output=True, text=True, check=True).stdout
    counts: dict[str, int] = {}
    for name in re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)", text):
        counts[name] = counts.get(name, 0) + 1
    return counts


def _row(folder: Path, operation: Operation, dtype: str) -> str:
    itemsize = SIZES[dtype]
    held = elements(operation, itemsize)[1]
    op = f"{operation.template}<{TYPES[dtype]}>"
    shared = shared_bytes(operation.addends, operation.state, 8 if itemsize == 8 else 4)
    cells = []
    short, long = f"slices<{op}, {held}, WHOLE>", f"long_slices<{op}, {held}, WHOLE, 8>"
    for name, threads in ((short, THREADS), (long, LONG_THREADS)):
        (report,) = resources(folder, "sm_90", [name]).values()
        blocks = blocks_at_once(report.registers, threads, shared)
        cells += [f"{report.registers}", f"{blocks} x {threads // WARP} warps", f"{report.spilled}"]
    resources(folder, "sm_90", [short])
    many = instructions(folder)
    if many:
        resources(folder, "sm_90", [short.replace(f" {held},", f" {held // 2},")])
        half = instructions(folder)

        def of(counts: dict[str, int], *parts: str) -> int:
            return sum(count for name, count in counts.items() if all(part in name for part in parts))

        each = (sum(many.values()) - sum(half.values())) / (held // 2)
        powers = (of(many, "MUFU.EX2") - of(half, "MUFU.EX2")) / (held // 2)
        cells += [f"{each:.0f}", f"{powers:.2g}", f"{of(many, 'LDG', '.128')}", f"{of(many, 'STG', '.128')}"]
    return f"| {operation.template} | {dtype} | {held} | " + " | ".join(cells) + " |"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULT)
    out = parser.parse_args().out
    if find("nvcc") is None:
        parser.exit(2, "there is no nvcc: pip install nvidia-cuda-nvcc\n")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for operation in OPERATIONS.values():
            for dtype in ("float32", "bfloat16", "float64"):
                rows.append(_row(Path(folder), operation, dtype))
                print(rows[-1], flush=True)
    head = [
        "Made by `python benchmarks/gpu/compiled.py`: what nvcc makes of the kernels for sm_90. **Nothing was timed.**",
        "",
        "For rows whose vectors are whole: registers, blocks at once on a multiprocessor, and bytes spilled, of the",
        "kernel for rows of up to 256 threads and of that for longer rows; then, from the disassembly of the former,",
        "what each element of the E that a thread holds adds in instructions and in powers of the special-function",
        "unit, and the 16-byte loads and stores of a thread. (The power of a double is a function.)",
        "",
        "| operation | dtype | E | registers | at once | spilled | long: registers | at once | spilled "
        "| instructions | powers | loads | stores |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    out.write_text("\n".join([*head, *rows]) + "\n")


if __name__ == "__main__":
    main()
