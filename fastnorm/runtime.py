"""Threads and their limits, the instruction set in use, and the report of both.

`threads` and `use_isa` hold for the calling Python thread only, so two callers never disturb each other, and OpenMP's
own settings, which other libraries share, are never changed. Neither choice changes a bit of any result.
"""

import operator
import os
import threading
from collections.abc import Callable
from contextlib import ContextDecorator
from typing import Any, SupportsIndex

import numpy as np

from . import _ops

__all__ = ["get_num_threads", "isa", "set_num_threads", "show_config", "threads", "use_isa"]

# OpenMP runtimes end the process when the system cannot start what was asked for; no machine gains from more.
_MOST_THREADS = 4096


class _Forced(ContextDecorator):
    """Forces a value in the calling thread, through `force(value) -> previous`, and restores the previous one.

    What was forced before is kept per thread and per entry, so one instance may be nested in itself and shared between
    threads, as happens when it decorates a function.
    """

    def __init__(self, force: Callable[[Any], Any], value: Any) -> None:
        self._force = force
        self._value = value
        self._local = threading.local()

    def __enter__(self) -> None:
        self._local.__dict__.setdefault("previous", []).append(self._force(self._value))

    def __exit__(self, *exc_info: object) -> None:
        self._force(self._local.previous.pop())


def _check_threads(where: str, n: Any, expected: str) -> int:
    expected += f" from 1 to {_MOST_THREADS}"
    try:
        if isinstance(n, (bool, np.bool)):
            raise TypeError
        count = operator.index(n)
    except TypeError:
        raise TypeError(f"{where}: n must be {expected}, got {n!r} of type {type(n).__name__}") from None
    if not 1 <= count <= _MOST_THREADS:
        raise ValueError(f"{where}: n must be {expected}, got {count}")
    return count


def _check_isa(where: str, name: Any) -> str:
    names = _ops.isa_names()
    expected = " or ".join(repr(known) for known in names)
    if not isinstance(name, str):
        raise TypeError(f"{where} must be {expected}, got {name!r} of type {type(name).__name__}")
    if name not in names:
        raise ValueError(f"{where} must be {expected}, the instruction sets supported here, got {name!r}")
    return name


def set_num_threads(n: SupportsIndex | None) -> None:
    """Set the number of threads for the whole process.

    Parameters
    ----------
    n : int or None
        At least 1; may exceed the number of cores. None returns to the default, the smallest of the CPUs in the
        affinity mask, the CPU quota of the control group and what OpenMP allows (``OMP_NUM_THREADS``,
        ``OMP_THREAD_LIMIT``, threadpoolctl), and reads the limits of the operating system again.

    Raises
    ------
    TypeError
        `n` is neither an integer nor None.
    ValueError
        `n` is less than 1 or more than 4096.

    See Also
    --------
    threads : the same for a block of code and the calling thread, where it wins over this setting.
    show_config : says which limit decides.

    Notes
    -----
    Small inputs use one thread whatever is set here. So does a child made by ``fork``, from then on: OpenMP runtimes
    do not survive it. OpenMP starts no more threads than ``OMP_THREAD_LIMIT``, and a build without OpenMP (see
    `show_config`) none at all. The results are the same bits in every case.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.set_num_threads(3)
    >>> fastnorm.get_num_threads()
    3
    >>> fastnorm.set_num_threads(None)
    """
    _ops.set_threads(0 if n is None else _check_threads("set_num_threads", n, "None or an integer"))


def get_num_threads() -> int:
    """Return the number of threads that a large call from this Python thread may use.

    Returns
    -------
    int
        What `threads` asks for in this thread, else what `set_num_threads` set, else the smallest limit; 1 in a
        forked child.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.get_num_threads() >= 1
    True
    """
    return _ops.get_threads()


def threads(n: SupportsIndex) -> _Forced:
    """Use `n` threads in a block of code, in the calling Python thread only.

    Parameters
    ----------
    n : int
        At least 1; may exceed the number of cores. Wins over `set_num_threads` and over every limit.

    Returns
    -------
    context manager
        Also usable as a decorator. It may be nested, entered again and shared between Python threads.

    Raises
    ------
    TypeError
        `n` is not an integer.
    ValueError
        `n` is less than 1 or more than 4096.

    See Also
    --------
    set_num_threads : the same for the whole process, with notes that hold here too.

    Examples
    --------
    >>> import fastnorm
    >>> with fastnorm.threads(2):
    ...     fastnorm.get_num_threads()
    2
    >>> @fastnorm.threads(1)
    ... def count():
    ...     return fastnorm.get_num_threads()
    >>> count()
    1
    """
    return _Forced(_ops.force_threads, _check_threads("threads", n, "an integer"))


def isa() -> str:
    """Return the name of the instruction set whose kernels a call from this Python thread runs.

    Returns
    -------
    str
        ``"avx512"``, ``"avx2"`` or ``"baseline"``: what `use_isa` asks for in this thread, else what the environment
        variable ``FASTNORM_ISA`` named when fastnorm was imported, else the best one supported here.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.isa() in ("avx512", "avx2", "baseline")
    True
    """
    return _ops.isa_active()


def use_isa(name: str) -> _Forced:
    """Run the kernels of one instruction set in a block of code, in the calling Python thread only.

    Results are the same bits under every instruction set; this is for tests and measurements.

    Parameters
    ----------
    name : str
        ``"avx512"``, ``"avx2"`` or ``"baseline"``, as far as the machine supports it.

    Returns
    -------
    context manager
        Also usable as a decorator. It may be nested, entered again and shared between Python threads.

    Raises
    ------
    TypeError
        `name` is not a string.
    ValueError
        `name` is unknown, or this machine does not support it.

    Examples
    --------
    >>> import fastnorm
    >>> with fastnorm.use_isa("baseline"):
    ...     fastnorm.isa()
    'baseline'
    """
    return _Forced(_ops.force_isa, _check_isa("use_isa: name", name))


def show_config() -> None:
    """Print how fastnorm was built and what it uses: compiler, OpenMP, instruction set, threads and each limit.

    The report describes a call from this Python thread, at this moment; attach it to bug reports.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.show_config()  # doctest: +ELLIPSIS
    fastnorm ...
    """
    from . import __version__  # noqa: PLC0415 (the package imports this module first)

    build = _ops.config()
    limits = _ops.thread_limits()
    rows = [
        ("fastnorm", __version__),
        ("compiler", build["compiler"]),
        ("OpenMP", f"yes (_OPENMP {build['openmp']})" if build["openmp"] else "no: calls run on one thread"),
        ("ISA active", _ops.isa_active()),
        ("ISA available", " ".join(_ops.isa_names())),
        ("  FASTNORM_ISA", _ISA_FROM_ENVIRONMENT or "not set"),
        ("threads", _ops.get_threads()),
        ("  threads(n), in this thread", limits["forced"] or "not set"),
        ("  set_num_threads", limits["set"] or "not set"),
        ("  CPUs in the affinity mask", limits["affinity"]),
        ("  cgroup CPU quota", f"{limits['quota']} ({limits['quota_file']})" if limits["quota"] else "none"),
        ("  OMP_NUM_THREADS, threadpoolctl", limits["omp_max_threads"]),
        ("  OMP_THREAD_LIMIT", limits["omp_thread_limit"] or "none"),
        ("  forked child", "yes: one thread" if limits["forked"] else "no"),
    ]
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        print(f"{label:<{width}}  {value}")


# Applied once. A bad value is a ValueError, not an ImportError: code that treats fastnorm as optional would swallow
# the latter and quietly do without.
_ISA_FROM_ENVIRONMENT = os.environ.get("FASTNORM_ISA", "")
if _ISA_FROM_ENVIRONMENT:
    _ops.set_default_isa(_check_isa("the environment variable FASTNORM_ISA", _ISA_FROM_ENVIRONMENT))
