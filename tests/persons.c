/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The test and a person's process share a page: a request is put there and a byte sent, the answer is put there and
 * a byte comes back, with a descriptor perhaps. One inotify instance serves all of a person's watches, since its end
 * takes the kernel milliseconds; before each look those that the person could not make any more are taken back.
 */

#include "persons.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "answers.h"
#include "harness.h"
#include "macro.h"

enum {
        PAGE_BYTES = 4 * 1024 * 1024,
        WATCHES_MAX = 65536,
        SEEN = IN_CREATE | IN_DELETE | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO,
};

enum request {
        REQUEST_CONNECT,
        REQUEST_OPEN_PATH,
        REQUEST_MAY_READ,
        REQUEST_WATCH,
        REQUEST_WATCHES,
        REQUEST_READ,
};

struct person_page {
        enum request request;
        int result;
        size_t size;
        char bytes[PAGE_BYTES];
};

/* ---- the person's process: no assertions here ------------------------------------------------------------- */

static struct {
        struct person_page *page;
        int inotify;
        char *paths[WATCHES_MAX]; /* by watch number */
        bool wanted[WATCHES_MAX];
        int last;                 /* the highest number so far */
} self;

static void watch_one(const char *path) {
        int wd = inotify_add_watch(self.inotify, path, SEEN | IN_ONLYDIR | IN_DONT_FOLLOW);

        if (wd < 0)
                return;
        if (wd >= WATCHES_MAX)
                _exit(1);
        free(self.paths[wd]);
        self.paths[wd] = strdup(path);
        self.wanted[wd] = true;
        self.last = MAX(self.last, wd);
}

static void watch_all(void) {
        static char old[65536];

        memset(self.wanted, 0, sizeof(self.wanted));
        for (size_t i = 0; i < self.page->size; i += strlen(self.page->bytes + i) + 1)
                watch_one(self.page->bytes + i);
        for (int wd = 0; wd <= self.last; wd++)
                if (self.paths[wd] && !self.wanted[wd]) {
                        (void)inotify_rm_watch(self.inotify, wd); /* its directory may be gone */
                        free(take_pointer(&self.paths[wd]));
                }
        while (read(self.inotify, old, sizeof(old)) > 0)
                ;
}

static bool watches(const char *path) {
        for (int wd = 0; wd <= self.last; wd++)
                if (self.paths[wd] && strcmp(self.paths[wd], path) == 0)
                        return true;
        return false;
}

__attribute__((format(printf, 1, 2))) static void put_line(const char *format, ...) {
        struct person_page *page = self.page;
        va_list arguments;

        va_start(arguments, format);
        page->size += (size_t)vsnprintf(page->bytes + page->size, PAGE_BYTES - page->size, format, arguments);
        va_end(arguments);
        if (page->size >= PAGE_BYTES)
                _exit(1);
}

static void put_event(const struct inotify_event *e, const struct inotify_event *moved_from) {
        static const struct {
                uint32_t mask;
                const char *note;
        } notes[] = {
                { IN_CREATE, "create" }, { IN_DELETE, "delete" }, { IN_MODIFY, "write" },
                { IN_CLOSE_WRITE, "closewrite" }, { IN_ATTRIB, "attrib" },
                { IN_MOVED_FROM, "movedout" }, { IN_MOVED_TO, "movedin" },
        };

        if (e->len == 0 || e->wd < 0 || e->wd >= WATCHES_MAX || !self.paths[e->wd])
                return;
        if (moved_from) {
                put_line("rename %s/%s -> %s/%s\n", self.paths[moved_from->wd], moved_from->name, self.paths[e->wd],
                         e->name);
                return;
        }
        for (size_t i = 0; i < ARRAY_SIZE(notes); i++)
                if (e->mask & notes[i].mask)
                        put_line("%s %s/%s\n", notes[i].note, self.paths[e->wd], e->name);
}

/* The halves of a move are neighbours: nothing but the test makes events, and one at a time. */
static void read_all(void) {
        static char bytes[1024 * 1024] __attribute__((aligned(8)));
        const struct inotify_event *from = NULL;
        size_t size = 0;
        ssize_t n;

        while (size < sizeof(bytes) && (n = read(self.inotify, bytes + size, sizeof(bytes) - size)) > 0)
                size += (size_t)n;
        self.page->size = 0;
        self.page->bytes[0] = 0;
        for (size_t i = 0; i < size;) {
                const struct inotify_event *e = (const void *)(bytes + i);

                i += sizeof(*e) + e->len;
                if (from && !(e->mask & IN_MOVED_TO && e->cookie == from->cookie))
                        put_event(take_pointer(&from), NULL);
                if (e->mask & IN_MOVED_FROM)
                        from = e;
                else
                        put_event(e, take_pointer(&from));
        }
        if (from)
                put_event(from, NULL);
}

static int serve(void) {
        int fd = -1;

        self.page->result = 0;
        switch (self.page->request) {
        case REQUEST_CONNECT:
                fd = connect_to(self.page->bytes);
                if (fd < 0)
                        self.page->result = errno;
                return fd;
        case REQUEST_OPEN_PATH:
                fd = open(self.page->bytes, O_PATH | O_DIRECTORY | O_CLOEXEC);
                if (fd < 0)
                        self.page->result = errno;
                return fd;
        case REQUEST_MAY_READ:
                fd = open(self.page->bytes, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                if (fd < 0)
                        self.page->result = errno;
                return safe_close(fd);
        case REQUEST_WATCH:
                watch_all();
                return -1;
        case REQUEST_WATCHES:
                self.page->result = watches(self.page->bytes);
                return -1;
        case REQUEST_READ:
                read_all();
                return -1;
        }
        _exit(1);
}

__attribute__((noreturn)) static void live(struct person_page *page, int socket, uid_t uid, gid_t gid,
                                           const gid_t *groups, size_t n_groups) {
        char byte;

        if (setgroups(n_groups, groups) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0 ||
            prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
                _exit(1);
        self.page = page;
        self.inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        if (self.inotify < 0)
                _exit(1);
        while (recv(socket, &byte, 1, 0) == 1)
                send_answer(socket, serve());
        _exit(0);
}

/* ---- the test's side ----------------------------------------------------------------------------------------- */

/* A descriptor if one came. */
static int ask(struct person *person, enum request request) {
        int fd;

        person->page->request = request;
        assert_system(send(person->socket, ".", 1, MSG_NOSIGNAL) == 1, person->name);
        assert_system(receive_answer(person->socket, &fd), person->name);
        return fd;
}

static int ask_about(struct person *person, enum request request, const char *path) {
        ck_assert_uint_lt(strlen(path), PAGE_BYTES);
        memcpy(person->page->bytes, path, strlen(path) + 1);
        return ask(person, request);
}

struct person *person_new(const char *name, uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups) {
        struct person *person = calloc(1, sizeof(*person));
        int sockets[2];

        ck_assert_ptr_nonnull(person);
        person->name = name;
        person->is_root = uid == 0;
        person->page = mmap(NULL, sizeof(*person->page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        ck_assert_ptr_ne(person->page, MAP_FAILED);
        assert_system(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) == 0, "socketpair");
        person->pid = fork();
        assert_system(person->pid >= 0, "fork");
        if (person->pid == 0)
                live(person->page, sockets[1], uid, gid, groups, n_groups);
        (void)close(sockets[1]);
        person->socket = sockets[0];
        return person;
}

void person_free(struct person *person) {
        assert_system(kill(person->pid, SIGKILL) == 0, "kill");
        ck_assert_int_eq(waitpid(person->pid, NULL, 0), person->pid);
        (void)close(person->socket);
        (void)munmap(person->page, sizeof(*person->page));
        free(person);
}

int person_connect(struct person *person, const char *socket_path) {
        int fd = ask_about(person, REQUEST_CONNECT, socket_path);

        ck_assert_msg(fd >= 0, "%s: %s: %s", person->name, socket_path, strerror(person->page->result));
        return fd;
}

int person_open_path(struct person *person, const char *path) {
        int fd = ask_about(person, REQUEST_OPEN_PATH, path);

        ck_assert_msg(fd >= 0, "%s: %s: %s", person->name, path, strerror(person->page->result));
        return fd;
}

int person_may_read(struct person *person, const char *path) {
        (void)ask_about(person, REQUEST_MAY_READ, path);
        return person->page->result;
}

void person_watch(struct person *person, const char *directories, size_t size) {
        ck_assert_uint_lt(size, PAGE_BYTES);
        memcpy(person->page->bytes, directories, size);
        person->page->size = size;
        (void)ask(person, REQUEST_WATCH);
}

bool person_watches(struct person *person, const char *path) {
        (void)ask_about(person, REQUEST_WATCHES, path);
        return person->page->result;
}

const char *person_read(struct person *person) {
        (void)ask(person, REQUEST_READ);
        return person->page->bytes;
}
