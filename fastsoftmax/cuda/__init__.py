"""CUDA C++ kernels: their source, and which of them a slice's length and layout ask for (`plan`)."""

from __future__ import annotations

import functools
import re
from pathlib import Path


@functools.cache
def source() -> str:
    """Give all of it as one text: a compiler then needs no folder, and a cache sees every change."""
    folder, seen = Path(__file__).parent, set()

    def included(match: re.Match) -> str:
        name = match[1]
        if name in seen:
            return ""
        seen.add(name)
        return re.sub(r"#include <(\w+\.cuh)>", included, (folder / name).read_text())

    return re.sub(r"#include <(\w+\.cuh)>", included, "#include <totals.cuh>")
