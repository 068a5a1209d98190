/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "print.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DIM "\033[2m"
#define RED "\033[31m"
#define GREEN "\033[32m"
#define YELLOW "\033[33m"
#define CYAN "\033[36m"
#define BOLD_RED "\033[1;31m"
#define RESET "\033[0m"

/* The first row that an event has a note of gives the colour. */
static const struct {
        uint64_t notes;
        const char *colour;
} colours[] = {
        { KEV_NOTE_RESCAN | KEV_NOTE_LOST | KEV_NOTE_DEGRADED | KEV_NOTE_TRACKERR | KEV_NOTE_ERR, BOLD_RED },
        { KEV_NOTE_DELETE | KEV_NOTE_MOVEDOUT | KEV_NOTE_GONE | KEV_NOTE_REVOKE | KEV_NOTE_EXIT | KEV_NOTE_LINKDOWN |
                  KEV_NOTE_LINKINV | KEV_NOTE_HUP | KEV_NOTE_RDHUP | KEV_NOTE_EOF, RED },
        { KEV_NOTE_CREATE | KEV_NOTE_MOVEDIN | KEV_NOTE_BACK | KEV_NOTE_FORK | KEV_NOTE_CHILD | KEV_NOTE_LINKUP |
                  KEV_NOTE_ADD, GREEN },
        { KEV_NOTE_RENAME | KEV_NOTE_REPLACE | KEV_NOTE_EXEC, CYAN },
        { KEV_NOTE_WRITE | KEV_NOTE_EXTEND | KEV_NOTE_CLOSEWRITE | KEV_NOTE_ATTRIB | KEV_NOTE_LINK, YELLOW },
};

static const char *colour_of(uint64_t notes) {
        for (size_t i = 0; i < sizeof(colours) / sizeof(colours[0]); i++)
                if (notes & colours[i].notes)
                        return colours[i].colour;
        return NULL;
}

bool print_on_terminal(int fd) {
        const char *term = getenv("TERM");

        return isatty(fd) && term && strcmp(term, "dumb") != 0;
}

bool print_in_colour(int fd) {
        const char *no_color = getenv("NO_COLOR");

        return print_on_terminal(fd) && !(no_color && *no_color);
}

static void put_time(struct text *out, uint64_t usec, bool colour) {
        time_t sec = (time_t)(usec / 1000000);
        struct tm tm = { 0 };

        (void)localtime_r(&sec, &tm);
        text_printf(out, "%s%02d:%02d:%02d.%03u%s  ", colour ? DIM : "", tm.tm_hour, tm.tm_min, tm.tm_sec,
                    (unsigned)(usec / 1000 % 1000), colour ? RESET : "");
}

/* Wide enough for the filter's single notes, so that what follows stands in a column. */
static int width_of(enum kev_filter filter) {
        switch (filter) {
        case KEV_FILTER_VNODE:
        case KEV_FILTER_TREE:
                return 10;
        case KEV_FILTER_NETDEV:
                return 8;
        case KEV_FILTER_PROC:
        case KEV_FILTER_READ:
        case KEV_FILTER_WRITE:
        case KEV_FILTER_POLL:
        case KEV_FILTER_AIO:
        case KEV_FILTER_SIGNAL:
        case KEV_FILTER_TIMER:
        case KEV_FILTER_USER:
                return 0;
        }
        return 0;
}

/* The notes; for a timer, whose notes are units of time, the filter's name. Read and write have the same notes, and
 * their names in front. */
static void put_what(struct text *out, const struct kev_event *event, bool colour) {
        enum kev_filter filter = kev_event_filter(event);
        uint64_t units = filter == KEV_FILTER_TIMER ? ~KEV_NOTE_LOST : 0, notes = kev_event_notes(event) & ~units;
        const char *sequence = colour ? colour_of(notes) : NULL, *separator = "";
        size_t start;

        text_puts(out, sequence ? sequence : "");
        start = out->size;
        if (filter == KEV_FILTER_READ || filter == KEV_FILTER_WRITE)
                text_printf(out, "%s ", kev_filter_name(filter));
        for (uint64_t left = notes; left != 0; left &= left - 1) {
                const char *name = kev_note_name(left & -left);

                text_puts(out, separator);
                text_puts(out, name ? name : "?");
                separator = ",";
        }
        if (notes == 0)
                text_puts(out, kev_filter_name(filter));
        start = out->size - start;
        text_puts(out, sequence ? RESET : "");
        text_printf(out, "%*s", width_of(filter) > (int)start ? width_of(filter) - (int)start : 0, "");
}

static void put_path(struct text *out, const struct subject *subject, const char *path, enum kev_kind kind) {
        subject_put_path(subject, path, text_puts_escaped, out);
        if (kind == KEV_KIND_DIRECTORY && out->size > 0 && out->data[out->size - 1] != '/')
                text_puts(out, "/");
}

static void put_pid(struct text *out, const struct kev_event *event) {
        const char *comm = kev_event_comm(event);
        pid_t pid;

        if (kev_event_pid(event, &pid) < 0)
                return;
        text_printf(out, "pid %d", (int)pid);
        if (comm) {
                text_puts(out, " (");
                text_puts_escaped(out, comm);
                text_puts(out, ")");
        }
}

/* What the watch is about or, where the user gave it no name, its number. */
static void put_name(struct text *out, const struct subject *subject, const struct kev_event *event) {
        if (subject->name)
                text_puts_escaped(out, subject->name);
        else
                text_printf(out, "id %" PRId64, kev_event_id(event));
}

static void put_file(struct text *out, const struct subject *subject, const struct kev_event *event) {
        const char *path = kev_event_path(event), *from = kev_event_from_path(event);
        pid_t pid;

        text_puts(out, "  ");
        if (from) {
                put_path(out, subject, from, kev_event_kind(event));
                text_puts(out, " -> ");
        }
        if (path)
                put_path(out, subject, path, kev_event_kind(event));
        else
                put_name(out, subject, event);
        if (kev_event_pid(event, &pid) == 0) {
                text_puts(out, "  by ");
                put_pid(out, event);
        }
}

void print_outcome(struct text *out, const struct kev_event *event) {
        int value;

        if (kev_event_exit_code(event, &value) == 0)
                text_printf(out, "exit code %d", value);
        else if (kev_event_signal(event, &value) == 0) {
                const char *name = sigabbrev_np(value);

                if (name)
                        text_printf(out, "killed by SIG%s", name);
                else
                        text_printf(out, "killed by signal %d", value);
                if (kev_event_core_dumped(event))
                        text_puts(out, " (core dumped)");
        } else
                text_puts(out, "status not known");
}

void print_lost(struct text *out, uint64_t count, bool or_more) {
        if (count == 0)
                text_puts(out, "processes or events may not have been told");
        else
                text_printf(out, "%" PRIu64 "%s %s not told", count, or_more ? " or more" : "",
                            count == 1 && !or_more ? "process or event" : "processes or events");
}

static void put_process(struct text *out, const struct kev_event *event) {
        uint64_t notes = kev_event_notes(event), count = kev_event_count(event);
        int64_t child;
        pid_t parent;
        uid_t uid;

        if (notes & KEV_NOTE_LOST) {
                text_puts(out, "  ");
                print_lost(out, count, false);
                return;
        }
        text_puts(out, "  ");
        put_pid(out, event);
        if (notes & KEV_NOTE_TRACKERR)
                text_puts(out, "  can't be followed any more");
        if ((notes & KEV_NOTE_FORK) && kev_event_data(event, &child) == 0)
                text_printf(out, "  child %" PRId64, child);
        if ((notes & KEV_NOTE_CHILD) && kev_event_parent(event, &parent) == 0)
                text_printf(out, "  parent %d", (int)parent);
        if ((notes & KEV_NOTE_EXEC) && kev_event_exe(event)) {
                text_puts(out, "  ");
                text_puts_escaped(out, kev_event_exe(event));
        }
        if ((notes & KEV_NOTE_UID) && kev_event_uid(event, &uid) == 0)
                text_printf(out, "  uid %u", (unsigned)uid);
        if (notes & (KEV_NOTE_EXIT | KEV_NOTE_REAP)) {
                text_puts(out, "  ");
                print_outcome(out, event);
        }
}

static void put_signal(struct text *out, const struct subject *subject, const struct kev_event *event) {
        int64_t number;
        pid_t sender;

        text_puts(out, "  ");
        put_name(out, subject, event);
        if (kev_event_data(event, &number) < 0)
                text_puts(out, kev_event_flags(event) & KEV_FLAG_EOF ? "  has ended" : "");
        else if (number > 0 && number < NSIG && sigabbrev_np((int)number))
                text_printf(out, "  SIG%s", sigabbrev_np((int)number));
        else if (number >= SIGRTMIN && number <= SIGRTMAX)
                text_printf(out, "  SIGRTMIN+%" PRId64, number - SIGRTMIN);
        else
                text_printf(out, "  %" PRId64, number);
        if (kev_event_pid(event, &sender) == 0) {
                text_puts(out, "  by ");
                put_pid(out, event);
        }
}

static void put_ip_addresses(struct text *out, const struct kev_event *event) {
        const char *address;

        if (!kev_event_link_ip_address(event, 0))
                text_puts(out, "  no addresses");
        for (size_t i = 0; (address = kev_event_link_ip_address(event, i)); i++) {
                text_puts(out, i == 0 ? "  " : " ");
                text_puts_escaped(out, address);
        }
}

/* The administrative state, the carrier, and the operational state where it says more than these two. */
static void put_link_state(struct text *out, bool up, bool carrier, const char *oper) {
        text_puts(out, up ? "  up, " : "  down, ");
        text_puts(out, carrier ? "carrier" : "no carrier");
        if (oper && strcmp(oper, "up") != 0 && strcmp(oper, "down") != 0 && strcmp(oper, "unknown") != 0) {
                text_puts(out, " (");
                text_puts_escaped(out, oper);
                text_puts(out, ")");
        }
}

static void put_link(struct text *out, const struct subject *subject, const struct kev_event *event) {
        const char *name = kev_event_link_name(event), *old_name = kev_event_link_old_name(event);
        const char *address = kev_event_link_address(event);
        uint64_t notes = kev_event_notes(event), flaps = kev_event_link_flaps(event);
        uint32_t mtu;

        text_puts(out, "  ");
        if (old_name) {
                text_puts_escaped(out, old_name);
                text_puts(out, " -> ");
        }
        if (!name) {
                put_name(out, subject, event);
                return;
        }
        text_puts_escaped(out, name);
        if (notes & KEV_NOTE_LINKINV)
                return;
        put_link_state(out, kev_event_link_up(event), kev_event_link_carrier(event), kev_event_link_oper_state(event));
        if ((notes & (KEV_NOTE_MTU | KEV_NOTE_ADD)) && kev_event_link_mtu(event, &mtu) == 0)
                text_printf(out, "  mtu %" PRIu32, mtu);
        if ((notes & KEV_NOTE_ADD) && address) {
                text_puts(out, "  ");
                text_puts_escaped(out, address);
        }
        if (notes & (KEV_NOTE_ADDRESS | KEV_NOTE_LINKUP))
                put_ip_addresses(out, event);
        if (flaps > 0)
                text_printf(out, "  %" PRIu64 " %s missed", flaps, flaps == 1 ? "flap" : "flaps");
}

static void put_timer(struct text *out, const struct subject *subject, const struct kev_event *event) {
        int64_t expirations;

        text_puts(out, "  ");
        put_name(out, subject, event);
        if (kev_event_data(event, &expirations) == 0)
                text_printf(out, "  %" PRId64 " %s", expirations, expirations == 1 ? "expiration" : "expirations");
}

/* read, write, poll, aio, user. */
static void put_data(struct text *out, const struct subject *subject, const struct kev_event *event) {
        int64_t data;

        text_puts(out, "  ");
        put_name(out, subject, event);
        if (kev_event_data(event, &data) == 0)
                text_printf(out, "  data %" PRId64, data);
}

static void put_where(struct text *out, const struct subject *subject, const struct kev_event *event) {
        switch (kev_event_filter(event)) {
        case KEV_FILTER_VNODE:
        case KEV_FILTER_TREE:
                put_file(out, subject, event);
                break;
        case KEV_FILTER_PROC:
                put_process(out, event);
                break;
        case KEV_FILTER_NETDEV:
                put_link(out, subject, event);
                break;
        case KEV_FILTER_SIGNAL:
                put_signal(out, subject, event);
                break;
        case KEV_FILTER_TIMER:
                put_timer(out, subject, event);
                break;
        case KEV_FILTER_READ:
        case KEV_FILTER_WRITE:
        case KEV_FILTER_POLL:
        case KEV_FILTER_AIO:
        case KEV_FILTER_USER:
                put_data(out, subject, event);
                break;
        }
}

void print_event(struct text *out, const struct subject *subject, const struct kev_event *event, bool colour) {
        uint64_t count = kev_event_count(event);

        put_time(out, kev_event_realtime_usec(event), colour);
        put_what(out, event, colour);
        put_where(out, subject, event);
        if (count > 1 && !(kev_event_notes(event) & KEV_NOTE_LOST))
                text_printf(out, "  x%" PRIu64, count);
        text_puts(out, "\n");
}

void print_link(struct text *out, const struct link *link, const struct ifaddrs *all, bool colour) {
        char address[LINK_IP_ADDRESS_MAX];
        const char *separator = "  ";
        struct timespec now;

        (void)clock_gettime(CLOCK_REALTIME, &now);
        put_time(out, (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000, colour);
        text_printf(out, "%-*s  ", width_of(KEV_FILTER_NETDEV), "state");
        text_puts_escaped(out, link->name);
        put_link_state(out, link->up, link->carrier, link->oper_state);
        if (link->mtu >= 0)
                text_printf(out, "  mtu %" PRId64, link->mtu);
        if (link->address[0])
                text_printf(out, "  %s", link->address);
        while (links_next_ip_address(&all, link->name, address)) {
                text_printf(out, "%s%s", separator, address);
                separator = " ";
        }
        text_puts(out, "\n");
}
