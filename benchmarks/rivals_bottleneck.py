"""bottleneck: reductions that leave NaN out, in one thread, which serve arrays without NaN as well."""

from libraries import bottleneck, formula, limited


def mean_var(made):
    return bottleneck.nanmean(made.x, made.axis), bottleneck.nanvar(made.x, made.axis)


def minmax(made):
    return bottleneck.nanmin(made.x, made.axis), bottleneck.nanmax(made.x, made.axis)


BOTTLENECK = {}
for variant in ["", " nan_policy="]:
    BOTTLENECK |= {
        f"mean_var{variant}": formula(mean_var),
        f"mean{variant}": formula(lambda made: bottleneck.nanmean(made.x, made.axis)),
        f"var{variant}": formula(lambda made: bottleneck.nanvar(made.x, made.axis)),
        f"std{variant}": formula(lambda made: bottleneck.nanstd(made.x, made.axis)),
        f"minmax{variant}": formula(minmax),
    }
# In float16 it calls NumPy; it takes one axis or all.
BOTTLENECK = limited(BOTTLENECK, lambda job: job.dtype in {"float32", "float64"})
