/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "polkit.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "buses.h"
#include "harness.h"
#include "macro.h"

struct authority *authority;

static int on_check(sd_bus_message *call, void *userdata _unused_, sd_bus_error *error _unused_) {
        const char *kind, *member, *subject, *action;
        enum answer answer;
        int r = sd_bus_message_enter_container(call, 'r', "sa{sv}");

        if (r < 0 || sd_bus_message_read(call, "s", &kind) < 0 || strcmp(kind, "system-bus-name") != 0 ||
            sd_bus_message_read(call, "a{sv}", 1, &member, "s", &subject) < 0 || strcmp(member, "name") != 0 ||
            sd_bus_message_exit_container(call) < 0 || sd_bus_message_read(call, "s", &action) < 0 ||
            sd_bus_message_skip(call, "a{ss}") < 0 || sd_bus_message_read(call, "u", &authority->flags) < 0)
                return -EINVAL;
        (void)snprintf(authority->subject, sizeof(authority->subject), "%s", subject);
        (void)snprintf(authority->action, sizeof(authority->action), "%s", action);
        __atomic_add_fetch(&authority->n_asked, 1, __ATOMIC_SEQ_CST);
        while ((answer = __atomic_load_n(&authority->answer, __ATOMIC_SEQ_CST)) == ANSWER_LATE)
                (void)poll(NULL, 0, 1);
        __atomic_add_fetch(&authority->n_answered, 1, __ATOMIC_SEQ_CST);
        if (answer == ANSWER_NONE)
                return 1;
        if (answer == ANSWER_ODD)
                return sd_bus_reply_method_return(call, "s", "yes");
        return sd_bus_reply_method_return(call, "(bba{ss})", answer == ANSWER_YES, answer == ANSWER_CHALLENGE, 0);
}

static const sd_bus_vtable authority_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD("CheckAuthorization", "(sa{sv})sa{ss}us", "(bba{ss})", on_check, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};

static void be_authority(void) {
        sd_bus *bus = NULL;

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (sd_bus_open_user(&bus) < 0 ||
            sd_bus_add_object_vtable(bus, NULL, "/org/freedesktop/PolicyKit1/Authority",
                                     "org.freedesktop.PolicyKit1.Authority", authority_vtable, NULL) < 0 ||
            sd_bus_request_name(bus, "org.freedesktop.PolicyKit1", 0) < 0)
                _exit(1);
        __atomic_store_n(&authority->is_there, true, __ATOMIC_SEQ_CST);
        for (;;) {
                int r = sd_bus_process(bus, NULL);

                if (r < 0 || (r == 0 && sd_bus_wait(bus, UINT64_MAX) < 0))
                        _exit(1);
        }
}

static bool is_there(void *userdata _unused_) {
        return __atomic_load_n(&authority->is_there, __ATOMIC_SEQ_CST);
}

pid_t authority_start(void) {
        pid_t pid;

        authority = mmap(NULL, sizeof(*authority), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        ck_assert_ptr_ne(authority, MAP_FAILED);
        pid = fork();
        assert_system(pid >= 0, "fork");
        if (pid == 0)
                be_authority();
        ck_assert(wait_until(is_there, NULL, HARNESS_REPLY_MSEC));
        return pid;
}

void authority_stop(pid_t pid) {
        bus_stop(pid);
        (void)munmap(authority, sizeof(*authority));
}

bool authority_was_asked(void *n) {
        return __atomic_load_n(&authority->n_asked, __ATOMIC_SEQ_CST) >= *(const unsigned *)n;
}

bool authority_has_answered(void *n) {
        return __atomic_load_n(&authority->n_answered, __ATOMIC_SEQ_CST) >= *(const unsigned *)n;
}
