/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "long-names.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "macro.h"

enum {
        REQUEST_BYTES = 256 * 1024, /* more than FUSE_MIN_READ_BUFFER */
        NAME_BYTES = 1024,
        NODES_MAX = 64,
};

struct node {
        uint64_t parent; /* 0: it is not there */
        char name[NAME_BYTES + 1];
};

/* By number: the first is nobody's, and the next the root. */
static struct node nodes[NODES_MAX] = { [FUSE_ROOT_ID] = { .parent = FUSE_ROOT_ID } };

static struct fuse_attr attributes(uint64_t number) {
        return (struct fuse_attr){ .ino = number, .mode = S_IFDIR | 0777, .nlink = 2 };
}

static struct fuse_entry_out entry_of(uint64_t number) {
        return (struct fuse_entry_out){ .nodeid = number, .attr = attributes(number) };
}

/* 0: there is none. */
static uint64_t find(uint64_t parent, const char *name) {
        for (uint64_t i = FUSE_ROOT_ID + 1; i < NODES_MAX; i++)
                if (nodes[i].parent == parent && strcmp(nodes[i].name, name) == 0)
                        return i;
        return 0;
}

static int put(uint64_t number, uint64_t parent, const char *name) {
        if (number == NODES_MAX)
                return -ENOSPC;
        nodes[number].parent = parent;
        (void)snprintf(nodes[number].name, sizeof(nodes[number].name), "%s", name);
        return 0;
}

static uint64_t find_free(void) {
        uint64_t i = FUSE_ROOT_ID + 1;

        while (i < NODES_MAX && nodes[i].parent)
                i++;
        return i;
}

/* The entries from number `at` on, as many as have room. Returns their bytes. */
static size_t list(uint64_t parent, uint64_t at, char *data, size_t room) {
        size_t size = 0;

        for (uint64_t i = MAX(at, (uint64_t)FUSE_ROOT_ID + 1); i < NODES_MAX; i++) {
                struct fuse_dirent entry = { .ino = i, .off = i + 1, .type = S_IFDIR >> 12 };
                size_t bytes;

                entry.namelen = (uint32_t)strlen(nodes[i].name);
                bytes = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + entry.namelen);
                if (nodes[i].parent != parent)
                        continue;
                if (size + bytes > room)
                        break;
                memset(data + size, 0, bytes);
                memcpy(data + size, &entry, FUSE_NAME_OFFSET);
                memcpy(data + size + FUSE_NAME_OFFSET, nodes[i].name, entry.namelen);
                size += bytes;
        }
        return size;
}

/* Fills in the answer; returns how many bytes it has, or a negative errno. */
static int answer_about(const struct fuse_in_header *header, const char *p, char *data, size_t room) {
        struct fuse_entry_out entry = { 0 };
        uint64_t number;

        if (header->opcode == FUSE_LOOKUP || header->opcode == FUSE_MKDIR) {
                bool makes = header->opcode == FUSE_MKDIR;
                const char *name = p + (makes ? sizeof(struct fuse_mkdir_in) : 0);

                number = makes ? find_free() : find(header->nodeid, name);
                if (number == 0 || (makes && put(number, header->nodeid, name) < 0))
                        return makes ? -ENOSPC : -ENOENT;
                entry = entry_of(number);
                memcpy(data, &entry, sizeof(entry));
                return sizeof(entry);
        }
        if (header->opcode == FUSE_RENAME) {
                struct fuse_rename_in in;
                const char *name = p + sizeof(in);

                memcpy(&in, p, sizeof(in));
                number = find(header->nodeid, name);
                return number == 0 ? -ENOENT : put(number, in.newdir, name + strlen(name) + 1);
        }
        if (header->opcode == FUSE_GETATTR) {
                struct fuse_attr_out out = { .attr = attributes(header->nodeid) };

                memcpy(data, &out, sizeof(out));
                return sizeof(out);
        }
        if (header->opcode == FUSE_OPENDIR) {
                struct fuse_open_out out = { 0 };

                memcpy(data, &out, sizeof(out));
                return sizeof(out);
        }
        if (header->opcode == FUSE_READDIR) {
                struct fuse_read_in in;

                memcpy(&in, p, sizeof(in));
                return (int)list(header->nodeid, in.offset, data, MIN(room, (size_t)in.size));
        }
        return header->opcode == FUSE_RELEASEDIR ? 0 : -ENOSYS;
}

static int answer_init(char *data) {
        struct fuse_init_out init = {
                .major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION, .max_write = 4096,
        };

        memcpy(data, &init, sizeof(init));
        return sizeof(init);
}

/* False: it has ended. */
static bool serve_one(int fuse) {
        static char request[REQUEST_BYTES];
        static struct {
                struct fuse_out_header header;
                char data[REQUEST_BYTES];
        } answer;
        struct fuse_in_header header;
        ssize_t n = read(fuse, request, sizeof(request));
        int r;

        if (n < (ssize_t)sizeof(header))
                return n < 0 && (errno == EINTR || errno == ENOENT);
        memcpy(&header, request, sizeof(header));
        if (header.opcode == FUSE_FORGET || header.opcode == FUSE_BATCH_FORGET || header.opcode == FUSE_INTERRUPT)
                return true;
        r = header.opcode == FUSE_INIT ?
                    answer_init(answer.data) :
                    answer_about(&header, request + sizeof(header), answer.data, sizeof(answer.data));
        answer.header = (struct fuse_out_header){
                .len = (uint32_t)sizeof(answer.header) + (uint32_t)MAX(r, 0),
                .error = MIN(r, 0),
                .unique = header.unique,
        };
        return write(fuse, &answer, answer.header.len) >= 0 || errno == ENOENT;
}

static int begin(const char *path, int *ret_fuse) {
        int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
        char options[128];

        if (fuse < 0)
                return -errno;
        (void)snprintf(options, sizeof(options), "fd=%d,rootmode=40755,user_id=0,group_id=0,allow_other", fuse);
        if (mount("names", path, "fuse.names", MS_NOSUID | MS_NODEV, options) < 0)
                return -errno;
        *ret_fuse = fuse;
        return 0;
}

pid_t long_names_mount(const char *path) {
        pid_t parent = getpid(), server;
        int fuse = -1, r = begin(path, &fuse);

        if (r < 0)
                return r;
        server = fork();
        if (server == 0) {
                if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
                        _exit(1);
                while (serve_one(fuse))
                        ;
                _exit(0);
        }
        r = server < 0 ? -errno : server;
        (void)close(fuse);
        return r;
}

void long_names_end(pid_t server, const char *path) {
        (void)umount2(path, MNT_DETACH);
        (void)kill(server, SIGKILL);
        (void)waitpid(server, NULL, 0);
}
