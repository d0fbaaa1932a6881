"""What is raced: fastnorm's calls."""

from functools import partial

from jobs import EPS, MOMENTUM, NEIGHBOURS, NUM_GROUPS
from libraries import fastnorm, formula


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


def fastnorm_batch_norm(made, training, **keywords):
    running = made.running_mean, made.running_var
    axis = made.channel_axis

    def call():
        y = fastnorm.batch_norm(
            made.x, *running, made.weight, made.bias, training, MOMENTUM, EPS, channel_axis=axis, **keywords
        )
        return y, *running

    return call


def fastnorm_batch_norm_backward(made):
    axis = made.channel_axis
    _, mean, rstd = fastnorm.batch_norm(
        made.x, None, None, made.weight, made.bias, True, MOMENTUM, EPS, channel_axis=axis, return_stats=True
    )
    return partial(fastnorm.batch_norm_backward, made.dy, made.x, mean, rstd, made.weight, channel_axis=axis)


def fastnorm_group_norm(made, **keywords):
    return partial(fastnorm.group_norm, made.x, NUM_GROUPS, made.weight, made.bias, EPS, **keywords)


def fastnorm_group_norm_backward(made):
    _, mean, rstd = fastnorm_group_norm(made, return_stats=True)()
    return partial(fastnorm.group_norm_backward, made.dy, made.x, mean, rstd, NUM_GROUPS, made.weight)


def fastnorm_instance_norm(made, **keywords):
    return partial(fastnorm.instance_norm, made.x, weight=made.weight, bias=made.bias, eps=EPS, **keywords)


def fastnorm_instance_norm_backward(made):
    _, mean, rstd = fastnorm_instance_norm(made, return_stats=True)()
    return partial(fastnorm.instance_norm_backward, made.dy, made.x, mean, rstd, made.weight)


FASTNORM = {
    "layer_norm": fastnorm_layer_norm,
    "layer_norm out=": lambda made: fastnorm_layer_norm(made, out=made.out),
    "layer_norm_backward": fastnorm_layer_norm_backward,
    "rms_norm": fastnorm_rms_norm,
    "rms_norm_backward": fastnorm_rms_norm_backward,
    "add_layer_norm": formula(fastnorm_add_layer_norm),
    "add_rms_norm": formula(fastnorm_add_rms_norm),
    "batch_norm training": partial(fastnorm_batch_norm, training=True),
    "batch_norm training relu": partial(fastnorm_batch_norm, training=True, activation="relu"),
    "batch_norm training out=": lambda made: fastnorm_batch_norm(made, True, out=made.out),
    "batch_norm evaluation": partial(fastnorm_batch_norm, training=False),
    "batch_norm evaluation relu": partial(fastnorm_batch_norm, training=False, activation="relu"),
    "batch_norm evaluation out=": lambda made: fastnorm_batch_norm(made, False, out=made.out),
    "batch_norm_backward": fastnorm_batch_norm_backward,
    "group_norm": fastnorm_group_norm,
    "group_norm_backward": fastnorm_group_norm_backward,
    "instance_norm": fastnorm_instance_norm,
    "instance_norm_backward": fastnorm_instance_norm_backward,
    "normalize": formula(lambda made: fastnorm.normalize(made.x, axis=made.axis)),
    "normalize_backward": formula(lambda made: fastnorm.normalize_backward(made.dy, made.x, axis=made.axis)),
    "local_response_norm": formula(lambda made: fastnorm.local_response_norm(made.x, **NEIGHBOURS)),
    "local_response_norm_backward": formula(
        lambda made: fastnorm.local_response_norm_backward(made.dy, made.x, **NEIGHBOURS)
    ),
    "standardize": formula(lambda made: fastnorm.standardize(made.x, made.axis)),
    "min_max_scale": formula(lambda made: fastnorm.min_max_scale(made.x, made.axis)),
    "mean_var": formula(lambda made: fastnorm.mean_var(made.x, made.axis)),
    "mean_var where=": formula(lambda made: fastnorm.mean_var(made.x, made.axis, where=made.where)),
    "mean_var weights=": formula(lambda made: fastnorm.mean_var(made.x, made.axis, weights=made.weights)),
    "mean_var nan_policy=": formula(lambda made: fastnorm.mean_var(made.x, made.axis, nan_policy="omit")),
    "moments order=4 minmax=": formula(fastnorm_moments),
    "minmax": formula(lambda made: fastnorm.minmax(made.x, made.axis)),
}
