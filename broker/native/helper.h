/* A thread that helps with work in parts. */
#ifndef MQ9_HELPER_H
#define MQ9_HELPER_H

#include <stdatomic.h>

/* Work that several threads can do at the same time, each some parts of it. */
typedef struct mq9_work {
    /* Does what there is from `start` to before `end`. Called in any thread, without the interpreter's lock. */
    void (*part)(const struct mq9_work *work, long start, long end);
    /* How much there is, and how much of it is a part. */
    long size, step;
    atomic_long next;
    atomic_int is_shared;
} mq9_work;

/* Offer work to the helper, which does parts of it if it has nothing else to do. Nothing that it needs may change
 * or go away before `mq9_finish` returns. */
void mq9_offer(mq9_work *work);

/* Do what is left of it, and wait for the helper's last part. To be called without the interpreter's lock. */
void mq9_finish(mq9_work *work);

#endif
