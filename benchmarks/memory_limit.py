"""The memory limit of this machine, measured by plain C loops at the size and thread count of a benchmark.

The loops (memory_limit.c) are compiled with the system's C compiler at first use and kept in the user's cache
directory, under a name that changes with the source, the compiler and the processor.
"""

import ctypes
import functools
import hashlib
import itertools
import os
import platform
import shlex
import subprocess
import sysconfig
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
SHARED_BYTES = 2**17
FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")


def moves(loops, sources, out, threads):
    """Return a call that moves bytes by C loops, one after another, which take the sources by turns.

    "read": read every byte once. "stream", "copy": copy to `out`, with streaming (non-temporal) or ordinary stores.
    "widen": write a word of four bytes for each byte. "update": read every byte and write it back as it was.
    """
    arrays = [*sources] if out is None else [*sources, out]
    if not all(array.flags.c_contiguous for array in arrays):
        raise ValueError("the loops need contiguous arrays")
    calls = [
        bound(f"memory_{loop}", src, out, threads) for loop, src in zip(loops, itertools.cycle(sources), strict=False)
    ]

    def call():
        for move in calls:
            move()

    call.arrays = arrays  # kept, because the loops know only addresses
    return call


def bound(name, src, out, threads):
    """Bind a loop to its arrays; sizes that a second thread does not help are moved by one."""
    function = getattr(library(), name)
    threads = threads if src.nbytes >= SHARED_BYTES else 1
    if name == "memory_update":
        return functools.partial(function, src.ctypes.data, src.nbytes, 0, threads)
    if name == "memory_read":
        return functools.partial(function, src.ctypes.data, src.nbytes, threads)
    times = 4 if name == "memory_widen" else 1
    if out.nbytes != times * src.nbytes:
        raise ValueError(f"{name} needs an array of {times * src.nbytes} bytes, not {out.nbytes}, to write to")
    return functools.partial(function, out.ctypes.data, src.ctypes.data, src.nbytes, threads)


@functools.cache
def library():
    """Load the compiled loops."""
    loaded = ctypes.CDLL(str(compiled()))
    address, size, count = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    loaded.memory_read.argtypes = [address, size, count]
    loaded.memory_read.restype = ctypes.c_uint64
    for copy in [loaded.memory_stream, loaded.memory_copy, loaded.memory_widen]:
        copy.argtypes = [address, address, size, count]
        copy.restype = None
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
