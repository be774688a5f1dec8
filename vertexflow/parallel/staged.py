"""What a stage computes, as all ranks of a pipeline see it: the value where that stage is, and nothing elsewhere.

All ranks run the same `forward` of the same model. Values that come of parts are `Staged`: on ranks of other stages they go
through whatever PyTorch's functions do, without numbers, and tell only in which stage the result is.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ..errors import InputError

if TYPE_CHECKING:
    from .pipeline import Passage

# fmt: off
_NO_TENSORS = {
    "shape", "size", "dim", "ndim", "numel", "nelement", "dtype", "device", "layout", "item", "tolist",
    "numpy", "is_cuda", "data", "requires_grad", "requires_grad_", "grad", "grad_fn", "is_leaf", "stride",
    "storage", "data_ptr", "element_size", "nbytes", "itemsize", "backward", "retain_grad", "register_hook",
    "get_device", "is_floating_point", "is_complex", "is_contiguous", "keys", "items", "get",
}
_BINARY = [
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lt", "le", "gt", "ge", "eq", "ne",
]
# fmt: on
_REFLECTED = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"]


class Staged:
    """A tensor, or a mapping or tuple of tensors, of a stage. `value` is None on ranks of other stages."""

    __hash__ = object.__hash__

    def __init__(self, passage: Passage, stage: int, value: Any, owner: tuple[Staged, str] | None = None) -> None:
        self._passage, self._stage, self._value, self._owner = passage, stage, value, owner
        self._copies: dict[int, Any] = {}

    def _at(self, stage: int) -> Any:
        """The value, on ranks of this stage; sent there the first time that it is asked for."""
        if stage == self._stage:
            return self._value
        if stage < self._stage:
            raise InputError(
                f"a value of stage {self._stage} is read in stage {stage}: values go from a stage to later ones; give parts "
                "their stages in the order in which they are called"
            )
        if stage not in self._copies:
            self._copies[stage] = self._passage.send(self._value, self._stage, stage)
        return self._copies[stage]

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(function, *args, **(kwargs or {}))

    def __getattr__(self, name: str) -> Staged:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in _NO_TENSORS:
            raise _not_known(f".{name}")
        return Staged(
            self._passage, self._stage, None if self._value is None else getattr(self._value, name), (self, name)
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Staged:
        if self._owner is None:
            raise InputError("a value of a stage is called, and is no method")
        owner, name = self._owner
        if name.endswith("_"):
            raise _in_place(f".{name}")
        return computed(lambda value, *others, **named: getattr(value, name)(*others, **named), owner, *args, **kwargs)

    def __getitem__(self, index: Any) -> Staged:
        return computed(operator.getitem, self, index)

    def __neg__(self) -> Staged:
        return computed(operator.neg, self)

    def __invert__(self) -> Staged:
        return computed(operator.invert, self)

    def __abs__(self) -> Staged:
        return computed(operator.abs, self)

    def __iter__(self) -> Any:
        raise _not_known("the number of its items (take them by number: pieces[0], pieces[1])")

    def __len__(self) -> int:
        raise _not_known("len()")

    def __bool__(self) -> bool:
        raise _not_known("whether it is true")

    def __float__(self) -> float:
        raise _not_known("its number")

    __int__ = __index__ = __len__

    def __setitem__(self, index: Any, value: Any) -> None:
        raise _in_place("[...] =")

    def __repr__(self) -> str:
        return f"Staged(stage {self._stage})"


def _binary(name: str) -> Callable[[Staged, Any], Staged]:
    function = getattr(operator, f"{name}_" if name in ("and", "or") else name)
    return lambda self, other: computed(function, self, other)


def _reflected(name: str) -> Callable[[Staged, Any], Staged]:
    function = getattr(operator, f"{name}_" if name in ("and", "or") else name)
    return lambda self, other: computed(function, other, self)


def _changing(name: str) -> Callable[[Staged, Any], Staged]:
    def change(self: Staged, other: Any) -> Staged:
        raise _in_place(f"operator.i{name}")

    return change


for _name in _BINARY:
    setattr(Staged, f"__{_name}__", _binary(_name))
for _name in _REFLECTED:
    setattr(Staged, f"__r{_name}__", _reflected(_name))
    setattr(Staged, f"__i{_name}__", _changing(_name))


def computed(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Staged:
    """What a function gives, in the last of the stages that its arguments are of."""
    operands = staged_in((args, kwargs))
    name = getattr(function, "__name__", "")
    is_named_so = name.endswith("_") and not name.endswith("__") and function not in (operator.and_, operator.or_)
    if is_named_so or kwargs.get("inplace") or kwargs.get("out") is not None:
        raise _in_place(f"{name}(inplace=True)" if kwargs.get("inplace") else name)
    passage, stage = operands[0]._passage, max(each._stage for each in operands)
    args, kwargs = moved((args, kwargs), stage)
    return Staged(passage, stage, checked(function(*args, **kwargs)) if passage.stage == stage else None)


def staged_in(tree: Any) -> list[Staged]:
    """The values of stages in nested arguments."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Staged)]


def moved(tree: Any, stage: int) -> Any:
    """Nested arguments with their values in this stage (on ranks of others: with nothing)."""
    return tree_map(lambda leaf: leaf._at(stage) if isinstance(leaf, Staged) else leaf, tree)


def checked(value: Any) -> Any:
    """A value that may be of a stage: tensors, and mappings, tuples and lists of them."""
    if not isinstance(value, (Tensor, Mapping, tuple, list)):
        raise _not_known(f"a value of type {type(value).__name__}")
    return value


def _in_place(what: str) -> InputError:
    return InputError(
        f"a value of a stage is changed in place ({what}), which other stages that have it would not see; make a new one: "
        "h = h + 1, torch.where(...), nn.ReLU() without inplace"
    )


def _not_known(what: str) -> InputError:
    return InputError(
        f"between the parts of a model in stages, {what} of what a part gives is not known on ranks of other stages; ask for it "
        "inside a part, or of the arguments of the model"
    )
