/* Compares a vector with many that have four bits a number, 64 numbers in 32 bytes. */
#include "native.h"

#if defined(__x86_64__) && !defined(_WIN32) && (defined(__GNUC__) || defined(__clang__))
#include "helper.h"

#include <immintrin.h>
#include <stddef.h>

enum { BLOCK = 32, BLOCKS_OF_16_BITS = 4, ROWS_A_PART = 1024 };

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

/* A comparison of a vector with rows that has begun, and may have ended. */
typedef struct {
    PyObject_HEAD
    mq9_work work;
    Py_buffer query, rows, scales, found;
    double offset, factor;
    int held, has_begun;
} Comparison;

__attribute__((target("avx2"))) static void compare(const mq9_work *work, long start, long end) {
    const Comparison *self = (const Comparison *)((const char *)work - offsetof(Comparison, work));
    Py_ssize_t row_bytes = self->query.len / 2;
    const unsigned char *row = (const unsigned char *)self->rows.buf + start * row_bytes;
    const float *scales = self->scales.buf;
    float *found = self->found.buf;
    for (long i = start; i < end; i++, row += row_bytes)
        found[i] = (float)((row_product(row, self->query.buf, row_bytes / BLOCK) - self->offset) * scales[i] *
                           self->factor);
}

static int has_format(const Comparison *self) {
    const Py_ssize_t size = (Py_ssize_t)sizeof(float);
    Py_ssize_t row_bytes = self->query.len / 2, count = self->found.len / size;
    return row_bytes > 0 && self->query.len % (2 * BLOCK) == 0 && self->found.len % size == 0 &&
           self->scales.len == self->found.len && self->rows.len % row_bytes == 0 &&
           self->rows.len / row_bytes == count;
}

static void release(Comparison *self) {
    Py_buffer *buffers[] = {&self->query, &self->rows, &self->scales, &self->found};
    while (self->held > 0) PyBuffer_Release(buffers[--self->held]);
}

/* Once; whoever comes meanwhile has nothing to do with the buffers. */
static void finish(Comparison *self) {
    if (!self->has_begun) return;
    self->has_begun = 0;
    Py_BEGIN_ALLOW_THREADS
    mq9_finish(&self->work);
    Py_END_ALLOW_THREADS
    release(self);
}

static int hold(Comparison *self, PyObject *arguments) {
    Py_buffer *buffers[] = {&self->query, &self->rows, &self->scales, &self->found};
    for (; self->held < 4; self->held++) {
        int flags = self->held < 3 ? PyBUF_SIMPLE : PyBUF_WRITABLE;
        if (PyObject_GetBuffer(PyTuple_GET_ITEM(arguments, self->held), buffers[self->held], flags) < 0) return -1;
    }
    if (has_format(self)) return 0;
    PyErr_SetString(PyExc_ValueError, "compare_nibbles: the sizes of the buffers do not go together");
    return -1;
}

static PyObject *comparison_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    if (names != NULL || PyTuple_GET_SIZE(arguments) != 6) {
        PyErr_Format(PyExc_TypeError, "compare_nibbles takes 6 arguments, not %zd", PyTuple_GET_SIZE(arguments));
        return NULL;
    }
    double offset = PyFloat_AsDouble(PyTuple_GET_ITEM(arguments, 4));
    double factor = PyFloat_AsDouble(PyTuple_GET_ITEM(arguments, 5));
    if (PyErr_Occurred()) return NULL;
    Comparison *self = (Comparison *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    self->offset = offset;
    self->factor = factor;
    if (hold(self, arguments) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->work.part = compare;
    self->work.size = (long)(self->found.len / (Py_ssize_t)sizeof(float));
    self->work.step = ROWS_A_PART;
    self->has_begun = 1;
    mq9_offer(&self->work);
    return (PyObject *)self;
}

static void comparison_dealloc(Comparison *self) {
    finish(self);
    release(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *comparison_finish(Comparison *self, PyObject *nothing) {
    (void)nothing;
    finish(self);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"finish", (PyCFunction)comparison_finish, METH_NOARGS, "Does what is left; then all results are there."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject comparison_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "mq9_broker._native.NibbleComparison",
    .tp_basicsize = sizeof(Comparison),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "NibbleComparison(query, rows, scales, found, offset, factor): begins; another thread may help.",
    .tp_new = comparison_new,
    .tp_dealloc = (destructor)comparison_dealloc,
    .tp_methods = methods,
};

PyTypeObject *mq9_comparison_type(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") ? &comparison_type : NULL;
}

#else

PyTypeObject *mq9_comparison_type(void) { return NULL; }

#endif
