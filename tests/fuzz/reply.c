/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The library, and a daemon that says anything. Every call has to come to an end, and every event that is handed out
 * has to be one that can be read.
 *
 * The input is how many calls, a byte for each, and what the daemon says. It speaks up whenever the library waits
 * (poll(2) is this file's), as far as the next byte 0xff, and at its end closes the connection.
 */

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <kev.h>

#include "fuzz.h"
#include "internal.h"

enum { CALLS_MAX = 32 };

static int listener = -1;
static char address[48];

static struct {
        int fd; /* -1: it has gone */
        struct input words;
} peer;

/* ---- the daemon ------------------------------------------------------------------------------------------------- */

static void peer_speak(void) {
        char nothing[4096];
        const uint8_t *data, *end;
        size_t size;

        while (recv(peer.fd, nothing, sizeof(nothing), MSG_DONTWAIT) > 0)
                ;
        end = peer.words.size > 0 ? memchr(peer.words.data, 0xff, peer.words.size) : NULL;
        data = input_bytes(&peer.words, end ? (size_t)(end - peer.words.data) : peer.words.size, &size);
        if (size > 0) /* the library may have closed the connection */
                (void)send(peer.fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (end)
                (void)input_byte(&peer.words);
        else
                peer.fd = safe_close(peer.fd);
}

int __real_poll(struct pollfd *fds, nfds_t n, int timeout_msec);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_msec);

/* Nothing comes but what the peer says, nor does it keep anybody waiting. */
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_msec) {
        bool spoken = false;

        for (;;) {
                int r = __real_poll(fds, n, 0);

                for (nfds_t i = 0; r > 0 && i < n; i++)
                        if (fds[i].revents & ~POLLOUT)
                                return r;
                if (r < 0 || peer.fd < 0 || (spoken && timeout_msec == 0))
                        return r;
                peer_speak();
                spoken = true;
        }
}

/* ---- the program ------------------------------------------------------------------------------------------------ */

static size_t sum; /* so that what is read is used */

static void read_text(const char *text) {
        sum += text ? strlen(text) : 0;
}

static void read_event(const struct kev_event *e) {
        int number, other;
        uint64_t wide;
        int64_t data;
        uint32_t narrow;
        uid_t uid;
        pid_t pid;

        fuzz_assert(kev_event_id(e) >= 0);
        fuzz_assert(kev_event_seq(e) >= 1);
        fuzz_assert(kev_filter_name(kev_event_filter(e)));
        fuzz_assert((kev_event_notes(e) & ~((UINT64_C(1) << NOTE_COUNT) - 1)) == 0);
        (void)kev_event_flags(e);
        (void)kev_event_count(e);
        (void)kev_event_realtime_usec(e);
        (void)kev_kind_name(kev_event_kind(e));
        (void)kev_event_data(e, &data);
        read_text(kev_event_path(e));
        read_text(kev_event_from_path(e));
        read_text(kev_event_json(e));
        (void)kev_event_pid(e, &pid);
        (void)kev_event_parent(e, &pid);
        (void)kev_event_uid(e, &uid);
        read_text(kev_event_comm(e));
        read_text(kev_event_exe(e));
        read_text(kev_event_cgroup(e));
        (void)kev_event_exit_code(e, &number);
        (void)kev_event_signal(e, &number);
        (void)kev_event_core_dumped(e);
        (void)kev_event_cpu_time(e, &wide);
        (void)kev_event_peak_memory(e, &wide);
        (void)kev_event_link_index(e, &number);
        read_text(kev_event_link_name(e));
        read_text(kev_event_link_old_name(e));
        (void)kev_event_link_up(e);
        (void)kev_event_link_carrier(e);
        read_text(kev_event_link_oper_state(e));
        (void)kev_event_link_mtu(e, &narrow);
        read_text(kev_event_link_address(e));
        for (size_t i = 0; i < 3; i++) {
                read_text(kev_event_link_ip_address(e, i));
                read_text(kev_event_link_gateway(e, i));
        }
        (void)kev_event_link_moved_to(e, &number, &other);
        (void)kev_event_link_flaps(e);
}

static const struct kev_event *kept;

/* Calls are allowed in here, and events may be kept. */
static void on_event(struct kev *kev, const struct kev_event *event, void *userdata) {
        const struct kev_event *none;

        fuzz_assert(userdata == &sum);
        read_event(event);
        fuzz_assert(kev_dispatch(kev, 0) == -EBUSY && kev_wait(kev, 0, &none) == -EBUSY);
        if (kev_event_count(event) % 4 == 1)
                (void)kev_remove(kev, kev_event_id(event));
        if (kev_event_count(event) % 4 == 2 && !kept)
                kept = kev_event_ref(event);
}

static struct kev_watch *make_watch(enum kev_filter filter) {
        struct kev_watch *watch = NULL;

        fuzz_assert(kev_watch_new(filter, &watch) == 0);
        if (filter == KEV_FILTER_TIMER)
                fuzz_assert(kev_watch_set_data(watch, 1000) == 0);
        else if (filter == KEV_FILTER_TREE)
                fuzz_assert(kev_watch_set_path(watch, "/") == 0);
        else if (filter == KEV_FILTER_USER)
                fuzz_assert(kev_watch_set_name(watch, "name") == 0);
        else if (filter == KEV_FILTER_POLL)
                fuzz_assert(kev_watch_set_fd(watch, listener) == 0);
        return watch;
}

static int add(struct kev *kev, enum kev_filter filter, uint32_t flags, kev_handler *handler) {
        struct kev_watch *watch = make_watch(filter);
        int r;

        if (flags)
                fuzz_assert(kev_watch_set_flags(watch, flags) == 0);
        r = kev_add(kev, watch, handler, &sum, NULL);
        kev_watch_free(watch);
        return r;
}

static int add_many(struct kev *kev) {
        struct kev_watch *watches[] = {
                make_watch(KEV_FILTER_TIMER), make_watch(KEV_FILTER_USER), make_watch(KEV_FILTER_POLL),
                make_watch(KEV_FILTER_TREE),
        };
        int64_t ids[ARRAY_SIZE(watches)];
        int errors[ARRAY_SIZE(watches)], r;

        r = kev_add_many(kev, (const struct kev_watch *const *)watches, ARRAY_SIZE(watches), on_event, &sum, ids, errors);
        for (size_t i = 0; i < ARRAY_SIZE(watches); i++) {
                fuzz_assert(r < 0 || (ids[i] >= 0 && errors[i] <= 0));
                kev_watch_free(watches[i]);
        }
        return r;
}

static int modify(struct kev *kev, int64_t id) {
        struct kev_watch *watch = make_watch(KEV_FILTER_TIMER);
        int r = kev_modify(kev, id, watch);

        kev_watch_free(watch);
        return r;
}

static int wait_for(struct kev *kev, int timeout_msec) {
        const struct kev_event *event = NULL;
        int r = kev_wait(kev, timeout_msec, &event);

        fuzz_assert(r <= 1);
        if (r == 1)
                read_event(event);
        return r;
}

static int call(struct kev *kev, const char *method, const char *parameters) {
        char *reply = NULL;
        int r = kev_call(kev, method, parameters, &reply);

        fuzz_assert((r == 0) == (reply != NULL));
        read_text(reply);
        free(reply);
        return r;
}

static int mechanism(struct kev *kev) {
        char *name = NULL;
        int r = kev_get_mechanism(kev, 0, &name);

        fuzz_assert((r == 0) == (name != NULL));
        read_text(name);
        free(name);
        return r;
}

static int step(struct kev *kev, uint8_t which) {
        switch (which % 18) {
        case 0: return add(kev, KEV_FILTER_TIMER, 0, on_event);
        case 1: return add(kev, KEV_FILTER_USER, KEV_FLAG_ONESHOT, on_event);
        case 2: return add(kev, KEV_FILTER_TREE, 0, NULL);
        case 3: return add(kev, KEV_FILTER_POLL, 0, on_event);
        case 4: return add(kev, KEV_FILTER_SIGNAL, 0, on_event);
        case 5: return add_many(kev);
        case 6: return modify(kev, 0);
        case 7: return kev_remove(kev, 0);
        case 8: return kev_remove(kev, 1);
        case 9: return kev_enable(kev, 0);
        case 10: return kev_disable(kev, 0);
        case 11: return kev_trigger(kev, "name", 3);
        case 12: return call(kev, "org.varlink.service.GetInfo", NULL);
        case 13: return mechanism(kev);
        case 14: return wait_for(kev, 0);
        case 15: return wait_for(kev, -1);
        case 16: return kev_dispatch(kev, 0);
        default: return kev_dispatch(kev, -1);
        }
}

/* ---- a connection ------------------------------------------------------------------------------------------------ */

static void begin(void) {
        struct sockaddr_un name = { .sun_family = AF_UNIX };
        char unique[32];
        size_t n;

        n = (size_t)snprintf(unique, sizeof(unique), "kevd-fuzz-%d", (int)getpid());
        memcpy(name.sun_path + 1, unique, n);
        listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        fuzz_assert(listener >= 0);
        fuzz_assert(bind(listener, (struct sockaddr *)&name,
                         (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)) == 0);
        fuzz_assert(listen(listener, 1) == 0);
        (void)snprintf(address, sizeof(address), "unix:@%s", unique);
}

static void end(void) {
        listener = safe_close(listener);
}

static void input(const uint8_t *data, size_t size) {
        struct kev *kev = NULL;
        size_t n;
        const uint8_t *calls;

        peer.words = (struct input){ data, size };
        calls = input_bytes(&peer.words, input_byte(&peer.words) % CALLS_MAX, &n);
        fuzz_assert(kev_open(address, &kev) == 0);
        fuzz_assert(kev_set_reconnect_timeout(kev, 0) == 0); /* there is but one peer */
        peer.fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        fuzz_assert(peer.fd >= 0);
        for (size_t i = 0; i < n; i++) {
                int r = step(kev, calls[i]);

                fuzz_assert(r > -4096);
                fuzz_assert(r >= 0 || kev_error_message(kev)[0]);
                fuzz_assert(memchr(kev_error_message(kev), 0, ERROR_MESSAGE_MAX));
        }
        kev_close(kev);
        kept = kept ? kev_event_unref(kept) : NULL;
        peer.fd = safe_close(peer.fd);
}

const struct fuzz_target fuzz_target = { .begin = begin, .input = input, .end = end };
