"""Filling a job: what a call means to the kernels."""

# NumPy's number for the bfloat16 of ml_dtypes, which exists once that has been imported.
cdef int bfloat16_number = -1


def set_bfloat16(int number):
    """Make a type number known as that of bfloat16."""
    global bfloat16_number
    bfloat16_number = number


cdef int float_storage(int number) noexcept:
    """The storage type of a floating type number; -1 for any other."""
    if number == cnp.NPY_FLOAT32:
        return FN_F32
    if number == cnp.NPY_FLOAT64:
        return FN_F64
    if number == cnp.NPY_FLOAT16:
        return FN_F16
    return FN_BF16 if number == bfloat16_number else -1


cdef bint are_bits(const unsigned char *data, int ndim, const cnp.npy_intp *shape,
                   const cnp.npy_intp *strides) noexcept nogil:
    """Whether all bytes are 0 or 1."""
    cdef unsigned char seen = 0
    cdef cnp.npy_intp i, n, step
    if ndim == 0:
        return data[0] <= 1
    n, step = shape[0], strides[0]
    if ndim > 1:
        for i in range(n):
            if not are_bits(data + i * step, ndim - 1, shape + 1, strides + 1):
                return False
    elif step == 1:
        for i in range(n):
            seen |= data[i]
    else:
        for i in range(n):
            seen |= data[i * step]
    return seen <= 1


cdef bint holds_bits(cnp.ndarray x) noexcept:
    """Whether the bytes of an array of booleans are 0 and 1: they need not be where memory was read as booleans."""
    cdef cnp.npy_intp size = cnp.PyArray_SIZE(x), step = 1
    cdef const unsigned char *data = <const unsigned char *>cnp.PyArray_DATA(x)
    if cnp.PyArray_IS_C_CONTIGUOUS(x) or cnp.PyArray_IS_F_CONTIGUOUS(x):
        return are_bits(data, 1, &size, &step)
    return are_bits(data, cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), cnp.PyArray_STRIDES(x))


cdef int storage_type(cnp.ndarray x) noexcept:
    """The storage type of an array; -1 for one that kernels do not read."""
    cdef int number = cnp.PyArray_TYPE(x)
    cdef int size = <int>cnp.PyArray_ITEMSIZE(x)
    if float_storage(number) >= 0:
        return float_storage(number)
    if number == cnp.NPY_BOOL:
        return FN_U8 if holds_bits(x) else -1
    if cnp.PyTypeNum_ISSIGNED(number) and cnp.PyTypeNum_ISINTEGER(number):
        return FN_I8 if size == 1 else FN_I16 if size == 2 else FN_I32 if size == 4 else FN_I64
    if cnp.PyTypeNum_ISUNSIGNED(number):
        return FN_U8 if size == 1 else FN_U16 if size == 2 else FN_U32 if size == 4 else FN_U64
    return -1


cdef int compute_type(int storage) noexcept:
    """The compute type of a storage type."""
    return FN_F32 if storage == FN_F32 or storage == FN_F16 or storage == FN_BF16 else FN_F64


cdef int result_storage(int storage) noexcept:
    """The storage type of results: that of a float, float64 for integers."""
    return storage if compute_type(storage) == FN_F32 else FN_F64


cdef int type_number(int storage) noexcept:
    """NumPy's number of a floating storage type."""
    if storage == FN_F32:
        return cnp.NPY_FLOAT32
    if storage == FN_F16:
        return cnp.NPY_FLOAT16
    return bfloat16_number if storage == FN_BF16 else cnp.NPY_FLOAT64


cdef bint number(object value, double *to) noexcept:
    """A float that is not NaN, or an int that a double holds."""
    if type(value) is float:
        to[0] = value
        return to[0] == to[0]
    if type(value) is int and -(1 << 53) <= value <= 1 << 53:
        to[0] = value
        return True
    return False


cdef bint mark_axes(object axis, int ndim, char *reduced) noexcept:
    """Mark the reduced axes. False for an axis that is not an int or a tuple of ints, repeated, or out of range."""
    cdef int a
    cdef long long index
    for a in range(ndim):
        reduced[a] = axis is None
    if axis is None:
        return True
    if type(axis) is int:
        axis = (axis,)
    if type(axis) is not tuple:
        return False
    for item in <tuple>axis:
        if type(item) is not int or not -ndim <= item < ndim:
            return False
        index = item
        a = <int>(index + ndim if index < 0 else index)
        if reduced[a]:
            return False
        reduced[a] = 1
    return True


cdef bint is_empty(object axis) noexcept:
    """Whether that is a tuple of no axes."""
    return type(axis) is tuple and len(<tuple>axis) == 0


# Instead of the size of a result that is read as it is written: its stores do not go past the cache.
cdef int64_t IN_CACHE = -1


cdef void begin(fn_job *job) noexcept:
    """Nothing wanted, nothing known."""
    cdef int which
    for which in range(FN_ARRAYS):
        job.array[which].data = NULL
    job.weight = job.bias = NULL
    job.mean = job.spread = job.min = job.max = NULL
    job.shortest = FN_SHORT
    job.index = job.first = 0
    job.resume = job.stream = 0
    job.written = IN_CACHE
    job.state = NULL
    job.state_stride = 0
    job.ddof = 0
    job.finish = FN_VARIANCE
    job.order = 2
    job.extrema = job.omit = 0
    job.eps = job.least = job.most = 0
    job.norm = FN_LAYER
    job.source = FN_X
    job.quiet = 0
    job.period = job.places = 1
    job.unit = 0
    job.saved = NULL
    job.folded = NULL
    job.relu = job.given = 0
    job.center = job.center_lo = job.scale = job.shift = NULL
    job.found = NULL
    job.dweight = job.dbias = NULL
    job.parameter_dtype = FN_F64
    job.slopes = NULL
    job.slots = NULL
    job.width = job.block = job.wave = 0


cdef void describe(fn_array *array, cnp.ndarray x, int storage) noexcept:
    """Tell the kernels where an array lies and how its elements are stored."""
    array.dtype = storage
    array.swapped = not cnp.PyArray_ISNOTSWAPPED(x)
    array.aligned = cnp.PyArray_ISALIGNED(x)
    array.data = <char *>cnp.PyArray_DATA(x)


cdef bint use(fn_job *job, int which, cnp.ndarray x, const int64_t **steps) noexcept:
    """Tell the kernels of one array, if there is one. False for a storage type that they do not know."""
    steps[which] = NULL
    if x is None:
        return True
    steps[which] = <const int64_t *>cnp.PyArray_STRIDES(x)
    describe(&job.array[which], x, FN_U8 if which == FN_WHERE else storage_type(x))
    return job.array[which].dtype >= 0


cdef bint spread_weights(int64_t *steps, cnp.ndarray weights, cnp.ndarray x, const char *reduced) noexcept:
    """The strides of weights that are repeated to the shape of x: they have as many axes and sizes that broadcast, or
    the shape of the reduced axes. False for any other shape."""
    cdef int ndim = cnp.PyArray_NDIM(x), own = cnp.PyArray_NDIM(weights), a, b = 0
    for a in range(ndim):
        steps[a] = 0
        if own < ndim and not reduced[a]:
            continue
        if b == own:
            return False
        if cnp.PyArray_DIM(weights, b) == cnp.PyArray_DIM(x, a):
            steps[a] = cnp.PyArray_STRIDE(weights, b)
        elif own < ndim or cnp.PyArray_DIM(weights, b) != 1:
            return False
        b += 1
    return b == own


cdef bint fill_job(fn_job *job, const char *reduced, cnp.ndarray x, cnp.ndarray y=None, cnp.ndarray z=None,
                   cnp.ndarray where=None, cnp.ndarray weights=None, cnp.ndarray s=None) noexcept:
    """Describe arrays of one shape to the kernels, but for weights, which are repeated; weight and bias are set. False
    for a type that they do not know, and for weights of a shape that does not fit."""
    cdef const int64_t *steps[FN_ARRAYS]
    cdef int64_t along[FN_MAX_AXES]
    if not (use(job, FN_X, x, steps) and use(job, FN_Z, z, steps) and use(job, FN_WHERE, where, steps)
            and use(job, FN_WEIGHTS, weights, steps) and use(job, FN_Y, y, steps) and use(job, FN_S, s, steps)):
        return False
    if weights is not None:
        if not spread_weights(along, weights, x, reduced):
            return False
        steps[FN_WEIGHTS] = along
    job.dtype = job.out_dtype = compute_type(job.array[FN_X].dtype)
    fn_plan(job, cnp.PyArray_NDIM(x), <const int64_t *>cnp.PyArray_DIMS(x), steps, reduced)
    return True


cdef cnp.ndarray new_kept(cnp.ndarray x, const char *reduced, bint keepdims, int typenum):
    """An empty array for the statistics of x: its shape without the reduced axes."""
    cdef cnp.npy_intp shape[FN_MAX_AXES]
    cdef int a, ndim = 0
    for a in range(cnp.PyArray_NDIM(x)):
        if keepdims or not reduced[a]:
            shape[ndim] = 1 if reduced[a] else cnp.PyArray_DIM(x, a)
            ndim += 1
    return cnp.PyArray_EMPTY(ndim, shape, typenum, 0)


cdef inline object unwrap(cnp.ndarray result):
    """A NumPy scalar for a result of no dimensions."""
    return result if cnp.PyArray_NDIM(result) else result[()]
