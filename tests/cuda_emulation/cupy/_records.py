"""What was asked of the device: for tests that count."""

from typing import NamedTuple


class Launch(NamedTuple):
    """A launch of a kernel of a RawModule."""

    name: str  # the name expression
    grid: tuple
    block: tuple
    cluster: int
    shared_mem: int
    stream: int
    device: int


launches = []
compilations = []  # the name expressions of each module that was compiled
operations = []  # CuPy's own kernels and copies, by the function's name
waits = []  # of a stream for an event of another one, (the one, the other)
synchronisations = []  # what waited for the device, by name
