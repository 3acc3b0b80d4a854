"""Numba-CUDA on a device that is none: kernels compile, memory has addresses, launches are remembered, nothing runs.

`install` is for a process of its own. There is nothing to wait for the device with: what tried to would fail.
"""

import contextlib
import itertools
from types import SimpleNamespace
from unittest import mock

# Of each launch: blocks, threads, the stream, the kernel's PTX, its arguments.
launches = []
# (The stream that waits, the one that it waits for.)
waits = []
# How often an array's device is the current one, at each time an array was made of memory.
depths = []
_depth = 0


class Device:
    """A device that can be made the current one again and again."""

    def __enter__(self):
        global _depth
        _depth += 1

    def __exit__(self, *error):
        global _depth
        _depth -= 1


class Event:
    """Remembers who waits for whom."""

    def record(self, stream=0):
        self.stream = stream

    def wait(self, stream=0):
        waits.append((stream, self.stream))


class Context:
    """What Numba asks of a context to give arrays memory."""

    device = SimpleNamespace(compute_capability=(9, 0), id=0)

    def __init__(self, driver):
        self._driver = driver
        self._addresses = itertools.count(1 << 40, 1 << 20)

    def get_default_stream(self):
        return SimpleNamespace(handle=0)

    def memalloc(self, nbytes):
        pointer = self._driver.binding.CUdeviceptr(next(self._addresses))
        return self._driver.MemoryPointer(self, pointer, nbytes)


def install():
    """Put this in the place of the driver, for the rest of the process."""
    from numba import cuda
    from numba.cuda import api, codegen, dispatcher
    from numba.cuda.cudadrv import devices, driver

    context = Context(driver)

    def launch(stream, config, kernel, *arguments):
        launches.append(SimpleNamespace(stream=stream, config=config, ptx=kernel, arguments=arguments))

    from_interface = cuda.from_cuda_array_interface

    def seen(*arguments, **options):
        depths.append(_depth)
        return from_interface(*arguments, **options)

    for owner, name, stand_in in [
        (api, "current_context", lambda *_: context),
        (codegen.CUDACodeLibrary, "get_cufunc", lambda library: SimpleNamespace(kernel=library.get_asm_str())),
        (cuda, "get_current_device", lambda: context.device),
        (cuda, "event", lambda timing: Event()),
        (cuda, "from_cuda_array_interface", seen),
        (cuda, "gpus", [Device()]),
        (cuda, "is_available", lambda: True),
        (devices, "get_context", lambda *_: context),
        (devices._runtime, "ensure_context", contextlib.nullcontext),
        (dispatcher, "get_current_device", lambda: context.device),
        (dispatcher, "launch", launch),
        (dispatcher._Kernel, "bind", lambda _: None),
        (driver, "_to_core_stream", lambda stream: stream),
        (driver, "host_to_device", lambda *_, **__: None),
    ]:
        mock.patch.object(owner, name, stand_in).start()
