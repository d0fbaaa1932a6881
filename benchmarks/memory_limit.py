"""The memory limit of this machine, measured by plain C loops at the size and thread count of a benchmark.

The loops (memory_limit.c) are compiled with the system's C compiler at first use and kept in the user's cache
directory, under a name that changes with the source, the compiler and the processor.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import sysconfig
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")


def read(src, threads):
    """Read every byte of `src` once; returns the sum of its 64-bit words. Moves `src.nbytes`."""
    return library().memory_read(src.ctypes.data, src.nbytes, threads)


def stream(dst, src, threads):
    """Copy `src` to `dst` with streaming (non-temporal) stores. Moves `2 * src.nbytes`."""
    library().memory_stream(*pointers(dst, src, src.nbytes), src.nbytes, threads)


def widen(dst, src, threads):
    """Write a word of four bytes for each byte of `src`, with streaming stores. Moves `5 * src.nbytes`."""
    library().memory_widen(*pointers(dst, src, 4 * src.nbytes), src.nbytes, threads)


def update(x, threads):
    """Read every byte of `x` and write it back as it was. Moves `2 * x.nbytes`."""
    if not x.flags.c_contiguous:
        raise ValueError("an update needs a contiguous array")
    library().memory_update(x.ctypes.data, x.nbytes, 0, threads)


def pointers(dst, src, nbytes):
    if dst.nbytes != nbytes or not (dst.flags.c_contiguous and src.flags.c_contiguous):
        raise ValueError(f"a copy needs two contiguous arrays, the first of {nbytes} bytes")
    return dst.ctypes.data, src.ctypes.data


@functools.cache
def library():
    """Load the compiled loops."""
    loaded = ctypes.CDLL(str(compiled()))
    address, size, count = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    loaded.memory_read.argtypes = [address, size, count]
    loaded.memory_read.restype = ctypes.c_uint64
    loaded.memory_stream.argtypes = [address, address, size, count]
    loaded.memory_stream.restype = None
    loaded.memory_widen.argtypes = [address, address, size, count]
    loaded.memory_widen.restype = None
    loaded.memory_update.argtypes = [address, size, ctypes.c_uint64, count]
    loaded.memory_update.restype = None
    return loaded


def compiled():
    """Find the shared library, or build it at first use."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    key = hashlib.sha256(repr((SOURCE.read_bytes(), compiler, FLAGS, processor())).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastnorm-benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"memory_limit-{key}{sysconfig.get_config_var('SHLIB_SUFFIX')}"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            built = Path(scratch) / path.name
            subprocess.run([*compiler, *FLAGS, "-o", str(built), str(SOURCE)], check=True)
            built.replace(path)  # atomic: a concurrent run sees all of it or nothing
    return path


def processor():
    """Name what -march=native depends on: the machine and the flags of its first CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return platform.machine(), next((line for line in lines if line.startswith(("flags", "Features"))), "")
