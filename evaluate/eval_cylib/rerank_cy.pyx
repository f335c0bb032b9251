# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The Jaccard distance of re-ranking through an inverted index; `evaluate.reranking` is the only caller."""

from cython.parallel cimport prange, threadid
from libc.stdlib cimport calloc, free


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
