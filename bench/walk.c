/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a program does that watches a tree itself: readdir(3), and
 * inotify_add_watch(2) on each directory.
 */

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>

#include "watcher.h"

uint32_t walk_mask(enum watcher_events events) {
        if (events == WATCHER_CONTENT)
                return IN_CREATE | IN_MODIFY | IN_ONLYDIR | IN_EXCL_UNLINK;
        return IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB |
               IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_EXCL_UNLINK;
}

static void note(struct walk *walk, const char *path) {
        if (walk->last)
                (void)snprintf(walk->last, PATH_MAX, "%s", path);
        if (walk->every == 0 || walk->n % walk->every != 0 || walk->n_samples == walk->n_samples_max)
                return;
        walk->samples[walk->n_samples] = strdup(path);
        bench_check_system(walk->samples[walk->n_samples], "strdup");
        walk->n_samples++;
}

/* `path` has PATH_MAX bytes. */
static void walk_directory(struct walk *walk, char *path) {
        size_t size = strlen(path);
        struct dirent *entry;
        DIR *directory;

        if (walk->inotify_fd >= 0)
                bench_check_system(inotify_add_watch(walk->inotify_fd, path, walk->mask) >= 0, path);
        note(walk, path);
        walk->n++;
        directory = opendir(path);
        bench_check_system(directory, path);
        while ((entry = readdir(directory))) {
                size_t name_size = strlen(entry->d_name);

                if (entry->d_type != DT_DIR || strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
                    size + name_size + 2 > PATH_MAX)
                        continue;
                path[size] = '/';
                memcpy(path + size + 1, entry->d_name, name_size + 1);
                walk_directory(walk, path);
                path[size] = 0;
        }
        (void)closedir(directory);
}

void walk_tree(struct walk *walk, const char *path) {
        char buffer[PATH_MAX];

        (void)snprintf(buffer, sizeof(buffer), "%s", path);
        walk_directory(walk, buffer);
}
