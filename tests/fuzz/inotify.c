/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is read from inotify, as any bytes: every event that is taken is whole, and one stands behind the other. */

#include <stdlib.h>

#include "fuzz.h"
#include "inotify.h"

static void input(const uint8_t *data, size_t size) {
        char *read = fuzz_copy(data, size);
        const struct inotify_event *event;

        for (size_t position = 0; (event = inotify_first_event(read + position, size - position));) {
                fuzz_assert((const char *)event == read + position);
                fuzz_assert(sizeof(*event) + event->len <= size - position);
                fuzz_assert(event->len == 0 || strlen(event->name) < event->len);
                position += sizeof(*event) + event->len;
                if (event->len % _Alignof(struct inotify_event) != 0) /* the kernel's are aligned */
                        break;
        }
        free(read);
}

const struct fuzz_target fuzz_target = { .input = input };
