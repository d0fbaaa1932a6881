"""fastnorm beside NumPy on real data: time and largest error of the same job, as a table and a picture.

The data ship with scikit-learn: two photos, handwritten digits and the breast-cancer table. They are small, so they are
repeated until they have the size of a real batch or data set; how often is printed. All of it is float32, and the exact
answers are computed from the same values in float64.

    python compare_with_numpy.py [--output PATH] [--threads N] [--repeats N]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from training import require

import fastnorm

NEEDED = {"sklearn": "scikit-learn", "PIL": "Pillow", "matplotlib": "matplotlib"}
PHOTO_COPIES, DIGIT_COPIES, TUMOUR_COPIES = 8, 40, 1000
CHUNK_ROWS = 10000
EPS = 1e-5
SAMPLE_SECONDS = 0.005
FLOAT32_EPS = float(np.finfo(np.float32).eps)
RATIO_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
NUMPY_COLOR, FASTNORM_COLOR = "#E69F00", "#0072B2"  # told apart by colour-blind readers and in grey


@dataclass
class Job:
    """One piece of work, done by NumPy, by fastnorm, and exactly."""

    name: str
    data: np.ndarray
    with_numpy: Callable
    with_fastnorm: Callable
    exact: object
    unit: float = 0.0  # errors are relative to the exact value, or to this where that is smaller


@dataclass
class Result:
    name: str
    shape: str
    numpy_seconds: float
    fastnorm_seconds: float
    numpy_error: float
    fastnorm_error: float

    @property
    def speedup(self):
        return self.numpy_seconds / self.fastnorm_seconds


def layer_norm_formula(x, axis):
    """Normalize as it is usually written with NumPy."""
    mean = x.mean(axis, keepdims=True)
    var = x.var(axis, keepdims=True)
    return (x - mean) / np.sqrt(var + EPS)


def standardize_formula(x):
    return (x - x.mean(0)) / x.std(0)


def mean_var_formula(x, axis):
    return x.mean(axis), x.var(axis)


def masked_mean_var_formula(x, axis, where):
    return np.mean(x, axis, where=where), np.var(x, axis, where=where)


def skewness_kurtosis_formula(x):
    """Multiply, as NumPy is much slower at `d**3`."""
    d = x - x.mean(0)
    square = d * d
    var = square.mean(0)
    return (square * d).mean(0) / var**1.5, (square * square).mean(0) / var**2 - 3


def skewness_kurtosis(x):
    moments = fastnorm.moments(x, axis=0, order=4)
    return moments.skewness(), moments.kurtosis()


def minmax_formula(x):
    return x.min(0), x.max(0)


def stream(chunks):
    """Gather statistics of data that arrive a chunk at a time."""
    moments = fastnorm.Moments(minmax=True)
    for chunk in chunks:
        moments.update(chunk)
    return moments.mean, moments.var(), moments.min, moments.max


def photo_jobs():
    from sklearn.datasets import load_sample_images

    photos = np.stack(load_sample_images().images * PHOTO_COPIES).astype(np.float32)
    exact = photos.astype(np.float64)
    pixels, photo = (0, 1, 2), (1, 2, 3)
    shown = (photos > 0) & (photos < 255)
    return [
        Job(
            "photos: mean and variance per channel",
            photos,
            lambda: mean_var_formula(photos, pixels),
            lambda: fastnorm.mean_var(photos, axis=pixels),
            mean_var_formula(exact, pixels),
        ),
        Job(
            "photos: the same without clipped pixels",
            photos,
            lambda: masked_mean_var_formula(photos, pixels, shown),
            lambda: fastnorm.mean_var(photos, axis=pixels, where=shown),
            masked_mean_var_formula(exact, pixels, shown),
        ),
        Job(
            "photos: layer_norm of each photo",
            photos,
            lambda: layer_norm_formula(photos, photo),
            lambda: fastnorm.layer_norm(photos, axis=photo, eps=EPS),
            layer_norm_formula(exact, photo),
            unit=1,
        ),
    ]


def digit_jobs():
    from sklearn.datasets import load_digits

    digits = load_digits().data.astype(np.float32)
    return [
        digit_job("digits: layer_norm of each row", np.tile(digits, (DIGIT_COPIES, 1))),
        digit_job("digits: layer_norm of a small batch", digits[:8]),
    ]


def digit_job(name, rows):
    return Job(
        name,
        rows,
        lambda: layer_norm_formula(rows, -1),
        lambda: fastnorm.layer_norm(rows, eps=EPS),
        layer_norm_formula(rows.astype(np.float64), -1),
        unit=1,
    )


def tumour_jobs():
    from sklearn.datasets import load_breast_cancer

    table = np.tile(load_breast_cancer().data.astype(np.float32), (TUMOUR_COPIES, 1))
    exact = table.astype(np.float64)
    chunks = [table[start : start + CHUNK_ROWS] for start in range(0, len(table), CHUNK_ROWS)]
    return [
        Job(
            "breast cancer: standardize the columns",
            table,
            lambda: standardize_formula(table),
            lambda: fastnorm.standardize(table),
            standardize_formula(exact),
            unit=1,
        ),
        Job(
            "breast cancer: min and max per column",
            table,
            lambda: minmax_formula(table),
            lambda: fastnorm.minmax(table, axis=0),
            minmax_formula(exact),
        ),
        Job(
            "breast cancer: skewness and kurtosis",
            table,
            lambda: skewness_kurtosis_formula(table),
            lambda: skewness_kurtosis(table),
            skewness_kurtosis_formula(exact),
            unit=1,
        ),
        Job(
            "breast cancer: streaming Moments of chunks",
            table,
            lambda: (*mean_var_formula(table, 0), *minmax_formula(table)),
            lambda: stream(chunks),
            (*mean_var_formula(exact, 0), *minmax_formula(exact)),
        ),
    ]


def largest_error(answer, exact, unit):
    """Return the largest error in an answer, which is an array or a tuple of arrays."""
    if isinstance(exact, tuple):
        return max(largest_error(*pair, unit) for pair in zip(answer, exact, strict=True))
    scale = np.maximum(np.abs(exact), unit or np.finfo(np.float64).tiny)
    return float(np.max(np.abs(answer - exact) / scale))


def seconds_per_call(call, calls):
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def median_seconds(first, second, repeats):
    """Return median times of two calls that are timed by turns, so that a busy machine slows both."""
    calls = [max(1, round(SAMPLE_SECONDS / seconds_per_call(call, 1))) for call in (first, second)]
    samples = [(seconds_per_call(first, calls[0]), seconds_per_call(second, calls[1])) for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*samples, strict=True)]


def compare(job, repeats):
    numpy_error = largest_error(job.with_numpy(), job.exact, job.unit)
    fastnorm_error = largest_error(job.with_fastnorm(), job.exact, job.unit)
    times = median_seconds(job.with_numpy, job.with_fastnorm, repeats)
    return Result(job.name, "x".join(map(str, job.data.shape)), *times, numpy_error, fastnorm_error)


def threads_in_use():
    count = fastnorm.get_num_threads()
    return f"{count} thread{'s' if count > 1 else ''}"


def show_time(seconds):
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def show_ratio(ratio):
    return f"{ratio:.0f}x" if ratio >= 9.95 else f"{ratio:.2g}x"


def show_error(error):
    return f"{error:.1e}" if error else "exact"


HEADINGS = ("job", "shape", "NumPy", "fastnorm", "ratio", "NumPy's error", "fastnorm's error")


def cells(result):
    return (
        result.name,
        result.shape,
        show_time(result.numpy_seconds),
        show_time(result.fastnorm_seconds),
        show_ratio(result.speedup),
        show_error(result.numpy_error),
        show_error(result.fastnorm_error),
    )


def plain_table(rows):
    """Align rows of texts under the first one: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *others = rows
    return "\n".join(aligned(row, widths) for row in (head, ["-" * width for width in widths], *others))


def aligned(row, widths):
    name, *numbers = row
    return "  ".join([name.ljust(widths[0]), *map(str.rjust, numbers, widths[1:])])


def draw(results, path):
    """Draw the table as a picture: how many times as fast, and how large the errors."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (speed, error) = plt.subplots(1, 2, figsize=(13, 0.75 * len(results) + 1.8), sharey=True)
    draw_speed(speed, results)
    draw_errors(error, results)
    speed.set_yticks(range(len(results)), [f"{result.name}\n{result.shape}" for result in results])
    speed.invert_yaxis()
    for panel in (speed, error):
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
        panel.set_axisbelow(True)
        panel.grid(axis="x", color="0.9")
    figure.tight_layout(w_pad=3)
    figure.savefig(path, dpi=120)


def draw_speed(panel, results):
    speedups = [result.speedup for result in results]
    panel.set_xscale("log")
    panel.barh(range(len(results)), [s - 1 for s in speedups], left=1, height=0.6, color=FASTNORM_COLOR)
    for place, speedup in enumerate(speedups):
        label_bar(panel, max(speedup, 1), place, show_ratio(speedup))
    panel.axvline(1, color=NUMPY_COLOR, linewidth=2)
    panel.set_xlim(min(0.9, *(0.9 * s for s in speedups)), 1.5 * max(2, *speedups))
    panel.set_xticks([tick for tick in RATIO_TICKS if panel.get_xlim()[0] <= tick <= panel.get_xlim()[1]])
    panel.xaxis.set_major_formatter("{x:g}x")
    panel.minorticks_off()
    panel.set_title("Speed: NumPy's time / fastnorm's time", loc="left")
    panel.set_xlabel(f"times as fast as NumPy (log scale; fastnorm: {threads_in_use()})")


def draw_errors(panel, results):
    sides = (
        ("NumPy", NUMPY_COLOR, -0.2, [result.numpy_error for result in results]),
        ("fastnorm", FASTNORM_COLOR, 0.2, [result.fastnorm_error for result in results]),
    )
    left, right = 1e-9, 10 * max(FLOAT32_EPS, *(max(errors) for *_, errors in sides))
    panel.set_xscale("log")
    panel.set_xlim(left, right)
    for label, color, shift, errors in sides:
        places = [index + shift for index in range(len(errors))]
        panel.barh(places, [max(e - left, 0) for e in errors], left=left, height=0.36, color=color, label=label)
        for place, value in zip(places, errors, strict=True):
            label_bar(panel, max(value, left), place, show_error(value))
    panel.axvline(FLOAT32_EPS, color="0.3", linestyle="--", linewidth=1, label="eps of float32", zorder=0.5)
    panel.set_title("Largest error against float64", loc="left")
    panel.set_xlabel("relative error (log scale;\nnormalized values, skewness, kurtosis: to at least 1)")
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)


def label_bar(panel, end, place, text):
    """Write text behind the end of a bar, on white, so that no line strikes it through."""
    white = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    panel.annotate(text, (end, place), (5, 0), textcoords="offset points", va="center", fontsize=9, bbox=white)


def arguments():
    parser = argparse.ArgumentParser(description="Compare fastnorm with NumPy on real data.")
    parser.add_argument("--output", default="compare_with_numpy.png", help="the picture (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="for fastnorm (default: what this process may use)")
    parser.add_argument("--repeats", type=int, default=9, help="timings per job (default: %(default)s)")
    return parser.parse_args()


def main():
    args = arguments()
    require(NEEDED)
    fastnorm.set_num_threads(args.threads)
    print(
        f"fastnorm {fastnorm.__version__} ({fastnorm.isa()}, {threads_in_use()}), "
        f"NumPy {np.__version__} (1 thread), float32"
    )
    print(
        f"photos: china.jpg and flower.jpg, repeated {PHOTO_COPIES} times\n"
        f"digits: 1797 scans of 8x8 pixels, repeated {DIGIT_COPIES} times; the small batch is the first 8\n"
        f"breast cancer: the table of 569 tumours, repeated {TUMOUR_COPIES} times; "
        f"streamed in chunks of {CHUNK_ROWS} rows\n"
    )
    results = []
    for jobs in (photo_jobs, digit_jobs, tumour_jobs):  # one after the other: each frees its data
        results += [compare(job, args.repeats) for job in jobs()]
    print(plain_table([HEADINGS, *map(cells, results)]))
    print(
        "\nErrors are the largest against float64, relative to the exact value "
        "(normalized values, skewness and kurtosis: to at least 1)."
    )
    draw(results, args.output)
    print(f"\nPicture: {args.output}")


if __name__ == "__main__":
    main()
