# cython: language_level=3, boundscheck=False, wraparound=False
# cython: cdivision=True, initializedcheck=False
"""Ranks of the true matches by counting; called only by `evaluate.ranking`.

For a query with matches at distances t_1 <= t_2 <= ..., one pass over its row keeps the values
that are at most as large as the largest t (few, for useful features). The rank of match i is then
the number of kept values below t_i. Excluded entries are subtracted. Equal distances are ranked
in gallery order. Each thread processes one query at a time.
"""

from cython.parallel cimport parallel, prange, threadid
from libc.stdlib cimport calloc, free, malloc, qsort

include "items.pxi"

cdef extern from "compact.h" nogil:
    Py_ssize_t compact_float(const float *row, Py_ssize_t n, float limit, float *kept)
    Py_ssize_t compact_double(const double *row, Py_ssize_t n, double limit, double *kept)
    int count_below_float(const float *values, Py_ssize_t n, float limit, int *num_equal)
    int count_below_double(const double *values, Py_ssize_t n, double limit, int *num_equal)

ctypedef fused real:
    float
    double

cdef struct Match:
    double distance
    index_t column
    int num_equal  # how many entries of the row have this distance

# With more matches, a binary search per kept value is cheaper than a pass per match.
cdef int MANY = 512


cdef int compare_matches(const void *left, const void *right) noexcept nogil:
    cdef const Match *a = <const Match *> left
    cdef const Match *b = <const Match *> right
    return (is_before(b.distance, b.column, a.distance, a.column)
            - is_before(a.distance, a.column, b.distance, b.column))


cdef void sort_matches(Match *found, Py_ssize_t num) noexcept nogil:
    """Sorts by distance, then by column; qsort is slow for few matches, the usual case."""
    cdef Py_ssize_t i, place
    cdef Match match
    if num > 64:
        qsort(found, num, sizeof(Match), compare_matches)
        return
    for i in range(1, num):
        match, place = found[i], i
        while place > 0 and found[place - 1].distance > match.distance:  # columns are rising
            found[place] = found[place - 1]
            place -= 1
        found[place] = match


cdef void count_many(
    const real *kept, Py_ssize_t n, Match *found, Py_ssize_t num, index_t *below
) noexcept nogil:
    """below[i]: how many values are below the distance of match i; binary search, running sum."""
    cdef Py_ssize_t k, low, high, middle
    for k in range(num):
        below[k] = 0
        found[k].num_equal = 0
    for k in range(n):
        low, high = 0, num  # the first match farther than the value
        while low < high:
            middle = (low + high) >> 1
            if found[middle].distance > kept[k]:
                high = middle
            else:
                low = middle + 1
        if low < num:
            below[low] += 1
        if low > 0 and found[low - 1].distance == kept[k]:
            found[low - 1].num_equal += 1
    for k in range(1, num):
        below[k] += below[k - 1]
    for k in range(num - 2, -1, -1):
        if found[k].distance == found[k + 1].distance:  # the last of equal ones has their number
            found[k].num_equal = found[k + 1].num_equal


cdef void subtract(
    const real *row, const index_t *columns, Py_ssize_t n, const Match *found, Py_ssize_t num,
    index_t *ranks
) noexcept nogil:
    """Subtracts the excluded entries `columns` from the ranks of the matches that follow them."""
    cdef Py_ssize_t k, i
    cdef real value
    for k in range(n):
        value = row[columns[k]]
        for i in range(num - 1, -1, -1):
            if not is_before(value, columns[k], found[i].distance, found[i].column):
                break
            ranks[i] -= 1


cdef bint rank_query(
    const real *row, Py_ssize_t num_gallery, const index_t *columns, Py_ssize_t num,
    const index_t *excluded, Py_ssize_t num_excluded, const index_t *junk, Py_ssize_t num_junk,
    Match *found, real *kept, index_t *ranks
) noexcept nogil:
    """Fills the ranks of one query's matches; false if its row contains NaN or infinity."""
    cdef Py_ssize_t i, j, num_kept
    cdef int num_same
    for i in range(num):
        found[i].distance = row[columns[i]]
        found[i].column = columns[i]
        if row[columns[i]] != row[columns[i]]:
            return False
    sort_matches(found, num)

    if real is float:
        num_kept = compact_float(row, num_gallery, <float> found[num - 1].distance, kept)
    else:
        num_kept = compact_double(row, num_gallery, found[num - 1].distance, kept)
    if num_kept < 0:
        return False
    if num > MANY:
        count_many(kept, num_kept, found, num, ranks)
    else:
        for i in range(num):
            if real is float:
                ranks[i] = count_below_float(
                    kept, num_kept, <float> found[i].distance, &found[i].num_equal)
            else:
                ranks[i] = count_below_double(
                    kept, num_kept, found[i].distance, &found[i].num_equal)
    for i in range(num):
        if found[i].num_equal > 1:  # others, too: count those that come before it in the gallery
            num_same = 0
            for j in range(found[i].column):
                num_same += row[j] == <real> found[i].distance
            ranks[i] += num_same
    subtract(row, excluded, num_excluded, found, num, ranks)
    subtract(row, junk, num_junk, found, num, ranks)
    return True


def count_ranks(
    const real[:, ::1] distances, const index_t[::1] queries, const index_t[::1] starts,
    const index_t[::1] columns, const index_t[::1] excluded_starts,
    const index_t[::1] excluded_columns, const index_t[::1] junk, index_t[::1] ranks,
    int num_threads
):
    """Fills `ranks` [M], see `evaluate.ranking.count_ranks_python`.

    Returns -1, or the first row that contains NaN or infinity.
    """
    cdef Py_ssize_t num_valid = queries.shape[0], num_gallery = distances.shape[1], v, most = 1
    cdef Py_ssize_t room = num_gallery + 16
    cdef const index_t *first_column = &columns[0] if columns.shape[0] else NULL
    cdef const index_t *first_excluded = &excluded_columns[0] if excluded_columns.shape[0] else NULL
    cdef const index_t *first_junk = &junk[0] if junk.shape[0] else NULL
    cdef Py_ssize_t num_junk = junk.shape[0]
    cdef Py_ssize_t bad_row = -1
    cdef int thread
    for v in range(num_valid):
        most = max(most, starts[v + 1] - starts[v])
    cdef Match *found = <Match *> malloc(num_threads * most * sizeof(Match))
    cdef real *kept = <real *> malloc(num_threads * room * sizeof(real))
    cdef char *bad = <char *> calloc(num_valid + 1, 1)
    try:
        if found == NULL or kept == NULL or bad == NULL:
            raise MemoryError("no memory for one row of distances per thread")
        with nogil, parallel(num_threads=num_threads):
            thread = threadid()
            for v in prange(num_valid, schedule="dynamic", chunksize=16):
                bad[v] = not rank_query(
                    &distances[queries[v], 0], num_gallery,
                    first_column + starts[v], starts[v + 1] - starts[v],
                    first_excluded + excluded_starts[v],
                    excluded_starts[v + 1] - excluded_starts[v],
                    first_junk, num_junk,
                    found + thread * most, kept + thread * room, &ranks[starts[v]],
                )
        for v in range(num_valid - 1, -1, -1):
            if bad[v]:
                bad_row = queries[v]
    finally:
        free(found)
        free(kept)
        free(bad)
    return bad_row
