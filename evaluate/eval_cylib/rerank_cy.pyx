# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The Jaccard distance of re-ranking through an inverted index, and ranks of queries whose whole row is not needed.

Called by `evaluate.reranking` and `evaluate.settling` only.
"""

from cython.parallel cimport prange, threadid
from libc.stdlib cimport calloc, free, malloc, qsort

include "items.pxi"

cdef struct Weights:  # of a query, and of the gallery by column
    const int *columns
    const float *values
    Py_ssize_t num
    const int *starts    # [N + 1]
    const int *items
    const float *others

cdef struct Entry:  # of the gallery
    float distance
    int column
    bint is_match

cdef float ROUNDING = 1e-6  # more than the arithmetic of a final distance, which is at most 1, can be off

cdef struct Scratch:  # of one thread
    float *shared   # [G]  zeros between two queries
    char *seen      # [G]  zeros between two queries
    Entry *entries  # [G]


cdef inline float final_distance(float shared, float distance, float scale, float keep) noexcept nogil:
    """(1 - lambda) times the Jaccard distance, and the distance times its scale."""
    return (1 - keep) * (1 - shared / (2 - shared)) + scale * distance


cdef void share(Weights weights, float *shared) noexcept nogil:
    """Walks a query's non-zero weights and, for each, the gallery entries that share it."""
    cdef Py_ssize_t e, p
    cdef float weight
    for e in range(weights.num):
        weight = weights.values[e]
        for p in range(weights.starts[weights.columns[e]], weights.starts[weights.columns[e] + 1]):
            shared[weights.items[p]] += min(weights.others[p], weight)


cdef void jaccard_row(Weights weights, float *shared, float *out, Py_ssize_t num_gallery, float scale,
                      float keep) noexcept nogil:
    """One query's whole row."""
    cdef Py_ssize_t j
    share(weights, shared)
    for j in range(num_gallery):
        out[j] = final_distance(shared[j], out[j], scale, keep)
        shared[j] = 0


cdef Weights view_weights(arrays):
    """Of `arrays`: the queries' columns and values, the gallery's starts, items and values, which must stay alive."""
    cdef const int[::1] columns = arrays[0], starts = arrays[2], items = arrays[3]
    cdef const float[::1] values = arrays[1], others = arrays[4]
    cdef Weights weights
    weights.columns, weights.values = &columns[0] if columns.shape[0] else NULL, &values[0] if values.shape[0] else NULL
    weights.starts, weights.items = &starts[0], &items[0] if items.shape[0] else NULL
    weights.others = &others[0] if others.shape[0] else NULL
    weights.num = columns.shape[0]
    return weights


cdef Weights of_query(Weights weights, index_t first, index_t last) noexcept nogil:
    weights.columns, weights.values, weights.num = weights.columns + first, weights.values + first, last - first
    return weights


def add_jaccard(float[:, ::1] tile, const int[::1] row_starts, sparse, const float[::1] scales, float keep, int num_threads):
    """tile [b, G] <- (1 - keep) * Jaccard distance + scales[row] * tile.

    The queries' weights are sparse rows (row_starts [b + 1], columns, values), the gallery's sparse columns (starts
    [N + 1], items, values); `sparse`: all but the first.
    """
    cdef Py_ssize_t num_rows = tile.shape[0], num_gallery = tile.shape[1], r
    cdef float *shared = <float *> calloc(num_threads * num_gallery + 1, sizeof(float))
    cdef Weights weights = view_weights(sparse)
    if shared == NULL:
        raise MemoryError("no memory for one row of distances a thread")
    for r in prange(num_rows, nogil=True, num_threads=num_threads, schedule="dynamic", chunksize=4):
        jaccard_row(of_query(weights, row_starts[r], row_starts[r + 1]), shared + threadid() * num_gallery, &tile[r, 0],
                    num_gallery, scales[r], keep)
    free(shared)


cdef int compare_entries(const void *left, const void *right) noexcept nogil:
    cdef const Entry *a = <const Entry *> left
    cdef const Entry *b = <const Entry *> right
    return is_before(b.distance, b.column, a.distance, a.column) - is_before(a.distance, a.column, b.distance, b.column)


cdef Py_ssize_t measure(const Items *items, index_t query, Py_ssize_t column, bint is_match, float scale, float keep,
                        Scratch scratch, Py_ssize_t num) noexcept nogil:
    """Appends an entry of the gallery with its final distance; returns how many there are now."""
    scratch.entries[num].distance = final_distance(
        scratch.shared[column], exact_distance(items, query, items.num_query + column), scale, keep)
    scratch.entries[num].column, scratch.entries[num].is_match = <int> column, is_match
    return num + 1


cdef bint settle_query(const Items *items, index_t query, Weights weights, const int *nearest, Py_ssize_t k, float apart,
                       float scale, float keep, const index_t *matches, Py_ssize_t num_matches, const index_t *left_out,
                       Py_ssize_t num_left, Scratch scratch, index_t *ranks) noexcept nogil:
    """Ranks of one query's matches; false when one of them is as far as entries that share no weight with it may be.

    `apart`: what the distance of all but the k nearest is more than.
    """
    cdef Py_ssize_t e, p, i, column, num = 0
    cdef float worst = 0
    share(weights, scratch.shared)
    for i in range(num_matches):
        scratch.seen[matches[i]] = 1
        num = measure(items, query, matches[i], True, scale, keep, scratch, num)
        worst = max(worst, scratch.entries[i].distance)
    cdef bint settled = worst < final_distance(0, apart, scale, keep) - ROUNDING
    for i in range(num_left):
        scratch.seen[left_out[i]] = 1
    for i in range(k if settled else 0):
        column = nearest[i] - items.num_query
        if column >= 0 and not scratch.seen[column]:
            scratch.seen[column] = 1
            num = measure(items, query, column, False, scale, keep, scratch, num)
    for e in range(weights.num):
        for p in range(weights.starts[weights.columns[e]], weights.starts[weights.columns[e] + 1]):
            column = weights.items[p]
            if settled and not scratch.seen[column]:
                scratch.seen[column] = 1
                if final_distance(scratch.shared[column], apart, scale, keep) <= worst + ROUNDING:
                    num = measure(items, query, column, False, scale, keep, scratch, num)
    qsort(scratch.entries, num, sizeof(Entry), compare_entries)
    for i in range(num if settled else 0):
        if scratch.entries[i].is_match:
            ranks[0] = i
            ranks += 1
    clear(weights, nearest, k, items.num_query, matches, num_matches, left_out, num_left, scratch)
    return settled


cdef void clear(Weights weights, const int *nearest, Py_ssize_t k, Py_ssize_t num_query, const index_t *matches,
                Py_ssize_t num_matches, const index_t *left_out, Py_ssize_t num_left, Scratch scratch) noexcept nogil:
    """Zeros where a query left a trace."""
    cdef Py_ssize_t e, p, i
    for e in range(weights.num):
        for p in range(weights.starts[weights.columns[e]], weights.starts[weights.columns[e] + 1]):
            scratch.shared[weights.items[p]] = 0
            scratch.seen[weights.items[p]] = 0
    for i in range(k):
        if nearest[i] >= num_query:
            scratch.seen[nearest[i] - num_query] = 0
    for i in range(num_matches):
        scratch.seen[matches[i]] = 0
    for i in range(num_left):
        scratch.seen[left_out[i]] = 0


cdef Scratch of_thread(float *shared, char *seen, Entry *entries, Py_ssize_t place) noexcept nogil:
    cdef Scratch scratch
    scratch.shared, scratch.seen, scratch.entries = shared + place, seen + place, entries + place
    return scratch


def settle_ranks(features, float constant, const int[::1] row_starts, sparse, const int[:, ::1] nearest,
                 const float[::1] apart, const float[::1] scales, float keep, const index_t[::1] numbers, matches,
                 index_t[::1] ranks, int num_threads):
    """Fills `ranks` [M] (see `evaluate.ranking.count_ranks_python`) for those valid queries `numbers` that can be settled.

    Args: features: arrays of `view_items`; row_starts, sparse, keep: as in `add_jaccard`, for all queries, as are
    scales [Q]; apart [Q]: what is not among a query's `nearest` [Q, k] is farther than that; matches: queries, starts,
    columns, left_starts, left_columns of `evaluate.matches.Matches`.
    Returns bytes, one a number: whether that query was settled.
    """
    cdef const index_t[::1] queries = matches[0], starts = matches[1], left_starts = matches[3]
    cdef const index_t[::1] columns = matches[2], left_columns = matches[4]
    cdef const index_t *match = &columns[0]
    cdef const index_t *left = &left_columns[0] if left_columns.shape[0] else NULL
    cdef Items items = view_items(features, constant)
    cdef Weights weights = view_weights(sparse)
    cdef Py_ssize_t num_gallery = features[1].shape[0], i, v
    cdef index_t q
    cdef float *shared = <float *> calloc(num_threads * num_gallery, sizeof(float))
    cdef char *seen = <char *> calloc(num_threads * num_gallery, 1)
    cdef Entry *entries = <Entry *> malloc(num_threads * num_gallery * sizeof(Entry))
    settled = bytearray(numbers.shape[0])
    cdef unsigned char[::1] answers = settled
    try:
        if shared == NULL or seen == NULL or entries == NULL:
            raise MemoryError("no memory for one row of distances a thread")
        for i in prange(numbers.shape[0], nogil=True, num_threads=num_threads, schedule="dynamic", chunksize=8):
            v = numbers[i]
            q = queries[v]
            answers[i] = settle_query(
                &items, q, of_query(weights, row_starts[q], row_starts[q + 1]), &nearest[q, 0], nearest.shape[1], apart[q],
                scales[q], keep, match + starts[v], starts[v + 1] - starts[v], left + left_starts[v],
                left_starts[v + 1] - left_starts[v], of_thread(shared, seen, entries, threadid() * num_gallery),
                &ranks[starts[v]])
    finally:
        free(shared)
        free(seen)
        free(entries)
    return settled
