/* A thread that helps with work in parts. It never needs the interpreter, so the two do not wait for each other:
 * whoever has work offers it, goes on with something else, and does then whatever parts are left. */
#if !defined(_WIN32)
#define _GNU_SOURCE
#include "helper.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

enum { STACK_BYTES = 256 * 1024, LOOKS_BEFORE_WAITING = 50000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t offered = PTHREAD_COND_INITIALIZER, left = PTHREAD_COND_INITIALIZER;
/* What is offered, or what the helper is at; the helper or, if it has not come, the one who offered takes it away. */
static mq9_work *current;
static int is_helping, has_helper;
static pthread_t helper;
/* The processor that the helper keeps away from. */
static int avoided = -1;

static void do_parts(mq9_work *work) {
    for (;;) {
        long start = atomic_fetch_add(&work->next, work->step);
        if (start >= work->size) return;
        work->part(work, start, start + work->step < work->size ? start + work->step : work->size);
    }
}

/* The processor of the one who offers is busy; without this the helper was often put there, and waited. */
static void keep_away(void) {
#ifdef __linux__
    int processor = sched_getcpu();
    cpu_set_t allowed;
    if (processor < 0 || processor == avoided || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    if (!CPU_ISSET(processor, &allowed) || CPU_COUNT(&allowed) < 2) return;
    CPU_CLR(processor, &allowed);
    if (pthread_setaffinity_np(helper, sizeof allowed, &allowed) == 0) avoided = processor;
#endif
}

static void *help(void *nothing) {
#ifdef SCHED_BATCH
    /* It takes a processor that is free, and none from a thread that runs. */
    const struct sched_param same = {.sched_priority = 0};
    sched_setscheduler(0, SCHED_BATCH, &same);
#endif
    pthread_mutex_lock(&lock);
    for (;;) {
        while (current == NULL) pthread_cond_wait(&offered, &lock);
        mq9_work *work = current;
        is_helping = 1;
        pthread_mutex_unlock(&lock);
        do_parts(work);
        pthread_mutex_lock(&lock);
        is_helping = 0;
        current = NULL;
        atomic_store(&work->is_shared, 0);
        pthread_cond_signal(&left);
    }
    return nothing;
}

/* A child process has no helper. What that of its parent was at is to be done from the beginning. */
static void forget_helper(void) {
    if (current != NULL) {
        atomic_store(&current->next, 0);
        atomic_store(&current->is_shared, 0);
    }
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&offered, NULL);
    pthread_cond_init(&left, NULL);
    current = NULL;
    is_helping = has_helper = 0;
    avoided = -1;
}

static int start_helper(void) {
    static int is_registered;
    if (!is_registered && pthread_atfork(NULL, NULL, forget_helper) != 0) return 0;
    is_registered = 1;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return 0;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    /* Signals are for the threads of the interpreter. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int is_there = pthread_create(&helper, &attributes, help, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return is_there;
}

void mq9_offer(mq9_work *work) {
    atomic_init(&work->next, 0);
    atomic_init(&work->is_shared, 0);
    if (work->size <= work->step) return;
    pthread_mutex_lock(&lock);
    if (!has_helper) has_helper = start_helper();
    if (has_helper && current == NULL) {
        keep_away();
        current = work;
        atomic_store(&work->is_shared, 1);
        pthread_cond_signal(&offered);
    }
    pthread_mutex_unlock(&lock);
}

void mq9_finish(mq9_work *work) {
    do_parts(work);
    /* The helper's last part takes some microseconds, waking up from a sleep takes more. */
    for (int i = 0; i < LOOKS_BEFORE_WAITING && atomic_load(&work->is_shared); i++) {
        if (i == 0) {
            pthread_mutex_lock(&lock);
            if (current == work && !is_helping) {
                current = NULL;
                atomic_store(&work->is_shared, 0);
            }
            pthread_mutex_unlock(&lock);
        }
    }
    if (!atomic_load(&work->is_shared)) return;
    pthread_mutex_lock(&lock);
    while (atomic_load(&work->is_shared)) pthread_cond_wait(&left, &lock);
    pthread_mutex_unlock(&lock);
}
#endif
