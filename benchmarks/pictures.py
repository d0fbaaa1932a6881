"""The pictures of the benchmark report: a function for each, which returns a figure, or None if there are no cases."""

import math
import statistics

import matplotlib as mpl
from drawing import (
    INK,
    LINE_COLORS,
    LOSS,
    QUIET,
    SLOWER,
    STYLE,
    THREAD_COLORS,
    at_line_ends,
    headline,
    key,
    log_ticks,
    look,
    rival_key,
)
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from results import by, count, families, geometric_mean, of_rivals, show, show_bytes, title

GROUPS = {  # by the names of the bench files
    "stats": "Statistics",
    "functional": "Norms of rows, scaling",
    "channels": "Norms of channels",
    "local": "Norms of neighbours",
    "preprocessing": "Estimators",
    "image": "Pictures",
}
NARROW = {  # titles in two lines
    "sklearn": "scikit-\nlearn",
    "onnxruntime": "ONNX\nRuntime",
    "bottleneck": "Bottle-\nneck",
    "albumentations": "Albumen-\ntations",
}
ROW = 0.19  # inches


# ---- one row per operation


def rows_by_group(cases):
    """Place the rows from the top: a heading for each group, then its operations. Returns headings, rows and height."""
    groups = by(sorted(cases, key=lambda c: group_order(c.group)), lambda c: c.group)
    headings, rows, place = [], {}, 0.0
    for group, found in groups.items():
        headings.append((place, GROUPS.get(group, group)))
        place += 1
        for mode in by(found, lambda c: c.mode):
            rows[mode] = place
            place += 1
        place += 0.4
    return headings, rows, place


def group_order(group):
    return list(GROUPS).index(group) if group in GROUPS else len(GROUPS)


def name_rows(panel, headings, rows, height):
    panel.set_ylim(height - 0.6, -0.6)
    panel.set_yticks(list(rows.values()), list(rows))
    for place, text in headings:
        panel.annotate(
            text,
            (0, place),
            (-5, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="center",
            weight="bold",
            color=INK,
            annotation_clip=False,
        )


def bands(panel, rows):
    """Underlay every other row."""
    for place in list(rows.values())[::2]:
        panel.axhspan(place - 0.5, place + 0.5, color="0.965", linewidth=0, zorder=0)


def speedups(cases):
    """Draw a dot per job against PyTorch, NumPy and the others, and the geometric mean of each row."""
    races = of_rivals(c for c in cases if c.size != "sweep")
    shown = [c for found in races.values() for c in found]
    if not shown:
        return None
    headings, rows, height = rows_by_group(shown)
    panels_of = {"PyTorch": ["torch"], "NumPy": ["numpy"]}
    panels_of = {name: rivals for name, rivals in panels_of.items() if rivals[0] in races}
    others = [rival for rival in races if rival not in {"torch", "numpy"}]
    if others:
        panels_of["other libraries"] = others
    inches = ROW * height + 1.9
    figure, panels = plt.subplots(1, len(panels_of), figsize=(11, inches), sharey=True, squeeze=False)
    figure.subplots_adjust(left=0.225, right=0.985, top=1 - 1.35 / inches, bottom=0.5 / inches, wspace=0.06)
    for panel, (name, rivals) in zip(panels[0], panels_of.items(), strict=True):
        found = [c for rival in rivals for c in races[rival]]
        speedup_panel(panel, by(found, lambda c: c.mode), rows)
        panel.set_title(f"against {name}", pad=6, color=look(rivals[0])[0] if len(rivals) == 1 else INK)
    name_rows(panels[0][0], headings, rows, height)
    headline(
        figure,
        "How many times as fast, for every operation",
        "A dot for each shape, dtype and thread count: the median of paired ratios, log scale. The line at 1 is the "
        "rival's own time.\nA bar is the geometric mean of its row, written at the right for PyTorch and NumPy.",
    )
    rival_key(figure, others, 0.01, 1 - 0.9 / inches)
    return figure


def speedup_panel(panel, found, rows):
    ratios = [c.ratio for cases in found.values() for c in cases]
    low, high = min(0.8, *ratios) / 1.1, max(10, *ratios) * 1.1
    single = len({c.rival for cases in found.values() for c in cases}) == 1
    right = high * (high / low) ** (0.13 if single else 0)
    panel.set_xscale("log")
    panel.set_xlim(low, right)
    bands(panel, rows)
    panel.axvspan(low, 1, color=LOSS, linewidth=0, zorder=0.1)
    panel.axvline(1, color=INK, linewidth=0.9, zorder=1)
    panel.grid(axis="x", zorder=0.2)
    panel.set_xlabel("times as fast", color=QUIET)
    log_ticks(panel.xaxis, low, high)
    for mode, cases in found.items():
        races = by(cases, lambda c: c.rival)
        for rank, (rival, raced) in enumerate(races.items()):
            color, mark = look(rival)
            place = rows[mode] + (rank - (len(races) - 1) / 2) * min(0.25, 0.75 / len(races))
            mean = geometric_mean([c.ratio for c in raced])
            dots = [c.ratio for c in raced]
            size = 13 if single else 8
            panel.scatter(dots, [place] * len(dots), size, color=color, marker=mark, alpha=0.35, linewidth=0, zorder=2)
            panel.plot([mean, mean], [place - 0.3, place + 0.3], color=INK if single else color, linewidth=2, zorder=3)
            if single:
                edge = right / (high / low) ** 0.015
                panel.text(edge, place, show(mean, 2), ha="right", va="center", color=INK, fontsize=8.5)


def overhead(cases):
    """Draw the time of the smallest calls as a share of each rival's, per operation."""
    races = of_rivals(c for c in cases if c.size == "tiny")
    shown = [c for found in races.values() for c in found]
    if not shown:
        return None
    headings, rows, height = rows_by_group(shown)
    inches = ROW * height + 1.75
    figure, panel = plt.subplots(figsize=(11, inches))
    figure.subplots_adjust(left=0.225, right=0.985, top=1 - 1.08 / inches, bottom=0.5 / inches)
    shares = {
        (mode, rival): geometric_mean([c.share for c in found])
        for rival, raced in races.items()
        for mode, found in by(raced, lambda c: c.mode).items()
    }
    low, high = min(shares.values()) / 1.25, max(1.3, max(shares.values()) * 1.25)
    panel.set_xscale("log")
    panel.set_xlim(low, high)
    bands(panel, rows)
    panel.axvspan(1, high, color=LOSS, linewidth=0, zorder=0.1)
    panel.axvline(1, color=INK, linewidth=0.9)
    panel.grid(axis="x", zorder=0.2)
    log_ticks(panel.xaxis, low, high)
    panel.set_xlabel("fastnorm's time / the rival's time", color=QUIET)
    places = {rival: rank / 100 for rank, rival in enumerate(races)}  # the first on top
    for (mode, rival), share in shares.items():
        color, mark = look(rival)
        panel.scatter(
            share, rows[mode], 30, color=color, marker=mark, linewidth=0.6, edgecolor="white", zorder=3 - places[rival]
        )
    name_rows(panel, headings, rows, height)
    headline(
        figure,
        "Smallest calls: the whole call as a share of the rival's",
        "Arrays so small that the time is the call's own. Geometric means of the dtypes and thread counts, log scale.",
    )
    rival_key(figure, list(races), 0.01, 1 - 0.75 / inches)
    return figure


# ---- the picture of the README


def overview(cases):
    """Draw a column for each rival and a row for each family of operations: geometric means."""
    races = of_rivals(c for c in cases if c.size != "sweep")
    if not races:
        return None
    means = {
        (name, rival): geometric_mean([c.ratio for c in found])
        for rival, raced in races.items()
        for name, found in families(raced).items()
    }
    names = list(families([c for raced in races.values() for c in raced]))
    low, high = min(0.9, *means.values()) / 1.05, max(10, *means.values())
    inches = 0.3 * len(names) + 1.5
    figure, panels = plt.subplots(1, len(races), figsize=(10.4, inches), sharey=True, squeeze=False)
    figure.subplots_adjust(left=0.233, right=0.995, top=1 - 1.15 / inches, bottom=0.08 / inches, wspace=0.06)
    for panel, rival in zip(panels[0], races, strict=True):
        overview_panel(panel, rival, {n: means[n, rival] for n in names if (n, rival) in means}, names)
        panel.set_xlim(low, high * (high / low) ** 0.6)
    panels[0][0].set_yticks(range(len(names)), names, fontsize=10)
    panels[0][0].set_ylim(len(names) - 0.4, -0.6)
    total = sum(map(len, races.values()))
    headline(
        figure,
        "fastnorm: how many times as fast as each library",
        f"Geometric means over {total:,} races of shapes, dtypes and thread counts; bars on a log scale from 1, the "
        "library's own time.",
    )
    return figure


def overview_panel(panel, rival, means, names):
    color = look(rival)[0]
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(NullLocator())
    panel.xaxis.set_minor_locator(NullLocator())
    for place, name in enumerate(names):
        if place % 2 == 0:
            panel.axhspan(place - 0.5, place + 0.5, color="0.955", linewidth=0, zorder=0)
        if name in means:
            mean = means[name]
            panel.barh(place, mean - 1, left=1, height=0.5, color=color, zorder=2)
            panel.annotate(
                show(mean, 2),
                (max(mean, 1), place),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=10,
                color=INK if mean >= 1 else SLOWER,
                weight="normal" if mean >= 1 else "bold",
            )
    panel.axvline(1, color="0.35", linewidth=0.9, zorder=3)
    panel.set_title(NARROW.get(rival, title(rival)), color=color, fontsize=9)
    panel.spines[["bottom", "left"]].set_visible(False)


# ---- against size


def size_axis(panel, sizes, cache_sizes):
    """Label every fourth power of four or so, and mark the sizes of the caches."""
    low, high = min(sizes), max(sizes)
    panel.set_xscale("log", base=2)
    panel.set_xlim(low / 1.3, high * 1.3)
    ticks = [2**e for e in range(10, 40, 4) if low <= 2**e <= high]
    panel.set_xticks(ticks, [show_bytes(tick) for tick in ticks])
    panel.xaxis.set_minor_locator(NullLocator())
    for level, size in cache_sizes:
        if low < size < high:
            panel.axvline(size, color="0.75", linewidth=0.8, linestyle=(0, (1, 2)), zorder=0.5)
            panel.annotate(
                f"L{level}",
                (size, 1),
                (0, 1),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=8,
                color=QUIET,
            )


def sweeps(cases):
    """Return the jobs over all sizes by form: those of fastnorm that have a limit."""
    found = [c for c in cases if c.size == "sweep" and c.rival == "fastnorm" and c.limit_seconds]
    return by(sorted(found, key=lambda c: c.nbytes), lambda c: c.form)


def roofline(cases, cache_sizes):
    """Draw bytes moved per second against size for each job, with the limit that was measured beside it."""
    forms = sweeps(cases)
    if not forms:
        return None
    every = [c for found in forms.values() for c in found]
    largest = max(c.nbytes for c in every)
    unit = max(statistics.median(rates) for rates in limits_at(every, largest))
    columns = min(3, len(forms))
    lines = math.ceil(len(forms) / columns)
    inches = 2.45 * lines + 1.6
    figure, panels = plt.subplots(lines, columns, figsize=(11, inches), sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(left=0.06, right=0.985, top=1 - 1.45 / inches, bottom=0.55 / inches, wspace=0.07, hspace=0.3)
    for panel, (form, found) in zip(panels.flat, forms.items(), strict=False):
        roofline_panel(panel, form, found, unit)
        size_axis(panel, [c.nbytes for c in every], cache_sizes)
    rates = [r for c in every for r in (c.moved / c.seconds / unit, c.moved / c.limit_seconds / unit)]
    panels[0][0].set_ylim(min(rates) / 1.3, max(rates) * 1.4)
    log_ticks(panels[0][0].yaxis, *panels[0][0].get_ylim())
    for panel in panels.flat[len(forms) :]:
        panel.remove()
    for panel in panels.flat[max(0, len(forms) - columns) : len(forms)]:
        panel.tick_params(labelbottom=True)
        panel.set_xlabel("size of x", color=QUIET)
    headline(
        figure,
        "Bytes moved per second, beside what memory allows",
        "Solid: fastnorm. Dashed: a plain C loop that moves the same bytes with as many threads, timed beside it. "
        f"Log scales; 1 is the\nloops' best at {show_bytes(largest)} of x."
        + (" Dotted: the sizes of the caches that a core has or shares." if cache_sizes else ""),
    )
    thread_key(figure, sorted({c.threads for c in every}), 1 - 0.95 / inches)
    return figure


def limit_words(limit):
    """Name the loops of a limit; whether a copy streams depends on its size."""
    return ", then ".join({"stream": "copy", "update": "update in place"}.get(loop, loop) for loop in limit.split("+"))


def limits_at(cases, nbytes):
    """Return the rates of the limits at one size, a list for each loop and thread count."""
    found = by((c for c in cases if c.nbytes == nbytes), lambda c: (c.limit, c.threads))
    return [[c.moved / c.limit_seconds for c in same] for same in found.values()]


def roofline_panel(panel, form, found, unit):
    panel.set_yscale("log")
    panel.grid(zorder=0)
    for threads, line in by(found, lambda c: c.threads).items():
        color = THREAD_COLORS[min(threads, 3) - 1]
        sizes = [c.nbytes for c in line]
        panel.plot(sizes, [c.moved / c.limit_seconds / unit for c in line], color=color, linewidth=1.2, linestyle="--")
        panel.plot(sizes, [c.moved / c.seconds / unit for c in line], color=color, linewidth=1.8, marker="o", ms=3.2)
    panel.set_title(form, pad=13)
    panel.text(
        0.985,
        0.95,
        "limit: " + limit_words(found[0].limit),
        transform=panel.transAxes,
        ha="right",
        va="top",
        fontsize=8,
        color=QUIET,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )


def thread_key(figure, threads, y):
    handles = [
        Line2D([], [], color=THREAD_COLORS[min(n, 3) - 1], linewidth=2, label=count(n, "thread")) for n in threads
    ]
    key(figure, handles, 0.01, y, handlelength=1.4)


def scaling(cases, cache_sizes):
    """Draw the speed-up of two threads over one against size: a line per job over all sizes, dots for the others."""
    races = [c for c in cases if c.rival == "one thread" and c.nbytes]
    if not races:
        return None
    figure, panel = plt.subplots(figsize=(11, 4.9))
    figure.subplots_adjust(left=0.05, right=0.82, top=0.81, bottom=0.1)
    lines = by(sorted((c for c in races if c.size == "sweep"), key=lambda c: c.nbytes), lambda c: c.form)
    dots = [c for c in races if c.size != "sweep"]
    panel.scatter([c.nbytes for c in dots], [c.ratio for c in dots], 9, color="0.72", linewidth=0, zorder=1)
    ends = []
    for (form, line), color in zip(lines.items(), LINE_COLORS * len(lines), strict=False):
        sizes, ratios = [c.nbytes for c in line], [c.ratio for c in line]
        panel.plot(sizes, ratios, color=color, linewidth=1.8, marker="o", markersize=3.5, zorder=2)
        ends.append((ratios[-1], form, color))
    size_axis(panel, [c.nbytes for c in races], cache_sizes)
    panel.set_ylim(min(0.9, *(c.ratio - 0.1 for c in races)), max(2.1, *(c.ratio + 0.1 for c in races)))
    panel.grid(axis="y", zorder=0)
    panel.axhline(1, color=INK, linewidth=0.9, zorder=0.6)
    panel.axhline(2, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0.6)
    panel.set_xlabel("size of x", color=QUIET)
    if ends:
        at_line_ends(panel, ends, 0.045 * (panel.get_ylim()[1] - panel.get_ylim()[0]))
    headline(
        figure,
        "Two threads over one",
        "Speed-up, paired. Lines: one job over all sizes, float32. Grey: all other jobs from "
        f"{show_bytes(min(c.nbytes for c in races))}. The dashed line is twice as fast.",
    )
    return figure


def draw(cases, cache_sizes, folder):
    """Write the pictures that have something to show into a folder: the names of their files."""
    with mpl.rc_context(STYLE):
        figures = {
            "overview": overview(cases),
            "speedup": speedups(cases),
            "roofline": roofline(cases, cache_sizes),
            "scaling": scaling(cases, cache_sizes),
            "overhead": overhead(cases),
        }
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            if figure:
                figure.savefig(folder / f"{name}.png", metadata={"Software": None})
                plt.close(figure)
    return [name for name, figure in figures.items() if figure]
