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
    {"compare_nibbles", (PyCFunction)(void (*)(void))mq9_compare_nibbles, METH_FASTCALL,
     "compare_nibbles(query, rows, scales, found, offset, factor) -> None"},
    {"words_of_fields", (PyCFunction)(void (*)(void))mq9_words_of_fields, METH_FASTCALL,
     "words_of_fields(fields, numbers, words, known, longest, most_joined, other) -> (words, lengths, weights)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_native", "Compiled forms of inner loops, see mq9_broker.native.", -1, functions,
    NULL,                  NULL,      NULL,                                                    NULL,
};

PyMODINIT_FUNC PyInit__native(void) {
    if (PyType_Ready(&mq9_sorted_map_type) < 0) return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL) return NULL;
    Py_INCREF(&mq9_sorted_map_type);
    if (PyModule_AddObject(module, "SortedMap", (PyObject *)&mq9_sorted_map_type) < 0) {
        Py_DECREF(&mq9_sorted_map_type);
        Py_DECREF(module);
        return NULL;
    }
    if (PyModule_AddObject(module, "HAS_NIBBLES", PyBool_FromLong(mq9_has_nibbles())) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
