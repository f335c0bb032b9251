# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The two inner loops of re-ranking: running nearest neighbours, and the Jaccard distance through an inverted index.

Called by `evaluate.neighbours` and `evaluate.reranking` only, which hold the same in torch.
"""

from cython.parallel cimport prange, threadid
from libc.stdlib cimport calloc, free

cdef extern from "compact.h" nogil:
    int any_below(const float *values, const float *limits)
    int any_below_one(const float *values, float limit)
    float maximum(const float *values, Py_ssize_t n)
    void raise_to(float *most, const float *values, Py_ssize_t n)
    int LANES

ctypedef long long index_t


cdef void insert(float value, int item, float *distances, int *indices, Py_ssize_t k) noexcept nogil:
    """Puts an item into a list sorted by distance; behind those at the same distance, which came earlier."""
    cdef Py_ssize_t place = k - 1
    if value < 0:
        value = 0
    if not value < distances[k - 1]:
        return
    while place > 0 and value < distances[place - 1]:
        distances[place] = distances[place - 1]
        indices[place] = indices[place - 1]
        place -= 1
    distances[place] = value
    indices[place] = item


cdef void serve_row(const float *tile, Py_ssize_t n, index_t low,
                    float *distances, int *indices, float *farthest, Py_ssize_t k) noexcept nogil:
    """One row of a tile: its own list takes from all columns."""
    cdef Py_ssize_t c = 0, end
    farthest[0] = max(farthest[0], maximum(tile, n))
    while c < n:
        end = c + LANES
        if end <= n and not any_below_one(tile + c, distances[k - 1]):
            c = end
            continue
        if end > n:
            end = n
        while c < end:
            if tile[c] < distances[k - 1]:
                insert(tile[c], <int> (low + c), distances, indices, k)
            c = c + 1


cdef void serve_columns(const float *tile, Py_ssize_t num_rows, Py_ssize_t stride, Py_ssize_t n, index_t first,
                        float *distances, int *indices, float *farthest, float *limits, Py_ssize_t k) noexcept nogil:
    """A stripe of n columns: each column's list takes from all rows, in the order of the rows."""
    cdef Py_ssize_t r, c, end
    cdef const float *row
    for c in range(n):
        limits[c] = distances[c * k + k - 1]
    for r in range(num_rows):
        row = tile + r * stride
        raise_to(farthest, row, n)
        c = 0
        while c < n:
            end = c + LANES
            if end <= n and not any_below(row + c, limits + c):
                c = end
                continue
            if end > n:
                end = n
            while c < end:
                if row[c] < limits[c]:
                    insert(row[c], <int> (first + r), distances + c * k, indices + c * k, k)
                    limits[c] = distances[c * k + k - 1]
                c = c + 1


def update_nearest(float[:, ::1] tile, index_t first, index_t low, int[:, ::1] indices,
                   float[:, ::1] distances, float[::1] farthest, int num_threads):
    """Takes a tile of distances, rows first.. and columns low.., into the running lists [N, k] and maxima [N].

    Rows take from all columns; columns behind the block of rows (first + rows and later) take from all rows. With blocks
    in rising order every list sees its candidates in rising order, so equal distances keep the lower position.
    An item's distance to itself is set to 0.
    """
    cdef Py_ssize_t num_rows = tile.shape[0], num_columns = tile.shape[1], k = indices.shape[1], r, s
    cdef Py_ssize_t skip = min(max(first + num_rows - low, 0), num_columns)
    cdef Py_ssize_t width = 256, num_stripes = (num_columns - skip + width - 1) // width, start
    cdef float *limits = <float *> calloc(num_stripes * width + 1, sizeof(float))
    if limits == NULL:
        raise MemoryError("no memory for one row of a tile")
    for r in range(num_rows):
        if 0 <= first + r - low < num_columns:
            tile[r, first + r - low] = 0
    for r in prange(num_rows, nogil=True, num_threads=num_threads, schedule="static"):
        serve_row(&tile[r, 0], num_columns, low,
                  &distances[first + r, 0], &indices[first + r, 0], &farthest[first + r], k)
    for s in prange(num_stripes, nogil=True, num_threads=num_threads, schedule="static"):
        start = skip + s * width
        serve_columns(&tile[0, start], num_rows, num_columns, min(width, num_columns - start), first,
                      &distances[low + start, 0], &indices[low + start, 0], &farthest[low + start],
                      limits + s * width, k)
    free(limits)


cdef void jaccard_row(const int *columns, const float *weights, Py_ssize_t num, const int *starts, const int *items,
                      const float *others, float *shared, float *out, Py_ssize_t num_gallery,
                      float scale, float lambda_value) noexcept nogil:
    """One query: walks its non-zero weights and, for each, the gallery entries that share it."""
    cdef Py_ssize_t e, p, j
    cdef float weight
    for e in range(num):
        weight = weights[e]
        for p in range(starts[columns[e]], starts[columns[e] + 1]):
            shared[items[p]] += others[p] if others[p] < weight else weight
    for j in range(num_gallery):
        out[j] = (1 - lambda_value) * (1 - shared[j] / (2 - shared[j])) + scale * out[j]
        shared[j] = 0


def add_jaccard(float[:, ::1] tile, const int[::1] row_starts, const int[::1] columns, const float[::1] weights,
                const int[::1] starts, const int[::1] items, const float[::1] others, const float[::1] scales,
                float lambda_value, int num_threads):
    """tile [b, G] <- (1 - lambda) * Jaccard distance + scales[row] * tile.

    The queries' weights are sparse rows (row_starts [b + 1], columns, weights), the gallery's sparse columns (starts
    [N + 1], items, others).
    """
    cdef Py_ssize_t num_rows = tile.shape[0], num_gallery = tile.shape[1], r
    cdef float *shared = <float *> calloc(num_threads * num_gallery + 1, sizeof(float))
    cdef const int *column = &columns[0] if columns.shape[0] else NULL
    cdef const float *weight = &weights[0] if weights.shape[0] else NULL
    cdef const int *item = &items[0] if items.shape[0] else NULL
    cdef const float *other = &others[0] if others.shape[0] else NULL
    if shared == NULL:
        raise MemoryError("no memory for one row of distances a thread")
    for r in prange(num_rows, nogil=True, num_threads=num_threads, schedule="dynamic", chunksize=4):
        jaccard_row(column + row_starts[r], weight + row_starts[r], row_starts[r + 1] - row_starts[r], &starts[0], item,
                    other, shared + threadid() * num_gallery, &tile[r, 0], num_gallery, scales[r], lambda_value)
    free(shared)
