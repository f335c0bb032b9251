# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Ranks of the true matches by counting, one query a thread at a time; `evaluate.ranking` is the only caller.

For a query with matches at distances t_1 <= t_2 <= ..: one streaming pass over its row keeps the values that are not
above the farthest match (few, for features that are any good), the rank of match i is then the number of kept values
below t_i. Entries that are left out are subtracted; gallery order decides between equal distances.
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
    int num_equal  # how many entries of the row are exactly that far

cdef int MANY = 512  # above so many matches, one binary search a kept value is cheaper than one pass a match


cdef int compare_matches(const void *left, const void *right) noexcept nogil:
    cdef const Match *a = <const Match *> left
    cdef const Match *b = <const Match *> right
    return is_before(b.distance, b.column, a.distance, a.column) - is_before(a.distance, a.column, b.distance, b.column)


cdef void sort_matches(Match *found, Py_ssize_t num) noexcept nogil:
    """By distance, then by column; most queries have few matches, for which a call of qsort is slow."""
    cdef Py_ssize_t i, place
    cdef Match match
    if num > 64:
        qsort(found, num, sizeof(Match), compare_matches)
        return
    for i in range(1, num):
        match, place = found[i], i
        while place > 0 and found[place - 1].distance > match.distance:  # columns rise already
            found[place] = found[place - 1]
            place -= 1
        found[place] = match


cdef void count_many(const real *kept, Py_ssize_t n, Match *found, Py_ssize_t num, index_t *below) noexcept nogil:
    """below[i]: how many values are below the distance of match i, by binary search and a running sum."""
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
        if found[k].distance == found[k + 1].distance:  # the last of equals holds their number
            found[k].num_equal = found[k + 1].num_equal


cdef void subtract(const real *row, const index_t *columns, Py_ssize_t n,
                   const Match *found, Py_ssize_t num, index_t *ranks) noexcept nogil:
    """Takes the entries `columns`, which are left out, from the ranks of the matches they come before."""
    cdef Py_ssize_t k, i
    cdef real value
    for k in range(n):
        value = row[columns[k]]
        for i in range(num - 1, -1, -1):
            if value > found[i].distance or (value == found[i].distance and columns[k] > found[i].column):
                break
            ranks[i] -= 1


cdef bint rank_query(const real *row, Py_ssize_t num_gallery, const index_t *columns, Py_ssize_t num,
                     const index_t *left_columns, Py_ssize_t num_left, const index_t *junk, Py_ssize_t num_junk,
                     Match *found, real *kept, index_t *ranks) noexcept nogil:
    """Fills the ranks of one query's matches; false when its row holds NaN."""
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
                ranks[i] = count_below_float(kept, num_kept, <float> found[i].distance, &found[i].num_equal)
            else:
                ranks[i] = count_below_double(kept, num_kept, found[i].distance, &found[i].num_equal)
    for i in range(num):
        if found[i].num_equal > 1:  # not itself alone: those that come before it in the gallery
            num_same = 0
            for j in range(found[i].column):
                num_same += row[j] == <real> found[i].distance
            ranks[i] += num_same
    subtract(row, left_columns, num_left, found, num, ranks)
    subtract(row, junk, num_junk, found, num, ranks)
    return True


def count_ranks(const real[:, ::1] distances, const index_t[::1] queries, const index_t[::1] starts,
                const index_t[::1] columns, const index_t[::1] left_starts, const index_t[::1] left_columns,
                const index_t[::1] junk, index_t[::1] ranks, int num_threads):
    """Fills `ranks` [M] (see `evaluate.ranking.count_ranks_python`); returns -1, or a row that holds NaN."""
    cdef Py_ssize_t num_valid = queries.shape[0], num_gallery = distances.shape[1], v, most = 1
    cdef Py_ssize_t room = num_gallery + 16
    cdef const index_t *first_column = &columns[0] if columns.shape[0] else NULL
    cdef const index_t *first_left = &left_columns[0] if left_columns.shape[0] else NULL
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
            raise MemoryError("no memory for one row of distances a thread")
        with nogil, parallel(num_threads=num_threads):
            thread = threadid()
            for v in prange(num_valid, schedule="dynamic", chunksize=16):
                bad[v] = not rank_query(
                    &distances[queries[v], 0], num_gallery, first_column + starts[v], starts[v + 1] - starts[v],
                    first_left + left_starts[v], left_starts[v + 1] - left_starts[v], first_junk, num_junk,
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
