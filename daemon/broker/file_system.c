/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "file_system.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "macro.h"

enum { ENOMEM_TRIES = 16, ENOMEM_TRIES_LATER = 20 };

_Static_assert(HANDLE_BYTES_MAX == MAX_HANDLE_SZ, "a handle fits");

static int open_at(int at, const char *path, uint64_t flags, uint64_t resolve) {
        struct open_how how = { .flags = flags | O_CLOEXEC, .resolve = resolve };
        int fd = (int)syscall(SYS_openat2, at, path, &how, sizeof(how));

        return fd < 0 ? -errno : fd;
}

int open_below(int at, const char *path, uint64_t flags, uint64_t resolve) {
        char piece[PATH_MAX];
        int above _cleanup_(closep) = -1;

        while (strlen(path) >= sizeof(piece)) {
                size_t n = sizeof(piece) - 1;
                int fd;

                while (n > 0 && path[n] != '/')
                        n--;
                if (n == 0)
                        return -ENAMETOOLONG;
                memcpy(piece, path, n);
                piece[n] = 0;
                fd = open_at(above < 0 ? at : above, piece, O_PATH | O_DIRECTORY, resolve);
                if (fd < 0)
                        return fd;
                (void)safe_close(above);
                above = fd;
                path += n;
                path += strspn(path, "/");
        }
        return open_at(above < 0 ? at : above, path, flags, resolve);
}

enum kev_kind kind_of_mode(mode_t mode) {
        return S_ISDIR(mode)  ? KEV_KIND_DIRECTORY :
               S_ISREG(mode)  ? KEV_KIND_FILE :
               S_ISLNK(mode)  ? KEV_KIND_SYMLINK :
               S_ISFIFO(mode) ? KEV_KIND_FIFO :
               S_ISSOCK(mode) ? KEV_KIND_SOCKET :
               S_ISBLK(mode)  ? KEV_KIND_BLOCK_DEVICE :
               S_ISCHR(mode)  ? KEV_KIND_CHARACTER_DEVICE :
                                KEV_KIND_UNKNOWN;
}

/* ---- mounts -------------------------------------------------------------------------------- */

int get_mount(int fd, uint64_t *ret_mount) {
        struct statx st;

        if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &st) < 0)
                return -errno;
        *ret_mount = st.stx_mnt_id;
        return 0;
}

int open_mount(const char *mount_point, uint64_t mount, int *ret_fd) {
        uint64_t found = 0;
        int fd _cleanup_(closep) =
                open_at(AT_FDCWD, mount_point, O_RDONLY | O_DIRECTORY, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
        int r = fd < 0 ? fd : get_mount(fd, &found);

        if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP || (r == 0 && found != mount))
                r = -ENODEV;
        if (r == 0)
                *ret_fd = take_fd(&fd);
        return r;
}

/* Blanks and the like stand there as "\040". */
static int copy_unescaped(char *to, size_t size, const char *from, size_t from_size) {
        const char *end = from + from_size;

        while (from < end) {
                char c = *from++;

                if (c == '\\' && end - from >= 3) {
                        c = (char)((from[0] - '0') * 64 + (from[1] - '0') * 8 + (from[2] - '0'));
                        from += 3;
                }
                if (size-- <= 1)
                        return -ENAMETOOLONG;
                *to++ = c;
        }
        *to = 0;
        return 0;
}

/* "36 35 98:0 /root /mount/point options ... - ext4 /dev/sda rw" */
static int take_mount_line(const char *line, struct mount_info *ret) {
        unsigned major, minor;
        const char *path, *type = strstr(line, " - ");
        int n = 0;

        if (sscanf(line, "%*u %*u %u:%u %*s %n", &major, &minor, &n) < 2 || n == 0 || !type)
                return -EINVAL;
        path = line + n;
        ret->device = makedev(major, minor);
        type += 3;
        if (copy_unescaped(ret->mount_point, sizeof(ret->mount_point), path, strcspn(path, " ")) < 0 ||
            copy_unescaped(ret->file_system, sizeof(ret->file_system), type, strcspn(type, " ")) < 0)
                return -ENAMETOOLONG;
        type += strcspn(type, " ");
        type += *type == ' ';
        return copy_unescaped(ret->source, sizeof(ret->source), type, strcspn(type, " \n"));
}

int get_mount_info(uint64_t mount, struct mount_info *ret) {
        FILE *file = fopen("/proc/self/mountinfo", "re");
        char *line _cleanup_(freep) = NULL;
        size_t size = 0;
        int r = -ENOENT;

        if (!file)
                return -errno;
        while (r == -ENOENT && getline(&line, &size, file) > 0)
                if (strtoull(line, NULL, 10) == mount)
                        r = take_mount_line(line, ret);
        (void)fclose(file);
        return r;
}

int open_top_of_btrfs(uint64_t mount, int *ret_fd) {
        struct mount_info info;
        int r = get_mount_info(mount, &info), context _cleanup_(closep) = -1, fd;

        if (r < 0)
                return r;
        if (strcmp(info.file_system, "btrfs") != 0)
                return -EXDEV;
        context = (int)syscall(SYS_fsopen, "btrfs", FSOPEN_CLOEXEC);
        if (context < 0)
                return -errno;
        if (syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "source", info.source, 0) < 0 ||
            syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "subvolid", "5", 0) < 0 ||
            syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
                return -errno;
        fd = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY);
        if (fd < 0)
                return -errno;
        *ret_fd = fd;
        return 0;
}

/* ---- handles: name_to_handle_at(2) ------------------------------------------------------------- */

int get_handle(int fd, const char *name, struct handle *ret, int *ret_mount) {
        union {
                struct file_handle handle;
                char bytes[sizeof(struct file_handle) + HANDLE_BYTES_MAX];
        } space = { .handle = { .handle_bytes = HANDLE_BYTES_MAX } };

        if (name_to_handle_at(fd, name, &space.handle, ret_mount, *name ? 0 : AT_EMPTY_PATH) < 0)
                return -errno;
        ret->type = space.handle.handle_type;
        ret->size = space.handle.handle_bytes;
        memcpy(ret->bytes, space.handle.f_handle, ret->size);
        return 0;
}

int open_handle(int mount_fd, const struct handle *handle, int flags) {
        union {
                struct file_handle handle;
                char bytes[sizeof(struct file_handle) + HANDLE_BYTES_MAX];
        } space;
        int fd = -1;

        space.handle.handle_bytes = handle->size;
        space.handle.handle_type = handle->type;
        memcpy(space.handle.f_handle, handle->bytes, handle->size);
        /* ext4 says so of a directory that is just being removed, too: by somebody who may have to wait for a
         * processor. */
        for (int i = 0; i < ENOMEM_TRIES + ENOMEM_TRIES_LATER; i++) {
                if (i >= ENOMEM_TRIES)
                        (void)poll(NULL, 0, 1);
                fd = open_by_handle_at(mount_fd, &space.handle, flags | O_CLOEXEC);
                if (fd >= 0 || errno != ENOMEM)
                        break;
        }
        return fd < 0 ? -errno : fd;
}
