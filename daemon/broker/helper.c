/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Answering the daemon's questions about directories, in a helper: a surveyor,
 * which may read everything, or a stand-in, which may what its peer may.
 *
 * A descriptor keeps its file system from being unmounted, so none is open while a
 * helper waits for questions.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "broker.h"
#include "buffer.h"
#include "directory_name.h"
#include "file_system.h"
#include "macro.h"
#include "packet.h"

enum {
        LEVELS_MAX = 4096, /* of directories beyond what the kernel tells in one go */
        PART_BYTES = 64 * 1024, /* of an answer; then the next part begins */
        PLACE_TRIES = 8,        /* while what is looked for is being moved about */
        STEPS_MAX = 16384,
};

struct helper {
        int socket;
        struct question question;
        char path[QUESTION_PATH_MAX]; /* what came behind it */
        int passed_fd;
        struct buffer answer; /* begins with its struct answer */
        /* The mount of the last question, while others are waiting. */
        int mount_fd;
        uint64_t mount;
};

/* ---- answers ---------------------------------------------------------------------------------- */

static void begin_answer(struct helper *h) {
        buffer_reset(&h->answer);
        if (buffer_reserve(&h->answer, sizeof(struct answer)))
                h->answer.size = sizeof(struct answer);
}

static void send_answer(struct helper *h, int error, bool more) {
        struct answer *answer = (void *)h->answer.data;
        struct iovec part;

        if (h->answer.error || h->answer.size > ANSWER_BYTES_MAX) {
                error = h->answer.error ? -ENOMEM : -ENAMETOOLONG;
                begin_answer(h);
                answer = (void *)h->answer.data;
                if (!answer)
                        _exit(EXIT_FAILURE);
        }
        *answer = (struct answer){
                .error = -error,
                .more = more,
                .size = (uint32_t)(h->answer.size - sizeof(struct answer)),
        };
        part = (struct iovec){ h->answer.data, h->answer.size };
        if (packet_send(h->socket, &part, 1, -1, 0) < 0)
                _exit(0); /* the daemon has gone */
        begin_answer(h);
}

/*
 * What changes a directory takes effect before its event is queued, and the directory is locked over both (Linux:
 * chmod_common(), vfs_set_acl(), do_renameat2() and others): with the lock had once after the look, the event is in
 * the queue. A look-up takes it, unless the answer is cached, as it never is for a name that is too long.
 */
static void await_changes(int directory) {
        static char name[NAME_MAX + 1 + sizeof("18446744073709551615")];
        static uint64_t n;
        char entry[512];
        struct stat st;

        memset(name, 'x', NAME_MAX + 1);
        (void)snprintf(name + NAME_MAX + 1, sizeof(name) - NAME_MAX - 1, "%ju", (uintmax_t)++n);
        if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0 && errno == EACCES)
                (void)getdents64(directory, entry, sizeof(entry)); /* it may be read, not searched */
}

/* ---- places ------------------------------------------------------------------------------------- */

/* Puts the links from a mount's root, `top`, down along `path`, and says whose handle the last has. */
static int put_links(struct helper *h, int top, const char *path, struct handle *ret_last) {
        int fd _cleanup_(closep) = fcntl(top, F_DUPFD_CLOEXEC, 3), mount;
        int r = fd < 0 ? -errno : get_handle(fd, "", ret_last, &mount);

        if (r == 0)
                link_put(&h->answer, ret_last, KEV_KIND_DIRECTORY, "", 0);
        while (r == 0 && *(path += strspn(path, "/"))) {
                size_t size = strcspn(path, "/");
                char name[256];
                int next;

                if (size >= sizeof(name))
                        return -ENAMETOOLONG;
                memcpy(name, path, size);
                name[size] = 0;
                next = open_below(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW,
                                  RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
                if (next < 0)
                        return next;
                (void)close(fd);
                fd = next;
                r = get_handle(fd, "", ret_last, &mount);
                if (r == 0)
                        link_put(&h->answer, ret_last, KEV_KIND_DIRECTORY, name, size);
                path += size;
        }
        return r;
}

static int read_path(int fd, char text[PATH_MAX], size_t *ret_size) {
        char link[32];
        ssize_t n;

        (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        n = readlink(link, text, PATH_MAX - 1);
        if (n < 0)
                return -errno;
        *ret_size = (size_t)n;
        return 0;
}

/* Where a directory is, however long that is: what the kernel can't say in one go is put together from below, its names
 * in the order of the climb. */
static int get_path(int fd, struct buffer *path) {
        struct buffer names _cleanup_(buffer_free) = BUFFER_INIT;
        int at _cleanup_(closep) = fcntl(fd, F_DUPFD_CLOEXEC, 3), r;
        char text[PATH_MAX];
        size_t size = 0, levels = 0;

        if (at < 0)
                return -errno;
        while ((r = read_path(at, text, &size)) == -ENAMETOOLONG) {
                int parent = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
                char name[256];

                if (parent < 0)
                        return -errno;
                r = levels++ < LEVELS_MAX ? directory_name(parent, at, name) : -EMLINK;
                (void)close(at);
                at = parent;
                if (r < 0)
                        return r;
                buffer_put(&names, name, strlen(name) + 1);
        }
        if (r < 0)
                return r;
        buffer_put(path, text, size);
        for (size_t end = names.error ? 0 : names.size; end > 0;) {
                size_t start = end - 1;

                while (start > 0 && names.data[start - 1])
                        start--;
                buffer_put_literal(path, "/");
                buffer_put(path, names.data + start, end - 1 - start);
                end = start;
        }
        return path->error || names.error ? -ENOMEM : 0;
}

/* The part of a path below a mount. NULL: it is not below. */
static const char *below_mount(const char *path, const char *mount_point) {
        size_t size = strlen(mount_point);

        if (size == 1)
                return path[0] == '/' ? path : NULL;
        return strncmp(path, mount_point, size) == 0 && (path[size] == '/' || path[size] == 0) ? path + size : NULL;
}

/* -EAGAIN: it was being moved. */
static int put_place(struct helper *h) {
        struct buffer path _cleanup_(buffer_free) = BUFFER_INIT;
        int fd _cleanup_(closep) = open_handle(h->mount_fd, &h->question.handle, O_PATH | O_DIRECTORY);
        struct handle last;
        const char *below;
        int r = fd < 0 ? fd : get_path(fd, &path);

        if (r < 0)
                return r;
        buffer_put(&path, "", 1);
        if (path.error)
                return -ENOMEM;
        below = below_mount(path.data, h->question.mount_point);
        if (!below)
                return -EXDEV;
        r = put_links(h, h->mount_fd, below, &last);
        if (r == 0 && handle_equal(&last, &h->question.handle))
                return 0;
        return r == -EXDEV ? r : -EAGAIN;
}

struct step {
        struct handle handle;
        char name[256];
};

/* What the directory `fd` is called in `parent`. "": it has just been moved. -EXDEV: something is mounted over it. */
static int read_name(int parent, int fd, struct step *step) {
        char text[PATH_MAX], *name;
        size_t size = 0;
        int r = read_path(fd, text, &size), at _cleanup_(closep) = -1, mount;
        struct handle found;

        step->name[0] = 0;
        if (r == -ENAMETOOLONG)
                r = directory_name(parent, fd, step->name);
        else if (r == 0) {
                text[size] = 0;
                name = strrchr(text, '/');
                (void)snprintf(step->name, sizeof(step->name), "%s", name ? name + 1 : "");
        }
        if (r < 0)
                return r == -EAGAIN ? 0 : r;
        at = open_below(parent, step->name, O_PATH | O_DIRECTORY | O_NOFOLLOW,
                        RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
        r = at < 0 ? at : get_handle(at, "", &found, &mount);
        if (r < 0 && r != -ENOENT && r != -ENOTDIR)
                return r;
        if (r < 0 || !handle_equal(&found, &step->handle))
                step->name[0] = 0;
        return 0;
}

/*
 * The steps from the directory up to the mount's root, which no rename makes impossible, as each is of its own moment.
 * That is enough: what has not moved since the question was put is where its step says, and of what has the daemon goes
 * by the events, which are in the queue once the lock of the directory above was had.
 */
static int climb(struct helper *h, struct buffer *steps) {
        int fd _cleanup_(closep) = open_handle(h->mount_fd, &h->question.handle, O_PATH | O_DIRECTORY);
        struct step step = { 0 };
        struct handle top, above;
        int mount, mount_above, r = fd < 0 ? fd : get_handle(h->mount_fd, "", &top, &mount);
        struct stat st;

        if (r == 0)
                r = get_handle(fd, "", &step.handle, &mount);
        if (r == 0 && fstat(fd, &st) == 0 && st.st_nlink == 0) /* somebody has it open still */
                r = -ENOENT;
        for (size_t n = 0; r == 0 && !handle_equal(&step.handle, &top); n++) {
                int parent = n < STEPS_MAX ? openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;

                if (parent < 0) /* ENOENT: it is not below the mount's root */
                        return n == STEPS_MAX ? -EMLINK : errno == ENOENT ? -EXDEV : -errno;
                r = get_handle(parent, "", &above, &mount_above);
                if (r == 0)
                        r = mount_above == mount ? read_name(parent, fd, &step) : -EXDEV;
                await_changes(parent);
                (void)close(fd);
                fd = parent;
                buffer_put(steps, (const char *)&step, sizeof(step));
                step = (struct step){ .handle = above };
        }
        buffer_put(steps, (const char *)&step, sizeof(step));
        return r < 0 ? r : steps->error ? -ENOMEM : 0;
}

static int put_steps(struct helper *h) {
        struct buffer steps _cleanup_(buffer_free) = BUFFER_INIT;
        int r = climb(h, &steps);

        for (size_t n = r < 0 ? 0 : steps.size / sizeof(struct step); n-- > 0;) {
                struct step step;

                memcpy(&step, steps.data + n * sizeof(step), sizeof(step));
                link_put(&h->answer, &step.handle, KEV_KIND_DIRECTORY, step.name, strlen(step.name));
        }
        return r;
}

static void answer_place(struct helper *h) {
        int r = -EAGAIN;

        for (int i = 0; r == -EAGAIN && i < PLACE_TRIES; i++) {
                begin_answer(h);
                r = put_place(h);
        }
        if (r == -EAGAIN) {
                begin_answer(h);
                r = put_steps(h);
        }
        if (r < 0)
                begin_answer(h);
        send_answer(h, r, false);
}

/* ---- names --------------------------------------------------------------------------------------- */

/* Of a directory the handle as well, as far as there is one, and it is of this file system. */
static int put_entry(struct helper *h, int directory, int mount, const char *name, enum kev_kind kind) {
        struct handle handle;
        int mount_found;
        struct stat st;
        bool has_handle;

        if (kind == KEV_KIND_UNKNOWN) {
                if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
                        return -errno;
                kind = kind_of_mode(st.st_mode);
        }
        has_handle = kind == KEV_KIND_DIRECTORY && get_handle(directory, name, &handle, &mount_found) == 0 &&
                     mount_found == mount;
        link_put(&h->answer, has_handle ? &handle : NULL, kind, name, strlen(name));
        return 0;
}

static void answer_name(struct helper *h) {
        int fd _cleanup_(closep) = open_handle(h->mount_fd, &h->question.handle, O_PATH | O_DIRECTORY), mount;
        struct handle handle;
        int r = fd < 0 ? fd : get_handle(fd, "", &handle, &mount);

        send_answer(h, r < 0 ? r : put_entry(h, fd, mount, h->question.name, KEV_KIND_UNKNOWN), false);
}

static void answer_list(struct helper *h) {
        int fd = open_handle(h->mount_fd, &h->question.handle, O_RDONLY | O_DIRECTORY);
        DIR *directory = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *entry;
        struct handle handle;
        int mount, r = fd < 0 ? fd : get_handle(fd, "", &handle, &mount);

        if (!directory || r < 0) {
                if (directory)
                        (void)closedir(directory);
                else
                        (void)safe_close(fd);
                send_answer(h, r < 0 ? r : -ENOMEM, false);
                return;
        }
        for (;;) {
                errno = 0;
                entry = readdir(directory);
                if (!entry)
                        break;
                if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                        (void)put_entry(h, dirfd(directory), mount, entry->d_name,
                                        entry->d_type == DT_UNKNOWN ? KEV_KIND_UNKNOWN :
                                                                      kind_of_mode(DTTOIF(entry->d_type)));
                if (h->answer.size > PART_BYTES)
                        send_answer(h, 0, true);
        }
        r = -errno;
        (void)closedir(directory);
        send_answer(h, r, false);
}

/* As one look-up of the mount point and the path in it would, but the directories of this mount are waited for. */
static int open_in_peace(const char *mount_point, const char *path) {
        int fd _cleanup_(closep) = -1;

        path += strspn(path, "/");
        fd = open_below(AT_FDCWD, mount_point, (*path ? O_PATH : O_RDONLY) | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
        while (fd >= 0 && *path) {
                size_t size = strcspn(path, "/");
                char name[NAME_MAX + 1];
                int next;

                if (size >= sizeof(name))
                        return -ENAMETOOLONG;
                memcpy(name, path, size);
                name[size] = 0;
                path += size;
                path += strspn(path, "/");
                next = open_below(fd, name, (*path ? O_PATH : O_RDONLY) | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
                await_changes(fd);
                if (next < 0)
                        return next;
                (void)close(fd);
                fd = next;
        }
        if (fd >= 0)
                await_changes(fd);
        return fd < 0 ? fd : take_fd(&fd);
}

static void answer_access(struct helper *h) {
        const char *below = below_mount(h->path, h->question.mount_point);
        int fd _cleanup_(closep) = below ? open_in_peace(h->question.mount_point, below) : -EINVAL;
        struct handle found;
        uint64_t mount = 0;
        int number, r = fd < 0 ? fd : get_handle(fd, "", &found, &number);

        if (r == 0)
                r = get_mount(fd, &mount);
        if (r == 0 && (mount != h->question.mount || !handle_equal(&found, &h->question.handle)))
                r = -ESTALE;
        send_answer(h, r, false);
}

/* ---- the surveyor's loop ---------------------------------------------------------------------------- */

/* False: the daemon has gone. */
static bool take_question(struct helper *h, bool wait) {
        struct iovec parts[] = {
                { .iov_base = &h->question, .iov_len = sizeof(h->question) },
                { .iov_base = h->path, .iov_len = sizeof(h->path) },
        };
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control;
        struct msghdr message = {
                .msg_iov = parts, .msg_iovlen = 2,
                .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes),
        };
        int flags = MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT);
        struct cmsghdr *c;
        size_t size;
        ssize_t n;

        do
                n = recvmsg(h->socket, &message, flags);
        while (packet_again(n, flags));
        if (packet_is_for_later(n))
                return false;
        if (n <= 0)
                _exit(0);
        size = (size_t)n - sizeof(h->question);
        h->passed_fd = -1;
        c = CMSG_FIRSTHDR(&message);
        if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
                memcpy(&h->passed_fd, CMSG_DATA(c), sizeof(int));
        if ((size_t)n < sizeof(h->question) || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ||
            size != h->question.path_size || (size > 0 && h->path[size - 1] != 0) ||
            h->question.handle.size > HANDLE_BYTES_MAX || !memchr(h->question.name, 0, sizeof(h->question.name)) ||
            strchr(h->question.name, '/') || !memchr(h->question.mount_point, 0, HELPER_PATH_MAX))
                _exit(EXIT_FAILURE);
        return true;
}

static void leave_mount(struct helper *h) {
        h->mount_fd = safe_close(h->mount_fd);
}

static int enter_mount(struct helper *h) {
        if (h->mount_fd >= 0 && h->mount == h->question.mount)
                return 0;
        leave_mount(h);
        h->mount = h->question.mount;
        return open_mount(h->question.mount_point, h->mount, &h->mount_fd);
}

static struct helper *new_helper(int socket, const char *name) {
        struct helper *h = calloc(1, sizeof(*h));

        if (!h)
                _exit(EXIT_FAILURE);
        (void)prctl(PR_SET_NAME, name, 0, 0, 0);
        h->socket = socket;
        h->mount_fd = h->passed_fd = -1;
        begin_answer(h);
        return h;
}

void surveyor_run(int socket) {
        struct helper *h = new_helper(socket, "kevd-surveyor");

        for (;;) {
                int r;

                if (!take_question(h, false)) {
                        leave_mount(h);
                        if (!take_question(h, true))
                                _exit(0);
                }
                h->passed_fd = safe_close(h->passed_fd);
                r = enter_mount(h);
                if (r < 0)
                        send_answer(h, r, false);
                else if (h->question.kind == QUESTION_PLACE)
                        answer_place(h);
                else if (h->question.kind == QUESTION_NAME)
                        answer_name(h);
                else if (h->question.kind == QUESTION_LIST)
                        answer_list(h);
                else if (h->question.kind == QUESTION_ACCESS && h->question.path_size > 0)
                        answer_access(h);
                else
                        send_answer(h, -EINVAL, false);
        }
}

/* ---- the stand-in -------------------------------------------------------------------------------------- */

static int put_subject(struct helper *h) {
        struct buffer path _cleanup_(buffer_free) = BUFFER_INIT;
        int fd _cleanup_(closep) = h->passed_fd >= 0 ? openat(h->passed_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) :
                                                       open_below(AT_FDCWD, h->path, O_RDONLY | O_DIRECTORY, 0);
        int top _cleanup_(closep) = -1, r;
        struct mount_info mount = { 0 };
        struct subject_place place = { 0 };
        struct handle wanted = { 0 }, last = { 0 };
        struct stat st;
        int number;

        if (fd < 0)
                return h->passed_fd >= 0 ? -errno : fd;
        if (fstat(fd, &st) < 0)
                return -errno;
        r = get_path(fd, &path);
        if (r == 0)
                r = get_mount(fd, &place.mount);
        if (r == 0) {
                r = get_mount_info(place.mount, &mount);
                if (r == -ENOENT) /* not to be seen from here: the root of a chroot, say */
                        r = -EOPNOTSUPP;
        }
        if (r < 0)
                return r;
        buffer_put(&path, "", 1);
        if (path.error)
                return -ENOMEM;
        place.device = st.st_dev;
        place.inode = st.st_ino;
        place.file_system = mount.device;
        memcpy(place.file_system_name, mount.file_system, sizeof(place.file_system_name));
        place.mount_point_size = (uint32_t)strlen(mount.mount_point);
        place.path_size = (uint32_t)path.size;
        buffer_put(&h->answer, (const char *)&place, sizeof(place));
        buffer_put(&h->answer, path.data, path.size);
        if (!below_mount(path.data, mount.mount_point))
                return st.st_nlink == 0 ? -ENOENT : -EXDEV;
        top = open_below(AT_FDCWD, mount.mount_point, O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
        if (top < 0)
                return top;
        r = get_handle(fd, "", &wanted, &number);
        if (r == 0)
                r = put_links(h, top, below_mount(path.data, mount.mount_point), &last);
        return r == 0 && !handle_equal(&wanted, &last) ? -EAGAIN : r;
}

static void answer_resolve(struct helper *h) {
        int r = -EAGAIN;

        for (int i = 0; r == -EAGAIN && i < PLACE_TRIES; i++) {
                begin_answer(h);
                r = put_subject(h);
        }
        send_answer(h, r == -EAGAIN ? -ENOENT : r, false);
}

void stand_in_run(int socket) {
        struct helper *h = new_helper(socket, "kevd-stand-in");

        for (;;) {
                if (!take_question(h, true))
                        _exit(0);
                if (h->question.path_size == 0 && h->passed_fd < 0)
                        send_answer(h, -EINVAL, false);
                else if (h->question.kind == QUESTION_RESOLVE)
                        answer_resolve(h);
                else if (h->question.kind == QUESTION_ACCESS && h->question.path_size > 0)
                        answer_access(h);
                else
                        send_answer(h, -EINVAL, false);
                directory_names_forget(); /* which only its own user waits for, who may have many stand-ins */
                h->passed_fd = safe_close(h->passed_fd);
        }
}
