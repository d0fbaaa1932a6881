"""The door of a batch norm that is folded into the layer before it."""


cdef int share_fold(fn_job *job, crew *team) except -1 nogil:
    share_broad(team.table.fold_rows, team.table.fold_columns, job, team)
    return 0


cdef const double *bring_each(object values, int64_t channels, double none, double *room) noexcept:
    """Numbers of each channel as doubles; `none` for None."""
    cdef int64_t c
    if values is None:
        for c in range(channels):
            room[c] = none
    else:
        bring_running(values, channels, room)
    return room


cdef bint are_floats(object values, int64_t channels) noexcept:
    """Whether that is a float or a double of each channel, one after the other."""
    cdef const void *data
    return (is_table(values, -1, channels, cnp.NPY_FLOAT32, &data)
            or is_table(values, -1, channels, cnp.NPY_FLOAT64, &data))


def fold_batch_norm(weight, bias, running_mean, running_var, bn_weight, bn_bias, eps, axis):
    """As `functional.fold_batch_norm`, or None. Numbers of each channel: float32 or float64."""
    cdef fn_job job
    cdef cnp.ndarray folded, shift
    cdef cnp.npy_intp channels
    cdef int64_t c
    cdef double *scales
    cdef double *shifts
    cdef const double *mean
    cdef const double *var
    cdef const double *bn_shift
    cdef unsigned word
    axis = from_front(axis, weight)
    begin(&job)
    if not cnp.PyArray_CheckExact(weight) or type(axis) is not int or cnp.PyArray_NDIM(weight) < 2:
        return None
    if not 0 <= axis < cnp.PyArray_NDIM(weight) or storage_type(weight) < 0:
        return None
    channels = cnp.PyArray_DIM(weight, axis)
    if not are_floats(running_mean, channels) or not are_floats(running_var, channels):
        return None
    for values in (bias, bn_weight, bn_bias):
        if values is not None and not are_floats(values, channels):
            return None
    if not number(eps, &job.eps) or job.eps < 0:
        return None
    folded = rescaled_result(weight, None, (), False)
    shift = cnp.PyArray_EMPTY(1, &channels, cnp.PyArray_TYPE(folded), 0)
    room = bytearray(5 * channels * sizeof(double))
    scales = <double *><char *>room
    shifts = scales + channels
    bring_each(bn_weight, channels, 1, scales)
    bring_each(bias, channels, 0, shifts)
    mean = bring_each(running_mean, channels, 0, scales + 2 * channels)
    var = bring_each(running_var, channels, 0, scales + 3 * channels)
    bn_shift = bring_each(bn_bias, channels, 0, scales + 4 * channels)
    word = fn_fp_enter()
    for c in range(channels):
        scales[c] /= sqrt(var[c] + job.eps)
        shifts[c] = (shifts[c] - mean[c]) * scales[c] + bn_shift[c]
    fn_fp_leave(word)
    describe(&job.array[FN_Y], shift, storage_type(shift))
    job.array[FN_X].data = <char *>shifts
    run(fn_active_table().round_doubles, &job, 0, channels, NULL)
    if cnp.PyArray_SIZE(weight):
        job.scale = scales
        plan_rescale(&job, axis, weight, folded)
        job.written = cnp.PyArray_NBYTES(folded)
        drive_released(share_fold, &job)
    return folded, shift
