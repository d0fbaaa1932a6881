"""The one list of jobs that the benchmarks time, with their inputs and targets.

A job names an operation, a shape, an axis, a dtype and a variant; its inputs are made from a fixed seed. The tables of
`rivals` and the exact answers of `exact` are looked up by a job's form, which is the operation and its variant.
"""

import functools
import importlib.util
from dataclasses import dataclass, field, fields, replace

import numpy as np

EPS = 1e-5
HALVES = ["float16"]
if importlib.util.find_spec("ml_dtypes"):
    import ml_dtypes  # noqa: F401, since NumPy knows the name bfloat16 only after this

    HALVES.append("bfloat16")


@dataclass(frozen=True)
class Job:
    op: str
    shape: tuple
    axis: int | None = None
    variant: str = ""  # the keyword that makes it another job, for example "out=" or "where="
    dtype: str = "float32"
    limit: str | None = None  # the memory limit it is held against: "read" or "stream"
    targets: dict = field(default_factory=dict, hash=False)  # rival: times as fast; limit: fraction of it

    @property
    def form(self):
        return f"{self.op} {self.variant}".rstrip()

    def __str__(self):
        words = [self.op, "x".join(map(str, self.shape))]
        if self.axis is not None:
            words.append(f"axis={self.axis}")
        if self.variant:
            words.append(self.variant)
        if self.dtype != "float32":
            words.append(self.dtype)
        return " ".join(words)


TABLE = (1000000, 30)
LAYER_NORM = [
    Job("layer_norm", (8, 64), targets={"torch": 1 / 0.3, "numpy": 1 / 0.07}),
    Job("layer_norm", (128, 768), targets={"torch": 1.4, "numpy": 10}),
    Job("layer_norm", (1024, 1024), targets={"torch": 1.4, "numpy": 10}),
    Job("layer_norm", (4096, 1024), targets={"torch": 1.4, "numpy": 10}),
    Job("layer_norm", (65536, 64), targets={"torch": 2.5}),
    Job("layer_norm", (1000000, 8), targets={"torch": 5}),
    Job("layer_norm", (16384, 4096), variant="out=", limit="stream", targets={"limit": 0.85}),
    *[Job("layer_norm", (4096, 1024), dtype=half, targets={"float32": 1}) for half in HALVES],
]
RMS_NORM = [
    Job("rms_norm", shape, targets={"torch": 2.5})
    for shape in [(8, 64), (128, 768), (1024, 1024), (4096, 1024), (65536, 64), (1000000, 8)]
]
ADD_NORM = [
    Job("add_layer_norm", (4096, 1024), targets={"torch": 2}),
    Job("add_rms_norm", (4096, 1024)),
]
BACKWARD = [
    *[Job("layer_norm_backward", s, targets={"torch": 1.7}) for s in [(1024, 1024), (4096, 1024), (65536, 64)]],
    Job("rms_norm_backward", (4096, 1024)),
]
SCALING = [
    Job("standardize", TABLE, axis=0),
    Job("min_max_scale", TABLE, axis=0),
]
STATISTICS = [
    Job("mean_var", (50000000,), limit="read", targets={"limit": 0.7}),
    Job("mean_var", TABLE, axis=0, limit="read", targets={"limit": 0.6}),
    Job("mean_var", TABLE, axis=0, variant="where=", targets={"numpy": 5}),
    Job("mean_var", TABLE, axis=0, variant="weights=", targets={"numpy": 5}),
    Job("mean_var", TABLE, axis=0, variant="nan_policy=", targets={"numpy": 5}),
    Job("moments", TABLE, axis=0, variant="order=4 minmax=", limit="read", targets={"scipy": 20}),
    Job("minmax", (50000000,), limit="read", targets={"limit": 0.8}),
    Job("minmax", TABLE, axis=0, limit="read", targets={"limit": 0.8}),
]
FUNCTIONAL = LAYER_NORM + RMS_NORM + ADD_NORM + BACKWARD + SCALING
JOBS = FUNCTIONAL + STATISTICS


@dataclass(frozen=True)
class Inputs:
    """The arrays of a job, as far as it needs them."""

    x: np.ndarray
    axis: int | None = None
    residual: np.ndarray | None = None
    dy: np.ndarray | None = None
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    where: np.ndarray | None = None
    weights: np.ndarray | None = None
    out: np.ndarray | None = None

    @property
    def width(self):
        return self.x.shape[-1:]

    def each(self, function):
        """Return the same with a function applied to every array that is there."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "axis"}
        return replace(self, **{name: function(a) for name, a in arrays.items() if a is not None})


@functools.lru_cache(maxsize=1)
def inputs(job):
    """Make the arrays of a job; the last job's are kept, because its rivals follow one another."""
    rng = np.random.default_rng(20240229)
    x = rng.standard_normal(job.shape, dtype=np.float32)
    x *= 2
    x += 1
    made = {}
    if "norm" in job.op:
        made["weight"] = rng.uniform(0.5, 1.5, job.shape[-1]).astype(job.dtype)
        made["bias"] = rng.uniform(-1, 1, job.shape[-1]).astype(job.dtype)
    if job.op.startswith("add_"):
        made["residual"] = rng.standard_normal(job.shape, dtype=np.float32).astype(job.dtype)
    if job.op.endswith("_backward"):
        made["dy"] = rng.standard_normal(job.shape, dtype=np.float32).astype(job.dtype)
    if job.variant == "where=":
        made["where"] = rng.random(job.shape, dtype=np.float32) < 0.8
    if job.variant == "weights=":
        made["weights"] = rng.random(len(x), dtype=np.float32)
    if job.variant == "nan_policy=":
        x[rng.random(job.shape, dtype=np.float32) < 0.05] = np.nan
    if job.variant == "out=":
        made["out"] = np.zeros_like(x)
    return Inputs(x.astype(job.dtype, copy=False), job.axis, **made)
