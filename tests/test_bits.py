"""Same values, shape, dtype and layout: same bytes, whatever the CPU, the threads, the address or the control word.

After a change that is meant to change bits, rewrite the committed digests with

    python tests/test_bits.py --write

and say in the commit message why they changed.
"""

import ctypes
import functools
import hashlib
import json
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cases import (
    FLOATS,
    HALVES,
    INTEGERS,
    ODD,
    OPS,
    SHAPES,
    SMALL,
    THREADS,
    VALUES,
    WAVE,
    digest,
    layouts,
    same,
    threshold,
)
from memory import garbage, place, run_fresh

import fastnorm
from fastnorm import _ops

GOLDEN = Path(__file__).with_name("golden_digests.json")
AWKWARD = [value for value in VALUES if value not in ("uniform", "positive")]
BY_NAME = {op.name: op for op in OPS}
each_op = pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)


def case_digests(op):
    """{label: digest} over every shape, kind of value, integer dtype and memory layout."""
    digests = {}
    for label, x in [*op.cases(FLOATS, SHAPES + ODD), *op.cases(FLOATS[:1], WAVE)]:
        digests[label] = digest(op(x))
    for label, x in op.cases(FLOATS, [*SMALL, (4099, 3), (3, 4099)], AWKWARD):
        digests[label] = digest(op(x))
    for label, x in op.cases(HALVES, [*SMALL, (4099, 3), (3, 4099), (2, 32769)], ["uniform", "specials"]):
        digests[label] = digest(op(x))
    for label, x in op.cases(INTEGERS, [(67,), (70, 8), (2, 33, 4), (4099, 3)]):
        digests[label] = digest(op(x))
    for label, x in op.cases(FLOATS, [(70, 8), (9, 65), (2, 33, 4)]):
        for layout, y in layouts(x):
            digests[f"{layout} {label}"] = digest(op(y))
    return digests


@functools.cache
def expected(name):
    """Take the digests with one thread, plain stores and the plainest instruction set, whatever is set around it."""
    with fastnorm.use_isa("baseline"), fastnorm.threads(1), threshold(_ops.set_stream_threshold, 1 << 62):
        return case_digests(BY_NAME[name])


def summary(op):
    """One digest of all digests of an operation."""
    return hashlib.sha256(json.dumps(expected(op.name)).encode()).hexdigest()


def differing(got, want):
    return sorted(label for label in want if got.get(label) != want[label])


# ---- the sweeps


@each_op
def test_the_committed_digests_hold(op):
    want = json.loads(GOLDEN.read_text())
    assert set(want) == set(BY_NAME)
    assert summary(op) == want[op.name]


@each_op
@pytest.mark.usefixtures("machine")
def test_any_instruction_set_and_thread_count_gives_the_same_bytes(op):
    assert differing(case_digests(op), expected(op.name)) == []


@each_op
@pytest.mark.sweep
@pytest.mark.usefixtures("stores")
def test_any_address_gives_the_same_bytes(op):
    for label, x in op.cases((*FLOATS, *HALVES), [(67,), (70, 3), (9, 65), (3, 1030), (2, 33, 4)]):
        want = op(x)
        for offset in range(64):
            out = {"out": place(garbage(x.shape, x.dtype), (5 * offset + 3) % 64)} if op.has_out else {}
            parameters = [place(p, (offset * 7) % 64) for p in op.parameters(x)]
            got = op.call(place(x, offset), *parameters, **out)
            got = got if isinstance(got, tuple) else (got,)
            if not isinstance(got[0], fastnorm.Moments):
                assert same([np.asarray(g) for g in got], want), (label, offset)
            if out:
                assert out["out"].tobytes() == want[0].tobytes(), (label, offset)


@each_op
@pytest.mark.sweep
@pytest.mark.usefixtures("no_work_threshold")
def test_run_after_run(op):
    for _label, x in op.cases(FLOATS, [(40009, 3), (300, 130), (3, 70001)]):
        want = op(x)
        for _ in range(10):
            assert same(op(x), want)


@pytest.mark.usefixtures("no_work_threshold")
def test_concurrent_callers_get_the_same_bytes():
    jobs = [(op, x) for op in OPS for _label, x in op.cases(FLOATS, [(4099, 8), (9, 1030)])]
    want = [op(x) for op, x in jobs]

    def work(n):
        with fastnorm.threads(THREADS[n % len(THREADS)]):
            return [op(x) for op, x in jobs]

    with ThreadPoolExecutor(8) as pool:
        for results in pool.map(work, range(8)):
            assert all(same(got, w) for got, w in zip(results, want, strict=True))


@pytest.mark.parametrize("op", [op for op in OPS if op.has_out], ids=lambda op: op.name)
@pytest.mark.usefixtures("isa", "no_stream_threshold")
def test_outputs_written_past_the_cache_have_the_same_bytes(op):
    assert differing(case_digests(op), expected(op.name)) == []


# ---- the floating-point control word

_CONTROL = """
#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>
#define FLUSH 0x8040u
unsigned get(void) { return _mm_getcsr() & FLUSH; }
void set(int on) { _mm_setcsr((_mm_getcsr() & ~FLUSH) | (on ? FLUSH : 0)); }
#elif defined(__aarch64__)
#define FLUSH (1ul << 24)
static unsigned long fpcr(void) { unsigned long v; __asm__ volatile("mrs %0, fpcr" : "=r"(v)); return v; }
unsigned get(void) { return (fpcr() & FLUSH) != 0; }
void set(int on) {
  unsigned long v = (fpcr() & ~FLUSH) | (on ? FLUSH : 0);
  __asm__ volatile("msr fpcr, %0" : : "r"(v));
}
#else
#error no control word known
#endif
float halve(volatile float x) { return x * 0.5f; }
"""

_WORKERS = """
import ctypes, sys
import fastnorm
import test_bits
from fastnorm import _ops
test_bits.subnormal_cases()
control = ctypes.CDLL(sys.argv[1])
control.set(1)  # no worker exists yet: all of them inherit it
_ops.set_work_threshold(0)
with fastnorm.threads(4):
    print(test_bits.subnormal_digest())
assert control.get() != 0
"""


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    """Build a shared object that sets flush-to-zero, as another library in the process would."""
    cc = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if cc is None:
        pytest.skip("no C compiler to build the library that sets flush-to-zero")
    folder = tmp_path_factory.mktemp("control")
    (folder / "control.c").write_text(_CONTROL)
    path = folder / "control.so"
    subprocess.run([cc, "-O1", "-shared", "-fPIC", "-o", path, folder / "control.c"], check=True)
    library = ctypes.CDLL(str(path))
    library.halve.restype, library.halve.argtypes = ctypes.c_float, [ctypes.c_float]
    library.path = str(path)
    return library


@functools.cache
def subnormal_cases():
    return [(op, x) for op in OPS for _label, x in op.cases(FLOATS, [*SMALL, (4099, 3), (3, 40001)], ["subnormal"])]


def subnormal_digest():
    return digest([result for op, x in subnormal_cases() for result in op(x)])


@pytest.mark.usefixtures("num_threads")
def test_flush_to_zero_set_by_another_library_changes_nothing(control):
    want = subnormal_digest()
    tiny = 1.2e-38  # normal in float32; half of it is not
    assert control.halve(tiny) != 0
    control.set(1)
    try:
        flushed, got, word = control.halve(tiny), subnormal_digest(), control.get()
    finally:
        control.set(0)
    assert flushed == 0, "flush-to-zero was not active"
    assert got == want
    assert word != 0, "the caller's control word was not given back"


def test_workers_that_inherit_flush_to_zero_change_nothing(control):
    want = subnormal_digest()
    assert run_fresh(_WORKERS, control.path) == want


@pytest.mark.parametrize("mode", ["FE_UPWARD", "FE_DOWNWARD", "FE_TOWARDZERO"])
@pytest.mark.usefixtures("no_work_threshold")
def test_a_rounding_mode_set_by_another_library_changes_nothing(mode):
    libm = ctypes.CDLL(None)
    values = {"x86_64": (0x800, 0x400, 0xC00), "aarch64": (0x400000, 0x800000, 0xC00000)}
    machine = platform.machine()
    if not hasattr(libm, "fesetround") or machine not in values:
        pytest.skip(f"fesetround's values are not known on {machine}")
    value = values[machine][("FE_UPWARD", "FE_DOWNWARD", "FE_TOWARDZERO").index(mode)]
    jobs = [(op, x) for op in OPS for _label, x in op.cases(FLOATS, [(67,), (70, 8), (9, 65), (4099, 3)])]
    want = [op(x) for op, x in jobs]
    assert libm.fesetround(value) == 0
    try:
        got, after = [op(x) for op, x in jobs], libm.fegetround()
    finally:
        libm.fesetround(0)
    assert after == value
    wrong = [op.name for (op, _x), g, w in zip(jobs, got, want, strict=True) if not same(g, w)]
    assert wrong == []


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        raise SystemExit(__doc__)
    GOLDEN.write_text(json.dumps({op.name: summary(op) for op in OPS}, indent=2) + "\n")
    print(f"wrote {len(OPS)} digests to {GOLDEN}")


@pytest.mark.parametrize("n", [20, 2176, 33000])
@pytest.mark.parametrize(
    "norm",
    [
        fastnorm.layer_norm,
        lambda x, **more: fastnorm.layer_norm(x, where=np.arange(x.size).reshape(x.shape) % 3 > 0, **more),
        lambda x, **more: fastnorm.standardize(np.where(x > 0.99, np.nan, x), nan_policy="omit", **more),
    ],
    ids=["layer_norm", "layer_norm[where]", "standardize[omit]"],
)
def test_where_the_result_goes_changes_no_byte(norm, n):
    rng = np.random.default_rng(3)
    table = rng.random((n // 4, 4, 3, 2))
    gaps = np.empty((n // 4, 5, 4, 3))[:, 1:, 1:, 1:]
    for axis in ((0, 1), 0):
        want = norm(table, axis=axis, return_stats=True)
        got = norm(table, axis=axis, return_stats=True, out=gaps)
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("n", [67, 2176])
def test_a_transposed_array_in_place_has_the_bytes_of_a_new_result(n):
    x = np.random.default_rng(4).random((n, 16, 8)).transpose(1, 0, 2)
    where = x > 0.2
    want = fastnorm.layer_norm(x, axis=1, where=where, return_stats=True)
    got = fastnorm.layer_norm(x, axis=1, where=where, return_stats=True, out=x)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(got, want, strict=True))
