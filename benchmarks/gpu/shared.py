"""What this folder takes from benchmarks/peers: exact answers, units of error, and how numbers and JSON are written."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "peers"))

from cases import dtype_of
from errors import HAS_WIDE, RELATIVE, exact_answer, exact_product, finfo, ulp_error
from render import as_json, number

__all__ = [
    "HAS_WIDE",
    "RELATIVE",
    "as_json",
    "dtype_of",
    "exact_answer",
    "exact_product",
    "finfo",
    "number",
    "ulp_error",
]
