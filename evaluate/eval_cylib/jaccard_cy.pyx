# cython: language_level=3, boundscheck=False, wraparound=False
# cython: cdivision=True, initializedcheck=False
"""Jaccard distances of re-ranking with an inverted index, and ranks from bounds.

Called only by `evaluate.fast.k_reciprocal` and `evaluate.fast.reranking_bounds`.
"""

from cython.parallel cimport prange, threadid
from libc.stdlib cimport calloc, free, malloc, qsort

include "items.pxi"

# Weights of a query, and of the gallery by column.
cdef struct Weights:
    const int *columns
    const float *values
    Py_ssize_t num
    const int *starts    # [N + 1]
    const int *items
    const float *others

# An entry of the gallery.
cdef struct Entry:
    float distance
    int column
    bint is_match

cdef float ROUNDING = 3e-6  # more than the rounding of a re-ranked distance, which is at most 1
cdef float MAGIC = 12  # 1.5 * 2^23 * 2^-20: rounds to multiples of 2^-20

# Buffers of one thread.
cdef struct Scratch:
    float *shared   # [G]  zeros between two queries
    char *seen      # [G]  zeros between two queries
    Entry *entries  # [G]


cdef inline float reranked_distance(
    float shared, float distance, float scale, float lambda_value
) noexcept nogil:
    """(1 - lambda) times the Jaccard distance, plus the scaled distance; in multiples of 2^-20."""
    cdef float mixed = (1 - lambda_value) * (1 - shared / (2 - shared)) + scale * distance
    return (mixed + MAGIC) - MAGIC


cdef void add_shared(Weights weights, float *shared) noexcept nogil:
    """For each weight of a query, adds the minima with the gallery entries that share it."""
    cdef Py_ssize_t e, p
    cdef float weight
    for e in range(weights.num):
        weight = weights.values[e]
        for p in range(weights.starts[weights.columns[e]], weights.starts[weights.columns[e] + 1]):
            shared[weights.items[p]] += min(weights.others[p], weight)


cdef void rerank_row(
    Weights weights, float *shared, float *out, Py_ssize_t num_gallery, float scale,
    float lambda_value
) noexcept nogil:
    """The whole row of one query."""
    cdef Py_ssize_t j
    add_shared(weights, shared)
    for j in range(num_gallery):
        out[j] = reranked_distance(shared[j], out[j], scale, lambda_value)
        shared[j] = 0


cdef Weights view_weights(arrays):
    """The C view of `arrays`, which must stay alive.

    Args: arrays: columns and values of the queries, starts, items and values of the gallery.
    """
    cdef const int[::1] columns = arrays[0], starts = arrays[2], items = arrays[3]
    cdef const float[::1] values = arrays[1], others = arrays[4]
    cdef Weights weights
    weights.columns = &columns[0] if columns.shape[0] else NULL
    weights.values = &values[0] if values.shape[0] else NULL
    weights.starts, weights.items = &starts[0], &items[0] if items.shape[0] else NULL
    weights.others = &others[0] if others.shape[0] else NULL
    weights.num = columns.shape[0]
    return weights


cdef Weights of_query(Weights weights, index_t first, index_t last) noexcept nogil:
    """The same with the query's part of the columns and values."""
    weights.columns, weights.values = weights.columns + first, weights.values + first
    weights.num = last - first
    return weights


def add_jaccard(
    float[:, ::1] tile, const int[::1] row_starts, sparse, const float[::1] scales,
    float lambda_value, int num_threads
):
    """tile [b, G] <- (1 - lambda) * Jaccard distance + scales[row] * tile.

    Args:
        row_starts: [b + 1], of the sparse rows with the queries' weights.
        sparse: columns and values of these rows; starts [N + 1], items and values of the sparse
            columns with the gallery's weights.
    """
    cdef Py_ssize_t num_rows = tile.shape[0], num_gallery = tile.shape[1], r
    cdef float *shared = <float *> calloc(num_threads * num_gallery + 1, sizeof(float))
    cdef Weights weights = view_weights(sparse)
    if shared == NULL:
        raise MemoryError("no memory for one row of distances per thread")
    for r in prange(
        num_rows, nogil=True, num_threads=num_threads, schedule="dynamic", chunksize=4
    ):
        rerank_row(of_query(weights, row_starts[r], row_starts[r + 1]),
                   shared + threadid() * num_gallery, &tile[r, 0], num_gallery, scales[r],
                   lambda_value)
    free(shared)


cdef int compare_entries(const void *left, const void *right) noexcept nogil:
    cdef const Entry *a = <const Entry *> left
    cdef const Entry *b = <const Entry *> right
    return (is_before(b.distance, b.column, a.distance, a.column)
            - is_before(a.distance, a.column, b.distance, b.column))


cdef Py_ssize_t append_entry(
    const Items *items, index_t query, Py_ssize_t column, bint is_match, float scale,
    float lambda_value, Scratch scratch, Py_ssize_t num
) noexcept nogil:
    """Appends a gallery entry with its re-ranked distance; returns the number of entries."""
    scratch.entries[num].distance = reranked_distance(
        scratch.shared[column], exact_distance(items, query, items.num_query + column), scale,
        lambda_value)
    scratch.entries[num].column = <int> column
    scratch.entries[num].is_match = is_match
    return num + 1


cdef bint rank_query(
    const Items *items, index_t query, Weights weights, const int *nearest, Py_ssize_t k,
    float beyond, float scale, float lambda_value, const index_t *matches,
    Py_ssize_t num_matches, const index_t *excluded, Py_ssize_t num_excluded, Scratch scratch,
    index_t *ranks
) noexcept nogil:
    """Ranks of one query's matches.

    False if a match may be as far away as an entry that shares no weight with the query.

    Args: beyond: lower bound of the distance of all items except the k nearest.
    """
    cdef Py_ssize_t e, p, i, column, num = 0
    cdef float worst = 0
    add_shared(weights, scratch.shared)
    for i in range(num_matches):
        scratch.seen[matches[i]] = 1
        num = append_entry(items, query, matches[i], True, scale, lambda_value, scratch, num)
        worst = max(worst, scratch.entries[i].distance)
    cdef bint done = worst < reranked_distance(0, beyond, scale, lambda_value) - ROUNDING
    for i in range(num_excluded):
        scratch.seen[excluded[i]] = 1
    for i in range(k if done else 0):
        column = nearest[i] - items.num_query
        if column >= 0 and not scratch.seen[column]:
            scratch.seen[column] = 1
            num = append_entry(
                items, query, column, False, scale, lambda_value, scratch, num)
    for e in range(weights.num):
        for p in range(weights.starts[weights.columns[e]], weights.starts[weights.columns[e] + 1]):
            column = weights.items[p]
            if done and not scratch.seen[column]:
                scratch.seen[column] = 1
                if worst + ROUNDING >= reranked_distance(
                    scratch.shared[column], beyond, scale, lambda_value
                ):
                    num = append_entry(
                        items, query, column, False, scale, lambda_value, scratch, num)
    qsort(scratch.entries, num, sizeof(Entry), compare_entries)
    for i in range(num if done else 0):
        if scratch.entries[i].is_match:
            ranks[0] = i
            ranks += 1
    clear(weights, nearest, k, items.num_query, matches, num_matches, excluded, num_excluded,
          scratch)
    return done


cdef void clear(
    Weights weights, const int *nearest, Py_ssize_t k, Py_ssize_t num_query,
    const index_t *matches, Py_ssize_t num_matches, const index_t *excluded,
    Py_ssize_t num_excluded, Scratch scratch
) noexcept nogil:
    """Resets what a query changed in the buffers to zeros."""
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
    for i in range(num_excluded):
        scratch.seen[excluded[i]] = 0


cdef Scratch of_thread(
    float *shared, char *seen, Entry *entries, Py_ssize_t place
) noexcept nogil:
    cdef Scratch scratch
    scratch.shared, scratch.seen = shared + place, seen + place
    scratch.entries = entries + place
    return scratch


def rank_by_bounds(
    features, float constant, double resolution, const int[::1] row_starts, sparse,
    const int[:, ::1] nearest, const float[::1] beyond, const float[::1] scales,
    float lambda_value, const index_t[::1] numbers, matches, index_t[::1] ranks, int num_threads
):
    """Fills `ranks` [M] (see `evaluate.ranking.count_ranks_python`) of the valid queries `numbers`
    for which the bound is sufficient.

    Args:
        features: arrays of `view_items`.
        row_starts, sparse, lambda_value: as in `add_jaccard`, for all queries, as are scales [Q].
        beyond: [Q], a lower bound of the distance of items that are not in `nearest` [Q, k].
        matches: queries, starts, columns, excluded_starts, excluded_columns of
            `evaluate.ranking.Matches`.

    Returns:
        One byte per number: whether the ranks of that query were filled.
    """
    cdef const index_t[::1] queries = matches[0], starts = matches[1], columns = matches[2]
    cdef const index_t[::1] excluded_starts = matches[3], excluded_columns = matches[4]
    cdef const index_t *match = &columns[0]
    cdef const index_t *excluded = &excluded_columns[0] if excluded_columns.shape[0] else NULL
    cdef Items items = view_items(features, constant, resolution)
    cdef Weights weights = view_weights(sparse)
    cdef Py_ssize_t num_gallery = features[1].shape[0], i, v
    cdef index_t q
    cdef float *shared = <float *> calloc(num_threads * num_gallery, sizeof(float))
    cdef char *seen = <char *> calloc(num_threads * num_gallery, 1)
    cdef Entry *entries = <Entry *> malloc(num_threads * num_gallery * sizeof(Entry))
    done = bytearray(numbers.shape[0])
    cdef unsigned char[::1] flags = done
    try:
        if shared == NULL or seen == NULL or entries == NULL:
            raise MemoryError("no memory for one row of distances per thread")
        for i in prange(
            numbers.shape[0], nogil=True, num_threads=num_threads, schedule="dynamic", chunksize=8
        ):
            v = numbers[i]
            q = queries[v]
            flags[i] = rank_query(
                &items, q, of_query(weights, row_starts[q], row_starts[q + 1]), &nearest[q, 0],
                nearest.shape[1], beyond[q], scales[q], lambda_value, match + starts[v],
                starts[v + 1] - starts[v], excluded + excluded_starts[v],
                excluded_starts[v + 1] - excluded_starts[v],
                of_thread(shared, seen, entries, threadid() * num_gallery), &ranks[starts[v]])
    finally:
        free(shared)
        free(seen)
        free(entries)
    return done
