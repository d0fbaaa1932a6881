"""Calls at the same time, in threads and processes of every kind, give the bytes that one call gives."""

import hashlib
import os
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path

import numpy as np
import pytest
from cases import OPS, digest, sample, threshold
from memory import compiled, run_fresh

import fastnorm
from fastnorm import _ops
from fastnorm._quantiles import QuantileSketch

pytestmark = pytest.mark.wide

KERNELS = Path(__file__).parents[1] / "fastnorm" / "kernels"
SHAPES = ((300, 70), (3, 9000), (4, 6, 500))
needs_openmp = pytest.mark.skipif(not _ops.config()["openmp"], reason="this build has no OpenMP")


def answers(threads, every=1):
    """One digest of what the operations answer with so many threads."""
    found = []
    with fastnorm.threads(threads):
        for shape in SHAPES:
            x = sample("uniform", np.dtype(np.float32), shape, 1)
            found += [digest(op(x)) for op in OPS[::every] if op.takes(x)]
    return hashlib.sha256("".join(found).encode()).hexdigest()


@pytest.mark.usefixtures("no_work_threshold")
def test_sixteen_threads_at_once_with_different_thread_counts():
    want, both = answers(1), threading.Barrier(16, timeout=60)

    def caller(threads):
        both.wait()
        found = answers(threads)
        return found, fastnorm.get_num_threads()

    with ThreadPoolExecutor(16) as pool:
        found = [*pool.map(caller, [1 + i % 5 for i in range(16)])]
    assert found == [(want, fastnorm.get_num_threads())] * 16


def answers_of_a_worker(threads):
    with threshold(_ops.set_work_threshold, 0):
        return answers(threads, 5)


@pytest.mark.parametrize("method", get_all_start_methods())
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_worker_processes_after_the_parent_ran_in_parallel(method):
    want = answers_of_a_worker(3)
    with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
        futures = [pool.submit(answers_of_a_worker, threads) for threads in (1, 3)]
        assert [future.result(timeout=100) for future in futures] == [want] * 2


def test_workers_of_joblib():
    joblib = pytest.importorskip("joblib")
    want = answers_of_a_worker(3)
    with joblib.parallel_config("loky", n_jobs=2):
        found = joblib.Parallel(timeout=100)(joblib.delayed(answers_of_a_worker)(threads) for threads in (1, 3))
    joblib.externals.loky.get_reusable_executor().shutdown(wait=True)
    assert found == [want] * 2


OTHERS_REGION = """
#include <omp.h>
void call_from_each_thread(void (*callback)(int)) {
#pragma omp parallel num_threads(3)
  callback(omp_get_thread_num());
}
"""


@needs_openmp
def test_inside_the_parallel_region_of_another_library(tmp_path):
    library = compiled(tmp_path / "region.so", OTHERS_REGION, "-shared", "-fPIC", "-fopenmp")
    code = """if True:
        import ctypes, sys
        from test_concurrency import answers_of_a_worker
        want, found = answers_of_a_worker(1), {}
        kind = ctypes.CFUNCTYPE(None, ctypes.c_int)
        answer = kind(lambda thread: found.update({thread: answers_of_a_worker(3) == want}))
        ctypes.CDLL(sys.argv[1]).call_from_each_thread(answer)
        print(found == {0: True, 1: True, 2: True})
    """
    assert run_fresh(code, str(library)) == "True"


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("sklearn.cluster", True),
        pytest.param("sklearn.cluster", False, marks=pytest.mark.sweep),
        pytest.param("torch", True, marks=pytest.mark.peers),
        pytest.param("torch", False, marks=pytest.mark.peers),
    ],
)
def test_beside_a_library_with_an_openmp_of_its_own(name, first):
    pytest.importorskip(name.partition(".")[0])
    code = """if True:
        import sys
        from importlib import import_module
        theirs = None if sys.argv[2] else import_module(sys.argv[1])
        import numpy as np
        import test_concurrency as ours
        theirs = theirs or import_module(sys.argv[1])
        x = np.linspace(-1, 1, 40000, dtype=np.float32).reshape(-1, 4)
        before = ours.answers_of_a_worker(3)
        if sys.argv[1] == "torch":
            theirs.set_num_threads(3)
            theirs.from_numpy(x).exp().sum()
        else:
            theirs.KMeans(3, n_init=1, random_state=0).fit(x)
        print(before, ours.answers_of_a_worker(3))
    """
    want = answers_of_a_worker(3)
    assert run_fresh(code, name, "1" if first else "", OMP_NUM_THREADS="3").split() == [want] * 2


def test_threads_may_read_one_sketch():
    x = sample("uniform", np.dtype(np.float64), (1700, 40), 1)
    want = QuantileSketch(64).update(x)
    want = want.counts.tolist(), want.quantile([0.1, 0.5]).tobytes(), want.rank_error.tobytes(), want.to_dict()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(5):
            sketch, start = QuantileSketch(64).update(x), threading.Barrier(8, timeout=60)

            def read(sketch=sketch, start=start):
                start.wait()
                return (
                    sketch.counts.tolist(),
                    sketch.quantile([0.1, 0.5]).tobytes(),
                    sketch.rank_error.tobytes(),
                    sketch.to_dict(),
                )

            with ThreadPoolExecutor(8) as pool:
                assert [future.result() for future in [pool.submit(read) for _ in range(8)]] == [want] * 8
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.slow
@pytest.mark.skipif(not KERNELS.is_dir(), reason="the sources of the kernels are not here")
@pytest.mark.skipif(sys.platform != "linux" or "san" in os.environ.get("LD_PRELOAD", ""), reason="needs its sanitizer")
def test_the_kernels_have_no_data_race(tmp_path):
    sources = [KERNELS / f"{name}.c" for name in ("isa_baseline", "axes", "scratch", "threads")]
    options = ["-fsanitize=thread", "-ffp-contract=off", "-fno-math-errno", f"-I{KERNELS}", "-pthread"]
    parts = [compiled(tmp_path / f"{source.stem}.o", [source], "-c", *options) for source in sources]
    parts.append(Path(__file__).with_name("concurrent_kernels.c"))
    for name, race in (("clean", []), ("racing", ["-DRACE"])):
        program = compiled(tmp_path / name, parts, *options, *race)
        done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=100)
        if "FATAL: ThreadSanitizer" in done.stderr:
            pytest.skip(done.stderr.splitlines()[0])  # it does not know this kernel's memory map
        assert ("data race" in done.stderr) == bool(race), done.stderr[:3000]
        assert bool(race) == (done.returncode != 0)
