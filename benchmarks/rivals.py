"""The rivals: what each library's user would write for a job. A rival turns a job into a function to be timed.

Each rival is a table: a job's form leads to a function that takes the job's arrays and returns the call. What a user
would do once and not in every call (tensors, the forward pass that a backward pass goes back through) is done there.

PyTorch and SciPy are optional. PyTorch is imported before fastnorm, so that both run on one OpenMP runtime: the waiting
threads of a second one would take the processor from whoever is timed next.
"""

import os
from dataclasses import replace
from functools import partial

import numpy as np

try:
    import torch
except ImportError:
    torch = None
try:
    import scipy.stats
except ImportError:
    scipy = None

import memory_limit
from jobs import EPS, inputs

import fastnorm


def usable_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


THREADS = min(2, usable_cores())


def set_threads(threads):
    """Give every rival the same number of threads. NumPy's and SciPy's formulas use one whatever is asked."""
    fastnorm.set_num_threads(threads)
    if torch:
        torch.set_num_threads(threads)


def formula(function):
    """Make a rival of a function of the job's arrays."""
    return partial(partial, function)


# ---- fastnorm


def fastnorm_layer_norm(made, **keywords):
    return partial(fastnorm.layer_norm, made.x, made.width, made.weight, made.bias, EPS, **keywords)


def fastnorm_rms_norm(made, **keywords):
    return partial(fastnorm.rms_norm, made.x, made.width, made.weight, EPS, **keywords)


def fastnorm_layer_norm_backward(made):
    _, mean, rstd = fastnorm_layer_norm(made, return_stats=True)()
    return partial(fastnorm.layer_norm_backward, made.dy, made.x, mean, rstd, made.weight)


def fastnorm_rms_norm_backward(made):
    _, rstd = fastnorm_rms_norm(made, return_stats=True)()
    return partial(fastnorm.rms_norm_backward, made.dy, made.x, rstd, made.weight)


def fastnorm_add_layer_norm(made):
    return fastnorm.add_layer_norm(made.x, made.residual, made.width, made.weight, made.bias, EPS)


def fastnorm_add_rms_norm(made):
    return fastnorm.add_rms_norm(made.x, made.residual, made.width, made.weight, EPS)


def fastnorm_moments(made):
    found = fastnorm.moments(made.x, made.axis, order=4, minmax=True)
    return found.mean, found.var(), found.skewness(), found.kurtosis(), found.min, found.max


FASTNORM = {
    "layer_norm": fastnorm_layer_norm,
    "layer_norm out=": lambda made: fastnorm_layer_norm(made, out=made.out),
    "layer_norm_backward": fastnorm_layer_norm_backward,
    "rms_norm": fastnorm_rms_norm,
    "rms_norm_backward": fastnorm_rms_norm_backward,
    "add_layer_norm": formula(fastnorm_add_layer_norm),
    "add_rms_norm": formula(fastnorm_add_rms_norm),
    "standardize": formula(lambda made: fastnorm.standardize(made.x, made.axis)),
    "min_max_scale": formula(lambda made: fastnorm.min_max_scale(made.x, made.axis)),
    "mean_var": formula(lambda made: fastnorm.mean_var(made.x, made.axis)),
    "mean_var where=": formula(lambda made: fastnorm.mean_var(made.x, made.axis, where=made.where)),
    "mean_var weights=": formula(lambda made: fastnorm.mean_var(made.x, made.axis, weights=made.weights)),
    "mean_var nan_policy=": formula(lambda made: fastnorm.mean_var(made.x, made.axis, nan_policy="omit")),
    "moments order=4 minmax=": formula(fastnorm_moments),
    "minmax": formula(lambda made: fastnorm.minmax(made.x, made.axis)),
}


def in_float32(array):
    return array.astype(np.float32)


# ---- PyTorch


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


TORCH = {
    "layer_norm": torch_layer_norm,
    "layer_norm_backward": torch_layer_norm_backward,
    "rms_norm": torch_rms_norm,
    "rms_norm_backward": torch_rms_norm_backward,
    "add_layer_norm": formula(torch_add_layer_norm),
    "add_rms_norm": formula(torch_add_rms_norm),
    "standardize": formula(torch_standardize),
    "min_max_scale": formula(torch_min_max_scale),
    "mean_var": formula(lambda made: torch.var_mean(made.x, made.axis, correction=0)[::-1]),
    "minmax": formula(lambda made: tuple(torch.aminmax(made.x, dim=made.axis))),
}


# ---- NumPy and SciPy


def numpy_layer_norm(made):
    mean = made.x.mean(-1, keepdims=True)
    var = made.x.var(-1, keepdims=True)
    return (made.x - mean) / np.sqrt(var + EPS) * made.weight + made.bias


def numpy_layer_norm_out(made):
    x, out = made.x, made.out
    mean = x.mean(-1, keepdims=True)
    var = x.var(-1, keepdims=True)
    np.subtract(x, mean, out=out)
    np.divide(out, np.sqrt(var + EPS), out=out)
    np.multiply(out, made.weight, out=out)
    return np.add(out, made.bias, out=out)


def numpy_rms_norm(made):
    return made.x / np.sqrt(np.mean(made.x * made.x, -1, keepdims=True) + EPS) * made.weight


def numpy_layer_norm_backward(made):
    mean = made.x.mean(-1, keepdims=True)
    rstd = 1 / np.sqrt(made.x.var(-1, keepdims=True) + EPS)

    def call():
        z = (made.x - mean) * rstd
        dz = made.dy * made.weight
        dx = (dz - dz.mean(-1, keepdims=True) - z * np.mean(dz * z, -1, keepdims=True)) * rstd
        return dx, np.sum(made.dy * z, 0), made.dy.sum(0)

    return call


def numpy_rms_norm_backward(made):
    rstd = 1 / np.sqrt(np.mean(made.x * made.x, -1, keepdims=True) + EPS)

    def call():
        z = made.x * rstd
        dz = made.dy * made.weight
        return (dz - z * np.mean(dz * z, -1, keepdims=True)) * rstd, np.sum(made.dy * z, 0)

    return call


def numpy_add_layer_norm(made):
    s = made.x + made.residual
    return numpy_layer_norm(replace(made, x=s)), s


def numpy_add_rms_norm(made):
    s = made.x + made.residual
    return numpy_rms_norm(replace(made, x=s)), s


def numpy_min_max_scale(made):
    low, high = made.x.min(made.axis), made.x.max(made.axis)
    return (made.x - low) / (high - low)


def numpy_mean_var_where(made):
    return np.mean(made.x, made.axis, where=made.where), np.var(made.x, made.axis, where=made.where)


def numpy_mean_var_weights(made):
    mean = np.average(made.x, made.axis, weights=made.weights)
    return mean, np.average((made.x - mean) ** 2, made.axis, weights=made.weights)


NUMPY = {
    "layer_norm": formula(numpy_layer_norm),
    "layer_norm out=": formula(numpy_layer_norm_out),
    "layer_norm_backward": numpy_layer_norm_backward,
    "rms_norm": formula(numpy_rms_norm),
    "rms_norm_backward": numpy_rms_norm_backward,
    "add_layer_norm": formula(numpy_add_layer_norm),
    "add_rms_norm": formula(numpy_add_rms_norm),
    "standardize": formula(lambda made: (made.x - made.x.mean(made.axis)) / made.x.std(made.axis)),
    "min_max_scale": formula(numpy_min_max_scale),
    "mean_var": formula(lambda made: (made.x.mean(made.axis), made.x.var(made.axis))),
    "mean_var where=": formula(numpy_mean_var_where),
    "mean_var weights=": formula(numpy_mean_var_weights),
    "mean_var nan_policy=": formula(lambda made: (np.nanmean(made.x, made.axis), np.nanvar(made.x, made.axis))),
    "minmax": formula(lambda made: (made.x.min(made.axis), made.x.max(made.axis))),
}


def scipy_moments(made):
    """Take what SciPy has from SciPy and the rest from NumPy."""
    x, axis = made.x, made.axis
    shape = scipy.stats.skew(x, axis), scipy.stats.kurtosis(x, axis)
    return x.mean(axis), x.var(axis), *shape, x.min(axis), x.max(axis)


SCIPY = {"moments order=4 minmax=": formula(scipy_moments)}


# ---- all of them

RIVALS = {"fastnorm": FASTNORM, "float32": FASTNORM, "torch": TORCH, "numpy": NUMPY, "scipy": SCIPY}
VIEWS = {"float32": in_float32, "torch": tensor}  # what a rival takes in place of an array


def names(job):
    """List the rivals that have such a call.

    A job in half precision runs against fastnorm's own float32 on the same values. It does not run against NumPy, which
    stores half precision well but is neither fast nor accurate in it.
    """
    installed = {"torch": torch, "scipy": scipy}
    candidates = ("fastnorm", "torch", "numpy", "scipy") if job.dtype == "float32" else ("fastnorm", "float32", "torch")
    return [name for name in candidates if job.form in RIVALS[name] and installed.get(name, True)]


def pairs(jobs):
    return [(job, name) for job in jobs for name in names(job)]


def rival(name, job):
    """Return the call to be timed."""
    made = inputs(job)
    return RIVALS[name][job.form](made.each(VIEWS[name]) if name in VIEWS else made)


def memory_rival(job, threads):
    """Return the C loop that moves the same bytes as the job, or None for a job that is not held against memory."""
    made = inputs(job)
    if job.limit == "read":
        return partial(memory_limit.read, made.x, threads)
    if job.limit == "stream":
        return partial(memory_limit.stream, made.out, made.x, threads)
    return None
