/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A home's process is asked through a socket pair: for a connection, which it makes and passes back. The commands in
 * its namespace are the test's own children, which is in there meanwhile: so no program has to be there but ip(8).
 */

#include "links.h"

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "answers.h"
#include "macro.h"

/* ---- namespaces -------------------------------------------------------------------------------- */

static void write_file(const char *path, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void write_file(const char *path, const char *format, ...) {
        FILE *file = fopen(path, "we");
        va_list args;

        assert_system(file, path);
        va_start(args, format);
        (void)vfprintf(file, format, args);
        va_end(args);
        assert_system(fclose(file) == 0, path);
}

/* No address of the kernel's own making comes in between. */
static bool make_no_addresses(void) {
        static const char *const paths[] = {
                "/proc/sys/net/ipv6/conf/default/addr_gen_mode",
                "/proc/sys/net/ipv6/conf/all/addr_gen_mode",
        };

        for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
                int fd = open(paths[i], O_WRONLY | O_CLOEXEC);
                bool done = fd >= 0 && write(fd, "1", 1) == 1;

                (void)safe_close(fd);
                if (!done)
                        return false;
        }
        return true;
}

void enter_namespace(void) {
        uid_t uid = geteuid();
        gid_t gid = getegid();

        if (system("ip -V >/dev/null 2>&1") != 0)
                harness_skip("there is no ip(8)");
        if (uid != 0) {
                if (unshare(CLONE_NEWUSER) < 0)
                        harness_skip("neither root nor user namespaces");
                write_file("/proc/self/setgroups", "deny");
                write_file("/proc/self/uid_map", "0 %u 1", uid);
                write_file("/proc/self/gid_map", "0 %u 1", gid);
        }
        if (unshare(CLONE_NEWNET) < 0)
                harness_skip("no network namespace can be made");
        assert_system(make_no_addresses(), "addr_gen_mode");
}

/* ---- homes: no assertions in the process ------------------------------------------------------------ */

__attribute__((noreturn)) static void live(int socket, uid_t uid) {
        char path[PATH_MAX];
        ssize_t n;

        if (unshare(CLONE_NEWNET) < 0 || !make_no_addresses())
                _exit(1);
        if (uid != 0 && (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0))
                _exit(1);
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) /* to be another user clears it */
                _exit(1);
        send_answer(socket, -1);
        while ((n = recv(socket, path, sizeof(path) - 1, 0)) > 0) {
                path[n] = 0;
                send_answer(socket, connect_to(path));
        }
        _exit(0);
}

/* What live() answers: a descriptor, or -1. */
static int take_answer(const struct home *home) {
        int fd;

        ck_assert_msg(receive_answer(home->socket, &fd), "the process of a namespace has ended");
        return fd;
}

struct home *home_new(uid_t uid) {
        struct home *home = calloc(1, sizeof(*home));
        int sockets[2];

        ck_assert_ptr_nonnull(home);
        assert_system(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) == 0, "socketpair");
        home->pid = fork();
        assert_system(home->pid >= 0, "fork");
        if (home->pid == 0)
                live(sockets[1], uid);
        (void)close(sockets[1]);
        home->socket = sockets[0];
        (void)take_answer(home);
        return home;
}

void home_free(struct home *home) {
        assert_system(kill(home->pid, SIGKILL) == 0, "kill");
        ck_assert_int_eq(waitpid(home->pid, NULL, 0), home->pid);
        (void)close(home->socket);
        free(home);
}

int home_connect(struct home *home, const char *socket_path) {
        int fd;

        assert_system(send(home->socket, socket_path, strlen(socket_path), MSG_NOSIGNAL) > 0, "send");
        fd = take_answer(home);
        ck_assert_msg(fd >= 0, "%s: no connection from another namespace", socket_path);
        return fd;
}

static int open_network(pid_t pid) {
        char path[48];
        int fd;

        (void)snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_system(fd >= 0, path);
        return fd;
}

int home_enter(const struct home *home) {
        int before, fd;

        if (!home)
                return -1;
        before = open_network(getpid());
        fd = open_network(home->pid);
        assert_system(setns(fd, CLONE_NEWNET) == 0, "setns");
        (void)close(fd);
        return before;
}

void home_leave(int before) {
        if (before >= 0)
                assert_system(setns(before, CLONE_NEWNET) == 0, "setns");
        (void)safe_close(before);
}

/* ---- ip(8) ----------------------------------------------------------------------------------------- */

static void ip_with(const char *format, va_list args) {
        char command[512] = "ip ";
        int r;

        (void)vsnprintf(command + 3, sizeof(command) - 3, format, args);
        r = system(command);
        ck_assert_msg(r == 0, "%s", command);
}

void ip(const char *format, ...) {
        va_list args;

        va_start(args, format);
        ip_with(format, args);
        va_end(args);
}

void ip_at(const struct home *home, const char *format, ...) {
        int before = home_enter(home);
        va_list args;

        va_start(args, format);
        ip_with(format, args);
        va_end(args);
        home_leave(before);
}

void add_device(const char *name) {
        ip("link add %s type veth peer name %sp", name, name);
}

bool is_other_end(const char *name) {
        return name[0] && name[strlen(name) - 1] == 'p';
}

FILE *ip_batch(void) {
        FILE *pipe = popen("ip -batch -", "we");

        ck_assert_ptr_nonnull(pipe);
        return pipe;
}

void ip_batch_end(FILE *pipe) {
        ck_assert_int_eq(pclose(pipe), 0);
}

struct json_object *ip_json(const char *what) {
        char command[128], *text = NULL;
        struct json_object *object;
        size_t size = 0;
        FILE *pipe;

        (void)snprintf(command, sizeof(command), "ip -j %s", what);
        pipe = popen(command, "re");
        ck_assert_ptr_nonnull(pipe);
        (void)getdelim(&text, &size, 0, pipe);
        ck_assert_int_eq(pclose(pipe), 0);
        object = json_tokener_parse(text);
        ck_assert_msg(json_object_is_type(object, json_type_array), "%s", text);
        free(text);
        return object;
}

void settle_links(void) {
        struct json_object *all = ip_json("link");
        FILE *pipe = popen("ip -batch - > /dev/null", "we");

        ck_assert_ptr_nonnull(pipe);
        for (size_t i = 0; i < json_object_array_length(all); i++)
                (void)fprintf(pipe, "link show dev %s\n",
                              text_at(json_object_array_get_idx(all, i), "/ifname"));
        ip_batch_end(pipe);
        json_object_put(all);
}

/* ---- events ------------------------------------------------------------------------------------------ */

void watch(int fd, const char *members) {
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"netdev\"%s}]}", members);
}

void describe(struct json_object *event, char *text, size_t size) {
        struct json_object *notes = json_at(event, "/notes");
        size_t n;

        n = (size_t)snprintf(text, size, "%s%s%s ", text_at(event, "/link/name"),
                             json_at(event, "/link/oldName") ? "<" : "",
                             text_at(event, "/link/oldName"));
        for (size_t i = 0; i < json_object_array_length(notes); i++)
                n += (size_t)snprintf(text + n, size - n, "%s%s", i ? "+" : "",
                                      json_object_get_string(json_object_array_get_idx(notes, i)));
        if (json_at(event, "/flags/0"))
                (void)snprintf(text + n, size - n, " %s", text_at(event, "/flags/0"));
}

int64_t status_number(const struct daemon *daemon, const char *pointer) {
        int fd = client_connect(daemon->socket);
        struct json_object *status = client_call(fd, "org.kevd.manager.GetStatus", NULL);
        int64_t n = number_at(status, pointer);

        json_object_put(status);
        (void)close(fd);
        return n;
}

/* ---- the devices ------------------------------------------------------------------------------------- */

/* As Link has one. */
static struct json_object *make_link(struct json_object *link) {
        struct json_object *known = json_object_new_object(), *texts = json_object_new_array();
        struct json_object *addresses = json_at(link, "/addr_info");

        json_object_object_add(known, "name", json_object_new_string(text_at(link, "/ifname")));
        json_object_object_add(known, "mtu", json_object_new_int64(number_at(link, "/mtu")));
        json_object_object_add(known, "address", json_object_new_string(text_at(link, "/address")));
        json_object_object_add(known, "up", json_object_new_boolean(has_flag(link, "UP")));
        json_object_object_add(known, "carrier", json_object_new_boolean(has_flag(link, "LOWER_UP")));
        for (size_t i = 0; i < json_object_array_length(addresses); i++) {
                struct json_object *address = json_object_array_get_idx(addresses, i);
                char text[64];

                (void)snprintf(text, sizeof(text), "%s/%s", text_at(address, "/local"), text_at(address, "/prefixlen"));
                json_object_array_add(texts, json_object_new_string(text));
        }
        json_object_object_add(known, "addresses", texts);
        return known;
}

static struct json_object *links_now(void) {
        struct json_object *now = json_object_new_object(), *all = ip_json("addr");

        for (size_t i = 0; i < json_object_array_length(all); i++) {
                struct json_object *link = json_object_array_get_idx(all, i);

                if (strcmp(text_at(link, "/ifname"), "lo") != 0)
                        json_object_object_add(now, text_at(link, "/ifindex"), make_link(link));
        }
        json_object_put(all);
        return now;
}

struct links links_new(void) {
        return (struct links){ links_now() };
}

void links_free(struct links *links) {
        json_object_put(take_pointer(&links->by_index));
}

void links_apply(struct links *links, struct json_object *event) {
        struct json_object *link = json_at(event, "/link"), *known;
        char index[32];

        (void)snprintf(index, sizeof(index), "%s", text_at(link, "/index"));
        if (has_note(event, "linkinv")) {
                json_object_object_del(links->by_index, index);
                return;
        }
        if (json_object_object_get_ex(links->by_index, index, &known) && json_at(link, "/oldName"))
                ck_assert_str_eq(text_at(link, "/oldName"), text_at(known, "/name"));
        json_object_object_add(links->by_index, index, json_object_get(link));
}

bool same_texts(struct json_object *a, struct json_object *b) {
        size_t n = json_object_array_length(a);

        if (n != json_object_array_length(b))
                return false;
        for (size_t i = 0; i < n; i++) {
                const char *text = json_object_get_string(json_object_array_get_idx(a, i));
                int more = 0;

                for (size_t j = 0; j < n; j++) {
                        more += strcmp(json_object_get_string(json_object_array_get_idx(a, j)), text) == 0;
                        more -= strcmp(json_object_get_string(json_object_array_get_idx(b, j)), text) == 0;
                }
                if (more != 0)
                        return false;
        }
        return true;
}

static bool same_flag(struct json_object *a, struct json_object *b, const char *pointer) {
        return json_object_get_boolean(json_at(a, pointer)) == json_object_get_boolean(json_at(b, pointer));
}

static struct json_object *addresses_of(struct json_object *link, bool with_ipv6) {
        struct json_object *all = json_at(link, "/addresses"), *some = json_object_new_array();

        for (size_t i = 0; all && i < json_object_array_length(all); i++) {
                struct json_object *address = json_object_array_get_idx(all, i);

                if (with_ipv6 || !strchr(json_object_get_string(address), ':'))
                        json_object_array_add(some, json_object_get(address));
        }
        return some;
}

static bool same_addresses(struct json_object *a, struct json_object *b, bool with_ipv6) {
        struct json_object *of_a = addresses_of(a, with_ipv6), *of_b = addresses_of(b, with_ipv6);
        bool same = same_texts(of_a, of_b);

        json_object_put(of_a);
        json_object_put(of_b);
        return same;
}

static bool is_equal(struct json_object *a, struct json_object *b, bool at_rest) {
        return strcmp(text_at(a, "/name"), text_at(b, "/name")) == 0 && number_at(a, "/mtu") == number_at(b, "/mtu") &&
               strcmp(text_at(a, "/address"), text_at(b, "/address")) == 0 && same_flag(a, b, "/up") &&
               same_addresses(a, b, at_rest) && (!at_rest || same_flag(a, b, "/carrier"));
}

static const char *compare(const struct links *links, const char *only, bool at_rest) {
        static char difference[2048];
        struct json_object *now = links_now(), *known;
        int n = json_object_object_length(now);

        difference[0] = 0;
        json_object_object_foreach(now, index, link) {
                if (only && strcmp(index, only) != 0)
                        continue;
                if (!json_object_object_get_ex(links->by_index, index, &known))
                        (void)snprintf(difference, sizeof(difference), "no event of %s", text_at(link, "/name"));
                else if (!is_equal(known, link, at_rest))
                        (void)snprintf(difference, sizeof(difference), "%s replayed, but %s",
                                       json_object_to_json_string(known), json_object_to_json_string(link));
        }
        if (only && json_object_object_get_ex(links->by_index, only, NULL) &&
            !json_object_object_get_ex(now, only, NULL))
                (void)snprintf(difference, sizeof(difference), "no event of the end of %s", only);
        if (!only && !difference[0] && json_object_object_length(links->by_index) != n)
                (void)snprintf(difference, sizeof(difference), "%d devices replayed, but %d are there",
                               json_object_object_length(links->by_index), n);
        json_object_put(now);
        return difference;
}

const char *links_compare(const struct links *links) {
        return compare(links, NULL, false);
}

const char *links_compare_device(const struct links *links, const char *index) {
        return compare(links, index, false);
}

const char *links_compare_at_rest(const struct links *links) {
        return compare(links, NULL, true);
}
