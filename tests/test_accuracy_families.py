"""Every operation within its bound of the exact answers on the numbers of docs/accuracy.md, and what that page says."""

import sys
from pathlib import Path

import numpy as np
import pytest
from reference import NORM_EPS, eps_of

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # last: pictures.py is there, too

import accuracy
import accuracy_calls
import accuracy_lines

pytestmark = pytest.mark.wide

CALLS = accuracy_calls.fastnorm_calls()
PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"
ALL_FAMILIES = list(accuracy.lines(np.dtype("float64"))[0])

# How many eps of float32, and of float64, a result may be off before it is rounded to half precision. x * rstd: rstd by
# an ulp (float64: 32 eps), the product by half of one. The rest as where these operations are compared with twins.
NORMALIZED = tuple(NORM_EPS.values())
EPS_OFF = {
    "minmax": (0, 0),
    **dict.fromkeys(["layer_norm", "batch_norm", "group_norm", "instance_norm"], NORMALIZED),
    **dict.fromkeys(["standardize", "StandardScaler"], NORMALIZED),
    "min_max_scale": (5, 5),
    "rms_norm": (1.5, 32.5),
    "normalize": (1.5, 42),
    "local_response_norm": (3.75, 3.75 + 0.75 * accuracy_lines.WINDOW),
}
MADE_OF_VARIANCE = {"std", "skewness", "kurtosis", "StandardScaler"}
NO_VARIANCE = {"near the maximum", "subnormal"}  # in float64


def magnitude(numbers):
    return np.abs(numbers).astype(np.float64)


def bound(name, dtype, made, want):
    """Bound the errors of an operation."""
    double, own = dtype == np.float64, eps_of(dtype)
    eps, tiny = 2.0**-52 if double else 2.0**-23, float(np.finfo(dtype).smallest_subnormal)
    if name in EPS_OFF:
        rounding = own / 2 if own > eps else 0
        return (EPS_OFF[name][double] * eps + rounding) * want.sizes + tiny * (name != "minmax")
    if name == "mean":
        average = accuracy_lines.average(np.abs(made.x))[:, 0].astype(np.float64)
        return (4 if double else 1) * accuracy.ulp(want.sizes, dtype) + 2.0**-50 * average
    if name in {"var", "std"}:
        eps_off = 64 if name == "var" else 33
        return eps_off * eps * want.sizes + tiny if double else accuracy.ulp(want.sizes, dtype)
    if name in {"skewness", "kurtosis"}:
        return 1e-12 * want.sizes
    rstd, z = (made.rrms, made.x * made.rrms) if name.startswith("rms") else (made.rstd, made.z)
    dy, spread = magnitude(made.dy), 1 + magnitude(z)
    rounding = own * np.abs(want.high) + tiny
    if name.endswith("dweight"):  # terms of z, which is off by 3 eps of the spread, and their sums
        return 6 * eps * (dy * spread).sum(1 if name.startswith("batch") else 0) + rounding
    # dy, z and the averages are rounded a few times each.
    return 8 * eps * magnitude(rstd) * dy.max(1, keepdims=True) * spread + rounding


def printed(page):
    """{(op, family, dtype): fastnorm's entry} of the page."""
    found = {}
    for section in page.split("\n## ")[1:]:
        name, *rows = (line for line in section.splitlines() if line)
        if name in accuracy_lines.OPS:
            heads, _, *rows = ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)
            for family, *cells in rows:
                for head, cell in zip(heads[1:], cells, strict=True):
                    dtype, library = head.split("<br>")
                    if library == "fastnorm":
                        found[name, family, dtype] = cell
    return found


@pytest.mark.parametrize("family", ALL_FAMILIES)
@pytest.mark.parametrize("dtype", accuracy.DTYPES, ids=str)
def test_results_are_within_their_bounds_and_as_the_page_says(dtype, family):
    said = printed(PAGE.read_text(encoding="utf-8"))
    if family not in accuracy.lines(dtype)[0]:
        assert {said[name, family, dtype.name] for name in accuracy_lines.OPS} == {"-"}
        return
    for name in accuracy_lines.OPS:
        errors, want = accuracy.errors_of(CALLS[name], name, dtype, family), accuracy.right(name, dtype, family)
        assert said[name, family, dtype.name] == accuracy.show(accuracy.in_ulp(errors, want.sizes, dtype)), name
        if dtype == np.float64 and name in MADE_OF_VARIANCE and family in NO_VARIANCE:
            continue
        fine = (errors == 0) | (errors <= bound(name, dtype, accuracy.exact(dtype, family), want))
        assert fine.all(), (name, errors.max())


def test_the_page_is_written_without_other_libraries(monkeypatch):
    families, dy = accuracy.lines(np.dtype("float32"))
    monkeypatch.setattr(accuracy, "lines", lambda _: ({"constant": families["constant"]}, dy))
    monkeypatch.setattr(accuracy, "DTYPES", accuracy.DTYPES[:1])
    monkeypatch.setattr(accuracy, "STREAM", 2 * accuracy.CHUNK + 77)
    libraries = {"fastnorm": CALLS, "NumPy": accuracy_calls.numpy_calls(), "PyTorch": None, "scikit-learn": None}
    page = accuracy.page(libraries)
    assert len(printed(page)) == page.count("| - | - |") == len(accuracy_lines.OPS)
    for dtype in accuracy.OFFSETS:
        mean, var = accuracy.measure_stream(dtype, {"fastnorm": CALLS})["fastnorm"]
        assert mean <= 4
        assert var <= 128  # 64 eps
