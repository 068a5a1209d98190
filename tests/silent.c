/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "silent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "macro.h"

/* More than FUSE_MIN_READ_BUFFER: a request with what it writes. */
enum { REQUEST_BYTES = 256 * 1024 };

static struct {
        atomic_uint requests, lookups;
} *counts; /* shared with the server */

static int answer_init(int fuse, char *request) {
        struct {
                struct fuse_out_header header;
                struct fuse_init_out init;
        } answer = { 0 };
        struct fuse_in_header header;
        ssize_t n = read(fuse, request, REQUEST_BYTES);

        if (n < (ssize_t)sizeof(header))
                return n < 0 ? -errno : -EPROTO;
        memcpy(&header, request, sizeof(header));
        if (header.opcode != FUSE_INIT)
                return -EPROTO;
        answer.header = (struct fuse_out_header){ .len = sizeof(answer), .unique = header.unique };
        answer.init.major = FUSE_KERNEL_VERSION;
        answer.init.minor = FUSE_KERNEL_MINOR_VERSION;
        answer.init.max_write = 4096;
        answer.init.flags = FUSE_PARALLEL_DIROPS; /* many can wait at a time */
        return write(fuse, &answer, sizeof(answer)) == (ssize_t)sizeof(answer) ? 0 : -errno;
}

static void answer(int fuse, const struct fuse_in_header *header, const void *data, size_t size) {
        struct {
                struct fuse_out_header header;
                char data[256];
        } answer = { .header = { .len = (uint32_t)(sizeof(answer.header) + size), .unique = header->unique } };

        memcpy(answer.data, data, size);
        (void)!write(fuse, &answer, answer.header.len);
}

/* The file, as it is looked up and opened. False: it is something else. */
static bool answer_about_file(int fuse, const struct fuse_in_header *header, const char *name) {
        enum { FILE_NODE = 2, FOREVER_SEC = 1000000 };

        if (header->opcode == FUSE_LOOKUP && strcmp(name, SILENT_FILE) == 0) {
                struct fuse_entry_out entry = {
                        .nodeid = FILE_NODE, .entry_valid = FOREVER_SEC, .attr_valid = FOREVER_SEC,
                        .attr = { .ino = FILE_NODE, .mode = S_IFREG | 0644, .nlink = 1 },
                };

                answer(fuse, header, &entry, sizeof(entry));
                return true;
        }
        if (header->opcode == FUSE_OPEN && header->nodeid == FILE_NODE) {
                struct fuse_open_out opened = { 0 };

                answer(fuse, header, &opened, sizeof(opened));
                return true;
        }
        return false;
}

static int begin(const char *path, char *request, int *ret_fuse) {
        int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
        char options[128];

        if (fuse < 0)
                return -errno;
        (void)snprintf(options, sizeof(options), "fd=%d,rootmode=40755,user_id=0,group_id=0,allow_other", fuse);
        if (mount("silent", path, "fuse.silent", MS_NOSUID | MS_NODEV, options) < 0)
                return -errno;
        *ret_fuse = fuse;
        return answer_init(fuse, request);
}

/* Takes requests, so that nobody who waits can be interrupted but by his end. */
static _Noreturn void serve(const char *path, int told, pid_t parent) {
        static char request[REQUEST_BYTES];
        int fuse = -1, r = prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ? -errno : begin(path, request, &fuse);

        if (getppid() != parent || write(told, &r, sizeof(r)) != sizeof(r) || r < 0)
                _exit(1);
        for (ssize_t n; (n = read(fuse, request, sizeof(request))) > 0 || errno == EINTR;) {
                struct fuse_in_header header;

                if (n < (ssize_t)sizeof(header))
                        continue;
                memcpy(&header, request, sizeof(header));
                if (answer_about_file(fuse, &header, request + sizeof(header)))
                        continue;
                if (header.opcode == FUSE_LOOKUP)
                        atomic_fetch_add(&counts->lookups, 1);
                atomic_fetch_add(&counts->requests, 1);
        }
        _exit(0);
}

pid_t silent_mount(const char *path) {
        pid_t parent = getpid(), server;
        int told[2], r = -EIO;

        if (!counts) {
                void *page = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

                if (page == MAP_FAILED)
                        return -errno;
                counts = page;
        }
        if (pipe2(told, O_CLOEXEC) < 0)
                return -errno;
        server = fork();
        if (server < 0)
                r = -errno;
        if (server == 0)
                serve(path, told[1], parent);
        (void)close(told[1]);
        if (server > 0 && read(told[0], &r, sizeof(r)) != sizeof(r))
                r = -EIO;
        (void)close(told[0]);
        if (server > 0 && r < 0)
                (void)waitpid(server, NULL, 0);
        return r < 0 ? r : server;
}

unsigned silent_lookups(void) {
        return counts ? atomic_load(&counts->lookups) : 0;
}

unsigned silent_requests(void) {
        return counts ? atomic_load(&counts->requests) : 0;
}

void silent_end(pid_t server, const char *path) {
        (void)kill(server, SIGKILL);
        (void)waitpid(server, NULL, 0);
        (void)umount2(path, MNT_DETACH);
}
