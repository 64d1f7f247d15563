/* The module mq9_broker._native. */
#include "native.h"

int mq9_check_arguments(const char *name, PyObject *const *arguments, Py_ssize_t count, Py_ssize_t expected,
                        const int *bytes) {
    if (count != expected) {
        PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, not %zd", name, expected, count);
        return 0;
    }
    for (; *bytes >= 0; bytes++) {
        if (!PyBytes_CheckExact(arguments[*bytes])) {
            PyErr_Format(PyExc_TypeError, "%s: argument %d must be bytes", name, *bytes + 1);
            return 0;
        }
    }
    return 1;
}

static PyMethodDef functions[] = {
    {"take_requests", (PyCFunction)(void (*)(void))mq9_take_requests, METH_FASTCALL,
     "take_requests(data, prefix, max_payload, max_control_line) -> (requests, position)"},
    {"consecutive_ids", (PyCFunction)(void (*)(void))mq9_consecutive_ids, METH_FASTCALL,
     "consecutive_ids(body, most) -> (group_name, first, last) or None; last is -1 for msg_id"},
    {"render_run", (PyCFunction)(void (*)(void))mq9_render_run, METH_FASTCALL,
     "render_run(run_json, index, count, first_id, rest, room) -> bytes or None"},
    {"words_of_fields", (PyCFunction)(void (*)(void))mq9_words_of_fields, METH_FASTCALL,
     "words_of_fields(fields, numbers, words, known, longest, most_joined, other) -> (words, lengths, weights)"},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef multiply_halves = {
    "multiply_halves", (PyCFunction)(void (*)(void))mq9_multiply_halves, METH_FASTCALL,
    "multiply_halves(rows, matrix, results, depth)"};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_native", "Compiled forms of inner loops, see mq9_broker.native.", -1, functions,
    NULL,                  NULL,      NULL,                                                    NULL,
};

/* Add what `value` is, whose reference it takes, or None in its place; NULL is an error unless there is none. */
static int add(PyObject *module, const char *name, int is_there, PyObject *value) {
    if (!is_there) {
        value = Py_None;
        Py_INCREF(value);
    }
    if (value != NULL && PyModule_AddObject(module, name, value) == 0) return 0;
    Py_XDECREF(value);
    return -1;
}

static PyObject *ready(PyTypeObject *type) {
    if (type == NULL || PyType_Ready(type) < 0) return NULL;
    Py_INCREF(type);
    return (PyObject *)type;
}

PyMODINIT_FUNC PyInit__native(void) {
    PyObject *module = PyModule_Create(&definition);
    PyTypeObject *comparison = mq9_comparison_type();
    int products = mq9_has_products();
    if (module != NULL &&
        (add(module, "SortedMap", 1, ready(&mq9_sorted_map_type)) < 0 ||
         add(module, "NibbleComparison", comparison != NULL, ready(comparison)) < 0 ||
         add(module, "multiply_halves", products, products ? PyCFunction_New(&multiply_halves, NULL) : NULL) < 0))
        Py_CLEAR(module);
    return module;
}
