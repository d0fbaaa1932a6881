"""Bad input is refused by name, with what was got and what is expected, before anything is written."""

import datetime as dt

import numpy as np
import pytest
from cases import outputs, uniform
from memory import garbage

import fastnorm
from fastnorm import Moments

X = uniform((6, 5), np.float32)

ON_ARRAYS = {
    "mean_var": fastnorm.mean_var,
    "mean": fastnorm.mean,
    "var": fastnorm.var,
    "std": fastnorm.std,
    "minmax": fastnorm.minmax,
    "moments": fastnorm.moments,
    "update": lambda x: Moments().update(x),
    "layer_norm": fastnorm.layer_norm,
    "rms_norm": fastnorm.rms_norm,
    "add_layer_norm": lambda x, **kwargs: fastnorm.add_layer_norm(x, X, **kwargs),
    "add_rms_norm": lambda x, **kwargs: fastnorm.add_rms_norm(x, X, **kwargs),
    "standardize": fastnorm.standardize,
    "min_max_scale": fastnorm.min_max_scale,
    "layer_norm_backward": lambda x, **kwargs: fastnorm.layer_norm_backward(X, x, X[:, 0], X[:, 0], **kwargs),
    "rms_norm_backward": lambda x, **kwargs: fastnorm.rms_norm_backward(X, x, X[:, 0], **kwargs),
}
WITH_EPS = {name: ON_ARRAYS[name] for name in ("layer_norm", "rms_norm", "standardize")}
WITH_OUT = {**WITH_EPS, "min_max_scale": fastnorm.min_max_scale}
each_function = pytest.mark.parametrize("call", ON_ARRAYS.values(), ids=ON_ARRAYS)
each_with_eps = pytest.mark.parametrize("call", WITH_EPS.values(), ids=WITH_EPS)
each_with_out = pytest.mark.parametrize("call", WITH_OUT.values(), ids=WITH_OUT)

UNWELCOME = {
    "complex64": X.astype(np.complex64),
    "complex128": X.astype(np.complex128),
    "object": X.astype(object),
    "masked": np.ma.masked_array(X, X > 0),
    "masked without a mask": np.ma.masked_array(X),
    "str": np.array([["a", "b"], ["c", "d"]]),
    "bytes": np.array([[b"a", b"b"]]),
    "datetime64": np.zeros((2, 2), "M8[s]"),
    "timedelta64": np.zeros((2, 2), "m8[s]"),
    "record": np.zeros((2, 2), [("a", "f4")]),
    "a list of words": ["a", "b"],
    "a list of None": [None, 1.0],
    "a list of dates": [dt.date(2020, 1, 1)],
    "a dictionary": {"a": 1},
    "nothing": None,
}
if np.dtype(np.longdouble) != np.float64:
    UNWELCOME["longdouble"] = X.astype(np.longdouble)


@each_function
@pytest.mark.parametrize("x", UNWELCOME.values(), ids=UNWELCOME)
def test_arrays_of_other_kinds_are_type_errors(call, x):
    with pytest.raises(TypeError, match=r"\bx\b|chunk"):
        call(x)


@each_function
def test_ragged_lists_are_refused(call):
    with pytest.raises((TypeError, ValueError)):
        call([[1.0, 2.0], [3.0]])


@pytest.mark.parametrize(
    "name", ["mean_var", "mean", "var", "std", "minmax", "moments", "standardize", "min_max_scale"]
)
def test_axis(name):
    call = getattr(fastnorm, name)
    for axis in (2, -3, (0, 2), (-3,)):
        with pytest.raises(np.exceptions.AxisError) as error:
            call(X, axis=axis)
        assert isinstance(error.value, ValueError)
        assert isinstance(error.value, IndexError)
    for axis in ((0, 0), (1, -1)):
        with pytest.raises(ValueError, match="axis"):
            call(X, axis=axis)
    for axis in (1.0, "0", (0, 1.5), [0.5]):
        with pytest.raises(TypeError, match="axis"):
            call(X, axis=axis)
    with pytest.raises(np.exceptions.AxisError):
        call(np.float32(3), axis=0)


def test_ddof():
    for call in (fastnorm.mean_var, fastnorm.var, fastnorm.std, fastnorm.standardize):
        for ddof in ("1", None, 1j, [1]):
            with pytest.raises(TypeError, match="ddof"):
                call(X, ddof=ddof)
    for ddof in ("1", None):
        with pytest.raises(TypeError, match="ddof"):
            fastnorm.moments(X).var(ddof=ddof)


def test_dtype():
    for call in (fastnorm.mean_var, fastnorm.mean, fastnorm.var, fastnorm.std):
        for dtype in (np.complex128, np.int32, "S3", object, "V2"):
            with pytest.raises(TypeError, match="dtype"):
                call(X, dtype=dtype)


@each_with_eps
def test_eps(call):
    out = garbage(X.shape, X.dtype)
    before = out.tobytes()
    for eps in (-1e-5, -np.inf, np.nan):
        with pytest.raises(ValueError, match="eps"):
            call(X, eps=eps, out=out)
    for eps in ("1", 1j, [1e-5]):
        with pytest.raises(TypeError, match="eps"):
            call(X, eps=eps, out=out)
    assert out.tobytes() == before


@each_with_out
def test_out_that_does_not_fit(call):
    locked = garbage(X.shape, X.dtype)
    locked.flags.writeable = False
    bad = {
        "transposed shape": garbage((5, 6), np.float32),
        "one row": garbage((5,), np.float32),
        "one axis more": garbage((1, 6, 5), np.float32),
        "wider": garbage(X.shape, np.float64),
        "integers": garbage(X.shape, np.int32),
        "other byte order": garbage(X.shape, ">f4" if np.little_endian else "<f4"),
        "read-only": locked,
    }
    for label, out in bad.items():
        before = out.tobytes()
        with pytest.raises(ValueError, match="out"):
            call(X, out=out)
        assert out.tobytes() == before, label
    for out in ([[0.0] * 5] * 6, "out", 3, (garbage(X.shape, X.dtype),)):
        with pytest.raises(TypeError, match="out"):
            call(X, out=out)
    with pytest.raises(ValueError, match="out"):  # integers are normalized in float64
        call(np.arange(6), out=np.arange(6))


@each_with_out
def test_out_that_overlaps_x_partly(call):
    space = uniform((20, 5), np.float32)
    square = uniform((6, 6), np.float32)
    flat = uniform((70,), np.float32)
    pairs = [
        (space[:10], space[1:11]),
        (space[1:11], space[:10]),
        (space[:10], space[9:19]),
        (space[:10], space[:10][::-1]),
        (square, square.T),
        (flat[:60:2], flat[:30]),
        (flat[:30], flat.view(np.uint8)[1:121].view(np.float32)),
    ]
    for x, out in pairs:
        before = x.tobytes(), out.tobytes()
        with pytest.raises(ValueError, match="out"):
            call(x, out=out)
        assert (x.tobytes(), out.tobytes()) == before
    apart = (space[:10], space[10:]), (flat[:60:2], flat[1:60:2])  # interlaced, but no byte is shared
    for x, out in apart:
        want = call(x.copy())
        np.testing.assert_array_equal(call(x, out=out), want)


def test_out_that_overlaps_a_parameter():
    space = uniform((4, 5), np.float32)
    x = uniform((3, 5), np.float32)
    before = space.tobytes()
    for parameters in ({"weight": space[0]}, {"bias": space[3]}):
        out = space[:3] if "weight" in parameters else space[1:]
        with pytest.raises(ValueError, match="out"):
            fastnorm.layer_norm(x, out=out, **parameters)
        for row in (x[0], x[0].tolist()):  # an array or not, the parameter itself is refused
            (parameter,) = parameters.values()
            with pytest.raises(ValueError, match="out"):
                fastnorm.layer_norm(row, out=parameter, **parameters)
    assert space.tobytes() == before


def test_out_of_zero_stride():
    out = np.lib.stride_tricks.as_strided(np.zeros(5, np.float32), (6, 5), (0, 4), writeable=True)
    with pytest.raises(ValueError, match="out"):
        fastnorm.layer_norm(X, out=out)


def test_normalized_shape_and_parameters():
    out = garbage(X.shape, X.dtype)
    before = out.tobytes()
    ones = np.ones
    bad = [
        ({"normalized_shape": 6}, "normalized_shape"),
        ({"normalized_shape": (5, 6)}, "normalized_shape"),
        ({"normalized_shape": (1, 6, 5)}, "normalized_shape"),
        ({"normalized_shape": ()}, "normalized_shape"),
        ({"normalized_shape": -5}, "normalized_shape"),
        ({"normalized_shape": 5, "axis": 0}, "axis|normalized_shape"),
        ({"weight": ones(4)}, "weight"),
        ({"normalized_shape": 5, "weight": ones(6)}, "weight"),
        ({"normalized_shape": 5, "weight": ones((1, 5))}, "weight"),
        ({"normalized_shape": 5, "weight": ones(5), "bias": ones(4)}, "bias"),
        ({"normalized_shape": 5, "bias": np.float64(1)}, "bias"),
        ({"axis": 0, "weight": ones(5)}, "weight"),
        ({"axis": (1, 0), "weight": ones((5, 6))}, "weight"),
        ({"axis": (0, 1), "bias": ones(30)}, "bias"),
        ({"axis": 2}, "axis"),
        ({"axis": (1, 1)}, "axis"),
    ]
    for kwargs, name in bad:
        with pytest.raises(ValueError, match=name):
            fastnorm.layer_norm(X, **kwargs, out=out)
    for kwargs, name in (
        ({"normalized_shape": 5.0}, "normalized_shape"),
        ({"normalized_shape": "5"}, "normalized_shape"),
        ({"axis": 0.5}, "axis"),
        ({"weight": ones(5, complex)}, "weight"),
        ({"weight": ones(5, object)}, "weight"),
        ({"weight": np.ma.masked_array(ones(5))}, "weight"),
        ({"normalized_shape": 5, "bias": ["a"] * 5}, "bias"),
    ):
        with pytest.raises(TypeError, match=name):
            fastnorm.layer_norm(X, **kwargs, out=out)
    with pytest.raises(ValueError, match=r"\bx\b|normalized_shape"):
        fastnorm.layer_norm(np.float32(3))
    assert out.tobytes() == before


def test_messages_say_what_was_got_and_what_is_expected():
    for call, words in (
        (lambda: fastnorm.mean(X.astype(complex)), ("x", "complex128")),
        (lambda: fastnorm.layer_norm(X, out=garbage((5, 6), np.float32)), ("out", "(5, 6)", "(6, 5)")),
        (lambda: fastnorm.layer_norm(X, out=garbage((6, 5), np.float64)), ("out", "float64", "float32")),
        (lambda: fastnorm.layer_norm(X, 7), ("normalized_shape", "7", "5")),
        (lambda: fastnorm.layer_norm(X, 5, np.ones(4)), ("weight", "(4,)", "(5,)")),
        (lambda: fastnorm.layer_norm(X, eps=-1.0), ("eps", "-1.0")),
        (lambda: Moments().update(X).update(X[:, :2]), ("(2,)", "(5,)")),
        (lambda: Moments(order=9), ("order", "9", "2")),
    ):
        with pytest.raises((TypeError, ValueError)) as error:
            call()
        for word in words:
            assert word in str(error.value)


@pytest.mark.parametrize("x", [np.ones((2, 3)), [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]], ids=["array", "list"])
def test_arrays_and_lists_are_judged_alike(x):
    refused = [
        (ValueError, lambda: fastnorm.var(x, ddof=float("nan"))),
        (ValueError, lambda: fastnorm.standardize(x, ddof=float("nan"))),
        (ValueError, lambda: fastnorm.layer_norm(x, eps=10**400)),
        (ValueError, lambda: fastnorm.layer_norm(x, axis=())),
        (TypeError, lambda: fastnorm.layer_norm(x, (3.0,))),
        (TypeError, lambda: fastnorm.layer_norm(x, (np.array([3, 3]),))),
        (TypeError, lambda: fastnorm.layer_norm(x, eps=np.complex64(1))),
        (ValueError, lambda: fastnorm.mean(x, 2**70)),
        (TypeError, lambda: fastnorm.mean(x, True)),
        (TypeError, lambda: fastnorm.mean(x, np.True_)),
    ]
    for error, call in refused:
        with pytest.raises(error, match=r"ddof|eps|axis|normalized_shape"):
            call()


def test_booleans_count_by_truth_whatever_their_bytes_are():
    found = uniform((70, 9), np.uint8)
    found[::3] = 0
    truth = found != 0
    wide = np.zeros((70, 18), np.uint8)
    wide[:, ::2] = found
    ramps = [np.sin(np.arange(630.0) * step).reshape(70, 9) for step in (1, 2)]

    def three(count):  # mean, rstd and weight
        return np.zeros(count), np.ones(count), np.ones(count)

    rows, columns = (*ramps, np.zeros(70), np.ones(70), np.ones(9)), (*ramps, *three(9))
    calls = {
        **{name: call for name, call in ON_ARRAYS.items() if name[:3] not in ("add", "upd") and "back" not in name},
        "update": lambda x: Moments(2, True).update(x),
        "moments": lambda x: fastnorm.moments(x, 0, minmax=True),
        "weights": lambda x: fastnorm.mean_var(np.arange(630.0).reshape(70, 9), weights=x),
        "where": lambda x: fastnorm.layer_norm(np.arange(630.0).reshape(70, 9), where=x),
        "weight": lambda x: fastnorm.layer_norm(np.arange(630.0).reshape(70, 9), weight=x[1]),
        "batch_norm": lambda x: fastnorm.batch_norm(x, training=True),
        "normalize": fastnorm.normalize,
        "layer": fastnorm.nn.LayerNorm(9),
        "layer_norm_backward": lambda x: fastnorm.layer_norm_backward(*rows, where=x),
        "batch_norm_backward": lambda x: fastnorm.batch_norm_backward(*columns, where=x),
        "runs": lambda x: fastnorm.batch_norm_backward(
            *(a.reshape(2, 5, 63) for a in ramps), *three(5), where=x.reshape(2, 5, 63)
        ),
    }
    for name, call in calls.items():
        want = outputs(call(truth))
        for x in (found.view(bool), np.asfortranarray(found).view(bool), wide.view(bool)[:, ::2]):
            for got, expected in zip(outputs(call(x)), want, strict=True):  # other orders of addition
                np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12, err_msg=name)
    assert fastnorm.mean(np.array(7, np.uint8).view(bool)) == 1


def test_what_is_no_array_is_refused_by_name():
    ragged = [[1.0], [1.0, 2.0]]
    for call, name in (
        (lambda: fastnorm.mean(ragged), "x"),
        (lambda: fastnorm.mean(X, weights=ragged), "weights"),
        (lambda: fastnorm.mean(X, where=ragged), "where"),
        (lambda: fastnorm.layer_norm(X, bias=ragged), "bias"),
    ):
        with pytest.raises(ValueError, match=rf"^{name} is no array"):
            call()


def test_no_channels_are_in_no_more_groups_than_can_be_counted():
    with pytest.raises(ValueError, match="num_groups"):
        fastnorm.group_norm(np.ones((3, 0, 2)), 10**400)


def test_axes_in_an_array_are_refused_without_a_word_on_stderr(capfd):
    for call in (fastnorm.layer_norm, fastnorm.rms_norm, fastnorm.normalize):
        for axis in (np.zeros(0), np.ones((2, 3, 4)), np.array([0, 1])):
            with pytest.raises(TypeError, match="axis"):
                call(X, axis=axis)
    assert capfd.readouterr().err == ""


def test_subclasses_and_maps_give_plain_arrays(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, X)
    mapped = np.load(path, mmap_mode="r")
    for x in (mapped, X.view(np.matrix), X.view(np.recarray)):
        y, mean, _rstd = fastnorm.layer_norm(x, return_stats=True)
        assert type(y) is type(mean) is np.ndarray
        assert type(fastnorm.mean(x, 0)) is np.ndarray
        assert fastnorm.mean(x, 0).shape == (5,)
        np.testing.assert_array_equal(y, fastnorm.layer_norm(X))


def test_there_are_no_stray_keywords():
    for call in ON_ARRAYS.values():
        with pytest.raises(TypeError):
            call(X, no_such_keyword=1)
    for call in (fastnorm.mean_var, fastnorm.minmax, fastnorm.moments):
        with pytest.raises(TypeError):
            call(X, 0, 1)  # the rest is by keyword
    with pytest.raises(TypeError):
        fastnorm.mean_var()
