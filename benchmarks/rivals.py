"""The rivals: what each library's user would write for a job. A rival turns a job into a function to be timed.

PyTorch is optional. It is imported before fastnorm, so that both run on one OpenMP runtime: the waiting threads of a
second one would take the processor from whoever is timed next.
"""

import os
from functools import partial

import numpy as np

try:
    import torch
except ImportError:
    torch = None

import memory_limit
from jobs import EPS, inputs

import fastnorm


def usable_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


THREADS = min(2, usable_cores())


def set_threads(threads):
    """Give every rival the same number of threads. NumPy's formulas use one whatever is asked."""
    fastnorm.set_num_threads(threads)
    if torch:
        torch.set_num_threads(threads)


def numpy_rival(job):
    made = inputs(job)
    x, axis = made.x, job.axis
    if job.op == "layer_norm":
        function = numpy_layer_norm if made.out is None else numpy_layer_norm_out
        return partial(function, made)
    if job.op == "standardize":
        return lambda: (x - x.mean(axis)) / x.std(axis)
    if job.op == "mean_var":
        return lambda: (x.mean(axis), x.var(axis))
    return lambda: (x.min(axis), x.max(axis))


def numpy_layer_norm(made):
    x = made.x
    mean = x.mean(-1, keepdims=True)
    var = x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + EPS) * made.weight + made.bias


def numpy_layer_norm_out(made):
    x, out = made.x, made.out
    mean = x.mean(-1, keepdims=True)
    var = x.var(-1, keepdims=True)
    np.subtract(x, mean, out=out)
    np.divide(out, np.sqrt(var + EPS), out=out)
    np.multiply(out, made.weight, out=out)
    return np.add(out, made.bias, out=out)


def fastnorm_rival(job):
    made = inputs(job)
    x, axis = made.x, job.axis
    if job.op == "layer_norm":
        width, weight, bias, out = job.shape[-1:], made.weight, made.bias, made.out
        if out is None:
            return partial(fastnorm.layer_norm, x, width, weight, bias, EPS)
        return partial(fastnorm.layer_norm, x, width, weight, bias, EPS, out=out)
    return partial(getattr(fastnorm, job.op), x, axis=axis)


def torch_rival(job):
    """Return None without PyTorch, or where it has no such call: its layer_norm writes into no given array."""
    if torch is None or job.out:
        return None
    made = inputs(job)
    x, axis = torch.from_numpy(made.x), job.axis
    if job.op == "layer_norm":
        weight, bias, width = torch.from_numpy(made.weight), torch.from_numpy(made.bias), job.shape[-1:]
        return partial(torch.nn.functional.layer_norm, x, width, weight, bias, EPS)
    if job.op == "standardize":
        return partial(torch_standardize, x, axis)
    if job.op == "mean_var":
        return lambda: torch.var_mean(x, axis, correction=0)[::-1]
    return partial(torch.aminmax, x, dim=axis)


def torch_standardize(x, axis):
    var, mean = torch.var_mean(x, axis, correction=0)
    return (x - mean) / var.sqrt()


RIVALS = {"fastnorm": fastnorm_rival, "torch": torch_rival, "numpy": numpy_rival}


def memory_rival(job, threads):
    """Return the C loop that moves the same bytes as the job, or None for a job that is not held against memory."""
    made = inputs(job)
    if job.limit == "read":
        return partial(memory_limit.read, made.x, threads)
    if job.limit == "stream":
        return partial(memory_limit.stream, made.out, made.x, threads)
    return None
