/* The compiled forms of a few inner loops of the broker; src/mq9_broker/native.py says which, and what they do. */
#ifndef MQ9_NATIVE_H
#define MQ9_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern PyTypeObject mq9_sorted_map_type;

PyObject *mq9_take_requests(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *mq9_consecutive_ids(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *mq9_render_run(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *mq9_words_of_fields(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *mq9_multiply_halves(PyObject *module, PyObject *const *arguments, Py_ssize_t count);

/* Whether this processor can do `mq9_multiply_halves`. */
int mq9_has_products(void);

/* The type of comparisons of vectors; NULL: this processor can not do them. */
PyTypeObject *mq9_comparison_type(void);

/* Whether the call has that many arguments, and a bytes object in each place of `bytes` (ends with -1). */
int mq9_check_arguments(const char *name, PyObject *const *arguments, Py_ssize_t count, Py_ssize_t expected,
                        const int *bytes);

#endif
