/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "directory_name.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buffer.h"
#include "file_system.h"
#include "macro.h"

enum {
        LISTED_BYTES_MAX = 16 * 1024 * 1024,
        LARGE_BYTES = 64 * 1024, /* with less it is read again: on the way up there are many such, which cost little */
        KEPT = 2,
};

/* The directories in one directory: of each its inode's number and its name, with its NUL. */
struct listing {
        struct handle directory;
        int mount;
        struct buffer all;
};

/* Large ones, in the order of their last use. */
static struct listing kept[KEPT];

static int list(DIR *directory, struct buffer *all) {
        struct dirent *entry;

        while ((entry = readdir(directory))) {
                ino_t inode = entry->d_ino;

                if (strcmp(entry->d_name, "..") == 0 || (entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN))
                        continue;
                buffer_put(all, &inode, sizeof(inode));
                buffer_put(all, entry->d_name, strlen(entry->d_name) + 1);
                if (all->error)
                        return all->error;
                if (all->size > LISTED_BYTES_MAX)
                        return -EMLINK;
        }
        return 0;
}

static int read_names(int parent, struct buffer *all) {
        int fd = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;
        DIR *directory = fd < 0 ? NULL : fdopendir(fd);

        if (!directory) {
                (void)safe_close(fd);
                return -EACCES;
        }
        r = list(directory, all);
        (void)closedir(directory);
        return r;
}

static bool is_it(int parent, const char *name, const struct handle *wanted, int mount) {
        struct handle found;
        int mount_found;

        return get_handle(parent, name, &found, &mount_found) == 0 && mount_found == mount && handle_equal(&found, wanted);
}

/* Whether the numbers that a listing has are those of the inodes: on a file system that is put together from others
 * they may not be, nor are those of btrfs's subvolumes, each of which is a device of its own to stat(2). Its first is
 * mostly the directory itself. */
static bool has_own_numbers(int parent, const struct buffer *all, dev_t wanted_device) {
        struct stat st;
        ino_t inode;

        for (size_t at = 0; at < all->size; at += sizeof(inode) + strlen(all->data + at + sizeof(inode)) + 1) {
                memcpy(&inode, all->data + at, sizeof(inode));
                if (strcmp(all->data + at + sizeof(inode), ".") == 0)
                        return fstat(parent, &st) == 0 && st.st_ino == inode && st.st_dev == wanted_device;
        }
        return false;
}

static int find(int parent, const struct buffer *all, const struct stat *st, const struct handle *wanted, int mount,
                char *ret_name) {
        bool any_number = !has_own_numbers(parent, all, st->st_dev);
        ino_t inode;

        for (size_t at = 0; at < all->size;) {
                const char *name = all->data + at + sizeof(inode);

                memcpy(&inode, all->data + at, sizeof(inode));
                at += sizeof(inode) + strlen(name) + 1;
                if ((inode != st->st_ino && !any_number) || strcmp(name, ".") == 0 || !is_it(parent, name, wanted, mount))
                        continue;
                (void)snprintf(ret_name, 256, "%s", name);
                return 0;
        }
        return -EAGAIN;
}

static size_t find_kept(const struct listing *listing) {
        size_t i = 0;

        while (i < KEPT && (kept[i].all.size == 0 || kept[i].mount != listing->mount ||
                            !handle_equal(&kept[i].directory, &listing->directory)))
                i++;
        return i;
}

/* It comes first, and those before the i-th move up. */
static void put_first(struct listing listing, size_t i) {
        memmove(kept + 1, kept, i * sizeof(*kept));
        kept[0] = listing;
}

/* In the place of what is known of the same directory, or else of what was not used for longest. */
static void keep(struct listing *listing, size_t i) {
        if (listing->all.size < LARGE_BYTES && i == KEPT) {
                buffer_free(&listing->all);
                return;
        }
        i = MIN(i, (size_t)KEPT - 1);
        buffer_free(&kept[i].all);
        put_first(*listing, i);
}

int directory_name(int parent, int fd, char *ret_name) {
        struct listing listing = { .all = BUFFER_INIT };
        struct handle wanted;
        int mount, listed, r = get_handle(parent, "", &listing.directory, &listing.mount);
        struct stat st;
        size_t i;

        if (r == 0)
                r = get_handle(fd, "", &wanted, &mount);
        if (r == 0 && fstat(fd, &st) < 0)
                r = -errno;
        if (r != 0)
                return r;
        i = find_kept(&listing);
        if (i < KEPT && find(parent, &kept[i].all, &st, &wanted, mount, ret_name) == 0) {
                put_first(kept[i], i);
                return 0;
        }
        listed = read_names(parent, &listing.all);
        if (listed != 0 && listed != -EMLINK) {
                buffer_free(&listing.all);
                return listed;
        }
        r = find(parent, &listing.all, &st, &wanted, mount, ret_name);
        keep(&listing, i);
        return r == -EAGAIN && listed != 0 ? listed : r; /* it may be among those that were not read */
}

void directory_names_forget(void) {
        for (size_t i = 0; i < KEPT; i++)
                buffer_free(&kept[i].all);
}
