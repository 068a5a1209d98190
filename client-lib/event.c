/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Reading an event: what the program sees of struct event. A figure that is out
 * of the range of its C type is treated as one that isn't known.
 */

#include "event.h"

#include <errno.h>
#include <limits.h>

#include "macro.h"

static const struct event *private(const struct kev_event *event) {
        return (const struct event *)(const void *)event;
}

_public_ const struct kev_event *kev_event_ref(const struct kev_event *event) {
        /* The count is the one thing in an event that changes. */
        (void)event_ref((struct event *)(uintptr_t)event);
        return event;
}

_public_ const struct kev_event *kev_event_unref(const struct kev_event *event) {
        (void)event_unref((struct event *)(uintptr_t)event);
        return NULL;
}

_public_ int64_t kev_event_id(const struct kev_event *event) {
        return private(event)->id;
}

_public_ uint64_t kev_event_seq(const struct kev_event *event) {
        return private(event)->seq;
}

_public_ enum kev_filter kev_event_filter(const struct kev_event *event) {
        return private(event)->filter;
}

_public_ uint64_t kev_event_notes(const struct kev_event *event) {
        return private(event)->notes;
}

_public_ uint32_t kev_event_flags(const struct kev_event *event) {
        return private(event)->flags;
}

_public_ uint64_t kev_event_count(const struct kev_event *event) {
        return private(event)->count;
}

_public_ uint64_t kev_event_realtime_usec(const struct kev_event *event) {
        return private(event)->realtime_usec;
}

_public_ enum kev_kind kev_event_kind(const struct kev_event *event) {
        return private(event)->kind;
}

_public_ int kev_event_data(const struct kev_event *event, int64_t *ret_data) {
        if (private(event)->data == ABSENT)
                return -ENODATA;
        *ret_data = private(event)->data;
        return 0;
}

_public_ const char *kev_event_path(const struct kev_event *event) {
        return private(event)->path.bytes;
}

_public_ const char *kev_event_from_path(const struct kev_event *event) {
        return private(event)->from_path.bytes;
}

_public_ const char *kev_event_json(const struct kev_event *event) {
        return private(event)->json;
}

/* ---- processes ---------------------------------------------------------------- */

/* ABSENT is below any `min`. */
static int take_int(int64_t value, int64_t min, int64_t max, int *ret) {
        if (value < min || value > max)
                return -ENODATA;
        *ret = (int)value;
        return 0;
}

static int take_uint32(int64_t value, uint32_t *ret) {
        if (value < 0 || value > UINT32_MAX)
                return -ENODATA;
        *ret = (uint32_t)value;
        return 0;
}

static const struct event_process *process_of(const struct kev_event *event) {
        static const struct event_process unknown = {
                .pid = ABSENT, .parent = ABSENT, .uid = ABSENT, .exit_code = ABSENT, .signal = ABSENT, .cpu_usec = ABSENT, .peak_bytes = ABSENT,
        };

        return private(event)->process ? private(event)->process : &unknown;
}

_public_ int kev_event_pid(const struct kev_event *event, pid_t *ret_pid) {
        return take_int(process_of(event)->pid, 0, INT_MAX, ret_pid);
}

_public_ int kev_event_parent(const struct kev_event *event, pid_t *ret_pid) {
        return take_int(process_of(event)->parent, 0, INT_MAX, ret_pid);
}

_public_ int kev_event_uid(const struct kev_event *event, uid_t *ret_uid) {
        return take_uint32(process_of(event)->uid, ret_uid);
}

_public_ const char *kev_event_comm(const struct kev_event *event) {
        return process_of(event)->comm;
}

_public_ const char *kev_event_exe(const struct kev_event *event) {
        return process_of(event)->exe;
}

_public_ const char *kev_event_cgroup(const struct kev_event *event) {
        return process_of(event)->cgroup;
}

_public_ int kev_event_exit_code(const struct kev_event *event, int *ret_code) {
        return take_int(process_of(event)->exit_code, 0, 255, ret_code);
}

_public_ int kev_event_signal(const struct kev_event *event, int *ret_signal) {
        return take_int(process_of(event)->signal, 1, INT_MAX, ret_signal);
}

_public_ bool kev_event_core_dumped(const struct kev_event *event) {
        return process_of(event)->core_dumped;
}

static int take_uint64(int64_t value, uint64_t *ret) {
        if (value < 0)
                return -ENODATA;
        *ret = (uint64_t)value;
        return 0;
}

_public_ int kev_event_cpu_time(const struct kev_event *event, uint64_t *ret_usec) {
        return take_uint64(process_of(event)->cpu_usec, ret_usec);
}

_public_ int kev_event_peak_memory(const struct kev_event *event, uint64_t *ret_bytes) {
        return take_uint64(process_of(event)->peak_bytes, ret_bytes);
}

/* ---- network devices ------------------------------------------------------------- */

static const struct event_link *link_of(const struct kev_event *event) {
        static const struct event_link unknown = {
                .index = -1, .mtu = ABSENT, .flaps = ABSENT, .new_namespace = ABSENT, .new_index = ABSENT,
        };

        return private(event)->link ? private(event)->link : &unknown;
}

_public_ int kev_event_link_index(const struct kev_event *event, int *ret_index) {
        return take_int(link_of(event)->index, 0, INT_MAX, ret_index);
}

_public_ const char *kev_event_link_name(const struct kev_event *event) {
        return link_of(event)->name;
}

_public_ const char *kev_event_link_old_name(const struct kev_event *event) {
        return link_of(event)->old_name;
}

_public_ bool kev_event_link_up(const struct kev_event *event) {
        return link_of(event)->up;
}

_public_ bool kev_event_link_carrier(const struct kev_event *event) {
        return link_of(event)->carrier;
}

_public_ const char *kev_event_link_oper_state(const struct kev_event *event) {
        return link_of(event)->oper_state;
}

_public_ int kev_event_link_mtu(const struct kev_event *event, uint32_t *ret_mtu) {
        return take_uint32(link_of(event)->mtu, ret_mtu);
}

_public_ const char *kev_event_link_address(const struct kev_event *event) {
        return link_of(event)->address;
}

static const char *text_at(const char *const *texts, size_t i) {
        while (texts && texts[0] && i > 0) {
                texts++;
                i--;
        }
        return texts ? texts[0] : NULL;
}

_public_ const char *kev_event_link_ip_address(const struct kev_event *event, size_t i) {
        return text_at(link_of(event)->addresses, i);
}

_public_ const char *kev_event_link_gateway(const struct kev_event *event, size_t i) {
        return text_at(link_of(event)->gateways, i);
}

_public_ int kev_event_link_moved_to(const struct kev_event *event, int *ret_namespace, int *ret_index) {
        const struct event_link *link = link_of(event);

        if (link->new_namespace < -1 || link->new_namespace > INT32_MAX || link->new_index < 0 ||
            link->new_index > INT32_MAX)
                return -ENODATA;
        *ret_namespace = (int)link->new_namespace;
        *ret_index = (int)link->new_index;
        return 0;
}

_public_ uint64_t kev_event_link_flaps(const struct kev_event *event) {
        int64_t flaps = link_of(event)->flaps;

        return flaps < 0 ? 0 : (uint64_t)flaps;
}
