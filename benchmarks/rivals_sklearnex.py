"""scikit-learn-intelex: the algorithms of its oneDAL library that answer a job.

It accelerates none of scikit-learn's scalers. Its low-order moments are called through daal4py, which it consists of:
the estimator around them (sklearnex.basic_statistics) checks its input and tells the sample variance only, and takes
longer. oneDAL's z-score divides by the sample's deviation, which is another answer.
"""

from libraries import daal4py, formula, limited

PRECISIONS = {"float32": "float", "float64": "double"}


def table(made):
    """Return x as rows and columns."""
    return made.x.reshape(-1, 1) if made.axis is None or made.x.ndim == 1 else made.x


def shaped(made, row):
    """Return one number per column, or the only one."""
    return row.ravel() if made.axis is not None and made.x.ndim > 1 else row[0, 0]


def algorithm(make, made, **parameters):
    return make(fptype=PRECISIONS[made.x.dtype.name], **parameters)


def moments(made, *, mean=False, var=False, std=False):
    """Return what is asked of mean, population variance and deviation."""

    def call():
        x = table(made)
        found = algorithm(daal4py.low_order_moments, made, estimatesToCompute="estimatesAll").compute(x)
        answer = []
        if mean:
            answer.append(shaped(made, found.mean))
        if var or std:
            population = shaped(made, found.sumSquaresCentered) / len(x)
            answer.append(population**0.5 if std else population)
        return tuple(answer) if len(answer) > 1 else answer[0]

    return call


def minmax(made):
    found = algorithm(daal4py.low_order_moments, made, estimatesToCompute="estimatesMinMax").compute(table(made))
    return shaped(made, found.minimum), shaped(made, found.maximum)


def min_max_scale(made):
    scale = algorithm(daal4py.normalization_minmax, made, lowerBound=0.0, upperBound=1.0)
    return scale.compute(made.x).normalizedData


def suits(job):
    whole = job.axis is None or len(job.shape) == 1
    return job.dtype in PRECISIONS and (whole or (job.axis == 0 and len(job.shape) == 2))


SKLEARNEX = limited(
    {
        "mean_var": lambda made: moments(made, mean=True, var=True),
        "mean": lambda made: moments(made, mean=True),
        "var": lambda made: moments(made, var=True),
        "std": lambda made: moments(made, std=True),
        "minmax": formula(minmax),
    },
    suits,
) | limited({"min_max_scale": formula(min_max_scale)}, lambda job: suits(job) and job.axis == 0 and len(job.shape) == 2)
