"""Ctrl-C may come at any time: what learns from a stream has then taken in a chunk or has not."""

import pytest
from memory import run_fresh

pytestmark = pytest.mark.wide

# Signals arrive sooner and later after a start, the last ones when all is over.
FRAME = """if True:
    import pickle, signal, sys, time
    import numpy as np
    import fastnorm
    from fastnorm import Moments, _ops
    from fastnorm.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

    signal.signal(signal.SIGALRM, signal.default_int_handler)
    x = np.linspace(-1, 1, 30000).reshape(-1, 6)
    interrupts = 0

    def interrupted_at_any_time(learn, shown, steps):
        "Every state that an interrupt finds is one of those between two steps."
        global interrupts
        learner, states = learn(), []
        for step in steps:
            states.append(shown(learner))
            step(learner)
        states.append(shown(learner))
        for delay in np.geomspace(2e-6, 2e-2, 80):
            learner = learn()
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                for step in steps:
                    step(learner)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupts += 1
            at = states.index(shown(learner))
            for step in steps[at:]:
                step(learner)
            assert shown(learner) == states[-1]
"""

STREAMS = """
    chunks = np.array_split(x, 7)
    some = x[: len(chunks[0])] > 0
    def take(i, **counts):
        return lambda stream: stream.update(chunks[i][: len(some)], **counts)
    plain = [take(i) for i in range(7)]
    masked = [take(0), take(1), take(2, where=some[: len(chunks[2])]), take(3), take(4, nan_policy="omit")]
    join = [take(0), lambda stream: stream.merge(fastnorm.moments(x, 0, order=4, minmax=True, where=x > 0)), take(1)]
    for steps in (plain, masked, masked[2:], join):
        interrupted_at_any_time(lambda: Moments(4, True), lambda stream: str(stream.to_dict()), steps)
    print(interrupts)
"""

SCALERS = """
    def shown(scaler):
        return repr({name: str(value) for name, value in sorted(vars(scaler).items())})
    steps = [lambda scaler, part=part: scaler.partial_fit(part) for part in np.array_split(x, 3)]
    for scaler in (StandardScaler, MinMaxScaler, RobustScaler):
        interrupted_at_any_time(scaler, lambda s: shown(s).replace(hex(id(getattr(s, "sketch_", 0))), ""), steps)
    print(interrupts)
"""

KERNELS = """
    handled = []
    signal.signal(signal.SIGALRM, lambda *_: handled.append(y.tobytes() == want.tobytes()))
    x = np.linspace(-1, 1, 1 << 21).reshape(1 << 10, -1)
    want = fastnorm.layer_norm(x, axis=0)
    y = np.empty_like(x)
    for count in range(1, 6):
        signal.setitimer(signal.ITIMER_REAL, 1e-3)
        fastnorm.layer_norm(x, axis=0, out=y)
        assert y.tobytes() == want.tobytes()
        y[...] = 0
        while len(handled) < count:
            time.sleep(1e-3)
    print(sum(handled))
"""


def test_a_stream_has_taken_in_a_chunk_or_has_not():
    assert int(run_fresh(FRAME + STREAMS)) > 100


def test_a_scaler_has_learnt_from_a_part_or_has_not():
    assert int(run_fresh(FRAME + SCALERS)) > 100


def test_a_signal_during_a_kernel_is_handled_after_it():
    assert int(run_fresh(FRAME + KERNELS)) == 5
