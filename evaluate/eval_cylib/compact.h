/* Scans of a row of distances, by the widest instructions the compiler was allowed to use.

   compact_*: copies the values of a row that are not above a limit to `kept`, which needs room for n + 16 values, and
   returns how many they are; -1 when one is NaN.
   find_inside: which distances in a chunk of a tile are candidates for lists of neighbors.
   inner_product: of two rows of features. */
#include <stddef.h>
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

static inline ptrdiff_t compact_double(const double *row, ptrdiff_t n, double limit, double *kept) {
    ptrdiff_t count = 0;
    int nan = 0;
    for (ptrdiff_t j = 0; j < n; j++) {
        kept[count] = row[j];
        count += row[j] <= limit;
        nan |= row[j] != row[j];
    }
    return nan ? -1 : count;
}

static inline ptrdiff_t compact_float(const float *row, ptrdiff_t n, float limit, float *kept) {
    ptrdiff_t count = 0, j = 0;
    unsigned nan = 0;
#if defined(__AVX512F__)
    const __m512 bound = _mm512_set1_ps(limit);
    for (; j + 64 <= n; j += 64) {
        const __m512 a = _mm512_loadu_ps(row + j), b = _mm512_loadu_ps(row + j + 16);
        const __m512 c = _mm512_loadu_ps(row + j + 32), d = _mm512_loadu_ps(row + j + 48);
        const __mmask16 ka = _mm512_cmp_ps_mask(a, bound, _CMP_NGT_UQ), kb = _mm512_cmp_ps_mask(b, bound, _CMP_NGT_UQ);
        const __mmask16 kc = _mm512_cmp_ps_mask(c, bound, _CMP_NGT_UQ), kd = _mm512_cmp_ps_mask(d, bound, _CMP_NGT_UQ);
        if (!(ka | kb | kc | kd)) continue; /* NaN counts as not greater: it cannot be skipped here */
        nan |= _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q) | _mm512_cmp_ps_mask(c, d, _CMP_UNORD_Q);
        _mm512_storeu_ps(kept + count, _mm512_maskz_compress_ps(ka, a)); count += __builtin_popcount(ka);
        _mm512_storeu_ps(kept + count, _mm512_maskz_compress_ps(kb, b)); count += __builtin_popcount(kb);
        _mm512_storeu_ps(kept + count, _mm512_maskz_compress_ps(kc, c)); count += __builtin_popcount(kc);
        _mm512_storeu_ps(kept + count, _mm512_maskz_compress_ps(kd, d)); count += __builtin_popcount(kd);
    }
#elif defined(__AVX2__)
    const __m256 bound = _mm256_set1_ps(limit);
    for (; j + 8 <= n; j += 8) {
        const __m256 a = _mm256_loadu_ps(row + j);
        unsigned mask = (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a, bound, _CMP_NGT_UQ));
        nan |= (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
        for (; mask; mask &= mask - 1) kept[count++] = row[j + __builtin_ctz(mask)];
    }
#endif
    for (; j < n; j++) {
        kept[count] = row[j];
        count += row[j] <= limit;
        nan |= row[j] != row[j];
    }
    return nan ? -1 : count;
}

/* How many of n values are below a limit; num_equal: how many equal it. */
static inline int count_below_float(const float *values, ptrdiff_t n, float limit, int *num_equal) {
    int below = 0, equal = 0;
    ptrdiff_t k = 0;
#if defined(__AVX512F__)
    const __m512 bound = _mm512_set1_ps(limit);
    const __m512i one = _mm512_set1_epi32(1);
    __m512i many_below = _mm512_setzero_si512(), many_equal = _mm512_setzero_si512();
    for (; k + 16 <= n; k += 16) {
        const __m512 v = _mm512_loadu_ps(values + k);
        many_below = _mm512_mask_add_epi32(many_below, _mm512_cmp_ps_mask(v, bound, _CMP_LT_OQ), many_below, one);
        many_equal = _mm512_mask_add_epi32(many_equal, _mm512_cmp_ps_mask(v, bound, _CMP_EQ_OQ), many_equal, one);
    }
    below = _mm512_reduce_add_epi32(many_below);
    equal = _mm512_reduce_add_epi32(many_equal);
#endif
    for (; k < n; k++) {
        below += values[k] < limit;
        equal += values[k] == limit;
    }
    *num_equal = equal;
    return below;
}

static inline int count_below_double(const double *values, ptrdiff_t n, double limit, int *num_equal) {
    int below = 0, equal = 0;
    for (ptrdiff_t k = 0; k < n; k++) {
        below += values[k] < limit;
        equal += values[k] == limit;
    }
    *num_equal = equal;
    return below;
}

enum { LANES = 32 };

typedef struct { float residual, reach, slack; } Error; /* of one item; see evaluate/codes.py */

static inline float error_bound(Error row, float residual, float reach) {
    return row.residual * reach + row.reach * residual + row.slack;
}

/* Which of LANES distances may be below their limit in `near`, or above minus their limit in `far`, as bits; step 0: one
   limit for all. */
static inline unsigned find_inside(const float *values, const float *residuals, const float *reaches, Error row,
                                   const float *near, const float *far, int step) {
    unsigned found = 0;
#if defined(__AVX512F__)
    const __m512 residual = _mm512_set1_ps(row.residual), reach = _mm512_set1_ps(row.reach);
    for (int k = 0; k < LANES; k += 16) {
        const __m512 value = _mm512_loadu_ps(values + k);
        const __m512 part = _mm512_fmadd_ps(reach, _mm512_loadu_ps(residuals + k), _mm512_set1_ps(row.slack));
        const __m512 error = _mm512_fmadd_ps(residual, _mm512_loadu_ps(reaches + k), part);
        const __m512 below = step ? _mm512_loadu_ps(near + k) : _mm512_set1_ps(*near);
        const __m512 above = step ? _mm512_loadu_ps(far + k) : _mm512_set1_ps(*far);
        const __mmask16 is_near = _mm512_cmp_ps_mask(_mm512_sub_ps(value, error), below, _CMP_LT_OQ);
        const __mmask16 is_far = _mm512_cmp_ps_mask(_mm512_add_ps(_mm512_add_ps(value, error), above),
                                                    _mm512_setzero_ps(), _CMP_GT_OQ);
        found |= (unsigned)(is_near | is_far) << k;
    }
#else
    int any = 0; /* compilers vectorize this loop, and not the one that makes bits */
    for (int k = 0; k < LANES; k++) {
        const float error = error_bound(row, residuals[k], reaches[k]);
        any |= (values[k] - error < near[k * step]) | (values[k] + error > -far[k * step]);
    }
    for (int k = 0; any && k < LANES; k++) {
        const float error = error_bound(row, residuals[k], reaches[k]);
        found |= (unsigned)((values[k] - error < near[k * step]) | (values[k] + error > -far[k * step])) << k;
    }
#endif
    return found;
}

static inline int lowest_bit(unsigned bits) { /* of some */
#if defined(__GNUC__)
    return __builtin_ctz(bits);
#else
    int place = 0;
    while (!(bits >> place & 1u)) place++;
    return place;
#endif
}

static inline float inner_product(const float *left, const float *right, ptrdiff_t n) {
    float lanes[2 * LANES] = {0}, sum = 0; /* compilers keep the order of a single sum */
    ptrdiff_t c = 0;
    for (; c + 2 * LANES <= n; c += 2 * LANES)
        for (int k = 0; k < 2 * LANES; k++) lanes[k] += left[c + k] * right[c + k];
    for (; c < n; c++) sum += left[c] * right[c];
    for (int half = LANES; half > 0; half /= 2)
        for (int k = 0; k < half; k++) lanes[k] += lanes[k + half];
    return sum + lanes[0];
}
