/* Requests as they usually stand on the wire, and the ids in an ACK as it usually is. Whatever looks otherwise
 * is left to the Python code, which knows everything. No index is used before it was compared with the end. */
#include <string.h>

#include "native.h"

enum { MOST_DIGITS = 9, MOST_ID_DIGITS = 18, MOST_WORDS = 5 };

/* Reads a decimal number without leading zeros that takes up a whole word; -1 if it is none. */
static Py_ssize_t number(const char *word, const char *end) {
    if (word == end || end - word > MOST_DIGITS || (*word == '0' && end - word > 1)) return -1;
    Py_ssize_t value = 0;
    for (; word < end; word++) {
        if (*word < '0' || *word > '9') return -1;
        value = 10 * value + (*word - '0');
    }
    return value;
}

/* Splits [line, end) at single blanks; returns how many words there are, 0 if the line is not of that form. */
static int split(const char *line, const char *end, const char **words, const char **ends) {
    int count = 0;
    words[0] = line;
    for (const char *at = line;; at++) {
        if (at < end && *at != ' ') {
            if (*at == '\t' || *at == '\r' || *at == '\v' || *at == '\f') return 0;
            continue;
        }
        if (at == words[count]) return 0;
        ends[count++] = at;
        if (at == end) return count;
        if (count == MOST_WORDS) return 0;
        words[count] = at + 1;
    }
}

static PyObject *slice(const char *start, const char *end) { return PyBytes_FromStringAndSize(start, end - start); }

/* Appends (subject, reply, headers or None, payload). */
static int append_request(PyObject *requests, const char **words, const char **ends, const char *start,
                          const char *middle, const char *stop) {
    PyObject *request = PyTuple_New(4);
    if (request == NULL) return 0;
    PyObject *subject = slice(words[1], ends[1]);
    PyObject *reply = slice(words[2], ends[2]);
    PyObject *headers = Py_None;
    if (middle > start)
        headers = slice(start, middle);
    else
        Py_INCREF(headers);
    PyObject *payload = slice(middle, stop);
    PyTuple_SET_ITEM(request, 0, subject);
    PyTuple_SET_ITEM(request, 1, reply);
    PyTuple_SET_ITEM(request, 2, headers);
    PyTuple_SET_ITEM(request, 3, payload);
    int done = subject != NULL && reply != NULL && headers != NULL && payload != NULL &&
               PyList_Append(requests, request) == 0;
    Py_DECREF(request);
    return done;
}

PyObject *mq9_take_requests(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    static const int bytes[] = {0, 1, -1};
    (void)module;
    if (!mq9_check_arguments("take_requests", arguments, count, 4, bytes)) return NULL;
    const char *data = PyBytes_AS_STRING(arguments[0]);
    const char *end = data + PyBytes_GET_SIZE(arguments[0]);
    const char *prefix = PyBytes_AS_STRING(arguments[1]);
    Py_ssize_t prefix_length = PyBytes_GET_SIZE(arguments[1]);
    Py_ssize_t max_payload = PyLong_AsSsize_t(arguments[2]);
    Py_ssize_t max_control_line = PyLong_AsSsize_t(arguments[3]);
    if (PyErr_Occurred()) return NULL;
    PyObject *requests = PyList_New(0);
    if (requests == NULL) return NULL;
    const char *position = data;
    while (end - position > 4) {
        const char *words[MOST_WORDS], *ends[MOST_WORDS];
        int headers = *position == 'H';
        if (memcmp(position + headers, "PUB ", 4 - headers) != 0) break;
        const char *newline = memchr(position, '\n', (size_t)(end - position));
        if (newline == NULL || newline - position > max_control_line) break;
        if (newline == position || newline[-1] != '\r') break;
        if (split(position, newline - 1, words, ends) != 4 + headers) break;
        if (ends[0] - words[0] != 3 + headers || memcmp(words[0], "HPUB" + !headers, (size_t)(3 + headers)) != 0) break;
        if (ends[1] - words[1] < prefix_length || memcmp(words[1], prefix, (size_t)prefix_length) != 0) break;
        Py_ssize_t length = number(words[3 + headers], ends[3 + headers]);
        Py_ssize_t header_length = headers ? number(words[3], ends[3]) : 0;
        if (length < 0 || length > max_payload || header_length < headers || header_length > length) break;
        const char *start = newline + 1;
        if (end - start < length + 2 || start[length] != '\r' || start[length + 1] != '\n') break;
        if (!append_request(requests, words, ends, start, start + header_length, start + length)) {
            Py_DECREF(requests);
            return NULL;
        }
        position = start + length + 2;
    }
    return Py_BuildValue("(Nn)", requests, (Py_ssize_t)(position - data));
}

/* A JSON text, and how far it has been read. */
struct text {
    const char *at, *end;
};

static void skip_blanks(struct text *text) {
    while (text->at < text->end &&
           (*text->at == ' ' || *text->at == '\t' || *text->at == '\n' || *text->at == '\r'))
        text->at++;
}

/* Reads one character, with blanks before and behind it; whether it stands there. */
static int take(struct text *text, char wanted) {
    skip_blanks(text);
    if (text->at == text->end || *text->at != wanted) return 0;
    text->at++;
    skip_blanks(text);
    return 1;
}

/* Reads a string of printable ASCII without escapes. */
static int take_string(struct text *text, const char **start, const char **stop) {
    skip_blanks(text);
    if (text->at == text->end || *text->at != '"') return 0;
    const char *at = *start = ++text->at;
    while (at < text->end && *at != '"') {
        if (*at < ' ' || *at > '~' || *at == '\\') return 0;
        at++;
    }
    if (at == text->end) return 0;
    *stop = at;
    text->at = at + 1;
    return 1;
}

/* Reads a number without sign, fraction, exponent or leading zeros; -1 if there is none. */
static long long take_id(struct text *text) {
    const char *start = text->at;
    long long value = 0;
    while (text->at < text->end && *text->at >= '0' && *text->at <= '9') {
        if (text->at - start == MOST_ID_DIGITS) return -1;
        value = 10 * value + (*text->at++ - '0');
    }
    if (text->at == start || (*start == '0' && text->at - start > 1)) return -1;
    return value;
}

/* Reads an array of ids of which each is one more than the one before it; how many, 0 if it is not so. */
static Py_ssize_t take_ids(struct text *text, Py_ssize_t most, long long *first) {
    if (!take(text, '[')) return 0;
    if ((*first = take_id(text)) < 0) return 0;
    Py_ssize_t count = 1;
    while (take(text, ',')) {
        if (count == most || take_id(text) != *first + count) return 0;
        count++;
    }
    return take(text, ']') ? count : 0;
}

static int is_word(const char *start, const char *stop, const char *word) {
    return (size_t)(stop - start) == strlen(word) && memcmp(start, word, (size_t)(stop - start)) == 0;
}

PyObject *mq9_consecutive_ids(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    static const int bytes[] = {0, -1};
    (void)module;
    if (!mq9_check_arguments("consecutive_ids", arguments, count, 2, bytes)) return NULL;
    struct text text = {PyBytes_AS_STRING(arguments[0]),
                        PyBytes_AS_STRING(arguments[0]) + PyBytes_GET_SIZE(arguments[0])};
    Py_ssize_t most = PyLong_AsSsize_t(arguments[1]);
    if (most == -1 && PyErr_Occurred()) return NULL;
    const char *name = NULL, *name_end = NULL, *key, *key_end;
    long long first = 0;
    Py_ssize_t ids = 0;
    int is_alone = 0;
    if (!take(&text, '{')) Py_RETURN_NONE;
    do {
        if (!take_string(&text, &key, &key_end) || !take(&text, ':')) Py_RETURN_NONE;
        if (name == NULL && is_word(key, key_end, "group_name")) {
            if (!take_string(&text, &name, &name_end)) Py_RETURN_NONE;
        } else if (ids == 0 && is_word(key, key_end, "msg_ids")) {
            ids = take_ids(&text, most, &first);
            if (ids == 0) Py_RETURN_NONE;
        } else if (ids == 0 && is_word(key, key_end, "msg_id")) {
            if ((first = take_id(&text)) < 0) Py_RETURN_NONE;
            skip_blanks(&text);
            ids = is_alone = 1;
        } else {
            Py_RETURN_NONE;
        }
    } while (take(&text, ','));
    if (!take(&text, '}') || text.at != text.end || name == NULL || ids == 0) Py_RETURN_NONE;
    return Py_BuildValue("(s#LL)", name, (Py_ssize_t)(name_end - name), first,
                         is_alone ? -1LL : first + (long long)ids - 1);
}
