"""The page of mistakes says what is printed."""

from __future__ import annotations

import pytest

from .errors_page import mistakes, printed_for


@pytest.mark.parametrize("mistake", mistakes(), ids=lambda mistake: mistake.title.replace(" ", "_"))
@pytest.mark.cases(1)
def test_what_is_printed(mistake, monkeypatch):
    monkeypatch.delenv("VERTEXFLOW_BACKEND", raising=False)
    assert mistake.printed == printed_for(mistake.code)


def test_there_are_enough_of_them():
    titles = [mistake.title for mistake in mistakes()]
    assert len(titles) == len(set(titles)) >= 40
