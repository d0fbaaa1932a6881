"""What is raced: fastnorm's calls."""

from functools import partial

from jobs import EPS, MOMENTUM, NEIGHBOURS
from libraries import fastnorm, formula


def fastnorm_layer_norm(made, **keywords):
    return partial(fastnorm.layer_norm, made.x, made.width, made.weight, made.bias, EPS, **keywords)


def fastnorm_rms_norm(made, **keywords):
    return partial(fastnorm.rms_norm, made.x, made.width, made.weight, EPS, **keywords)


def fastnorm_layer_norm_backward(made, **keywords):
    _, mean, rstd = fastnorm_layer_norm(made, return_stats=True)()
    return partial(fastnorm.layer_norm_backward, made.dy, made.x, mean, rstd, made.weight, **keywords)


def fastnorm_rms_norm_backward(made, **keywords):
    _, rstd = fastnorm_rms_norm(made, return_stats=True)()
    return partial(fastnorm.rms_norm_backward, made.dy, made.x, rstd, made.weight, **keywords)


def fastnorm_add_layer_norm(made, **keywords):
    return partial(fastnorm.add_layer_norm, made.x, made.residual, made.width, made.weight, made.bias, EPS, **keywords)


def fastnorm_add_rms_norm(made, **keywords):
    return partial(fastnorm.add_rms_norm, made.x, made.residual, made.width, made.weight, EPS, **keywords)


def fastnorm_normalize(made, **keywords):
    return partial(fastnorm.normalize, made.x, axis=made.axis, **keywords)


def fastnorm_local_response_norm(made, **keywords):
    return partial(fastnorm.local_response_norm, made.x, **NEIGHBOURS, **keywords)


def fastnorm_standardize(made, **keywords):
    return partial(fastnorm.standardize, made.x, made.axis, **keywords)


def fastnorm_min_max_scale(made, **keywords):
    return partial(fastnorm.min_max_scale, made.x, made.axis, **keywords)


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


def fastnorm_batch_norm_backward(made, **keywords):
    axis = made.channel_axis
    _, mean, rstd = fastnorm.batch_norm(
        made.x, None, None, made.weight, made.bias, True, MOMENTUM, EPS, channel_axis=axis, return_stats=True
    )
    backward = fastnorm.batch_norm_backward
    return partial(backward, made.dy, made.x, mean, rstd, made.weight, channel_axis=axis, **keywords)


def fastnorm_group_norm(made, **keywords):
    return partial(fastnorm.group_norm, made.x, made.groups, made.weight, made.bias, EPS, **keywords)


def fastnorm_group_norm_backward(made, **keywords):
    _, mean, rstd = fastnorm_group_norm(made, return_stats=True)()
    backward = fastnorm.group_norm_backward
    return partial(backward, made.dy, made.x, mean, rstd, made.groups, made.weight, **keywords)


def fastnorm_instance_norm(made, **keywords):
    return partial(fastnorm.instance_norm, made.x, weight=made.weight, bias=made.bias, eps=EPS, **keywords)


def fastnorm_instance_norm_backward(made, **keywords):
    _, mean, rstd = fastnorm_instance_norm(made, return_stats=True)()
    return partial(fastnorm.instance_norm_backward, made.dy, made.x, mean, rstd, made.weight, **keywords)


def fastnorm_fold_batch_norm(made):
    running = made.running_mean, made.running_var
    return partial(fastnorm.fold_batch_norm, made.x, None, *running, made.weight, made.bias, EPS)


def into_out(build):
    """Make a rival whose call fills what the job has as `out`."""

    def built(made):
        return build(made, out=made.out if made.out_sum is None else (made.out, made.out_sum))

    return built


TAKES_OUT = {
    "layer_norm": fastnorm_layer_norm,
    "layer_norm_backward": fastnorm_layer_norm_backward,
    "rms_norm": fastnorm_rms_norm,
    "rms_norm_backward": fastnorm_rms_norm_backward,
    "add_layer_norm": fastnorm_add_layer_norm,
    "add_rms_norm": fastnorm_add_rms_norm,
    "batch_norm training": partial(fastnorm_batch_norm, training=True),
    "batch_norm evaluation": partial(fastnorm_batch_norm, training=False),
    "batch_norm_backward": fastnorm_batch_norm_backward,
    "group_norm": fastnorm_group_norm,
    "group_norm_backward": fastnorm_group_norm_backward,
    "instance_norm": fastnorm_instance_norm,
    "instance_norm_backward": fastnorm_instance_norm_backward,
    "normalize": fastnorm_normalize,
    "local_response_norm": fastnorm_local_response_norm,
    "standardize": fastnorm_standardize,
    "min_max_scale": fastnorm_min_max_scale,
}
FASTNORM = {
    **TAKES_OUT,
    **{f"{form} out=": into_out(build) for form, build in TAKES_OUT.items()},
    "batch_norm training relu": partial(fastnorm_batch_norm, training=True, activation="relu"),
    "batch_norm evaluation relu": partial(fastnorm_batch_norm, training=False, activation="relu"),
    "fold_batch_norm": fastnorm_fold_batch_norm,
    "normalize_backward": formula(lambda made: fastnorm.normalize_backward(made.dy, made.x, axis=made.axis)),
    "local_response_norm_backward": formula(
        lambda made: fastnorm.local_response_norm_backward(made.dy, made.x, **NEIGHBOURS)
    ),
    **{
        function.__name__: formula(lambda made, function=function: function(made.x, made.axis))
        for function in [fastnorm.mean, fastnorm.var, fastnorm.std, fastnorm.mean_var, fastnorm.minmax]
    },
    "mean_var where=": formula(lambda made: fastnorm.mean_var(made.x, made.axis, where=made.where)),
    "mean_var weights=": formula(lambda made: fastnorm.mean_var(made.x, made.axis, weights=made.weights)),
    "mean_var nan_policy=": formula(lambda made: fastnorm.mean_var(made.x, made.axis, nan_policy="omit")),
    "moments order=4 minmax=": formula(fastnorm_moments),
}
