/* An ordered map of bytes in short chunks: what src/mq9_broker/store/sorted_map.py does, where each step of a search
 * is a memcmp. Keys and values are bytes and nothing else, so freeing one never runs code that could come back here. */
#include <string.h>

#include "native.h"

enum { CHUNK = 512, MOST_ENTRIES = 2 * CHUNK, FIRST_CAPACITY = 8 };

typedef struct {
    PyObject *key, *value;
} Entry;

/* Its entries ascend, and there is at least one. `last` is the key of the last one, borrowed from it. */
typedef struct {
    PyObject *last;
    Entry *entries;
    Py_ssize_t length, capacity;
} Chunk;

typedef struct {
    PyObject_HEAD
    Chunk *chunks;
    Py_ssize_t count, capacity, length;
} SortedMap;

static int is_less(PyObject *left, PyObject *right) {
    Py_ssize_t left_length = PyBytes_GET_SIZE(left), right_length = PyBytes_GET_SIZE(right);
    Py_ssize_t common = left_length < right_length ? left_length : right_length;
    int order = memcmp(PyBytes_AS_STRING(left), PyBytes_AS_STRING(right), (size_t)common);
    return order < 0 || (order == 0 && left_length < right_length);
}

static int is_equal(PyObject *left, PyObject *right) {
    return PyBytes_GET_SIZE(left) == PyBytes_GET_SIZE(right) &&
           memcmp(PyBytes_AS_STRING(left), PyBytes_AS_STRING(right), (size_t)PyBytes_GET_SIZE(left)) == 0;
}

/* The first chunk that ends with this key or a greater one; `count` if there is none. */
static Py_ssize_t find_chunk(SortedMap *map, PyObject *key) {
    Py_ssize_t low = 0, high = map->count;
    while (low < high) {
        Py_ssize_t middle = (low + high) / 2;
        if (is_less(map->chunks[middle].last, key))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The first entry with this key or a greater one; the chunk's length if there is none. */
static Py_ssize_t find_entry(const Chunk *chunk, PyObject *key) {
    Py_ssize_t low = 0, high = chunk->length;
    while (low < high) {
        Py_ssize_t middle = (low + high) / 2;
        if (is_less(chunk->entries[middle].key, key))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int is_bytes(PyObject *object, const char *what) {
    if (PyBytes_CheckExact(object)) return 1;
    PyErr_Format(PyExc_TypeError, "a %s must be bytes, not %.100s", what, Py_TYPE(object)->tp_name);
    return 0;
}

/* Makes room for one more entry or chunk; whether that was possible. */
static int make_room(void **items, Py_ssize_t size, Py_ssize_t length, Py_ssize_t *capacity) {
    if (length < *capacity) return 1;
    Py_ssize_t wanted = *capacity ? 2 * *capacity : FIRST_CAPACITY;
    void *larger = PyMem_Realloc(*items, (size_t)(wanted * size));
    if (larger == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    *items = larger;
    *capacity = wanted;
    return 1;
}

/* Puts an empty chunk at a place; the caller fills it at once. */
static Chunk *insert_chunk(SortedMap *map, Py_ssize_t at) {
    if (!make_room((void **)&map->chunks, sizeof(Chunk), map->count, &map->capacity)) return NULL;
    memmove(map->chunks + at + 1, map->chunks + at, (size_t)(map->count - at) * sizeof(Chunk));
    map->chunks[at] = (Chunk){NULL, NULL, 0, 0};
    map->count++;
    return map->chunks + at;
}

static void remove_chunks(SortedMap *map, Py_ssize_t first, Py_ssize_t end) {
    for (Py_ssize_t i = first; i < end; i++) PyMem_Free(map->chunks[i].entries);
    memmove(map->chunks + first, map->chunks + end, (size_t)(map->count - end) * sizeof(Chunk));
    map->count -= end - first;
}

static int insert_entry(SortedMap *map, Chunk *chunk, Py_ssize_t at, PyObject *key, PyObject *value) {
    if (!make_room((void **)&chunk->entries, sizeof(Entry), chunk->length, &chunk->capacity)) return 0;
    Entry *place = chunk->entries + at;
    memmove(place + 1, place, (size_t)(chunk->length - at) * sizeof(Entry));
    Py_INCREF(key);
    Py_INCREF(value);
    *place = (Entry){key, value};
    chunk->length++;
    chunk->last = chunk->entries[chunk->length - 1].key;
    map->length++;
    return 1;
}

/* Moves the second half of a chunk into a new one behind it. */
static int split_chunk(SortedMap *map, Py_ssize_t at) {
    Entry *entries = PyMem_Malloc(MOST_ENTRIES * sizeof(Entry));
    if (entries == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    Chunk *behind = insert_chunk(map, at + 1);
    if (behind == NULL) {
        PyMem_Free(entries);
        return 0;
    }
    Chunk *chunk = map->chunks + at;
    *behind = (Chunk){chunk->last, entries, chunk->length - CHUNK, MOST_ENTRIES};
    memcpy(entries, chunk->entries + CHUNK, (size_t)behind->length * sizeof(Entry));
    chunk->length = CHUNK;
    chunk->last = chunk->entries[CHUNK - 1].key;
    return 1;
}

static int set_entry(SortedMap *map, PyObject *key, PyObject *value) {
    if (!is_bytes(key, "key") || !is_bytes(value, "value")) return 0;
    Py_ssize_t at = find_chunk(map, key);
    if (at == map->count) {
        if (at > 0 && map->chunks[at - 1].length < CHUNK)
            at--;
        else if (insert_chunk(map, at) == NULL)
            return 0;
        Chunk *chunk = map->chunks + at;
        if (insert_entry(map, chunk, chunk->length, key, value)) return 1;
        if (chunk->length == 0) remove_chunks(map, at, at + 1);
        return 0;
    }
    Chunk *chunk = map->chunks + at;
    Py_ssize_t place = find_entry(chunk, key);
    if (is_equal(chunk->entries[place].key, key)) {
        Py_INCREF(value);
        Py_SETREF(chunk->entries[place].value, value);
        return 1;
    }
    if (chunk->length == MOST_ENTRIES) {
        if (!split_chunk(map, at)) return 0;
        chunk = map->chunks + at;
        if (place > CHUNK) {
            chunk++;
            place -= CHUNK;
        }
    }
    return insert_entry(map, chunk, place, key, value);
}

/* Removes the entries low to high-1 of a chunk, and the chunk when nothing is left. */
static void cut(SortedMap *map, Py_ssize_t at, Py_ssize_t low, Py_ssize_t high) {
    Chunk *chunk = map->chunks + at;
    for (Py_ssize_t i = low; i < high; i++) {
        Py_DECREF(chunk->entries[i].key);
        Py_DECREF(chunk->entries[i].value);
    }
    memmove(chunk->entries + low, chunk->entries + high, (size_t)(chunk->length - high) * sizeof(Entry));
    chunk->length -= high - low;
    map->length -= high - low;
    if (chunk->length)
        chunk->last = chunk->entries[chunk->length - 1].key;
    else
        remove_chunks(map, at, at + 1);
}

static int discard_entry(SortedMap *map, PyObject *key) {
    if (!is_bytes(key, "key")) return 0;
    Py_ssize_t at = find_chunk(map, key);
    if (at == map->count) return 1;
    Py_ssize_t place = find_entry(map->chunks + at, key);
    if (is_equal(map->chunks[at].entries[place].key, key)) cut(map, at, place, place + 1);
    return 1;
}

static int discard_between(SortedMap *map, PyObject *start, PyObject *end) {
    if (!is_bytes(start, "key") || !is_bytes(end, "key")) return 0;
    if (!is_less(start, end)) return 1;
    Py_ssize_t first = find_chunk(map, start), last = find_chunk(map, end);
    if (first == map->count) return 1;
    if (first == last) {
        cut(map, first, find_entry(map->chunks + first, start), find_entry(map->chunks + first, end));
        return 1;
    }
    if (last < map->count) cut(map, last, 0, find_entry(map->chunks + last, end));
    while (--last > first) cut(map, last, 0, map->chunks[last].length);
    cut(map, first, find_entry(map->chunks + first, start), map->chunks[first].length);
    return 1;
}

static void clear(SortedMap *map) {
    while (map->count) cut(map, map->count - 1, 0, map->chunks[map->count - 1].length);
}

/* Methods. */

static PyObject *map_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    if (!PyArg_ParseTuple(arguments, ":SortedMap") || (names != NULL && PyDict_GET_SIZE(names) != 0)) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "SortedMap takes no arguments");
        return NULL;
    }
    return type->tp_alloc(type, 0);
}

static void map_dealloc(SortedMap *map) {
    clear(map);
    PyMem_Free(map->chunks);
    Py_TYPE(map)->tp_free((PyObject *)map);
}

static Py_ssize_t map_length(SortedMap *map) { return map->length; }

static PyObject *map_get(SortedMap *map, PyObject *key) {
    if (!is_bytes(key, "key")) return NULL;
    Py_ssize_t at = find_chunk(map, key);
    if (at == map->count) Py_RETURN_NONE;
    const Chunk *chunk = map->chunks + at;
    const Entry *entry = chunk->entries + find_entry(chunk, key);
    PyObject *found = is_equal(entry->key, key) ? entry->value : Py_None;
    Py_INCREF(found);
    return found;
}

static PyObject *map_set(SortedMap *map, PyObject *const *arguments, Py_ssize_t count) {
    static const int bytes[] = {0, 1, -1};
    if (!mq9_check_arguments("set", arguments, count, 2, bytes)) return NULL;
    if (!set_entry(map, arguments[0], arguments[1])) return NULL;
    Py_RETURN_NONE;
}

static PyObject *map_discard(SortedMap *map, PyObject *key) {
    if (!discard_entry(map, key)) return NULL;
    Py_RETURN_NONE;
}

static PyObject *map_discard_range(SortedMap *map, PyObject *const *arguments, Py_ssize_t count) {
    static const int bytes[] = {0, 1, -1};
    if (!mq9_check_arguments("discard_range", arguments, count, 2, bytes)) return NULL;
    if (!discard_between(map, arguments[0], arguments[1])) return NULL;
    Py_RETURN_NONE;
}

static PyObject *map_update(SortedMap *map, PyObject *writes) {
    if (!PyList_CheckExact(writes) && !PyTuple_CheckExact(writes)) {
        PyErr_SetString(PyExc_TypeError, "update takes a list or tuple");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(writes); i++) {
        PyObject *pair = PySequence_Fast_GET_ITEM(writes, i);
        if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2) {
            PyErr_SetString(PyExc_TypeError, "update takes pairs");
            return NULL;
        }
        PyObject *key = PyTuple_GET_ITEM(pair, 0), *value = PyTuple_GET_ITEM(pair, 1);
        if (!(value == Py_None ? discard_entry(map, key) : set_entry(map, key, value))) return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *pair_of(const Entry *entry) {
    /* Held before anything is made: that may run the garbage collector, and whatever it sets off. */
    PyObject *key = entry->key, *value = entry->value;
    Py_INCREF(key);
    Py_INCREF(value);
    PyObject *pair = PyTuple_New(2);
    if (pair == NULL) {
        Py_DECREF(key);
        Py_DECREF(value);
        return NULL;
    }
    PyTuple_SET_ITEM(pair, 0, key);
    PyTuple_SET_ITEM(pair, 1, value);
    return pair;
}

static PyObject *map_first(SortedMap *map, PyObject *const *arguments, Py_ssize_t count) {
    static const int bytes[] = {0, 1, -1};
    if (!mq9_check_arguments("first", arguments, count, 2, bytes)) return NULL;
    Py_ssize_t at = find_chunk(map, arguments[0]);
    if (at == map->count) Py_RETURN_NONE;
    const Entry *entry = map->chunks[at].entries + find_entry(map->chunks + at, arguments[0]);
    if (!is_less(entry->key, arguments[1])) Py_RETURN_NONE;
    return pair_of(entry);
}

static PyObject *map_last(SortedMap *map, PyObject *const *arguments, Py_ssize_t count) {
    static const int bytes[] = {0, 1, -1};
    if (!mq9_check_arguments("last", arguments, count, 2, bytes)) return NULL;
    Py_ssize_t at = find_chunk(map, arguments[1]);
    Py_ssize_t place = at == map->count ? 0 : find_entry(map->chunks + at, arguments[1]);
    if (place == 0) {
        if (at == 0) Py_RETURN_NONE;
        at--;
        place = map->chunks[at].length;
    }
    const Entry *entry = map->chunks[at].entries + place - 1;
    if (is_less(entry->key, arguments[0])) Py_RETURN_NONE;
    return pair_of(entry);
}

/* At most `most` (key, value) pairs from `start` on and before `end`. */
static PyObject *map_page(SortedMap *map, PyObject *const *arguments, Py_ssize_t count) {
    static const int bytes[] = {0, 1, -1};
    if (!mq9_check_arguments("page", arguments, count, 3, bytes)) return NULL;
    Py_ssize_t most = PyLong_AsSsize_t(arguments[2]);
    if (most == -1 && PyErr_Occurred()) return NULL;
    PyObject *found = PyList_New(0);
    if (found == NULL) return NULL;
    Py_ssize_t at = find_chunk(map, arguments[0]);
    Py_ssize_t place = at == map->count ? 0 : find_entry(map->chunks + at, arguments[0]);
    for (; at < map->count && PyList_GET_SIZE(found) < most; at++, place = 0) {
        for (; place < map->chunks[at].length && PyList_GET_SIZE(found) < most; place++) {
            const Entry *entry = map->chunks[at].entries + place;
            if (!is_less(entry->key, arguments[1])) return found;
            PyObject *pair = pair_of(entry);
            if (pair == NULL || PyList_Append(found, pair) < 0) {
                Py_XDECREF(pair);
                Py_DECREF(found);
                return NULL;
            }
            Py_DECREF(pair);
        }
    }
    return found;
}

static PyObject *map_clear(SortedMap *map, PyObject *ignored) {
    (void)ignored;
    clear(map);
    Py_RETURN_NONE;
}

#define FAST(name, function, text) {name, (PyCFunction)(void (*)(void))(function), METH_FASTCALL, text}

static PyMethodDef methods[] = {
    {"get", (PyCFunction)map_get, METH_O, "The value under a key, None when there is none."},
    FAST("set", map_set, "Puts a value under a key."),
    {"discard", (PyCFunction)map_discard, METH_O, "Removes a key if it is there."},
    FAST("discard_range", map_discard_range, "Removes every key with start <= key < end."),
    {"update", (PyCFunction)map_update, METH_O, "Does the same for each (key, value or None): set, or discard."},
    FAST("first", map_first, "The smallest (key, value) with start <= key < end."),
    FAST("last", map_last, "The greatest (key, value) with start <= key < end."),
    FAST("page", map_page, "page(start, end, most): the first (key, value) pairs with start <= key < end."),
    {"clear", (PyCFunction)map_clear, METH_NOARGS, "Removes everything."},
    {NULL, NULL, 0, NULL},
};

static PySequenceMethods sequence = {.sq_length = (lenfunc)map_length};

PyTypeObject mq9_sorted_map_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "mq9_broker._native.SortedMap",
    .tp_basicsize = sizeof(SortedMap),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "Keys in byte order with a value each, all of them bytes.",
    .tp_new = map_new,
    .tp_dealloc = (destructor)map_dealloc,
    .tp_as_sequence = &sequence,
    .tp_methods = methods,
};
