"""When memory runs out, a call answers all the same or raises MemoryError, and all that it was given is as before.

A small library in front of malloc lets one allocation of fastnorm's, or a large one of NumPy's, fail: the first, then
the second and so on, until a call does not get that far.
"""

import os

import pytest
from memory import compiled, run_fresh

pytestmark = pytest.mark.wide

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_memalign(size_t, size_t);

static long left = -1;

void fail_after(long n) { left = n; }
long allocations_left(void) { return left; }

static int fails(const void *caller, size_t size) {
  Dl_info info;
  if (left < 0 || !dladdr(caller, &info) || !info.dli_fname) return 0;
  if (!strstr(info.dli_fname, "_ops.") && !(size >= 1024 && strstr(info.dli_fname, "_multiarray_umath"))) return 0;
  return left-- == 0;
}

#define CALLER __builtin_return_address(0)
void *malloc(size_t n) { return fails(CALLER, n) ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return fails(CALLER, n * size) ? NULL : __libc_calloc(n, size); }
void *aligned_alloc(size_t order, size_t n) { return fails(CALLER, n) ? NULL : __libc_memalign(order, n); }
"""

CHILD = """if True:
    import ctypes, pickle
    import numpy as np
    import fastnorm
    from cases import OPS, outputs, same
    from fastnorm import _ops
    from fastnorm.preprocessing import MinMaxScaler, RobustScaler, StandardScaler
    from memory import garbage

    shim = ctypes.CDLL(None)
    shim.fail_after.argtypes = [ctypes.c_long]
    shim.allocations_left.restype = ctypes.c_long

    def refusals(name, make):
        "How many MemoryErrors there are; `make` gives a call and what shows that nothing has changed."
        call, _ = make()
        want, count, n = outputs(call()), 0, 0
        while True:
            call, show = make()
            before = show()
            shim.fail_after(n)
            try:
                got = call()
            except MemoryError:
                got = None
            reached = shim.allocations_left() < 0
            shim.fail_after(-1)
            if got is None:
                assert show() == before, (name, n)
                got = call()
                count += 1
            assert same(outputs(got), want), (name, n)
            if not reached:
                return count
            n += 1

    def of_op(op, x):
        def make():
            out = garbage(x.shape, x.dtype)
            written = {"out": out} if op.has_out else {}
            parameters = op.parameters(x)
            few = op.name == "group_norm_backward" and x[0, 0].size < 16  # takes several calls, one for each group
            return lambda: op(x, **written), lambda: b"" if few else out.tobytes()
        return make

    def of_batch(x):
        running = np.zeros(x.shape[1]), np.ones(x.shape[1], np.float32)
        out = x.copy()
        call = lambda: (fastnorm.batch_norm(out, *running, training=True, out=out), *running)
        return call, lambda: out.tobytes() + running[0].tobytes() + running[1].tobytes()

    def of_moments(x, first, **counts):
        stream = fastnorm.Moments(4, True)
        if not first:
            stream.update(x)
        return lambda: stream.update(x, **counts), lambda: str(stream.to_dict())

    def of_scaler(scaler, x, method):
        scaler.partial_fit(x)
        return lambda: vars_of(getattr(scaler, method)(x)), lambda: pickle.dumps(scaler)

    def vars_of(scaler):
        return tuple(np.asarray(v) for v in vars(scaler).values() if isinstance(v, np.ndarray))

    x = np.ones((40, 30))
    shim.fail_after(0)
    try:
        raise AssertionError(fastnorm.mean(x))
    except MemoryError:
        assert fastnorm.mean(x) == 1

    _ops.set_work_threshold(0)
    total = 0
    for threads, shapes in ((1, [(90, 40), (3, 40000)]), (3, [(3, 40000), (20000, 5), (2, 70, 600)])):
        with fastnorm.threads(threads):
            for shape in shapes:
                x = np.linspace(-1, 1, np.prod(shape), dtype=np.float32).reshape(shape)
                for op in (op for op in OPS if op.takes(x)):
                    total += refusals((op.name, shape), of_op(op, x))
                total += refusals(("running statistics", shape), lambda: of_batch(x))
                for first in (True, False):
                    total += refusals(("stream", shape), lambda: of_moments(x, first))
                    total += refusals(("masked stream", shape), lambda: of_moments(x, first, where=x > 0))
            table = np.linspace(-1, 1, 60000).reshape(-1, 6)
            for kind in (StandardScaler, MinMaxScaler, RobustScaler):
                for method in ("fit", "partial_fit"):
                    total += refusals((kind, method), lambda: of_scaler(kind(), table, method))
    print(total)
"""


def test_a_call_that_gets_no_memory_changes_nothing(tmp_path):
    if "san" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("the sanitizer has a malloc of its own")
    shim = compiled(tmp_path / "shim.so", SHIM, "-shared", "-fPIC")
    assert int(run_fresh(CHILD, LD_PRELOAD=str(shim))) > 500
