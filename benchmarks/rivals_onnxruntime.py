"""ONNX Runtime: a model of one operator for each job, on its CPU provider.

`session.run` with NumPy arrays is quicker than OrtValues or bound buffers, and gives new arrays. What waits for the
next operator spins, as it does by default, because that is quicker; but only so long that the next call finds it awake.
"""

from functools import partial

from jobs import EPS, NEIGHBOURS
from libraries import BRIEF_SPIN_MICROSECONDS, fastnorm, limited, onnx, onnxruntime

OPSET = 23  # the first with RMSNormalization
IR_VERSION = 11  # of that opset
CONTRIBUTED = "com.microsoft"
FLOATS = {"float32", "float64", "float16"}


def session(operator, inputs, outputs, domain="", **attributes):
    """Return a session of a model that is one operator, with the threads that all have now."""
    helper, dtype = onnx.helper, next(iter(inputs.values())).dtype
    node = helper.make_node(operator, [*inputs], outputs, domain=domain, **attributes)
    given = [describe(name, array.dtype, array.shape) for name, array in inputs.items()]
    found = [describe(name, dtype) for name in outputs if name]
    graph = helper.make_graph([node], operator, given, found)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIBUTED, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = fastnorm.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(BRIEF_SPIN_MICROSECONDS))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def describe(name, dtype, shape=None):
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(dtype), shape)


def runs(operator, inputs, outputs=("y",), **attributes):
    """Return a call that runs a session: it gives one array, or several in a tuple."""
    run = session(operator, inputs, list(outputs), **attributes).run
    if len(outputs) == 1:
        return lambda: run(None, inputs)[0]
    return lambda: tuple(run(None, inputs))


def layer_norm(made):
    return runs("LayerNormalization", {"x": made.x, "weight": made.weight, "bias": made.bias}, axis=-1, epsilon=EPS)


def rms_norm(made):
    return runs("RMSNormalization", {"x": made.x, "weight": made.weight}, axis=-1, epsilon=EPS)


def add_norm(operator, made, **parameters):
    inputs = {"x": made.x, "residual": made.residual, **parameters}
    return runs(operator, inputs, ("y", "", "", "s"), domain=CONTRIBUTED, epsilon=EPS)


def batch_norm(made):
    names = "weight", "bias", "running_mean", "running_var"
    inputs = {"x": made.x} | {name: getattr(made, name) for name in names}
    norm = runs("BatchNormalization", inputs, epsilon=EPS)
    return lambda: (norm(), made.running_mean, made.running_var)


def per_channel(operator, made, **attributes):
    return runs(operator, {"x": made.x, "weight": made.weight, "bias": made.bias}, epsilon=EPS, **attributes)


def local_response_norm(made):
    size, alpha, beta, k = (NEIGHBOURS[name] for name in ("size", "alpha", "beta", "k"))
    return runs("LRN", {"x": made.x}, size=size, alpha=alpha, beta=beta, bias=k)


def channels_second(job, dtypes=FLOATS, fewest=2):
    return job.dtype in dtypes and job.axis in {None, 1} and len(job.shape) >= fewest


def four_axes(job):
    return job.dtype in SINGLE and len(job.shape) == 4


SINGLE = FLOATS - {"float64"}
ONNXRUNTIME = (
    limited({"layer_norm": layer_norm, "rms_norm": rms_norm}, lambda job: job.dtype in FLOATS and job.axis is None)
    | limited(
        {
            "add_layer_norm": lambda made: add_norm("SkipLayerNormalization", made, weight=made.weight, bias=made.bias),
            "add_rms_norm": lambda made: add_norm("SkipSimplifiedLayerNormalization", made, weight=made.weight),
        },
        lambda job: job.dtype in SINGLE,
    )
    | limited({"batch_norm evaluation": batch_norm}, channels_second)
    | limited(
        {"group_norm": lambda made: per_channel("GroupNormalization", made, num_groups=made.groups)},
        channels_second,
    )
    | limited(
        {"instance_norm": partial(per_channel, "InstanceNormalization")},
        partial(channels_second, dtypes=SINGLE, fewest=3),
    )
    | limited(
        {"normalize": lambda made: runs("LpNormalization", {"x": made.x}, axis=made.axis, p=2)},
        lambda job: job.dtype in FLOATS,
    )
    | limited({"local_response_norm": local_response_norm}, four_axes)
)
