/* The words of texts in ASCII; src/mq9_broker/search/words.py says what they are. */
#include "native.h"

#include <stdint.h>
#include <string.h>

/* A word that has a number, where its hash says: what is looked for in `numbers` mostly stands here. */
typedef struct {
    uint32_t number, hash;
    unsigned char length; /* 0: no word */
    char spelled[23];
} Known;

typedef struct {
    PyObject *numbers, *words;
    Known *known;
    uint32_t known_mask;
    uint32_t *found;
    Py_ssize_t count, room;
    /* A word in lower case, or words joined. */
    char *spelled;
    Py_ssize_t spelled_room, longest, most_joined;
} Words;

static int is_upper(char c) { return c >= 'A' && c <= 'Z'; }
static int is_lower(char c) { return c >= 'a' && c <= 'z'; }
static int is_digit(char c) { return c >= '0' && c <= '9'; }
static int is_letter_or_digit(char c) { return is_lower(c) || is_upper(c) || is_digit(c); }
static int is_mark(char c) { return c != '\0' && strchr("-_./:@&'", c) != NULL; }

static int add_number(Words *to, uint32_t number) {
    if (to->count == to->room) {
        Py_ssize_t room = 2 * to->room;
        uint32_t *longer = PyMem_Realloc(to->found, (size_t)room * sizeof *longer);
        if (longer == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        to->found = longer;
        to->room = room;
    }
    to->found[to->count++] = number;
    return 0;
}

static uint32_t hash_of(const char *text, Py_ssize_t length) {
    uint32_t hash = 2166136261u;
    for (Py_ssize_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)text[i]) * 16777619u;
    return hash ^ hash >> 15;
}

/* Add a word, which gets the next number if it has none. */
static int add(Words *to, const char *text, Py_ssize_t length) {
    uint32_t hash = hash_of(text, length);
    Known *known = &to->known[hash & to->known_mask];
    if (known->hash == hash && known->length == length && memcmp(known->spelled, text, (size_t)length) == 0)
        return add_number(to, known->number);
    PyObject *word = PyUnicode_DecodeASCII(text, length, NULL);
    if (word == NULL) return -1;
    PyObject *number = PyDict_GetItemWithError(to->numbers, word);
    int failed = 0;
    if (number != NULL) {
        Py_INCREF(number);
    } else if (PyErr_Occurred() || (number = PyLong_FromSsize_t(PyList_GET_SIZE(to->words))) == NULL) {
        failed = -1;
    } else if (PyDict_SetItem(to->numbers, word, number) < 0 || PyList_Append(to->words, word) < 0) {
        failed = -1;
    }
    if (!failed) {
        unsigned long value = PyLong_AsUnsignedLong(number);
        failed = value == (unsigned long)-1 && PyErr_Occurred() ? -1 : add_number(to, (uint32_t)value);
        if (!failed && 0 < length && length <= (Py_ssize_t)sizeof known->spelled) {
            *known = (Known){.number = (uint32_t)value, .hash = hash, .length = (unsigned char)length};
            memcpy(known->spelled, text, (size_t)length);
        }
    }
    Py_XDECREF(number);
    Py_DECREF(word);
    return failed;
}

static Py_ssize_t lower(char *to, const char *text, Py_ssize_t length) {
    for (Py_ssize_t i = 0; i < length; i++) to[i] = is_upper(text[i]) ? (char)(text[i] + 32) : text[i];
    return length;
}

/* The end of the letters and digits that begin here. */
static const char *end_of_word(const char *text, const char *end) {
    while (text < end && is_letter_or_digit(*text)) text++;
    return text;
}

/* The end of what stands together from here on, signs behind it left out. */
static const char *end_of_compound(const char *text, const char *end) {
    for (;;) {
        const char *next = text = end_of_word(text, end);
        while (next < end && next < text + 2 && is_mark(*next)) next++;
        if (next == text || next == end || !is_letter_or_digit(*next)) return text;
        text = next;
    }
}

/* The words of a compound, and their number; the last one is left in `spelled`. */
static Py_ssize_t add_parts(Words *to, const char *text, const char *end, Py_ssize_t *last) {
    Py_ssize_t count = 0;
    while (text < end) {
        const char *after = end_of_word(text, end);
        *last = lower(to->spelled, text, after - text < to->longest ? after - text : to->longest);
        if (add(to, to->spelled, *last) < 0) return -1;
        count++;
        for (text = after; text < end && is_mark(*text);) text++;
    }
    return count;
}

/* All words of a compound as one, if that is not too long. */
static int add_joined(Words *to, const char *text, const char *end) {
    Py_ssize_t length = 0;
    while (text < end) {
        const char *after = end_of_word(text, end);
        if (length + (after - text) > to->longest) return 0;
        length += lower(to->spelled + length, text, after - text);
        for (text = after; text < end && is_mark(*text);) text++;
    }
    return add(to, to->spelled, length);
}

/* Whether a word is in mixed case: not all in one, nor a capital before small letters. */
static int is_mixed(const char *text, const char *end) {
    Py_ssize_t uppers = 0, lowers = 0;
    for (const char *at = text; at < end; at++) {
        uppers += is_upper(*at);
        lowers += is_lower(*at);
    }
    Py_ssize_t uppers_behind = uppers - is_upper(*text), lowers_behind = lowers - is_lower(*text);
    return uppers > 0 && lowers > 0 && !(uppers_behind == 0 && lowers_behind > 0);
}

/* The end of the capitals, letters or digits that are one part of a word in mixed case. */
static const char *end_of_hump(const char *text, const char *end) {
    const char *at = text;
    if (is_digit(*at)) {
        while (at < end && is_digit(*at)) at++;
        return at;
    }
    while (at < end && is_upper(*at)) at++;
    if (at < end && is_lower(*at) && at - text > 1) return at - 1;
    if (at - text > 1) return at;
    while (at < end && is_lower(*at)) at++;
    return at;
}

static int add_humps(Words *to, const char *text, const char *end) {
    while (text < end) {
        const char *after = end_of_word(text, end);
        if (is_mixed(text, after)) {
            int count = 0;
            for (const char *at = text; at < after; at = end_of_hump(at, after)) count += !is_digit(*at);
            for (const char *next; count > 1 && text < after; text = next) {
                next = end_of_hump(text, after);
                if (is_digit(*text) || next - text < 2) continue;
                if (add(to, to->spelled, lower(to->spelled, text, next - text)) < 0) return -1;
            }
        }
        for (text = after; text < end && is_mark(*text);) text++;
    }
    return 0;
}

static int add_all(Words *to, const char *text, const char *end) {
    while (text < end) {
        if (!is_letter_or_digit(*text)) {
            text++;
            continue;
        }
        const char *after = end_of_compound(text, end);
        Py_ssize_t sign = end - after > 1 && after[0] == '+' && after[1] == '+' ? 2 : after < end && *after == '#';
        Py_ssize_t last = 0, parts = add_parts(to, text, after, &last);
        if (parts < 0) return -1;
        /* Before joining, which uses the same place: the order of numbers is that of Python, joined first. */
        char signed_word[256];
        memcpy(signed_word, to->spelled, (size_t)last);
        memcpy(signed_word + last, after, (size_t)sign);
        if (parts > 1 && parts <= to->most_joined && add_joined(to, text, after) < 0) return -1;
        if (sign && add(to, signed_word, last + sign) < 0) return -1;
        if (add_humps(to, text, after) < 0) return -1;
        text = after + sign;
    }
    return 0;
}

/* The words of a text, which is in ASCII; a part of a word in mixed case is not cut, so it may be as long as that. */
static int add_text(Words *to, PyObject *text) {
    Py_ssize_t length = PyUnicode_GET_LENGTH(text);
    const char *start = PyUnicode_DATA(text);
    if (length >= to->spelled_room) {
        char *longer = PyMem_Realloc(to->spelled, (size_t)length + 1);
        if (longer == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        to->spelled = longer;
        to->spelled_room = length + 1;
    }
    return add_all(to, start, start + length);
}

/* The words of another text, as `other` finds them: an object whose buffer has their numbers. */
static int add_others(Words *to, PyObject *text, PyObject *other) {
    PyObject *found = PyObject_CallOneArg(other, text);
    if (found == NULL) return -1;
    Py_buffer numbers;
    int failed = PyObject_GetBuffer(found, &numbers, PyBUF_SIMPLE);
    Py_DECREF(found);
    if (failed) return -1;
    const char *at = numbers.buf;
    for (Py_ssize_t i = 0; !failed && i + (Py_ssize_t)sizeof(uint32_t) <= numbers.len; i += sizeof(uint32_t)) {
        uint32_t number;
        memcpy(&number, at + i, sizeof number);
        failed = add_number(to, number);
    }
    PyBuffer_Release(&numbers);
    return failed;
}

static int add_fields(Words *to, PyObject *fields, PyObject *other, char *lengths, char *weights) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(fields); i++) {
        PyObject *field = PyTuple_GET_ITEM(fields, i);
        if (!PyTuple_Check(field) || PyTuple_GET_SIZE(field) != 2 || !PyUnicode_Check(PyTuple_GET_ITEM(field, 0)) ||
            !PyFloat_Check(PyTuple_GET_ITEM(field, 1))) {
            PyErr_SetString(PyExc_TypeError, "words_of_fields: a field is a str and a float");
            return -1;
        }
        PyObject *text = PyTuple_GET_ITEM(field, 0);
        double weight = PyFloat_AS_DOUBLE(PyTuple_GET_ITEM(field, 1));
        Py_ssize_t before = to->count;
        if ((PyUnicode_IS_ASCII(text) ? add_text(to, text) : add_others(to, text, other)) < 0) return -1;
        uint32_t length = (uint32_t)(to->count - before);
        memcpy(lengths + i * (Py_ssize_t)sizeof length, &length, sizeof length);
        memcpy(weights + i * (Py_ssize_t)sizeof weight, &weight, sizeof weight);
    }
    return 0;
}

static PyObject *words_of(Words *to, PyObject *fields, PyObject *other) {
    Py_ssize_t count = PyTuple_GET_SIZE(fields);
    PyObject *lengths = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(uint32_t));
    PyObject *weights = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(double));
    PyObject *numbers = NULL, *result = NULL;
    to->found = PyMem_Malloc((size_t)to->room * sizeof *to->found);
    to->spelled = PyMem_Malloc((size_t)to->spelled_room);
    if (to->found == NULL || to->spelled == NULL) PyErr_NoMemory();
    if (lengths != NULL && weights != NULL && to->found != NULL && to->spelled != NULL &&
        add_fields(to, fields, other, PyBytes_AS_STRING(lengths), PyBytes_AS_STRING(weights)) == 0)
        numbers = PyBytes_FromStringAndSize((const char *)to->found, to->count * (Py_ssize_t)sizeof *to->found);
    if (numbers != NULL) result = PyTuple_Pack(3, numbers, lengths, weights);
    Py_XDECREF(numbers);
    Py_XDECREF(lengths);
    Py_XDECREF(weights);
    PyMem_Free(to->found);
    PyMem_Free(to->spelled);
    return result;
}

/* What the caller may get wrong. */
static int has_right_arguments(PyObject *const *arguments, Py_ssize_t count) {
    if (count == 7 && PyTuple_Check(arguments[0]) && PyDict_Check(arguments[1]) && PyList_Check(arguments[2]) &&
        PyCallable_Check(arguments[6]))
        return 1;
    PyErr_SetString(PyExc_TypeError,
                    "words_of_fields takes a tuple, a dict, a list, a buffer, two numbers and a function");
    return 0;
}

static int has_right_sizes(const Words *to, const Py_buffer *known) {
    if (to->longest < 1 || to->longest > 128) {
        PyErr_SetString(PyExc_ValueError, "words_of_fields: a word has 1 to 128 characters");
        return 0;
    }
    Py_ssize_t places = known->len / (Py_ssize_t)sizeof(Known);
    int is_aligned = (uintptr_t)known->buf % sizeof(uint32_t) == 0;
    if (places < 1 || places > 1 << 24 || (places & (places - 1)) != 0 || !is_aligned) {
        PyErr_SetString(PyExc_ValueError, "words_of_fields: the places for words must be a power of two, and aligned");
        return 0;
    }
    return 1;
}

PyObject *mq9_words_of_fields(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module;
    Py_buffer known;
    PyObject *result = NULL;
    if (!has_right_arguments(arguments, count)) return NULL;
    Words to = {.numbers = arguments[1], .words = arguments[2], .room = 256};
    to.longest = PyLong_AsSsize_t(arguments[4]);
    to.most_joined = PyLong_AsSsize_t(arguments[5]);
    if (PyErr_Occurred() || PyObject_GetBuffer(arguments[3], &known, PyBUF_WRITABLE) < 0) return NULL;
    if (has_right_sizes(&to, &known)) {
        to.known = known.buf;
        to.known_mask = (uint32_t)(known.len / (Py_ssize_t)sizeof(Known) - 1);
        to.spelled_room = to.longest + 1;
        result = words_of(&to, arguments[0], arguments[6]);
    }
    PyBuffer_Release(&known);
    return result;
}
