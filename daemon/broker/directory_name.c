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

enum { LISTED_BYTES_MAX = 16 * 1024 * 1024 };

/* The directories in one directory: of each its inode's number and its name, with its NUL. */
struct listing {
        struct handle directory;
        int mount;
        struct buffer all;
};

/* The largest of late: on the way up there are others, which cost little. */
static struct listing kept;

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

int directory_name(int parent, int fd, char *ret_name) {
        struct listing listing = { .all = BUFFER_INIT };
        struct handle wanted;
        int mount, listed, r = get_handle(parent, "", &listing.directory, &listing.mount);
        struct stat st;
        bool is_kept;

        if (r == 0)
                r = get_handle(fd, "", &wanted, &mount);
        if (r == 0 && fstat(fd, &st) < 0)
                r = -errno;
        if (r != 0)
                return r;
        is_kept = kept.all.size > 0 && kept.mount == listing.mount && handle_equal(&kept.directory, &listing.directory);
        if (is_kept && find(parent, &kept.all, &st, &wanted, mount, ret_name) == 0)
                return 0;
        listed = read_names(parent, &listing.all);
        if (listed != 0 && listed != -EMLINK) {
                buffer_free(&listing.all);
                return listed;
        }
        r = find(parent, &listing.all, &st, &wanted, mount, ret_name);
        if (is_kept || listing.all.size > kept.all.size) {
                buffer_free(&kept.all);
                kept = listing;
        } else
                buffer_free(&listing.all);
        return r == -EAGAIN && listed != 0 ? listed : r; /* it may be among those that were not read */
}
