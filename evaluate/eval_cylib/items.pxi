"""Shared by the kernels: exact distances of pairs of items, and the order of equally far ones."""

cdef extern from "compact.h" nogil:
    float inner_product(const float *left, const float *right, Py_ssize_t n)

ctypedef long long index_t

# Features in two parts, queries first, and what their distances need: see
# `evaluate.fast.tiles.FeatureMatrix`.
cdef struct Items:
    const float *query
    const float *gallery
    Py_ssize_t num_query
    Py_ssize_t dims
    const float *scales
    const float *squares
    float constant
    float magic  # adding and subtracting it rounds to multiples of the resolution


cdef inline bint is_before(
    double distance, index_t item, double other_distance, index_t other
) noexcept nogil:
    """Orders by distance; of equally far items, the lower position comes first."""
    return distance < other_distance or (distance == other_distance and item < other)


cdef inline Items view_items(arrays, float constant, double resolution):
    """The C view of `arrays`, which must stay alive.

    Args: arrays: queries [Q, D], gallery [G, D], scales [N], squares [N].
    """
    cdef const float[:, ::1] query = arrays[0], gallery = arrays[1]
    cdef const float[::1] scales = arrays[2], squares = arrays[3]
    cdef Items items
    items.query, items.gallery = &query[0, 0], &gallery[0, 0]
    items.num_query, items.dims = query.shape[0], query.shape[1]
    items.scales, items.squares, items.constant = &scales[0], &squares[0], constant
    items.magic = <float> (1.5 * 8388608 * resolution)  # 2^23
    return items


cdef inline const float *row_of(const Items *items, index_t i) noexcept nogil:
    if i < items.num_query:
        return items.query + i * items.dims
    return items.gallery + (i - items.num_query) * items.dims


cdef inline float exact_distance(const Items *items, index_t i, index_t j) noexcept nogil:
    """The squared distance of two items in float32, rounded to multiples of the resolution."""
    cdef float inner, distance
    if i == j:
        return 0
    inner = inner_product(row_of(items, i), row_of(items, j), items.dims)
    distance = max(-2 * items.scales[i] * items.scales[j] * inner + items.squares[i]
                   + (items.squares[j] + items.constant), 0)
    return (distance + items.magic) - items.magic
