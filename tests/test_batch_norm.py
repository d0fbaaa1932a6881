"""Running statistics, batches that are not finite, relu, masks, empty batches and refusals of the channel norms."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import reference
from cases import FLOATS, HALVES, layouts, outputs, same, uniform
from channels import (
    BATCH,
    EVALUATION,
    GROUP,
    INSTANCE,
    INSTANCE_EVALUATION,
    NORMS,
    learn,
    parameters,
    placed,
    problem,
    running,
    some,
)
from memory import garbage

import fastnorm

each_that_learns = pytest.mark.parametrize("norm", [BATCH, INSTANCE], ids=lambda n: n.name)
each_batch_norm = pytest.mark.parametrize("norm", [BATCH, EVALUATION], ids=lambda n: n.name)
each_evaluation = pytest.mark.parametrize("norm", [EVALUATION, INSTANCE_EVALUATION], ids=lambda n: n.name)


# ---- running statistics


@each_that_learns
@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0, 0.5, 0.003, -0.5, 2])
@pytest.mark.parametrize("shape", [(64, 5), (3, 4, 65), (2, 3, 7, 9), (2, 2, 7001)], ids=str)
def test_running_statistics(norm, momentum, shape, dtype):
    channels, spatial = shape[1], int(np.prod(shape[2:]))
    for axis in norm.ends(shape):
        _, x, _, _ = problem(shape, dtype, axis)
        for kind in (np.float32, np.float64, *HALVES):
            before = running(channels, kind)
            statistics = tuple(v.copy() for v in before)
            y = learn(norm, x, statistics, momentum, channel_axis=axis)
            assert same((y,), (learn(norm, x, (None, None), momentum, channel_axis=axis),))
            how = norm.twin(channels)
            _, mean, var, _ = reference.channel_norm(x, channel_axis=axis, **how)
            n = shape[0] * spatial
            if norm is INSTANCE:
                mean, var, n = mean.mean(0), var.mean(0), spatial
            reference.assert_updated(statistics, before, mean, var, n, momentum, dtype)
            if momentum == 0:
                assert same(statistics, before)


@each_that_learns
def test_running_statistics_in_any_memory(norm, dtype):
    _, x, _, _ = problem((3, 5, 65), dtype)
    want = running(5)
    learn(norm, x, want)
    for (label, mean), (_, var) in zip(*(list(layouts(v)) for v in running(5)), strict=True):
        if label not in ("contiguous", "read-only"):
            learn(norm, x, (mean, var))
            for got, native in zip((mean, var), want, strict=True):
                np.testing.assert_array_equal(got, native, err_msg=label)
    gaps = garbage((5, 3), np.float32)
    gaps[:, 0], gaps[:, 2] = running(5)
    learn(norm, x, (gaps[:, 0], gaps[:, 2]))
    assert same((gaps[:, 0].copy(), gaps[:, 2].copy()), want)
    assert (gaps[:, 1] == garbage((5,), np.float32)).all()


@each_that_learns
def test_a_running_variance_is_unbiased(norm):
    x = np.array([[[1.0, 3.0]], [[5.0, 7.0]]])
    mean, var = np.zeros(1), np.zeros(1)
    learn(norm, x, (mean, var), 1.0)
    assert mean[0] == 4
    assert var[0] == pytest.approx(20 / 3 if norm is BATCH else 2, rel=2.0**-44)  # 64 eps


@each_evaluation
def test_evaluation_takes_the_running_statistics_as_they_are(norm, dtype):
    for shape in ((7, 5), (3, 5, 65), (1, 5), (1, 5, 1), (2, 5, 3, 4)):
        for axis in norm.axes(shape):
            _, x, weight, bias = problem(shape, dtype, axis)
            for kind in (np.float32, np.float64, *HALVES):
                for (_, mean), (_, var) in zip(*map(layouts, running(5, kind)), strict=True):
                    before = mean.copy(), var.copy()
                    norm.check(x, weight, bias, channel_axis=axis, given=(mean, var))
                    assert same((mean.copy(), var.copy()), before)
    for eps in (0.0, 1e-3, 2.0):
        norm.check(x, weight, bias, eps, channel_axis=axis)


def test_evaluation_of_awkward_variances(dtype):
    x = uniform((3, 5, 4), dtype)
    var = np.array([0.0, -1.0, np.nan, np.inf, 1.0], dtype)
    with reference.strict():
        y, mean, rstd = fastnorm.batch_norm(x, np.zeros(5, dtype), var, return_stats=True)
        blown = fastnorm.batch_norm(x, np.zeros(5, dtype), var, eps=0.0)
    np.testing.assert_allclose(rstd, np.array([1 / np.sqrt(1e-5), np.nan, np.nan, 0, 1 / np.sqrt(1 + 1e-5)]), rtol=1e-6)
    assert not mean.any()
    assert np.isnan(y[:, 1:3]).all()
    assert not y[:, 3].any()
    assert not np.isfinite(blown[:, 0][x[:, 0] != 0]).any()
    assert np.isfinite(y[:, [0, 4]]).all()


# ---- a batch with NaN or infinity


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(64, 5), (3, 5, 65), (2, 5, 7, 9)], ids=str)
def test_nonfinite(value, shape, dtype):
    for axis in BATCH.ends(shape):
        _, x, weight, bias = problem(shape, dtype, axis)
        clean = fastnorm.batch_norm(x, None, None, weight, bias, True, channel_axis=axis)
        x[(-1,) * axis + (2,) + (-1,) * (x.ndim - axis - 1)] = value
        before = running(5)
        batch = fastnorm.batch_norm(x, None, None, weight, bias, True, channel_axis=axis)
        channels = np.moveaxis(batch, axis, 0)
        assert np.isnan(channels[2]).all()
        np.testing.assert_array_equal(np.delete(channels, 2, 0), np.delete(np.moveaxis(clean, axis, 0), 2, 0))

        statistics = running(5)
        how = {"training": True, "channel_axis": axis}
        with reference.strict():
            y = fastnorm.batch_norm(x, *statistics, weight, bias, nonfinite="propagate", **how)
        assert same((y,), (batch,))
        for got in statistics:
            assert np.isfinite(np.delete(got, 2)).all()
            assert not np.isfinite(got[2])

        statistics = running(5)
        with reference.strict():
            y = fastnorm.batch_norm(x, *statistics, weight, bias, nonfinite="skip", **how)
        assert same((y,), (batch,))
        assert same(statistics, before)

        out = garbage(x.shape, dtype)
        untouched = out.tobytes()
        for target in (out, x):
            whole = target.tobytes()
            with pytest.raises(ValueError, match="nonfinite"), reference.strict():
                fastnorm.batch_norm(x, *statistics, weight, bias, nonfinite="raise", out=target, **how)
            assert target.tobytes() == whole
            assert same(statistics, before)
        assert out.tobytes() == untouched
        with pytest.raises(ValueError, match="nonfinite"):
            fastnorm.batch_norm(x, nonfinite="raise", **how)


def test_a_finite_batch_is_the_same_however_nonfinite_is_to_be_treated(dtype):
    for shape in ((64, 5), (3, 5, 65)):
        _, x, weight, bias = problem(shape, dtype)
        want_statistics = running(5)
        want = fastnorm.batch_norm(x, *want_statistics, weight, bias, True)
        for nonfinite in ("propagate", "raise", "skip"):
            statistics = running(5)
            y = fastnorm.batch_norm(x, *statistics, weight, bias, True, nonfinite=nonfinite)
            assert same((y, *statistics), (want, *want_statistics))
            x[0, 0] = np.nan  # in evaluation there is nothing to poison
            y = fastnorm.batch_norm(x, *statistics, weight, bias, nonfinite=nonfinite)
            assert np.isnan(y[0, 0]).all()
            x[0, 0] = 3
            want_statistics = running(5)
            want = fastnorm.batch_norm(x, *want_statistics, weight, bias, True)


def test_what_running_statistics_cannot_hold_is_not_finite():
    x = np.arange(8, dtype=np.float32)[:, None] * np.float32(1e3)  # a variance of 6e6
    for kind, scale in ((np.float16, 1), (np.float32, 1e20)):
        given = np.zeros(1, kind), np.ones(1, kind)
        statistics = tuple(v.copy() for v in given)
        with reference.strict():
            y = fastnorm.batch_norm(x * np.float32(scale), *statistics, training=True, nonfinite="skip")
            assert same(statistics, given)
            with pytest.raises(ValueError, match="nonfinite"):
                fastnorm.batch_norm(x * np.float32(scale), *statistics, training=True, nonfinite="raise")
            assert same(statistics, given)
            fastnorm.batch_norm(x * np.float32(scale), *statistics, training=True)
        assert np.isinf(statistics[1]).all()
        assert np.isfinite(y).all()


# ---- relu


@each_batch_norm
@pytest.mark.parametrize("kind", [*FLOATS, *HALVES], ids=str)
def test_a_fused_relu_is_the_relu_of_the_norm(norm, kind):
    for shape in ((64, 5), (3, 5, 65), (2, 5, 7, 9), (2, 5, 4097), (131, 70)):
        for axis in norm.axes(shape):
            _, x, weight, bias = problem(shape, kind, axis)
            x.reshape(-1)[:2] = np.nan, np.inf
            for w, b in parameters(weight, bias):
                y, *stats = norm.forward(x, w, b, channel_axis=axis, return_stats=True)
                fused, *others = norm.forward(x, w, b, channel_axis=axis, activation="relu", return_stats=True)
                wide = np.asarray(y, np.float64)
                np.testing.assert_array_equal(np.asarray(fused, np.float64), np.maximum(wide, 0))  # NaN stays NaN
                assert fused[wide > 0].tobytes() == y[wide > 0].tobytes()
                assert same(others, stats)
                out = garbage(x.shape, kind)
                norm.forward(x, w, b, channel_axis=axis, activation="relu", out=out)
                assert same((out,), (fused,))


def test_a_fused_relu_changes_no_running_statistic(dtype):
    _, x, weight, bias = problem((3, 5, 65), dtype)
    plain, fused = running(5), running(5)
    fastnorm.batch_norm(x, *plain, weight, bias, True)
    fastnorm.batch_norm(x, *fused, weight, bias, True, activation="relu")
    assert same(fused, plain)


# ---- where


@each_batch_norm
@pytest.mark.parametrize("shape", [(67, 5), (9, 65), (3, 4, 65), (2, 5, 7, 9), (2, 3, 4097), (4099, 3)], ids=str)
def test_what_is_masked_never_counts(norm, shape, dtype):
    for axis in norm.axes(shape):
        _, x, weight, bias = problem(shape, dtype, axis)
        where = some(x.shape, axis)
        for activation in (None, "relu"):
            want = None
            for filler in (0, np.nan, np.inf, 1e30):
                filled = np.where(where, x, dtype.type(filler))
                with reference.strict():
                    got = norm.check(
                        filled, weight, bias, values=x, channel_axis=axis, where=where, activation=activation
                    )
                assert not got[0][~where].any()
                want = want or got
                assert same(got, want)


@each_batch_norm
def test_masks_broadcast(norm, dtype):
    x = uniform((4, 6, 5, 7), dtype, 1)
    some = uniform((4, 6, 5, 7), bool, 2)
    some[0] = True
    for where in (
        some,
        some[:, :1],
        some[:1, :1],
        some[0, :, :1],
        some[:, 0:1, 0:1, 0:1],
        np.bool(True),
        some.tolist(),
    ):
        wide = np.broadcast_to(where, x.shape).copy()
        want = norm.check(x, where=wide)
        for mask in (where, np.asfortranarray(where), np.flip(np.flip(where).copy())):
            assert same(norm.forward(x, where=mask, return_stats=True), want)
    place = x.copy()
    want = norm.forward(x, where=some)
    assert norm.forward(place, where=some, out=place) is place
    np.testing.assert_array_equal(place, want)


def padded(shape, lengths, dtype, axis):
    """A batch of sequences (C, L) of those lengths, its mask, and the same values without padding as (sum, C)."""
    x = np.full(shape, np.nan, dtype)
    where = np.arange(shape[2]) < np.asarray(lengths)[:, None, None]
    for i, n in enumerate(lengths):
        x[i, :, :n] = uniform((shape[1], n), dtype, i) + dtype.type(3)
    flat = np.concatenate([x[i, :, :n].T for i, n in enumerate(lengths)])
    return placed(x, axis), placed(where, axis), flat


@pytest.mark.parametrize("axis", [1, 2, 0])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_a_padded_batch_normalizes_like_the_unpadded_one(axis, activation, dtype):
    lengths = (5, 1, 8, 3, 0)
    x, where, flat = padded((5, 6, 8), lengths, dtype, axis)
    _, _, weight, bias = problem((5, 6, 8), dtype)
    want_statistics, statistics = running(6, dtype), running(6, dtype)
    want = fastnorm.batch_norm(flat, *want_statistics, weight, bias, True, activation=activation)
    how = {"channel_axis": axis, "where": where, "activation": activation}
    with reference.strict():
        y = fastnorm.batch_norm(x, *statistics, weight, bias, True, **how)
    y = np.moveaxis(y, axis, 1)
    got = np.concatenate([y[i, :, :n].T for i, n in enumerate(lengths)])
    # Both are within NORM_EPS and two roundings of exact, at |z| < 4 and |weight|, |bias| < 2; statistics as well.
    bound = 2 * (reference.NORM_EPS[dtype] + 2) * reference.eps_of(dtype) * (2 + 8 + 2)
    np.testing.assert_allclose(got, want, rtol=0, atol=bound)
    assert not any(y[i, :, n:].any() for i, n in enumerate(lengths))
    _, mean, var, _ = reference.channel_norm(flat)
    for ours in (statistics, want_statistics):
        reference.assert_updated(ours, running(6, dtype), mean, var, sum(lengths), 0.1, dtype)


def test_a_channel_in_which_nothing_counts_is_an_empty_batch(dtype):
    for shape in ((64, 5), (3, 5, 65)):
        for axis in BATCH.axes(shape):
            _, x, weight, bias = problem(shape, dtype, axis)
            where = some(x.shape, axis)
            np.moveaxis(where, axis, 0)[1] = False
            for nonfinite in ("propagate", "raise", "skip"):
                statistics, before = running(5), running(5)
                how = {"channel_axis": axis, "where": where, "nonfinite": nonfinite, "return_stats": True}
                with reference.strict():
                    y, mean, rstd = fastnorm.batch_norm(x, *statistics, weight, bias, True, **how)
                assert not np.moveaxis(y, axis, 0)[1].any()
                assert np.isnan([mean[1], rstd[1]]).all()
                assert np.isfinite(np.delete([mean, rstd], 1, 1)).all()
                for got, was in zip(statistics, before, strict=True):
                    assert (got == was).tolist() == [False, True, False, False, False]
                statistics = running(5)
                how["where"] = np.zeros(x.ndim * (1,), bool)
                with reference.strict():
                    y, mean, rstd = fastnorm.batch_norm(x, *statistics, weight, bias, True, **how)
                assert same(statistics, before)
                assert not y.any()
                assert np.isnan([mean, rstd]).all()


def test_one_value_that_counts_is_one_value_per_channel(dtype):
    for shape in ((64, 5), (3, 5, 65)):
        for axis in BATCH.axes(shape):
            _, x, weight, bias = problem(shape, dtype, axis)
            where = some(x.shape, axis)
            np.moveaxis(where, axis, 0)[1] = False
            np.moveaxis(where, axis, 0)[1].flat[2] = True
            statistics, out = running(5), garbage(x.shape, dtype)
            before = out.tobytes()
            with pytest.raises(ValueError, match="where"):
                fastnorm.batch_norm(x, *statistics, weight, bias, True, channel_axis=axis, where=where, out=out)
            assert out.tobytes() == before
            assert same(statistics, running(5))
            EVALUATION.check(x, weight, bias, channel_axis=axis, where=where)


# ---- nothing, one value, and refusals


@pytest.mark.parametrize(
    "shape", [(0, 5), (0, 5, 3), (2, 5, 0), (0, 5, 3, 4), (2, 5, 0, 3), (2, 0, 3), (0, 0)], ids=str
)
def test_an_empty_batch_is_empty_and_leaves_the_statistics_alone(shape, dtype):
    channels = shape[1]
    for norm, axis in itertools.product(NORMS, {1, len(shape) - 1}):
        x = placed(np.empty(shape, dtype), axis)
        statistics = running(channels)
        given = statistics if norm.evaluation else None
        with reference.strict():
            y, mean, rstd = norm.forward(x, channel_axis=axis, given=given, return_stats=True)
        assert y.shape == x.shape
        assert y.dtype == mean.dtype == rstd.dtype == dtype
        per_sample = norm in (GROUP, INSTANCE)
        groups = norm.groups(channels) if per_sample else channels
        assert mean.shape == rstd.shape == ((shape[0], groups) if per_sample else (channels,))
        if norm in (BATCH, INSTANCE):
            with reference.strict():
                learn(norm, x, statistics, 1.0, channel_axis=axis, out=np.empty_like(x))
        assert same(statistics, running(channels))


@pytest.mark.parametrize("shape", [(130, 0), (0, 3)], ids=str)
def test_nothing_may_lie_at_any_strides(shape, dtype):
    x = np.lib.stride_tricks.as_strided(np.zeros(1, dtype), shape, (0, 0))
    statistics = running(shape[1])
    assert fastnorm.batch_norm(x, *statistics).shape == shape
    assert fastnorm.batch_norm(x, *statistics, training=True).shape == shape


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1)], ids=str)
def test_one_value_per_channel_that_does_not_count_is_nothing(shape, dtype):
    statistics = running(3)
    y = fastnorm.batch_norm(np.ones(shape, dtype), *statistics, training=True, where=np.zeros(shape, bool))
    np.testing.assert_array_equal(y, np.zeros(shape))
    assert same(statistics, running(3))


def test_one_value_per_channel_cannot_be_normalized_in_training(dtype):
    for shape in ((1, 5), (1, 5, 1), (1, 5, 1, 1)):
        for axis in {1, len(shape) - 1}:
            x, statistics = placed(uniform(shape, dtype), axis), running(5)
            calls = [
                (fastnorm.batch_norm, (*statistics, None, None, True)),
                (fastnorm.batch_norm, (None, None, None, None, True)),
                (fastnorm.instance_norm, statistics),
                (fastnorm.instance_norm, ()),
                (fastnorm.group_norm, (5,)),
            ]
            for call, arguments in calls:
                with pytest.raises(ValueError, match=r"\bx\b"):
                    call(x, *arguments, channel_axis=axis)
            assert same(statistics, running(5))
            EVALUATION.check(x, channel_axis=axis)
            INSTANCE_EVALUATION.check(x, channel_axis=axis)
    for shape in ((6, 5), (6, 5, 1)):  # several samples of one value each
        x, statistics = uniform(shape, dtype), running(5)
        with pytest.raises(ValueError, match=r"\bx\b"):
            learn(INSTANCE, x, statistics)
        assert same(statistics, running(5))
        BATCH.check(x)


def test_eps(dtype):
    x, statistics = uniform((3, 5, 4), dtype), running(5)
    for norm in NORMS:
        for eps in (-1e-5, np.nan, -np.inf):
            with pytest.raises(ValueError, match="eps"):
                norm.forward(x, eps=eps)
        for eps in ("1", 1j, None):
            with pytest.raises(TypeError, match="eps"):
                norm.forward(x, eps=eps)
        if norm is not BATCH:
            norm.check(x, eps=0.0)
    out = garbage(x.shape, dtype)
    before = out.tobytes()
    with pytest.raises(ValueError, match="eps"):
        fastnorm.batch_norm(x, *statistics, training=True, eps=0, out=out)
    assert same(statistics, running(5))
    assert out.tobytes() == before


def refusals(dtype):
    """(error, what the message says, the arguments) for x of shape (3, 4, 5) and otherwise good arguments."""
    other = np.float64 if dtype == np.float32 else np.float32
    read_only = np.ones(4, np.float32)
    read_only.flags.writeable = False
    shared, space = np.ones(5, np.float32), np.zeros(200, dtype)
    within = {"x": space[:60].reshape(3, 4, 5), "out": space[8:68].reshape(3, 4, 5)}
    locked = np.zeros((3, 4, 5), dtype)
    locked.flags.writeable = False
    return [
        (ValueError, r"\bx\b", {"x": np.ones(4, dtype)}),
        (ValueError, r"\bx\b", {"x": dtype.type(3)}),
        (TypeError, r"\bx\b", {"x": np.ones((3, 4, 5), complex)}),
        (TypeError, r"\bx\b", {"x": np.ma.masked_array(np.ones((3, 4, 5)))}),
        (TypeError, r"\bx\b", {"x": None}),
        (ValueError, "channel_axis", {"channel_axis": 3}),
        (ValueError, "channel_axis", {"channel_axis": -4}),
        (TypeError, "channel_axis", {"channel_axis": 1.0}),
        (TypeError, "channel_axis", {"channel_axis": (1,)}),
        (TypeError, "channel_axis", {"channel_axis": None}),
        (ValueError, "weight", {"weight": np.ones(5)}),
        (ValueError, "weight", {"weight": np.ones((4, 1))}),
        (TypeError, "weight", {"weight": np.ones(4, complex)}),
        (ValueError, "bias", {"bias": np.ones(3)}),
        (ValueError, "bias", {"bias": 1.0}),
        (ValueError, "running_mean", {"running_mean": np.ones(5, np.float32)}),
        (ValueError, "running_var", {"running_var": np.ones((4, 1), np.float32)}),
        (ValueError, "running_var", {"running_var": None}),
        (ValueError, "running_mean", {"running_mean": None}),
        (TypeError, "running_mean", {"running_mean": np.ones(4, int)}),
        (TypeError, "running_mean", {"running_mean": [1.0] * 4}),
        (TypeError, "running_var", {"running_var": np.ma.masked_array(np.ones(4))}),
        (TypeError, "running_var", {"running_var": np.ones(4, complex)}),
        (ValueError, "running_mean", {"running_mean": read_only}),
        (ValueError, "running_var", {"running_var": read_only}),
        (ValueError, "running_", {"running_mean": shared[:4], "running_var": shared[1:]}),
        (ValueError, "momentum", {"momentum": np.nan}),
        (TypeError, "momentum", {"momentum": None}),
        (TypeError, "momentum", {"momentum": "0.1"}),
        (ValueError, "eps", {"eps": -1.0}),
        (ValueError, "out", {"out": np.zeros((3, 4, 5), other)}),
        (ValueError, "out", {"out": np.zeros((3, 5, 4), dtype)}),
        (ValueError, "out", {"out": locked}),
        (TypeError, "out", {"out": [1.0]}),
        (ValueError, "out overlaps x", within),
        (ValueError, "out overlaps weight", {"weight": space[:4], "out": space[:60].reshape(3, 4, 5)}),
        (ValueError, "out overlaps bias", {"bias": space[56:60], "out": space[:60].reshape(3, 4, 5)}),
        (ValueError, "running_mean", {"running_mean": space[4:8], "out": space[:60].reshape(3, 4, 5)}),
        (ValueError, "running_var", {"running_var": space[4:8], "out": space[:60].reshape(3, 4, 5)}),
    ]


ONLY_BATCH = [
    (TypeError, "where", {"where": np.ones((3, 4, 5))}),
    (ValueError, "where", {"where": np.ones((3, 4), bool)}),
    (ValueError, "activation", {"activation": "gelu"}),
    (ValueError, "activation", {"activation": True}),
    (ValueError, "nonfinite", {"nonfinite": "omit"}),
    (ValueError, "nonfinite", {"nonfinite": None}),
]


@each_that_learns
def test_bad_input_is_refused_by_name_and_changes_nothing(norm, dtype):
    flag = "training" if norm is BATCH else "use_input_stats"
    call = fastnorm.batch_norm if norm is BATCH else fastnorm.instance_norm
    for error, message, change in [*refusals(dtype), *(ONLY_BATCH if norm is BATCH else [])]:
        mean, var = running(4)
        good = {"x": uniform((3, 4, 5), dtype), "running_mean": mean, "running_var": var, flag: True}
        good |= {"weight": np.ones(4, dtype), "bias": np.zeros(4, dtype), "out": garbage((3, 4, 5), dtype)}
        arguments = good | change
        arrays = [v for v in arguments.values() if isinstance(v, np.ndarray)]
        before = [v.tobytes() for v in arrays]
        with pytest.raises(error, match=message):
            call(**arguments)
        assert [v.tobytes() for v in arrays] == before, message


@each_evaluation
def test_evaluation_needs_statistics_and_may_not_write_them(norm, dtype):
    x = uniform((3, 4, 5), dtype)
    call, flag = (
        (fastnorm.batch_norm, "training") if norm is EVALUATION else (fastnorm.instance_norm, "use_input_stats")
    )
    for mean, var, named in ((None, None, "running_mean"), (None, np.ones(4), "running_mean"),
                             (np.ones(4), None, "running_var")):  # fmt: skip
        with pytest.raises(ValueError, match=named):
            call(x, mean, var, **{flag: False})
    mean, var = running(4)
    mean.flags.writeable = var.flags.writeable = False
    call(x, mean, var, **{flag: False})


def test_groups_must_divide_the_channels(dtype):
    x = uniform((3, 6, 5), dtype)
    for groups in (0, -1, 4, 12):
        with pytest.raises(ValueError, match="num_groups"):
            fastnorm.group_norm(x, groups)
    for groups in (2.0, "2", None, True):
        with pytest.raises(TypeError, match="num_groups"):
            fastnorm.group_norm(x, groups)
    assert same((fastnorm.group_norm(x, np.int64(2)),), (fastnorm.group_norm(x, 2),))


def test_lists_are_taken(dtype):
    x = uniform((3, 4, 5), np.float64)
    for norm in NORMS:
        assert same(outputs(norm.forward(x.tolist(), return_stats=True)), outputs(norm.forward(x, return_stats=True)))
    assert isinstance(fastnorm.batch_norm(x.astype(dtype).tolist(), training=True), np.ndarray)


def test_the_table_of_flags_names_tests_that_exist():
    here = Path(__file__).parent
    written = set(re.findall(r"def (test_\w+)", "".join(p.read_text() for p in here.glob("test_*.py"))))
    rows = [r for r in (here.parent / "docs" / "batch_norm.md").read_text().splitlines() if r.startswith("| ")]
    named = [set(re.findall(r"`(test_\w+)`", r)) for r in rows if not r.endswith("| Test |")]
    assert len(named) > 40
    assert all(named)
    assert set().union(*named) <= written


@pytest.mark.parametrize("dtype", [*FLOATS, *HALVES], ids=str)
@pytest.mark.usefixtures("isa", "stores")
def test_nan_of_given_statistics_is_the_canonical_one(dtype):
    """Whatever sign and payload a NaN of x has, and whatever makes one."""
    bits = np.dtype(f"u{np.dtype(dtype).itemsize}")
    payload = (-np.full(1, np.nan, dtype)).view(bits) | 5
    for shape in ((3, 40, 7), (2, 64, 5, 9), (70, 3), (5, 600)):
        x = uniform(shape, dtype, 1)
        x.reshape(-1)[::3] = payload.view(dtype)[0]
        x.reshape(-1)[1] = np.inf
        weight = np.zeros(shape[1])  # infinity times 0
        for relu in (None, "relu"):
            y = fastnorm.batch_norm(x, np.zeros(shape[1]), np.ones(shape[1]), weight, activation=relu)
            missing = np.isnan(y)
            assert missing.reshape(-1)[:4].tolist() == [True, True, False, True]
            assert same([y[missing]], [np.full(missing.sum(), np.nan, dtype)])
        s = fastnorm.add_layer_norm(x, -x)[1]
        assert same([s[np.isnan(s)]], [np.full(np.isnan(s).sum(), np.nan, dtype)])
