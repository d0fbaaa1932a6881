"""The machine as Python sees it: instruction sets, threads, how this module was built."""

fn_isa_init()
if fn_threads_init():
    raise MemoryError("the fork handler of fastnorm could not be installed")


cdef str isa_name(int isa):
    return None if isa < 0 else fn_isa_name(isa).decode()


cdef int isa_index(name) except -2:
    """The index of a supported ISA's name; -1 for None. The names were checked in runtime.py."""
    if name is None:
        return -1
    for isa in range(fn_isa_count()):
        if fn_isa_supported(isa) and isa_name(isa) == name:
            return isa
    raise ValueError(f"unknown or unsupported ISA {name!r}")


def isa_names():
    """The ISAs that this build has and this machine runs, best first."""
    return tuple([isa_name(isa) for isa in range(fn_isa_count()) if fn_isa_supported(isa)])


def isa_active():
    """The ISA that a call from this thread uses."""
    return isa_name(fn_isa_active())


def set_default_isa(name):
    """Choose the ISA of every thread that forces none."""
    fn_isa_set_default(isa_index(name))


def force_isa(name):
    """Force an ISA (None: none) in the calling thread; return what was forced before."""
    return isa_name(fn_isa_force(isa_index(name)))


def set_threads(int n):
    """Set the thread count of the process; 0 returns to the limits and reads them again."""
    fn_threads_set(n)


def get_threads():
    """The number of threads that a call from this thread may use."""
    return fn_thread_count(fn_omp_max())


def force_threads(int n):
    """Force a thread count (0: none) in the calling thread; return what was forced before."""
    return fn_threads_force(n)


def cgroup_quota(root=""):
    """(CPUs, path of the file that decided) of the control group found below `root`; (0, "") without a quota."""
    cdef char file[FN_PATH_SIZE]
    cdef bytes prefix = os.fsencode(root)
    cdef int cpus = fn_cgroup_quota(prefix, file)
    return cpus, os.fsdecode(<bytes>file)


def thread_limits():
    """Every limit on the thread count, in the terms of runtime.h; 0: not set, no limit."""
    cdef fn_thread_limits limits = fn_threads_limits()
    cdef int most = fn_omp_thread_limit()
    return {
        "affinity": limits.affinity,
        "quota": limits.quota,
        "quota_file": cgroup_quota()[1] if limits.quota else "",
        "omp_max_threads": fn_omp_max_threads(),
        "omp_thread_limit": 0 if most == 0x7fffffff else most,
        "set": limits.set,
        "forced": limits.forced,
        "forked": bool(limits.forked),
    }


def config():
    """How this module was built: the compiler, and the date of the OpenMP specification (0: none)."""
    return {"compiler": FN_COMPILER.decode().strip(), "openmp": FN_OPENMP}
