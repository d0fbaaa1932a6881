"""The results of the suite, read from pytest-benchmark's JSON, and what the report computes from them.

A `Result` is that of one case of the suite: a job at a thread count, done by fastnorm alone (its share of the memory
limit) or raced against a rival (the median of the paired ratios). Geometric means take every case. Extremes leave out
the cases during which other programs used the cores, and whoever shows an extreme says how many these were.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path

NOTABLE_CORES = 0.4  # used by other programs meanwhile: a case is disturbed. Linux counts ticks of 10 ms
KIB, MIB = 2**10, 2**20
RIVALS = {  # in the order of the report
    "torch": "PyTorch",
    "numpy": "NumPy",
    "sklearn": "scikit-learn",
    "numba": "Numba",
    "onnxruntime": "ONNX Runtime",
    "bottleneck": "Bottleneck",
    "scipy": "SciPy",
    "cv2": "OpenCV",
    "albumentations": "Albumentations",
    "sklearnex": "sklearnex",
}
ITSELF = {  # fastnorm against another way of its own, or the best of all: no rivals, but raced like them
    "best": "quickest way of all",
    "float32": "itself in float32",
    "plain": "itself without ReLU",
    "one thread": "itself on one thread",
}
FAMILIES = {  # of operations, for what must be short; any other operation is a family of its own
    "mean, var, std": ("mean_var", "mean", "var", "std"),
    "minmax": ("minmax",),
    "moments": ("moments", "Moments*"),
    "layer_norm": ("layer_norm", "add_layer_norm"),
    "rms_norm": ("rms_norm", "add_rms_norm"),
    "batch_norm": ("batch_norm", "fold_batch_norm"),
    "group_norm, instance_norm": ("group_norm", "instance_norm"),
    "normalize, local_response_norm": ("normalize", "local_response_norm"),
    "backward passes": ("*_backward",),
    "standardize, min_max_scale": ("standardize", "min_max_scale"),
    "estimators: fit": ("*.fit",),
    "estimators: transform": ("*.transform", "*.inverse_transform", "*.fit_transform"),
    "pictures": ("image_*",),
}


class ResultsError(Exception):
    """Results that cannot be reported, in a line for the user."""


@dataclass(frozen=True)
class Result:
    group: str  # that of the benchmark file
    op: str
    variant: str
    shape: tuple
    axis: int | None
    dtype: str
    size: str
    nbytes: int
    threads: int
    rival: str
    right: bool
    seconds: float
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    own_seconds: float | None = None
    busy: float = 0.0
    limit: str | None = None
    fraction: float | None = None
    moved: int | None = None
    limit_seconds: float | None = None

    @property
    def form(self):
        return f"{self.op} {self.variant}".rstrip()

    @property
    def mode(self):
        """The operation, with the variant that makes it another algorithm rather than another call."""
        first = self.variant.partition(" ")[0]
        return f"{self.op} {first}" if first in {"training", "evaluation"} else self.op

    @property
    def job(self):
        words = [self.op, "x".join(map(str, self.shape))]
        if self.axis is not None:
            words.append(f"axis={self.axis}")
        words += [self.variant] if self.variant else []
        words += [self.dtype] if self.dtype != "float32" else []
        return " ".join(words)

    def __str__(self):
        return f"{self.job}, {count(self.threads, 'thread')}"

    @property
    def share(self):
        """Our time as a share of the rival's."""
        return 1 / self.ratio

    @property
    def fresh(self):
        """Whether every call returns new arrays."""
        return not any(word in self.variant for word in ("out=", "copy=False"))

    @property
    def quiet(self):
        return self.busy <= NOTABLE_CORES

    @property
    def row_bytes(self):
        return self.shape[-1] * self.nbytes // max(1, math.prod(self.shape)) if self.shape else 0


# ---- reading


@dataclass(frozen=True)
class Run:
    cases: list
    machine: dict


def read(path):
    """Read one file of results."""
    try:
        content = json.loads(path.read_text())
        cases = [result(entry) for entry in content["benchmarks"]]
    except FileNotFoundError:
        raise ResultsError(f"{path} is missing: `make bench` writes it") from None
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ResultsError(f"{path} is not JSON; `make bench` writes it anew") from None
    except (KeyError, TypeError) as error:
        raise ResultsError(f"{path} is not of this suite ({error}); `make bench` writes it anew") from None
    if not cases:
        raise ResultsError(f"{path} holds no benchmarks; `make bench` writes it anew")
    return Run(cases, content["machine_info"])


def result(entry):
    """Make a result of one benchmark of the JSON file."""
    info = entry["extra_info"]
    group = Path(entry["fullname"].partition("::")[0]).stem.removeprefix("bench_")
    known = {f.name for f in fields(Result)} - {"group", "shape"}
    found = {name: value for name, value in info.items() if name in known and value is not None}
    made = Result(group=group, shape=tuple(info["shape"]), **{"axis": None, "variant": ""} | found)
    if made.rival != "fastnorm" and not made.ratio:
        raise KeyError(f"no ratio of {made.rival} in {made}")
    return made


def caches(folder=Path("/sys/devices/system/cpu/cpu0/cache")):
    """List the caches for data of this machine's first core, smallest first: level and bytes."""
    found = {}
    for index in folder.glob("index*"):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
            if kind != "Instruction":
                found[int(level)] = int(size[:-1]) * {"K": KIB, "M": MIB}[size[-1]]
        except (OSError, ValueError, KeyError, IndexError):
            continue
    return sorted(found.items())


# ---- arithmetic


def geometric_mean(values):
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def by(cases, key):
    """Group cases in the order in which their keys are first met."""
    groups = {}
    for case in cases:
        groups.setdefault(key(case), []).append(case)
    return groups


def of_rivals(cases):
    """Return the races against other libraries, by rival in the order of the report."""
    races = by((c for c in cases if c.rival not in {"fastnorm", *ITSELF} and c.op != "import"), lambda c: c.rival)
    order = [*RIVALS, *sorted(races.keys() - RIVALS.keys())]
    return {rival: races[rival] for rival in order if rival in races}


def family(case):
    """Name the family of a case's operation. Backward passes are one, whatever they go back through."""
    for name, patterns in FAMILIES.items():
        if any(fnmatchcase(case.op, pattern) for pattern in patterns):
            return name
    return case.op


def families(cases):
    """Return the races by family, in the order of the table above; the others follow."""
    groups = by(cases, family)
    order = [*FAMILIES, *(name for name in groups if name not in FAMILIES)]
    return {name: groups[name] for name in order if name in groups}


# ---- targets


def is_smallest(case):
    calls = {
        ("layer_norm", (8, 64), None),
        ("batch_norm training", (64, 128), None),
        ("mean_var", (100, 20), 0),
    }
    return (case.form, case.shape, case.axis) in calls


def is_row_in_cache(case):
    return case.threads == 1 and case.size == "cache" and KIB <= case.row_bytes <= 16 * KIB


@dataclass(frozen=True)
class Target:
    """What is asked of the geometric mean and of the worst case of some cases."""

    title: str
    chosen: Callable
    mean: float
    worst: float | None
    value: str = "ratio"  # the property of a case that is judged
    run: str = "suite"
    at_most: bool = False  # small is good

    def meets(self, found, asked):
        return found <= asked if self.at_most else found >= asked

    def judge(self, runs):
        """Judge the cases of a run; None where nothing was measured."""
        cases = [case for case in runs[self.run].cases if self.chosen(case)] if self.run in runs else []
        if not cases:
            return None
        quiet = [case for case in cases if case.quiet]
        mean = geometric_mean([getattr(case, self.value) for case in cases])
        worst = (max if self.at_most else min)(quiet, key=lambda case: getattr(case, self.value), default=None)
        met = self.meets(mean, self.mean)
        if self.worst is not None:
            met = met and worst is not None and self.meets(getattr(worst, self.value), self.worst)
        return Verdict(len(cases), len(cases) - len(quiet), mean, worst, met)


@dataclass(frozen=True)
class Verdict:
    cases: int
    disturbed: int
    mean: float
    worst: Result | None  # of the quiet cases
    met: bool


def against(rival):
    return lambda case: case.rival == rival and case.op != "import"


TARGETS = [
    Target("PyTorch, fresh outputs", lambda c: c.rival == "torch" and c.fresh, 3, 1.25),
    Target("NumPy", against("numpy"), 12, 4),
    Target("scikit-learn", against("sklearn"), 9, 1.3),
    Target("ONNX Runtime", against("onnxruntime"), 2, 1.1),
    Target("Numba, loops written by hand", against("numba"), 2, 1.1),
    Target(
        "PyTorch, one thread, in cache, rows of 1 KiB to 16 KiB",
        lambda c: c.rival == "torch" and c.fresh and is_row_in_cache(c),
        1.4,
        1.15,
    ),
    Target("PyTorch, both with AVX2 only", lambda c: c.rival == "torch" and c.fresh, 2, 1, run="avx2"),
    Target(
        "smallest calls, share of PyTorch's time",
        lambda c: c.rival == "torch" and is_smallest(c),
        0.3,
        0.4,
        "share",
        at_most=True,
    ),
    Target(
        "two threads over one, in cache, from 256 KiB", lambda c: c.rival == "one thread" and in_cache(c), 1.7, None
    ),
    Target(
        "share of the memory limit, two threads, from memory into `out=`",
        lambda c: is_from_memory(c) and "out=" in c.variant,
        0.88,
        0.8,
        "fraction",
    ),
    Target(
        "likewise, only read or in place",
        lambda c: is_from_memory(c) and "out=" not in c.variant,
        0.88,
        0.8,
        "fraction",
    ),
]
IMPORT_SECONDS = 0.015  # allowed beside NumPy's own import


def is_from_memory(case):
    return case.fraction is not None and case.threads == 2 and case.size == "memory"


def in_cache(case):
    return case.size == "cache" and case.nbytes >= 256 * KIB


def imports(cases):
    """Return the race of the two imports, or None."""
    return next((case for case in cases if case.op == "import" and case.rival == "numpy"), None)


# ---- words


def show(ratio, digits=3):
    """Format a ratio with so many significant digits, and never with an exponent."""
    if not ratio:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(ratio)))
    rounded = round(ratio, places)
    return f"{rounded:.{max(0, digits - 1 - math.floor(math.log10(abs(rounded))))}f}"


def count(number, noun):
    return f"{number} {noun}{'' if number == 1 else 's'}"


def show_bytes(size):
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:g} {unit}"
        size /= 1024
    return None


def title(rival):
    return (RIVALS | ITSELF).get(rival, rival)
