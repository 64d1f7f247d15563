/*
 * natsload: a load generator for request/reply and for fetch-and-acknowledge loops over plain NATS connections.
 *
 * One thread drives several connections by epoll. Two kinds of load:
 *
 *   natsload request   keeps a window of outstanding requests on each connection: SEND, JetStream publish, any
 *                      other request. Every reply must answer a request of this run exactly once.
 *   natsload fetch     each connection runs its own loop: fetch a batch, take all of it, acknowledge it with one
 *                      confirmed request, fetch again. --mailbox speaks mq9, --stream with --consumer a JetStream
 *                      pull consumer. Every message must arrive exactly once in each group, with its payload.
 *
 * The result is one line of JSON on standard output: counts, seconds, rates, latency percentiles, and the CPU time
 * that the generator and (with --server-pid) the server used between the first request and the last reply.
 * Exit status: 0 only when everything arrived, once, without one error; 1 otherwise; 2 for wrong arguments.
 *
 * Build: cc -O2 -std=gnu11 -Wall -Wextra -o natsload natsload.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 256, MAX_BATCH = 1000, READ_CHUNK = 1 << 18 };

enum settlement { SETTLE_ACK_IDS, SETTLE_ACK_LAST, SETTLE_NACK, SETTLE_NONE };

static struct {
    const char *host;
    int port;
    bool fetch;             /* fetch loops instead of plain requests */
    int connections;
    long total;             /* requests in all, or messages in each group */
    double timeout_s;       /* for the whole run */
    int server_pid;         /* 0: do not measure the server */
    int payload_size;
    /* request */
    const char *subject;    /* "{n}" stands for the running number of the request */
    const char *body;       /* NULL: payload_size filler bytes */
    const char *header;     /* "Name: value", or NULL */
    const char *id_field;   /* integer reply field that must differ in every reply, or NULL */
    int window;
    /* fetch */
    const char *mailbox;    /* mq9 */
    const char *group;      /* "{c}" stands for the connection's number: a group for each connection */
    long lease_ms;
    long delay_ms;
    enum settlement settlement;
    bool refill;            /* after each batch send as many messages again, outside the measured times */
    const char *stream;     /* JetStream */
    const char *consumer;   /* "{c}" as in group */
    int batch;
} options = {
    .host = "127.0.0.1", .port = 4222, .connections = 4, .total = 100000, .timeout_s = 60, .payload_size = 128,
    .window = 64, .batch = 100, .group = "bench", .settlement = SETTLE_ACK_IDS,
};

struct buffer {
    char *bytes;
    size_t start, end, capacity;    /* the content is bytes[start..end) */
};

/* The messages that one consumer group (or one JetStream consumer) must receive. */
struct group {
    char name[128];
    long received;
    uint8_t *seen;                  /* one bit an id */
    long seen_capacity;             /* in ids */
};

struct samples {
    double *values;
    long count, capacity;
};

enum phase { FETCHING, SETTLING, REFILLING, FINISHED };

struct connection {
    int fd;
    int number;
    struct buffer in, out;
    long sent, received, quota;     /* requests */
    double *sent_at;                /* by request number; 0 once answered */
    struct group *group;            /* from here on: fetch loops */
    enum phase phase;
    long cycle;
    double phase_began;
    double cycle_s;                 /* measured time of the present cycle so far */
    int in_batch;
    int refills_left;
    long ids[MAX_BATCH];
    char ack_subject[512];          /* JetStream: of the newest message of the batch */
    char lease_id[128];
};

/* One MSG or HMSG frame. */
struct frame {
    const char *subject, *reply;
    size_t subject_length, reply_length;
    const char *header, *payload;
    size_t header_length, payload_length;
};

static struct connection connections[MAX_CONNECTIONS];
static struct group groups[MAX_CONNECTIONS];
static int group_count;
static struct samples cycle_samples, fetch_samples, settle_samples;
static long error_count, reply_count, cycle_count, empty_count;
static char first_error[400], first_reply[400];
static char *filler;                /* the payload of every message */
static char *filler_base64;
static size_t filler_base64_length;

/* ------------------------------------------------------------------ small tools */

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("natsload: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static void *checked(void *allocated) {
    if (allocated == NULL) die("out of memory");
    return allocated;
}

static double clock_seconds(clockid_t clock) {
    struct timespec time;
    if (clock_gettime(clock, &time) != 0) die("cannot read a clock: %s", strerror(errno));
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static double now(void) { return clock_seconds(CLOCK_MONOTONIC); }

/* Counts an error and keeps the first for the report. */
static void fail(const char *what, const char *bytes, size_t length) {
    if (error_count++ == 0)
        snprintf(first_error, sizeof first_error, "%s: %.*s", what, (int)(length < 300 ? length : 300), bytes);
}

static void add_sample(struct samples *samples, double value) {
    if (samples->count == samples->capacity) {
        samples->capacity = samples->capacity ? samples->capacity * 2 : 1 << 16;
        samples->values = checked(realloc(samples->values, sizeof(double) * (size_t)samples->capacity));
    }
    samples->values[samples->count++] = value;
}

static int compare_doubles(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

static void reserve(struct buffer *buffer, size_t wanted) {
    if (buffer->capacity - buffer->end >= wanted) return;
    memmove(buffer->bytes, buffer->bytes + buffer->start, buffer->end - buffer->start);
    buffer->end -= buffer->start;
    buffer->start = 0;
    if (buffer->capacity - buffer->end >= wanted) return;
    while (buffer->capacity - buffer->end < wanted) buffer->capacity = buffer->capacity ? buffer->capacity * 2 : 1 << 20;
    buffer->bytes = checked(realloc(buffer->bytes, buffer->capacity));
}

static void append(struct buffer *buffer, const char *bytes, size_t length) {
    reserve(buffer, length);
    memcpy(buffer->bytes + buffer->end, bytes, length);
    buffer->end += length;
}

/* Copies `template` with `mark` replaced by a number; returns the length. */
static int substitute(char *target, size_t size, const char *template, const char *mark, long number) {
    const char *place = strstr(template, mark);
    int length = place == NULL ? snprintf(target, size, "%s", template)
                               : snprintf(target, size, "%.*s%ld%s", (int)(place - template), template, number,
                                          place + strlen(mark));
    if (length < 0 || (size_t)length >= size) die("too long: %s", template);
    return length;
}

static void make_filler(void) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t size = (size_t)options.payload_size, length = 0;
    filler = checked(malloc(size + 3));
    memset(filler, 0, size + 3);
    for (size_t i = 0; i < size; i++) filler[i] = (char)(' ' + (i * 7) % 95);
    filler_base64 = checked(malloc(size / 3 * 4 + 8));
    for (size_t i = 0; i < size; i += 3) {
        uint32_t bits = (uint32_t)(uint8_t)filler[i] << 16 | (uint32_t)(uint8_t)filler[i + 1] << 8 | (uint8_t)filler[i + 2];
        filler_base64[length++] = digits[bits >> 18];
        filler_base64[length++] = digits[bits >> 12 & 63];
        filler_base64[length++] = i + 1 < size ? digits[bits >> 6 & 63] : '=';
        filler_base64[length++] = i + 2 < size ? digits[bits & 63] : '=';
    }
    filler_base64_length = length;
}

/* Records that `id` arrived in the group; a second time is an error. */
static void record(struct group *group, long id) {
    if (id < 0 || id > 1L << 33) {
        fail("impossible id", "", 0);
        return;
    }
    if (id >= group->seen_capacity) {
        long capacity = group->seen_capacity ? group->seen_capacity : 1 << 20;
        while (capacity <= id) capacity *= 2;
        group->seen = checked(realloc(group->seen, (size_t)capacity / 8));
        memset(group->seen + group->seen_capacity / 8, 0, (size_t)(capacity - group->seen_capacity) / 8);
        group->seen_capacity = capacity;
    }
    uint8_t bit = (uint8_t)(1 << (id & 7));
    if (group->seen[id >> 3] & bit) {
        char text[32];
        fail("an id came twice", text, (size_t)snprintf(text, sizeof text, "%ld", id));
    }
    group->seen[id >> 3] |= bit;
    group->received++;
}

/* ------------------------------------------------------------------ NATS */

static void publish(struct connection *c, const char *subject, const char *reply, const char *body, size_t length) {
    char line[1200];
    int n;
    if (options.header != NULL && !options.fetch) {
        size_t header_length = strlen("NATS/1.0\r\n") + strlen(options.header) + 4;
        n = snprintf(line, sizeof line, "HPUB %s %s %zu %zu\r\nNATS/1.0\r\n%s\r\n\r\n", subject, reply, header_length,
                     header_length + length, options.header);
    } else {
        n = snprintf(line, sizeof line, "PUB %s %s %zu\r\n", subject, reply, length);
    }
    if (n < 0 || (size_t)n >= sizeof line) die("the subject or header is too long");
    append(&c->out, line, (size_t)n);
    append(&c->out, body, length);
    append(&c->out, "\r\n", 2);
}

static void flush(struct connection *c) {
    while (c->out.start < c->out.end) {
        ssize_t written = write(c->fd, c->out.bytes + c->out.start, c->out.end - c->out.start);
        if (written < 0) {
            if (errno == EAGAIN) return;
            if (errno == EINTR) continue;
            die("connection %d: %s", c->number, strerror(errno));
        }
        c->out.start += (size_t)written;
    }
    c->out.start = c->out.end = 0;
}

/* Connects, sends CONNECT, SUB and PING together and waits for the PONG. */
static void open_connection(struct connection *c, int number) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    if (inet_pton(AF_INET, options.host, &address.sin_addr) != 1) die("%s is not an IPv4 address", options.host);
    c->number = number;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address) != 0)
        die("cannot connect to %s:%d: %s", options.host, options.port, strerror(errno));
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct timeval patience = {.tv_sec = 5};
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    char hello[512];
    int n = snprintf(hello, sizeof hello,
                     "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,"
                     "\"lang\":\"c\",\"version\":\"0\",\"protocol\":1,\"name\":\"natsload\"}\r\n"
                     "SUB _INBOX.b%d.* 1\r\nPING\r\n", number);
    append(&c->out, hello, (size_t)n);
    flush(c);
    char answer[65536];
    size_t length = 0;
    do {
        ssize_t got = read(c->fd, answer + length, sizeof answer - 1 - length);
        if (got <= 0) die("connection %d: no PONG from the server", number);
        length += (size_t)got;
        answer[length] = 0;
        if (strstr(answer, "-ERR")) die("the server refused connection %d: %s", number, strstr(answer, "-ERR"));
    } while (strstr(answer, "PONG\r\n") == NULL);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
}

static long parse_number(const char *text, const char *end) {
    long value = 0;
    while (text < end && *text >= '0' && *text <= '9') value = value * 10 + (*text++ - '0');
    return value;
}

/* Splits "MSG subject sid [reply] size" or "HMSG subject sid [reply] header total". Returns the bytes after the line
 * that belong to the frame, or -1 for any other line. */
static long parse_line(const char *line, const char *end, struct frame *frame) {
    const char *word[6];
    size_t length[6];
    int words = 0;
    while (line < end && words < 6) {
        const char *space = memchr(line, ' ', (size_t)(end - line));
        word[words] = line;
        length[words++] = (size_t)((space ? space : end) - line);
        if (space == NULL) break;
        line = space + 1;
    }
    bool headers = length[0] == 4 && memcmp(word[0], "HMSG", 4) == 0;
    if (!headers && !(length[0] == 3 && memcmp(word[0], "MSG", 3) == 0)) return -1;
    int fixed = headers ? 5 : 4;
    if (words < fixed) return -1;
    frame->subject = word[1];
    frame->subject_length = length[1];
    frame->reply = words > fixed ? word[3] : NULL;
    frame->reply_length = words > fixed ? length[3] : 0;
    frame->header_length = headers ? (size_t)parse_number(word[words - 2], word[words - 2] + length[words - 2]) : 0;
    long size = parse_number(word[words - 1], word[words - 1] + length[words - 1]);
    frame->payload_length = (size_t)size - frame->header_length;
    return size;
}

/* ------------------------------------------------------------------ requests */

/* What a reply must look like: JSON with `error` absent or empty (JetStream has an object there when it fails). */
static bool is_success(const struct frame *frame) {
    static const char good[] = "{\"error\":\"\"";
    if (frame->header_length != 0 || frame->payload_length < 2) return false;
    if (frame->payload_length > sizeof good && memcmp(frame->payload, good, sizeof good - 1) == 0) return true;
    const char *error = memmem(frame->payload, frame->payload_length, "\"error\":", 8);
    return error == NULL || (error[8] == '"' && error[9] == '"');
}

static void send_requests(struct connection *c) {
    char subject[512], reply[64];
    const char *body = options.body ? options.body : filler;
    size_t length = options.body ? strlen(options.body) : (size_t)options.payload_size;
    bool numbered = strstr(options.subject, "{n}") != NULL;
    if (!numbered) snprintf(subject, sizeof subject, "%s", options.subject);
    while (c->sent < c->quota && c->sent - c->received < options.window) {
        if (numbered) substitute(subject, sizeof subject, options.subject, "{n}", c->sent * options.connections + c->number);
        snprintf(reply, sizeof reply, "_INBOX.b%d.%ld", c->number, c->sent);
        c->sent_at[c->sent++] = now();
        publish(c, subject, reply, body, length);
    }
}

static void on_reply(struct connection *c, const struct frame *frame) {
    const char *end = frame->subject + frame->subject_length;
    const char *dot = memrchr(frame->subject, '.', frame->subject_length);
    long number = dot ? parse_number(dot + 1, end) : -1;
    if (number < 0 || number >= c->sent || c->sent_at[number] == 0) {
        fail("a reply to nothing that waits", frame->subject, frame->subject_length);
        return;
    }
    add_sample(&cycle_samples, now() - c->sent_at[number]);
    c->sent_at[number] = 0;
    c->received++;
    reply_count++;
    if (first_reply[0] == 0)
        snprintf(first_reply, sizeof first_reply, "%.*s", (int)frame->payload_length, frame->payload);
    if (!is_success(frame)) {
        if (frame->header_length != 0) fail("a status instead of a reply", frame->header, frame->header_length);
        else fail("an error reply", frame->payload, frame->payload_length);
    } else if (options.id_field != NULL) {
        size_t length = strlen(options.id_field);
        const char *field = memmem(frame->payload, frame->payload_length, options.id_field, length);
        if (field == NULL) fail("a reply without its id", frame->payload, frame->payload_length);
        else record(&groups[0], parse_number(field + length, frame->payload + frame->payload_length));
    }
}

/* ------------------------------------------------------------------ fetch loops */

static void enter(struct connection *c, enum phase phase) {
    c->phase = phase;
    c->phase_began = now();
}

static void request(struct connection *c, const char *subject, const char *body, size_t length) {
    char reply[64];
    snprintf(reply, sizeof reply, "_INBOX.b%d.%ld", c->number, c->cycle);
    publish(c, subject, reply, body, length);
}

static void start_fetch(struct connection *c) {
    char subject[512], body[512], consumer[256];
    int length;
    c->in_batch = 0;
    c->cycle_s = 0;
    c->cycle++;
    if (options.mailbox != NULL) {
        snprintf(subject, sizeof subject, "$mq9.AI.MSG.FETCH.%s", options.mailbox);
        length = snprintf(body, sizeof body,
                          "{\"group_name\":\"%s\",\"deliver\":\"earliest\","
                          "\"config\":{\"num_msgs\":%d,\"max_wait_ms\":2000,\"lease_ms\":%ld}}",
                          c->group->name, options.batch, options.lease_ms);
    } else {
        substitute(consumer, sizeof consumer, options.consumer, "{c}", c->number);
        snprintf(subject, sizeof subject, "$JS.API.CONSUMER.MSG.NEXT.%s.%s", options.stream, consumer);
        length = snprintf(body, sizeof body, "{\"batch\":%d}", options.batch);
    }
    enter(c, FETCHING);
    request(c, subject, body, (size_t)length);
}

/* One request that settles the whole batch. */
static void settle(struct connection *c) {
    static char body[MAX_BATCH * 22 + 512];
    char subject[512];
    double elapsed = now() - c->phase_began;
    add_sample(&fetch_samples, elapsed);
    c->cycle_s += elapsed;
    enter(c, SETTLING);
    if (options.stream != NULL) {
        request(c, c->ack_subject, "+ACK", 4);
        return;
    }
    bool nack = options.settlement == SETTLE_NACK;
    int length = snprintf(body, sizeof body, "{\"group_name\":\"%s\",", c->group->name);
    if (options.settlement == SETTLE_ACK_LAST) {
        length += sprintf(body + length, "\"msg_id\":%ld}", c->ids[c->in_batch - 1]);
    } else {
        length += sprintf(body + length, "\"msg_ids\":[");
        for (int i = 0; i < c->in_batch; i++) length += sprintf(body + length, i ? ",%ld" : "%ld", c->ids[i]);
        length += sprintf(body + length, nack ? "],\"lease_id\":\"%s\",\"delay_ms\":%ld}" : "]}", c->lease_id, options.delay_ms);
    }
    snprintf(subject, sizeof subject, "$mq9.AI.MSG.%s.%s", nack ? "NACK" : "ACK", options.mailbox);
    request(c, subject, body, (size_t)length);
}

static void end_cycle(struct connection *c) {
    cycle_count++;
    add_sample(&cycle_samples, c->cycle_s);
    if (c->group->received >= options.total) {
        c->phase = FINISHED;
    } else if (options.refill) {
        char subject[512];
        snprintf(subject, sizeof subject, "$mq9.AI.MSG.SEND.%s", options.mailbox);
        enter(c, REFILLING);
        c->refills_left = c->in_batch;
        for (int i = 0; i < c->in_batch; i++) request(c, subject, filler, (size_t)options.payload_size);
    } else {
        start_fetch(c);
    }
}

/* All that the group must receive has arrived: whoever has part of a batch settles it, whoever waits stops. */
static void finish_group(struct group *group) {
    for (int i = 0; i < options.connections; i++) {
        struct connection *c = &connections[i];
        if (c->group != group || c->phase != FETCHING) continue;
        if (c->in_batch > 0) settle(c);
        else c->phase = FINISHED;
        flush(c);
    }
}

static void end_batch(struct connection *c) {
    if (options.settlement != SETTLE_NONE) {
        settle(c);
    } else {
        double elapsed = now() - c->phase_began;
        add_sample(&fetch_samples, elapsed);
        c->cycle_s += elapsed;
        end_cycle(c);
    }
    if (c->group->received >= options.total) finish_group(c->group);
}

/* Takes the messages of one FETCH reply: counts them, keeps their ids, compares every payload. The payload is base64, so
 * no text in it can look like a field. */
static void on_mq9_batch(struct connection *c, const struct frame *frame) {
    static const char id_field[] = "\"msg_id\":", payload_field[] = "\"payload\":\"", lease_field[] = "\"lease_id\":\"";
    const char *at = frame->payload, *end = frame->payload + frame->payload_length;
    const char *lease = memmem(at, frame->payload_length < 200 ? frame->payload_length : 200, lease_field, sizeof lease_field - 1);
    while ((at = memmem(at, (size_t)(end - at), id_field, sizeof id_field - 1)) != NULL) {
        at += sizeof id_field - 1;
        if (c->in_batch == options.batch) {
            fail("a batch is longer than asked", frame->payload, 100);
            break;
        }
        c->ids[c->in_batch] = parse_number(at, end);
        record(c->group, c->ids[c->in_batch++]);
        const char *payload = memmem(at, (size_t)(end - at), payload_field, sizeof payload_field - 1);
        if (payload == NULL) {
            fail("a message without payload", at, (size_t)(end - at));
            break;
        }
        at = payload + sizeof payload_field - 1;
        if ((size_t)(end - at) <= filler_base64_length || memcmp(at, filler_base64, filler_base64_length) != 0 ||
            at[filler_base64_length] != '"')
            fail("a message with another payload", at, (size_t)(end - at));
        else
            at += filler_base64_length;
    }
    if (options.lease_ms > 0 && c->in_batch > 0) {
        if (lease == NULL) lease = memmem(frame->payload, frame->payload_length, lease_field, sizeof lease_field - 1);
        if (lease == NULL) {
            fail("a leased batch without lease_id", frame->payload, frame->payload_length);
        } else {
            lease += sizeof lease_field - 1;
            const char *quote = memchr(lease, '"', (size_t)(end - lease));
            snprintf(c->lease_id, sizeof c->lease_id, "%.*s", quote ? (int)(quote - lease) : 0, lease);
        }
    }
}

static void on_jetstream_delivery(struct connection *c, const struct frame *frame) {
    /* $JS.ACK.<stream>.<consumer>.<deliveries>.<stream sequence>.<consumer sequence>.<time>.<pending> */
    const char *token = frame->reply, *end = frame->reply + frame->reply_length;
    for (int dots = 0; dots < 5 && token != NULL; dots++) {
        token = memchr(token, '.', (size_t)(end - token));
        if (token != NULL) token++;
    }
    if (token == NULL || frame->reply_length >= sizeof c->ack_subject) {
        fail("an acknowledge subject of another form", frame->reply, frame->reply_length);
        return;
    }
    record(c->group, parse_number(token, end));
    if (frame->payload_length != (size_t)options.payload_size || memcmp(frame->payload, filler, frame->payload_length) != 0)
        fail("a message with another payload", frame->payload, frame->payload_length);
    c->in_batch++;
    if (c->in_batch == options.batch || c->group->received == options.total) {
        memcpy(c->ack_subject, frame->reply, frame->reply_length);
        c->ack_subject[frame->reply_length] = 0;
        end_batch(c);
    } else if (options.total - c->group->received < (long)options.batch * options.connections) {
        memcpy(c->ack_subject, frame->reply, frame->reply_length);  /* finish_group may need it */
        c->ack_subject[frame->reply_length] = 0;
    }
}

static void on_fetch_frame(struct connection *c, const struct frame *frame) {
    if (options.stream != NULL && frame->reply != NULL && frame->reply_length > 8 && memcmp(frame->reply, "$JS.ACK.", 8) == 0) {
        if (c->phase == FETCHING) on_jetstream_delivery(c, frame);
        else fail("a delivery that nobody asked for", frame->reply, frame->reply_length);
        return;
    }
    if (c->phase == FINISHED) return;   /* the end of a FETCH that was given up */
    if (frame->header_length != 0) {
        fail("a status instead of a reply", frame->header, frame->header_length);
        c->phase = FINISHED;
        return;
    }
    if (first_reply[0] == 0)
        snprintf(first_reply, sizeof first_reply, "%.*s", (int)frame->payload_length, frame->payload);
    if (options.stream == NULL && !is_success(frame)) {
        fail("an error reply", frame->payload, frame->payload_length);
        c->phase = FINISHED;
    } else if (c->phase == SETTLING) {
        double elapsed = now() - c->phase_began;
        if (options.stream != NULL && frame->payload_length != 0) fail("an answer to an ack", frame->payload, frame->payload_length);
        add_sample(&settle_samples, elapsed);
        c->cycle_s += elapsed;
        end_cycle(c);
    } else if (c->phase == REFILLING) {
        if (--c->refills_left == 0) start_fetch(c);
    } else {
        if (options.stream == NULL) on_mq9_batch(c, frame);
        if (c->in_batch > 0) {
            end_batch(c);
        } else if (c->group->received >= options.total) {
            c->phase = FINISHED;
        } else {
            empty_count++;
            start_fetch(c);
        }
    }
    reply_count++;
}

/* ------------------------------------------------------------------ the loop */

static void on_input(struct connection *c) {
    for (;;) {
        reserve(&c->in, READ_CHUNK);
        size_t room = c->in.capacity - c->in.end;
        ssize_t got = read(c->fd, c->in.bytes + c->in.end, room);
        if (got == 0) die("the server closed connection %d", c->number);
        if (got < 0) {
            if (errno == EAGAIN) return;
            if (errno == EINTR) continue;
            die("connection %d: %s", c->number, strerror(errno));
        }
        c->in.end += (size_t)got;
        while (c->in.start < c->in.end) {
            char *line = c->in.bytes + c->in.start;
            char *newline = memchr(line, '\n', c->in.end - c->in.start);
            if (newline == NULL) break;
            struct frame frame;
            char *end = newline > line && newline[-1] == '\r' ? newline - 1 : newline;
            long size = parse_line(line, end, &frame);
            size_t whole = (size_t)(newline + 1 - line);
            if (size >= 0) {
                whole += (size_t)size + 2;
                if (c->in.end - c->in.start < whole) {
                    reserve(&c->in, whole);
                    break;
                }
                frame.header = newline + 1;
                frame.payload = frame.header + frame.header_length;
                if (options.fetch) on_fetch_frame(c, &frame);
                else on_reply(c, &frame);
            } else if (line[0] == 'P' && line[1] == 'I') {
                append(&c->out, "PONG\r\n", 6);
            } else if (line[0] == '-') {
                die("connection %d: %.*s", c->number, (int)(end - line), line);
            }
            c->in.start += whole;
        }
        if (c->in.start == c->in.end) c->in.start = c->in.end = 0;
        if ((size_t)got < room) return;
    }
}

static bool is_complete(void) {
    for (int i = 0; i < options.connections; i++) {
        struct connection *c = &connections[i];
        if (options.fetch ? c->phase != FINISHED : c->received < c->quota) return false;
    }
    return true;
}

static void run(void) {
    int poll = epoll_create1(0);
    double deadline = now() + options.timeout_s;
    for (int i = 0; i < options.connections; i++) {
        struct connection *c = &connections[i];
        struct epoll_event interest = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
        epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &interest);
        if (options.fetch) start_fetch(c);
        else send_requests(c);
        flush(c);
    }
    while (!is_complete() && (!options.fetch || error_count == 0)) {
        struct epoll_event events[MAX_CONNECTIONS];
        int count = epoll_wait(poll, events, MAX_CONNECTIONS, 1000);
        if (now() > deadline) {
            fail("not finished in time", "", 0);
            return;
        }
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            on_input(c);
            if (!options.fetch) send_requests(c);
            flush(c);
        }
    }
}

/* ------------------------------------------------------------------ arguments and report */

static void print_percentiles(const char *name, struct samples *samples) {
    double first = samples->count ? samples->values[0] * 1e3 : 0;
    qsort(samples->values, (size_t)samples->count, sizeof(double), compare_doubles);
    double p10 = samples->count ? samples->values[samples->count / 10] * 1e3 : 0;
    double p50 = samples->count ? samples->values[samples->count / 2] * 1e3 : 0;
    double p99 = samples->count ? samples->values[(long)((double)samples->count * 0.99)] * 1e3 : 0;
    double max = samples->count ? samples->values[samples->count - 1] * 1e3 : 0;
    printf("\"%s_first_ms\":%.4f,\"%s_p10_ms\":%.4f,\"%s_p50_ms\":%.4f,\"%s_p99_ms\":%.4f,\"%s_max_ms\":%.4f,", name, first,
           name, p10, name, p50, name, p99, name, max);
}

static void print_text(const char *name, const char *text) {
    printf("\"%s\":\"", name);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') printf("\\%c", *text);
        else if ((unsigned char)*text < ' ' || (unsigned char)*text > '~') printf("?");
        else putchar(*text);
    }
    printf("\"");
}

static const struct option long_options[] = {
    {"server", required_argument, NULL, 's'},       {"server-pid", required_argument, NULL, 'P'},
    {"connections", required_argument, NULL, 'c'},  {"total", required_argument, NULL, 't'},
    {"timeout", required_argument, NULL, 'T'},      {"size", required_argument, NULL, 'z'},
    {"subject", required_argument, NULL, 'u'},      {"body", required_argument, NULL, 'b'},
    {"header", required_argument, NULL, 'h'},       {"id-field", required_argument, NULL, 'i'},
    {"window", required_argument, NULL, 'w'},       {"mailbox", required_argument, NULL, 'm'},
    {"group", required_argument, NULL, 'g'},        {"lease-ms", required_argument, NULL, 'l'},
    {"delay-ms", required_argument, NULL, 'd'},     {"settle", required_argument, NULL, 'e'},
    {"refill", no_argument, NULL, 'r'},             {"stream", required_argument, NULL, 'S'},
    {"consumer", required_argument, NULL, 'C'},     {"batch", required_argument, NULL, 'n'},
    {NULL, 0, NULL, 0},
};

static void usage(void) {
    fputs("usage: natsload request --server HOST:PORT --subject S [--total N] [--window N] [--size BYTES | --body TEXT]\n"
          "                        [--header 'Name: value'] [--id-field msg_id]\n"
          "       natsload fetch   --server HOST:PORT --mailbox M [--group G] [--lease-ms N] [--settle ack-ids|ack-last|nack|none]\n"
          "                        [--delay-ms N] [--refill] [--batch N] [--total N]\n"
          "       natsload fetch   --server HOST:PORT --stream S --consumer C [--batch N] [--total N]\n"
          "both: [--connections N] [--timeout SECONDS] [--server-pid PID]; in S, {n} is the number of the request;\n"
          "in G and C, {c} is the number of the connection\n", stderr);
    exit(2);
}

static void parse_arguments(int argc, char **argv) {
    static char id_field[64];
    if (argc < 2 || (strcmp(argv[1], "request") != 0 && strcmp(argv[1], "fetch") != 0)) usage();
    options.fetch = strcmp(argv[1], "fetch") == 0;
    int option;
    optind = 2;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        switch (option) {
        case 's': {
            char *colon = strrchr(optarg, ':');
            if (colon == NULL) usage();
            *colon = 0;
            options.host = optarg;
            options.port = atoi(colon + 1);
            break;
        }
        case 'P': options.server_pid = atoi(optarg); break;
        case 'c': options.connections = atoi(optarg); break;
        case 't': options.total = atol(optarg); break;
        case 'T': options.timeout_s = atof(optarg); break;
        case 'z': options.payload_size = atoi(optarg); break;
        case 'u': options.subject = optarg; break;
        case 'b': options.body = optarg; break;
        case 'h': options.header = optarg; break;
        case 'i':
            snprintf(id_field, sizeof id_field, "\"%s\":", optarg);
            options.id_field = id_field;
            break;
        case 'w': options.window = atoi(optarg); break;
        case 'm': options.mailbox = optarg; break;
        case 'g': options.group = optarg; break;
        case 'l': options.lease_ms = atol(optarg); break;
        case 'd': options.delay_ms = atol(optarg); break;
        case 'e':
            if (strcmp(optarg, "ack-ids") == 0) options.settlement = SETTLE_ACK_IDS;
            else if (strcmp(optarg, "ack-last") == 0) options.settlement = SETTLE_ACK_LAST;
            else if (strcmp(optarg, "nack") == 0) options.settlement = SETTLE_NACK;
            else if (strcmp(optarg, "none") == 0) options.settlement = SETTLE_NONE;
            else usage();
            break;
        case 'r': options.refill = true; break;
        case 'S': options.stream = optarg; break;
        case 'C': options.consumer = optarg; break;
        case 'n': options.batch = atoi(optarg); break;
        default: usage();
        }
    }
    if (optind != argc || options.connections < 1 || options.connections > MAX_CONNECTIONS || options.batch < 1 ||
        options.batch > MAX_BATCH || options.window < 1 || options.total < 1 || options.payload_size < 0)
        usage();
    if (options.fetch ? (options.mailbox == NULL) == (options.stream == NULL || options.consumer == NULL)
                      : options.subject == NULL)
        usage();
}

int main(int argc, char **argv) {
    parse_arguments(argc, argv);
    make_filler();
    const char *name = options.stream ? options.consumer : options.group;
    bool separate = options.fetch && strstr(name, "{c}") != NULL;
    group_count = separate ? options.connections : 1;
    for (int i = 0; i < options.connections; i++) {
        struct connection *c = &connections[i];
        open_connection(c, i);
        c->group = &groups[separate ? i : 0];
        substitute(c->group->name, sizeof c->group->name, name, "{c}", i);
        c->quota = options.total / options.connections + (i < options.total % options.connections);
        if (!options.fetch) c->sent_at = checked(calloc((size_t)c->quota + 1, sizeof(double)));
    }
    clockid_t server_clock = 0;
    if (options.server_pid != 0 && clock_getcpuclockid(options.server_pid, &server_clock) != 0)
        die("no process %d", options.server_pid);

    double server_before = options.server_pid ? clock_seconds(server_clock) : 0;
    double own_before = clock_seconds(CLOCK_PROCESS_CPUTIME_ID), began = now();
    run();
    double seconds = now() - began, own_cpu = clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - own_before;
    double server_cpu = options.server_pid ? clock_seconds(server_clock) - server_before : 0;

    long messages = 0, expected = options.fetch ? options.total * group_count : options.total;
    for (int i = 0; i < group_count; i++) messages += groups[i].received;
    if (!options.fetch && options.id_field == NULL) messages = reply_count;
    if (messages != expected && error_count == 0) {
        char text[64];
        fail("messages missing or too many", text, (size_t)snprintf(text, sizeof text, "%ld, not %ld", messages, expected));
    }
    printf("{\"messages\":%ld,\"cycles\":%ld,\"empty\":%ld,\"seconds\":%.6f,\"per_second\":%.1f,", messages, cycle_count,
           empty_count, seconds, (double)messages / seconds);
    printf("\"generator_cpu_s\":%.6f,\"server_cpu_s\":%.6f,", own_cpu, server_cpu);
    if (options.fetch) {
        print_percentiles("fetch", &fetch_samples);
        print_percentiles("settle", &settle_samples);
    }
    print_percentiles(options.fetch ? "cycle" : "latency", &cycle_samples);
    printf("\"errors\":%ld,", error_count);
    print_text("first_error", first_error);
    putchar(',');
    print_text("first_reply", first_reply);
    puts("}");
    return error_count != 0;
}
