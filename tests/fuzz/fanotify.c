/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is read from fanotify, as any bytes: what is taken of a record lies in it, handles fit, and names end. */

#include <stdlib.h>

#include "fanotify.h"
#include "fuzz.h"

static bool lies_in(const void *p, size_t size, const event_record *m) {
        const char *start = (const char *)m + m->metadata_len, *end = (const char *)m + m->event_len;

        return (const char *)p >= start && (const char *)p <= end && size <= (size_t)(end - (const char *)p);
}

static void expect_handle(struct handle_ref h, const event_record *m) {
        struct handle copy;

        if (h.size == 0)
                return;
        fuzz_assert(lies_in(h.bytes, h.size, m));
        fuzz_assert(h.size <= sizeof(copy.bytes));
        handle_copy(&copy, h);
        fuzz_assert(handle_ref_equal(handle_refer(&copy), h));
        fuzz_assert(handle_hash(handle_refer(&copy)) == handle_hash(h));
}

static void expect_entry(struct handle_ref dir, const char *name, const event_record *m) {
        expect_handle(dir, m);
        fuzz_assert(dir.size == 0 || name);
        fuzz_assert(!name || lies_in(name, strlen(name) + 1, m));
}

static void input(const uint8_t *data, size_t size) {
        char *read = fuzz_copy(data, size);
        const event_record *m;

        for (size_t position = 0; (m = fanotify_first_record(read + position, size - position));) {
                struct event_info e;

                fuzz_assert((const char *)m == read + position);
                fuzz_assert(m->event_len >= sizeof(*m) && m->event_len <= size - position);
                if (fanotify_parse(m, &e)) {
                        fuzz_assert(e.mask == m->mask && e.pid == m->pid);
                        expect_entry(e.dir, e.name, m);
                        expect_entry(e.to_dir, e.to_name, m);
                        expect_handle(e.object, m);
                }
                position += m->event_len;
                if (position % _Alignof(event_record) != 0) /* the kernel's are aligned */
                        break;
        }
        free(read);
}

const struct fuzz_target fuzz_target = { .input = input };
