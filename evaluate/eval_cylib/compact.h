/* Scans of a row of distances, by the widest instructions the compiler was allowed to use.

   compact_*: copies the values of a row that are not above a limit to `kept`, which needs room for n + 16 values, and
   returns how many they are; -1 when one is NaN.
   any_below, any_below_one: whether one of LANES values is below its limit, or below one limit. */
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

static inline int any_below(const float *values, const float *limits) {
#if defined(__AVX512F__)
    return (_mm512_cmp_ps_mask(_mm512_loadu_ps(values), _mm512_loadu_ps(limits), _CMP_LT_OQ) |
            _mm512_cmp_ps_mask(_mm512_loadu_ps(values + 16), _mm512_loadu_ps(limits + 16), _CMP_LT_OQ)) != 0;
#else
    int found = 0;
    for (int k = 0; k < LANES; k++) found |= values[k] < limits[k];
    return found;
#endif
}

static inline int any_below_one(const float *values, float limit) {
#if defined(__AVX512F__)
    const __m512 bound = _mm512_set1_ps(limit);
    return (_mm512_cmp_ps_mask(_mm512_loadu_ps(values), bound, _CMP_LT_OQ) |
            _mm512_cmp_ps_mask(_mm512_loadu_ps(values + 16), bound, _CMP_LT_OQ)) != 0;
#else
    int found = 0;
    for (int k = 0; k < LANES; k++) found |= values[k] < limit;
    return found;
#endif
}

static inline void raise_to(float *most, const float *values, ptrdiff_t n) { /* most[c] = max(most[c], values[c]) */
    for (ptrdiff_t c = 0; c < n; c++) most[c] = values[c] > most[c] ? values[c] : most[c];
}

static inline float maximum(const float *values, ptrdiff_t n) { /* in lanes: compilers keep the order of a single one */
    float lanes[LANES], most = values[0];
    ptrdiff_t c = 0;
    for (int k = 0; k < LANES; k++) lanes[k] = values[0];
    for (; c + LANES <= n; c += LANES) raise_to(lanes, values + c, LANES);
    for (; c < n; c++) most = values[c] > most ? values[c] : most;
    for (int k = 0; k < LANES; k++) most = lanes[k] > most ? lanes[k] : most;
    return most;
}
