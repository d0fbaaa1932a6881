"""Write the benchmark report: docs/benchmarks.md and its pictures, from the results of `make bench`.

    python benchmarks/report.py                      docs/benchmarks.md and docs/benchmarks/*.png
    python benchmarks/report.py --summary            a short table as Markdown, on the standard output
    python benchmarks/report.py --output /tmp/a.md .benchmarks/quick.json

It measures nothing. All numbers are ratios of times from one run, but for the time of an import.
"""

import argparse
import platform
import statistics
import sys
from pathlib import Path

import pictures
import results
from results import (
    IMPORT_SECONDS,
    ITSELF,
    KIB,
    NOTABLE_CORES,
    RIVALS,
    TARGETS,
    ResultsError,
    by,
    count,
    geometric_mean,
    of_rivals,
    show,
    show_bytes,
    title,
)

ROOT = Path(__file__).parent.parent
SUITE, AVX2 = ROOT / ".benchmarks" / "suite.json", ROOT / ".benchmarks" / "avx2.json"
OUTPUT = ROOT / "docs" / "benchmarks.md"
PICTURES = {  # file: heading and what the picture shows, for those who do not see it
    "overview": (None, "Geometric means of the speed-ups against each library, by family of operations"),
    "speedup": ("Every operation", "Speed-ups against PyTorch, NumPy and others: a dot per case, a row per operation"),
    "roofline": ("Bytes per second", "Bytes moved per second against the size of x, beside the measured memory limit"),
    "scaling": ("Threads", "Speed-up of two threads over one against the size of x"),
    "overhead": ("Smallest calls", "Time of the smallest calls as a share of each rival's, by operation"),
}
# ---- the page's prose

HEAD = """\
# Benchmarks

Written by `make bench-report` from the results of `make bench`. All numbers are ratios: the rival's time divided by
fastnorm's, so 2 is twice as fast. `make bench-quick` runs the few cases that tell most, in less than three minutes, and
`python benchmarks/targets.py` the named jobs at length."""
METHOD = f"""\
## How it is measured

- A case is an operation at a shape, a dtype and a thread count. Before it is timed every answer, fastnorm's and the
  rival's, is compared with one computed in float64. A rival that is wrong is raced all the same, counted below, and
  marked "wrong" in the list; a wrong fastnorm fails the run.
- A rival runs by turns with fastnorm in one process, in samples of about a millisecond, and who goes first changes with
  every round. A round gives one ratio of times; a case's ratio is the median of its rounds, so whatever slows the
  machine for longer than a round slows both sides of it.
- All are given the same number of threads; NumPy, SciPy and Bottleneck always use one. Where the input fits a cache,
  calls rotate through copies of it.
- Outputs are fresh unless the name of the case says `out=`, or `copy=False`, which is in place. A call is all that a
  user would write, in Python, from array to array.
- The memory limit is a plain C loop (`benchmarks/memory_limit.c`) that moves the bytes which must be moved with as many
  threads, raced likewise. It copies with streaming stores, but where ordinary stores are quicker, in the caches. At a
  few KiB its time is that of the call.
- Fresh outputs larger than the caches are bound by page faults, and these by whether the system has huge pages left:
  where its memory is fragmented, two threads may take longer than one.
- Disturbed are the cases during which other programs used more than {NOTABLE_CORES} of a core. Geometric means and
  medians take them in; extremes leave them out and say how many; the list marks them with an asterisk."""
TARGETS_NOTE = f"""\
In cache: jobs of that size in `benchmarks/suite.py`. Smallest calls: layer norm of 8x64, batch norm in training of
64x128, `mean_var` of 100x20 along axis 0. Two threads are raced against one from {show_bytes(256 * KIB)} on."""
OPERATIONS = """\
## Operations

The median of the ratios over shapes, dtypes and thread counts, and in brackets the least and the greatest of the
undisturbed. Against itself, a ratio of 1 means that what was added costs nothing."""
COMPARE = """\
## Two commits compared

```console
.venv/bin/pytest benchmarks --benchmark-autosave  # at the first commit: writes .benchmarks/*/0001_*.json
.venv/bin/pytest benchmarks --benchmark-compare --benchmark-compare-fail=median:10%  # at the second
```

The second fails if a median grew by more than 10 %. With `-m quick` or `-k layer_norm` both take minutes. This compares
times, not ratios, so both must run on one machine that does nothing else; what seems slower is to be raced by
`benchmarks/targets.py` before it is believed."""
EVERY_CASE = """\
## Every case

The median of the ratios, its quartiles in brackets; * disturbed by other programs; wrong: the rival's answer."""


# ---- pieces of Markdown


def table(head, rows, align=""):
    """Format a table; `align` has a letter for each column, `r` for numbers."""
    rule = ["---:" if letter == "r" else "---" for letter in align.ljust(len(head), "l")]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *rows])


def named(text):
    return f"`{text}`"


def machine_text(machine, cache_sizes):
    """Describe the kind of machine and the versions of the libraries."""
    cpu = machine.get("cpu", {})
    own = machine.get("fastnorm") or {}
    kind = [cpu.get("brand_raw") or machine.get("machine", "unknown processor"), count(cpu.get("count", 1), "core")]
    kind += [f"L{level} {show_bytes(size)}" for level, size in cache_sizes]
    libraries = machine.get("libraries") or {}
    versions = [f"{title(name)} {libraries[name]}" for name in RIVALS if libraries.get(name)]
    lines = [
        f"Machine: {', '.join(kind)}; {machine.get('system', '')}, Python {machine.get('python_version', '')}.",
        f"fastnorm {own.get('version', '')} with {own.get('isa', '')}; {', '.join(versions)}.",
    ]
    return "\n".join(lines)


def own_caches(machine):
    """Return the sizes of the caches if the results are this machine's, which alone can tell them."""
    return results.caches() if machine.get("node") == platform.node() else []


def targets_table(runs):
    """List the targets with what was found; what was not measured is said."""
    rows = [target_row(target, target.judge(runs)) for target in TARGETS]
    rows.append(import_row(results.imports(runs["suite"].cases)))
    head = ["target", "asked: mean, worst", "geometric mean", "worst case", "cases", "disturbed", ""]
    return table(head, rows, "llrlrr")


def target_row(target, verdict):
    sign = "<=" if target.at_most else ">="
    asked = f"{sign} {target.mean}" + (f", {sign} {target.worst}" if target.worst is not None else "")
    if verdict is None:
        return [target.title, asked, "", "", "0", "", "not measured"]
    worst = "none undisturbed"
    if verdict.worst:
        worst = f"{show(getattr(verdict.worst, target.value))}: {named(verdict.worst)}"
    found = [show(verdict.mean), worst, str(verdict.cases), str(verdict.disturbed)]
    return [target.title, asked, *found, word(verdict.met)]


def import_row(case):
    name = "`import fastnorm` beside `import numpy`"
    asked = f"<= {1e3 * IMPORT_SECONDS:g} ms more"
    if case is None:
        return [name, asked, "", "", "0", "", "not measured"]
    more = case.own_seconds - case.seconds
    return [name, asked, f"{1e3 * more:.1f} ms", "", "1", str(int(not case.quiet)), word(more <= IMPORT_SECONDS)]


def word(met):
    return "met" if met else "**missed**"


def extreme(cases, choose):
    """Name the undisturbed case with the least or the greatest ratio."""
    quiet = [c for c in cases if c.quiet]
    if not quiet:
        return ""
    found = choose(quiet, key=lambda c: c.ratio)
    return f"{show(found.ratio)}: {named(found)}"


def rivals_table(races):
    """List the rivals: geometric mean, extremes, and how often they were wrong."""
    rows = [
        [
            title(rival),
            show(geometric_mean([c.ratio for c in cases])),
            extreme(cases, min),
            str(sum(c.ratio < 1 for c in cases)),
            str(len(cases)),
            str(sum(not c.quiet for c in cases)),
            wrong_of(cases),
        ]
        for rival, cases in races.items()
    ]
    head = ["rival", "times as fast", "least", "below 1", "cases", "disturbed", "wrong against float64"]
    return table(head, rows, "lrlrrrl")


def wrong_of(cases):
    wrong = sum(not c.right for c in cases)
    return f"in {wrong} of {count(len(cases), 'case')}" if wrong else "never"


def columns(cases):
    """List the rivals that some cases have, ways of fastnorm's own last."""
    found = {c.rival for c in cases} - {"fastnorm"}
    known = [*RIVALS, *ITSELF]
    return [name for name in known if name in found] + sorted(found.difference(known))


def group_tables(cases):
    """List for each group its operations: the median ratio and the range of the undisturbed, by rival."""
    groups = by(sorted(cases, key=lambda c: pictures.group_order(c.group)), lambda c: c.group)
    parts = []
    for group, found in groups.items():
        names = columns(found)
        rows = [
            [named(form), *(range_cell([c for c in same if c.rival == name]) for name in names)]
            for form, same in by(found, lambda c: c.form).items()
        ]
        parts += [f"### {pictures.GROUPS.get(group, group)}", table(["", *map(title, names)], rows)]
    return "\n\n".join(parts)


def range_cell(cases):
    if not cases:
        return ""
    middle = show(statistics.median(c.ratio for c in cases), 2)
    quiet = [c.ratio for c in cases if c.quiet]
    return f"{middle} ({show(min(quiet), 2)} to {show(max(quiet), 2)})" if len(quiet) > 1 else middle


def complete_list(cases):
    """List every case, collapsed, one section per operation."""
    sections = []
    for op, found in by(cases, lambda c: c.op).items():
        names = columns(found)
        limited = any(c.fraction for c in found)
        head = ["case", *map(title, names), *(["of the memory limit"] if limited else [])]
        rows = [case_row(name, same, names, limited) for name, same in by(found, str).items()]
        # The blank lines let the table within be read as Markdown.
        sections.append(
            f"<details><summary>{op}: {count(len(rows), 'case')}</summary>\n\n{table(head, rows)}\n\n</details>"
        )
    return "\n\n".join(sections)


def case_row(name, cases, names, limited):
    cells = {c.rival: ratio_cell(c) for c in cases}
    row = [name, *(cells.get(rival, "") for rival in names)]
    return [*row, next((show(c.fraction, 2) + star(c) for c in cases if c.fraction), "")] if limited else row


def ratio_cell(case):
    """Format the median, its quartiles, and what is to be known about it."""
    quartiles = f" [{show(case.low, 2)}, {show(case.high, 2)}]" if case.low else ""
    return show(case.ratio) + quartiles + star(case) + ("" if case.right else " wrong")


def star(case):
    return "" if case.quiet else "*"


# ---- the report


def page(runs, drawn, folder):
    """Put the report together."""
    cases, machine = runs["suite"].cases, runs["suite"].machine
    races = of_rivals(cases)
    listed = [c for c in cases if c.op != "import" and (c.rival != "fastnorm" or c.fraction)]
    raced = [c for c in listed if c.rival != "fastnorm" and c.size != "sweep"]
    images = {name: f"![{PICTURES[name][1]}]({folder}/{name}.png)" for name in drawn}
    parts = [
        HEAD,
        machine_text(machine, own_caches(machine)),
        images.get("overview", ""),
        "## Targets",
        targets_table(runs),
        TARGETS_NOTE,
        METHOD,
        "## Rivals",
        rivals_table(races),
        *[f"## {heading}\n\n{images[name]}" for name, (heading, _) in PICTURES.items() if heading and name in images],
        OPERATIONS,
        group_tables(raced),
        COMPARE,
        EVERY_CASE,
        complete_list(listed),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(runs):
    """Format the short table of the README: a line per rival and per other target that was measured."""
    cases = runs["suite"].cases
    rows = [
        [
            title(rival),
            str(len(raced)),
            show(geometric_mean([c.ratio for c in raced]), 2),
            extreme(raced, min),
            wrong_of(raced),
        ]
        for rival, raced in of_rivals(cases).items()
    ]
    return table(["Against", "cases", "times as fast", "least", "its answer was wrong"], rows, "lrr")


def load(suite, avx2):
    """Read the runs there are; only that of the suite must be there."""
    runs = {"suite": results.read(suite)}
    if avx2.exists():
        runs["avx2"] = results.read(avx2)
    return runs


def arguments():
    usage = "Write docs/benchmarks.md and its pictures from the results of `make bench`. Measures nothing."
    parser = argparse.ArgumentParser(description=usage)
    parser.add_argument("suite", nargs="?", type=Path, default=SUITE, help="results (default: .benchmarks/suite.json)")
    parser.add_argument(
        "--avx2",
        type=Path,
        default=AVX2,
        help="results with AVX2 on both sides, left out if missing (default: .benchmarks/avx2.json)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=OUTPUT,
        help="the page; its pictures go to a folder of its name beside it (default: docs/benchmarks.md)",
    )
    parser.add_argument("--summary", action="store_true", help="only print a short table as Markdown")
    return parser.parse_args()


def main():
    args = arguments()
    try:
        runs = load(args.suite, args.avx2)
    except ResultsError as error:
        sys.exit(f"report.py: {error}")
    if args.summary:
        print(summary(runs))
        return
    suite = runs["suite"]
    folder = args.output.with_suffix("")
    drawn = pictures.draw(suite.cases, own_caches(suite.machine), folder)
    args.output.write_text(page(runs, drawn, folder.name))
    print(f"wrote {args.output} and {count(len(drawn), 'picture')} in {folder}")


if __name__ == "__main__":
    main()
