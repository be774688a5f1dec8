"""Refuse tensors that are not plain memory: generated code takes their addresses, and knows nothing of wrappers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from ..errors import InputError, InputTypeError, VertexFunctionError
from .memory import rehearsal

_PLAIN = {Tensor, nn.Parameter}
_MODES = (
    torch._C._TorchDispatchModeKey.FAKE,
    torch._C._TorchDispatchModeKey.PROXY,
    torch._C._TorchDispatchModeKey.FUNCTIONAL,
)
_data_ptr = Tensor.data_ptr
_HIGH = 1 << 32  # a smaller "address" may be an offset into freed memory


def is_recorded() -> bool:
    """Whether PyTorch might record operations or change their meaning: whether `check_real` has anything to look at, or dual
    tensors can be."""
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._is_tracing()
        or forward_ad._current_level >= 0
    )


def lie_in_memory(tensors: Collection[Tensor]) -> bool:
    """Whether all of these strided tensors have memory; False also where one has no elements."""
    return min(map(_data_ptr, tensors), default=_HIGH) >= _HIGH or all(map(_lies_in_memory, tensors))


def _lies_in_memory(tensor: Tensor) -> bool:
    # Memory begins at low addresses where Python is no position-independent executable, as on Debian.
    return tensor.data_ptr() >= _HIGH or tensor.untyped_storage().data_ptr() != 0


def are_rows_in_memory(tensors: Sequence[Tensor], count: int) -> bool:
    """The same, and whether each has so many rows."""
    return not tensors or (lie_in_memory(tensors) and all(tensor.shape[:1] == (count,) for tensor in tensors))


def are_usual(tensors: Collection[Tensor]) -> bool:
    """Whether all of these are of the usual classes, and have an address."""
    try:
        return _PLAIN.issuperset(map(type, tensors)) and lie_in_memory(tensors)
    except RuntimeError:  # some tensor has no address
        return False


def check_real() -> None:
    """Refuse to run where PyTorch records operations or changes their meaning, instead of computing.

    Raises:
        VertexFunctionError: inside `make_fx`, `torch.export`, a `FakeTensorMode`, `torch.jit.trace`, or a transform of
            `torch.func` that is not suspended (`graph.transforms`).
    """
    if torch._C._functorch.peek_interpreter_stack() is not None:
        kind = str(torch._C._functorch.peek_interpreter_stack().key()).rsplit(".", 1)[-1].lower()
        raise VertexFunctionError(
            f'backend="eager", and runs that grow (model.start), cannot be called inside torch.func\'s transforms (here: {kind})'
            "; take gradients with backward() or torch.autograd.grad, or call a model of another backend on whole structures"
        )
    if torch._C._len_torch_dispatch_stack():
        for key in _MODES:
            mode = torch._C._get_dispatch_mode(key)
            if mode is not None:
                raise VertexFunctionError(
                    f"a vertex function cannot be called under {type(mode).__name__} (make_fx, torch.export, fake tensors): it "
                    "computes with generated code, which leaves nothing to record; call it outside, on real tensors, and keep "
                    "its state_dict in the place of an exported program"
                )
    if torch._C._is_tracing():
        raise VertexFunctionError(
            "a vertex function cannot be recorded by torch.jit.trace, nor by torch.onnx.export: what it does differs with every "
            "batch; save its state_dict instead"
        )


def check_plain(noun: str, tensors: Mapping[str, Tensor], closely: bool = False) -> None:
    """Refuse tensors that are not strided memory; `noun` says what they are: "input", "parameter or buffer", ...

    Parameters are many, and the same at each call: without `closely`, tensors of the usual types that have an address pass, and
    whatever else is wrong with them is left to tracing.

    Raises:
        InputTypeError: a subclass of tensors with operations of its own (DTensor, FakeTensor, ...), a sparse, nested,
            quantized or MKL-DNN tensor, one that a transform of `torch.func` wraps.
        InputError: a tensor on the device "meta", or whose memory was freed.
    """
    if rehearsal.current() is not None:  # the call before it was checked, and here nothing is read
        return
    if forward_ad._current_level >= 0:
        for name, tensor in tensors.items():
            if forward_ad.unpack_dual(tensor).tangent is not None:  # type: ignore[no-untyped-call]
                raise InputTypeError(
                    f"{noun} {name!r} is a dual tensor of torch.autograd.forward_ad, which vertex functions do not know; use "
                    "torch.func.jvp, backward() or torch.autograd.grad"
                )
    if not closely and are_usual(tensors.values()):
        return
    for name, tensor in tensors.items():
        _check_one(f"{noun} {name!r}", tensor)


def _check_one(noun: str, tensor: Tensor) -> None:
    kind = type(tensor)
    if nn.parameter.is_lazy(tensor):
        raise VertexFunctionError(
            f"{noun} has no shape yet, because its module is a lazy one; call that module once on some rows, or give it its "
            "sizes"
        )
    if kind not in _PLAIN and not _is_memory_alone(kind):
        raise InputTypeError(
            f"{noun} is a {kind.__name__}, which is more than its memory; {_remedy(noun, kind.__name__)}"
        )
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        raise InputTypeError(
            f"{noun} is wrapped by a transform of torch.func that has ended; use what the transform returns"
        )
    if torch._C._functorch.is_legacy_batchedtensor(tensor):
        raise InputTypeError(
            f"{noun} is a batch of several (is_grads_batched, vectorize=True); ask for one after the other"
        )
    layout = (
        "nested" if tensor.is_nested else "quantized" if tensor.is_quantized else str(tensor.layout)[6:].lstrip("_")
    )
    if layout != "strided":
        remedy = ".dequantize()" if layout == "quantized" else ".to_dense()"
        if layout in ("nested", "jagged"):
            remedy = "torch.cat(list(x.unbind())): one row a vertex, graph after graph"
        if noun.startswith("the gradient"):
            remedy = "by the option sparse=False of what was computed with this output"
        raise InputTypeError(f"{noun} is a {layout} tensor; give an ordinary one, {remedy}")
    if tensor.is_meta:
        raise InputError(
            f"{noun} is on the device meta, without memory; make it real first, with model.to_empty(device=...) and its weights"
        )
    if tensor._is_zerotensor():
        raise InputTypeError(f"{noun} is a lazy tensor of zeros; give an ordinary one, torch.zeros(...)")
    if tensor.numel() and not tensor.untyped_storage().nbytes():
        raise InputError(
            f"the memory of {noun} was freed (by untyped_storage().resize_(0), as FSDP does between calls); call the module "
            "that FSDP wraps, or use a tensor that has its memory"
        )


def _is_memory_alone(kind: type) -> bool:
    """Whether a subclass of tensors leaves all operations as they are."""
    functions = {Tensor.__torch_function__.__func__, nn.Parameter.__torch_function__}  # type: ignore[attr-defined]
    function = kind.__torch_function__  # type: ignore[attr-defined]
    return (
        getattr(function, "__func__", function) in functions and kind.__torch_dispatch__ is Tensor.__torch_dispatch__  # type: ignore[attr-defined]
    )


def _remedy(noun: str, kind: str) -> str:
    if kind == "DTensor":
        if noun.startswith("input"):
            return "give x.full_tensor(), or the rows of this rank, x.to_local()"
        return (
            "fully_shard the vertex function itself, which gathers its parameters before each call, and not the modules inside "
            "it, whose hooks run while tracing only; other ways to shard parameters are not supported"
        )
    if kind == "FakeTensor":
        return "give one with real values"
    remedies = {"AsyncCollectiveTensor": "x.wait()", "NestedTensor": "x.values()", "MaskedTensor": "x.to_tensor(0)"}
    remedy = remedies.get(kind, "x.as_subclass(torch.Tensor) or what its library has for that")
    return f"give an ordinary one, {remedy}"
