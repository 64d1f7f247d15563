/* Products of rows with a matrix of 16-bit floats, laid out once for it. A library that multiplies any matrices lays
 * the second one out anew each time, which takes longer than the product itself where there are few rows. */
#include "native.h"

#if defined(__x86_64__) && !defined(_WIN32) && (defined(__GNUC__) || defined(__clang__))
#include <immintrin.h>
#include <stdint.h>

/* The matrix comes in panels of 16 columns, each panel row by row; six rows of 16 sums fill the registers. */
enum { PANEL = 16, MOST_ROWS = 6, MOST_HELD = 64 };

/* `count` is a constant where this is called, so that the sums stay in registers. */
__attribute__((target("avx2,fma,f16c"), always_inline)) static inline void
panel_product(const float *rows, const uint16_t *panel, float *results, Py_ssize_t depth, Py_ssize_t columns,
              const int count) {
    __m256 left[MOST_ROWS], right[MOST_ROWS];
#pragma GCC unroll 6
    for (int i = 0; i < count; i++) left[i] = right[i] = _mm256_setzero_ps();
    for (Py_ssize_t k = 0; k < depth; k++, panel += PANEL) {
        __m256 first = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)panel));
        __m256 second = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(panel + PANEL / 2)));
#pragma GCC unroll 6
        for (int i = 0; i < count; i++) {
            __m256 value = _mm256_broadcast_ss(rows + i * depth + k);
            left[i] = _mm256_fmadd_ps(value, first, left[i]);
            right[i] = _mm256_fmadd_ps(value, second, right[i]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < count; i++) {
        _mm256_storeu_ps(results + i * columns, left[i]);
        _mm256_storeu_ps(results + i * columns + PANEL / 2, right[i]);
    }
}

typedef void (*panel_products)(const float *, const uint16_t *, float *, Py_ssize_t, Py_ssize_t);

#define PRODUCTS_OF(count)                                                                                          \
    __attribute__((target("avx2,fma,f16c"))) static void products_of_##count(                                       \
        const float *rows, const uint16_t *panel, float *results, Py_ssize_t depth, Py_ssize_t columns) {           \
        panel_product(rows, panel, results, depth, columns, count);                                                 \
    }
PRODUCTS_OF(1)
PRODUCTS_OF(2)
PRODUCTS_OF(3)
PRODUCTS_OF(4)
PRODUCTS_OF(5)
PRODUCTS_OF(6)
static const panel_products products_of[] = {NULL,          products_of_1, products_of_2, products_of_3,
                                             products_of_4, products_of_5, products_of_6};

static void multiply(const float *rows, const uint16_t *matrix, float *results, Py_ssize_t count, Py_ssize_t depth,
                     Py_ssize_t columns) {
    /* Thirteen rows are five, four and four: a single one would take as long as four. */
    Py_ssize_t parts = (count + MOST_ROWS - 1) / MOST_ROWS;
    for (Py_ssize_t column = 0; column < columns; column += PANEL, matrix += depth * PANEL) {
        Py_ssize_t row = 0;
        for (Py_ssize_t part = parts; part > 0; part--) {
            Py_ssize_t now = (count - row + part - 1) / part;
            products_of[now](rows + row * depth, matrix, results + row * columns + column, depth, columns);
            row += now;
        }
    }
}

static int has_format(const Py_buffer *rows, const Py_buffer *matrix, const Py_buffer *results, Py_ssize_t depth) {
    const Py_ssize_t size = (Py_ssize_t)sizeof(float), half = (Py_ssize_t)sizeof(uint16_t);
    if (depth < 1 || depth > PY_SSIZE_T_MAX / (size * PANEL)) return 0;
    if (rows->len % (depth * size) != 0 || matrix->len % (depth * half * PANEL) != 0) return 0;
    Py_ssize_t columns = matrix->len / (depth * half), wanted = columns * size;
    return wanted > 0 && results->len % wanted == 0 && results->len / wanted == rows->len / (depth * size);
}

PyObject *mq9_multiply_halves(PyObject *module, PyObject *const *arguments, Py_ssize_t argument_count) {
    static const int bytes[] = {-1};
    Py_buffer buffers[3];
    int held = 0;
    (void)module;
    if (!mq9_check_arguments("multiply_halves", arguments, argument_count, 4, bytes)) return NULL;
    Py_ssize_t depth = PyLong_AsSsize_t(arguments[3]);
    if (depth == -1 && PyErr_Occurred()) return NULL;
    while (held < 3 &&
           PyObject_GetBuffer(arguments[held], buffers + held, held < 2 ? PyBUF_SIMPLE : PyBUF_WRITABLE) == 0)
        held++;
    if (held == 3) {
        if (has_format(buffers, buffers + 1, buffers + 2, depth)) {
            Py_ssize_t count = buffers[0].len / (depth * (Py_ssize_t)sizeof(float));
            Py_ssize_t columns = buffers[1].len / (depth * (Py_ssize_t)sizeof(uint16_t));
            /* Whoever lets go of the interpreter for a moment may wait for it for milliseconds. */
            PyThreadState *state = count > MOST_HELD ? PyEval_SaveThread() : NULL;
            multiply(buffers[0].buf, buffers[1].buf, buffers[2].buf, count, depth, columns);
            if (state != NULL) PyEval_RestoreThread(state);
        } else {
            PyErr_SetString(PyExc_ValueError, "multiply_halves: the sizes of the buffers do not go together");
        }
    }
    while (held > 0) PyBuffer_Release(buffers + --held);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

int mq9_has_products(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

#else

PyObject *mq9_multiply_halves(PyObject *module, PyObject *const *arguments, Py_ssize_t argument_count) {
    (void)module, (void)arguments, (void)argument_count;
    Py_RETURN_NONE;
}

int mq9_has_products(void) { return 0; }

#endif
