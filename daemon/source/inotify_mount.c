/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Mounts that come and go: inotify tells nothing of them (but for the file system of a watched directory that is
 * unmounted), and a directory that is mounted over goes on telling what nobody can see. /proc/self/mountinfo says
 * that something has changed (proc_pid_mountinfo(5): POLLPRI); what, the difference to the last reading says.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>

#include "inotify_tree.h"
#include "log.h"

struct mount {
        struct hash_node node; /* by id */
        uint64_t id;
        uint64_t reading; /* the last that had it */
        char path[];
};

static struct mount *find_mount(const struct inotify *s, uint64_t id) {
        struct hash_node *n = s->mounts.n_nodes > 0 ? hash_first(&s->mounts, hash_u64(id)) : NULL;

        while (n && container_of(n, struct mount, node)->id != id)
                n = hash_next(n);
        return n ? container_of(n, struct mount, node) : NULL;
}

/* Something else is to be seen in this place than before. */
static void on_changed(struct inotify *s, const char *path) {
        const char *name = strrchr(path, '/') + 1;
        struct dir *parent = tree_find_path(&s->tree, path, (size_t)(name - path));
        struct dir *dir = tree_find_path(&s->tree, path, strlen(path));

        if (dir && dir->n_watches > 0)
                list_for_each(entry, &s->tree.watches) {
                        struct file_watch *watch = list_entry(entry, struct file_watch, link);

                        if (tree_is_below(watch->dir, dir))
                                tree_check_place(s, watch);
                }
        if (dir && !list_empty(&dir->subscriptions)) /* see tree_on_place() */
                return;
        if (*name == 0 || !parent || !parent->mark || !tree_wants(&s->tree, parent, name))
                return;
        dir = tree_make_child(&s->tree, parent, name);
        if (dir)
                tree_crawl(s, dir, PURPOSE_RECHECK, 0, 0, NULL);
        else
                s->in_doubt = true;
}

static void add_mount(struct inotify *s, uint64_t id, const char *path) {
        size_t size = strlen(path) + 1;
        struct mount *mount = find_mount(s, id);

        if (mount && strcmp(mount->path, path) == 0) {
                mount->reading = s->mount_reading;
                return;
        }
        /* A mount that was moved goes from where it was as it is not found there any more. */
        if (mount) {
                if (s->mount_reading > 1)
                        on_changed(s, mount->path);
                hash_remove(&s->mounts, &mount->node);
                free(mount);
        }
        mount = malloc(sizeof(*mount) + size);
        if (!mount) {
                s->in_doubt = true;
                return;
        }
        mount->id = id;
        mount->reading = s->mount_reading;
        memcpy(mount->path, path, size);
        if (hash_add(&s->mounts, &mount->node, hash_u64(id)) < 0) {
                free(mount);
                s->in_doubt = true;
        } else if (s->mount_reading > 1)
                on_changed(s, path);
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

/* "36 35 98:0 /root /mount/point options ...": the first and the fifth. */
static void take_line(struct inotify *s, char *line) {
        char *end;
        uint64_t id = strtoull(line, &end, 10);

        for (int field = 1; field < 5 && *end; field++) {
                end += strcspn(end, " ");
                end += strspn(end, " ");
        }
        if (*end != '/') /* not reachable from the daemon's root, or not understood */
                return;
        end[strcspn(end, " ")] = 0;
        unescape(end);
        add_mount(s, id, end);
}

static void read_mounts(struct inotify *s) {
        FILE *file = fopen("/proc/self/mountinfo", "re");
        char *line = NULL;
        size_t size = 0;

        if (!file) {
                s->in_doubt = true;
                return;
        }
        s->mount_reading++;
        while (getline(&line, &size, file) > 0)
                take_line(s, line);
        free(line);
        (void)fclose(file);
        hash_for_each(node, &s->mounts) {
                struct mount *mount = container_of(node, struct mount, node);

                if (mount->reading == s->mount_reading)
                        continue;
                on_changed(s, mount->path);
                hash_remove(&s->mounts, &mount->node);
                free(mount);
        }
}

static void on_mounts_changed(struct mux_io *io, unsigned events _unused_) {
        struct inotify *s = container_of(io, struct inotify, mount_io);

        read_mounts(s);
        wait_look_all(s);
}

void mounts_open(struct inotify *s) {
        int r;

        s->mount_io = MUX_IO_INIT;
        s->mount_fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
        r = s->mount_fd < 0 ? -errno : mux_add(s->mux, &s->mount_io, s->mount_fd, MUX_PRI, on_mounts_changed);
        if (r < 0) {
                log_notice("inotify: mounts can't be followed: %s", strerror(-r));
                s->mount_fd = safe_close(s->mount_fd);
                return;
        }
        read_mounts(s);
}

void mounts_close(struct inotify *s) {
        if (s->mount_fd >= 0)
                mux_remove(s->mux, &s->mount_io);
        s->mount_fd = safe_close(s->mount_fd);
        if (s->mounts.n_nodes == 0)
                return;
        hash_for_each(node, &s->mounts)
                free(container_of(node, struct mount, node));
        hash_free(&s->mounts);
}
