"""`docs/errors.md`: its mistakes are made, and what is printed is compared, or, by `python -m tests.errors_page`, written.

A section is a heading, Python that makes a mistake, what is printed, and what to do. Its Python follows that of the first block
of the page; where it is only a method `vertex`, it is the model's, which is called.
"""

from __future__ import annotations

import linecache
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any

import vertexflow as vf

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"
_SECTION = re.compile(
    r"^### (?P<title>[^\n]*)\n\n```python\n(?P<code>.*?)```\n\n```text\n(?P<printed>.*?)```\n", re.M | re.S
)


@dataclass(frozen=True)
class Mistake:
    title: str
    code: str
    printed: str


def mistakes() -> list[Mistake]:
    """The sections of the page."""
    return [Mistake(**match.groupdict()) for match in _SECTION.finditer(PAGE.read_text(encoding="utf-8"))]


def preamble() -> str:
    """The first block of Python, which all sections follow."""
    match = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert match is not None
    return match[1]


def printed_for(code: str) -> str:
    """What is printed where this mistake is made: the class of the error, or of the warning, and its message."""
    namespace: dict[str, Any] = {}
    _run(preamble(), "preamble.py", namespace)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", vf.SlowCoreWarning)
        try:
            _run(code, "model.py", namespace)
            if "vertex" in namespace:
                model = namespace["Sums"](4)
                model.vertex = MethodType(namespace["vertex"], model)
                model(namespace["batch"], x=namespace["x"])
        except vf.VertexFlowError as error:
            return f"{type(error).__name__}: {error}\n"
    slow = [warning for warning in caught if issubclass(warning.category, vf.SlowCoreWarning)]
    assert slow, f"this is no mistake:\n{code}"
    return f"{slow[0].category.__name__}: {slow[0].message}\n"


def _run(code: str, filename: str, namespace: dict[str, Any]) -> None:
    linecache.cache[filename] = (len(code), None, code.splitlines(keepends=True), filename)
    exec(compile(code, filename, "exec"), namespace)


def rewritten() -> str:
    """The page, with what is printed now."""

    def section(match: re.Match[str]) -> str:
        text = match[0]
        start, end = match.start("printed") - match.start(), match.end("printed") - match.start()
        return text[:start] + printed_for(match["code"]) + text[end:]

    return _SECTION.sub(section, PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(rewritten(), encoding="utf-8")
    print(f"{PAGE}: {len(mistakes())} mistakes", file=sys.stderr)
