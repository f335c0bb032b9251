# cython: language_level=3, boundscheck=False, wraparound=False
# cython: cdivision=True, initializedcheck=False
"""Nearest and farthest items: running lists of candidates from tiles of distances, and exact
distances of candidates.

Called only by `evaluate.fast.neighbors`.
"""

from cython.parallel cimport prange
from libc.math cimport INFINITY
from libc.stdlib cimport free, malloc
from libc.string cimport memmove

include "items.pxi"

cdef extern from "compact.h" nogil:
    ctypedef struct ErrorBound:
        float error
        float reach
        float slack
    float distance_error(ErrorBound row, float error, float reach)
    unsigned find_inside(const float *values, const float *errors, const float *reaches,
                         ErrorBound row, const float *near, const float *far, int step)
    int lowest_bit(unsigned bits)
    int LANES

cdef unsigned ALL_LANES = 0xFFFFFFFF  # for the last chunk, which may be short

# Candidates of all items on one side, near or far.
cdef struct Lists:
    int *items              # [N, K]
    float *bounds           # [N, K]  rising
    Py_ssize_t length       # K
    float *limits           # [N, k]  rising
    Py_ssize_t num_wanted   # k


cdef Py_ssize_t insert_bound(float *bounds, float bound, Py_ssize_t length) noexcept nogil:
    """Inserts a bound that is below the last one into a rising list, after equal ones.

    Returns its place.
    """
    cdef Py_ssize_t low = 0, high = length - 1, middle
    while low < high:
        middle = (low + high) >> 1
        if bounds[middle] > bound:
            high = middle
        else:
            low = middle + 1
    memmove(bounds + low + 1, bounds + low, (length - 1 - low) * sizeof(float))
    bounds[low] = bound
    return low


cdef float limit_of(Lists lists, Py_ssize_t at) noexcept nogil:
    """A candidate of item `at` must have a bound below this."""
    return min(
        lists.bounds[(at + 1) * lists.length - 1],
        lists.limits[(at + 1) * lists.num_wanted - 1],
    )


cdef void insert_candidate(
    float bound, float opposite, int item, Lists lists, Py_ssize_t at
) noexcept nogil:
    """Inserts an item into the list of item `at` if it may be a candidate.

    Its distance is at least `bound` and at most `opposite`.
    """
    cdef int *items = lists.items + at * lists.length
    cdef float *limits = lists.limits + at * lists.num_wanted
    cdef Py_ssize_t place
    if not bound < limit_of(lists, at):
        return
    place = insert_bound(lists.bounds + at * lists.length, bound, lists.length)
    memmove(items + place + 1, items + place, (lists.length - 1 - place) * sizeof(int))
    items[place] = item
    if opposite < limits[lists.num_wanted - 1]:
        insert_bound(limits, opposite, lists.num_wanted)


cdef void insert_into_both(
    float distance, float error, int item, Lists near, Lists far, Py_ssize_t at
) noexcept nogil:
    """Inserts an item at `distance` +- `error` into both lists of item `at` where it qualifies."""
    cdef float least = max(distance - error, 0), most = max(distance + error, 0)
    insert_candidate(least, most, item, near, at)
    insert_candidate(-most, -least, item, far, at)


cdef void update_row(
    const float *tile, Py_ssize_t n, index_t low, const float *errors, const float *reaches,
    ErrorBound row, Lists near, Lists far, Py_ssize_t at
) noexcept nogil:
    """One row of a tile: all columns are candidates for the lists of item `at`."""
    cdef Py_ssize_t chunk, start, c
    cdef unsigned found
    cdef float near_limit = limit_of(near, at), far_limit = limit_of(far, at)
    for chunk in range((n + LANES - 1) / LANES):
        start = chunk * LANES
        found = ALL_LANES
        if start + LANES <= n:
            found = find_inside(tile + start, errors + start, reaches + start, row,
                                &near_limit, &far_limit, 0)
        while found:
            c = start + lowest_bit(found)
            found &= found - 1
            if c < n:
                insert_into_both(tile[c], distance_error(row, errors[c], reaches[c]),
                                 <int> (low + c), near, far, at)
                near_limit = limit_of(near, at)
                far_limit = limit_of(far, at)


cdef void update_columns(
    const float *tile, Py_ssize_t num_rows, Py_ssize_t stride, Py_ssize_t low, Py_ssize_t n,
    index_t first, const float *errors, const float *reaches, float slack, Lists near, Lists far,
    float *near_limits
) noexcept nogil:
    """A stripe of n columns: all rows, in order, are candidates for the lists of each column."""
    cdef Py_ssize_t r, chunk, start, c
    cdef unsigned found
    cdef const float *values
    cdef ErrorBound row
    cdef float *far_limits = near_limits + n
    row.slack = slack
    for c in range(n):
        near_limits[c] = limit_of(near, low + c)
        far_limits[c] = limit_of(far, low + c)
    for r in range(num_rows):
        values = tile + r * stride
        row.error, row.reach = errors[first + r], reaches[first + r]
        for chunk in range((n + LANES - 1) / LANES):
            start = chunk * LANES
            found = ALL_LANES
            if start + LANES <= n:
                found = find_inside(values + start, errors + low + start, reaches + low + start,
                                    row, near_limits + start, far_limits + start, 1)
            while found:
                c = start + lowest_bit(found)
                found &= found - 1
                if c < n:
                    insert_into_both(
                        values[c], distance_error(row, errors[low + c], reaches[low + c]),
                        <int> (first + r), near, far, low + c)
                    near_limits[c] = limit_of(near, low + c)
                    far_limits[c] = limit_of(far, low + c)


cdef Lists view_lists(arrays):
    cdef Lists lists
    cdef int[:, ::1] items = arrays[0]
    cdef float[:, ::1] bounds = arrays[1], limits = arrays[2]
    lists.items, lists.bounds, lists.length = &items[0, 0], &bounds[0, 0], items.shape[1]
    lists.limits, lists.num_wanted = &limits[0, 0], limits.shape[1]
    return lists


def update_lists(
    float[:, ::1] tile, index_t first, index_t low, const float[::1] errors,
    const float[::1] reaches, float slack, near_arrays, far_arrays, int num_threads
):
    """Updates the running lists of all items from a tile, rows first.. and columns low...

    The true distance of items i, j is within
        errors[i] * reaches[j] + reaches[i] * errors[j] + slack
    of the tile's. Rows are compared with all columns. Columns after the block of rows
    (first + rows and later) are also compared with all rows. With blocks in rising order, every
    list gets its candidates in rising order, so of equal bounds the lower position comes first.
    The distance of an item to itself is set to 0.

    Args:
        near_arrays: (items int [N, K], bounds float [N, K], limits float [N, k]). A list is
            sorted by the lower bounds of its distances. Its limits are the k smallest upper
            bounds: an item whose lower bound is larger cannot be among the k nearest.
        far_arrays: the same for minus the distance.
    """
    cdef Py_ssize_t num_rows = tile.shape[0], num_columns = tile.shape[1], r, s
    cdef Py_ssize_t skip = min(max(first + num_rows - low, 0), num_columns)
    cdef Py_ssize_t width = 256, num_stripes = (num_columns - skip + width - 1) // width, start
    cdef float *limits = <float *> malloc((num_stripes * 2 * width + 1) * sizeof(float))
    cdef Lists near = view_lists(near_arrays), far = view_lists(far_arrays)
    cdef ErrorBound row
    if limits == NULL:
        raise MemoryError("no memory for one row of a tile")
    row.slack = slack
    for r in range(num_rows):
        if 0 <= first + r - low < num_columns:
            tile[r, first + r - low] = 0
    for r in prange(num_rows, nogil=True, num_threads=num_threads, schedule="static"):
        row.error = errors[first + r]
        row.reach = reaches[first + r]
        update_row(&tile[r, 0], num_columns, low, &errors[low], &reaches[low], row, near, far,
                   first + r)
    for s in prange(num_stripes, nogil=True, num_threads=num_threads, schedule="static"):
        start = skip + s * width
        update_columns(&tile[0, start], num_rows, num_columns, low + start,
                       min(width, num_columns - start), first, &errors[0], &reaches[0], slack,
                       near, far, limits + s * 2 * width)
    free(limits)


def decode_tile(
    const int[:, ::1] products, const float[::1] row_scales, const float[::1] row_squares,
    const float[::1] scales, const float[::1] squares, float[:, ::1] tile, int num_threads
):
    """tile [b, n] <- row_squares[r] + squares[c] - 2 row_scales[r] scales[c] products[r, c]."""
    cdef Py_ssize_t num_rows = products.shape[0], n = products.shape[1], r, c
    cdef float scale, square
    for r in prange(num_rows, nogil=True, num_threads=num_threads, schedule="static"):
        scale = -2 * row_scales[r]
        square = row_squares[r]
        for c in range(n):
            tile[r, c] = square + (squares[c] + scale * scales[c] * products[r, c])


cdef bint refine_nearest(
    const Items *items, index_t i, const int *candidates, const float *bounds, Py_ssize_t length,
    int *nearest, float *distances, Py_ssize_t k
) noexcept nogil:
    """The k nearest candidates by (distance, position); false if other items may be nearer."""
    cdef Py_ssize_t c, place, found = 0
    cdef float distance
    for c in range(length):
        if bounds[c] == INFINITY or (found == k and bounds[c] > distances[k - 1]):
            return True  # later candidates cannot be nearer
        distance = exact_distance(items, i, candidates[c])
        if found < k:
            found = found + 1
        elif not is_before(distance, candidates[c], distances[k - 1], nearest[k - 1]):
            continue
        place = found - 1
        while place > 0 and is_before(
            distance, candidates[c], distances[place - 1], nearest[place - 1]
        ):
            distances[place] = distances[place - 1]
            nearest[place] = nearest[place - 1]
            place = place - 1
        distances[place] = distance
        nearest[place] = candidates[c]
    return False


cdef bint refine_farthest(
    const Items *items, index_t i, const int *candidates, const float *bounds, Py_ssize_t length,
    float *farthest
) noexcept nogil:
    """The largest distance of the candidates; false if other items may be farther."""
    cdef Py_ssize_t c
    farthest[0] = 0
    for c in range(length):
        if -bounds[c] <= farthest[0]:
            return True
        farthest[0] = max(farthest[0], exact_distance(items, i, candidates[c]))
    return False


def pair_distances(
    features, float constant, double resolution, const index_t[::1] left, const int[::1] right,
    float[::1] distances, int num_threads
):
    """distances[p] <- the squared distance of items left[p] and right[p].

    Args: features: arrays of `view_items`.
    """
    cdef Py_ssize_t p
    cdef Items items = view_items(features, constant, resolution)
    for p in prange(left.shape[0], nogil=True, num_threads=num_threads, schedule="static"):
        distances[p] = exact_distance(&items, left[p], right[p])


def refine(
    features, float constant, double resolution, index_t first, index_t last,
    const int[:, ::1] near, const float[:, ::1] near_bounds, const int[:, ::1] far,
    const float[:, ::1] far_bounds, int[:, ::1] nearest, float[:, ::1] distances,
    float[::1] farthest, char[::1] certain, int num_threads
):
    """Exact lists of items first..last-1 from their candidates (see `update_lists`).

    Candidates are measured in the order of their bounds until no other item can be among the k
    nearest, or farther than the farthest. `certain` [N] becomes 0 where a list ends before that.

    Args: features: arrays of `view_items`.
    """
    cdef Py_ssize_t i
    cdef Items items = view_items(features, constant, resolution)
    for i in prange(
        first, last, nogil=True, num_threads=num_threads, schedule="dynamic", chunksize=16
    ):
        certain[i] = refine_nearest(&items, i, &near[i, 0], &near_bounds[i, 0], near.shape[1],
                                    &nearest[i, 0], &distances[i, 0], nearest.shape[1])
        certain[i] &= refine_farthest(&items, i, &far[i, 0], &far_bounds[i, 0], far.shape[1],
                                      &farthest[i])
