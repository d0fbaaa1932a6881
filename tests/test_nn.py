"""The layers: PyTorch's behaviour from constructor to checkpoint, gradients, and what a refused call leaves alone."""

import copy
import doctest
import inspect
import itertools
import pickle
import re
import sys
import weakref

import numpy as np
import pytest
import reference
from cases import HALVES, uniform
from memory import run_fresh

from fastnorm import nn

# Constructor arguments and shapes of x, for every layer and every flag.
_FLAGS = [
    {"affine": affine, "bias": bias, "track_running_stats": track}
    for affine, bias, track in itertools.product((True, False), repeat=3)
]
_SPATIAL = {"1d": [(6, 5, 4)], "2d": [(3, 5, 4, 2)], "3d": [(2, 5, 2, 3, 2)]}
LAYERS = [
    *[("BatchNorm" + d, (5,), f, shapes + [(6, 5)] * (d == "1d")) for d, shapes in _SPATIAL.items() for f in _FLAGS],
    *[("BatchNorm1d", (5,), {"momentum": m, "eps": 1e-2}, [(6, 5), (6, 5, 4)]) for m in (None, 0, 0.5, 1)],
    *[("InstanceNorm" + d, (5,), f, [*s, s[0][1:]]) for d, s in _SPATIAL.items() for f in _FLAGS],
    *[("InstanceNorm1d", (5,), {"momentum": m, "track_running_stats": True}, [(6, 5, 4)]) for m in (None, 0.5)],
    *[("GroupNorm", (g, 6, 1e-3), {}, [(3, 6, 2), (2, 6, 2, 3)]) for g in (1, 2, 3, 6)],
    *[("GroupNorm", (2, 6), f, [(3, 6), (3, 6, 4)]) for f in ({"affine": False}, {"bias": False})],
    *[("LayerNorm", (s,), {}, [(7, 3, 4), (3, 4)]) for s in (4, (3, 4), [4])],
    *[("LayerNorm", (4, 1e-2, affine, bias), {}, [(7, 4), (4,)]) for affine in (True, False) for bias in (True, False)],
    *[("RMSNorm", (s,), {}, [(7, 3, 4), (3, 4)]) for s in (4, (3, 4))],
    *[("RMSNorm", (4, 1e-2, affine), {}, [(7, 4), (4,)]) for affine in (True, False)],
    ("LayerNorm", ((3, 4), 1e-5, False), {}, [(7, 3, 4), (3, 4)]),
    ("RMSNorm", ((3, 4), None, False), {}, [(7, 3, 4), (3, 4)]),
    *[("LocalResponseNorm", (n,), {}, [(2, 5, 3), (2, 5, 3, 2), (1, 5, 2, 1, 2)]) for n in (1, 2, 3, 5, 8)],
    *[("LocalResponseNorm", (3, 0.5, 0.6, 2), {}, [(2, 5, 3)])],
]
ONE_EACH = list({layer[0]: layer for layer in reversed(LAYERS)}.values())
WITH_ARRAYS = [layer for layer in ONE_EACH if layer[0] != "LocalResponseNorm"]


def over(layers):
    ids = [f"{name}-{args}-{options}".replace(" ", "") for name, args, options, _ in layers]
    return pytest.mark.parametrize(("name", "args", "options", "shapes"), layers, ids=ids)


def values(shape, seed, dtype=np.float32):
    return np.asarray(uniform(shape, dtype, seed)) + np.asarray(0.5, dtype)


def trained(steps=2, **options):
    """Make a batch norm whose parameters and statistics are no longer those of a new one."""
    layer = nn.BatchNorm1d(3, **options)
    for seed, parameter in enumerate(layer.parameters()):
        parameter[...] += uniform(parameter.shape, parameter.dtype, seed + 90)
    for seed in range(steps):
        layer(values((6, 3), seed))
    return layer


def snapshot(layer):
    return {name: array.copy() for name, array in layer.state_dict().items()}


def assert_state(layer, want):
    assert list(layer.state_dict()) == list(want)
    for name, array in layer.state_dict().items():
        assert array.dtype == want[name].dtype
        np.testing.assert_array_equal(array, want[name], err_msg=name)


# ---- PyTorch's layers


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def twins(torch, name, args, options, dtype=np.float32):
    """Make one layer of each library, with the same parameters, none of which is 0 or 1."""
    ours = getattr(nn, name)(*args, **options, **({} if name == "LocalResponseNorm" else {"dtype": dtype}))
    theirs = getattr(torch.nn, name)(*args, **options).to(getattr(torch, np.dtype(dtype).name))
    with torch.no_grad():
        for seed, (parameter, own) in enumerate(zip(theirs.parameters(), ours.parameters(), strict=True)):
            own[...] += uniform(own.shape, own.dtype, seed + 50) + own.dtype.type(0.25)
            parameter.copy_(torch.from_numpy(own))
    return ours, theirs


def assert_same_state(ours, theirs, tolerance=0.0):
    want = theirs.state_dict()
    assert list(ours.state_dict()) == list(want)
    for name, array in ours.state_dict().items():
        assert str(want[name].dtype) == f"torch.{array.dtype}"
        np.testing.assert_allclose(array, want[name].numpy(), rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.peers
@over(LAYERS)
def test_a_new_layer_is_torchs(torch, name, args, options, shapes):
    del shapes
    ours, theirs = getattr(nn, name)(*args, **options), getattr(torch.nn, name)(*args, **options)
    assert repr(ours) == repr(theirs)
    assert_same_state(ours, theirs)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    assert ours.training is theirs.training is True


@pytest.mark.peers
@pytest.mark.parametrize("name", nn.__all__)
def test_arguments_have_torchs_order_and_defaults(torch, name):
    ours, theirs = (inspect.signature(getattr(library, name)).parameters for library in (nn, torch.nn))
    common = [key for key in theirs if key not in ("device", "dtype")]
    assert [key for key in ours if key in theirs and key != "dtype"] == common
    assert [ours[key].default for key in common] == [theirs[key].default for key in common]
    assert [ours[key].kind for key in common] == [theirs[key].kind for key in common]
    assert all(ours[key].kind is inspect.Parameter.KEYWORD_ONLY for key in ours if key not in common)


@pytest.mark.peers
@over(LAYERS)
def test_passes_and_state_are_torchs(torch, name, args, options, shapes, dtype):
    """Training and evaluation in turn: values, gradients and statistics follow torch.

    x has a mean of at most a few deviations, so both libraries are within some eps of exact, the gradients within as
    many of their largest term; the variance of few elements enlarges them by rstd, at most 50 here.
    """
    ours, theirs = twins(torch, name, args, options, dtype)
    tolerance = 2000 * reference.eps_of(dtype)
    for step, (mode, shape) in enumerate(itertools.product((True, True, False, False, True), shapes)):
        assert ours.train(mode) is ours
        theirs.train(mode)
        x, dy = values(shape, step + 1, dtype), uniform(shape, dtype, step + 20)
        tensor = torch.from_numpy(x.copy()).requires_grad_()
        theirs.zero_grad()
        want = theirs(tensor)
        want.backward(torch.from_numpy(dy))
        y = ours(x)
        assert y.dtype == dtype
        np.testing.assert_allclose(y, want.detach().numpy(), rtol=tolerance, atol=tolerance)
        dx = ours.backward(dy)
        assert dx.dtype == dtype
        np.testing.assert_allclose(dx, tensor.grad.numpy(), rtol=tolerance, atol=tolerance)
        grads = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
        assert list(ours.grads) == list(grads)
        for key, grad in ours.grads.items():
            assert grad.dtype == dtype
            np.testing.assert_allclose(grad, grads[key], rtol=tolerance, atol=tolerance)
        assert_same_state(ours, theirs, tolerance)


@pytest.mark.peers
@over(ONE_EACH)
def test_inputs_of_other_dimensions_are_refused_where_torch_refuses_them(torch, name, args, options, shapes):
    ours, theirs = twins(torch, name, args, options)
    size = shapes[0][-1] if name in ("LayerNorm", "RMSNorm") else shapes[0][1]
    outcomes = set()
    for ndim in range(7):
        for shape in {(2,) * axis + (size,) + (2,) * (ndim - 1 - axis) for axis in range(ndim)} or {()}:
            x = np.ones(shape, np.float32)
            try:
                want = theirs(torch.from_numpy(x))
            except (ValueError, RuntimeError):
                outcomes.add("refused")
                with pytest.raises(ValueError, match=re.escape(repr(ours))):
                    ours(x)
            else:
                outcomes.add("taken")
                assert ours(x).shape == tuple(want.shape)
    assert outcomes == {"taken", "refused"}


@pytest.mark.peers
@over(LAYERS)
def test_checkpoints_go_both_ways(torch, name, args, options, shapes, tmp_path):
    ours, theirs = twins(torch, name, args, options)
    for step in range(3):
        theirs(torch.from_numpy(values(shapes[0], step)))
    torch.save(theirs.state_dict(), tmp_path / "checkpoint.pt")
    assert ours.load_state_dict(torch.load(tmp_path / "checkpoint.pt")) == ([], [])
    assert_same_state(ours, theirs)
    x = values(shapes[-1], 9)
    np.testing.assert_allclose(
        ours.eval()(x), theirs.eval()(torch.from_numpy(x)).detach().numpy(), rtol=1e-4, atol=1e-4
    )

    for step in range(2):
        ours.train()(values(shapes[0], step + 7))
    fresh = getattr(torch.nn, name)(*args, **options)
    fresh.load_state_dict({key: torch.from_numpy(array) for key, array in ours.state_dict().items()})
    assert_same_state(ours, fresh)


@pytest.mark.peers
def test_tensors_of_every_kind_are_loaded(torch):
    theirs = torch.nn.BatchNorm1d(3)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor([0.1, -2.5, 3e38]))
    ours = nn.BatchNorm1d(3)
    ours.load_state_dict(dict(theirs.named_parameters()) | dict(theirs.named_buffers()))  # these require gradients
    np.testing.assert_array_equal(ours.weight, theirs.weight.detach().numpy())
    for kind in (torch.bfloat16, torch.float16, torch.float64):
        narrow = {key: value.to(kind) for key, value in theirs.state_dict().items()}
        assert ours.load_state_dict(narrow) == ([], [])
        np.testing.assert_array_equal(ours.weight, narrow["weight"].float().numpy())
    ours.load_state_dict({"num_batches_tracked": torch.tensor([7])}, strict=False)  # as old versions saved it
    assert ours.num_batches_tracked == 7
    assert ours.num_batches_tracked.shape == ()
    meta = {key: value.to("meta") for key, value in theirs.state_dict().items()}
    negative = theirs.state_dict() | {"bias": (torch.ones(3) * 1j).conj().imag}  # which NumPy refuses to view
    for bad in (meta, negative, theirs.state_dict() | {"bias": torch.ones(3, dtype=torch.complex64)}):
        before = snapshot(ours)
        with pytest.raises(ValueError, match="bias"):
            ours.load_state_dict(bad)
        assert_state(ours, before)


@pytest.mark.peers
def test_states_without_a_count_are_taken_where_torch_takes_them(torch):
    theirs = torch.nn.BatchNorm1d(3)
    theirs(torch.from_numpy(values((6, 3), 1)))
    marked = theirs.state_dict()
    del marked["num_batches_tracked"]
    for state in (dict(marked), marked):
        ours, peer = trained(), torch.nn.BatchNorm1d(3)
        peer.num_batches_tracked += 2
        before = snapshot(ours)
        try:
            want = peer.load_state_dict(state)
        except RuntimeError:
            with pytest.raises(ValueError, match="missing 'num_batches_tracked'"):
                ours.load_state_dict(state)
            assert_state(ours, before)
        else:
            assert ours.load_state_dict(state) == want
            assert_same_state(ours, peer)
    assert marked._metadata[""]["version"] == 2


@pytest.mark.peers
@pytest.mark.parametrize("name", ["BatchNorm1d", "InstanceNorm1d"])
def test_flags_changed_after_construction_do_what_they_do_in_torch(torch, name):
    x = values((6, 5, 4), 1)
    for started in (True, False):
        ours, theirs = twins(torch, name, (5,), {"track_running_stats": started})
        if started:
            ours.track_running_stats = theirs.track_running_stats = False
        ours.momentum = theirs.momentum = 0.5
        for mode in (True, False):
            want = theirs.train(mode)(torch.from_numpy(x)).detach().numpy()
            np.testing.assert_allclose(ours.train(mode)(x), want, rtol=1e-5, atol=1e-5)
            assert_same_state(ours, theirs, 1e-6)


@pytest.mark.peers
@pytest.mark.parametrize("half", HALVES, ids=str)
@over(WITH_ARRAYS)
def test_half_precision_layers_are_torchs(torch, name, args, options, shapes, half):
    kind = getattr(torch, half.name)
    ours, theirs = getattr(nn, name)(*args, dtype=half, **options), getattr(torch.nn, name)(*args, **options).to(kind)
    assert [str(v.dtype) for v in theirs.state_dict().values()] == [
        f"torch.{v.dtype}" for v in ours.state_dict().values()
    ]
    for step in range(3):
        x = values(shapes[0], step, half)
        y, want = ours(x), theirs(torch.from_numpy(x.view(np.int16)).view(kind))
        assert y.dtype == half
        # Normalized values below 4, rounded once here and up to thrice there.
        np.testing.assert_allclose(
            y.astype(float), want.detach().double().numpy(), rtol=0, atol=16 * reference.eps_of(half)
        )
    for key, tensor in theirs.state_dict().items():
        apart = np.abs(ours.state_dict()[key].astype(float) - tensor.double().numpy())
        assert (apart <= 4 * reference.eps_of(half)).all()  # three updates of a number below 2, each rounded
    dx = ours.backward(uniform(shapes[0], half, 5))
    assert {g.dtype for g in (dx, *ours.grads.values())} == {half}


# ---- gradients


def assert_differences(layer, x, dy, **options):
    """Compare with central differences in float64: truncation h**2, rounding eps / h, both times at most 1e3 here."""
    h = 1e-5

    def loss():
        return float((layer(x, **options) * dy).sum())

    layer(x, **options)
    dx = layer.backward(dy)
    gradients = [(x, dx), *[(p, layer.grads[name]) for name, p in layer.named_parameters()]]
    assert len(gradients) == 1 + len(layer.grads)
    for array, gradient in gradients:
        assert array.shape == gradient.shape
        for index in np.ndindex(array.shape):
            kept = array[index]
            array[index] = kept + h
            above = loss()
            array[index] = kept - h
            below = loss()
            array[index] = kept
            assert abs(gradient[index] - (above - below) / (2 * h)) < 1e-6


@over(LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_central_differences(name, args, options, shapes, training):
    extra = {} if name == "LocalResponseNorm" else {"dtype": np.float64}
    layer = getattr(nn, name)(*args, **options, **extra)
    for seed, parameter in enumerate(layer.parameters()):
        parameter[...] += uniform(parameter.shape, np.float64, seed)
    layer(values(shapes[0], 1, np.float64) * 2)  # statistics that are not those of a new layer
    layer.train(training)
    assert_differences(layer, values(shapes[-1], 2, np.float64), uniform(shapes[-1], np.float64, 3))


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_batch_norms_own_options(activation, training, masked):
    layer = nn.BatchNorm2d(3, channel_axis=-1, activation=activation, dtype=np.float64)
    layer(values((2, 3, 4, 3), 1, np.float64))
    x, dy = values((2, 3, 4, 3), 2, np.float64), uniform((2, 3, 4, 3), np.float64, 3)
    where = {"where": (np.arange(24) % 5 > 0).reshape(2, 3, 4, 1)} if masked else {}
    assert_differences(layer.train(training), x, dy, **where)


def test_gradients_are_those_of_the_mode_of_the_pass():
    layer, x, dy = trained(dtype=np.float64), values((6, 3), 7, np.float64), uniform((6, 3), np.float64, 8)
    layer.eval()(x)
    scale = layer.weight / np.sqrt(layer.running_var + layer.eps)
    running_mean = layer.running_mean.copy()
    layer.train()  # too late: the pass was one of evaluation
    np.testing.assert_allclose(layer.backward(dy), dy * scale, rtol=1e-12)
    np.testing.assert_allclose(
        layer.grads["weight"], (dy * (x - running_mean) * scale / layer.weight).sum(0), rtol=1e-9
    )
    layer(x)
    dx = layer.eval().backward(dy)
    np.testing.assert_allclose(dx.sum(0), 0, atol=1e-12)  # a batch's statistics take out what all its elements share


def test_later_training_does_not_change_the_gradients_of_a_pass():
    layer, other, x, dy = trained(), trained(), values((6, 3), 7), uniform((6, 3), np.float32, 8)
    layer.eval()(x)
    other.eval()(x)
    layer.running_mean += 1
    layer.running_var *= 2
    np.testing.assert_array_equal(layer.backward(dy), other.backward(dy))
    np.testing.assert_array_equal(layer.grads["weight"], other.grads["weight"])


def test_backward_replaces_grads():
    layer, x = trained(), values((6, 3), 1)
    layer(x)
    layer.backward(np.ones_like(x))
    first, kept = layer.grads, layer.grads["bias"].copy()
    layer.backward(2 * np.ones_like(x))
    np.testing.assert_array_equal(layer.grads["bias"], 2 * kept)
    np.testing.assert_array_equal(first["bias"], kept)
    second = layer.grads
    for bad, error in ((np.ones((5, 3), np.float32), ValueError), (np.ones((6, 3), complex), TypeError)):
        with pytest.raises(error, match=r"^BatchNorm1d\(3, .* dy has "):
            layer.backward(bad)
        assert layer.grads is second


@over(ONE_EACH)
def test_backward_before_forward_is_refused(name, args, options, shapes):
    layer = getattr(nn, name)(*args, **options)
    for made in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        with pytest.raises(RuntimeError, match=f"{name}.*backward .* before any forward"):
            made.backward(np.ones(shapes[0], np.float32))
        assert made.grads == {}


@pytest.mark.parametrize("layer", [nn.LayerNorm(3), nn.BatchNorm1d(3)], ids=["LayerNorm", "BatchNorm1d"])
def test_a_layer_refers_to_its_latest_input_and_to_no_other(layer):
    x = values((5, 3), 1)
    latest, y = weakref.ref(x), layer(x)
    result = weakref.ref(y)
    del x, y
    assert latest() is not None
    assert result() is None
    layer(values((5, 3), 2))
    assert latest() is None


# ---- statistics


def test_momentum_none_averages_all_batches():
    batches = [values((n, 3), n, np.float64) for n in (4, 7, 12, 5)]
    layer = nn.BatchNorm1d(3, momentum=None, dtype=np.float64)
    for batch in batches:
        layer(batch)
    np.testing.assert_allclose(layer.running_mean, np.mean([b.mean(0) for b in batches], 0), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, np.mean([b.var(0, ddof=1) for b in batches], 0), rtol=1e-12)
    assert layer.num_batches_tracked == 4
    layer.reset_running_stats()
    layer(batches[0])
    np.testing.assert_allclose(layer.running_mean, batches[0].mean(0), rtol=1e-12)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_batch_that_is_not_finite(momentum, poison):
    bad = values((6, 3), 5)
    bad[2, 1] = poison
    skipping = trained(momentum=momentum, nonfinite="skip")
    before = snapshot(skipping)
    y = skipping(bad)
    assert_state(skipping, before)
    np.testing.assert_array_equal(y, trained(momentum=momentum)(bad))
    assert np.isnan(y[:, 1]).all()
    assert np.isfinite(y[:, [0, 2]]).all()

    refusing = trained(momentum=momentum, nonfinite="raise")
    with pytest.raises(ValueError, match=r"^BatchNorm1d\(3, .*nonfinite='raise'"):
        refusing(bad)
    assert_state(refusing, before)

    propagating = trained(momentum=momentum)
    propagating(bad)
    assert not np.isfinite(propagating.running_mean[1])
    assert np.isfinite(propagating.running_mean[[0, 2]]).all()
    assert propagating.num_batches_tracked == before["num_batches_tracked"] + 1

    for layer in (skipping, refusing):  # and goes on as if nothing had been
        layer(values((6, 3), 6))
        expected = trained(momentum=momentum)
        expected(values((6, 3), 6))
        assert_state(layer, expected.state_dict())


def test_a_skipped_batch_is_told_from_one_that_moves_nothing():
    """The average of all batches counts those that agree with it, and none that its dtype cannot hold."""
    batch = values((6, 3), 1)
    layer = nn.BatchNorm1d(3, momentum=None, nonfinite="skip")
    for count in (1, 2, 3):
        layer(batch)
        assert layer.num_batches_tracked == count
    layer(batch * np.float32(1e30))  # finite, with a variance that is not
    assert layer.num_batches_tracked == 3
    before = snapshot(layer)
    layer(np.where(np.arange(3) == 1, np.nan, batch), where=np.arange(3) != 1)  # nothing of channel 1 counts
    assert_state(layer, before | {"num_batches_tracked": np.array(4)})
    layer(batch + 4)
    np.testing.assert_allclose(layer.running_mean, batch.mean(0) + np.array([0.8, 0.8, 0.8]), rtol=1e-6)
    still = nn.BatchNorm1d(3, momentum=0, nonfinite="skip")
    still(batch)
    assert still.num_batches_tracked == 1


def test_an_empty_batch_is_not_counted():
    for nonfinite in ("propagate", "raise", "skip"):
        layer = trained(nonfinite=nonfinite, momentum=None)
        before = snapshot(layer)
        assert layer(np.empty((0, 3), np.float32)).shape == (0, 3)
        assert_state(layer, before)
        assert not layer(values((4, 3), 1), where=np.array(False)).any()
        assert_state(layer, before)


def test_without_running_statistics_evaluation_takes_the_batch():
    x = values((6, 3), 4)
    layer = nn.BatchNorm1d(3, track_running_stats=False)
    assert layer.running_mean is layer.running_var is layer.num_batches_tracked is None
    assert list(layer.state_dict()) == ["weight", "bias"]
    np.testing.assert_array_equal(layer.eval()(x), layer.train()(x))
    single = nn.InstanceNorm1d(3)
    np.testing.assert_array_equal(single.eval()(x[np.newaxis].mT), single.train()(x[np.newaxis].mT))


def test_evaluation_changes_nothing():
    layer = trained().eval()
    before = snapshot(layer)
    layer(values((6, 3), 8))
    layer.backward(values((6, 3), 9))
    assert_state(layer, before)


@pytest.mark.parametrize(
    ("name", "x"),
    [
        ("BatchNorm1d", np.ones((1, 3), np.float32)),  # one value per channel
        ("BatchNorm1d", np.ones((4, 5), np.float32)),
        ("BatchNorm1d", np.ones((4, 5, 5, 5), np.float32)),
        ("BatchNorm1d", np.ones((4, 3), complex)),
        ("BatchNorm1d", np.ma.ones((4, 3))),
        ("BatchNorm2d", np.ones((4, 3), np.float32)),
        ("InstanceNorm1d", np.ones((2, 3, 1), np.float32)),
        ("InstanceNorm1d", np.ones((2, 4, 5), np.float32)),
        ("InstanceNorm2d", np.ones((4, 5, 5), np.float32)),
    ],
    ids=lambda v: v if isinstance(v, str) else f"{v.shape}{v.dtype}",
)
def test_a_refused_batch_changes_nothing(name, x):
    layer = getattr(nn, name)(3, affine=True, track_running_stats=True)
    layer.running_mean += 2
    before = snapshot(layer)
    with pytest.raises((ValueError, TypeError), match=rf"^{name}\(3, ") as refused:
        layer(x)
    shown = "complex" if x.dtype == complex else "masked" if isinstance(x, np.ma.MaskedArray) else str(x.shape)
    assert shown in str(refused.value)
    assert_state(layer, before)
    with pytest.raises(RuntimeError):
        layer.backward(x)


# ---- layouts, masks and kinds of input


def test_a_padded_batch_normalizes_like_the_unpadded_one():
    lengths, x = [3, 5, 1], values((3, 5, 4), 1)
    where = (np.arange(5) < np.array(lengths)[:, np.newaxis])[..., np.newaxis]
    x[~where[..., 0]] = np.nan
    packed, dy = x[where[..., 0]], uniform((3, 5, 4), np.float32, 2)
    padded, plain = nn.BatchNorm1d(4, channel_axis=-1), nn.BatchNorm1d(4)
    for training in (True, False):
        y, want = padded.train(training)(x, where=where), plain.train(training)(packed)
        np.testing.assert_allclose(y[where[..., 0]], want, rtol=1e-5, atol=1e-5)  # some eps of float32
        assert not y[~where[..., 0]].any()
        dx, dwant = padded.backward(dy), plain.backward(dy[where[..., 0]])
        np.testing.assert_allclose(dx[where[..., 0]], dwant, rtol=1e-4, atol=1e-5)
        assert not dx[~where[..., 0]].any()
        for name, array in padded.state_dict().items():
            np.testing.assert_allclose(array, plain.state_dict()[name], rtol=1e-5)
    layer = nn.LayerNorm((5, 4))
    y = layer(x, where=where)
    dx = layer.backward(dy)
    for row, length in enumerate(lengths):
        short = nn.LayerNorm((length, 4))
        np.testing.assert_allclose(y[row, :length], short(x[row, :length]), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(dx[row, :length], short.backward(dy[row, :length]), rtol=1e-4, atol=1e-5)


@over(ONE_EACH)
def test_a_mask_is_refused_where_there_is_none(name, args, options, shapes):
    layer = getattr(nn, name)(*args, **options)
    x = values(shapes[0], 1)
    if name.startswith(("BatchNorm", "LayerNorm")):
        assert not layer(x, where=np.zeros_like(x, bool)).any()
    else:
        with pytest.raises(TypeError, match=rf"^{name}\(.*where"):
            layer(x, where=np.ones_like(x, bool))


@pytest.mark.parametrize("name", ["BatchNorm2d", "InstanceNorm2d", "GroupNorm"])
def test_channels_last_is_channels_first_transposed(name):
    args = (2, 4) if name == "GroupNorm" else (4,)
    first, last = (getattr(nn, name)(*args, affine=True, channel_axis=axis) for axis in (1, -1))
    x, dy = values((3, 4, 5, 2), 1), uniform((3, 4, 5, 2), np.float32, 2)
    shapes = [(x, dy)] + [(x[0], dy[0])] * (name == "InstanceNorm2d")
    for a, da in shapes:
        y = last(np.ascontiguousarray(np.moveaxis(a, -3, -1)))
        np.testing.assert_allclose(np.moveaxis(y, -1, -3), first(a), rtol=1e-5, atol=1e-5)
        dx = last.backward(np.ascontiguousarray(np.moveaxis(da, -3, -1)))
        np.testing.assert_allclose(np.moveaxis(dx, -1, -3), first.backward(da), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(last.grads["weight"], first.grads["weight"], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=rf"{name}\(.*expected 4 channels along axis 3 .* \(3, 4, 5, 2\)"):
        last(x)
    with pytest.raises(ValueError, match="channel_axis"):
        getattr(nn, name)(*args, channel_axis=4)(x)
    if name != "BatchNorm2d":
        with pytest.raises(ValueError, match=r"channel_axis is 0; .* samples"):
            getattr(nn, name)(*args, channel_axis=0)(x)


def test_relu_is_fused():
    plain, fused = nn.BatchNorm1d(3), nn.BatchNorm1d(3, activation="relu")
    x, dy = values((7, 3), 1), uniform((7, 3), np.float32, 2)
    y = plain(x)
    np.testing.assert_array_equal(fused(x), np.maximum(y, 0))
    np.testing.assert_allclose(fused.backward(dy), plain.backward(dy * (y > 0)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(fused.grads["bias"], plain.grads["bias"], rtol=1e-6)


@over(ONE_EACH)
def test_lists_and_integers_are_taken(name, args, options, shapes):
    layer = getattr(nn, name)(*args, **options)
    x = uniform(shapes[0], np.int8, 1)
    y = layer(x)
    assert y.dtype == np.float64
    layer = getattr(nn, name)(*args, **options)
    np.testing.assert_array_equal(layer(x.tolist()), y)
    dx = layer.backward(np.ones(shapes[0]).tolist())
    assert dx.shape == shapes[0]
    assert {grad.dtype for grad in layer.grads.values()} <= {np.dtype(np.float32)}


# ---- state


def test_parameters_are_updated_in_place():
    layer = trained()
    references = layer.parameters()
    assert all(a is b for a, b in zip(references, (layer.weight, layer.bias), strict=True))
    x = values((6, 3), 1)
    before = layer(x)
    references[1] += 1
    np.testing.assert_allclose(layer(x), before + 1, rtol=1e-6, atol=1e-6)
    state = layer.state_dict()
    layer.load_state_dict(trained(steps=5).state_dict())
    layer.reset_parameters()
    assert all(state[name] is array for name, array in layer.state_dict().items())
    assert_state(layer, nn.BatchNorm1d(3).state_dict())
    assert not references[1].any()


def test_reset_running_stats_leaves_the_parameters():
    layer = trained()
    before = snapshot(layer)
    layer.reset_running_stats()
    assert_state(layer, nn.BatchNorm1d(3).state_dict() | {key: before[key] for key in ("weight", "bias")})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": np.ones(4)}, r"weight has shape \(4,\); expected \(3,\)"),
        ({"weight": np.ones((3, 1))}, r"weight has shape \(3, 1\); expected \(3,\)"),
        ({"weight": np.ones(3, complex)}, "weight .*complex128"),
        ({"running_var": np.array(["a", "b", "c"])}, "running_var .*<U1"),
        ({"running_var": None}, "running_var"),
        ({"running_mean": [[1], [2, 3]]}, "running_mean"),
        ({"num_batches_tracked": 7.6}, "num_batches_tracked is 7.6; expected a count"),
        ({"num_batches_tracked": -1}, "num_batches_tracked is -1; expected a count"),
        ({"num_batches_tracked": np.nan}, "num_batches_tracked is nan; expected a count"),
        (
            {"num_batches_tracked": np.uint64(2**64 - 1)},
            "num_batches_tracked is 18446744073709551615; expected a count",
        ),
        ({"num_batches_tracked": [1, 2]}, r"num_batches_tracked has shape \(2,\); expected \(\)"),
    ],
    ids=str,
)
@pytest.mark.parametrize("strict", [True, False])
def test_a_refused_state_changes_nothing(change, message, strict):
    layer = trained()
    before, other = snapshot(layer), trained(steps=5).state_dict()
    with pytest.raises(ValueError, match=rf"^BatchNorm1d\(3, .*{message}"):
        layer.load_state_dict(other | change, strict)
    assert_state(layer, before)


def test_all_that_is_wrong_with_a_state_is_said_at_once():
    layer = trained()
    before = snapshot(layer)
    state = {"weight": np.ones(2), "running_mean": np.ones(3), "running_var": np.ones(5), "gamma": np.ones(3)}
    with pytest.raises(ValueError, match=r"missing 'bias'; unexpected 'gamma'; weight .*; running_var "):
        layer.load_state_dict(state)
    with pytest.raises(TypeError, match="list"):
        layer.load_state_dict([("weight", np.ones(3))])
    assert_state(layer, before)


def test_strict_is_about_keys():
    layer = trained()
    bias = layer.bias.copy()
    missing, unexpected = layer.load_state_dict({"weight": [1, 2, 3], "gamma": 1}, strict=False)
    assert (missing, unexpected) == (["bias", "running_mean", "running_var"], ["gamma"])
    np.testing.assert_array_equal(layer.weight, np.array([1, 2, 3], np.float32))
    np.testing.assert_array_equal(layer.bias, bias)
    keys = layer.load_state_dict(layer.state_dict())
    assert keys == ([], [])
    assert keys.missing_keys == keys.unexpected_keys == []


def test_a_state_may_be_the_layers_own():
    layer = trained()
    before, own = snapshot(layer), layer.state_dict()
    layer.load_state_dict(own | {"weight": own["bias"], "bias": own["weight"]})
    np.testing.assert_array_equal(layer.weight, before["bias"])
    np.testing.assert_array_equal(layer.bias, before["weight"])


def test_a_read_only_array_is_found_before_anything_is_written():
    layer = trained()
    layer.running_var.flags.writeable = False
    before = snapshot(layer)
    with pytest.raises(ValueError, match=r"running_var .*read-only"):
        layer.load_state_dict(trained(steps=5).state_dict())
    assert_state(layer, before)


@pytest.mark.parametrize("kind", [*HALVES, np.float64, ">f4"], ids=str)
def test_states_are_converted(kind):
    layer, other = nn.BatchNorm1d(3), trained()
    layer.load_state_dict({name: array.astype(kind) for name, array in other.state_dict().items()})
    assert_state(layer, {n: a.astype(kind).astype(a.dtype) for n, a in other.state_dict().items()})
    half = nn.BatchNorm1d(3, dtype=kind)
    half.load_state_dict(other.state_dict())
    native = np.dtype(kind).newbyteorder("=")
    assert {n: a.dtype for n, a in half.state_dict().items() if n != "num_batches_tracked"} == dict.fromkeys(
        ("weight", "bias", "running_mean", "running_var"), native
    )
    huge = {"weight": np.full(3, 1e300)}
    layer.load_state_dict(huge, strict=False)  # without a warning
    assert np.isinf(layer.weight).all()


@over(ONE_EACH)
def test_layers_are_pickled_and_copied_without_activations(name, args, options, shapes):
    layer = getattr(nn, name)(*args, **options)
    x, dy = values((50, *shapes[0][1:]), 1), uniform((50, *shapes[0][1:]), np.float32, 2)
    layer(x)
    layer.backward(dy)
    layer.eval()
    want = layer(x)
    for made in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert repr(made) == repr(layer)
        assert made.training is False
        assert_state(made, layer.state_dict())
        assert not any(np.shares_memory(a, b) for a in made.parameters() for b in layer.parameters())
        assert made.grads == {}
        with pytest.raises(RuntimeError):
            made.backward(dy)
        np.testing.assert_array_equal(made(x), want)
        np.testing.assert_array_equal(made.backward(dy), layer.backward(dy))
    assert len(pickle.dumps(layer)) < x.nbytes / 2 + 2000


# ---- modes, text and constructors


def test_modes():
    layer = nn.LayerNorm(3)
    assert layer.training is True
    assert layer.eval() is layer
    assert layer.training is False
    assert layer.train() is layer
    assert layer.training is True
    assert layer.train(False).training is False
    with pytest.raises(ValueError, match=r"LayerNorm.*mode.*1"):
        layer.train(1)


def test_text_shows_own_arguments_where_they_are_not_the_defaults():
    start = "BatchNorm1d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True"
    assert repr(nn.BatchNorm1d(3, dtype=np.float32, channel_axis=1, nonfinite="propagate")) == start + ")"
    layer = nn.BatchNorm1d(3, dtype=np.float64, channel_axis=-1, nonfinite="skip", activation="relu")
    assert repr(layer) == start + ", dtype=float64, channel_axis=-1, nonfinite='skip', activation='relu')"
    assert repr(nn.RMSNorm([2, np.int64(3)])) == "RMSNorm((2, 3), eps=None, elementwise_affine=True)"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.BatchNorm1d(-2), ValueError, "num_features must be >= 0, got -2"),
        (lambda: nn.BatchNorm1d(2.5), TypeError, "num_features must be an int, got 2.5"),
        (lambda: nn.BatchNorm1d(True), TypeError, "num_features must be an int, got True"),
        (lambda: nn.BatchNorm2d(2, eps=-1), ValueError, "eps must be a number >= 0, got -1"),
        (lambda: nn.BatchNorm2d(2, momentum="x"), TypeError, "momentum must be a number, got 'x'"),
        (
            lambda: nn.BatchNorm2d(2, nonfinite="ignore"),
            ValueError,
            "nonfinite must be .*'skip', got 'ignore'",
        ),
        (lambda: nn.BatchNorm2d(2, activation="gelu"), ValueError, "activation must be .*'relu', got 'gelu'"),
        (lambda: nn.BatchNorm2d(2, dtype=np.int32), TypeError, "dtype must be .*, got int32"),
        (lambda: nn.BatchNorm2d(2, channel_axis=1.0), TypeError, "channel_axis must be an int, got 1.0"),
        (lambda: nn.InstanceNorm1d(2, channel_axis=None), TypeError, "channel_axis must be an int, got None"),
        (lambda: nn.GroupNorm(2, 5), ValueError, r"num_channels \(5\) must be divisible by num_groups \(2\)"),
        (lambda: nn.GroupNorm(0, 4), ValueError, "num_groups must be >= 1, got 0"),
        (lambda: nn.LayerNorm("3"), TypeError, "normalized_shape must be an int or a tuple of ints, got '3'"),
        (lambda: nn.LayerNorm(-3), ValueError, "normalized_shape must not be negative, got -3"),
        (lambda: nn.LayerNorm(3, np.nan), ValueError, "eps must be a number >= 0, got nan"),
        (lambda: nn.RMSNorm(3, -1e-5), ValueError, "eps must be a number >= 0, got -1e-05"),
        (lambda: nn.LocalResponseNorm(0), ValueError, "size must be >= 1, got 0"),
        (lambda: nn.LocalResponseNorm(2, k=None), TypeError, "k must be a number, got None"),
    ],
)
def test_bad_arguments_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


# ---- in a program


@over(ONE_EACH)
def test_training_lowers_the_loss(name, args, options, shapes):
    """A linear map after the layer fits a target by gradient descent through both."""
    layer = getattr(nn, name)(*args, **options)
    x = values((16, *shapes[0][1:]), 1)
    target = np.sin(np.arange(16, dtype=np.float32))
    matrix = uniform(x[0].size, np.float32, 2) / np.float32(8)
    losses = []
    for _step in range(60):
        y = layer(x)
        rest = y.reshape(16, -1) @ matrix - target
        losses.append(float((rest**2).mean()))
        d = 2 / 16 * rest
        dy = np.outer(d, matrix).reshape(x.shape)
        matrix -= 0.02 * (d @ y.reshape(16, -1))
        layer.backward(dy)
        for key, parameter in layer.named_parameters():
            parameter[...] -= 0.02 * layer.grads[key]
    assert losses[-1] < 0.7 * losses[0]


def test_torch_is_not_imported():
    said = run_fresh(
        "import sys, numpy as np\nfrom fastnorm import nn\nlayer = nn.BatchNorm1d(3)\n"
        "layer.load_state_dict(layer.state_dict())\nlayer(np.eye(3))\nprint('torch' in sys.modules)"
    )
    assert said.strip() == "False"


# ---- documentation


@pytest.mark.parametrize("name", nn.__all__)
def test_layers_are_documented(name):
    layer = getattr(nn, name)
    doc = inspect.getdoc(layer)
    parameters = doc.partition("Parameters\n")[2].partition("\n\n")[0]
    heads = [line.partition(" : ")[0] for line in parameters.splitlines()[1:] if not line.startswith(" ")]
    assert {key for head in heads for key in head.split(", ")} == set(inspect.signature(layer).parameters)
    assert ">>> " in doc.partition("Examples\n")[2]
    public = [key for key in dir(layer) if not key.startswith("_") and callable(getattr(layer, key))]
    assert [key for key in public if not inspect.getdoc(getattr(layer, key))] == []


def test_examples_in_docstrings_give_what_they_show():
    results = doctest.testmod(sys.modules["fastnorm.nn"])
    assert results.attempted
    assert not results.failed
