"""Whatever a function is given, it answers what its twin answers, or refuses by name and leaves everything as it was.

Hypothesis draws the array (dtype, shape, memory, values), the arguments and, now and then, something that does not
belong there; if that is taken all the same, the answer is not compared. Of the profiles in conftest.py, `long` draws
200,000 other examples each time, in half an hour:

    python -m pytest tests/test_fuzz.py --hypothesis-profile=long --timeout=0 -o faulthandler_timeout=0
"""

import contextlib
import inspect
import math

import numpy as np
import reference
import reference_image
import reference_local
from cases import FLOATS, HALVES, is_float, uniform
from fuzzing import (
    MOST,
    Call,
    along,
    arrays,
    frozen,
    known_axes,
    near,
    outlandish,
    plain,
    shapes,
    some_axes,
    some_mask,
    unshared,
    wide,
)
from hypothesis import given
from hypothesis import strategies as st

import fastnorm
from fastnorm import image, nn, preprocessing

# ---- statistics


@given(st.data())
def test_statistics(data):
    draw = data.draw
    x = draw(arrays())
    name = draw(st.sampled_from(["mean_var", "mean", "var", "std", "minmax", "moments"]))
    call = Call(draw, getattr(fastnorm, name))
    call.given["x"] = x
    axis = call.take("axis", some_axes(draw, x))
    where = call.take("where", some_mask(draw, x))
    policy = call.pick("nan_policy", "propagate", "omit", "raise")
    counts = {"where": None if where is None else where, "omit": policy == "omit"}
    if name != "minmax":
        weights = [None, uniform(x.shape, np.float32, 3) ** 2, np.ones(x.shape, np.int8)]
        counts["weights"] = call.take("weights", draw(st.sampled_from(weights)))
    keepdims = name != "moments" and call.given.setdefault("keepdims", draw(st.booleans()))
    ddof = call.pick("ddof", 0, 1, 0.5, 2) if name in ("mean_var", "var", "std") else 0
    dtype = call.pick("dtype", None, None, np.float32, "f8") if name in ("mean_var", "mean", "var", "std") else None
    result, accepted = call.run()
    if not accepted or not x.size or (policy == "raise" and np.isnan(wide(x)).any()):
        return
    if name == "minmax":
        check_minmax(result, x, axis, keepdims, **counts)
        return
    if outlandish(x):
        return
    if name == "moments":
        result, name, dtype = (result.mean, result.var()), "mean_var", np.dtype(np.float64)
    kind, kept, (mean, mean_bound), (var, var_bound) = reference.counted_twin(
        plain(x), axis, ddof, keepdims, dtype, **counts
    )
    with reference.silent():
        mean, mean_bound, var, var_bound = (np.reshape(v, kept) for v in (mean, mean_bound, var, var_bound))
        tiny = 2.0**-133 if kind.name == "bfloat16" else float(np.finfo(kind).smallest_subnormal)
        if name == "std":  # between the roots of the ends of the variance's bound
            eps, root = reference.eps_of(kind), np.sqrt(var)
            error = np.maximum(root - np.sqrt(np.maximum(var - var_bound, 0)), np.sqrt(var + var_bound) - root)
            near(result, root, error + eps * root + tiny, kind, kept)
            return
    if name in ("mean", "mean_var"):
        near(result if name == "mean" else result[0], mean, mean_bound + tiny, kind, kept)
    if name in ("var", "mean_var"):
        near(result if name == "var" else result[1], var, var_bound + tiny, kind, kept)


def check_minmax(result, x, axis, keepdims, where, omit):
    axes = known_axes(axis, x.ndim)
    values = np.asarray(wide(x) if is_float(x.dtype) or x.dtype == bool else x.astype(object))
    counted = np.broadcast_to(True if where is None else np.asarray(where).view(np.uint8) != 0, x.shape)
    counted = counted & ~np.isnan(wide(x)) if omit else counted
    with reference.silent():
        low = np.where(counted, values, math.inf).min(axes, keepdims=keepdims)
        high = np.where(counted, values, -math.inf).max(axes, keepdims=keepdims)
        nothing = ~counted.any(axes, keepdims=keepdims)
    for extremum, twin in zip(result, (low, high), strict=True):
        reference.assert_layout(np.asarray(extremum), np.shape(twin), x.dtype.newbyteorder("="))
        got = np.asarray(extremum).astype(values.dtype)
        want = np.where(nothing, math.nan, twin) if is_float(x.dtype) else twin
        assert (np.equal(got, want) | (np.not_equal(got, got) & np.not_equal(want, want))).all()


@given(st.data())
def test_streams(data):
    draw = data.draw
    features = draw(shapes(0, 2))
    stream = fastnorm.Moments(draw(st.sampled_from([2, 3, 4])), draw(st.booleans()))
    seen = []
    for _ in range(draw(st.integers(1, 3))):
        call = Call(draw, stream.update)
        rows = draw(st.integers(0, MOST // max(1, math.prod(features))))
        chunk = call.take("chunk", draw(arrays(shape=(rows, *features), tame=True)))
        call.take("axis", 0)
        call.take("weights", draw(st.sampled_from([None, np.full(rows, 2.0)])))
        before = stream.to_dict()
        result, accepted = call.run()
        if result is None:
            assert stream.to_dict() == before
        elif accepted:
            seen.append((wide(chunk), 1.0 if call.given["weights"] is None else 2.0))
        else:
            return
    total = sum(len(x) * w for x, w in seen)
    if total and math.prod(features):
        mean = sum(x.sum(0) * w for x, w in seen) / total
        var = sum(((x - mean) ** 2).sum(0) * w for x, w in seen) / total
        size = sum(np.abs(x).sum(0) * w for x, w in seen) / total
        # A merge moves the mean by a part of the difference of two, which is rounded.
        most = np.max([np.abs(x).max(0, initial=0) for x, _ in seen], 0)
        near(stream.mean, mean, 2.0**-49 * size + 2.0**-51 * most, np.dtype(np.float64), features)
        near(stream.var(), var, 2.0**-44 * var + 2.0**-97 * most**2, np.dtype(np.float64), features)
        assert np.all(np.asarray(stream.count) == total)


# ---- norms of rows


@given(st.data())
def test_row_norms(data):
    draw = data.draw
    name = draw(st.sampled_from(["layer_norm", "rms_norm", "add_layer_norm", "standardize", "min_max_scale"]))
    call = Call(draw, getattr(fastnorm, name), "out shape")
    x = call.given["x"] = draw(arrays())
    dtype, others = reference.result_dtype(x), {}
    axes = known_axes(-1, max(1, x.ndim))
    where = weight = bias = residual = None
    if name in ("layer_norm", "rms_norm"):
        axis = call.take("axis", some_axes(draw, x, 1))
        with contextlib.suppress(OverflowError, TypeError, ValueError):
            axes = known_axes(-1 if axis is None else axis, x.ndim)
    elif name == "add_layer_norm":
        residual = call.take("residual", uniform(x.shape, dtype, 4))
    else:
        axis = call.take("axis", some_axes(draw, x))
        with contextlib.suppress(OverflowError, TypeError, ValueError):
            axes = known_axes(axis, x.ndim)
    if name.endswith("norm") and x.ndim and draw(st.booleans()):
        kept = tuple(n for a, n in enumerate(x.shape) if a in axes)
        weight = others["weight"] = call.take("weight", uniform(kept, draw(st.sampled_from((*FLOATS, *HALVES))), 5))
        if name != "rms_norm":
            bias = others["bias"] = call.take("bias", uniform(kept, np.float32, 6))
    if name == "layer_norm":
        where = call.take("where", some_mask(draw, x))
    eps = 0.0 if name == "min_max_scale" else call.pick("eps", 1e-5, 0.5, 1)
    if name != "add_layer_norm":
        call.out(x, dtype, **others)
        x, weight, bias = map(unshared, (call.given["x"], weight, bias))
    result, accepted = call.run()
    if accepted and x.size and not outlandish(x):
        y = result[0] if name == "add_layer_norm" else result
        values = wide(x)
        if residual is not None:
            reference.assert_within(result[1], values + wide(residual), reference.eps_of(dtype) * (np.abs(values) + 1))
            values = wide(result[1])
            if outlandish(result[1]):
                return
        check_row_norm(name, y, x, values, axes, where, weight, bias, eps)


def check_row_norm(name, y, x, values, axes, where, weight, bias, eps):
    """Within what `assert_normalized` says; z-scores and scaled values have the same bounds and ranges of about 1."""
    where = np.broadcast_to(True if where is None else np.asarray(where).view(np.uint8) != 0, x.shape)
    weight, bias = (None if p is None else wide(p).reshape(along(axes, x.shape)) for p in (weight, bias))
    if name == "rms_norm":
        with reference.silent():
            want = values / np.sqrt((values**2).mean(axes, keepdims=True) + eps) * (1 if weight is None else weight)
    elif name == "min_max_scale":
        low, high = values.min(axes, keepdims=True), values.max(axes, keepdims=True)
        want = (values - low) / np.where(high == low, 1, high - low)
    else:
        want = reference.masked_layer_norm(values, axes, where, weight, bias, eps)[0]
    reference.assert_normalized(y, x, want, weight, bias, twin_error=x.size * 2.0**-62)


@given(st.data())
def test_row_gradients(data):
    draw = data.draw
    name = draw(st.sampled_from(["layer_norm_backward", "rms_norm_backward"]))
    call = Call(draw, getattr(fastnorm, name))
    tame = draw(st.booleans())
    x = call.given["x"] = draw(arrays(least=1, tame=tame))
    dtype = reference.result_dtype(x)
    axes = known_axes(some_axes(draw, x, 1), x.ndim)
    rms = name == "rms_norm_backward"
    with reference.silent():
        saved = reference.saved_statistics(wide(x), axes, rms=rms)
    compute = np.float64 if dtype.itemsize == 8 else np.float32
    mean, rstd = (np.asarray(v, np.float64).astype(compute) for v in saved)
    call.take("axis", axes)
    dy = call.take("dy", draw(arrays(dtypes=(dtype,), shape=x.shape, tame=True)))
    if not rms:
        call.take("mean", mean)
    call.take("rstd", rstd)
    weight = call.take("weight", draw(st.sampled_from([None, uniform([x.shape[a] for a in axes], np.float32, 5)])))
    call.out(x, dtype, dy=dy, rstd=rstd)
    x, dy, rstd, weight = map(unshared, (call.given["x"], dy, rstd, weight))
    result, accepted = call.run()
    if accepted and tame and x.size:
        twin = reference.norm_backward(dy, wide(x), rstd, weight, axes, rms=rms)
        result = (*result, np.zeros(twin["dbias"].shape)) if rms else result
        reference.assert_gradients(result[:2] if rms else result, twin, x, weight)


# ---- norms of channels


@given(st.data())
def test_channel_norms(data):
    draw = data.draw
    name = draw(st.sampled_from(["batch_norm", "instance_norm", "group_norm"]))
    call = Call(draw, getattr(fastnorm, name))
    x = call.given["x"] = draw(arrays(least=1, most=5))
    axis = draw(st.integers(0, max(0, x.ndim - 1)))
    channels = x.shape[axis]
    weight = call.take("weight", draw(st.sampled_from([None, uniform(channels, np.float64, 5)])))
    bias = call.take("bias", draw(st.sampled_from([None, uniform(channels, np.float32, 6)])))
    call.take("channel_axis", axis)
    how, momentum, before, given = {"eps": call.pick("eps", 1e-5, 0.5)}, 0.1, None, None
    if name == "group_norm":
        how["groups"] = call.pick("num_groups", *(g for g in (1, 2, 3, 5) if channels % g == 0))
    else:
        flag = "training" if name == "batch_norm" else "use_input_stats"
        call.given[flag] = draw(st.booleans())
        running = uniform(channels, np.float32, 7), uniform(channels, np.float32, 8) ** 2
        if not call.given[flag] or draw(st.booleans()):
            before = [r.copy() for r in running]
            call.take("running_mean", running[0]), call.take("running_var", running[1])
            momentum = call.pick("momentum", 0.1, 1.0, 0)
        if not call.given[flag]:
            given = how["given"] = before
        elif name == "instance_norm":
            how["groups"] = channels
    if name == "batch_norm":
        how["where"] = call.take("where", some_mask(draw, x))
    call.given["return_stats"] = True
    others = {"weight": weight, "running_mean": call.given.get("running_mean")}
    call.out(x, reference.result_dtype(x), **{k: v for k, v in others.items() if v is not None})
    x, weight, bias = map(unshared, (call.given["x"], weight, bias))
    result, accepted = call.run()
    if not accepted or not x.size or outlandish(x):
        return
    if how.get("where") is not None:
        how["where"] = np.asarray(how["where"]).view(np.uint8) != 0
    mean, var = reference.assert_channel_norm(result, plain(x), weight, bias, channel_axis=axis, **how)
    if before is not None and given is None and name == "batch_norm" and how["where"] is None:
        after = [call.given["running_mean"], call.given["running_var"]]
        reference.assert_updated(after, before, mean, var, x.size // channels, momentum, reference.result_dtype(x))


@given(st.data())
def test_channel_gradients(data):
    draw = data.draw
    name = draw(st.sampled_from(["batch_norm_backward", "instance_norm_backward", "group_norm_backward"]))
    call = Call(draw, getattr(fastnorm, name))
    x = call.given["x"] = draw(arrays(least=2, most=4, tame=True))
    dtype, channels = reference.result_dtype(x), x.shape[1]
    compute = np.float64 if dtype.itemsize == 8 else np.float32
    groups = {"batch_norm_backward": None, "instance_norm_backward": channels, "group_norm_backward": 1}[name]
    with reference.silent():
        _, mean, _, rstd = reference.channel_norm(wide(x), groups=groups) if x.size else (None, *[np.zeros(())] * 3)
    mean, rstd = (call.take(k, v.astype(compute)) for k, v in (("mean", mean), ("rstd", rstd)))
    dy = call.take("dy", draw(arrays(dtypes=(dtype,), shape=x.shape, tame=True)))
    weight = call.take("weight", draw(st.sampled_from([None, uniform(channels, np.float32, 5)])))
    if groups == 1:
        call.take("num_groups", 1)
    call.out(x, dtype, dy=dy, rstd=rstd)
    x, dy, rstd, weight = map(unshared, (call.given["x"], dy, rstd, weight))
    result, accepted = call.run()
    if accepted and x.size:
        want = reference.channel_norm_backward(dy, wide(x), rstd, weight, groups=groups)
        reference.assert_gradients(result, want, x, weight)


# ---- normalize and local response norm


@given(st.data())
def test_local_norms(data):
    draw = data.draw
    name = draw(
        st.sampled_from(["normalize", "normalize_backward", "local_response_norm", "local_response_norm_backward"])
    )
    call, backward = Call(draw, getattr(fastnorm, name)), name.endswith("backward")
    x = call.given["x"] = draw(arrays(tame=backward, least=3 * ("local" in name), most=5))
    dtype = reference.result_dtype(x)
    dy = call.take("dy", draw(arrays(dtypes=(dtype,), shape=x.shape, tame=True))) if backward else None
    if "local" in name:
        how = {"size": call.pick("size", 1, 3, 4, 100), "alpha": call.pick("alpha", 1e-4, 2.0)}
        how["beta"] = call.pick("beta", 0.75, 0.5, 1, 0.3)
    else:
        how = {"p": call.pick("p", 1, 2.0, math.inf, 3), "axis": call.take("axis", some_axes(draw, x))}
    twin, loses = getattr(reference_local, name), 16
    if not backward:
        call.out(x, dtype)
    x, dy = unshared(call.given["x"]), unshared(dy)
    result, accepted = call.run()
    if accepted and x.size and not outlandish(x):
        if backward:
            want, sizes = twin(dy, plain(x), **how)
            reference_local.assert_close(result, want, plain(x), 4 * loses, sizes)
        else:
            reference_local.assert_close(result, twin(plain(x), **how), plain(x), loses)


# ---- pictures


@given(st.data())
def test_pictures(data):
    draw = data.draw
    name = draw(st.sampled_from(["normalize", "to_tensor"]))
    call = Call(draw, getattr(image, name), "picture shape dtype channels")
    kinds = (*(np.dtype(t) for t in ("uint8", "uint16", "bool", "int32")), *FLOATS, *HALVES)
    layout = draw(st.sampled_from(["HWC", "CHW"]))
    channels = draw(st.integers(1, 4))
    size = [*draw(shapes(2, 2)), channels] if layout == "HWC" else [channels, *draw(shapes(2, 2))]
    shape = (*draw(st.sampled_from([(), (1,), (2,)])), *size)
    x = draw(arrays(kinds, shape=shape, tame=True) if draw(st.integers(0, 3)) else arrays())
    call.given[next(iter(inspect.signature(call.function).parameters))] = x
    mean = std = None
    if name == "normalize":
        mean = call.take("mean", tuple(uniform(channels, np.float64, 3).tolist()))
        std = call.take("std", tuple((uniform(channels, np.float64, 4) + 1.5).tolist()))
    ends = {"input_layout": call.take("input_layout", layout)}
    if name == "normalize":
        ends["layout"] = call.pick("layout", "HWC", "CHW")
    result, accepted = call.run()
    if accepted and result.size and x.shape == shape:
        mean, std = (0, 1) if mean is None else (mean, std)
        truth = x if x.dtype != bool else wide(x).astype(bool)
        want = reference_image.normalize(truth, mean, std, **ends)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, want.astype(np.float64), rtol=2.0**-21, atol=2.0**-21)


# ---- layers and estimators


@given(st.data())
def test_layers(data):
    draw = data.draw
    channels = draw(st.sampled_from([1, 2, 6]))
    make = {
        "BatchNorm1d": lambda: nn.BatchNorm1d(channels),
        "BatchNorm2d": lambda: nn.BatchNorm2d(channels, activation="relu"),
        "InstanceNorm1d": lambda: nn.InstanceNorm1d(channels, affine=True, track_running_stats=True),
        "GroupNorm": lambda: nn.GroupNorm(1, channels),
        "LayerNorm": lambda: nn.LayerNorm(channels),
        "RMSNorm": lambda: nn.RMSNorm(channels),
        "LocalResponseNorm": lambda: nn.LocalResponseNorm(3),
    }
    name = draw(st.sampled_from([*make]))
    layer = make[name]()
    for _ in range(draw(st.integers(1, 3))):
        layer.train(draw(st.booleans()))
        shape = draw(shapes(1, 4))
        shape = (*shape, channels) if name in ("LayerNorm", "RMSNorm") else (*shape[:1], channels, *shape[1:])
        x = draw(arrays(shape=shape))
        call = Call(draw, layer.forward, name)
        call.take("x", x)
        before = frozen(layer.state_dict() | layer.grads)
        y, accepted = call.run()
        if y is None:
            assert frozen(layer.state_dict() | layer.grads) == before
            continue
        if accepted and name == "LayerNorm":
            assert y.tobytes() == fastnorm.layer_norm(x, channels, layer.weight, layer.bias).tobytes()
        if accepted and name == "RMSNorm":
            assert y.tobytes() == fastnorm.rms_norm(x, channels, layer.weight).tobytes()
        call = Call(draw, layer.backward, name)
        call.take("dy", draw(arrays(dtypes=(y.dtype,), shape=y.shape)))
        before = frozen(layer.state_dict() | layer.grads)
        dx, accepted = call.run()
        assert dx is not None or frozen(layer.state_dict() | layer.grads) == before
        assert not accepted or (dx.shape, dx.dtype) == (y.shape, y.dtype)


@given(st.data())
def test_scalers(data):
    draw = data.draw
    name = draw(st.sampled_from(["StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "Normalizer"]))
    scaler = getattr(preprocessing, name)()
    columns = draw(st.sampled_from([1, 2, 17]))
    for _ in range(draw(st.integers(1, 3))):
        methods = ["fit", "transform", "fit_transform", "inverse_transform", "partial_fit"]
        methods = [method for method in methods if hasattr(scaler, method)]
        call = Call(draw, getattr(scaler, draw(st.sampled_from(methods))), f"{name} dtype array sample argument data")
        x = draw(arrays(shape=(draw(st.integers(0, 40)), columns)) if draw(st.integers(0, 5)) else arrays())
        call.take("X", x)
        if call.function.__name__ == "transform":
            call.out(x, reference.result_dtype(x), "X")
        before = frozen(vars(scaler))
        fitted = "n_features_in_" in vars(scaler)
        try:
            result, accepted = call.run()
        except AttributeError:  # scikit-learn's NotFittedError is one
            assert not fitted
            continue
        if result is None:
            assert frozen(vars(scaler)) == before
        elif accepted and "transform" in call.function.__name__:
            assert result.shape == x.shape
            assert result.dtype == reference.result_dtype(x)
        elif accepted and name == "StandardScaler" and call.function.__name__ == "fit" and not outlandish(x):
            size = np.abs(wide(x)).mean(0)
            near(scaler.mean_, wide(x).mean(0), 2.0**-50 * size, np.dtype(np.float64), x.shape[1:])
