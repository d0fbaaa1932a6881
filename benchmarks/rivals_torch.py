"""PyTorch: what its user would write for a job, and backward passes without autograd where an operator has them."""

import timeit
from functools import partial

import numpy as np
from jobs import EPS, HALVES, MOMENTUM, NEIGHBOURS
from libraries import formula, limited, torch


def tensor(array):
    """Share memory with an array. PyTorch does not know NumPy's bfloat16, but its bits are the same."""
    if array.dtype == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def torch_layer_norm(made):
    return partial(torch.nn.functional.layer_norm, made.x, made.width, made.weight, made.bias, EPS)


def torch_layer_norm_backward(made):
    """Call the operator that autograd would call, with the statistics it would have kept but without its graph."""
    _, mean, rstd = torch.native_layer_norm(made.x, made.width, made.weight, made.bias, EPS)
    backward = torch.ops.aten.native_layer_norm_backward.default
    return partial(backward, made.dy, made.x, made.width, mean, rstd, made.weight, made.bias, [True, True, True])


def torch_rms_norm(made):
    return partial(torch.nn.functional.rms_norm, made.x, made.width, made.weight, EPS)


def torch_rms_norm_backward(made):
    """Go back through a kept graph, because PyTorch has no fused backward pass of rms_norm on a CPU."""
    parameters = made.x.requires_grad_(), made.weight.requires_grad_()
    return partial(torch.autograd.grad, torch_rms_norm(made)(), parameters, made.dy, retain_graph=True)


def torch_add_layer_norm(made):
    s = made.x + made.residual
    return torch.nn.functional.layer_norm(s, made.width, made.weight, made.bias, EPS), s


def torch_add_rms_norm(made):
    s = made.x + made.residual
    return torch.nn.functional.rms_norm(s, made.width, made.weight, EPS), s


def torch_standardize(made):
    var, mean = torch.var_mean(made.x, made.axis, correction=0)
    return (made.x - mean) / var.sqrt()


def torch_min_max_scale(made):
    low, high = torch.aminmax(made.x, dim=made.axis)
    return (made.x - low) / (high - low)


def torch_batch_norm(made, training, relu=False):
    running = made.running_mean, made.running_var

    def call():
        y = torch.nn.functional.batch_norm(made.x, *running, made.weight, made.bias, training, MOMENTUM, EPS)
        return torch.relu_(y) if relu else y, *running

    return call


def torch_batch_norm_backward(made):
    """Call autograd's operator directly, as for layer norm."""
    x, weight = made.x, made.weight
    _, mean, rstd = torch.native_batch_norm(x, weight, made.bias, None, None, True, MOMENTUM, EPS)
    backward = torch.ops.aten.native_batch_norm_backward.default
    return partial(backward, made.dy, x, weight, None, None, mean, rstd, True, EPS, [True, True, True])


def torch_group_norm(made):
    return torch.nn.functional.group_norm(made.x, made.groups, made.weight, made.bias, EPS)


def torch_group_norm_backward(made):
    """Call autograd's operator directly, as for layer norm."""
    x, weight = made.x, made.weight
    sizes = *x.shape[:2], x[0, 0].numel(), made.groups
    _, mean, rstd = torch.native_group_norm(x, weight, made.bias, *sizes, EPS)
    backward = torch.ops.aten.native_group_norm_backward.default
    return partial(backward, made.dy, x, mean, rstd, weight, *sizes, [True, True, True])


def torch_instance_norm(made):
    return torch.nn.functional.instance_norm(made.x, weight=made.weight, bias=made.bias, eps=EPS)


def torch_instance_norm_backward(made):
    """Do what autograd would: go back through a batch norm of one sample that has the channels of all."""
    samples, channels = made.x.shape[:2]
    joined = made.each(lambda a: a.view(1, -1, *a.shape[2:]) if a.ndim > 1 else a.repeat(samples))
    backward = torch_batch_norm_backward(joined)

    def call():
        dx, dweight, dbias = backward()
        return dx.view(made.x.shape), dweight.view(samples, channels).sum(0), dbias.view(samples, channels).sum(0)

    return call


def channels_second(build):
    """Make a rival of a batch norm: where channels come last, of the quicker of two ways to have them second.

    They are so in a view, whose memory format PyTorch knows as channels_last, and in a copy, which is not timed.
    """

    def built(made):
        if made.axis is None:
            return build(made)
        view = made.each(lambda a: a.movedim(made.axis, 1) if a.ndim > 1 else a)
        copy = view.each(torch.Tensor.contiguous)
        call = build(min(view, copy, key=lambda arrays: quickest(build(arrays.own()))))

        def call_and_view():
            y, *others = call()
            return y.movedim(1, made.axis), *others

        return call_and_view

    return built


def quickest(call):
    """Time the quickest of a few calls."""
    return min(timeit.repeat(call, number=1, repeat=8))


def through_graph(forward):
    """Make a rival that goes back through a kept graph, for what has no fused backward pass."""

    def built(made):
        x = made.x.requires_grad_()
        return partial(torch.autograd.grad, forward(made), x, made.dy, retain_graph=True)

    return built


def torch_normalize(made):
    return torch.nn.functional.normalize(made.x, dim=made.axis)


def torch_local_response_norm(made):
    return torch.nn.functional.local_response_norm(made.x, **NEIGHBOURS)


def torch_fold_batch_norm(made):
    running = made.running_mean, made.running_var
    return torch.nn.utils.fuse_conv_bn_weights(made.x, None, *running, EPS, made.weight, made.bias)


TORCH = {
    "layer_norm": torch_layer_norm,
    "layer_norm_backward": torch_layer_norm_backward,
    "rms_norm": torch_rms_norm,
    "rms_norm_backward": torch_rms_norm_backward,
    "add_layer_norm": formula(torch_add_layer_norm),
    "add_rms_norm": formula(torch_add_rms_norm),
    "batch_norm training": channels_second(partial(torch_batch_norm, training=True)),
    "batch_norm training relu": channels_second(partial(torch_batch_norm, training=True, relu=True)),
    "batch_norm evaluation": channels_second(partial(torch_batch_norm, training=False)),
    "batch_norm evaluation relu": channels_second(partial(torch_batch_norm, training=False, relu=True)),
    "batch_norm_backward": channels_second(torch_batch_norm_backward),
    "group_norm": formula(torch_group_norm),
    "group_norm_backward": torch_group_norm_backward,
    "instance_norm": formula(torch_instance_norm),
    "instance_norm_backward": torch_instance_norm_backward,
    "normalize": formula(torch_normalize),
    "normalize_backward": through_graph(torch_normalize),
    **limited(  # its average pool does not know half precision
        {
            "local_response_norm": formula(torch_local_response_norm),
            "local_response_norm_backward": through_graph(torch_local_response_norm),
        },
        lambda job: job.dtype not in HALVES,
    ),
    "standardize": formula(torch_standardize),
    "min_max_scale": formula(torch_min_max_scale),
    "fold_batch_norm": formula(torch_fold_batch_norm),
    "mean": formula(lambda made: torch.mean(made.x, made.axis)),
    "var": formula(lambda made: torch.var(made.x, made.axis, correction=0)),
    "std": formula(lambda made: torch.std(made.x, made.axis, correction=0)),
    "mean_var": formula(lambda made: torch.var_mean(made.x, made.axis, correction=0)[::-1]),
    "minmax": formula(lambda made: tuple(torch.aminmax(made.x, dim=made.axis))),
}
