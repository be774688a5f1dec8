"""What `help(model)` says first of a vertex function whose class has no docstring."""

from __future__ import annotations

from typing import Any

_TEXT = """A vertex function (`help(vf.VertexFunction)`); its method sees one vertex, `v` (`help(vf.Vertex)`).

    out = model(batch, x=x)            compute all vertices: `out.h`, a row for each, if `v.push(h=h)` was written
    model(batch, reverse=True, ...)    against the edges; also initial=, shared=, outputs= (`help(model.forward)`)
    model.explain()                    how each part of the last call ran, and why
    print(model.symbolic_graph)        what became of the method; `.draw()` is a picture
    model.backend = "eager"            from now on the method itself, for `print` and breakpoints; "auto", "torch", ... as before
    model.max_vertices = 10_000        compute larger batches in parts, to save memory
    model.estimate_memory(batch, x=x)  what a training step will take
    run = model.start(x=x)             a run whose structure is found as it goes

It is an `nn.Module`: `parameters()`, `to(device)`, `state_dict()`, `train()` and `eval()` are those of any.
"""


class Described:
    """Gives a docstring to subclasses that have none."""

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if cls.__doc__ is None:
            cls.__doc__ = _TEXT
