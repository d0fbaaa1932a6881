"""Threads, their limits and the choice of the instruction set, as a user of the package meets them.

What must be seen from a fresh process (import, environment, affinity, fork) runs in one.
"""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import fastnorm
from fastnorm import _ops

OPENMP = bool(_ops.config()["openmp"])
needs_openmp = pytest.mark.skipif(not OPENMP, reason="this build has no OpenMP")
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc/self/task")

VARIABLES = ("FASTNORM_ISA", "OMP_NUM_THREADS", "OMP_THREAD_LIMIT")


def start(code, **environment):
    """Run `code` in a fresh interpreter that imports this same fastnorm and sees only the variables given here."""
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    package = Path(fastnorm.__file__).resolve().parents[1]
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**inherited, "PYTHONPATH": str(package), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run(code, **environment):
    done = start(code, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def defaults():
    """Every test begins with no setting and leaves none in this thread or this process."""
    fastnorm.set_num_threads(None)
    yield
    fastnorm.set_num_threads(None)
    limits = _ops.thread_limits()
    assert (limits["set"], limits["forced"]) == (0, 0)


def in_threads(*functions):
    """Run the functions at the same time, each in a thread of its own; return their results."""
    with ThreadPoolExecutor(len(functions)) as pool:
        return [future.result(timeout=60) for future in [pool.submit(function) for function in functions]]


# ---- the number of threads -------------------------------------------------------------------------------------------


def test_the_default_is_the_smallest_limit():
    limits = _ops.thread_limits()
    names = ("affinity", "quota", "omp_max_threads", "omp_thread_limit")
    assert fastnorm.get_num_threads() == min(limits[name] for name in names if limits[name])


def test_an_explicit_number_wins_also_above_the_core_count():
    more = 3 * os.cpu_count() + 1
    fastnorm.set_num_threads(more)
    assert fastnorm.get_num_threads() == more
    with fastnorm.threads(more + 1):
        assert fastnorm.get_num_threads() == more + 1
    with fastnorm.threads(1):
        assert fastnorm.get_num_threads() == 1
    assert fastnorm.get_num_threads() == more


def test_set_num_threads_holds_for_every_thread_of_the_process():
    fastnorm.set_num_threads(5)
    assert in_threads(fastnorm.get_num_threads) == [5]
    in_threads(lambda: fastnorm.set_num_threads(6))
    assert fastnorm.get_num_threads() == 6


def test_threads_holds_for_the_calling_thread_only():
    both_inside = threading.Barrier(2, timeout=60)
    default = fastnorm.get_num_threads()

    def caller(n):
        with fastnorm.threads(n):
            both_inside.wait()
            seen = fastnorm.get_num_threads()
            both_inside.wait()
        return seen, fastnorm.get_num_threads()

    assert in_threads(lambda: caller(7), lambda: caller(11)) == [(7, default), (11, default)]
    assert fastnorm.get_num_threads() == default


def test_threads_is_restored_after_nesting_and_exceptions():
    @fastnorm.threads(5)
    def fail():
        assert fastnorm.get_num_threads() == 5
        raise KeyError

    with fastnorm.threads(3):
        with pytest.raises(KeyError):
            fail()
        assert fastnorm.get_num_threads() == 3
        with fastnorm.threads(3), fastnorm.threads(4):
            assert fastnorm.get_num_threads() == 4
        assert fastnorm.get_num_threads() == 3
    assert _ops.thread_limits()["forced"] == 0


def test_one_context_may_be_nested_in_itself():
    default = fastnorm.get_num_threads()
    three = fastnorm.threads(3)
    with three, fastnorm.threads(8):
        with three:
            assert fastnorm.get_num_threads() == 3
        assert fastnorm.get_num_threads() == 8
    assert fastnorm.get_num_threads() == default


def test_one_context_may_be_shared_between_threads():
    three = fastnorm.threads(3)
    step = threading.Barrier(2, timeout=60)

    def enters_first():
        with fastnorm.threads(5):
            with three:
                step.wait()
                step.wait()
            left = fastnorm.get_num_threads()
            step.wait()
        return left

    def leaves_last():
        with fastnorm.threads(6):
            step.wait()
            with three:
                step.wait()
                step.wait()
            return fastnorm.get_num_threads()

    assert in_threads(enters_first, leaves_last) == [5, 6]


def test_threads_as_a_decorator_of_a_recursive_function():
    @fastnorm.threads(3)
    def counts(depth):
        with fastnorm.threads(9):
            below = counts(depth - 1) if depth else []
        return [fastnorm.get_num_threads(), *below]

    default = fastnorm.get_num_threads()
    assert counts(2) == [3, 3, 3]
    assert fastnorm.get_num_threads() == default


@pytest.mark.parametrize("function", [fastnorm.set_num_threads, fastnorm.threads])
@pytest.mark.parametrize(
    ("n", "error"),
    [(0, ValueError), (-1, ValueError), (4097, ValueError), (10**30, ValueError)]
    + [(value, TypeError) for value in (True, np.True_, 2.0, "2", [2], np.array([2, 3]))],
    ids=repr,
)
def test_a_bad_number_of_threads_is_refused_and_changes_nothing(function, n, error):
    fastnorm.set_num_threads(3)
    got = str(n) if error is ValueError else type(n).__name__
    with pytest.raises(error, match=rf"{function.__name__}: n must be .*integer from 1 to 4096, got .*{got}"):
        function(n)
    assert fastnorm.get_num_threads() == 3


def test_threads_of_none_is_refused():
    with pytest.raises(TypeError, match=r"threads: n must be an integer .* got None"):
        fastnorm.threads(None)


def test_numpy_integers_are_integers():
    with fastnorm.threads(np.uint8(3)):
        assert fastnorm.get_num_threads() == 3


@needs_openmp
@needs_proc
def test_the_number_asked_for_is_the_number_that_runs():
    # libgomp and libomp keep their workers, so the threads that a call started are still there to be counted.
    code = """if True:
        import os, numpy, fastnorm
        x = numpy.ones(10**6, "f4")
        fastnorm._ops.set_work_threshold(0)
        def started(n):
            before = len(os.listdir("/proc/self/task"))
            with fastnorm.threads(n):
                fastnorm.mean_var(x)
            return len(os.listdir("/proc/self/task")) - before
        print(started(1), started(3))
    """
    assert run(code) == "0 2"


# ---- where the limits come from --------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")
@pytest.mark.skipif(os.cpu_count() == 1, reason="the mask of a single core cannot be narrowed")
def test_none_reads_the_affinity_mask_again():
    code = """if True:
        import os, fastnorm
        def affinity():
            return fastnorm._ops.thread_limits()["affinity"]
        cpus = os.sched_getaffinity(0)
        assert affinity() == len(cpus), "read at import"
        os.sched_setaffinity(0, {min(cpus)})
        fastnorm.set_num_threads(3)
        assert affinity() == len(cpus), "kept until asked for"
        fastnorm.set_num_threads(None)
        print(affinity(), fastnorm.get_num_threads())
    """
    assert run(code, OMP_NUM_THREADS="64") == "1 1"


@needs_openmp
@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "OMP_THREAD_LIMIT"])
def test_openmp_variables_limit_the_default_and_nothing_else(variable):
    code = """if True:
        import fastnorm
        default = fastnorm.get_num_threads()
        with fastnorm.threads(3):
            print(default, fastnorm.get_num_threads())
    """
    assert run(code, **{variable: "1"}) == "1 3"


@needs_openmp
def test_threadpoolctl_limits_the_default_and_nothing_else():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    default = fastnorm.get_num_threads()
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        assert fastnorm.get_num_threads() == 1
        with fastnorm.threads(3):
            assert fastnorm.get_num_threads() == 3
        fastnorm.set_num_threads(5)
        assert fastnorm.get_num_threads() == 5
        fastnorm.set_num_threads(None)
        assert fastnorm.get_num_threads() == 1
    assert fastnorm.get_num_threads() == default


# Case: the text of /proc/self/cgroup, files below /sys/fs/cgroup, CPUs, which of the files decides.
CGROUPS = {
    "nothing to read": (None, {}, 0, ""),
    "no group": ("", {"cpu.max": "100000 100000"}, 0, ""),
    "v2": ("0::/\n", {"cpu.max": "300000 100000\n"}, 3, "cpu.max"),
    "v2 is rounded up": ("0::/\n", {"cpu.max": "200001 100000\n"}, 3, "cpu.max"),
    "v2 is at least one": ("0::/\n", {"cpu.max": "1000 100000\n"}, 1, "cpu.max"),
    "v2 max": ("0::/a\n", {"cpu.max": "max 100000\n", "a/cpu.max": "max 100000\n"}, 0, ""),
    "v2 without controllers": ("0::/a/b\n", {"a/b/cgroup.procs": "1\n"}, 0, ""),
    "v2 unreadable text": ("0::/a\n", {"a/cpu.max": "", "cpu.max": "0 0\n"}, 0, ""),
    "v2 nested, the middle is smallest": (
        "0::/a/b/c\n",
        {"a/b/c/cpu.max": "max 100000\n", "a/b/cpu.max": "75000 50000\n", "a/cpu.max": "400000 100000\n"},
        2,
        "a/b/cpu.max",
    ),
    "v2 nested, the root is smallest": ("0::/a/b\n", {"a/b/cpu.max": "9 1\n", "cpu.max": "8 1\n"}, 8, "cpu.max"),
    "v2 nested, a neighbour does not count": ("0::/a\n", {"b/cpu.max": "1 1\n", "a/cpu.max": "4 1\n"}, 4, "a/cpu.max"),
    "v2 path of the host": ("0::/docker/1f\n", {"cpu.max": "200000 100000\n"}, 2, "cpu.max"),
    "v2 outside the namespace": ("0::/../../x\n", {"cpu.max": "200000 100000\n"}, 2, "cpu.max"),
    "v2 beside v1": (
        "3:cpuset:/\n1:cpu:/\n0::/a\n",
        {"unified/a/cpu.max": "5 1\n", "cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        5,
        "unified/a/cpu.max",
    ),
    "v1": (
        "4:memory:/x\n3:cpu,cpuacct:/job\n",
        {"cpu,cpuacct/job/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"},
        3,
        "cpu,cpuacct/job/cpu.cfs_quota_us",
    ),
    "v1 under its short name": (
        "3:cpu,cpuacct:/job\n",
        {"cpu/job/cpu.cfs_quota_us": "50000\n", "cpu/job/cpu.cfs_period_us": "50000\n"},
        1,
        "cpu/job/cpu.cfs_quota_us",
    ),
    "v1 nested": (
        "3:cpuacct,cpu:/a/b\n",
        {
            "cpu/a/b/cpu.cfs_quota_us": "-1\n",
            "cpu/a/b/cpu.cfs_period_us": "100000\n",
            "cpu/a/cpu.cfs_quota_us": "600000\n",
            "cpu/a/cpu.cfs_period_us": "100000\n",
        },
        6,
        "cpu/a/cpu.cfs_quota_us",
    ),
    "v1 another controller": (
        "3:cpuset:/job\n",
        {"cpu/job/cpu.cfs_quota_us": "100000\n", "cpu/job/cpu.cfs_period_us": "100000\n"},
        0,
        "",
    ),
    "v1 without a period": ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "100000\n"}, 0, ""),
}


@pytest.mark.parametrize(("groups", "files", "cpus", "decides"), CGROUPS.values(), ids=CGROUPS)
def test_the_cpu_quota_of_the_control_group(tmp_path, groups, files, cpus, decides):
    mount = tmp_path / "sys/fs/cgroup"
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        (mount / name).parent.mkdir(parents=True, exist_ok=True)
        (mount / name).write_text(text)
    assert _ops.cgroup_quota(tmp_path) == (cpus, str(mount / decides) if decides else "")


def test_long_paths_of_control_groups_are_survived(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/" + "a/" * 5000 + "\n0::/b\n")
    (tmp_path / "sys/fs/cgroup/b").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/b/cpu.max").write_text("200000 100000\n")
    assert _ops.cgroup_quota(tmp_path)[0] == 2
    assert _ops.cgroup_quota("/r" * 5000) == (0, "")


# ---- fork ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes_the_same_bits_after_the_parent_ran_in_parallel():
    # A child that hangs, as libgomp would let it, is ended by its own alarm.
    code = """if True:
        import os, signal, numpy, fastnorm
        x = numpy.random.default_rng(0).standard_normal(10**6)
        fastnorm._ops.set_work_threshold(0)
        def answer():
            return b"".join(numpy.asarray(part).tobytes() for part in fastnorm.mean_var(x))
        def works_alone():
            fastnorm.set_num_threads(4)
            return (
                fastnorm.get_num_threads() == 1
                and answer() == expected
                and fastnorm._ops.thread_limits()["forked"]
            )
        with fastnorm.threads(2):
            expected = answer()
            child = os.fork()
            if not child:
                signal.alarm(20)
                os._exit(0 if works_alone() else 1)
            _, status = os.waitpid(child, 0)
            assert answer() == expected and fastnorm.get_num_threads() == 2
        print(os.waitstatus_to_exitcode(status))
    """
    assert run(code) == "0", "the child's exit code: 1 for wrong bits or counts, -14 for a hang"


# ---- the instruction set ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", _ops.isa_names())
def test_a_forced_isa_is_active(name):
    before = fastnorm.isa()
    with fastnorm.use_isa(name):
        assert fastnorm.isa() == name
        with fastnorm.use_isa("baseline"):
            assert fastnorm.isa() == "baseline"
        assert fastnorm.isa() == name
    assert fastnorm.isa() == before


def test_use_isa_holds_for_the_calling_thread_only():
    default = fastnorm.isa()
    with fastnorm.use_isa("baseline"):
        assert fastnorm.isa() == "baseline"
        assert in_threads(fastnorm.isa) == [default]


@pytest.mark.parametrize("name", ["avx1024", "AVX2", "", "neon\n"])
def test_an_unknown_isa_is_refused_and_the_supported_ones_are_named(name):
    before = fastnorm.isa()
    with pytest.raises(ValueError, match=r"use_isa: name must be .*supported here, got") as refusal:
        fastnorm.use_isa(name)
    assert repr(name) in str(refusal.value)
    assert all(repr(known) in str(refusal.value) for known in _ops.isa_names())
    assert fastnorm.isa() == before


@pytest.mark.parametrize("name", [None, 2, b"avx2"])
def test_an_isa_that_is_no_string_is_refused(name):
    with pytest.raises(TypeError, match=f"use_isa: name must be .* of type {type(name).__name__}"):
        fastnorm.use_isa(name)


@pytest.mark.parametrize("name", _ops.isa_names())
def test_the_environment_chooses_the_isa_of_every_thread(name):
    code = """if True:
        import threading, fastnorm
        thread = threading.Thread(target=lambda: print(fastnorm.isa()))
        thread.start(); thread.join()
        print(fastnorm.isa())
        with fastnorm.use_isa("baseline"):
            print(fastnorm.isa())
    """
    assert run(code, FASTNORM_ISA=name).split() == [name, name, "baseline"]


@pytest.mark.parametrize("environment", [{}, {"FASTNORM_ISA": ""}], ids=["unset", "empty"])
def test_without_the_variable_the_best_isa_is_used(environment):
    assert run("import fastnorm; print(fastnorm.isa())", **environment) == _ops.isa_names()[0]


def test_a_wrong_isa_in_the_environment_is_not_swallowed_by_an_optional_import():
    code = """if True:
        try:
            import fastnorm
        except ImportError:
            pass
    """
    done = start(code, FASTNORM_ISA="avx1024")
    last_line = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert last_line.startswith("ValueError: the environment variable FASTNORM_ISA must be ")
    assert "'avx1024'" in last_line
    assert all(repr(known) in last_line for known in _ops.isa_names())


def test_the_kernel_and_the_dispatcher_agree_about_the_cpu():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = set(next(line for line in lines if line.startswith("flags")).split())
    except (OSError, StopIteration):
        pytest.skip("no list of x86 flags in /proc/cpuinfo")
    avx2 = {"avx2", "fma", "f16c"}
    needs = {"avx512": avx2 | {"avx512f", "avx512vl", "avx512dq", "avx512bw"}, "avx2": avx2, "baseline": set()}
    assert _ops.isa_names() == tuple(name for name, wanted in needs.items() if wanted <= flags)


# ---- import and report -----------------------------------------------------------------------------------------------


@needs_proc
def test_import_starts_no_thread_and_loads_numpy_only():
    # NumPy's own linear algebra may start threads when it is imported.
    code = """if True:
        import os, sys, numpy
        before = len(os.listdir("/proc/self/task"))
        import fastnorm
        print(len(os.listdir("/proc/self/task")) - before)
        print(*sorted({"sklearn", "scipy", "torch", "pandas", "ml_dtypes", "threadpoolctl"} & set(sys.modules)))
    """
    assert run(code) == "0"


def report(text):
    """Read what show_config printed into a dict: label and value are separated by two spaces."""
    return {label.strip(): value.strip() for label, _, value in (line.rstrip().rpartition("  ") for line in text)}


def test_show_config_prints_each_fact(capsys):
    fastnorm.set_num_threads(6)
    with fastnorm.threads(5), fastnorm.use_isa("baseline"):
        assert fastnorm.show_config() is None
    rows = report(capsys.readouterr().out.splitlines())
    limits = _ops.thread_limits()
    assert rows["fastnorm"] == fastnorm.__version__
    assert rows["compiler"].split()[0] in ("gcc", "clang")
    assert rows["compiler"].split()[1][0].isdigit()
    assert rows["OpenMP"] == (f"yes (_OPENMP {_ops.config()['openmp']})" if OPENMP else "no: calls run on one thread")
    assert rows["ISA active"] == "baseline"
    assert rows["ISA available"].split() == list(_ops.isa_names())
    assert rows["FASTNORM_ISA"] == os.environ.get("FASTNORM_ISA", "not set")
    assert rows["threads"] == "5"
    assert rows["threads(n), in this thread"] == "5"
    assert rows["set_num_threads"] == "6"
    assert rows["CPUs in the affinity mask"] == str(limits["affinity"])
    assert rows["cgroup CPU quota"].split()[0] == (str(limits["quota"]) if limits["quota"] else "none")
    assert limits["quota_file"] in rows["cgroup CPU quota"]
    assert rows["OMP_NUM_THREADS, threadpoolctl"] == str(limits["omp_max_threads"])
    assert rows["OMP_THREAD_LIMIT"] == str(limits["omp_thread_limit"] or "none")
    assert rows["forked child"] == "no"


@needs_openmp
def test_show_config_tells_the_environment():
    code = "import fastnorm; fastnorm.show_config()"
    environment = {"FASTNORM_ISA": "baseline", "OMP_NUM_THREADS": "3", "OMP_THREAD_LIMIT": "7"}
    rows = report(run(code, **environment).splitlines())
    assert rows["ISA active"] == rows["FASTNORM_ISA"] == "baseline"
    assert rows["threads(n), in this thread"] == rows["set_num_threads"] == "not set"
    assert rows["OMP_NUM_THREADS, threadpoolctl"] == "3"
    assert rows["OMP_THREAD_LIMIT"] == "7"
