/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "buffer.h"
#include "log.h"
#include "state.h"

enum { READ_BYTES = 4096, RETRY_MSEC = 100 };

struct mount {
        struct hash_node node; /* by id */
        uint64_t id, parent;
        uint64_t device;
        bool is_kernels_own, is_visible;
        uint64_t first, reading; /* the first, and the last, reading that had it */
        uint64_t changed; /* the last by which a mount in its place came or went */
        char path[];
};

static struct mount *find_mount(const struct mounts *m, uint64_t id) {
        struct hash_node *n = m->table.n_nodes > 0 ? hash_first(&m->table, hash_u64(id)) : NULL;

        while (n && container_of(n, struct mount, node)->id != id)
                n = hash_next(n);
        return n ? container_of(n, struct mount, node) : NULL;
}

/* A mount there has come, or goes. */
static void tell_changed(struct mounts *m, const char *path) {
        hash_for_each(node, &m->table) {
                struct mount *mount = container_of(node, struct mount, node);

                if (strcmp(mount->path, path) == 0)
                        mount->changed = m->reading;
        }
        m->changed(m, path);
}

/* -ENOMEM: it is not in the table, and with the next reading it is new. */
static int add_mount(struct mounts *m, const struct mount *found, const char *path) {
        uint64_t id = found->id;
        size_t size = strlen(path) + 1;
        struct mount *mount = find_mount(m, id);

        if (mount && mount->device == found->device && strcmp(mount->path, path) == 0) {
                mount->parent = found->parent;
                mount->reading = m->reading;
                return 0;
        }
        /* A mount that was moved goes from where it was as it is not found there any more. */
        if (mount) {
                if (m->reading > 1)
                        tell_changed(m, mount->path);
                hash_remove(&m->table, &mount->node);
                free(mount);
        }
        mount = malloc(sizeof(*mount) + size);
        if (!mount)
                return -ENOMEM;
        *mount = *found;
        mount->first = mount->reading = mount->changed = m->reading;
        memcpy(mount->path, path, size);
        if (hash_add(&m->table, &mount->node, hash_u64(id)) < 0) {
                free(mount);
                return -ENOMEM;
        }
        if (m->reading > 1)
                tell_changed(m, path);
        return 0;
}

/* Blanks and the like stand there as "\040". In place. */
static void unescape(char *text) {
        char *to = text;

        for (const char *p = text; *p;) {
                if (p[0] == '\\' && p[1] >= '0' && p[1] <= '3' && p[2] >= '0' && p[2] <= '7' && p[3] >= '0' &&
                    p[3] <= '7') {
                        *to++ = (char)((p[1] - '0') * 64 + (p[2] - '0') * 8 + (p[3] - '0'));
                        p += 4;
                } else
                        *to++ = *p++;
        }
        *to = 0;
}

static bool is_kernels_own(const char *type) {
        static const char *const types[] = {
                "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "efivarfs", "fusectl",
                "mqueue", "nsfs", "proc", "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs",
        };
        size_t size = strcspn(type, " ");

        for (size_t i = 0; i < ARRAY_SIZE(types); i++)
                if (strlen(types[i]) == size && memcmp(types[i], type, size) == 0)
                        return true;
        return false;
}

/* "36 35 98:0 /root /mount/point options ... - type source ...". */
static int take_line(struct mounts *m, char *line) {
        const char *type = strstr(line, " - ");
        struct mount found = { 0 };
        char *end;
        unsigned major = 0, minor = 0;

        found.id = strtoull(line, &end, 10);
        found.is_kernels_own = type && is_kernels_own(type + 3);
        for (int field = 1; field < 5 && *end; field++) {
                end += strcspn(end, " ");
                end += strspn(end, " ");
                if (field == 1)
                        found.parent = strtoull(end, NULL, 10);
                else if (field == 2)
                        (void)sscanf(end, "%u:%u", &major, &minor);
        }
        found.device = makedev(major, minor);
        if (*end != '/') /* not reachable from the daemon's root, or not understood */
                return 0;
        end[strcspn(end, " ")] = 0;
        unescape(end);
        return add_mount(m, &found, end);
}

/* All of it, before any of it is taken: an error is not the end, with what would stand behind it gone. */
static int read_text(const struct mounts *m, struct buffer *text) {
        ssize_t n;

        do {
                char *room = buffer_reserve(text, READ_BYTES);

                n = room ? pread(m->fd, room, READ_BYTES, (off_t)text->size) : -1;
                if (n < 0)
                        return room ? -errno : -ENOMEM;
                text->size += (size_t)n;
        } while (n > 0);
        buffer_put(text, "", 1);
        return text->error;
}

static int read_mounts(struct mounts *m) {
        struct buffer text _cleanup_(buffer_free) = BUFFER_INIT;
        int r = read_text(m, &text);

        if (r < 0)
                return r;
        m->reading++;
        for (char *line = text.data, *end; (end = strchr(line, '\n')); line = end + 1) {
                *end = 0;
                if (take_line(m, line) < 0)
                        r = -ENOMEM;
        }
        hash_for_each(node, &m->table) {
                struct mount *mount = container_of(node, struct mount, node);

                if (mount->reading == m->reading)
                        continue;
                tell_changed(m, mount->path);
                hash_remove(&m->table, &mount->node);
                free(mount);
        }
        return r;
}

static bool is_at_or_below(const char *path, const char *above) {
        size_t size = strcmp(above, "/") == 0 ? 0 : strlen(above);

        return strncmp(path, above, size) == 0 && (path[size] == '/' || path[size] == 0);
}

/* Of those that are mounted over each other in one place, the one that can be seen. */
static bool is_topmost(const struct mounts *m, const struct mount *mount) {
        hash_for_each(node, &m->table) {
                const struct mount *other = container_of(node, struct mount, node);

                if (other != mount && other->parent == mount->id && strcmp(other->path, mount->path) == 0)
                        return false;
        }
        return true;
}

/* Whether what leads to it is the mount that it was mounted in. */
static bool is_reachable(const struct mounts *m, const struct mount *mount) {
        const struct mount *above = NULL;

        hash_for_each(node, &m->table) {
                const struct mount *other = container_of(node, struct mount, node);

                if (other->id == mount->parent && strcmp(other->path, mount->path) == 0)
                        return true; /* right over it */
                if (other == mount || strcmp(other->path, mount->path) == 0 || !is_at_or_below(mount->path, other->path) ||
                    !is_topmost(m, other))
                        continue;
                if (!above || strlen(other->path) > strlen(above->path))
                        above = other;
        }
        return !above || above->id == mount->parent;
}

/* Once a reading, whoever asks. */
static void find_visible(struct mounts *m) {
        hash_for_each(node, &m->table) {
                struct mount *mount = container_of(node, struct mount, node);

                mount->is_visible = is_topmost(m, mount) && is_reachable(m, mount);
        }
        m->visible_reading = m->reading;
}

void mounts_for_each(struct mounts *m, void (*fn)(void *userdata, const struct mount_view *mount), void *userdata) {
        if (m->visible_reading != m->reading)
                find_visible(m);
        hash_for_each(node, &m->table) {
                const struct mount *mount = container_of(node, struct mount, node);
                struct mount_view view = {
                        .path = mount->path, .is_kernels_own = mount->is_kernels_own, .changed = mount->changed,
                };

                if (mount->is_visible)
                        fn(userdata, &view);
        }
}

bool mounts_show(const struct mounts *m, uint64_t id) {
        const struct mount *mount = find_mount(m, id);

        if (m->fd < 0 || m->reading == 0 || m->is_behind)
                return true;
        return mount && is_topmost(m, mount) && is_reachable(m, mount);
}

bool mounts_has_lasting(const struct mounts *m, uint64_t device) {
        if (m->fd < 0 || m->reading < 2)
                return true;
        hash_for_each(node, &m->table) {
                const struct mount *mount = container_of(node, struct mount, node);

                if (mount->device == device && mount->first < m->reading)
                        return true;
        }
        return false;
}

static void on_mounts_changed(struct mux_io *io, unsigned events _unused_) {
        mounts_compare(container_of(io, struct mounts, io));
}

static int follow(struct mounts *m) {
        int r;

        if (m->fd >= 0)
                return 0;
        m->fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
        r = m->fd < 0 ? -errno : mux_add(m->mux, &m->io, m->fd, MUX_PRI, on_mounts_changed);
        if (r < 0)
                m->fd = safe_close(m->fd);
        return r;
}

static void on_retry_timer(struct mux_timer *timer) {
        mounts_compare(container_of(timer, struct mounts, retry_timer));
}

/* The kernel says once that something has changed: it is not waited for. */
static void fall_behind(struct mounts *m, int r) {
        if (!m->is_behind) {
                log_notice("mounts can't be followed: %s", strerror(-r));
                m->doubt(m);
        }
        m->is_behind = true;
        if (is_shortage(r))
                (void)mux_timer_set(m->mux, &m->retry_timer, monotonic_nsec() + RETRY_MSEC * NSEC_PER_MSEC,
                                    on_retry_timer);
}

void mounts_open(struct mounts *m, struct mux *mux) {
        int r;

        m->mux = mux;
        m->io = MUX_IO_INIT;
        m->retry_timer = MUX_TIMER_INIT;
        m->fd = -1;
        r = follow(m);
        if (r == 0)
                r = read_mounts(m);
        if (r < 0)
                fall_behind(m, r);
}

static void forget_all(struct mounts *m) {
        if (m->table.n_nodes == 0)
                return;
        hash_for_each(node, &m->table)
                free(container_of(node, struct mount, node));
        hash_free(&m->table);
}

void mounts_close(struct mounts *m) {
        if (m->fd >= 0)
                mux_remove(m->mux, &m->io);
        m->fd = safe_close(m->fd);
        mux_timer_clear(m->mux, &m->retry_timer);
        forget_all(m);
}

/* ---- for the next daemon ----------------------------------------------------------- */

void mounts_save(const struct mounts *m, struct state_writer *w) {
        state_put_u64(w, m->table.n_nodes);
        hash_for_each(node, &m->table) {
                const struct mount *mount = container_of(node, const struct mount, node);

                state_put_u64(w, mount->id);
                state_put_u64(w, mount->parent);
                state_put_u64(w, mount->device);
                state_put_bool(w, mount->is_kernels_own);
                state_put_string(w, mount->path);
        }
}

void mounts_load(struct mounts *m, struct state_reader *r) {
        size_t n = state_get_count(r, 5 * sizeof(uint64_t));
        bool missed = false;

        if (r->failed)
                return;
        forget_all(m);
        m->reading = 2; /* not the first one: from here on what is new is told */
        for (size_t i = 0; i < n; i++) {
                struct mount mount = { 0 }, *known;
                const char *path;

                mount.id = state_get_u64(r);
                mount.parent = state_get_u64(r);
                mount.device = state_get_u64(r);
                mount.is_kernels_own = state_get_bool(r);
                path = state_get_string(r);
                known = path && path[0] == '/' ? malloc(sizeof(mount) + strlen(path) + 1) : NULL;
                if (!known) {
                        missed = true;
                        continue;
                }
                *known = mount;
                known->first = known->reading = known->changed = m->reading;
                memcpy(known->path, path, strlen(path) + 1);
                if (hash_add(&m->table, &known->node, hash_u64(known->id)) < 0) {
                        free(known);
                        missed = true;
                }
        }
        if (missed)
                m->doubt(m);
        mux_timer_clear(m->mux, &m->retry_timer); /* once all is restored they are compared */
}

void mounts_compare(struct mounts *m) {
        uint64_t before = m->reading;
        int r = follow(m);

        if (r == 0)
                r = read_mounts(m);
        if (r < 0)
                fall_behind(m, r);
        else {
                m->is_behind = false;
                mux_timer_clear(m->mux, &m->retry_timer);
        }
        if (m->reading == before)
                return;
        if (before == 0) /* there was nothing to compare with */
                m->doubt(m);
        m->done(m);
}
