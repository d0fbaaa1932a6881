"""The suite: every public operation at every kind of shape, in three dtypes.

A family pairs operations with shapes. What a shape is there for is the `size` of its jobs: the call's overhead (tiny),
arithmetic (cache), the memory's rate (memory), tails and narrow tables (awkward), one row, one column; and a sweep of
sizes from 4 KiB to 256 MiB. The jobs that are held against targets one by one are those of `jobs`.
"""

import importlib.util
from dataclasses import dataclass, replace

import rivals
from jobs import ESTIMATORS, FRAME, IMAGE, PICTURE, Job
from libraries import THREADS

DTYPES = ["float32", "float64", "float16"]
SPLIT_BYTES = 2**18  # from here on two threads are raced against one
NO_RIVALS = {"fastnorm", "float32"}

ROWS = {
    "tiny": [(8, 64)],
    "cache": [(128, 768), (256, 256), (64, 1024), (16, 4096)],
    "memory": [(12288, 1024)],
    "awkward": [(4096, 8), (1000, 63), (1000, 100), (500, 1000), (251, 997)],
    "row": [(1, 100003)],
    "column": [(100003, 1)],
}
COLUMNS = {
    "tiny": [(100, 20)],
    "cache": [(2000, 30)],
    "memory": [(400000, 30)],
    "awkward": [(100003, 3), (10007, 8), (3001, 63), (2003, 100), (301, 1000), (211, 997)],
    "column": [(1000003, 1)],
}
ONE_ROW = {"row": [(1, 100003)]}
FEW_COLUMNS = {"tiny": [(100, 20)], "cache": [(2000, 30)], "memory": [(400000, 30)], "awkward": [(100003, 3)]}
FLAT = {"tiny": [(2000,)], "awkward": [(100003,)], "memory": [(12000017,)]}
SAMPLES = {
    "tiny": [(64, 128)],
    "cache": [(512, 256)],
    "memory": [(24000, 512)],
    "awkward": [(4096, 3), (4096, 30), (1000, 63), (1000, 100), (500, 1000), (251, 997)],
}
PLANES = {
    "tiny": [(2, 4, 8, 8)],
    "cache": [(8, 64, 14, 14)],
    "memory": [(60, 64, 56, 56)],
    "awkward": [(16, 3, 33, 31), (8, 30, 17, 19), (64, 512, 7, 7)],
}
CHANNELS_LAST = {"cache": [(8, 14, 14, 64)], "memory": [(60, 56, 56, 64)]}
FILTERS = {"tiny": [(16, 3, 3, 3)], "cache": [(128, 64, 3, 3)]}
PICTURES = {"cache": [PICTURE], "memory": [FRAME, (64, *PICTURE)], "awkward": [(333, 251, 3)], "tiny": [(32, 32, 3)]}

NORMS = ["layer_norm", "rms_norm", "add_layer_norm", "add_rms_norm"]
NORMS_BACKWARD = ["layer_norm_backward", "rms_norm_backward"]
NORMALIZE = ["normalize", "normalize_backward"]
SCALING = ["standardize", "min_max_scale"]
STATISTICS = ["mean_var", "minmax", "moments order=4 minmax="]
SINGLE_STATISTICS = ["mean", "var", "std"]
MASKED_STATISTICS = ["mean_var where=", "mean_var weights=", "mean_var nan_policy="]
METHODS = ["fit", "transform", "fit_transform", "inverse_transform"]
BATCH_NORMS = ["batch_norm training", "batch_norm evaluation", "batch_norm_backward"]
PLANE_NORMS = [
    f"{op}{way}" for op in ["group_norm", "instance_norm", "local_response_norm"] for way in ["", "_backward"]
]

# The loops that move the bytes which must be moved. What is normalized by statistics of all rows reads its input twice;
# so does an estimator that writes where the caller's values are, because it first looks for infinity.
INTO_OUT = {
    **dict.fromkeys(["layer_norm", "rms_norm", "normalize", "batch_norm evaluation"], "stream"),
    **dict.fromkeys(["group_norm", "instance_norm", "local_response_norm"], "stream"),
    **dict.fromkeys(["add_layer_norm", "add_rms_norm"], "stream+stream"),
    **dict.fromkeys(["standardize", "min_max_scale", "batch_norm training"], "read+stream"),
    **dict.fromkeys([*NORMS_BACKWARD, "group_norm_backward", "instance_norm_backward"], "read+stream"),
    **{f"{name}.transform": "read+stream" for name in ESTIMATORS[:3]},
    "batch_norm_backward": "read+read+read+stream",
}
ONLY_READ = dict.fromkeys(
    [*STATISTICS, *SINGLE_STATISTICS, "StandardScaler.fit", "MinMaxScaler.fit", "MaxAbsScaler.fit"], "read"
)
IN_PLACE = {f"{name}.transform copy=False": "read+update" for name in ESTIMATORS[:3]}


def family(forms, shapes, axis=None, dtypes=DTYPES):
    """List every form at every shape in every dtype; memory-sized once more with `out=`, held against the limit.

    Memory-sized work takes the most time: in float64 and float16 there is only what is held against the limit.
    """
    found = []
    for form in forms:
        op, _, variant = form.partition(" ")
        for size, shape in [(size, shape) for size, listed in shapes.items() for shape in listed]:
            for dtype in dtypes:
                job = Job(op, shape, axis, variant, dtype, size=size)
                memory = size == "memory"
                limit = ONLY_READ.get(form) if memory else None
                if limit or not memory or dtype == "float32":
                    found.append(replace(job, limit=limit))
                if memory and form in INTO_OUT:
                    found.append(replace(job, variant=f"{variant} out=".lstrip(), limit=INTO_OUT[form]))
    return found


def estimators():
    """List the methods of the estimators; a Normalizer has no inverse."""
    forms = [f"{name}.{method}" for name in ESTIMATORS for method in METHODS]
    forms.remove("Normalizer.inverse_transform")
    in_place = family(IN_PLACE, {"memory": COLUMNS["memory"]}, dtypes=DTYPES[:2])
    return [
        *family(forms, COLUMNS, dtypes=["float32"]),
        *family(forms, FEW_COLUMNS, dtypes=["float64"]),
        *[replace(job, limit=IN_PLACE[job.form]) for job in in_place],
    ]


def pictures():
    """List the jobs of `jobs` and a few more sizes, without targets."""
    first = IMAGE[0]
    shapes = {shape: size for size, listed in PICTURES.items() for shape in listed}
    more = [replace(first, shape=shape) for shape, size in shapes.items() if size in {"tiny", "awkward"}]
    sizes = {(256, 256, 3): "cache", (3, 224, 224): "cache"} | shapes
    return [replace(job, targets={}, size=sizes[job.shape]) for job in [*more, *IMAGE]]


SWEEP_BYTES = [4**k for k in range(6, 15)]  # 4 KiB to 256 MiB
SWEEP_CACHED_BYTES = 2**24  # up to here ordinary stores are quicker than streaming ones
SWEEPS = {  # form: (columns, axis, limit)
    "layer_norm out=": (1024, None, "stream"),
    "batch_norm evaluation out=": (64, None, "stream"),
    "standardize out=": (32, 0, "read+stream"),
    "mean_var": (32, 0, "read"),
    "minmax": (32, 0, "read"),
}


def sweep():
    found = []
    for form, (columns, axis, limit) in SWEEPS.items():
        op, _, variant = form.partition(" ")
        for nbytes in SWEEP_BYTES:
            loops = limit.replace("stream", "copy") if nbytes <= SWEEP_CACHED_BYTES else limit
            found.append(Job(op, (nbytes // 4 // columns, columns), axis, variant, limit=loops, size="sweep"))
    return found


SUITE = {  # as the bench files
    "functional": [
        *family([*NORMS, *NORMS_BACKWARD], ROWS),
        *family(SCALING, COLUMNS, axis=0),
    ],
    "channels": [
        *family(BATCH_NORMS, SAMPLES),
        *family([*BATCH_NORMS, *PLANE_NORMS[:4]], PLANES),
        *family(BATCH_NORMS, CHANNELS_LAST, axis=-1),
        *family(["fold_batch_norm"], FILTERS, axis=0),
    ],
    "local": [
        *family(NORMALIZE, ROWS, axis=1),
        *family(PLANE_NORMS[4:], PLANES),
    ],
    "stats": [
        *family(STATISTICS, COLUMNS, axis=0),
        *family(["mean_var", "minmax"], ONE_ROW, axis=0),
        *family([*STATISTICS, *SINGLE_STATISTICS], FLAT),
        *family([*SINGLE_STATISTICS, *MASKED_STATISTICS], FEW_COLUMNS, axis=0),
    ],
    "image": pictures(),
    "preprocessing": estimators() if importlib.util.find_spec("sklearn") else [],
    "sweep": sweep(),
}
QUICK_SHAPES = [
    (8, 64),
    (256, 256),
    (1000, 100),
    (100, 20),
    (2000, 30),
    (64, 128),
    (512, 256),
    (8, 64, 14, 14),
    PICTURE,
]


@dataclass(frozen=True)
class Case:
    """A job that a rival does with so many threads."""

    job: Job
    threads: int
    rival: str

    @property
    def quick(self):
        """Whether it is one of the few that tell soonest how things stand."""
        job = self.job
        if job.dtype not in {"float32", "uint8"}:
            return False
        return job.shape in QUICK_SHAPES or (job.size == "memory" and bool(job.limit) and self.rival == "fastnorm")

    def __str__(self):
        return f"{self.job} {self.threads} {self.rival}"


def cases(group):
    """List the cases of a group: those of a job follow one another, fastnorm's first."""
    return [
        Case(job, threads, rival)
        for job in SUITE[group]
        for threads in sorted({1, THREADS})
        for rival in contenders(job, threads)
    ]


def contenders(job, threads):
    """List who does a job, fastnorm first; what is there for the limit has no other rival."""
    against_itself = ["one thread"] if threads > 1 and job.nbytes >= SPLIT_BYTES else []
    for_limit = job.size == "sweep" or "out=" in job.variant or (job.size == "memory" and job.dtype in DTYPES[1:])
    others = [] if for_limit else [name for name in rivals.ways(job, rivals.RIVALS) if name not in NO_RIVALS]
    return ["fastnorm", *against_itself, *others]
