"""Every kernel compiles for the cards of five generations, without a register that goes to memory and back.

The compiler is nvcc, of the machine or of the package nvidia-cuda-nvcc. What the kernels compute is the matter of
test_cupy.py.
"""

import importlib
import os
import re
import sys
from pathlib import Path

import pytest

from fastsoftmax.cuda.plan import TYPES

GPU = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu"
if not GPU.exists():
    pytest.skip("the tests lie outside a checkout, where the same kernels compile", allow_module_level=True)

sys.path.insert(0, str(GPU))
compiled = importlib.import_module("compiled")
sys.path.remove(str(GPU))

EXHAUSTIVE = bool(os.environ.get("FASTSOFTMAX_EXHAUSTIVE"))

pytestmark = pytest.mark.skipif(compiled.find("nvcc") is None, reason="there is no nvcc: pip install nvidia-cuda-nvcc")

# Registers of a thread, for operations with a small state and with a large one: what leaves room for so many blocks on
# a multiprocessor as slices.cuh says. COLUMN kernels and the long ones of WHOLE rows have a line of their own.
BUDGETS = {
    "slices": {"sm_80": (80, 128), "sm_90": (80, 128), "sm_100": (80, 128), "sm_120": (128, 255)},
    "slices COLUMN": {"sm_80": (128, 255), "sm_90": (128, 255), "sm_100": (128, 255), "sm_120": (255, 255)},
    "long_slices WHOLE": {"sm_80": (64, 128), "sm_90": (64, 128), "sm_100": (128, 128), "sm_120": (128, 128)},
    "long_slices": dict.fromkeys(("sm_80", "sm_90", "sm_100", "sm_120"), (128, 128)),
    "merge": dict.fromkeys(("sm_80", "sm_90", "sm_100", "sm_120"), (80, 80)),
    "total": dict.fromkeys(("sm_80", "sm_90", "sm_100", "sm_120"), (64, 64)),
}
ARCHITECTURES = list(BUDGETS["slices"])


def budget(arch, name):
    """Give the registers that a kernel of a mangled name may have."""
    kernel = re.match(r"_Z\d+(long_slices|slices|merge|total)", name)[1]
    access = ["WHOLE", "SPLIT", "SINGLE", "COLUMN"][int((re.findall(r"Access(\d)", name) or ["1"])[0])]
    # Of doubles, and of targets that are spread.
    is_large = re.search(r"I\d+(Normalizer|Product|Entropy)Id|EntropyI\w+?Lb1ELb", name) is not None
    return BUDGETS.get(f"{kernel} {access}", BUDGETS[kernel])[arch][is_large]


def check(folder, arch, names):
    names = list(dict.fromkeys(names))
    found = compiled.resources(folder, arch, names)
    assert len(found) == len(names)
    wrong = {
        name: report
        for name, report in found.items()
        if report.spilled or report.stack or report.registers > budget(arch, name)
    }
    assert wrong == {}, arch


def kernels(dtypes, every):
    """Name the kernels of these dtypes: every one, or of each operation those that need most registers."""
    if every or EXHAUSTIVE:
        return compiled.instances(["WHOLE", "SPLIT", "SINGLE", "COLUMN"], dtypes)
    return compiled.instances(["WHOLE", "COLUMN"], dtypes, short=False)


@pytest.mark.parametrize("dtype", TYPES)
def test_every_kernel(tmp_path, dtype):
    check(tmp_path, "sm_90", kernels([dtype], every=dtype == "float32"))


@pytest.mark.parametrize("arch", [arch for arch in ARCHITECTURES if arch != "sm_90"])
def test_other_cards(tmp_path, arch):
    check(tmp_path, arch, [*kernels(TYPES if EXHAUSTIVE else ["float32"], every=False), *compiled.TOTALS])


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_clusters(tmp_path, arch):
    """Cards without clusters compile these too, as plain kernels that nobody launches."""
    names = [f"long_slices<{op}<float>, 32, WHOLE, {n}>" for op in ("Softmax", "CrossEntropyGrad") for n in (2, 4, 8)]
    check(tmp_path, arch, names)
    ptx = ptx_of(tmp_path, arch, names)
    assert ptx.count(".reqnctapercluster") == (len(names) if arch == "sm_90" else 0)


def ptx_of(folder, arch, names):
    compiled.compiled(folder, arch, names, "-ptx", "-o", "kernels.ptx")
    return (folder / "kernels.ptx").read_text()


@pytest.mark.parametrize(
    ("op", "held", "reads", "writes", "powers"),
    [
        # Vectors of 16 bytes of E elements; one power for each element, and one for each of up to 9 + 5 merges.
        ("Softmax<float>", 32, 8, 8, 32),
        ("Softmax<Bfloat16>", 32, 4, 4, 32),
        ("LogSoftmax<Float16>", 32, 4, 4, 32),
        ("CrossEntropy<float>", 32, 8, 0, 32),
        ("CrossEntropyGrad<Bfloat16>", 32, 4, 4, 32),
        ("SoftmaxGrad<float>", 16, 8, 4, 0),
        ("LogSoftmaxGrad<float>", 16, 8, 4, 16),
    ],
)
def test_instructions(tmp_path, op, held, reads, writes, powers):
    """Elements move by 16 bytes, and each takes one power of the special-function unit."""
    ptx = ptx_of(tmp_path, "sm_90", [f"slices<{op}, {held}, WHOLE>"])
    assert len(re.findall(r"ld\.global\.v4", ptx)) == reads
    assert len(re.findall(r"st\.global\.v4", ptx)) == writes
    few_for_the_thread = 8
    assert powers <= len(re.findall(r"ex2\.approx\.ftz", ptx)) <= powers + few_for_the_thread
    assert not re.search(r"\.local\b", ptx)
    if "double" not in op:
        assert len(re.findall(r"\b(fma|mul|add|sub)\.(rn\.)?f64", ptx)) == 0
