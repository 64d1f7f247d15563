/* Compares a vector with many that have four bits a number, 64 numbers in 32 bytes. */
#include "native.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <immintrin.h>

enum { BLOCK = 32, BLOCKS_OF_16_BITS = 4 };

/* The sum of query times number for one row. A product pair is at most 2 * 15 * 128, so sixteen bits hold those
 * of four blocks. */
__attribute__((target("avx2"))) static int row_product(const unsigned char *row, const signed char *query,
                                                       Py_ssize_t blocks) {
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    __m256i sum = _mm256_setzero_si256();
    while (blocks > 0) {
        Py_ssize_t now = blocks < BLOCKS_OF_16_BITS ? blocks : BLOCKS_OF_16_BITS;
        __m256i part = _mm256_setzero_si256();
        for (Py_ssize_t i = 0; i < now; i++, row += BLOCK, query += 2 * BLOCK) {
            __m256i both = _mm256_loadu_si256((const __m256i *)row);
            __m256i first = _mm256_and_si256(both, low);
            __m256i second = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
            __m256i q0 = _mm256_loadu_si256((const __m256i *)query);
            __m256i q1 = _mm256_loadu_si256((const __m256i *)(query + BLOCK));
            part = _mm256_add_epi16(part, _mm256_maddubs_epi16(first, q0));
            part = _mm256_add_epi16(part, _mm256_maddubs_epi16(second, q1));
        }
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(part, ones));
        blocks -= now;
    }
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1));
    return _mm_cvtsi128_si32(half);
}

__attribute__((target("avx2"))) static void products(const Py_buffer *buffers, double offset, double factor) {
    const signed char *query = buffers[0].buf;
    const unsigned char *rows = buffers[1].buf;
    const float *scales = buffers[2].buf;
    float *found = buffers[3].buf;
    Py_ssize_t row_bytes = buffers[0].len / 2, count = buffers[3].len / (Py_ssize_t)sizeof(float);
    for (Py_ssize_t i = 0; i < count; i++, rows += row_bytes)
        found[i] = (float)((row_product(rows, query, row_bytes / BLOCK) - offset) * scales[i] * factor);
}

int mq9_has_nibbles(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") != 0;
}

static int has_format(const Py_buffer *buffers) {
    const Py_ssize_t size = (Py_ssize_t)sizeof(float);
    Py_ssize_t row_bytes = buffers[0].len / 2, count = buffers[3].len / size;
    return row_bytes > 0 && buffers[0].len % (2 * BLOCK) == 0 && buffers[3].len % size == 0 &&
           buffers[2].len == buffers[3].len && buffers[1].len % row_bytes == 0 && buffers[1].len / row_bytes == count;
}

PyObject *mq9_compare_nibbles(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    static const int flags[] = {PyBUF_SIMPLE, PyBUF_SIMPLE, PyBUF_SIMPLE, PyBUF_WRITABLE};
    Py_buffer buffers[4];
    int held = 0;
    PyObject *result = NULL;
    if (count != 6) {
        PyErr_Format(PyExc_TypeError, "compare_nibbles takes 6 arguments, not %zd", count);
        return NULL;
    }
    double offset = PyFloat_AsDouble(arguments[4]), factor = PyFloat_AsDouble(arguments[5]);
    if (PyErr_Occurred()) return NULL;
    while (held < 4 && PyObject_GetBuffer(arguments[held], &buffers[held], flags[held]) == 0) held++;
    if (held == 4 && !has_format(buffers)) {
        PyErr_SetString(PyExc_ValueError, "compare_nibbles: the sizes of the buffers do not go together");
    } else if (held == 4) {
        Py_BEGIN_ALLOW_THREADS
        products(buffers, offset, factor);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    while (held > 0) PyBuffer_Release(&buffers[--held]);
    return result;
}

#else

int mq9_has_nibbles(void) { return 0; }

PyObject *mq9_compare_nibbles(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    PyErr_SetString(PyExc_NotImplementedError, "compare_nibbles: not made for this processor");
    return NULL;
}

#endif
