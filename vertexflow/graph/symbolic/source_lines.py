"""The user's lines: which line computed a node of a trace, and which line failed, with the tensors in its variables."""

from __future__ import annotations

import functools
import linecache
import logging
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot
from torch.overrides import TorchFunctionMode

from ...errors import VertexFlowError, VertexFunctionError
from . import derivatives, unseen
from .cells import CELLS
from .children import AS_STATES, Gathered
from .open_sizes import OPEN_SIZES
from .vertex import Vertex

# What autograd knows of a tensor: while tracing, everything requires grad.
_ASKS_FOR_GRADIENT: dict[object, str] = {
    vars(torch._C.TensorBase)["requires_grad"].__get__: "whether a tensor requires grad",
    vars(torch._C.TensorBase)["is_leaf"].__get__: "whether a tensor is a leaf",
    vars(torch._C.TensorBase)["grad_fn"].__get__: "how a tensor was made (grad_fn)",
    Tensor.is_inference: "whether a tensor was made in inference mode",
}
_MAKES_PARAMETER = nn.Parameter.__new__.__code__
_OF_VALUES = (
    "the vertex function depends on the value of a tensor in Python (if, while, .item(), int(...)). It is traced once for all "
    "vertices: use torch.where(condition, a, b) or arithmetic with masks instead"
)
_REPLACEMENTS = {**CELLS, **OPEN_SIZES}  # by the name of PyTorch's function
Place = tuple[str, int]  # a file and a line


class SourceLines(TorchFunctionMode):
    """Notes, for every node as it is recorded, the line of the vertex function and the user's name for its value.

    With `without_derivative`, every operation is tried for its derivative; without one, it becomes one that refuses gradients.
    """

    def __init__(self, code: CodeType, without_derivative: bool = False) -> None:
        super().__init__()
        self.code = code
        self.without_derivative = without_derivative
        self.seen: fx.Node | None = None
        self.hidden: str | None = None  # what a graph of operations does not say of the derivative, with its line
        self.failed: Exception | None = None  # the first failure of an operation: if it is caught, the trace goes on

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return self._call(func, args, kwargs or {})
        except Exception as error:
            self.failed = self.failed or error
            raise

    def _call(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        asked = _ASKS_FOR_GRADIENT.get(func)
        if asked is not None and is_users(sys._getframe(2).f_code.co_filename):
            raise VertexFunctionError(
                f"the vertex function asks {asked}, which may change from call to call; the trace has the "
                "derivative of everything, and what is wanted of it is chosen later. Read an attribute of your own instead"
            )
        name = getattr(func, "__name__", "")
        if name == "requires_grad_" and sys._getframe(2).f_code is _MAKES_PARAMETER and args[1]:
            raise VertexFunctionError(
                "the vertex function makes a parameter (nn.Parameter, or a layer such as nn.Linear(...)), which no optimizer "
                "would know, and no other call; make it in __init__ (self.name = ...), and use it here"
            )
        if name == "__bool__" and not isinstance(args[0].numel(), int):  # PyTorch's own message is a page of C++
            raise VertexFunctionError(_OF_VALUES)
        deepest: FrameType | None = None  # the deepest frame of the user's own code
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_code is not self.code:
            if deepest is None and is_users(frame.f_code.co_filename):
                deepest = frame
            frame = frame.f_back
        function = _REPLACEMENTS.get(name, func)
        if self.without_derivative and frame is not None:
            result = derivatives.call(function, args, kwargs, lambda: _where(frame, deepest))
        else:
            try:
                result = function(*args, **kwargs)
            except RuntimeError as error:
                if frame is None or not derivatives.is_forbidden(error):
                    raise
                result = derivatives.call(function, args, kwargs, lambda: _where(frame, deepest))
        if frame is not None and get_proxy_mode() is not None:
            self._note(frame, deepest)
            reason = unseen.reason(func, kwargs, result)
            if reason is not None and self.hidden is None:
                self.hidden = f"{reason}\n  in the vertex function, {_where(frame, deepest)}"
        return result

    def _note(self, frame: FrameType, inner: FrameType | None) -> None:
        graph = get_proxy_mode().tracer.graph  # type: ignore[union-attr]
        node = next(iter(reversed(graph.nodes)), None)
        last = node
        while node is not None and node is not self.seen and "line" not in node.meta and node.op != "root":
            node.meta["line"] = frame.f_lineno
            if inner is not None:
                node.meta["inner_line"] = _place(inner)
            node = node.prev
        self.seen = last
        for name, value in list(frame.f_locals.items()):
            if isinstance(value, Tensor):
                _name(value, name)
            elif isinstance(value, Gathered):
                for attribute, tensor in vars(value).items():
                    if isinstance(tensor, Tensor):
                        _name(tensor, f"{name}_{attribute}")


def refuse_caught(error: Exception | None) -> None:
    """Refuse a vertex function that ended although `error` came up while it was traced.

    Raises:
        VertexFunctionError: with the traceback of `error`, which `located` reads.
    """
    if error is None:
        return
    text = _OF_VALUES if _depends_on_values(error) else f"{type(error).__name__}: {error}"
    raise VertexFunctionError(
        "the vertex function catches what fails in it (try, contextlib.suppress) and goes on. It is traced once for all "
        "vertices, so that what failed then would count as failed in every step. Decide before, by an attribute of your own "
        f'or a shape, or use backend="eager", which runs the method itself. What was caught: {text}'
    ).with_traceback(error.__traceback__) from error


def _where(frame: FrameType, inner: FrameType | None) -> str:
    return where(*_place(frame), None if inner is None else _place(inner))


def _place(frame: FrameType) -> Place:
    return frame.f_code.co_filename, frame.f_lineno


def _name(tensor: Tensor, name: str) -> None:
    tracer = get_proxy_mode().tracer  # type: ignore[union-attr]
    node = get_proxy_slot(tensor, tracer, None, lambda slot: slot.proxy.node)
    if isinstance(node, fx.Node):
        node.meta.setdefault("name", name)


def where(filename: str, line: int | None, inner: Place | None = None) -> str:
    """`model.py:17: h = self.cell(x)`, and the user's line deeper in the call, `inner`, if there is one."""
    if line is None:
        return filename
    text = f"{filename}:{line}: `{linecache.getline(filename, line).strip()}`"
    return text if inner is None else f"{text}\n  there in {where(*inner)}"


@contextmanager
def located(code: CodeType, rows: Tensor, edges: Tensor) -> Iterator[None]:
    """Turn whatever fails inside the vertex function into an error that names its line and shows its tensors.

    `rows` and `edges` are fake tensors with one entry for each vertex, and for each edge; their sizes are shown as n and e.
    """
    torch_log = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, torch_log.disabled = torch_log.disabled, True  # it would print each failure that is reported below
    letters = {str(rows.shape[0]): "n", str(edges.shape[0]): "e"}
    try:
        yield
    except Exception as error:
        place = _place_of(error, code, letters)
        if isinstance(error, VertexFlowError):
            error.args = (f"{_with_letters(str(error), letters)}\n{place}",)
            raise
        operator = getattr(error, "func", None)  # which PyTorch cannot compute without values
        if operator is not None and operator is not torch.ops.aten._local_scalar_dense.default:
            message = (
                f"the vertex function depends on the value of a tensor: `{operator}` gives a shape, or tells Python something, "
                "that is not known before. It is traced once for all vertices: use torch.where(condition, a, b) or arithmetic "
                'with masks instead, or backend="eager", which runs the method itself'
            )
        elif _depends_on_values(error):
            message = _OF_VALUES
        else:
            text = _with_letters(str(error), letters) + _of_hints(str(error), rows, edges) + _advice(error)
            message = f"the vertex function failed: {type(error).__name__}: {text}"
        raise VertexFunctionError(f"{message}\n{place}") from error
    finally:
        torch_log.disabled = disabled


@contextmanager
def placed(code: CodeType) -> Iterator[None]:
    """Add the line of the vertex function to refusals; other exceptions stay as they are."""
    try:
        yield
    except VertexFlowError as error:
        error.args = (f"{error}\n{_place_of(error, code, {})}",)
        raise


def _depends_on_values(error: BaseException) -> bool:
    names = {"GuardOnDataDependentSymNode", "DataDependentOutputException", "DynamicOutputShapeException"}
    text = str(error)
    said = ("Cannot access data pointer", "data-dependent", ".numpy() is not supported")
    return type(error).__name__ in names or any(words in text for words in said)


def _place_of(error: BaseException, code: CodeType, letters: Mapping[str, str]) -> str:
    """The line of the vertex function that failed, and the deepest of the user's lines, each with its tensors."""
    frames: list[tuple[FrameType, int]] = []
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code is code:
            frames = []  # the frames above are our own
        if frames or step.tb_frame.f_code is code:
            frames.append((step.tb_frame, step.tb_lineno))
        step = step.tb_next
    if not frames:
        return f"  in the vertex function, {where(code.co_filename, code.co_firstlineno)}"
    (method, line), *deeper = frames
    lines = [f"  in the vertex function, {where(code.co_filename, line)}", *_shown_locals(method, letters)]
    inner = [(frame, line) for frame, line in deeper if is_users(frame.f_code.co_filename)]
    if inner:
        frame, line = inner[-1]
        lines += [f"  there in {where(frame.f_code.co_filename, line)}", *_shown_locals(frame, letters)]
    return "\n".join(lines)


def _shown_locals(frame: FrameType, letters: Mapping[str, str]) -> list[str]:
    """A line `  where x: float32[n, 3], left.h: float32[n, 5]` of the tensors in a function's variables; without any, none."""
    tensors: dict[str, Tensor] = {}
    for name, value in frame.f_locals.items():
        if isinstance(value, Tensor):
            tensors[name] = value
        elif isinstance(value, Gathered):
            tensors |= {f"{name}.{key}": state for key, state in vars(value).items() if isinstance(state, Tensor)}
    shown = [f"{name}: {str(value.dtype)[6:]}{_shape(value, letters)}" for name, value in tensors.items()]
    return [f"  where {', '.join(shown)}"] if shown else []


def _shape(value: Tensor, letters: Mapping[str, str]) -> str:
    return _with_letters(f"[{', '.join(map(str, value.shape))}]", letters)


def _with_letters(text: str, letters: Mapping[str, str]) -> str:
    """The text with n and e in place of PyTorch's names for symbolic sizes, such as `s26`."""
    return re.sub(r"\bs\d+\b", lambda name: letters.get(name[0], name[0]), text)


def _of_hints(text: str, *probes: Tensor) -> str:
    """`(13 is n, ...)`: an explanation of the numbers that stand for symbolic sizes, which PyTorch's messages sometimes show."""
    sizes: list[Any] = [probe.shape[0] for probe in probes]
    known = [
        (letter, size.node.hint) for letter, size in zip("ne", sizes, strict=True) if isinstance(size, torch.SymInt)
    ]
    shown = [f"{hint} is {letter}" for letter, hint in known if re.search(rf"(?<!\d){hint}(?!\d)", text)]
    return f" ({' and '.join(shown)}, unless it is a size of your own)" if shown else ""


def _advice(error: Exception) -> str:
    """What to write in place of a child that is used as a tensor, and of an input that is read as an attribute."""
    if isinstance(error, AttributeError) and type(error.obj) is Vertex:
        return f"; v.pull({error.name!r}) is an input of the vertex, and v.gather(slot) a child"
    return AS_STATES if isinstance(error, TypeError) and re.search("Gathered|Children", str(error)) else ""


@functools.cache
def is_users(filename: str) -> bool:
    """Whether a file is the user's own: no part of Python, of an installed package or of this one, and not made at run time."""
    if filename.startswith("<"):
        return filename.startswith("<ipython-input") or filename == "<stdin>"
    path = os.path.realpath(filename)
    return not any(path.startswith(folder + os.sep) for folder in _others_folders())


@functools.cache
def _others_folders() -> tuple[str, ...]:
    """The folders of code that is not the user's: the standard library, installed packages, PyTorch, vertexflow."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [sysconfig.get_path(name) for name in names] + site.getsitepackages() + [site.getusersitepackages()]
    folders += [str(Path(__file__).parents[2]), os.path.dirname(torch.__file__)]
    return tuple({os.path.realpath(folder) for folder in folders})
