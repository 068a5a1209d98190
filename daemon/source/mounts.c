/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "log.h"

struct mount {
        struct hash_node node; /* by id */
        uint64_t id;
        uint64_t device;
        uint64_t first, reading; /* the first, and the last, reading that had it */
        char path[];
};

static struct mount *find_mount(const struct mounts *m, uint64_t id) {
        struct hash_node *n = m->table.n_nodes > 0 ? hash_first(&m->table, hash_u64(id)) : NULL;

        while (n && container_of(n, struct mount, node)->id != id)
                n = hash_next(n);
        return n ? container_of(n, struct mount, node) : NULL;
}

static void add_mount(struct mounts *m, uint64_t id, uint64_t device, const char *path) {
        size_t size = strlen(path) + 1;
        struct mount *mount = find_mount(m, id);

        if (mount && strcmp(mount->path, path) == 0) {
                mount->reading = m->reading;
                return;
        }
        /* A mount that was moved goes from where it was as it is not found there any more. */
        if (mount) {
                if (m->reading > 1)
                        m->changed(m, mount->path);
                hash_remove(&m->table, &mount->node);
                free(mount);
        }
        mount = malloc(sizeof(*mount) + size);
        if (!mount) {
                m->doubt(m);
                return;
        }
        mount->id = id;
        mount->device = device;
        mount->first = m->reading;
        mount->reading = m->reading;
        memcpy(mount->path, path, size);
        if (hash_add(&m->table, &mount->node, hash_u64(id)) < 0) {
                free(mount);
                m->doubt(m);
        } else if (m->reading > 1)
                m->changed(m, path);
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

/* "36 35 98:0 /root /mount/point options ...": the first, the third and the fifth. */
static void take_line(struct mounts *m, char *line) {
        char *end;
        uint64_t id = strtoull(line, &end, 10);
        unsigned major = 0, minor = 0;

        for (int field = 1; field < 5 && *end; field++) {
                end += strcspn(end, " ");
                end += strspn(end, " ");
                if (field == 2)
                        (void)sscanf(end, "%u:%u", &major, &minor);
        }
        if (*end != '/') /* not reachable from the daemon's root, or not understood */
                return;
        end[strcspn(end, " ")] = 0;
        unescape(end);
        add_mount(m, id, makedev(major, minor), end);
}

static void read_mounts(struct mounts *m) {
        FILE *file = fopen("/proc/self/mountinfo", "re");
        char *line = NULL;
        size_t size = 0;

        if (!file) {
                m->doubt(m);
                return;
        }
        m->reading++;
        while (getline(&line, &size, file) > 0)
                take_line(m, line);
        free(line);
        (void)fclose(file);
        hash_for_each(node, &m->table) {
                struct mount *mount = container_of(node, struct mount, node);

                if (mount->reading == m->reading)
                        continue;
                m->changed(m, mount->path);
                hash_remove(&m->table, &mount->node);
                free(mount);
        }
}

bool mounts_has_lasting(const struct mounts *m, uint64_t device) {
        if (m->fd < 0)
                return true;
        hash_for_each(node, &m->table) {
                const struct mount *mount = container_of(node, struct mount, node);

                if (mount->device == device && mount->first < m->reading)
                        return true;
        }
        return false;
}

static void on_mounts_changed(struct mux_io *io, unsigned events _unused_) {
        struct mounts *m = container_of(io, struct mounts, io);

        read_mounts(m);
        m->done(m);
}

void mounts_open(struct mounts *m, struct mux *mux) {
        int r;

        m->mux = mux;
        m->io = MUX_IO_INIT;
        m->fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
        r = m->fd < 0 ? -errno : mux_add(m->mux, &m->io, m->fd, MUX_PRI, on_mounts_changed);
        if (r < 0) {
                log_notice("mounts can't be followed: %s", strerror(-r));
                m->fd = safe_close(m->fd);
                return;
        }
        read_mounts(m);
}

void mounts_close(struct mounts *m) {
        if (m->fd >= 0)
                mux_remove(m->mux, &m->io);
        m->fd = safe_close(m->fd);
        if (m->table.n_nodes == 0)
                return;
        hash_for_each(node, &m->table)
                free(container_of(node, struct mount, node));
        hash_free(&m->table);
}
