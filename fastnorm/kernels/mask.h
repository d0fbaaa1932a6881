/* Which elements of a job count: bytes, whatever the type of the elements. Comes after the stamp of the bytes. */

/* Does a job leave elements out, or let some count more than others? */
static inline int fn_is_masked(const fn_job *job) {
  return job->array[FN_WHERE].data || job->array[FN_WEIGHTS].data || job->omit;
}

/* Rows start <= i < start + n of the mask of columns j and on: a pointer and, in `stride`, bytes per row. NULL: no
 * mask. */
static const uint8_t *fn_where(const fn_job *job, int64_t outer, int64_t j, int64_t start, int64_t n, int64_t cols,
                               uint8_t *tile, int64_t *stride) {
  if (!job->array[FN_WHERE].data) return NULL;
  const char *base = fn_base(job, FN_WHERE, outer, j);
  *stride = cols;
  if (cols == 1) return load_u8(job, FN_WHERE, base, start, n, tile);
  return load_columns_u8(job, FN_WHERE, base, start, n, cols, tile, stride);
}

/* Likewise, rows that follow each other. */
static const uint8_t *fn_dense_where(const fn_job *job, int64_t outer, int64_t j, int64_t start, int64_t n,
                                     int64_t cols, uint8_t *tile) {
  int64_t stride;
  const uint8_t *where = fn_where(job, outer, j, start, n, cols, tile, &stride);
  if (!where || stride == cols) return where;
  for (int64_t i = 0; i < n; i++) memcpy(tile + i * cols, where + i * stride, (size_t)cols);
  return tile;
}
