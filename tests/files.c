/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

const char *at(const char *format, ...) {
        static char space[256 * 1024 * 1024];
        static size_t used;
        char *path = space + used;
        va_list arguments;

        va_start(arguments, format);
        used += (size_t)vsnprintf(path, sizeof(space) - used, format, arguments) + 1;
        va_end(arguments);
        ck_assert_uint_lt(used, sizeof(space));
        return path;
}

static int open_to_write(const char *path, int flags) {
        int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0644);

        assert_system(fd >= 0, path);
        return fd;
}

void put(const char *path, int flags, const char *text) {
        int fd = open_to_write(path, flags);

        assert_system(write(fd, text, strlen(text)) == (ssize_t)strlen(text), path);
        (void)close(fd);
}

void make_file(const char *path) {
        (void)close(open_to_write(path, O_CREAT | O_EXCL));
}

void append(const char *path, const char *text) {
        put(path, O_CREAT | O_APPEND, text);
}

void change_mode(const char *path, mode_t mode) {
        assert_system(chmod(path, mode) == 0, path);
}

void remove_file(const char *path) {
        assert_system(unlink(path) == 0, path);
}

void make_dir(const char *path) {
        assert_system(mkdir(path, 0755) == 0, path);
}

void remove_dir(const char *path) {
        assert_system(rmdir(path) == 0, path);
}

const char *make_root(const char *name) {
        const char *path = at("%s/%s", harness_tempdir(), name);

        make_dir(path);
        return path;
}

size_t make_tree(const char *path, int width, int depth) {
        size_t n = 1;

        make_file(at("%s/file", path));
        for (int i = 0; depth > 0 && i < width; i++) {
                const char *child = at("%s/d%d", path, i);

                make_dir(child);
                n += make_tree(child, width, depth - 1);
        }
        return n;
}

void touch_tree(const char *path, int width, int depth, const char *name) {
        char child[PATH_MAX];

        make_file(at("%s/%s", path, name));
        for (int i = 0; depth > 0 && i < width; i++) {
                (void)snprintf(child, sizeof(child), "%s/d%d", path, i);
                touch_tree(child, width, depth - 1, name);
        }
}

size_t make_file_everywhere(const char *path, const char *name) {
        DIR *directory = opendir(path);
        struct dirent *entry;
        size_t n = 1;

        assert_system(directory, path);
        while ((entry = readdir(directory)))
                if (entry->d_type == DT_DIR && strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                        n += make_file_everywhere(at("%s/%s", path, entry->d_name), name);
        (void)closedir(directory);
        make_file(at("%s/%s", path, name));
        return n;
}

int make_deep(int fd, const char *name, int depth) {
        fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        for (int i = 0; i < depth; i++) {
                int below, file;

                assert_system(mkdirat(fd, name, 0755) == 0, name);
                below = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                assert_system(below >= 0, name);
                (void)close(fd);
                fd = below;
                file = openat(fd, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
                assert_system(file >= 0, "file");
                (void)close(file);
        }
        return fd;
}

void move(const char *from, const char *to) {
        assert_system(rename(from, to) == 0, from);
}

void exchange(const char *from, const char *to) {
        assert_system(renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE) == 0, from);
}

void run(const char *directory, const char *script) {
        pid_t pid = fork();
        int status;

        assert_system(pid >= 0, "fork");
        if (pid == 0) {
                if (chdir(directory) == 0)
                        (void)execl("/bin/sh", "sh", "-euc", script, NULL);
                _exit(127);
        }
        assert_system(waitpid(pid, &status, 0) == pid, "waitpid");
        ck_assert_msg(status == 0, "%s: status %d", script, status);
}

pid_t fork_writer(void) {
        pid_t pid = fork();

        assert_system(pid >= 0, "fork");
        return pid;
}

void reap(pid_t pid) {
        int status;

        assert_system(waitpid(pid, &status, 0) == pid, "waitpid");
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child's status was %d", status);
}

const char *keep_mounts_private(void) {
        if (unshare(CLONE_NEWNS) < 0)
                return errno == EPERM ? "a mount namespace takes root" : "there are no mount namespaces";
        if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return "the root directory is not a mount point (a chroot?), so mounts can't be kept private";
        return NULL;
}

void need_private_mounts(void) {
        const char *missing = keep_mounts_private();

        if (missing)
                harness_skip(missing);
}
