"""What pictures cost beside their result: no thread for a single one, no temporary that grows with it."""

from pathlib import Path

import pytest
from memory import peak_growth, run_fresh

from fastnorm import _ops

_STARTED = """
import os, numpy, fastnorm
from fastnorm import image
norm = image.Normalize(image.IMAGENET_MEAN, image.IMAGENET_STD)
small = numpy.zeros((224, 224, 3), numpy.uint8)
batch = numpy.zeros((8, 512, 512, 3), numpy.uint8)
def started(call, *args):
    before = len(os.listdir("/proc/self/task"))
    with fastnorm.threads(3):
        call(*args)
    return len(os.listdir("/proc/self/task")) - before
print(started(norm, small), started(image.to_tensor, small), started(norm.inverse, norm(small)), started(norm, batch))
"""


@pytest.mark.skipif(not _ops.config()["openmp"], reason="this build has no OpenMP")
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc/self/task")
def test_a_picture_starts_no_thread_and_a_batch_does():
    assert run_fresh(_STARTED) == "0 0 0 2"


_NORM = "from fastnorm import image; n = image.Normalize(image.IMAGENET_MEAN, image.IMAGENET_STD{}); "
_JOBS = {
    "uint8": ("x = filled((BIG, 1, 3), 'u1'); y = filled((3, BIG, 1), 'f4')", "", "n(x, out=y)"),
    "uint8 to HWC": ("x = filled((BIG, 1, 3), 'u1'); y = filled((BIG, 1, 3), 'f4')", ", layout='HWC'", "n(x, out=y)"),
    "planes": ("x = filled((3, BIG, 1), 'u1'); y = filled((3, BIG, 1), 'f4')", ", input_layout='CHW'", "n(x, out=y)"),
    "a crop": ("x = filled((BIG, 2, 4), 'u1')[:, ::-1, :3]; y = filled((3, BIG, 2), 'f4')", "", "n(x, out=y)"),
    "swapped uint16": ("x = filled((BIG, 1, 3), '>u2'); y = filled((3, BIG, 1), 'f4')", "", "n(x, out=y)"),
    "half": ("x = filled((BIG, 1, 3), 'u1'); y = filled((3, BIG, 1), 'f2')", ", dtype='f2'", "n(x, out=y)"),
    "in place": ("x = filled((BIG, 1, 3), 'f4')", ", layout='HWC'", "n(x, out=x)"),
    "double": ("x = filled((BIG, 1, 3), 'f8'); y = filled((3, BIG, 1), 'f4')", "", "n(x, out=y)"),
    "bool": ("x = filled((BIG, 1, 3), '?'); x[...] = True; y = filled((3, BIG, 1), 'f4')", "", "n(x, out=y)"),
    "many channels": (
        "x = filled((BIG // 8, 1, 24), 'u1'); y = filled((24, BIG // 8, 1), 'f4');"
        " n = image.Normalize(0.5, 0.3, input_layout='HWC')",
        "",
        "n(x, out=y)",
    ),
    "to_tensor": ("x = filled((BIG, 1, 3), 'u1'); y = filled((3, BIG, 1), 'f4')", "", "image.to_tensor(x, out=y)"),
    "inverse": ("x = filled((3, BIG, 1), 'f4'); y = filled((BIG, 1, 3), 'u1')", "", "n.inverse(x, out=y)"),
}


@pytest.mark.wide
def test_no_temporary_grows_with_the_picture():
    jobs = [(name, _NORM.format(how) + setup, call) for name, (setup, how, call) in _JOBS.items()]
    grown = peak_growth(jobs, 2_000_000)  # bytes of one channel of uint8: a copy in float32 would be 24 MB
    assert {name: n for name, n in grown.items() if n > 3 << 20} == {}
