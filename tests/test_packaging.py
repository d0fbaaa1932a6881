"""The package as it is installed: documented, typed, light to import, and free of sources."""

import doctest
import importlib
import importlib.metadata
import importlib.resources
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import fastnorm
import fastnorm.image

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MODULES = {"": fastnorm, "image.": fastnorm.image}
NAMES = {f"{prefix}{name}": (module, name) for prefix, module in MODULES.items() for name in module.__all__}
FOUND = {public: getattr(module, name, None) for public, (module, name) in NAMES.items()}
OBJECTS = {public: obj for public, obj in FOUND.items() if callable(obj)}


def sections(doc):
    """Split a docstring in NumPy's format into {title: lines}; the text before the first title has the title ""."""
    found, title = {"": []}, ""
    lines = doc.splitlines()
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if line and set(below) == {"-"} and len(below) == len(line):
            title = line
            found[title] = []
        elif set(line) != {"-"}:
            found[title].append(line)
    return found


def documented(lines):
    """Names that head the entries of a Parameters section: unindented, before the colon, separated by commas."""
    heads = [line.partition(" : ")[0] for line in lines if line and not line[0].isspace()]
    return {name.strip().lstrip("*") for head in heads for name in head.split(",")}


def installed():
    """What the installer wrote down about the package; an egg-info left by a build in this directory does not count."""
    return next(found for found in importlib.metadata.distributions(name="fastnorm") if found.read_text("RECORD"))


def parameters(obj):
    return {name for name in inspect.signature(obj).parameters if name not in ("self", "cls")}


def test_every_public_name_exists():
    assert [public for public, (module, name) in NAMES.items() if not hasattr(module, name)] == []
    assert len(NAMES) == sum(len(module.__all__) for module in MODULES.values())
    assert {name.rpartition(".")[0] for name in OBJECTS} == {"", "image"}


@pytest.mark.parametrize("name", OBJECTS)
def test_public_name_is_documented(name):
    obj = OBJECTS[name]
    doc = sections(inspect.getdoc(obj))
    assert doc[""][0].endswith(".")
    assert documented(doc.get("Parameters", [])) == parameters(obj)
    assert any(line.lstrip().startswith(">>> ") for line in doc["Examples"])
    if inspect.isfunction(obj) and inspect.signature(obj).return_annotation not in (None, "None"):
        assert "Returns" in doc or "Yields" in doc


@pytest.mark.parametrize("name", [name for name, obj in OBJECTS.items() if inspect.isclass(obj)])
def test_public_methods_are_documented(name):
    members = vars(OBJECTS[name])
    public = [
        key for key, value in members.items() if not key.startswith("_") and (callable(value) or hasattr(value, "fget"))
    ]
    assert [key for key in public if not inspect.getdoc(members[key])] == []


@pytest.mark.parametrize("name", sorted({obj.__module__ for obj in OBJECTS.values()}))
def test_examples_in_docstrings_give_what_they_show(name):
    results = doctest.testmod(importlib.import_module(name), extraglobs={"fastnorm": fastnorm, "np": np})
    assert results.attempted
    assert not results.failed


def test_version_is_the_installed_one():
    assert installed().version == fastnorm.__version__


def test_types_are_shipped():
    package = importlib.resources.files("fastnorm")
    assert package.joinpath("py.typed").is_file()
    assert package.joinpath("_ops.pyi").is_file()


def test_installed_package_holds_no_sources():
    files = installed().files
    if not any(file.name == "__init__.py" for file in files):
        pytest.skip("an editable install lists no modules")
    assert [str(file) for file in files if file.suffix in {".c", ".h", ".pyx", ".pxi"}] == []


def test_import_needs_numpy_only():
    program = """
import importlib.util
import sys

refused = set()

class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in {"fastnorm", "numpy"} | sys.stdlib_module_names:
            refused.add(top)
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
import fastnorm
del sys.meta_path[0]
print([name for name in refused if importlib.util.find_spec(name)])  # asked for, though it could do without
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "[]\n", "")


def test_build_group_repeats_the_build_requirements():
    assert PYPROJECT["dependency-groups"]["build"] == PYPROJECT["build-system"]["requires"]


def test_linters_have_the_versions_of_pre_commit():
    config = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    revisions = dict(re.findall(r"repo: \S+/(\S+)\n\s+rev: v(\S+)", config))
    hooks = {
        "codespell": "codespell",
        "cython-lint": "cython-lint",
        "mypy": "mirrors-mypy",
        "ruff": "ruff-pre-commit",
        "zizmor": "zizmor-pre-commit",
    }
    pins = dict(
        pin.split("==") for pin in PYPROJECT["dependency-groups"]["dev"] if isinstance(pin, str) and "==" in pin
    )
    assert pins == {tool: revisions[repository] for tool, repository in hooks.items()}
