"""What the kernels share: exact distances of single pairs of items, and the order of equally far ones."""

cdef extern from "compact.h" nogil:
    float inner_product(const float *left, const float *right, Py_ssize_t n)

ctypedef long long index_t

cdef struct Items:  # features in two parts, queries first, and what their distances need: see evaluate.fast.tiles.Rows
    const float *query
    const float *gallery
    Py_ssize_t num_query
    Py_ssize_t dims
    const float *scales
    const float *squares
    float constant


cdef inline bint is_before(double distance, index_t item, double other_distance, index_t other) noexcept nogil:
    """By distance; of equally far items the lower position comes first."""
    return distance < other_distance or (distance == other_distance and item < other)


cdef inline Items view_items(arrays, float constant):
    """Of `arrays`: queries [Q, D], gallery [G, D], scales [N], squares [N], which must stay alive."""
    cdef const float[:, ::1] query = arrays[0], gallery = arrays[1]
    cdef const float[::1] scales = arrays[2], squares = arrays[3]
    cdef Items items
    items.query, items.gallery, items.num_query, items.dims = &query[0, 0], &gallery[0, 0], query.shape[0], query.shape[1]
    items.scales, items.squares, items.constant = &scales[0], &squares[0], constant
    return items


cdef inline float exact_distance(const Items *items, index_t i, index_t j) noexcept nogil:
    """The squared distance of two items, in float32."""
    cdef const float *left
    cdef const float *right
    if i == j:
        return 0
    left = items.query + i * items.dims if i < items.num_query else items.gallery + (i - items.num_query) * items.dims
    right = items.query + j * items.dims if j < items.num_query else items.gallery + (j - items.num_query) * items.dims
    return max(-2 * items.scales[i] * items.scales[j] * inner_product(left, right, items.dims)
               + items.squares[i] + (items.squares[j] + items.constant), 0)
