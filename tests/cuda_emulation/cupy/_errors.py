"""CuPy's exceptions, that it has in other modules."""


class CUDARuntimeError(RuntimeError):
    """An error of the CUDA runtime."""


class CUDADriverError(RuntimeError):
    """An error of the CUDA driver."""


class CompileException(Exception):  # noqa: N818
    """Source that does not compile."""


class OutOfMemoryError(MemoryError):
    """No device memory left."""
