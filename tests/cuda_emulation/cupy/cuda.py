"""`cupy.cuda`: devices and streams that only remember which is current."""

import contextlib
import threading
from types import SimpleNamespace

from . import _device, _errors
from ._device import emulated as _emulated
from ._records import synchronisations as _synchronisations
from ._records import waits as _waits

_current = threading.local()


class Device:
    """A device, by its number."""

    def __init__(self, device=None):
        self.id = runtime.getDevice() if device is None else int(device)

    def __int__(self):
        return self.id

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self):
        return hash(self.id)

    def __repr__(self):
        return f"<CUDA Device {self.id}>"

    def __enter__(self):
        outer = runtime.getDevice()
        runtime.setDevice(self.id)
        _stack("devices").append(outer)
        return self

    def __exit__(self, *error):
        runtime.setDevice(_stack("devices").pop())

    def use(self):
        runtime.setDevice(self.id)
        return self

    def synchronize(self):
        _synchronisations.append("Device.synchronize")

    @property
    def compute_capability(self):
        return _emulated.compute_capability

    @property
    def attributes(self):
        major, minor = divmod(int(_emulated.compute_capability), 10)
        return {
            "ComputeCapabilityMajor": major,
            "ComputeCapabilityMinor": minor,
            "MaxSharedMemoryPerBlockOptin": _device.shared_limit(),
            "MaxThreadsPerBlock": 1024,
            "MultiProcessorCount": _emulated.multiprocessors,
            "WarpSize": 32,
        }


class _BaseStream:
    def __init__(self, ptr, device_id):
        self.ptr = ptr
        self.device_id = device_id

    def __eq__(self, other):
        return isinstance(other, _BaseStream) and self.ptr == other.ptr

    def __hash__(self):
        return hash(self.ptr)

    def __repr__(self):
        return f"<{type(self).__name__} {self.ptr} (device {self.device_id})>"

    def __enter__(self):
        _stack("streams").append(get_current_stream())
        _current.stream = self
        return self

    def __exit__(self, *error):
        _current.stream = _stack("streams").pop()

    def use(self):
        _current.stream = self
        return self

    def synchronize(self):
        _synchronisations.append("Stream.synchronize")

    def record(self, event=None):
        return SimpleNamespace(stream=self.ptr) if event is None else event

    def wait_event(self, event):
        _waits.append((self.ptr, event.stream))

    @property
    def done(self):
        return True


class Stream(_BaseStream):
    """A stream; `null` is the default one."""

    null = None
    _last = 0x5000

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        if null or ptds:
            super().__init__(0 if null else 2, -1)
        else:
            Stream._last += 16
            super().__init__(Stream._last, runtime.getDevice())


Stream.null = Stream(null=True)


class ExternalStream(_BaseStream):
    """A stream of another library."""

    def __init__(self, ptr, device_id=-1):
        super().__init__(ptr, device_id)


def get_current_stream(device_id=-1):
    return getattr(_current, "stream", Stream.null)


def current_allocator():
    return getattr(_current, "allocator", None)


@contextlib.contextmanager
def using_allocator(allocator=None):
    outer = current_allocator()
    _current.allocator = allocator
    try:
        yield
    finally:
        _current.allocator = outer


def get_device_id():
    return runtime.getDevice()


def is_available():
    return _emulated.devices > 0


def _stack(name):
    return vars(_current).setdefault(name, [])


def _get_device():
    return getattr(_current, "device", 0)


def _set_device(device):
    if not 0 <= device < _emulated.devices:
        raise _errors.CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
    _current.device = device


# Attributes that were set of kernels, by their handles.
_attributes = {}


def _set_attribute(f, attribute, value):
    if attribute == _device.MOST_SHARED and not 0 <= value <= _device.shared_limit():
        raise _errors.CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
    _attributes[f, attribute] = value


def _get_attribute(attribute, f):
    return _attributes.get((f, attribute), _device.SHARED_WITHOUT_ASKING if attribute == _device.MOST_SHARED else 0)


compiler = SimpleNamespace(CompileException=_errors.CompileException)
driver = SimpleNamespace(
    CUDADriverError=_errors.CUDADriverError,
    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=_device.MOST_SHARED,
    funcSetAttribute=_set_attribute,
    funcGetAttribute=_get_attribute,
)
memory = SimpleNamespace(OutOfMemoryError=_errors.OutOfMemoryError)
runtime = SimpleNamespace(
    CUDARuntimeError=_errors.CUDARuntimeError,
    getDevice=_get_device,
    getDeviceCount=lambda: _emulated.devices,
    setDevice=_set_device,
)


def __getattr__(name):
    """Give what `_memory` has, which imports this module itself."""
    if name in ("MemoryPointer", "UnownedMemory"):
        from . import _memory

        return getattr(_memory, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
