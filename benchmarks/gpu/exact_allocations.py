"""A plugin of pytest for the runs under compute-sanitizer: every array is an allocation of its own.

CuPy's pool hands out parts of large blocks, inside which memcheck sees no array's end.
"""

from __future__ import annotations


def pytest_configure() -> None:
    import cupy

    cupy.cuda.set_allocator(None)
