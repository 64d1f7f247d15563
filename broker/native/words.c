/* The words of a text in ASCII; src/mq9_broker/search/words.py says what they are. */
#include "native.h"

#include <string.h>

typedef struct {
    PyObject *numbers, *words;
    unsigned *found;
    Py_ssize_t count, room;
    /* A word in lower case, or words joined. */
    char *spelled;
    Py_ssize_t longest, most_joined;
} Words;

static int is_upper(char c) { return c >= 'A' && c <= 'Z'; }
static int is_lower(char c) { return c >= 'a' && c <= 'z'; }
static int is_digit(char c) { return c >= '0' && c <= '9'; }
static int is_letter_or_digit(char c) { return is_lower(c) || is_upper(c) || is_digit(c); }
static int is_mark(char c) { return c != '\0' && strchr("-_./:@&'", c) != NULL; }

/* Add a word, which gets the next number if it has none. */
static int add(Words *to, const char *text, Py_ssize_t length) {
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
    if (!failed && to->count == to->room) {
        Py_ssize_t room = 2 * to->room;
        unsigned *longer = PyMem_Realloc(to->found, (size_t)room * sizeof *longer);
        if (longer == NULL) {
            PyErr_NoMemory();
            failed = -1;
        } else {
            to->found = longer;
            to->room = room;
        }
    }
    if (!failed) {
        unsigned long value = PyLong_AsUnsignedLong(number);
        to->found[to->count++] = (unsigned)value;
        if (value == (unsigned long)-1 && PyErr_Occurred()) failed = -1;
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

PyObject *mq9_words_of_ascii(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    if (count != 5 || !PyUnicode_Check(arguments[0]) || !PyDict_Check(arguments[1]) || !PyList_Check(arguments[2])) {
        PyErr_SetString(PyExc_TypeError, "words_of_ascii takes a str, a dict, a list and two numbers");
        return NULL;
    }
    if (!PyUnicode_IS_ASCII(arguments[0])) Py_RETURN_NONE;
    Words to = {.numbers = arguments[1], .words = arguments[2], .room = 64};
    to.longest = PyLong_AsSsize_t(arguments[3]);
    to.most_joined = PyLong_AsSsize_t(arguments[4]);
    if (PyErr_Occurred()) return NULL;
    if (to.longest < 1 || to.longest > 128) {
        PyErr_SetString(PyExc_ValueError, "words_of_ascii: a word has 1 to 128 characters");
        return NULL;
    }
    Py_ssize_t length = PyUnicode_GET_LENGTH(arguments[0]);
    const char *text = PyUnicode_DATA(arguments[0]);
    PyObject *result = NULL;
    to.found = PyMem_Malloc((size_t)to.room * sizeof *to.found);
    /* A part of a word in mixed case is not cut, so it may be as long as the text. */
    to.spelled = PyMem_Malloc((size_t)(length > to.longest ? length : to.longest) + 1);
    if (to.found == NULL || to.spelled == NULL) {
        PyErr_NoMemory();
    } else if (add_all(&to, text, text + length) == 0) {
        result = PyBytes_FromStringAndSize((const char *)to.found, to.count * (Py_ssize_t)sizeof *to.found);
    }
    PyMem_Free(to.found);
    PyMem_Free(to.spelled);
    return result;
}
