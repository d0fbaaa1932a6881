"""Write docs/accuracy.md: the errors of fastnorm, NumPy's formulas, PyTorch and scikit-learn on the same input.

    python benchmarks/accuracy.py                       docs/accuracy.md
    python benchmarks/accuracy.py --output /tmp/a.md

PyTorch and scikit-learn may be missing. The exact answers need mpmath (accuracy_lines.py).
"""

import argparse
import sys
import warnings
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
from accuracy_calls import STREAMS, TABLES
from accuracy_lines import DIGITS, LENGTH, LINES, OPS, Exact, answer, make_lines

MODULES = {"fastnorm": "fastnorm", "NumPy": "numpy", "PyTorch": "torch", "scikit-learn": "sklearn"}
OUTPUT = Path(__file__).parent.parent / "docs" / "accuracy.md"
SEED = 8
DTYPES = [np.dtype(t) for t in ("float32", "float64", "float16")]
STREAM, CHUNK, STEPS = 10**8, 2**20, 2**13  # numbers, those of a chunk, and the places between 0 and 1 that they take
OFFSETS = {np.dtype("float32"): 2**10, np.dtype("float64"): 2**27}  # each place is a number of the dtype

HEAD = f"""\
# Accuracy

Written by `python benchmarks/accuracy.py`, in less than a minute and always alike: the numbers come from one seed,
{SEED}. fastnorm's errors are the same on every processor. Those of NumPy and PyTorch depend on it, and on the versions:
{{versions}}.

## How to read it

An entry is the largest error among the results of an operation, in units in the last place (ulp) of the dtype of x.
Rounding alone makes it 0.5. Every library is given the same {LINES} lines of {LENGTH} numbers, as rows, columns,
channels of a batch, groups or planes. The exact answers are the formulas on numbers of {DIGITS} binary digits.

- The ulp is that of the exact value; where a mean or a minimum was taken away (skewness and kurtosis, too) that of 1 if
  this is larger; of gradients that of the largest in the line. What should be 0 and is not is off by many ulp of 0.
- "nan", "inf": some result is that although the dtype holds the exact value.
- "-": the dtype does not hold such numbers, or the library was not there. A library without the operation has no
  column.
- NumPy stands for its functions and for the formulas as they are usually written, in the dtype of x.
- fastnorm's bounds: float32 statistics 1 ulp; float64 means 4 ulp and 2^-50 of the average size, variances 64 eps;
  normalized values 4 eps, in float64 40; half precision is computed in float32 and rounded once.
  `tests/test_accuracy_families.py` holds them on these lines.

| Family | Numbers |
|---|---|
| ordinary | uniform in [-0.75, 1.25) |
| mean = 1e2 std, 1e4 std, 1e8 std | uniform, about a mean of so many standard deviations |
| alternating huge | of size 1e18 to 3e18 (float16: 1e4 to 3e4), of either sign by turns |
| 1e30 | uniform in +-1e30, whose squares are beyond float32 |
| near the maximum | uniform between the least and the largest number of the dtype |
| subnormal | uniform between the smallest normal numbers of either sign |
| constant | 14.62 |
| one outlier | uniform in [-1, 1), but for one 1e7 (float16: 1e4) |"""

SUMMARY = """\
## float32 at a glance

The largest error of all families."""

LIMITS = """\
The variance of float64 lines near the maximum is beyond float64, and that of subnormal ones below it. It becomes
infinite or the smallest number above 0, and what is made of it - `std`, skewness, kurtosis and `StandardScaler` - is
wrong there, in fastnorm too. Norms, their gradients and `standardize` scale such lines first."""

STREAMED = f"""\
## {STREAM // 10**6} million numbers, chunk by chunk

Errors of mean and variance in ulp of float64. The numbers come in chunks of {CHUNK}, uniform among {STEPS} places from
an offset to the next integer; the exact answers are sums of integers. fastnorm is `Moments`, scikit-learn
`StandardScaler.partial_fit`, NumPy the sums of x and of its squares in float64."""


# ---- figures


def installed():
    """{library: its calls}; None for those that are not there."""
    found = {}
    for library, calls in TABLES.items():
        try:
            found[library] = calls()
        except ImportError:
            found[library] = None
    return found


@cache
def lines(dtype):
    return make_lines(dtype, SEED)


@cache
def exact(dtype, family):
    families, dy = lines(dtype)
    return Exact(families[family], dy)


@cache
def right(name, dtype, family):
    return answer(OPS[name], exact(dtype, family), dtype)


def errors_of(call, name, dtype, family):
    """Return the error of each result of a call."""
    op, (families, dy), want = OPS[name], lines(dtype), right(name, dtype, family)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = np.asarray(call(op.layout.forth(families[family]), op.layout.forth(dy)))
    return want.errors(got if got.shape == want.high.shape else op.layout.back(got))


def ulp(sizes, dtype):
    """Return the spacing of the dtype at numbers; NaN where they are not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.spacing(sizes.astype(dtype)).astype(np.float64)


def in_ulp(errors, sizes, dtype):
    """Return the largest error."""
    with np.errstate(over="ignore"):
        return float(np.where(errors == 0, 0, errors / ulp(sizes, dtype)).max())


def measure(dtype, libraries):
    """Return {(op, family, library): largest error in ulp}."""
    found = {}
    for family in lines(dtype)[0]:
        for library, calls in libraries.items():
            for name, call in (calls or {}).items():
                errors = errors_of(call, name, dtype, family)
                found[name, family, library] = in_ulp(errors, right(name, dtype, family).sizes, dtype)
    return found


def measure_stream(dtype, libraries):
    """Return {library: errors of mean and variance in ulp}."""
    rng, total, squares = np.random.default_rng(SEED), 0, 0
    streams = {library: make() for library, make in STREAMS.items() if libraries.get(library)}
    for start in range(0, STREAM, CHUNK):
        places = rng.integers(0, STEPS, min(CHUNK, STREAM - start))
        total, squares = total + int(places.sum()), squares + int(np.square(places).sum())
        for stream in streams.values():
            stream.update((places / STEPS + OFFSETS[dtype]).astype(dtype))
    mean = OFFSETS[dtype] + Fraction(total, STREAM * STEPS)
    var = Fraction(STREAM * squares - total**2, (STREAM * STEPS) ** 2)
    return {
        library: [
            float(abs(Fraction(float(got)) - want) / Fraction(float(np.spacing(float(want)))))
            for got, want in zip(stream.result(), (mean, var), strict=True)
        ]
        for library, stream in streams.items()
    }


# ---- the page


def show(error):
    if error is None:
        return "-"
    if not np.isfinite(error) or error == 0:
        return f"{error:.0f}"
    if error < 0.05:
        return "<0.1"
    if error < 1e4:
        return f"{error:.1f}" if error < 10 else f"{error:.0f}"
    return f"{error:.0e}".replace("e+0", "e").replace("e+", "e")


def table(heads, rows):
    alignment = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, alignment, *rows))


def op_table(op, found, libraries):
    """Make the table of one operation: a row per family, a column per dtype and library."""
    columns = [(d, library) for d in DTYPES for library, calls in libraries.items() if calls is None or op in calls]
    rows = [
        [family, *(show(found[dtype].get((op, family, library))) for dtype, library in columns)]
        for family in lines(np.dtype("float64"))[0]
    ]
    return table(["", *(f"{dtype}<br>{library}" for dtype, library in columns)], rows)


def summary(found, libraries):
    """Make the table of the largest errors of each operation, where NaN is the largest."""

    def largest(op, library):
        errors = [error for (name, _, who), error in found.items() if (name, who) == (op, library)]
        return show(np.max(errors)) if errors else ""

    return table(["", *libraries], [[op, *(largest(op, library) for library in libraries)] for op in OPS])


def stream_table(libraries):
    """Make the table of the long stream."""
    rows = []
    for dtype, offset in OFFSETS.items():
        errors = measure_stream(dtype, libraries).values()
        rows.append([f"{dtype}, offset {offset}", *(show(error) for pair in errors for error in pair)])
    there = [library for library in STREAMS if libraries[library]]
    return table(["", *(f"{library}<br>{what}" for library in there for what in ("mean", "var"))], rows)


def page(libraries):
    found = {dtype: measure(dtype, libraries) for dtype in DTYPES}
    there = [library for library, calls in libraries.items() if calls]
    versions = ", ".join(f"{library} {sys.modules[MODULES[library]].__version__}" for library in there)
    parts = [HEAD.format(versions=versions), SUMMARY, summary(found[DTYPES[0]], libraries), LIMITS]
    for op in OPS:
        parts += [f"## {op}", op_table(op, found, libraries)]
    return "\n\n".join([*parts, STREAMED, stream_table(libraries)]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: %(default)s")
    args = parser.parse_args()
    args.output.write_text(page(installed()), encoding="utf-8")
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
