/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "event.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "buffer.h"
#include "macro.h"
#include "message.h"

/* ---- encoding: the interface's type Event, without id and seq -------------- */

static void put_key(struct buffer *b, const char *key) {
        buffer_put_literal(b, ",\"");
        buffer_put_string(b, key);
        buffer_put_literal(b, "\":");
}

/* A string that the kernel gave and nobody promised to be UTF-8: bytes that are
 * not become question marks. Paths don't come here, they go out as bytes. */
static void put_text(struct buffer *b, const char *key, const char *text) {
        size_t size;

        if (!text)
                return;
        put_key(b, key);
        size = strlen(text);
        if (utf8_is_valid(text, size)) {
                json_put_string(b, text, size);
                return;
        }
        buffer_put_literal(b, "\"");
        for (const char *p = text; *p; p++)
                if ((unsigned char)*p < 0x20 || (unsigned char)*p > 0x7e || *p == '"' || *p == '\\')
                        buffer_put_literal(b, "?");
                else
                        buffer_put(b, p, 1);
        buffer_put_literal(b, "\"");
}

static void put_int(struct buffer *b, const char *key, int64_t value) {
        if (value == ABSENT)
                return;
        put_key(b, key);
        buffer_put_i64(b, value);
}

static void put_bool(struct buffer *b, const char *key, bool value) {
        put_key(b, key);
        buffer_put_string(b, value ? "true" : "false");
}

static void put_path(struct buffer *b, const char *key, const char *key_bytes, struct event_path path) {
        if (!path.bytes)
                return;
        if (utf8_is_valid(path.bytes, path.size)) {
                put_key(b, key);
                json_put_string(b, path.bytes, path.size);
        } else {
                put_key(b, key_bytes);
                json_put_base64(b, path.bytes, path.size);
        }
}

static void put_process(struct buffer *b, const struct event_process *p) {
        put_key(b, "process");
        buffer_put_literal(b, "{\"pid\":");
        buffer_put_i64(b, p->pid);
        put_int(b, "parent", p->parent);
        put_int(b, "uid", p->uid);
        put_text(b, "comm", p->comm);
        put_text(b, "exe", p->exe);
        put_text(b, "cgroup", p->cgroup);
        put_int(b, "exitCode", p->exit_code);
        put_int(b, "signal", p->signal);
        if (p->signal != ABSENT)
                put_bool(b, "coreDumped", p->core_dumped);
        put_int(b, "cpuUsec", p->cpu_usec);
        put_int(b, "peakBytes", p->peak_bytes);
        buffer_put_literal(b, "}");
}

static void put_texts(struct buffer *b, const char *key, const char *const *texts) {
        if (!texts)
                return;
        put_key(b, key);
        buffer_put_literal(b, "[");
        for (size_t i = 0; texts[i]; i++) {
                if (i > 0)
                        buffer_put_literal(b, ",");
                json_put_string(b, texts[i], strlen(texts[i]));
        }
        buffer_put_literal(b, "]");
}

static void put_link(struct buffer *b, const struct event_link *l) {
        put_key(b, "link");
        buffer_put_literal(b, "{\"index\":");
        buffer_put_i64(b, l->index);
        put_text(b, "name", l->name);
        put_text(b, "oldName", l->old_name);
        put_bool(b, "up", l->up);
        put_bool(b, "carrier", l->carrier);
        put_text(b, "operState", l->oper_state);
        put_int(b, "mtu", l->mtu);
        put_text(b, "address", l->address);
        put_texts(b, "addresses", l->addresses);
        put_texts(b, "gateways", l->gateways);
        put_int(b, "newNamespace", l->new_namespace);
        put_int(b, "newIndex", l->new_index);
        put_int(b, "flaps", l->flaps);
        buffer_put_literal(b, "}");
}

static void put_body(struct buffer *b, const struct event *e) {
        const char *separator = "";

        buffer_put_literal(b, "\"filter\":\"");
        buffer_put_string(b, kev_filter_name(e->filter));
        buffer_put_literal(b, "\",\"notes\":[");
        for (uint64_t notes = e->notes; notes != 0; notes &= notes - 1) {
                buffer_put_string(b, separator);
                buffer_put_literal(b, "\"");
                buffer_put_string(b, kev_note_name(notes & -notes));
                buffer_put_literal(b, "\"");
                separator = ",";
        }
        buffer_put_literal(b, "]");
        if (e->flags != 0) {
                separator = "";
                buffer_put_literal(b, ",\"flags\":[");
                for (uint32_t flags = e->flags; flags != 0; flags &= flags - 1) {
                        buffer_put_string(b, separator);
                        buffer_put_literal(b, "\"");
                        buffer_put_string(b, kev_flag_name(flags & -flags));
                        buffer_put_literal(b, "\"");
                        separator = ",";
                }
                buffer_put_literal(b, "]");
        }
        put_int(b, "data", e->data);
        buffer_put_literal(b, ",\"count\":");
        buffer_put_u64(b, e->count);
        buffer_put_literal(b, ",\"realtimeUsec\":");
        buffer_put_u64(b, e->realtime_usec);
        put_path(b, "path", "pathBytes", e->path);
        put_path(b, "fromPath", "fromPathBytes", e->from_path);
        put_text(b, "kind", kev_kind_name(e->kind));
        if (e->process)
                put_process(b, e->process);
        if (e->link)
                put_link(b, e->link);
        buffer_put_literal(b, "}");
}

void event_put(struct buffer *b, const struct event *event, int64_t id, uint64_t seq) {
        buffer_put_literal(b, "{\"id\":");
        buffer_put_i64(b, id);
        buffer_put_literal(b, ",\"seq\":");
        buffer_put_u64(b, seq);
        buffer_put_literal(b, ",");
        buffer_put(b, event->json, event->json_size);
}

/* ---- one allocation for all -------------------------------------------------- */

/* A block that is laid out twice: first to learn its size, then for real. */
struct layout {
        char *base; /* NULL in the first round */
        size_t used;
};

static void *lay(struct layout *l, const void *data, size_t size, size_t align) {
        char *p;

        l->used = (l->used + align - 1) / align * align;
        p = l->base ? l->base + l->used : NULL;
        l->used += size;
        if (p && size > 0)
                memcpy(p, data, size);
        return p;
}

static const char *lay_text(struct layout *l, const char *text) {
        return text ? lay(l, text, strlen(text) + 1, 1) : NULL;
}

static struct event_path lay_path(struct layout *l, struct event_path path) {
        char *p;

        if (!path.bytes)
                return (struct event_path){ 0 };
        p = lay(l, path.bytes, path.size, 1);
        (void)lay(l, "", 1, 1);
        return (struct event_path){ p, path.size };
}

static const struct event_process *lay_process(struct layout *l, const struct event_process *process) {
        struct event_process copy, *p;

        if (!process)
                return NULL;
        copy = *process;
        p = lay(l, &copy, sizeof(copy), _Alignof(struct event_process));
        copy.comm = lay_text(l, process->comm);
        copy.exe = lay_text(l, process->exe);
        copy.cgroup = lay_text(l, process->cgroup);
        if (p)
                *p = copy;
        return p;
}

static const char *const *lay_texts(struct layout *l, const char *const *texts) {
        const char **list;
        size_t n = 0;

        if (!texts)
                return NULL;
        while (texts[n])
                n++;
        list = lay(l, texts, (n + 1) * sizeof(*list), _Alignof(const char *));
        for (size_t i = 0; i < n; i++) {
                const char *text = lay_text(l, texts[i]);

                if (list)
                        list[i] = text;
        }
        return list;
}

static const struct event_link *lay_link(struct layout *l, const struct event_link *link) {
        struct event_link copy, *p;

        if (!link)
                return NULL;
        copy = *link;
        p = lay(l, &copy, sizeof(copy), _Alignof(struct event_link));
        copy.addresses = lay_texts(l, link->addresses);
        copy.gateways = lay_texts(l, link->gateways);
        copy.name = lay_text(l, link->name);
        copy.old_name = lay_text(l, link->old_name);
        copy.oper_state = lay_text(l, link->oper_state);
        copy.address = lay_text(l, link->address);
        if (p)
                *p = copy;
        return p;
}

static struct event *lay_event(struct layout *l, const struct event *template, const char *json, size_t json_size) {
        struct event copy = *template, *e;

        e = lay(l, &copy, sizeof(copy), _Alignof(struct event));
        copy.process = lay_process(l, template->process);
        copy.link = lay_link(l, template->link);
        copy.path = lay_path(l, template->path);
        copy.from_path = lay_path(l, template->from_path);
        copy.json = lay(l, json, json_size, 1);
        copy.json_size = json_size;
        (void)lay(l, "", 1, 1);
        if (e)
                *e = copy;
        return e;
}

static int event_new_with_json(const struct event *template, const char *json, size_t json_size,
                               struct event **ret_event) {
        struct layout l = { 0 };
        struct event *e;

        (void)lay_event(&l, template, json, json_size);
        l.base = malloc(l.used);
        if (!l.base)
                return -ENOMEM;
        l.used = 0;
        e = lay_event(&l, template, json, json_size);
        e->refs = 1;
        e->allocated = l.used;
        *ret_event = e;
        return 0;
}

int event_new(const struct event *template, struct event **ret_event) {
        char space[1024]; /* for most */
        struct buffer b = BUFFER_IN(space);
        int r;

        put_body(&b, template);
        r = b.error ? b.error : event_new_with_json(template, b.data, b.size, ret_event);
        buffer_free(&b);
        return r;
}

static int64_t sum_of_counts(int64_t a, int64_t b) {
        int64_t sum;

        return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

/* A change of the carrier is shown by linkup or linkdown alone; both show none. */
static int64_t changes_shown(uint64_t notes) {
        return !(notes & KEV_NOTE_LINKUP) != !(notes & KEV_NOTE_LINKDOWN);
}

/* Together with the flaps. */
static int64_t carrier_changes(const struct event *e) {
        return sum_of_counts(changes_shown(e->notes), e->link->flaps != ABSENT ? e->link->flaps : 0);
}

/* The second, with what it doesn't say any more of the first: the oldest name, and all changes of the carrier. */
static struct event_link merge_links(const struct event *first, const struct event *second) {
        int64_t changes = sum_of_counts(carrier_changes(first), carrier_changes(second));
        int64_t flaps = sum_of_counts(changes, -changes_shown(first->notes | second->notes));
        struct event_link merged = *second->link;

        if (first->link->old_name)
                merged.old_name = first->link->old_name;
        merged.flaps = flaps != 0 ? flaps : ABSENT;
        return merged;
}

int event_merge(const struct event *first, const struct event *second, struct event **ret_event) {
        struct event merged = *second;
        struct event_link link;

        if (first->link && second->link) {
                link = merge_links(first, second);
                merged.link = &link;
        }
        if (second->filter == KEV_FILTER_TIMER && first->data != ABSENT && second->data != ABSENT)
                merged.data = sum_of_counts(first->data, second->data); /* expiries */
        merged.notes |= first->notes;
        merged.flags |= first->flags;
        merged.count += first->count;
        merged.realtime_usec = first->realtime_usec;
        return event_new(&merged, ret_event);
}

struct event *event_ref(struct event *event) {
        event->refs++;
        return event;
}

struct event *event_unref(struct event *event) {
        if (event && --event->refs == 0)
                free(event);
        return NULL;
}

/* ---- decoding -------------------------------------------------------------- */

/* Decoding base64 into `out`, which has room for three quarters of `text`. */
static int base64_decode(const char *text, char *out, size_t *ret_size) {
        size_t n = 0, size = strlen(text);

        if (size % 4 != 0)
                return -EBADMSG;
        for (size_t i = 0; i < size; i += 4) {
                unsigned v = 0, padding = 0;

                for (size_t j = 0; j < 4; j++) {
                        char c = text[i + j];
                        int digit = c >= 'A' && c <= 'Z' ? c - 'A' :
                                    c >= 'a' && c <= 'z' ? c - 'a' + 26 :
                                    c >= '0' && c <= '9' ? c - '0' + 52 :
                                    c == '+' ? 62 : c == '/' ? 63 : -1;

                        if (c == '=' && i + 4 == size && j >= 2) {
                                padding++;
                                digit = 0;
                        } else if (digit < 0 || padding > 0)
                                return -EBADMSG;
                        v = v << 6 | (unsigned)digit;
                }
                out[n++] = (char)(v >> 16);
                if (padding < 2)
                        out[n++] = (char)(v >> 8);
                if (padding < 1)
                        out[n++] = (char)v;
        }
        *ret_size = n;
        return 0;
}

int event_path_from_json(const char *text, const char *base64, char **scratch, struct event_path *ret_path) {
        size_t size;
        int r;

        if (text) {
                *ret_path = (struct event_path){ text, strlen(text) };
                return 0;
        }
        if (!base64)
                return 0;
        *scratch = malloc(strlen(base64) + 1);
        if (!*scratch)
                return -ENOMEM;
        r = base64_decode(base64, *scratch, &size);
        if (r < 0)
                return r;
        if (memchr(*scratch, 0, size))
                return -EBADMSG;
        (*scratch)[size] = 0;
        *ret_path = (struct event_path){ *scratch, size };
        return 0;
}

struct event_fields {
        int64_t id, seq, data, count, realtime_usec;
        const char *filter, *path, *path_bytes, *from_path, *from_path_bytes, *kind;
        struct json_object *notes, *flags, *process, *link;
};

static const struct field event_fields[] = {
        { "id", FIELD_INT, offsetof(struct event_fields, id), true },
        { "seq", FIELD_INT, offsetof(struct event_fields, seq), true },
        { "filter", FIELD_STRING, offsetof(struct event_fields, filter), true },
        { "notes", FIELD_STRINGS, offsetof(struct event_fields, notes), true },
        { "flags", FIELD_STRINGS, offsetof(struct event_fields, flags), false },
        { "data", FIELD_INT, offsetof(struct event_fields, data), false },
        { "count", FIELD_INT, offsetof(struct event_fields, count), true },
        { "realtimeUsec", FIELD_INT, offsetof(struct event_fields, realtime_usec), true },
        { "path", FIELD_STRING, offsetof(struct event_fields, path), false },
        { "pathBytes", FIELD_STRING, offsetof(struct event_fields, path_bytes), false },
        { "fromPath", FIELD_STRING, offsetof(struct event_fields, from_path), false },
        { "fromPathBytes", FIELD_STRING, offsetof(struct event_fields, from_path_bytes), false },
        { "kind", FIELD_STRING, offsetof(struct event_fields, kind), false },
        { "process", FIELD_OBJECT, offsetof(struct event_fields, process), false },
        { "link", FIELD_OBJECT, offsetof(struct event_fields, link), false },
};

static const struct field process_fields[] = {
        { "pid", FIELD_INT, offsetof(struct event_process, pid), true },
        { "parent", FIELD_INT, offsetof(struct event_process, parent), false },
        { "uid", FIELD_INT, offsetof(struct event_process, uid), false },
        { "comm", FIELD_STRING, offsetof(struct event_process, comm), false },
        { "exe", FIELD_STRING, offsetof(struct event_process, exe), false },
        { "cgroup", FIELD_STRING, offsetof(struct event_process, cgroup), false },
        { "exitCode", FIELD_INT, offsetof(struct event_process, exit_code), false },
        { "signal", FIELD_INT, offsetof(struct event_process, signal), false },
        { "coreDumped", FIELD_BOOL, offsetof(struct event_process, core_dumped), false },
        { "cpuUsec", FIELD_INT, offsetof(struct event_process, cpu_usec), false },
        { "peakBytes", FIELD_INT, offsetof(struct event_process, peak_bytes), false },
};

struct link_fields {
        struct event_link link;
        int64_t index;
        struct json_object *addresses, *gateways;
};

static const struct field link_fields[] = {
        { "index", FIELD_INT, offsetof(struct link_fields, index), true },
        { "name", FIELD_STRING, offsetof(struct link_fields, link.name), true },
        { "oldName", FIELD_STRING, offsetof(struct link_fields, link.old_name), false },
        { "up", FIELD_BOOL, offsetof(struct link_fields, link.up), true },
        { "carrier", FIELD_BOOL, offsetof(struct link_fields, link.carrier), true },
        { "operState", FIELD_STRING, offsetof(struct link_fields, link.oper_state), true },
        { "mtu", FIELD_INT, offsetof(struct link_fields, link.mtu), false },
        { "address", FIELD_STRING, offsetof(struct link_fields, link.address), false },
        { "addresses", FIELD_STRINGS, offsetof(struct link_fields, addresses), false },
        { "gateways", FIELD_STRINGS, offsetof(struct link_fields, gateways), false },
        { "newNamespace", FIELD_INT, offsetof(struct link_fields, link.new_namespace), false },
        { "newIndex", FIELD_INT, offsetof(struct link_fields, link.new_index), false },
        { "flaps", FIELD_INT, offsetof(struct link_fields, link.flaps), false },
};

/* What it points to lives as long as the JSON. */
static int read_texts(struct json_object *json, const char ***ret) {
        size_t n = json ? json_object_array_length(json) : 0;

        if (!json)
                return 0;
        *ret = calloc(n + 1, sizeof(char *));
        if (!*ret)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++)
                (*ret)[i] = json_object_get_string(json_object_array_get_idx(json, i));
        return 0;
}

static int read_link(struct json_object *json, struct link_fields *l, const char ***ret_addresses,
                     const char ***ret_gateways) {
        int r;

        if (fields_read(json, link_fields, ARRAY_SIZE(link_fields), l, NULL) < 0)
                return -EBADMSG;
        if (l->index < 0 || l->index > INT32_MAX)
                return -EBADMSG;
        l->link.index = (int)l->index;
        r = read_texts(l->addresses, ret_addresses);
        if (r == 0)
                r = read_texts(l->gateways, ret_gateways);
        l->link.addresses = *ret_addresses;
        l->link.gateways = *ret_gateways;
        return r;
}

int event_from_json(struct json_object *json, struct event **ret_event) {
        char *path _cleanup_(freep) = NULL, *from_path _cleanup_(freep) = NULL;
        const char **addresses _cleanup_(freep) = NULL, **gateways _cleanup_(freep) = NULL;
        struct event_fields f = { .data = ABSENT };
        struct event_process process = {
                .parent = ABSENT, .uid = ABSENT, .exit_code = ABSENT, .signal = ABSENT, .cpu_usec = ABSENT, .peak_bytes = ABSENT,
        };
        struct link_fields link = {
                .link = { .mtu = ABSENT, .flaps = ABSENT, .new_namespace = ABSENT, .new_index = ABSENT },
        };
        struct event e = { 0 };
        const char *text;
        size_t text_size;
        int r;

        if (fields_read(json, event_fields, ARRAY_SIZE(event_fields), &f, NULL) < 0)
                return -EBADMSG;
        if (kev_filter_from_name(f.filter, &e.filter) < 0 || f.id < 0 || f.seq < 0 || f.count < 0 || f.realtime_usec < 0)
                return -EBADMSG;
        e.id = f.id;
        e.seq = (uint64_t)f.seq;
        e.data = f.data;
        e.count = (uint64_t)f.count;
        e.realtime_usec = (uint64_t)f.realtime_usec;
        if (f.kind)
                (void)kind_from_name(f.kind, &e.kind);
        /* Words of a newer daemon are passed over here; they stand in the JSON. */
        for (size_t i = 0; i < json_object_array_length(f.notes); i++) {
                uint64_t note = 0;

                (void)kev_note_from_name(json_object_get_string(json_object_array_get_idx(f.notes, i)), &note);
                e.notes |= note;
        }
        for (size_t i = 0; f.flags && i < json_object_array_length(f.flags); i++) {
                uint32_t flag = 0;

                (void)flag_from_name(json_object_get_string(json_object_array_get_idx(f.flags, i)), &flag);
                e.flags |= flag;
        }
        r = event_path_from_json(f.path, f.path_bytes, &path, &e.path);
        if (r < 0)
                return r;
        r = event_path_from_json(f.from_path, f.from_path_bytes, &from_path, &e.from_path);
        if (r < 0)
                return r;
        if (f.process) {
                if (fields_read(f.process, process_fields, ARRAY_SIZE(process_fields), &process, NULL) < 0)
                        return -EBADMSG;
                e.process = &process;
        }
        if (f.link) {
                r = read_link(f.link, &link, &addresses, &gateways);
                if (r < 0)
                        return r;
                e.link = &link.link;
        }
        text = json_object_to_json_string_length(json, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE,
                                                 &text_size);
        if (!text)
                return -ENOMEM;
        return event_new_with_json(&e, text, text_size, ret_event);
}
