"""Batch, group and instance norm against PyTorch: values, running statistics and gradients under every flag."""

import inspect
import itertools

import numpy as np
import pytest
import reference
from cases import same, uniform

import fastnorm

pytestmark = pytest.mark.peers

SHAPES = [(6, 4), (1, 4, 5), (3, 4, 65), (2, 4, 7, 9), (3, 4, 16, 16), (2, 4, 3, 4, 5)]
SLACK = 24  # eps by which torch, which sums in its own precision, may be further off than our bounds allow us


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def formats(torch, shape):
    """The memory formats that torch has for such a tensor."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(len(shape))
    return [torch.contiguous_format, *([last] if last else [])]


def tensors(torch, *arrays):
    return [None if a is None else torch.from_numpy(a.copy()).requires_grad_() for a in arrays]


def assert_close(got, theirs, twin, weight=None, bias=None, channel_axis=1):
    """|y| as assert_normalized bounds it, and as much again and SLACK for torch."""
    along = [-1 if a == channel_axis % got.ndim else 1 for a in range(got.ndim)]
    weight, bias = (0.0 if p is None else np.abs(np.asarray(p, np.float64)).reshape(along) for p in (weight, bias))
    eps = reference.eps_of(got.dtype)
    bound = eps * (2 * reference.norm_eps(got.dtype) + 4 + SLACK) * (1 + np.abs(twin) + weight + bias)
    reference.assert_within(got, theirs, bound)


def assert_gradients_close(got, theirs, want):
    """As assert_gradients, for both, and SLACK for torch."""
    names = ("dx", "dweight", "dbias")
    for g, t, name in zip(got, theirs, names, strict=True):
        if g is None or t is None:
            continue
        scale = want[f"{name}_scale"] * ((1 + np.abs(want["xhat"])) if name == "dx" else 1)
        assert g.dtype == t.dtype
        reference.assert_within(g, t, reference.eps_of(g.dtype) * ((16 + SLACK) * scale + 2 * np.abs(want[name])))


def problem(shape, dtype):
    x, dy = uniform(shape, dtype, 1) + dtype.type(0.5), uniform(shape, dtype, 2)
    weight, bias = uniform(shape[1], dtype, 3) + dtype.type(1), uniform(shape[1], dtype, 4)
    return x, dy, weight, bias, (uniform(shape[1], dtype, 5), uniform(shape[1], dtype, 6) + dtype.type(2))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("relu", [False, True], ids=["plain", "relu"])
def test_batch_norm_is_torchs(torch, shape, training, relu, dtype):
    x, dy, w, b, statistics = problem(shape, dtype)
    activation = "relu" if relu else None
    for weight, bias, given, momentum, layout in itertools.product(
        (w, None), (b, None), (statistics, None), (0.1, 0.0, 1.0, 0.3), formats(torch, shape)
    ):
        if given is None and not training:
            continue
        running = [None, None] if given is None else [v.copy() for v in given]
        theirs = [None if v is None else torch.from_numpy(v.copy()) for v in running]
        tensor = torch.from_numpy(x).to(memory_format=layout).requires_grad_()
        parameters = tensors(torch, weight, bias)
        z = torch.nn.functional.batch_norm(tensor, *theirs, *parameters, training, momentum, 1e-3)
        want = torch.relu(z) if relu else z
        want.backward(torch.from_numpy(dy))

        ours = tensor.detach().numpy()  # channels last: the same strides
        how = {"activation": activation, "return_stats": True}
        y, mean, rstd = fastnorm.batch_norm(ours, *running, weight, bias, training, momentum, 1e-3, **how)
        assert y.dtype == dtype
        known = {} if training else {"given": given}
        twin, *_ = reference.channel_norm(x, weight, bias, 1e-3, **known)
        assert_close(y, want.detach().numpy(), twin, weight, bias)
        for r, t in zip(running, theirs, strict=True):
            if given is not None:
                np.testing.assert_allclose(r, t.numpy(), rtol=0, atol=128 * reference.eps_of(dtype))

        # Where z is 0 to rounding, relu may pass the gradient in one of us and not in the other: let it be the same.
        z = z.detach().numpy()
        seen = {"y": np.ascontiguousarray(z)} if relu else {}
        flags = {"training": training, "activation": activation, **seen}
        got = fastnorm.batch_norm_backward(dy, ours, mean, rstd, weight, **flags)
        exact = reference.channel_norm_backward(dy, x, rstd, weight, given_mean=None if training else mean, **seen)
        slopes = [None if v is None else v.grad.numpy() for v in (tensor, *parameters)]
        assert_gradients_close(got, slopes, exact)


@pytest.mark.parametrize("shape", [s for s in SHAPES if len(s) > 2], ids=str)
@pytest.mark.parametrize("use_input_stats", [True, False])
def test_instance_norm_is_torchs(torch, shape, use_input_stats, dtype):
    x, dy, w, b, statistics = problem(shape, dtype)
    for weight, bias, given, momentum, layout in itertools.product(
        (w, None), (b, None), (statistics, None), (0.1, 1.0), formats(torch, shape)
    ):
        if given is None and not use_input_stats:
            continue
        running = [None, None] if given is None else [v.copy() for v in given]
        theirs = [None if v is None else torch.from_numpy(v.copy()) for v in running]
        tensor = torch.from_numpy(x).to(memory_format=layout).requires_grad_()
        parameters = tensors(torch, weight, bias)
        want = torch.nn.functional.instance_norm(tensor, *theirs, *parameters, use_input_stats, momentum, 1e-3)
        want.backward(torch.from_numpy(dy))
        ours, how = tensor.detach().numpy(), {"return_stats": True}
        y, mean, rstd = fastnorm.instance_norm(ours, *running, weight, bias, use_input_stats, momentum, 1e-3, **how)
        groups = shape[1] if use_input_stats else None
        twin, *_ = reference.channel_norm(
            x, weight, bias, 1e-3, groups=groups, given=None if use_input_stats else given
        )
        assert_close(y, want.detach().numpy(), twin, weight, bias)
        for r, t in zip(running, theirs, strict=True):
            if given is not None:
                np.testing.assert_allclose(r, t.numpy(), rtol=0, atol=128 * reference.eps_of(dtype))
        got = fastnorm.instance_norm_backward(dy, ours, mean, rstd, weight, use_input_stats=use_input_stats)
        constant = None if use_input_stats else mean
        exact = reference.channel_norm_backward(dy, x, rstd, weight, groups=groups, given_mean=constant)
        slopes = [None if v is None else v.grad.numpy() for v in (tensor, *parameters)]
        assert_gradients_close(got, slopes, exact)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_norm_is_torchs(torch, shape, groups, dtype):
    x, dy, w, b, _ = problem(shape, dtype)
    for weight, bias, layout in itertools.product((w, None), (b, None), formats(torch, shape)):
        tensor = torch.from_numpy(x).to(memory_format=layout).requires_grad_()
        parameters = tensors(torch, weight, bias)
        want = torch.nn.functional.group_norm(tensor, groups, *parameters, 1e-3)
        if (weight is None) != (bias is None):  # torch 2.13 cannot differentiate that: with one and zero instead
            unit = [np.full(shape[1], v, dtype) for v in (1, 0)]
            parameters = tensors(torch, *(u if p is None else p for u, p in zip(unit, (weight, bias), strict=True)))
            torch.testing.assert_close(want, torch.nn.functional.group_norm(tensor, groups, *parameters, 1e-3))
            want = torch.nn.functional.group_norm(tensor, groups, *parameters, 1e-3)
        want.backward(torch.from_numpy(dy))
        ours = tensor.detach().numpy()
        y, mean, rstd = fastnorm.group_norm(ours, groups, weight, bias, 1e-3, return_stats=True)
        twin, *_ = reference.channel_norm(x, weight, bias, 1e-3, groups=groups)
        assert_close(y, want.detach().numpy(), twin, weight, bias)
        got = fastnorm.group_norm_backward(dy, ours, mean, rstd, groups, weight)
        exact = reference.channel_norm_backward(dy, x, rstd, weight, groups=groups)
        slopes = [None if v is None else v.grad.numpy() for v in (tensor, *parameters)]
        assert_gradients_close(got, slopes, exact)


def test_channels_on_the_last_axis_are_torchs_channels_last(torch, dtype):
    for shape in ((2, 4, 7, 9), (2, 4, 3, 4, 5)):
        x, dy, weight, bias, statistics = problem(shape, dtype)
        last, slope = (np.ascontiguousarray(np.moveaxis(v, 1, -1)) for v in (x, dy))
        running = [v.copy() for v in statistics]
        theirs = [torch.from_numpy(v.copy()) for v in statistics]
        tensor, *parameters = tensors(torch, x, weight, bias)
        want = torch.nn.functional.batch_norm(tensor, *theirs, *parameters, True)
        want.backward(torch.from_numpy(dy))
        how = {"channel_axis": -1, "return_stats": True}
        y, mean, rstd = fastnorm.batch_norm(last, *running, weight, bias, True, **how)
        twin, *_ = reference.channel_norm(x, weight, bias)
        assert_close(np.moveaxis(y, -1, 1), want.detach().numpy(), twin, weight, bias)
        for r, t in zip(running, theirs, strict=True):
            np.testing.assert_allclose(r, t.numpy(), rtol=0, atol=128 * reference.eps_of(dtype))
        dx, *sums = fastnorm.batch_norm_backward(slope, last, mean, rstd, weight, channel_axis=-1)
        exact = reference.channel_norm_backward(dy, x, rstd, weight)
        slopes = [v.grad.numpy() for v in (tensor, *parameters)]
        assert_gradients_close((np.moveaxis(dx, -1, 1), *sums), slopes, exact)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_half_precision_is_torchs(torch, half, training):
    kind = np.float16 if half == "float16" else pytest.importorskip("ml_dtypes").bfloat16
    for shape in SHAPES:
        x = uniform(shape, kind, 1)
        weight, bias = uniform(shape[1], np.float32, 2), uniform(shape[1], np.float32, 3)
        ours = uniform(shape[1], np.float32, 4), uniform(shape[1], np.float32, 5) + np.float32(2)
        theirs = [torch.from_numpy(v.copy()) for v in ours]
        tensor = torch.from_numpy(x.view(np.int16)).view(getattr(torch, half))
        want = torch.nn.functional.batch_norm(tensor, *theirs, *tensors(torch, weight, bias), training)
        got = fastnorm.batch_norm(x, *ours, weight, bias, training)
        assert got.dtype == kind
        # One rounding of the same value each; theirs may also round in between.
        wide = got.astype(np.float64)
        reference.assert_within(got, want.detach().double().numpy(), 2 * reference.eps_of(kind) * (1 + np.abs(wide)))
        for r, t in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(r, t.numpy(), rtol=0, atol=128 * 2.0**-23)


# ---- the same calls and the same refusals


@pytest.mark.parametrize("name", ["batch_norm", "group_norm", "instance_norm"])
def test_arguments_come_in_torchs_order(torch, name):
    theirs = inspect.signature(getattr(torch.nn.functional, name)).parameters
    ours = inspect.signature(getattr(fastnorm, name)).parameters
    positional = {n: p for n, p in ours.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY}
    assert list(positional) == ["x" if n == "input" else n for n in theirs]
    for mine, yours in zip(positional.values(), theirs.values(), strict=True):
        assert mine.default == (None if mine.name.startswith("running") else yours.default)  # theirs have none
    x = uniform((3, 4, 5), np.float32, 1)
    weight, bias = uniform(4, np.float32, 3), uniform(4, np.float32, 4)
    statistics = uniform(4, np.float32, 5), uniform(4, np.float32, 6) + np.float32(2)
    arguments = {
        "batch_norm": [(*statistics,), (*statistics, weight, bias, True, 0.25, 0.5), (None, None, weight, bias, True)],
        "group_norm": [(2,), (4, weight, bias, 0.5)],
        "instance_norm": [(), (*statistics, weight, bias, True, 0.25, 0.5), (*statistics, weight, bias, False)],
    }
    for given in arguments[name]:
        tensor = [torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v for v in (x, *given)]
        want = getattr(torch.nn.functional, name)(*tensor)
        got = getattr(fastnorm, name)(*(v.copy() if isinstance(v, np.ndarray) else v for v in (x, *given)))
        np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=64 * 2.0**-23)


def test_what_torch_refuses_is_refused(torch):
    one, x = np.ones((1, 4), np.float32), uniform((3, 4, 5), np.float32)
    mean, var = np.zeros(4, np.float32), np.ones(4, np.float32)
    calls = [
        ("batch_norm", (one, None, None, None, None, True)),
        ("batch_norm", (one[..., None], mean, var, None, None, True)),
        ("batch_norm", (x, None, None, None, None, False)),
        ("batch_norm", (x, mean, None, None, None, True)),
        ("batch_norm", (x, None, var, None, None, True)),
        ("batch_norm", (x, mean, None, None, None, False)),
        ("batch_norm", (x, mean, var, None, None, True, 0.1, 0.0)),
        ("batch_norm", (x, mean, var, None, None, True, 0.1, -1.0)),
        ("batch_norm", (x, mean[:3], var, None, None, True)),
        ("batch_norm", (x, mean, var, mean[:3], None, True)),
        ("instance_norm", (one,)),
        ("instance_norm", (x[..., :1],)),
        ("instance_norm", (x, None, None, None, None, False)),
        ("instance_norm", (x, mean, None)),
        ("group_norm", (one, 4)),
        ("group_norm", (x, 3)),
    ]
    for name, given in calls:
        tensor = [torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v for v in given]
        with pytest.raises((ValueError, RuntimeError)):
            getattr(torch.nn.functional, name)(*tensor)
        with pytest.raises(ValueError, match=r"."):
            getattr(fastnorm, name)(*given)
    assert not mean.any()
    assert (var == 1).all()


def test_what_torch_takes_is_taken(torch):
    """A batch of nothing, channels of no number, one value per channel in evaluation; one value per group of many."""
    mean, var = np.zeros(4, np.float32), np.ones(4, np.float32)
    for shape in ((0, 4), (0, 4, 5), (2, 4, 0), (0, 4, 3, 3)):
        x = np.empty(shape, np.float32)
        theirs = [torch.from_numpy(v.copy()) for v in (x, mean, var)]
        want = torch.nn.functional.batch_norm(*theirs, None, None, True)
        assert fastnorm.batch_norm(x, mean, var, None, None, True).shape == tuple(want.shape) == shape
        assert same((mean, var), (theirs[1].numpy(), theirs[2].numpy()))
    one = np.full((1, 4), 3, np.float32)
    want = torch.nn.functional.batch_norm(*map(torch.from_numpy, (one, mean, var)))
    np.testing.assert_allclose(fastnorm.batch_norm(one, mean, var), want.numpy(), rtol=4 * 2.0**-23)
    few, bias = uniform((2, 4), np.float32), uniform(4, np.float32, 1)
    want = torch.nn.functional.group_norm(torch.from_numpy(few), 4, None, torch.from_numpy(bias))
    np.testing.assert_array_equal(fastnorm.group_norm(few, 4, None, bias), np.broadcast_to(bias, few.shape))
    np.testing.assert_allclose(want.numpy(), np.broadcast_to(bias, few.shape), atol=1e-4)  # rstd is 316


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_batch_with_nan_poisons_the_same_statistics(torch, value):
    x = uniform((3, 4, 5), np.float32)
    x[1, 2, 3] = value
    ours = np.zeros(4, np.float32), np.ones(4, np.float32)
    theirs = [torch.from_numpy(v.copy()) for v in ours]
    want = torch.nn.functional.batch_norm(torch.from_numpy(x), *theirs, training=True).numpy()
    got = fastnorm.batch_norm(x, *ours, training=True)
    assert (np.isnan(got) == np.isnan(want)).all()
    for r, t in zip(ours, theirs, strict=True):
        assert (np.isfinite(r) == np.isfinite(t.numpy())).all()


# ---- folding


@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no bias"])
def test_folded_layers_are_torchs(torch, biased, dtype):
    from torch.nn.utils import fusion

    layers = [
        (torch.nn.Linear(5, 4, bias=biased), fusion.fuse_linear_bn_weights, {}),
        (torch.nn.Conv1d(5, 4, 3, bias=biased), fusion.fuse_conv_bn_weights, {}),
        (torch.nn.Conv2d(6, 4, 3, groups=2, bias=biased), fusion.fuse_conv_bn_weights, {}),
        (torch.nn.ConvTranspose2d(5, 4, 3, bias=biased), fusion.fuse_conv_bn_weights, {"transpose": True}),
    ]
    for layer, fuse, transposed in layers:
        weight, bias = (uniform(v.shape, dtype, 1) if v is not None else None for v in (layer.weight, layer.bias))
        mean, var, w, b = (uniform(4, dtype, i) + dtype.type(1) for i in (3, 4, 5, 6))
        for bn_weight, bn_bias in itertools.product((w, None), (b, None)):
            given = [torch.from_numpy(v) if v is not None else None for v in (weight, bias, mean, var)]
            filled = (np.ones_like(w) if bn_weight is None else w, np.zeros_like(b) if bn_bias is None else b)
            norm = [torch.from_numpy(v) for v in filled]  # fuse_linear_bn_weights takes no None
            want = fuse(*given, 1e-3, *norm, **transposed)
            axis = 1 if transposed else 0
            got = fastnorm.fold_batch_norm(weight, bias, mean, var, bn_weight, bn_bias, 1e-3, channel_axis=axis)
            for g, t in zip(got, want, strict=True):
                assert g.shape == tuple(t.shape)
                assert g.dtype == dtype
                # Theirs rounds the variance, its root, the scale, the product and the sum, of at most 2.5 / sqrt(var).
                atol = 6 * reference.eps_of(dtype) * 4 / np.sqrt(var.min() + 1e-3)
                np.testing.assert_allclose(g, t.numpy(), rtol=0, atol=atol)
