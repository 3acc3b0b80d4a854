"""PyTorch tensors on the CPU and on CUDA devices."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from fastsoftmax.adapters import Adapter, cupy_for, type_name


def _bfloat16() -> np.dtype:
    if importlib.util.find_spec("ml_dtypes") is None:
        raise ImportError('bfloat16 tensors need ml_dtypes: pip install "fastsoftmax[torch]"')
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


class _Torch(Adapter):
    def array(self, x: Any, name: str) -> Any:
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type_name(x)}")
        if has_tangent(x):
            raise TypeError(f"{name}: there is no forward-mode derivative: the tensor's tangent would be lost")
        if x.requires_grad and torch.is_grad_enabled():
            raise TypeError(
                f"{name}: a tensor that requires grad would be cut off from it; use the functions of "
                "fastsoftmax.integrations.torch, which have gradients, or pass a detached one"
            )
        if x.layout != torch.strided or x.device.type not in ("cpu", "cuda"):
            raise TypeError(
                f"{name}: expected a dense tensor on the CPU or a CUDA device, got {x.layout} on {x.device}"
            )
        x = x.detach().resolve_neg().resolve_conj()
        if x.dtype == torch.bfloat16:
            # As integers: NumPy has no such dtype, nor every version of DLPack.
            return self._shared(x.view(torch.int16), name).view(_bfloat16())
        return self._shared(x, name)

    def _shared(self, x: Any, name: str) -> Any:
        if x.device.type == "cuda":
            return _on_cuda(x)
        try:
            return x.numpy()
        except (RuntimeError, TypeError) as error:  # of a tracer's tensors, quantized ones and others
            raise TypeError(f"{name}: expected a tensor that NumPy can read, got {type_name(x)}: {error}") from error

    def like(self, values: Any, x: Any, reduced: tuple[int, ...]) -> Any:
        if isinstance(values, np.generic):
            values = np.asarray(values)
        if values.dtype.name == "bfloat16":
            return self._tensor(values.view(np.int16)).view(torch.bfloat16)
        return self._tensor(values)

    def _tensor(self, values: Any) -> Any:
        return torch.from_numpy(values) if isinstance(values, np.ndarray) else torch.from_dlpack(values)

    def writable(self, out: Any, x: Any) -> Any:
        if not isinstance(out, torch.Tensor):
            raise TypeError(f"out: expected a {type_name(x)}, as the first argument is, got {type_name(out)}")
        if out.is_neg() or out.is_conj():
            raise ValueError("out: expected a tensor with memory of its own, got a view that negates another's")
        if out.is_inference() and not torch.is_inference_mode_enabled():
            raise ValueError("out: expected a tensor that may be written to here, got one of torch.inference_mode")
        return self.array(out, "out")

    def written(self, out: Any, x: Any) -> None:
        # So that a backward pass that saved it fails, as after PyTorch's own in-place operations.
        if not out.is_inference():
            torch.autograd.graph.increment_version(out)

    def around(self, x: Any) -> AbstractContextManager:
        on_cuda = isinstance(x, torch.Tensor) and x.device.type == "cuda"
        return _on_stream_of(x) if on_cuda else super().around(x)


def has_tangent(x: Any) -> bool:
    """Whether x carries a derivative of forward mode."""
    return torch.autograd.forward_ad.unpack_dual(x).tangent is not None


def _on_cuda(x: Any) -> Any:
    cupy = cupy_for(x)
    stream = cupy.cuda.get_current_stream().ptr
    if stream != torch.cuda.current_stream(x.device).cuda_stream:
        # CuPy's array keeps the memory for as long as the call lasts; its stream may need it longer.
        x.record_stream(torch.cuda.ExternalStream(stream, device=x.device))
    return cupy.from_dlpack(x)


@contextlib.contextmanager
def _on_stream_of(x: Any) -> Iterator[None]:
    """Let CuPy work on PyTorch's current stream and in its memory, which minds that stream when it is freed."""
    cupy, device = cupy_for(x), x.device.index

    def allocate(size: int) -> Any:
        memory = torch.empty(size, dtype=torch.uint8, device=x.device)
        return cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(memory.data_ptr(), size, memory, device), 0)

    stream = cupy.cuda.ExternalStream(torch.cuda.current_stream(x.device).cuda_stream, device)
    before = cupy.cuda.get_current_stream()
    if before.ptr != stream.ptr:
        stream.wait_event(before.record())  # for arrays of CuPy's among the arguments
    with cupy.cuda.Device(device), stream, cupy.cuda.using_allocator(allocate):
        yield


ADAPTER = _Torch()
