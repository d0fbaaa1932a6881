"""The examples run as a user runs them and show what they promise."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

DEMO = Path(__file__).parents[1] / "examples" / "compare_with_numpy.py"
DEMO_JOBS = [
    "photos: mean and variance per channel",
    "photos: the same without clipped pixels",
    "photos: layer_norm of each photo",
    "digits: layer_norm of each row",
    "digits: layer_norm of a small batch",
    "breast cancer: standardize the columns",
    "breast cancer: min and max per column",
    "breast cancer: skewness and kurtosis",
    "breast cancer: streaming Moments of chunks",
]
RUN_WITHOUT_PACKAGES = """
import importlib.util, runpy, sys
import fastnorm
importlib.util.find_spec = lambda name: None
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Run the demo: what it printed, and the picture it drew in the current directory."""
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, str(DEMO), "--repeats", "1", "--threads", "1"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout, folder / "compare_with_numpy.png"


def rows(text):
    """Split the table into cells: columns stand two or more blanks apart."""
    return {
        cells[0]: cells[1:] for cells in (re.split(r" {2,}", line) for line in text.splitlines()) if len(cells) == 7
    }


@pytest.mark.slow
def test_the_demo_shows_every_job(demo):
    text, _ = demo
    assert [name for name in rows(text) if ":" in name] == DEMO_JOBS


@pytest.mark.slow
@pytest.mark.parametrize("job", DEMO_JOBS)
def test_the_demo_shows_fastnorm_at_rounding_error(demo, job):
    """Every answer is stored in float32, and is at most four roundings away from the exact one."""
    text, _ = demo
    shown = rows(text)[job][-1]
    error = 0 if shown == "exact" else float(shown)
    assert error <= 4 * np.finfo(np.float32).eps


@pytest.mark.slow
def test_the_demo_draws_its_picture_and_says_where(demo):
    text, picture = demo
    assert text.rstrip().endswith("Picture: compare_with_numpy.png")
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert picture.stat().st_size > 10_000


def test_the_demo_says_what_is_missing():
    """In an interpreter without its packages the demo ends with one line instead of a traceback."""
    run = subprocess.run(
        [sys.executable, "-c", RUN_WITHOUT_PACKAGES, str(DEMO)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert run.stderr.splitlines() == [
        "This example also needs scikit-learn, Pillow, matplotlib: python -m pip install scikit-learn Pillow matplotlib"
    ]
