/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "access.h"

#include <ftw.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "event.h"
#include "files.h"
#include "macro.h"
#include "persons.h"

const gid_t user_groups[2] = { GROUP_TOO, GROUP_THREE };

struct everybody all;

struct party *const root_party = &all.parties[0], *const user_party = &all.parties[1];

/* ---- lines ---------------------------------------------------------------------------------------------------- */

static bool lines_have(const struct lines *lines, const char *text) {
        for (size_t i = 0; i < lines->n; i++)
                if (strcmp(lines->texts[i], text) == 0)
                        return true;
        return false;
}

void lines_add(struct lines *lines, const char *format, ...) {
        char *text;
        va_list arguments;

        va_start(arguments, format);
        ck_assert_int_ge(vasprintf(&text, format, arguments), 0);
        va_end(arguments);
        if (lines_have(lines, text)) {
                free(text);
                return;
        }
        if (lines->n == lines->capacity) {
                lines->capacity = MAX(lines->capacity * 2, (size_t)32);
                lines->texts = realloc(lines->texts, lines->capacity * sizeof(*lines->texts));
                ck_assert_ptr_nonnull(lines->texts);
        }
        lines->texts[lines->n++] = text;
}

static void lines_clear(struct lines *lines) {
        for (size_t i = 0; i < lines->n; i++)
                free(lines->texts[i]);
        free(lines->texts);
        *lines = (struct lines){ 0 };
}

bool is_at_or_below(const char *path, const char *above) {
        size_t size = strlen(above);

        return strncmp(path, above, size) == 0 && (path[size] == '/' || path[size] == 0);
}

/* ---- parties -------------------------------------------------------------------------------------------------- */

size_t take(struct party *party, int timeout_msec, event_fn *fn) {
        struct json_object *reply, *events;
        char parameters[64];
        size_t n;

        (void)snprintf(parameters, sizeof(parameters), "{\"timeoutMsec\":%d}", timeout_msec);
        reply = client_call(party->fd, "org.kevd.events.Wait", parameters);
        ck_assert_msg(json_pointer_get(reply, "/parameters/events", &events) == 0, "Wait: %s",
                      json_object_to_json_string(reply));
        n = json_object_array_length(events);
        for (size_t i = 0; i < n; i++) {
                struct json_object *json = json_object_array_get_idx(events, i);
                struct event *event;

                ck_assert_msg(event_from_json(json, &event) == 0, "%s", json_object_to_json_string(json));
                fn(party, event, json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN));
                event_unref(event);
        }
        json_object_put(reply);
        return n;
}

void drain(struct party *party, event_fn *fn) {
        while (take(party, 0, fn) > 0)
                ;
}

const char *try_watch(int fd, const char *members) {
        static char error[32];
        char parameters[PATH_MAX + 128];
        struct json_object *reply, *refused;

        (void)snprintf(parameters, sizeof(parameters), "{\"add\":[{\"id\":1,\"filter\":\"tree\",%s}]}", members);
        reply = client_call(fd, "org.kevd.events.Change", parameters);
        ck_assert_msg(json_pointer_get(reply, "/parameters/refused", &refused) == 0, "%s",
                      json_object_to_json_string(reply));
        error[0] = 0;
        if (json_pointer_get(reply, "/parameters/refused/0/errno", &refused) == 0)
                (void)snprintf(error, sizeof(error), "%s", json_object_get_string(refused));
        json_object_put(reply);
        return error;
}

void follow_with(struct party *party, const char *members) {
        const char *error;

        party->fd = person_connect(party->person, all.daemon->socket);
        error = try_watch(party->fd, members);
        if (strcmp(error, "EOPNOTSUPP") == 0 && strstr(members, "list"))
                harness_skip("this version makes no lists");
        ck_assert_msg(!error[0], "%s: {%s} is refused: %s", party->person->name, members, error);
}

void add_party(const char *name, uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups) {
        ck_assert_uint_lt(all.n_parties, PARTIES_MAX);
        all.parties[all.n_parties++] = (struct party){
                .person = person_new(name, uid, gid, groups, n_groups), .fd = -1,
        };
}

static void add_parties(void) {
        add_party("root", 0, 0, NULL, 0);
        add_party("user", USER, GROUP, user_groups, ARRAY_SIZE(user_groups));
        add_party("stranger", STRANGER, STRANGER, NULL, 0);
}

void follow(const char *root) {
        all.root = root;
        for (size_t i = 0; i < all.n_parties; i++)
                follow_with(&all.parties[i], at("\"path\":\"%s\"", root));
}

void start_parties(void) {
        if (geteuid() != 0)
                harness_skip("takes root, who can become other users");
        (void)keep_mounts_private();
        need_fanotify();
        (void)umask(022);
        ck_assert_int_eq(unsetenv("KEVD_FILE_MECHANISM"), 0);
        assert_system(chmod(harness_tempdir(), 0711) == 0, harness_tempdir());
        memset(&all, 0, sizeof(all));
        add_parties();
        all.daemon = daemon_start("--file-mechanism=fanotify");
        assert_system(chmod(all.daemon->socket, 0666) == 0, all.daemon->socket);
}

void leave(struct party *party) {
        lines_clear(&party->told);
        lines_clear(&party->rescans);
        lines_clear(&party->seen);
        party->fd = safe_close(party->fd);
}

void stop_parties(void) {
        for (size_t i = 0; i < all.n_parties; i++) {
                leave(&all.parties[i]);
                person_free(all.parties[i].person);
        }
        daemon_stop(all.daemon);
}

TCase *make_access_case(Suite *suite, const char *name, void (*start)(void)) {
        TCase *c = harness_case(suite, name);

        tcase_add_checked_fixture(c, start, stop_parties);
        return c;
}

/* ---- steps ---------------------------------------------------------------------------------------------------- */

static void note_event(struct party *party, const struct event *event, const char *json) {
        const char *path = event->path.bytes;

        ck_assert_msg(path, "%s: no path: %s", party->person->name, json);
        for (uint64_t left = event->notes, note; left; left &= ~note) {
                note = left & -left;
                if (note == KEV_NOTE_REPLACE)
                        continue;
                if (note == KEV_NOTE_RESCAN)
                        lines_add(&party->rescans, "%s", path);
                else if (note == KEV_NOTE_RENAME)
                        lines_add(&party->told, "rename %s -> %s", event->from_path.bytes, path);
                else if (note != KEV_NOTE_ATTRIB || strcmp(path, all.root) != 0) /* inotify names what is below alone */
                        lines_add(&party->told, "%s %s", kev_note_name(note), path);
        }
}

static struct {
        char *paths;
        size_t size, n;
} directories;

static int add_directory(const char *path, const struct stat *st _unused_, int kind, struct FTW *ftw _unused_) {
        size_t size = strlen(path) + 1;

        if (kind != FTW_D && kind != FTW_DNR)
                return 0;
        directories.paths = realloc(directories.paths, directories.size + size);
        ck_assert_ptr_nonnull(directories.paths);
        memcpy(directories.paths + directories.size, path, size);
        directories.size += size;
        directories.n++;
        return 0;
}

static void find_directories(const char *top) {
        directories.size = directories.n = 0;
        ck_assert_int_eq(nftw(top, add_directory, 16, FTW_PHYS), 0);
}

static void add_lines(struct lines *lines, const char *text) {
        while (*text) {
                size_t size = strcspn(text, "\n");

                lines_add(lines, "%.*s", (int)size, text);
                text += size;
                text += *text == '\n';
        }
}

static struct party *listing_party; /* nftw(3) passes nothing on */

static int add_listed(const char *path, const struct stat *st _unused_, int kind _unused_, struct FTW *ftw) {
        char directory[PATH_MAX];

        if (ftw->level == 0)
                return 0;
        (void)snprintf(directory, sizeof(directory), "%.*s", ftw->base - 1, path);
        if (person_may_read(listing_party->person, directory) == 0)
                lines_add(&listing_party->seen, "create %s", path);
        return 0;
}

void step_begin_of(struct party *party) {
        find_directories(all.root);
        person_watch(party->person, directories.paths, directories.size);
}

void step_begin(void) {
        find_directories(all.root);
        for (size_t i = 0; i < all.n_parties; i++)
                person_watch(all.parties[i].person, directories.paths, directories.size);
}

static bool is_path_rescanned(const struct party *party, const char *path) {
        for (size_t i = 0; i < party->rescans.n; i++)
                if (is_at_or_below(path, party->rescans.texts[i]))
                        return true;
        return false;
}

/* What the line is about, or both ends of it, lie where the party was told to look. */
static bool is_rescanned(const struct party *party, const char *line) {
        static const char rename[] = "rename ";
        char from[PATH_MAX];

        if (!is_path_rescanned(party, strrchr(line, ' ') + 1))
                return false;
        if (strncmp(line, rename, strlen(rename)) != 0)
                return true;
        (void)snprintf(from, sizeof(from), "%s", line + strlen(rename));
        *strchr(from, ' ') = 0;
        return is_path_rescanned(party, from);
}

static const char *find_missing(const struct party *party) {
        for (size_t i = 0; i < party->seen.n; i++)
                if (!lines_have(&party->told, party->seen.texts[i]) && !is_rescanned(party, party->seen.texts[i]))
                        return party->seen.texts[i];
        return NULL;
}

/* Whether the party may read the directory; with "/." at its end, search it as well. */
__attribute__((format(printf, 2, 3))) static bool may(struct party *party, const char *format, ...) {
        char path[PATH_MAX];
        va_list arguments;

        va_start(arguments, format);
        (void)vsnprintf(path, sizeof(path), format, arguments);
        va_end(arguments);
        return person_may_read(party->person, path) == 0;
}

/* Whether the step may make something visible to the party that was not. */
static bool may_be_new(struct party *party) {
        if (!all.rescan_at || party->person->is_root)
                return false;
        return !all.ends[0] || may(party, "%s", all.ends[0]) != may(party, "%s", all.ends[1]) ||
               may(party, "%s/.", all.ends[0]) != may(party, "%s/.", all.ends[1]);
}

/* What is, or was before the step, to be seen by name, or what is in it. */
static bool may_know(struct party *party, const char *path) {
        char above[PATH_MAX], *slash;

        (void)snprintf(above, sizeof(above), "%s", path);
        slash = strrchr(above, '/');
        if (slash)
                *slash = 0;
        return strcmp(path, all.root) == 0 || may(party, "%s", path) || may(party, "%s", above) ||
               person_watches(party->person, path) || person_watches(party->person, above);
}

static void check_rescans(struct party *party, const char *what) {
        for (size_t i = 0; i < party->rescans.n; i++) {
                const char *path = party->rescans.texts[i];

                ck_assert_msg(may_be_new(party) && is_at_or_below(path, all.rescan_at), "%s: %s: a rescan of %s", what,
                              party->person->name, path);
                ck_assert_msg(may_know(party, path), "%s: %s: a rescan of %s, of which it may know nothing", what,
                              party->person->name, path);
        }
}

void step_end_of(struct party *party, const char *what) {
        int64_t deadline = now_msec() + HARNESS_REPLY_MSEC;
        const char *missing;

        add_lines(&party->seen, person_read(party->person));
        if (all.listed) {
                listing_party = party;
                ck_assert_int_eq(nftw(all.listed, add_listed, 16, FTW_PHYS), 0);
        }
        drain(party, note_event);
        while ((missing = find_missing(party)) && now_msec() < deadline)
                (void)take(party, 50, note_event);
        for (size_t i = 0; i < party->told.n; i++)
                ck_assert_msg(lines_have(&party->seen, party->told.texts[i]), "%s: %s is told, and could not see: %s",
                              what, party->person->name, party->told.texts[i]);
        ck_assert_msg(!missing, "%s: %s could see, and is not told: %s", what, party->person->name, missing);
        check_rescans(party, what);
        lines_clear(&party->told);
        lines_clear(&party->rescans);
        lines_clear(&party->seen);
}

void step_end(const char *what) {
        for (size_t i = 0; i < all.n_parties; i++)
                step_end_of(&all.parties[i], what);
}

void skip_due(void) {
        for (size_t i = 0; i < all.n_parties; i++) {
                drain(&all.parties[i], note_event);
                lines_clear(&all.parties[i].told);
                lines_clear(&all.parties[i].rescans);
        }
}

void tidy_steps(void) {
        free(take_pointer(&directories.paths));
        directories.size = directories.n = 0;
}

void expect_may_read(struct party *party, const char *path, int error) {
        int found = person_may_read(party->person, path);

        ck_assert_msg(found == error, "the test is wrong: %s: %s: %s", party->person->name, path, strerror(found));
}

/* ---- access control lists ------------------------------------------------------------------------------------- */

void set_acl(const char *entry, const char *path) {
        char *command;

        ck_assert_int_ge(asprintf(&command, "setfacl -m %s '%s'", entry, path), 0);
        run("/", command);
        free(command);
}

void need_acl(void) {
        const char *path = at("%s/acl", harness_tempdir());

        if (system("command -v setfacl >/dev/null 2>&1") != 0) /* NOLINT(cert-env33-c) */
                harness_skip("there is no setfacl (package acl)");
        make_dir(path);
        if (system(at("setfacl -m u:1:rx '%s' 2>/dev/null", path)) != 0) /* NOLINT(cert-env33-c) */
                harness_skip("the file system has no access control lists");
        assert_system(rmdir(path) == 0, path);
}
