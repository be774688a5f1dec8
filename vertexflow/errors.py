"""Every error that a user can cause. Each says what was wrong, where, and what to do."""

from __future__ import annotations

import torch


class VertexFlowError(Exception):
    """Base class of all errors raised by vertexflow."""


class GraphError(VertexFlowError, ValueError):
    """An input graph, or a file of them, is malformed: a cycle, a child out of range, a slot used twice."""


class InputError(VertexFlowError, ValueError):
    """A model call got wrong inputs: missing or unknown names, wrong number of rows, wrong device."""


class InputTypeError(VertexFlowError, TypeError):
    """An argument is of a type, or a tensor of a dtype, that cannot be used there."""


class VertexFunctionError(VertexFlowError, RuntimeError):
    """A vertex function cannot be traced or run; the message names the line of the vertex function."""


class NotTracedError(VertexFunctionError, AttributeError):
    """What a vertex function becomes was asked for where there is none, or not yet; `hasattr` takes it for a no."""


class LinAlgError(VertexFunctionError, torch.linalg.LinAlgError):  # type: ignore[misc,name-defined]
    """What `torch.linalg` raises, in a vertex function; the message names the line."""


class OutputError(VertexFlowError, AttributeError, KeyError):
    """What a call returned has no entry of this name; the message names those there are."""

    __str__ = Exception.__str__  # that of a KeyError would show the message as a string in quotes


class BackendError(VertexFlowError, ValueError):
    """A backend or policy is unknown, or cannot run here."""


class SlowCoreWarning(UserWarning):
    """Steps leave the generated code, or there is no compiler to make any: the numbers are the same, it takes longer."""
