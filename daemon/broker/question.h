/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the daemon asks of the processes that have the rights it has given up,
 * and what they answer: messages on sequenced-packet sockets between processes of
 * one program, so plain structures, each checked for its size before it is used.
 *
 *   the broker     starts the others, one for each request; does nothing else
 *   a surveyor     has marked one file system, and answers about its handles
 *   a stand-in     has one peer's user and groups, and nothing more
 *   a deputy       the same, and watches files for the peer (deputy.h)
 *   an opener      has opened what a feed reads, and keeps it (opener.h)
 *   the observer   looks at processes (observer.h)
 *
 * A surveyor and a stand-in answer in the order of the questions. All of them end
 * when the daemon's end of their socket is closed.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#include "buffer.h"
#include "event.h"

/* A file as its file system names it: name_to_handle_at(2). */
enum { HANDLE_BYTES_MAX = 128 };

struct handle {
        int32_t type;
        uint32_t size;
        unsigned char bytes[HANDLE_BYTES_MAX];
};

static inline bool handle_equal(const struct handle *a, const struct handle *b) {
        return a->type == b->type && a->size == b->size && memcmp(a->bytes, b->bytes, a->size) == 0;
}

/* ---- to the broker -------------------------------------------------------------------- */

enum {
        HELPER_SURVEYOR = 1,
        HELPER_STAND_IN,
        HELPER_DEPUTY,
        HELPER_NETWORK, /* the network namespace is beside the request, or it is the broker's; ends with its first message */
        HELPER_PROCESSES, /* these three: opener.h */
        HELPER_SIGNALS,
        HELPER_CONNECTOR,
        HELPER_OBSERVER, /* these two: the socket that it is to answer on is beside the request; observer.h */
        HELPER_USERS_OBSERVER,
        HELPER_GROUPS_MAX = 1024,
        HELPER_PATH_MAX = 4096,
};

/* Each is answered by an int, 0 or a negative errno, and with 0 by the new
 * helper's socket beside it. The helper's own first message is an answer to
 * nothing: whether it could begin, and beside it a surveyor's fanotify group, or a
 * network namespace's socket. Those of feeds' helpers: opener.h. */
struct helper_request {
        uint32_t kind;
        /* A surveyor: the mount that leads to its file system. */
        uint64_t mount;
        uint64_t mask; /* fanotify_mark(2) */
        uint32_t limited_queue; /* not 0: its queue is no longer than fs.fanotify.max_queued_events */
        char mount_point[HELPER_PATH_MAX];
        /* A network's socket, and what feeds read: of the kernel's queue; 0: as it is. */
        uint64_t buffer_bytes;
        uint32_t is_only; /* not 0: a feed is to do with less than all */
        /* A stand-in, or a deputy. */
        uint32_t uid, gid, n_groups;
        uint32_t groups[HELPER_GROUPS_MAX];
};

/* ---- to the others --------------------------------------------------------------------- */

enum question_kind {
        /* Stand-in: which directory is `path`, or the descriptor sent along? May it be read? Answered by a struct
         * subject_place, its canonical path, and the links from the mount's root down to it. */
        QUESTION_RESOLVE = 1,
        /* Stand-in: may the directory `path`, which has this handle, be read, on this way? */
        QUESTION_ACCESS,
        /* Surveyor: the links from the mount's root down to the directory that has this handle, each true of what has
         * not moved since the question; of what has, the name may be missing. EXDEV: it is not to be seen in the
         * mount. */
        QUESTION_PLACE,
        /* Surveyor: what is `name` in the directory of this handle? Answered by one link; ENOENT. */
        QUESTION_NAME,
        /* Surveyor: what is in the directory of this handle? A link for each. */
        QUESTION_LIST,
};

enum { QUESTION_PATH_MAX = 128 * 1024, ANSWER_BYTES_MAX = 160 * 1024 };

struct question {
        uint32_t kind;
        uint32_t path_size; /* with its NUL, behind the structure */
        uint64_t mount;
        struct handle handle;
        char name[256];
        char mount_point[HELPER_PATH_MAX]; /* of `mount` */
};

struct answer {
        int32_t error; /* positive errno */
        uint32_t more; /* another part follows */
        uint32_t size; /* bytes behind the structure */
};

/* One step down from a directory. The first link of a QUESTION_PLACE is the mount's root, and has no name. */
struct link_header {
        uint16_t name_size;   /* without a NUL */
        uint16_t handle_size; /* 0: none */
        int32_t handle_type;
        uint8_t kind;         /* enum kev_kind */
        uint8_t unused[3];    /* 0: no gap, through which the sender's memory could be seen */
        /* The handle's bytes and the name follow. */
};

struct subject_place {
        uint64_t device, inode;
        uint64_t mount;
        uint64_t file_system;        /* its device, as in /proc/self/mountinfo */
        char file_system_name[32];
        uint32_t mount_point_size;   /* how much of the canonical path that is */
        uint32_t path_size;          /* of the canonical path, which follows, with its NUL */
};

/* One link of what an answer holds. */
struct link_view {
        struct handle handle;
        enum kev_kind kind;
        const char *name; /* no NUL */
        size_t name_size;
};

/* `handle`: NULL, there is none. */
static inline void link_put(struct buffer *b, const struct handle *handle, enum kev_kind kind, const char *name,
                            size_t name_size) {
        struct link_header header = {
                .name_size = (uint16_t)name_size,
                .handle_size = handle ? (uint16_t)handle->size : 0,
                .handle_type = handle ? handle->type : 0,
                .kind = (uint8_t)kind,
        };

        buffer_put(b, (const char *)&header, sizeof(header));
        if (handle)
                buffer_put(b, (const char *)handle->bytes, handle->size);
        buffer_put(b, name, name_size);
}

/* Takes the first link of `*bytes`. False: there is none, or it is not whole. */
static inline bool link_take(const char **bytes, size_t *size, struct link_view *ret) {
        struct link_header h;

        if (*size < sizeof(h))
                return false;
        memcpy(&h, *bytes, sizeof(h));
        if (h.handle_size > HANDLE_BYTES_MAX || *size - sizeof(h) < (size_t)h.handle_size + h.name_size)
                return false;
        ret->kind = h.kind;
        ret->handle.type = h.handle_type;
        ret->handle.size = h.handle_size;
        memcpy(ret->handle.bytes, *bytes + sizeof(h), h.handle_size);
        ret->name = *bytes + sizeof(h) + h.handle_size;
        ret->name_size = h.name_size;
        *bytes += sizeof(h) + h.handle_size + h.name_size;
        *size -= sizeof(h) + h.handle_size + h.name_size;
        return true;
}
