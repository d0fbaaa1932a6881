"""The one list of jobs that the benchmarks time, with their inputs and targets.

A job names an operation, a shape, an axis, a dtype and a variant; its inputs are made from a fixed seed. The tables of
`rivals` and the exact answers of `exact` are looked up by a job's form, which is the operation and its variant.
"""

import copy
import functools
import importlib.util
import math
from dataclasses import dataclass, field, fields, replace

import numpy as np

EPS = 1e-5
MOMENTUM = 0.1
NUM_GROUPS = 8  # of a group norm, where the channels can be shared so
NEIGHBOURS = {"size": 5, "alpha": 0.1, "beta": 0.75, "k": 2.0}  # of every local response norm
HALVES = ["float16"]
if importlib.util.find_spec("ml_dtypes"):
    import ml_dtypes  # noqa: F401, since NumPy knows the name bfloat16 only after this

    HALVES.append("bfloat16")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of every picture
LEVELS = {"uint8": 255, "uint16": 65535, "float32": 1}  # the stored number of a picture's white
CROP = slice(16, 240), slice(16, 240)
ESTIMATORS = ["StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "Normalizer"]
NORMS = ["l1", "l2", "max"]
MOVED = {
    "read": 1,
    "copy": 2,
    "stream": 2,
    "update": 2,
    "widen": 5,
}  # bytes for each of x, by each loop of memory_limit


def groups(channels):
    """Return how many groups the channels of a group norm form."""
    return math.gcd(NUM_GROUPS, channels)


@dataclass(frozen=True)
class Job:
    op: str
    shape: tuple
    axis: int | None = None  # that of the channels, where there are channels: None if they come second
    variant: str = ""  # the mode or keyword that makes it another job, for example "training", "out=" or "where="
    dtype: str = "float32"
    limit: str | None = None  # the memory limit it is held against: a loop of memory_limit, or several joined by "+"
    targets: dict = field(default_factory=dict, hash=False)  # rival: times as fast; limit: fraction; memory: megabytes
    size: str = ""  # in the suite: its kind of shape

    @property
    def form(self):
        return f"{self.op} {self.variant}".rstrip()

    @property
    def estimator(self):
        """The name of the estimator whose method this is, or None."""
        return self.op.partition(".")[0] if "." in self.op else None

    @property
    def elements(self):
        return math.prod(self.shape)

    @property
    def nbytes(self):
        """The bytes of x."""
        return self.elements * np.dtype(self.dtype).itemsize

    @property
    def moved(self):
        """The bytes that its limit moves, or None."""
        return self.limit and sum(MOVED[loop] for loop in self.limit.split("+")) * self.nbytes

    @property
    def activation(self):
        return "relu" if self.variant.endswith("relu") else None

    @property
    def parameter_axis(self):
        """The axis along which weight and bias lie, or None for an operation that has none."""
        if self.op == "fold_batch_norm":
            return 0
        if self.op.startswith(("batch_norm", "group_norm", "instance_norm")):
            return 1 if self.axis is None else self.axis
        return -1 if self.op.removeprefix("add_").startswith(("layer_norm", "rms_norm")) else None

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
IMAGES = (32, 64, 56, 56)


def batches(op, variant, planes, others):
    """List a batch norm of every layout: channels as planes, as columns and last, and what is asked against PyTorch."""
    return [
        *[
            Job(op, s, variant=variant, targets={"torch": planes})
            for s in [IMAGES, (32, 256, 14, 14), (8, 512, 28, 28)]
        ],
        *[Job(op, shape, variant=variant, targets={"torch": others}) for shape in [(4096, 512), (100000, 64)]],
        Job(op, (32, 56, 56, 64), axis=-1, variant=variant, targets={"torch": others}),
    ]


BATCH_NORM = [
    *batches("batch_norm", "training", 3.5, 1.8),
    *batches("batch_norm", "evaluation", 1.2, 1.2),
    *batches("batch_norm_backward", "", 2, 2),
    *[
        Job("batch_norm", shape, variant=f"{mode} relu", targets={"plain": 1 / 1.05})
        for mode in ["training", "evaluation"]
        for shape in [IMAGES, (4096, 512)]
    ],
    *[
        Job("batch_norm", shape, variant=f"{mode} out=", limit=limit, targets={"limit": 0.8})
        for mode, limit in [("training", "read+stream"), ("evaluation", "stream")]
        for shape in [(64, 64, 112, 112), (1000000, 64)]
    ],
]
GROUP_NORM = [
    Job("group_norm", IMAGES, targets={"torch": 1.5}),
    Job("group_norm_backward", IMAGES, targets={"torch": 1.5}),
    Job("group_norm", (100000, 64), targets={"torch": 15}),
    Job("instance_norm", IMAGES, targets={"torch": 8}),
    Job("instance_norm_backward", IMAGES, targets={"torch": 8}),
]
FUNCTIONAL = LAYER_NORM + RMS_NORM + ADD_NORM + BACKWARD + SCALING
CHANNELS = BATCH_NORM + GROUP_NORM
LOCAL = [
    Job("normalize", (4096, 1024), axis=1),
    Job("normalize_backward", (4096, 1024), axis=1),
    Job("local_response_norm", IMAGES),
    Job("local_response_norm_backward", IMAGES),
]


def estimators(dtype, fit, scale, transform, in_place, fit_transform):
    """List the estimators' work on a table larger than the caches, and how many times as fast it shall be.

    Beside input and output it may take 16 MB.
    """

    def job(op, times, variant="", limit=None, share=None):
        targets = {"sklearn": times, "memory": 16, "limit": share}
        return Job(op, TABLE, variant=variant, dtype=dtype, limit=limit, targets=targets)

    simple = ESTIMATORS[:3]
    return [
        job("StandardScaler.fit", fit, limit="read", share=0.6),
        *[job(f"{name}.fit", scale, limit="read") for name in simple[1:]],
        job("RobustScaler.fit", 3, limit="read"),
        *[job(f"{name}.transform", transform) for name in simple],
        *[job(f"{name}.transform", in_place, "copy=False", "update") for name in simple],
        job("StandardScaler.fit_transform", fit_transform),
        *[job("Normalizer.transform", 3.5, norm) for norm in NORMS],
    ]


PICTURE, FRAME = (224, 224, 3), (1080, 1920, 3)


def picture(op, shape, variant, dtype="uint8", **targets):
    """List a job that is also raced, without a target, against the quickest way that any of its rivals knows."""
    return Job(op, shape, variant=variant, dtype=dtype, targets={"best": None} | targets)


IMAGE = [
    *[
        picture("image_normalize", shape, "CHW", torch=4, numpy=4, cv2=4, albumentations=4)
        for shape in [PICTURE, FRAME]
    ],
    replace(picture("image_normalize", (64, *PICTURE), "CHW out=", limit=0.8), limit="widen"),
    *[picture("image_normalize", shape, "HWC", cv2=2, albumentations=2) for shape in [PICTURE, FRAME]],
    picture("image_normalize", PICTURE, "CHW function"),
    picture("image_normalize", PICTURE, "CHW float16"),
    picture("image_normalize", (256, 256, 3), "CHW flipped crop"),
    *[picture("image_normalize", PICTURE, "CHW", dtype) for dtype in ["uint16", "float32"]],
    picture("image_to_tensor", PICTURE, "CHW"),
    picture("image_inverse", (3, 224, 224), "HWC", "float32"),
]
METHODS = ["fit", "transform", "fit_transform"]
PREPROCESSING = [
    *estimators("float32", fit=25, scale=15, transform=4, in_place=7, fit_transform=10),
    *estimators("float64", fit=14, scale=8, transform=3, in_place=5, fit_transform=6),
    *[
        Job(f"{name}.{method}", shape, dtype=dtype, targets=targets)
        for shape, dtype, targets in [
            ((1000, 20), "float32", {"sklearn": 1.3}),
            ((1000, 20), "float64", {"sklearn": 1.3}),
            ((10000, 30), "float32", {}),
        ]
        for name in ESTIMATORS
        for method in METHODS
    ],
]
GROUPS = {  # as the bench files
    "functional": FUNCTIONAL,
    "channels": CHANNELS,
    "local": LOCAL,
    "stats": STATISTICS,
    "image": IMAGE,
}
if importlib.util.find_spec("sklearn"):
    GROUPS["preprocessing"] = PREPROCESSING
JOBS = [job for group in GROUPS.values() for job in group]


@dataclass(frozen=True)
class Inputs:
    """The arrays of a job, as far as it needs them."""

    x: np.ndarray
    axis: int | None = None
    residual: np.ndarray | None = None
    dy: np.ndarray | None = None
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    running_mean: np.ndarray | None = None
    running_var: np.ndarray | None = None
    where: np.ndarray | None = None
    weights: np.ndarray | None = None
    out: np.ndarray | None = None
    out_sum: np.ndarray | None = None  # where x + residual goes

    @property
    def width(self):
        return self.x.shape[-1:]

    @property
    def groups(self):
        return groups(self.x.shape[1])

    @property
    def channel_axis(self):
        return 1 if self.axis is None else self.axis

    @property
    def all_but_channels(self):
        return tuple(a for a in range(self.x.ndim) if a != self.channel_axis % self.x.ndim)

    def per_channel(self, numbers):
        """Shape one number per channel so that they broadcast against x."""
        return np.expand_dims(numbers, self.all_but_channels)

    def own(self):
        """Return the same with running statistics of one's own, which training changes."""
        running = ("running_mean", "running_var")
        return replace(self, **{name: copy.deepcopy(getattr(self, name)) for name in running})

    def each(self, function):
        """Return the same with a function applied to every array that is there."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "axis"}
        return replace(self, **{name: function(a) for name, a in arrays.items() if a is not None})


@functools.lru_cache(maxsize=1)
def inputs(job):
    """Make the arrays of a job; the last job's are kept, because its rivals follow one another."""
    rng = np.random.default_rng(20240229)
    if job.op.startswith("image_"):
        return picture_inputs(job, rng)
    x = rng.standard_normal(job.shape, dtype=np.float32)
    x *= 2
    x += 1
    made = {}
    single = np.promote_types(job.dtype, np.float32)
    if job.parameter_axis is not None:
        # A batch norm in half precision has float32 parameters: PyTorch wants them to be like the running statistics.
        stored = single if "batch_norm" in job.op else job.dtype
        width = job.shape[job.parameter_axis]
        made["weight"] = rng.uniform(0.5, 1.5, width).astype(stored)
        made["bias"] = rng.uniform(-1, 1, width).astype(stored)
    if job.op in {"batch_norm", "fold_batch_norm"}:
        made["running_mean"] = rng.uniform(0.5, 1.5, width).astype(single)
        made["running_var"] = rng.uniform(3, 5, width).astype(single)
    if job.op.startswith("add_"):
        made["residual"] = rng.standard_normal(job.shape, dtype=np.float32).astype(job.dtype)
    if job.op.endswith("_backward"):
        made["dy"] = rng.standard_normal(job.shape, dtype=np.float32).astype(job.dtype)
    if job.variant == "where=":
        made["where"] = rng.random(job.shape, dtype=np.float32) < 0.8
    if job.variant == "weights=":
        made["weights"] = rng.random(len(x), dtype=np.float32).astype(single)
    if job.variant == "nan_policy=":
        x[rng.random(job.shape, dtype=np.float32) < 0.05] = np.nan
    x = x.astype(job.dtype, copy=False)
    if job.variant.endswith("out="):
        made["out"] = np.zeros_like(x)
        if "residual" in made:
            made["out_sum"] = np.zeros_like(x)
    return Inputs(x, job.axis, **made)


def picture_inputs(job, rng):
    """Make a picture or a batch of them, channels last; for an inverse, what a normalized one is, channels first."""
    if job.op == "image_inverse":
        levels = rng.integers(0, 256, job.shape)
        return Inputs(((levels / 255 - per_plane(MEAN)) / per_plane(STD)).astype(job.dtype))
    if job.dtype == "float32":
        x = rng.random(job.shape, dtype=np.float32)
    else:
        x = rng.integers(0, LEVELS[job.dtype] + 1, job.shape, dtype=job.dtype)
    planes = (*job.shape[:-3], job.shape[-1], *job.shape[-3:-1])
    return Inputs(x, out=np.zeros(planes, np.float32) if job.variant.endswith("out=") else None)


def per_plane(numbers):
    """Shape one number per channel so that they broadcast against planes."""
    return np.reshape(numbers, (-1, 1, 1))
