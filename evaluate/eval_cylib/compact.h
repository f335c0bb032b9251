/* Scans of rows of distances with the widest instructions that the compiler may use.

   compact_*: copies the values of a row that are at most `limit` to `kept`, which needs room for
   n + 16 values. Returns their number, or -1 if any value of the row is NaN or infinite.
   count_below_*: how many values are below a limit.
   find_inside: which distances in a chunk of a tile are candidates for lists of neighbors.
   inner_product: of two rows of features. */
#include <float.h>
#include <math.h>
#include <stddef.h>
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

static inline ptrdiff_t compact_double(const double *row, ptrdiff_t n, double limit,
                                       double *kept) {
    ptrdiff_t count = 0;
    int bad = 0;
    for (ptrdiff_t j = 0; j < n; j++) {
        kept[count] = row[j];
        count += row[j] <= limit;
        bad |= !(fabs(row[j]) <= DBL_MAX);
    }
    return bad ? -1 : count;
}

/* The bits of |x|, read as an integer, are at least INFINITE if x is NaN or infinite. */
enum { MAGNITUDE = 0x7fffffff, INFINITE = 0x7f800000 };

static inline ptrdiff_t compact_float(const float *row, ptrdiff_t n, float limit, float *kept) {
    ptrdiff_t count = 0, j = 0;
    int bad = 0;
#if defined(__AVX512F__)
    const __m512 bound = _mm512_set1_ps(limit);
    const __m512i magnitude = _mm512_set1_epi32(MAGNITUDE);
    __m512i largest = _mm512_setzero_si512();
    for (; j + 64 <= n; j += 64) {
        __m512 values[4];
        __mmask16 keep[4];
        for (int k = 0; k < 4; k++) {
            values[k] = _mm512_loadu_ps(row + j + 16 * k);
            keep[k] = _mm512_cmp_ps_mask(values[k], bound, _CMP_LE_OQ);
            const __m512i bits = _mm512_and_si512(_mm512_castps_si512(values[k]), magnitude);
            largest = _mm512_max_epi32(largest, bits);
        }
        if (!(keep[0] | keep[1] | keep[2] | keep[3])) continue;
        for (int k = 0; k < 4; k++) {
            _mm512_storeu_ps(kept + count, _mm512_maskz_compress_ps(keep[k], values[k]));
            count += __builtin_popcount(keep[k]);
        }
    }
    bad = _mm512_reduce_max_epi32(largest) >= INFINITE;
#elif defined(__AVX2__)
    const __m256 bound = _mm256_set1_ps(limit);
    const __m256i magnitude = _mm256_set1_epi32(MAGNITUDE);
    const __m256i finite = _mm256_set1_epi32(INFINITE - 1);
    for (; j + 8 <= n; j += 8) {
        const __m256 value = _mm256_loadu_ps(row + j);
        const __m256i bits = _mm256_and_si256(_mm256_castps_si256(value), magnitude);
        unsigned mask = (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(value, bound, _CMP_LE_OQ));
        bad |= _mm256_movemask_epi8(_mm256_cmpgt_epi32(bits, finite));
        for (; mask; mask &= mask - 1) kept[count++] = row[j + __builtin_ctz(mask)];
    }
#endif
    for (; j < n; j++) {
        kept[count] = row[j];
        count += row[j] <= limit;
        bad |= !(fabsf(row[j]) <= FLT_MAX);
    }
    return bad ? -1 : count;
}

/* How many of n values are below a limit; num_equal receives how many are equal to it. */
static inline int count_below_float(const float *values, ptrdiff_t n, float limit,
                                    int *num_equal) {
    int below = 0, equal = 0;
    ptrdiff_t k = 0;
#if defined(__AVX512F__)
    const __m512 bound = _mm512_set1_ps(limit);
    const __m512i one = _mm512_set1_epi32(1);
    __m512i num_below = _mm512_setzero_si512(), many_equal = _mm512_setzero_si512();
    for (; k + 16 <= n; k += 16) {
        const __m512 v = _mm512_loadu_ps(values + k);
        const __mmask16 is_below = _mm512_cmp_ps_mask(v, bound, _CMP_LT_OQ);
        const __mmask16 is_equal = _mm512_cmp_ps_mask(v, bound, _CMP_EQ_OQ);
        num_below = _mm512_mask_add_epi32(num_below, is_below, num_below, one);
        many_equal = _mm512_mask_add_epi32(many_equal, is_equal, many_equal, one);
    }
    below = _mm512_reduce_add_epi32(num_below);
    equal = _mm512_reduce_add_epi32(many_equal);
#endif
    for (; k < n; k++) {
        below += values[k] < limit;
        equal += values[k] == limit;
    }
    *num_equal = equal;
    return below;
}

static inline int count_below_double(const double *values, ptrdiff_t n, double limit,
                                     int *num_equal) {
    int below = 0, equal = 0;
    for (ptrdiff_t k = 0; k < n; k++) {
        below += values[k] < limit;
        equal += values[k] == limit;
    }
    *num_equal = equal;
    return below;
}

enum { LANES = 32 };

/* Error bound of one item; see evaluate/fast/int8_quantization.py. */
typedef struct { float error, reach, slack; } ErrorBound;

static inline float distance_error(ErrorBound row, float error, float reach) {
    return row.error * reach + row.reach * error + row.slack;
}

/* Which of LANES distances may be below their limit in `near`, or above minus their limit in
   `far`, as bits. With step 0, all share one limit. */
static inline unsigned find_inside(const float *values, const float *errors, const float *reaches,
                                   ErrorBound row, const float *near, const float *far,
                                   int step) {
    unsigned found = 0;
#if defined(__AVX512F__)
    const __m512 row_error = _mm512_set1_ps(row.error), row_reach = _mm512_set1_ps(row.reach);
    const __m512 slack = _mm512_set1_ps(row.slack);
    for (int k = 0; k < LANES; k += 16) {
        const __m512 value = _mm512_loadu_ps(values + k);
        const __m512 part = _mm512_fmadd_ps(row_reach, _mm512_loadu_ps(errors + k), slack);
        const __m512 error = _mm512_fmadd_ps(row_error, _mm512_loadu_ps(reaches + k), part);
        const __m512 least = _mm512_sub_ps(value, error), most = _mm512_add_ps(value, error);
        const __m512 below = step ? _mm512_loadu_ps(near + k) : _mm512_set1_ps(*near);
        const __m512 above = step ? _mm512_loadu_ps(far + k) : _mm512_set1_ps(*far);
        const __mmask16 is_near = _mm512_cmp_ps_mask(least, below, _CMP_LT_OQ);
        const __mmask16 is_far =
            _mm512_cmp_ps_mask(_mm512_add_ps(most, above), _mm512_setzero_ps(), _CMP_GT_OQ);
        found |= (unsigned)(is_near | is_far) << k;
    }
#else
    int any = 0; /* compilers vectorize this loop, but not the one that sets bits */
    for (int k = 0; k < LANES; k++) {
        const float error = distance_error(row, errors[k], reaches[k]);
        any |= (values[k] - error < near[k * step]) | (values[k] + error > -far[k * step]);
    }
    for (int k = 0; any && k < LANES; k++) {
        const float error = distance_error(row, errors[k], reaches[k]);
        const int is_near = values[k] - error < near[k * step];
        const int is_far = values[k] + error > -far[k * step];
        found |= (unsigned)(is_near | is_far) << k;
    }
#endif
    return found;
}

/* The position of the lowest set bit; there must be one. */
static inline int lowest_bit(unsigned bits) {
#if defined(__GNUC__)
    return __builtin_ctz(bits);
#else
    int place = 0;
    while (!(bits >> place & 1u)) place++;
    return place;
#endif
}

static inline float inner_product(const float *left, const float *right, ptrdiff_t n) {
    /* Many partial sums: compilers must keep the order of a single one and cannot vectorize it. */
    float lanes[2 * LANES] = {0}, sum = 0;
    ptrdiff_t c = 0;
    for (; c + 2 * LANES <= n; c += 2 * LANES)
        for (int k = 0; k < 2 * LANES; k++) lanes[k] += left[c + k] * right[c + k];
    for (; c < n; c++) sum += left[c] * right[c];
    for (int half = LANES; half > 0; half /= 2)
        for (int k = 0; k < half; k++) lanes[k] += lanes[k + half];
    return sum + lanes[0];
}
