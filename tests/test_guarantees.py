"""docs/guarantees.md: what it names is there."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "guarantees.md"


def test_every_promise_names_tests_that_exist():
    names = []
    for cell in re.findall(r"`(test_\w+\.py)((?:::\w+)?)`((?:, `::\w+`)*)", PAGE.read_text(encoding="utf-8")):
        file, first, more = cell
        names += [(file, name) for name in re.findall(r"::(\w+)", first + more)] or [(file, None)]
    assert len(names) > 40
    for file, name in names:
        source = (TESTS / file).read_text(encoding="utf-8")
        assert name is None or f"def {name}(" in source, f"{file} has no {name}"
