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

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_native", "Compiled forms of inner loops, see mq9_broker.native.", -1, functions,
    NULL,                  NULL,      NULL,                                                    NULL,
};

/* Add a type, or None in its place. */
static int add_type(PyObject *module, const char *name, PyTypeObject *type) {
    if (type != NULL && PyType_Ready(type) < 0) return -1;
    PyObject *value = type != NULL ? (PyObject *)type : Py_None;
    Py_INCREF(value);
    if (PyModule_AddObject(module, name, value) == 0) return 0;
    Py_DECREF(value);
    return -1;
}

PyMODINIT_FUNC PyInit__native(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && (add_type(module, "SortedMap", &mq9_sorted_map_type) < 0 ||
                           add_type(module, "NibbleComparison", mq9_comparison_type()) < 0))
        Py_CLEAR(module);
    return module;
}
