/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What one daemon leaves to the next: values one behind another, and descriptors.
 *
 * Who reads asks for the same in the same order. Sections have their length in
 * front, so that one that can't be made use of is passed over as a whole. All of
 * it may be wrong: a reader never goes beyond what is there, and remembers that
 * something was not (`failed`); everything it gives from then on is 0, or empty.
 *
 * Numbers are in the machine's own byte order: both daemons run on it.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

/* ---- writing ------------------------------------------------------------------- */

struct state_writer {
        struct buffer bytes; /* bytes.error: no memory, and it is of no use */
        int *fds;            /* borrowed from whoever put them in */
        size_t n_fds, fds_capacity;
};

void state_writer_free(struct state_writer *w);

void state_put_u64(struct state_writer *w, uint64_t value);
static inline void state_put_i64(struct state_writer *w, int64_t value) {
        state_put_u64(w, (uint64_t)value);
}
static inline void state_put_bool(struct state_writer *w, bool value) {
        state_put_u64(w, value);
}
/* NULL stays NULL. */
void state_put_bytes(struct state_writer *w, const void *bytes, size_t size);
void state_put_string(struct state_writer *w, const char *string);
/* It has to stay open until all is handed over. -1 stays -1. */
void state_put_fd(struct state_writer *w, int fd);

/* Returns what the end is to be told. */
size_t state_begin(struct state_writer *w);
void state_end(struct state_writer *w, size_t begin);
/* All as it was before the section began, when there were so many descriptors. */
void state_cancel(struct state_writer *w, size_t begin, size_t n_fds);

/* ---- reading ------------------------------------------------------------------- */

struct state_fds {
        int *fds; /* -1: not there, or taken */
        size_t n;
};

struct state_reader {
        const char *next, *end;
        struct state_fds *fds;
        bool failed;
};

uint64_t state_get_u64(struct state_reader *r);
static inline int64_t state_get_i64(struct state_reader *r) {
        return (int64_t)state_get_u64(r);
}
static inline bool state_get_bool(struct state_reader *r) {
        return state_get_u64(r) != 0;
}
/* They live as long as the state does. NULL: there were none. */
const void *state_get_bytes(struct state_reader *r, size_t *ret_size);
/* With its NUL; NULL: there was none, or it holds a NUL. */
const char *state_get_string(struct state_reader *r);
/* The caller's from here on. -1: there was none. */
int state_get_fd(struct state_reader *r);
/* What is in the section; the reader goes on behind it. */
struct state_reader state_get_section(struct state_reader *r);
/* A number of things, of which each takes up so many bytes at least. */
size_t state_get_count(struct state_reader *r, size_t bytes_of_each);
static inline bool state_is_at_end(const struct state_reader *r) {
        return r->failed || r->next == r->end;
}
