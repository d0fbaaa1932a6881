"""The norms of channels as one list, each with its forward pass, its backward pass and how its twin is called."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import reference
from cases import uniform

import fastnorm

# (N, C, ...); channels are moved to other axes by `placed`. Every norm takes what has two values to normalize.
SHAPES = [
    *[(2, 1), (5, 3), (64, 5), (63, 64), (17, 65), (131, 7)],
    *[(1, 1, 2), (3, 5, 7), (2, 64, 33), (4, 3, 63), (2, 6, 64), (3, 2, 65), (70, 8, 1), (5, 4, 1031)],
    *[(2, 3, 4, 5), (3, 2, 7, 9), (2, 12, 14, 14), (1, 16, 1, 3), (2, 3, 2, 3, 4), (1, 4, 3, 5, 7)],
]


class Norm(NamedTuple):
    name: str
    groups: Callable | None = None  # how many, of so many channels; None: batch norm
    evaluation: bool = False

    def takes(self, shape):
        """Whether there are two values at least to normalize, for (N, C, ...)."""
        if self.evaluation:
            return True
        spatial = int(np.prod(shape[2:]))
        if self.groups is None:
            return shape[0] * spatial > 1
        return spatial * (shape[1] // self.groups(shape[1])) > 1

    def axes(self, shape):
        """Where the channels may lie: behind the samples, last, between others and, in a batch norm, first."""
        if not self.takes(shape):
            return []
        first = [0] if self.groups is None else []
        return sorted({*first, 1, len(shape) - 1, *([2] if len(shape) > 3 else [])})

    def ends(self, shape):
        """Channels behind the samples, and last."""
        return sorted({1, len(shape) - 1}) if self.takes(shape) else []

    def twin(self, channels):
        """What the twins of both passes take to know this norm."""
        groups = None if self.groups is None or self.evaluation else self.groups(channels)
        return {"groups": groups}

    def given(self, channels, dtype=np.float32):
        """Statistics for evaluation."""
        return uniform(channels, dtype, 21) + dtype(3), uniform(channels, dtype, 22) + dtype(1.5)

    def forward(self, x, weight=None, bias=None, eps=1e-5, *, given=None, channel_axis=1, **kwargs):
        channels = np.shape(x)[channel_axis]
        how = {"channel_axis": channel_axis, **kwargs}
        if self.evaluation:
            given = given or self.given(channels)
        if self.name == "group":
            return fastnorm.group_norm(x, self.groups(channels), weight, bias, eps, **how)
        if self.name.startswith("instance"):
            return fastnorm.instance_norm(
                x, *(given or (None, None)), weight, bias, not self.evaluation, 0.1, eps, **how
            )
        return fastnorm.batch_norm(x, *(given or (None, None)), weight, bias, not self.evaluation, 0.1, eps, **how)

    def saved(self, x, eps=1e-5, *, channel_axis=1, where=None, given=None):
        """Mean and rstd as the forward pass saves them, from its twin."""
        channels = np.shape(x)[channel_axis]
        how = self.twin(channels) | {"where": where}
        if self.evaluation:
            how["given"] = given or self.given(channels)
        _, mean, _, rstd = reference.channel_norm(x, eps=eps, channel_axis=channel_axis, **how)
        compute = np.float64 if reference.result_dtype(x).itemsize == 8 else np.float32
        with reference.silent():
            return mean.astype(compute), rstd.astype(compute)

    def backward(self, dy, x, mean, rstd, weight=None, *, channel_axis=1, **kwargs):
        how = {"channel_axis": channel_axis, **kwargs}
        if self.name == "group":
            return fastnorm.group_norm_backward(
                dy, x, mean, rstd, self.groups(np.shape(x)[channel_axis]), weight, **how
            )
        if self.name.startswith("instance"):
            how["use_input_stats"] = not self.evaluation
            return fastnorm.instance_norm_backward(dy, x, mean, rstd, weight, **how)
        return fastnorm.batch_norm_backward(dy, x, mean, rstd, weight, training=not self.evaluation, **how)

    def check(self, x, weight=None, bias=None, eps=1e-5, *, values=None, channel_axis=1, given=None, **kwargs):
        """Compare all that the forward pass returns with its twin; `values`: x as its twin is to see it."""
        got = self.forward(x, weight, bias, eps, channel_axis=channel_axis, given=given, return_stats=True, **kwargs)
        channels = np.shape(x)[channel_axis]
        how = self.twin(channels)
        if self.evaluation:
            how["given"] = given or self.given(channels)
        if "where" in kwargs:
            how["where"] = kwargs["where"]
        values = x if values is None else values
        relu = kwargs.get("activation") == "relu"
        reference.assert_channel_norm(got, values, weight, bias, eps, channel_axis=channel_axis, relu=relu, **how)
        return got

    def check_backward(self, got, dy, x, mean, rstd, weight=None, *, channel_axis=1, **kwargs):
        """Compare gradients with those of the twin."""
        how = self.twin(np.shape(x)[channel_axis]) | {"given_mean": mean if self.evaluation else None} | kwargs
        want = reference.channel_norm_backward(dy, x, rstd, weight, channel_axis=channel_axis, **how)
        reference.assert_gradients(got, want, x, weight)


def some_groups(channels):
    """More than one group of more than one channel, where there is such a number."""
    return next((g for g in (2, 3, 4, 5, 7) if channels % g == 0 and g < channels), 1)


BATCH = Norm("batch")
EVALUATION = Norm("batch evaluation", evaluation=True)
GROUP = Norm("group", some_groups)
INSTANCE = Norm("instance", lambda channels: channels)
INSTANCE_EVALUATION = Norm("instance evaluation", lambda channels: channels, evaluation=True)
NORMS = [BATCH, EVALUATION, GROUP, INSTANCE, INSTANCE_EVALUATION]

# More than 131072 values of each channel, and of some groups.
LARGE = [(n, s) for n in (BATCH, EVALUATION) for s in [(133, 2, 1031), (140009, 2), (2, 2, 17, 41, 97)]]
LARGE += [(n, s) for n in (BATCH, GROUP, INSTANCE) for s in [(1, 2, 131101), (2, 2, 263, 251)]]


def placed(x, axis):
    """(N, C, ...) with the channels on another axis, C-ordered."""
    return np.ascontiguousarray(np.moveaxis(x, 1, axis))


def problem(shape, dtype, axis=1, seed=0):
    """Make dy, x, weight and bias. x lies about 3, so that its mean is rounded; parameters are of its compute type."""
    dtype = np.dtype(dtype)
    compute = np.float64 if dtype.itemsize == 8 or dtype.kind in "biu" else np.float32
    dy = uniform(shape, compute if dtype.kind in "biu" else dtype, seed + 1)
    x = np.asarray(uniform(shape, dtype, seed + 2))
    x = x if dtype.kind in "biu" else np.asarray(x + np.asarray(3, dtype), dtype)
    weight, bias = (uniform(shape[1], compute, seed + s) + compute(s == 3) for s in (3, 4))
    return placed(dy, axis), placed(x, axis), weight, bias


def parameters(weight, bias):
    """Weight and bias, each given or not."""
    return itertools.product((weight, None), (bias, None))


def running(channels, dtype=np.float32):
    """A running mean and variance that are not those of a new layer."""
    return np.asarray(uniform(channels, dtype, 31)), np.asarray(uniform(channels, dtype, 32) + np.asarray(2, dtype))


def learn(norm, x, statistics, momentum=0.1, eps=1e-5, **kwargs):
    """Normalize in training with those running statistics."""
    call = fastnorm.batch_norm if norm is BATCH else fastnorm.instance_norm
    return call(x, *statistics, None, None, True, momentum, eps, **kwargs)


def some(shape, axis):
    """A mask in which two values at least of each channel count."""
    where = uniform(shape, bool, 9)
    np.moveaxis(where, axis, 1)[:2] = True
    return where
