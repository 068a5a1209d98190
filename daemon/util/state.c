/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "state.h"

#include <errno.h>
#include <string.h>

#include "macro.h"

#define NONE UINT64_MAX

/* ---- writing ------------------------------------------------------------------- */

void state_writer_free(struct state_writer *w) {
        buffer_free(&w->bytes);
        free(take_pointer(&w->fds));
        w->n_fds = w->fds_capacity = 0;
}

void state_put_u64(struct state_writer *w, uint64_t value) {
        buffer_put(&w->bytes, &value, sizeof(value));
}

void state_put_bytes(struct state_writer *w, const void *bytes, size_t size) {
        state_put_u64(w, bytes ? size : NONE);
        if (bytes)
                buffer_put(&w->bytes, bytes, size);
}

void state_put_string(struct state_writer *w, const char *string) {
        state_put_bytes(w, string, string ? strlen(string) + 1 : 0);
}

void state_put_fd(struct state_writer *w, int fd) {
        if (fd >= 0 && w->n_fds == w->fds_capacity) {
                size_t capacity = MAX(w->fds_capacity * 2, (size_t)64);
                int *fds = realloc(w->fds, capacity * sizeof(*fds));

                if (!fds) {
                        w->bytes.error = -ENOMEM;
                        return;
                }
                w->fds = fds;
                w->fds_capacity = capacity;
        }
        state_put_u64(w, fd >= 0 ? w->n_fds : NONE);
        if (fd >= 0)
                w->fds[w->n_fds++] = fd;
}

size_t state_begin(struct state_writer *w) {
        state_put_u64(w, 0);
        return w->bytes.size;
}

void state_end(struct state_writer *w, size_t begin) {
        uint64_t size = w->bytes.size - begin;

        if (!w->bytes.error)
                memcpy(w->bytes.data + begin - sizeof(size), &size, sizeof(size));
}

void state_cancel(struct state_writer *w, size_t begin, size_t n_fds) {
        if (w->bytes.error) /* it is of no use anyway */
                return;
        w->bytes.size = begin - sizeof(uint64_t);
        w->n_fds = n_fds;
}

/* ---- reading ------------------------------------------------------------------- */

uint64_t state_get_u64(struct state_reader *r) {
        uint64_t value;

        if (r->failed || (size_t)(r->end - r->next) < sizeof(value)) {
                r->failed = true;
                return 0;
        }
        memcpy(&value, r->next, sizeof(value));
        r->next += sizeof(value);
        return value;
}

const void *state_get_bytes(struct state_reader *r, size_t *ret_size) {
        uint64_t size = state_get_u64(r);
        const void *bytes = r->next;

        *ret_size = 0;
        if (r->failed || size == NONE)
                return NULL;
        if (size > (size_t)(r->end - r->next)) {
                r->failed = true;
                return NULL;
        }
        r->next += size;
        *ret_size = size;
        return bytes;
}

const char *state_get_string(struct state_reader *r) {
        size_t size;
        const char *string = state_get_bytes(r, &size);

        if (string && (size == 0 || memchr(string, 0, size) != string + size - 1)) {
                r->failed = true;
                return NULL;
        }
        return string;
}

int state_get_fd(struct state_reader *r) {
        uint64_t i = state_get_u64(r);

        return !r->failed && i < r->fds->n ? take_fd(&r->fds->fds[i]) : -1;
}

struct state_reader state_get_section(struct state_reader *r) {
        size_t size;
        const char *bytes = state_get_bytes(r, &size);

        return (struct state_reader){
                .next = bytes, .end = bytes ? bytes + size : NULL, .fds = r->fds, .failed = !bytes,
        };
}

size_t state_get_count(struct state_reader *r, size_t bytes_of_each) {
        uint64_t n = state_get_u64(r);

        if (n > (size_t)(r->end - r->next) / bytes_of_each) {
                r->failed = true;
                return 0;
        }
        return r->failed ? 0 : (size_t)n;
}
