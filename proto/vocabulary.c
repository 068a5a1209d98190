/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vocabulary.h"

#include <errno.h>
#include <string.h>

#include "macro.h"

static const char *const filter_names[FILTER_COUNT] = {
        [KEV_FILTER_VNODE] = "vnode",   [KEV_FILTER_TREE] = "tree",     [KEV_FILTER_PROC] = "proc",
        [KEV_FILTER_NETDEV] = "netdev", [KEV_FILTER_READ] = "read",     [KEV_FILTER_WRITE] = "write",
        [KEV_FILTER_POLL] = "poll",     [KEV_FILTER_AIO] = "aio",       [KEV_FILTER_SIGNAL] = "signal",
        [KEV_FILTER_TIMER] = "timer",   [KEV_FILTER_USER] = "user",
};

static const char *const kind_names[KIND_COUNT] = {
        [KEV_KIND_UNKNOWN] = NULL,
        [KEV_KIND_FILE] = "file",
        [KEV_KIND_DIRECTORY] = "directory",
        [KEV_KIND_SYMLINK] = "symlink",
        [KEV_KIND_FIFO] = "fifo",
        [KEV_KIND_SOCKET] = "socket",
        [KEV_KIND_BLOCK_DEVICE] = "blockDevice",
        [KEV_KIND_CHARACTER_DEVICE] = "characterDevice",
};

static const char *const flag_names[FLAG_COUNT] = {
        "oneshot", "dispatch", "disabled", "level", "edge", "exclusive", "eof",
};

/* By bit number. */
static const char *const note_names[NOTE_COUNT] = {
        "delete",   "write",    "extend",   "attrib",  "link",     "rename",   "revoke",   "open",
        "close",    "closewrite", "read",   "create",  "replace",  "movedin",  "movedout", "listed",
        "rescan",   "gone",     "back",     "degraded", "exit",    "reap",     "fork",     "exec",
        "track",    "child",    "trackerr", "uid",     "comm",     "core",     "lost",     "linkup",
        "linkdown", "linkinv",  "add",      "mtu",     "address",  "route",    "flags",    "lowat",
        "eof",      "complete", "sec",      "msec",    "usec",     "nsec",     "abstime",  "trigger",
        "in",       "out",      "pri",      "err",     "hup",      "rdhup",    "nval",     "rdnorm",
        "rdband",   "wrnorm",   "wrband",   "who",
};

#define NOTES_TIME (KEV_NOTE_SEC | KEV_NOTE_MSEC | KEV_NOTE_USEC | KEV_NOTE_NSEC | KEV_NOTE_ABSTIME)
#define NOTES_COSTLY (KEV_NOTE_OPEN | KEV_NOTE_CLOSE | KEV_NOTE_READ)

static const struct {
        uint64_t all, by_default;
} filter_notes[FILTER_COUNT] = {
        [KEV_FILTER_VNODE] = {
                KEV_NOTE_DELETE | KEV_NOTE_WRITE | KEV_NOTE_EXTEND | KEV_NOTE_ATTRIB | KEV_NOTE_LINK |
                        KEV_NOTE_RENAME | KEV_NOTE_REVOKE | NOTES_COSTLY | KEV_NOTE_CLOSEWRITE,
                KEV_NOTE_DELETE | KEV_NOTE_WRITE | KEV_NOTE_EXTEND | KEV_NOTE_ATTRIB | KEV_NOTE_LINK |
                        KEV_NOTE_RENAME | KEV_NOTE_REVOKE | KEV_NOTE_CLOSEWRITE,
        },
        [KEV_FILTER_TREE] = {
                KEV_NOTE_CREATE | KEV_NOTE_DELETE | KEV_NOTE_WRITE | KEV_NOTE_CLOSEWRITE | KEV_NOTE_ATTRIB |
                        KEV_NOTE_RENAME | KEV_NOTE_REPLACE | KEV_NOTE_MOVEDIN | KEV_NOTE_MOVEDOUT |
                        KEV_NOTE_LISTED | KEV_NOTE_RESCAN | KEV_NOTE_GONE | KEV_NOTE_BACK | KEV_NOTE_DEGRADED |
                        KEV_NOTE_WHO,
                KEV_NOTE_CREATE | KEV_NOTE_DELETE | KEV_NOTE_WRITE | KEV_NOTE_CLOSEWRITE | KEV_NOTE_ATTRIB |
                        KEV_NOTE_RENAME | KEV_NOTE_REPLACE | KEV_NOTE_MOVEDIN | KEV_NOTE_MOVEDOUT |
                        KEV_NOTE_LISTED | KEV_NOTE_RESCAN | KEV_NOTE_GONE | KEV_NOTE_BACK | KEV_NOTE_DEGRADED,
        },
        [KEV_FILTER_PROC] = {
                KEV_NOTE_EXIT | KEV_NOTE_REAP | KEV_NOTE_FORK | KEV_NOTE_EXEC | KEV_NOTE_TRACK | KEV_NOTE_CHILD |
                        KEV_NOTE_TRACKERR | KEV_NOTE_UID | KEV_NOTE_COMM | KEV_NOTE_CORE | KEV_NOTE_LOST,
                KEV_NOTE_EXIT,
        },
        [KEV_FILTER_NETDEV] = {
                KEV_NOTE_LINKUP | KEV_NOTE_LINKDOWN | KEV_NOTE_LINKINV | KEV_NOTE_ADD | KEV_NOTE_RENAME |
                        KEV_NOTE_MTU | KEV_NOTE_ADDRESS | KEV_NOTE_ROUTE | KEV_NOTE_FLAGS,
                KEV_NOTE_LINKUP | KEV_NOTE_LINKDOWN | KEV_NOTE_LINKINV | KEV_NOTE_ADD | KEV_NOTE_RENAME |
                        KEV_NOTE_MTU | KEV_NOTE_ADDRESS | KEV_NOTE_ROUTE | KEV_NOTE_FLAGS,
        },
        [KEV_FILTER_READ] = { KEV_NOTE_LOWAT | KEV_NOTE_EOF, KEV_NOTE_LOWAT | KEV_NOTE_EOF },
        [KEV_FILTER_WRITE] = { KEV_NOTE_LOWAT | KEV_NOTE_EOF, KEV_NOTE_LOWAT | KEV_NOTE_EOF },
        [KEV_FILTER_POLL] = {
                KEV_NOTE_IN | KEV_NOTE_OUT | KEV_NOTE_PRI | KEV_NOTE_ERR | KEV_NOTE_HUP | KEV_NOTE_RDHUP |
                        KEV_NOTE_NVAL | KEV_NOTE_RDNORM | KEV_NOTE_RDBAND | KEV_NOTE_WRNORM | KEV_NOTE_WRBAND,
                KEV_NOTE_IN,
        },
        [KEV_FILTER_AIO] = { KEV_NOTE_COMPLETE, KEV_NOTE_COMPLETE },
        [KEV_FILTER_SIGNAL] = { 0, 0 },
        [KEV_FILTER_TIMER] = { NOTES_TIME, KEV_NOTE_MSEC },
        [KEV_FILTER_USER] = { KEV_NOTE_TRIGGER, KEV_NOTE_TRIGGER },
};

static int find(const char *const *names, size_t n_names, const char *name) {
        for (size_t i = 0; i < n_names; i++)
                if (names[i] && strcmp(names[i], name) == 0)
                        return (int)i;
        return -EINVAL;
}

_public_ const char *kev_filter_name(enum kev_filter filter) {
        return (size_t)filter < FILTER_COUNT ? filter_names[filter] : NULL;
}

_public_ const char *kev_kind_name(enum kev_kind kind) {
        return (size_t)kind < KIND_COUNT ? kind_names[kind] : NULL;
}

_public_ const char *kev_note_name(uint64_t note) {
        if (note == 0 || (note & (note - 1)) != 0 || __builtin_ctzll(note) >= NOTE_COUNT)
                return NULL;
        return note_names[__builtin_ctzll(note)];
}

_public_ const char *kev_flag_name(uint32_t flag) {
        if (flag == 0 || (flag & (flag - 1)) != 0 || __builtin_ctz(flag) >= FLAG_COUNT)
                return NULL;
        return flag_names[__builtin_ctz(flag)];
}

_public_ int kev_filter_from_name(const char *name, enum kev_filter *ret_filter) {
        int i = find(filter_names, FILTER_COUNT, name);

        if (i < 0)
                return i;
        *ret_filter = (enum kev_filter)i;
        return 0;
}

_public_ int kev_note_from_name(const char *name, uint64_t *ret_note) {
        int i = find(note_names, NOTE_COUNT, name);

        if (i < 0)
                return i;
        *ret_note = UINT64_C(1) << i;
        return 0;
}

_public_ uint64_t kev_filter_notes(enum kev_filter filter) {
        return (size_t)filter < FILTER_COUNT ? filter_notes[filter].all : 0;
}

_public_ uint64_t kev_filter_default_notes(enum kev_filter filter) {
        return (size_t)filter < FILTER_COUNT ? filter_notes[filter].by_default : 0;
}

int flag_from_name(const char *name, uint32_t *ret_flag) {
        int i = find(flag_names, FLAG_COUNT, name);

        if (i < 0)
                return i;
        *ret_flag = UINT32_C(1) << i;
        return 0;
}

int kind_from_name(const char *name, enum kev_kind *ret_kind) {
        int i = find(kind_names, KIND_COUNT, name);

        if (i < 0)
                return i;
        *ret_kind = (enum kev_kind)i;
        return 0;
}

const char *errno_name(int error) {
        const char *name = strerrorname_np(error);

        return name ? name : "EIO";
}

int errno_from_name(const char *name) {
        for (int i = 1; i < 134; i++) {
                const char *n = strerrorname_np(i);

                if (n && strcmp(n, name) == 0)
                        return i;
        }
        return 0;
}
