/* The messages of a run as JSON, in one go. */
#include <string.h>

#include "native.h"

static const char HEAD[] = "{\"msg_id\":";
static const char MIDDLE[] = ",\"payload\":";

enum { HEAD_LENGTH = sizeof HEAD - 1, MIDDLE_LENGTH = sizeof MIDDLE - 1, MOST_DIGITS = 20, MOST_MESSAGES = 100000 };

static Py_ssize_t digits_of(unsigned long long number) {
    Py_ssize_t digits = 1;
    while (number >= 10) {
        number /= 10;
        digits++;
    }
    return digits;
}

/* Where the element ends that begins at `at`: at the next comma, or at `end`. */
static const char *end_of_text(const char *at, const char *end) {
    const char *comma = memchr(at, ',', (size_t)(end - at));
    return comma == NULL ? end : comma;
}

/* Adds one to a decimal number of fixed width; the caller knows that it does not overflow. */
static void increment(char *digits, Py_ssize_t length) {
    char *at = digits + length - 1;
    while (*at == '9') *at-- = '0';
    ++*at;
}

PyObject *mq9_render_run(PyObject *module, PyObject *const *arguments, Py_ssize_t argument_count) {
    static const int bytes[] = {0, 4, -1};
    (void)module;
    if (!mq9_check_arguments("render_run", arguments, argument_count, 6, bytes)) return NULL;
    const char *at = PyBytes_AS_STRING(arguments[0]);
    Py_ssize_t length = PyBytes_GET_SIZE(arguments[0]);
    Py_ssize_t index = PyLong_AsSsize_t(arguments[1]);
    Py_ssize_t count = PyLong_AsSsize_t(arguments[2]);
    unsigned long long first_id = PyLong_AsUnsignedLongLong(arguments[3]);
    const char *rest = PyBytes_AS_STRING(arguments[4]);
    Py_ssize_t rest_length = PyBytes_GET_SIZE(arguments[4]);
    Py_ssize_t room = PyLong_AsSsize_t(arguments[5]);
    if (PyErr_Occurred()) return NULL;
    if (length < 2 || index < 0 || count < 1 || count > MOST_MESSAGES || first_id > LLONG_MAX - MOST_MESSAGES) {
        PyErr_SetString(PyExc_ValueError, "render_run: not a part of a run");
        return NULL;
    }
    const char *end = at + length - 1; /* without the brackets */
    at++;
    for (; index > 0 && at < end; index--) at = end_of_text(at, end) + 1;
    const char *stop = at - 1;
    for (Py_ssize_t left = count; left > 0; left--) {
        const char *text = stop + 1;
        if (index > 0 || stop >= end || (stop = end_of_text(text, end)) == text) {
            PyErr_SetString(PyExc_ValueError, "render_run: the run has fewer payloads");
            return NULL;
        }
    }
    unsigned long long last_id = first_id + (unsigned long long)count - 1;
    Py_ssize_t width = digits_of(first_id);
    Py_ssize_t digits = width * count;
    unsigned long long power = 1;
    for (Py_ssize_t i = 0; i < width; i++) power *= 10;
    for (; power <= last_id; power *= 10) digits += (Py_ssize_t)(last_id - power + 1);
    /* Commas between the texts become commas between the messages. */
    Py_ssize_t size = count * (HEAD_LENGTH + MIDDLE_LENGTH + rest_length) + digits + (stop - at);
    if (size >= room) Py_RETURN_NONE;
    PyObject *result = PyBytes_FromStringAndSize(NULL, size);
    if (result == NULL) return NULL;
    char *out = PyBytes_AS_STRING(result);
    char id[MOST_DIGITS + 4];
    int id_length = snprintf(id, sizeof id, "%llu", first_id);
    for (Py_ssize_t left = count; left > 0; left--) {
        const char *text_end = end_of_text(at, stop);
        memcpy(out, HEAD, HEAD_LENGTH);
        out += HEAD_LENGTH;
        memcpy(out, id, (size_t)id_length);
        out += id_length;
        memcpy(out, MIDDLE, MIDDLE_LENGTH);
        out += MIDDLE_LENGTH;
        memcpy(out, at, (size_t)(text_end - at));
        out += text_end - at;
        memcpy(out, rest, (size_t)rest_length);
        out += rest_length;
        if (left == 1) break;
        *out++ = ',';
        at = text_end + 1;
        if (strspn(id, "9") == (size_t)id_length)
            id_length = snprintf(id, sizeof id, "%llu", first_id + (unsigned long long)(count - left) + 1);
        else
            increment(id, id_length);
    }
    return result;
}
