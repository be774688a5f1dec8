"""Results of samples, as sentences and as the page docs/operators.md."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch

from .classes import CLASSES, class_of
from .samples import ALIKE, MIXING, RANDOM
from .vertices import REFUSED, RIGHT, UNKNOWN, WRONG

BACKENDS = ("torch", "native", "triton", "eager")
# What a refusal says, in the order in which they are looked for -> the words of the table.
REASONS = {
    "is not implemented": "no derivative",
    "depends on the value of a tensor": "depends on values",
    "interleaved": "interleaved rows",
    "mixes rows": "mixes rows",
    "lost or mixed": "no row a vertex",
    "number of vertices in a step": "asks the number of rows",
    "writes to": "writes to a buffer",
    "the vertex function failed": "fails",
}
HEAD = """# PyTorch's operators in a vertex function

PyTorch tests its operators with a database of samples (`torch.testing._internal.common_methods_invocations.op_db`). Here each of
them was part of the core of a vertex function: with its first dimension as vertices, over a small forest, its tensors mixed with
those of the children, and its results handed on to the parents. Values and gradients were compared with plain PyTorch, one vertex
after another.

Whether a sample *treats rows alike* PyTorch itself decides: it does if the operator gives, for one row at a time, the rows of
what it gives for all at once. Then it must be right, or refused with a `VertexFlowError`. A sample that *mixes rows* must be
refused. Of operators that draw random numbers only shapes and dtypes are compared. Samples with fewer than two rows are left
out. A name that ends in `_` is the operator in place. The backend `eager` calls the method as it is written, and is
asked only for what treats rows alike.

Made with PyTorch {version} on a CPU, Triton in its interpreter, by

```
python -m tests.operators --backend {backends} --most 2 --resume --table docs/operators.md
```

which takes the first samples of different shapes, and goes on where it was stopped (`--minutes`). An empty cell: not run yet.

{counts}

{classes}

In the table, *native* is code of the backend; *cut* is that, too, around calls of PyTorch in each step for what it does not have;
*PyTorch* means that a core runs through PyTorch's own operators, step by step; *refused* gives the reason. Samples that mix rows
are not counted here.

{rows}

{mixing}
"""


def read(path: Path) -> list[dict]:
    """The lines of a file of results."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def sentence(line: dict) -> str:
    """A result in one line."""
    sample = f"{line['operator']}[{line['dtype']}, {line['number']}] ({line['kind']})"
    return f"{sample} {line['backend']}: {line['verdict']} {' | '.join(line['detail'].splitlines())[:400]}"


def page(lines: Iterable[dict]) -> str:
    """docs/operators.md."""
    by_operator: dict[str, list[dict]] = {}
    for line in lines:
        by_operator.setdefault(line["operator"], []).append(line)
    every = [line for own in by_operator.values() for line in own]
    backends = [backend for backend in BACKENDS if any(line["backend"] == backend for line in every)]
    alike = {name: [x for x in own if x["kind"] != MIXING] for name, own in by_operator.items()}
    rows = [["operator", *backends]]
    for name, own in alike.items():
        if own:
            star = " (random)" if any(line["kind"] == RANDOM for line in own) else ""
            rows.append(
                [f"`{name}`{star}", *(cell([x for x in own if x["backend"] == backend]) for backend in backends)]
            )
    mixing = [f"`{name}`" for name, own in alike.items() if not own]
    return HEAD.format(
        version=torch.__version__.split("+")[0],
        backends=" ".join(backends),
        counts=_table(counts(every, backends)),
        classes=in_loops(every),
        rows=_table(rows),
        mixing=f"Every sample of these operators mixes rows: {', '.join(mixing)}." if mixing else "",
    )


def counts(lines: list[dict], backends: list[str]) -> list[list[str]]:
    """How many samples, of how many operators, had which outcome on each backend."""
    rows = [
        [
            "backend",
            "operators",
            "samples",
            "right",
            "of these native",
            "cut",
            "refused",
            "wrong",
            "no answer in PyTorch",
        ]
    ]
    for backend in backends:
        for kind, title in ((ALIKE, ""), (RANDOM, ", random"), (MIXING, ", mixing rows")):
            selected = [line for line in lines if line["backend"] == backend and line["kind"] == kind]
            if not selected:
                continue
            verdicts = Counter(line["verdict"] for line in selected)
            native, cut = (
                sum((line["verdict"], line["how"]) == (RIGHT, how) for line in selected) for how in ("native", "cut")
            )
            number = len({line["operator"] for line in selected})
            figures = [
                number,
                len(selected),
                verdicts[RIGHT],
                native,
                cut,
                verdicts[REFUSED],
                verdicts[WRONG],
                verdicts[UNKNOWN],
            ]
            rows.append([backend + title, *map(str, figures)])
    return rows


def in_loops(lines: list[dict]) -> str:
    """How many operators of each class are in native loops, as a sentence; each counts if any of its samples is."""
    how: dict[str, set[str]] = {}
    for line in lines:
        if line["backend"] == "native" and line["kind"] != MIXING and line["verdict"] == RIGHT:
            how.setdefault(line["operator"], set()).add(line["how"])
    said = []
    for one in CLASSES:
        names = [name for name in how if class_of(name) == one]
        if names:
            said.append(f"{one}: {sum('native' in how[name] for name in names)} of {len(names)}")
    return (
        f"Operators in native loops, by class (each counts if any of its samples is): {', '.join(said)}."
        if said
        else ""
    )


def cell(lines: list[dict]) -> str:
    """What became of the samples of one operator on one backend."""
    if not lines:
        return ""
    groups = Counter(_words(line) for line in lines)
    if len(groups) == 1:
        return next(iter(groups))
    return ", ".join(f"{words} {count} of {len(lines)}" for words, count in groups.most_common())


def _words(line: dict) -> str:
    if line["verdict"] == REFUSED:
        reason = next((words for text, words in REASONS.items() if text in line["detail"]), "refused")
        return f"refused ({reason})"
    if line["verdict"] == WRONG:
        return "WRONG"
    if line["backend"] in ("torch", "eager"):
        return "right"
    return line["how"] if line["how"] in ("native", "cut") else "PyTorch"


def _table(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])
