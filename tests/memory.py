"""Arrays against unreadable pages, at any byte offset, over recognisable garbage; and the peak of a fresh process."""

import ctypes
import json
import math
import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastnorm

GARBAGE = 0xA5


def garbage(shape, dtype):
    """Make an output that shows which bytes were not written."""
    return place(np.full(math.prod(shape) * np.dtype(dtype).itemsize, GARBAGE, np.uint8), 0).view(dtype).reshape(shape)


def place(x, offset, order=64):
    """Copy x so that it is C-contiguous and its first byte lies `offset` bytes behind a multiple of `order`."""
    buffer = np.empty(x.nbytes + offset + order, np.uint8)
    start = -buffer.ctypes.data % order + offset
    y = buffer[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    y[...] = x
    return y


def guarded(x, side):
    """Copy x so that it ends ("behind") or begins ("before") at a page that kills the process when touched."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "mprotect"):
        pytest.skip("no mprotect on this system")
    page = mmap.PAGESIZE
    inner = max(1, -(-x.nbytes // page)) * page
    memory = mmap.mmap(-1, inner + 2 * page)
    raw = np.frombuffer(memory, np.uint8)
    for start in (0, page + inner):
        if libc.mprotect(ctypes.c_void_p(raw.ctypes.data + start), ctypes.c_size_t(page), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    start = page if side == "before" else page + inner - x.nbytes
    y = raw[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    y[...] = x
    return y


def compiled(path, text, *options):
    """Compile C, given as text or as files, with the compiler of the tests; skip without one."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or pytest.skip("no C compiler")
    sources = text
    if isinstance(text, str):
        sources = [path.with_suffix(".c")]
        sources[0].write_text(text)
    command = [compiler, "-std=gnu11", "-O1", "-g", *options, *sources, "-o", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the C compiler does not do this: {done.stderr.splitlines()[-1:]}")
    return path


def run_fresh(code, *args, **environment):
    """Run `code` in a fresh interpreter that imports this same fastnorm and these helpers; return what it printed."""
    paths = [str(Path(fastnorm.__file__).resolve().parents[1]), str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *args],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


_PEAK = """
import ctypes, json, re, sys
import numpy as np
import fastnorm

# M_MMAP_THRESHOLD of glibc: what is freed is given back at once, or a job would hide in what the one before it had.
getattr(ctypes.CDLL(None), "mallopt", lambda *_: None)(-3, 1 << 16)

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

def filled(shape, dtype):
    x = np.empty(shape, dtype)
    x.reshape(-1).view(np.uint8)[...] = 3
    return x

grown = {}
for name, setup, call in json.loads(sys.argv[1]):
    space = {"np": np, "fastnorm": fastnorm, "filled": filled}
    for line in (setup, call):   # the first call pays for threads and imports, on the head of the data
        exec(line.replace("BIG", "8"), space)
    exec(setup.replace("BIG", sys.argv[2]), space)
    open("/proc/self/clear_refs", "w").write("5")
    before = peak()
    exec(call, space)
    grown[name] = peak() - before
print(json.dumps(grown))
"""


def peak_growth(jobs, big):
    """Bytes by which the resident peak of a fresh process grows in each (name, setup, call); BIG stands for `big`."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("the resident peak cannot be reset on this system")
    if "asan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("the sanitizer's own memory hides ours")
    return json.loads(run_fresh(_PEAK, json.dumps(jobs), str(big)))
