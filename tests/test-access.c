/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Who is told what, on fanotify: a user follows a tree through a root daemon, and has to see what a program of that
 * user could have seen with inotify, not one name more, and when all is at rest not one less. Beside it root follows
 * the same tree, and sees everything.
 *
 * Where one operation is done at a time there is such a program: what it saw is what must be told. Where they come
 * without a pause it would be late itself; there every name is made once, and the kernel is asked whether the user
 * could read its directory at any moment of its life.
 */

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "event.h"
#include "files.h"
#include "harness.h"
#include "macro.h"
#include "persons.h"

/* Nobody's ids: they need not be known to the system. */
enum {
        USER = 64100,
        STRANGER = 64101,
        GROUP = 64200,       /* the user's own */
        GROUP_TOO = 64201,   /* supplementary ones */
        GROUP_THREE = 64202,
        GROUP_OTHER = 64203, /* without the user */
};

static const gid_t user_groups[] = { GROUP_TOO, GROUP_THREE };

/* ---- lines ---------------------------------------------------------------------------------------------------- */

/* A set of texts. */
struct lines {
        char **texts;
        size_t n, capacity;
};

static bool lines_have(const struct lines *lines, const char *text) {
        for (size_t i = 0; i < lines->n; i++)
                if (strcmp(lines->texts[i], text) == 0)
                        return true;
        return false;
}

__attribute__((format(printf, 2, 3))) static void lines_add(struct lines *lines, const char *format, ...) {
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

static bool is_at_or_below(const char *path, const char *above) {
        size_t size = strlen(above);

        return strncmp(path, above, size) == 0 && (path[size] == '/' || path[size] == 0);
}

/* ---- parties: who follows the tree ---------------------------------------------------------------------------- */

enum { PARTIES_MAX = 4 };

struct party {
        struct person *person;
        int fd; /* to the daemon */
        struct lines told, rescans, seen;
};

static struct {
        struct daemon *daemon;
        const char *root;      /* the tree that is followed */
        const char *listed;    /* came into the tree with content, which is told as created */
        const char *rescan_at; /* a rescan may come there or below, for others than root; NULL: none */
        const char *ends[2];   /* of a move: who may read both, or neither, is not to look again either */
        struct party parties[PARTIES_MAX];
        size_t n_parties;
} all;

typedef void event_fn(struct party *party, const struct event *event, const char *json);

/* What is due, or the first that becomes so in time. Returns how many events these are. */
static size_t take(struct party *party, int timeout_msec, event_fn *fn) {
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

static void drain(struct party *party, event_fn *fn) {
        while (take(party, 0, fn) > 0)
                ;
}

/* What becomes of a watch on the path: "" if it is made, or else the errno value's name. It lives until the next. */
static const char *try_watch(int fd, const char *members) {
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

static void follow_with(struct party *party, const char *members) {
        const char *error;

        party->fd = person_connect(party->person, all.daemon->socket);
        error = try_watch(party->fd, members);
        if (strcmp(error, "EOPNOTSUPP") == 0 && strstr(members, "list"))
                harness_skip("this version makes no lists");
        ck_assert_msg(!error[0], "%s: {%s} is refused: %s", party->person->name, members, error);
}

static void add_party(const char *name, uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups) {
        ck_assert_uint_lt(all.n_parties, PARTIES_MAX);
        all.parties[all.n_parties++] = (struct party){
                .person = person_new(name, uid, gid, groups, n_groups), .fd = -1,
        };
}

/* Root, the user, and one who is in no group and owns nothing. */
static struct party *const root_party = &all.parties[0], *const user_party = &all.parties[1];

static void add_parties(void) {
        add_party("root", 0, 0, NULL, 0);
        add_party("user", USER, GROUP, user_groups, ARRAY_SIZE(user_groups));
        add_party("stranger", STRANGER, STRANGER, NULL, 0);
}

static void follow(const char *root) {
        all.root = root;
        for (size_t i = 0; i < all.n_parties; i++)
                follow_with(&all.parties[i], at("\"path\":\"%s\"", root));
}

static void need_fanotify(void) {
        const char *missing = fanotify_missing();

        if (missing)
                harness_skip(missing);
}

/* Whether what others mount is kept away, and what is mounted here is from them. */
static bool keep_mounts_private(void) {
        return unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static void start(void) {
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

static void leave(struct party *party) {
        lines_clear(&party->told);
        lines_clear(&party->rescans);
        lines_clear(&party->seen);
        party->fd = safe_close(party->fd);
}

static void stop(void) {
        for (size_t i = 0; i < all.n_parties; i++) {
                leave(&all.parties[i]);
                person_free(all.parties[i].person);
        }
        daemon_stop(all.daemon);
}

/* ---- steps: one operation, and what everybody sees of it ------------------------------------------------------ */

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

static void step_begin(void) {
        find_directories(all.root);
        for (size_t i = 0; i < all.n_parties; i++)
                person_watch(all.parties[i].person, directories.paths, directories.size);
}

/* The path that the line is about lies where the party was told to look. */
static bool is_rescanned(const struct party *party, const char *line) {
        const char *path = strrchr(line, ' ') + 1;

        for (size_t i = 0; i < party->rescans.n; i++)
                if (is_at_or_below(path, party->rescans.texts[i]))
                        return true;
        return false;
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

static void step_end_of(struct party *party, const char *what) {
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

static void step_end(const char *what) {
        for (size_t i = 0; i < all.n_parties; i++)
                step_end_of(&all.parties[i], what);
}

/* Does it; everybody must be told what he could see, and by no rescan. */
#define STEP(what) for (bool once_ = (step_begin(), true); once_; once_ = false, step_end(what))

/* For whoever is not root, a rescan there may take the place of an event: it became visible to him. */
#define STEP_NEW(what, path) \
        for (bool once_ = (step_begin(), all.rescan_at = (path), true); once_; \
             once_ = false, step_end(what), all.rescan_at = NULL)

static void tidy_steps(void) {
        free(take_pointer(&directories.paths));
        directories.size = directories.n = 0;
}

static void expect_may_read(struct party *party, const char *path, int error) {
        int found = person_may_read(party->person, path);

        ck_assert_msg(found == error, "the test is wrong: %s: %s: %s", party->person->name, path, strerror(found));
}

/* ---- modes, owners, lists of access rights -------------------------------------------------------------------- */

static void set_acl(const char *entry, const char *path) {
        char *command;

        ck_assert_int_ge(asprintf(&command, "setfacl -m %s '%s'", entry, path), 0);
        run("/", command);
        free(command);
}

static void need_acl(void) {
        const char *path = at("%s/acl", harness_tempdir());

        if (system("command -v setfacl >/dev/null 2>&1") != 0) /* NOLINT(cert-env33-c) */
                harness_skip("there is no setfacl (package acl)");
        make_dir(path);
        if (system(at("setfacl -m u:1:rx '%s' 2>/dev/null", path)) != 0) /* NOLINT(cert-env33-c) */
                harness_skip("the file system has no access control lists");
        assert_system(rmdir(path) == 0, path);
}

static const struct {
        const char *name;
        mode_t mode;
        uid_t owner;
        gid_t group;
        const char *acl;
        bool search, read; /* by the user */
} places[] = {
        { "0755", 0755, 0, 0, NULL, true, true },
        { "0700", 0700, 0, 0, NULL, false, false },
        { "0711", 0711, 0, 0, NULL, true, false },
        { "0744", 0744, 0, 0, NULL, false, true },
        { "0000", 0000, 0, 0, NULL, false, false },
        { "0700, the user's own", 0700, USER, 0, NULL, true, true },
        { "0077, the user's own", 0077, USER, GROUP, NULL, false, false },
        { "0750, of a group without the user", 0750, 0, GROUP_OTHER, NULL, false, false },
        { "0750, of the user's first group", 0750, 0, GROUP, NULL, true, true },
        { "0750, of a supplementary group", 0750, 0, GROUP_TOO, NULL, true, true },
        { "0705, of a supplementary group", 0705, 0, GROUP_THREE, NULL, false, false },
        { "0700, an ACL gives", 0700, 0, 0, "u:64100:rx", true, true },
        { "0755, an ACL takes", 0755, 0, 0, "u:64100:---", false, false },
        { "0700, an ACL gives a group", 0700, 0, 0, "g:64202:rx", true, true },
};

/* Its name stays, its rights change. */
static void set_place(const char *path, size_t i) {
        assert_system(chown(path, places[i].owner, places[i].group) == 0, path);
        assert_system(chmod(path, places[i].mode) == 0, path);
        if (places[i].acl)
                set_acl(places[i].acl, path);
}

static void do_files(const char *d) {
        STEP("create") make_file(at("%s/file", d));
        STEP("write") append(at("%s/file", d), "text");
        STEP("chmod of a file") assert_system(chmod(at("%s/file", d), 0600) == 0, d);
        STEP("rename") move(at("%s/file", d), at("%s/renamed", d));
        STEP("make another") append(at("%s/other", d), "text");
        STEP("rename over another") move(at("%s/renamed", d), at("%s/other", d));
        STEP("symlink") assert_system(symlink("/", at("%s/symlink", d)) == 0, d);
        STEP("unlink") remove_file(at("%s/other", d));
        STEP("unlink the symlink") remove_file(at("%s/symlink", d));
        STEP("mkdir") make_dir(at("%s/dir", d));
        STEP("create below") make_file(at("%s/dir/file", d));
        STEP("rename a directory") move(at("%s/dir", d), at("%s/dir2", d));
        STEP("write below") append(at("%s/dir2/file", d), "text");
        /* Several operations: the directory may be gone before anybody can look at it. */
        STEP_NEW("rm -r", all.root) run(d, "rm -r dir2");
}

static void do_links(const char *d, const char *v) {
        STEP("create") make_file(at("%s/file", d));
        STEP("link out") assert_system(link(at("%s/file", d), at("%s/link", v)) == 0, v);
        STEP("write by the link") append(at("%s/link", v), "text");
        STEP("write by the first name") append(at("%s/file", d), "text");
        STEP("unlink the first") remove_file(at("%s/file", d));
        STEP("link in") assert_system(link(at("%s/link", v), at("%s/again", d)) == 0, d);
        STEP("write by what is in") append(at("%s/again", d), "text");
        STEP("unlink what is out") remove_file(at("%s/link", v));
        STEP("unlink what is in") remove_file(at("%s/again", d));
}

static void do_moves(const char *d, const char *v) {
        STEP("create") make_file(at("%s/file", d));
        STEP("file out") move(at("%s/file", d), at("%s/out", v));
        STEP("write, out") append(at("%s/out", v), "text");
        STEP("file in") move(at("%s/out", v), at("%s/in", d));
        STEP("write, in") append(at("%s/in", d), "text");
        STEP("make another") make_file(at("%s/there", v));
        STEP("file out, over another") move(at("%s/in", d), at("%s/there", v));
        STEP("delete") remove_file(at("%s/there", v));

        STEP("mkdir") make_dir(at("%s/dir", d));
        STEP("mkdir below") make_dir(at("%s/dir/sub", d));
        STEP("create below") make_file(at("%s/dir/sub/file", d));
        all.ends[0] = d;
        all.ends[1] = v;
        STEP_NEW("directory out", at("%s/moved", v)) move(at("%s/dir", d), at("%s/moved", v));
        STEP_NEW("create in it, out", at("%s/moved", v)) make_file(at("%s/moved/new", v));
        STEP_NEW("create below it, out", at("%s/moved", v)) make_file(at("%s/moved/sub/new", v));
        STEP("write below it, out") append(at("%s/moved/sub/file", v), "text");
        STEP_NEW("directory in", at("%s/back", d)) move(at("%s/moved", v), at("%s/back", d));
        STEP_NEW("create in it, in", at("%s/back", d)) make_file(at("%s/back/new2", d));
        STEP_NEW("create below it, in", at("%s/back", d)) make_file(at("%s/back/sub/new2", d));
        STEP("write below it, in") append(at("%s/back/sub/file", d), "text");
        STEP("delete below it, in") remove_file(at("%s/back/sub/new", d));
        STEP_NEW("directory out again", at("%s/moved", v)) move(at("%s/back", d), at("%s/moved", v));
        STEP_NEW("create below it, out again", at("%s/moved", v)) make_file(at("%s/moved/sub/new3", v));
        STEP("delete below it, out") remove_file(at("%s/moved/sub/file", v));
        all.ends[0] = all.ends[1] = NULL;
        STEP_NEW("rm -r", all.root) run(v, "rm -r moved");
}

static void make_place(size_t i, const char *d) {
        make_dir(d);
        make_dir(at("%s/sub", d)); /* to be reached by name where the place may be searched */
        set_place(d, i);
        expect_may_read(user_party, d, places[i].read ? 0 : EACCES);
        expect_may_read(user_party, at("%s/sub", d), places[i].search ? 0 : EACCES);
}

START_TEST(test_place) {
        const char *root = make_root("w"), *d = at("%s/d", root), *v = at("%s/v", root);

        harness_label(places[_i].name);
        if (places[_i].acl)
                need_acl();
        make_dir(v);
        make_place((size_t)_i, d);
        follow(root);
        do_files(d);
        do_links(d, v);
        do_moves(d, v);
        if (!places[_i].owner && !places[_i].group && !places[_i].acl) { /* the others go the same ways */
                do_files(at("%s/sub", d));
                do_moves(at("%s/sub", d), d);
        }
        STEP_NEW("rm -r", root) run(root, "rm -r d");
        tidy_steps();
}
END_TEST

/* The root of the watch itself becomes such a place, and is opened again. */
START_TEST(test_place_is_root) {
        const char *root = make_root("w"), *sub = at("%s/sub", root);

        harness_label(places[_i].name);
        if (places[_i].acl)
                need_acl();
        make_dir(sub);
        follow(root);
        STEP("create") make_file(at("%s/before", root));
        STEP("create below") make_file(at("%s/before", sub));
        set_place(root, (size_t)_i);
        expect_may_read(user_party, root, places[_i].read ? 0 : EACCES);
        /* What its rights became is told while they do, to whom is not asked here. */
        for (size_t i = 0; i < all.n_parties; i++) {
                drain(&all.parties[i], note_event);
                lines_clear(&all.parties[i].told);
                lines_clear(&all.parties[i].rescans);
        }
        STEP_NEW("create, now", root) make_file(at("%s/during", root));
        STEP_NEW("create below, now", root) make_file(at("%s/during", sub));
        STEP("create, again") make_file(at("%s/during2", root));
        STEP("create below, again") make_file(at("%s/during2", sub));
        assert_system(chown(root, 0, 0) == 0, root);
        if (places[_i].acl)
                run(root, "setfacl -b .");
        assert_system(chmod(root, 0755) == 0, root);
        STEP_NEW("create, open", root) make_file(at("%s/after", root));
        STEP_NEW("create below, open", root) make_file(at("%s/after", sub));
        STEP("create, open again") make_file(at("%s/after2", root));
        STEP("create below, open again") make_file(at("%s/after2", sub));
        tidy_steps();
}
END_TEST

/* The same user twice, with groups and without. */
START_TEST(test_groups) {
        const char *root = make_root("w");
        static const gid_t groups[] = { GROUP, GROUP_TOO, GROUP_THREE, GROUP_OTHER };

        add_party("user without groups", USER, USER, NULL, 0);
        for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
                const char *d = at("%s/d%zu", root, i);

                make_dir(d);
                assert_system(chown(d, 0, groups[i]) == 0 && chmod(d, 0750) == 0, d);
                expect_may_read(user_party, d, groups[i] == GROUP_OTHER ? EACCES : 0);
                expect_may_read(&all.parties[3], d, EACCES);
        }
        follow(root);
        for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
                do_files(at("%s/d%zu", root, i));
        for (size_t i = 1; i < ARRAY_SIZE(groups); i++)
                do_moves(at("%s/d%zu", root, i - 1), at("%s/d%zu", root, i));
        tidy_steps();
}
END_TEST

/* ---- what changes --------------------------------------------------------------------------------------------- */

static const struct {
        const char *name;
        const char *at; /* below the root */
        mode_t closed, open;
        uid_t closed_owner, open_owner;
        gid_t closed_group, open_group;
} changes[] = {
        { "mode of the directory", "a/d", 0700, 0755, 0, 0, 0, 0 },
        { "mode of the directory, to be searched alone", "a/d", 0711, 0755, 0, 0, 0, 0 },
        { "mode of the directory above", "a", 0700, 0755, 0, 0, 0, 0 },
        { "mode of the directory above, to be searched alone", "a", 0700, 0711, 0, 0, 0, 0 },
        { "owner", "a/d", 0700, 0700, 0, USER, 0, 0 },
        { "group", "a/d", 0750, 0750, 0, 0, GROUP_OTHER, GROUP_THREE },
        { "owner of the directory above", "a", 0700, 0700, 0, USER, 0, 0 },
};

static void set_rights(const char *path, int i, bool open) {
        uid_t owner = open ? changes[i].open_owner : changes[i].closed_owner;
        gid_t group = open ? changes[i].open_group : changes[i].closed_group;

        assert_system(chown(path, owner, group) == 0, path);
        assert_system(chmod(path, open ? changes[i].open : changes[i].closed) == 0, path);
}

START_TEST(test_change) {
        const char *root = make_root("w"), *d = at("%s/a/d", root), *changed = at("%s/%s", root, changes[_i].at);

        harness_label(changes[_i].name);
        make_dir(at("%s/a", root));
        make_dir(d);
        make_dir(at("%s/v", root));
        set_rights(changed, _i, false);
        follow(root);
        for (int i = 0; i < 3; i++) {
                expect_may_read(user_party, d, EACCES);
                STEP("create, closed") make_file(at("%s/closed%d", d, i));
                STEP("write, closed") append(at("%s/closed%d", d, i), "text");
                STEP_NEW("open", changed) set_rights(changed, _i, true);
                expect_may_read(user_party, d, 0);
                STEP_NEW("create, open", changed) make_file(at("%s/open%d", d, i));
                STEP("write, open") append(at("%s/open%d", d, i), "text");
                STEP("write to what was made before") append(at("%s/closed%d", d, i), "text");
                STEP("move out, open") move(at("%s/closed%d", d, i), at("%s/v/%d", root, i));
                STEP("delete, open") remove_file(at("%s/open%d", d, i));
                STEP("close") set_rights(changed, _i, false);
                STEP("move in, closed") move(at("%s/v/%d", root, i), at("%s/back%d", d, i));
                STEP("delete, closed") remove_file(at("%s/back%d", d, i));
        }
        tidy_steps();
}
END_TEST

START_TEST(test_change_acl) {
        const char *root = make_root("w"), *d = at("%s/d", root);

        need_acl();
        make_dir(d);
        follow(root);
        for (int i = 0; i < 3; i++) {
                STEP("take") set_acl("u:64100:---", d);
                expect_may_read(user_party, d, EACCES);
                STEP("create, closed") make_file(at("%s/closed%d", d, i));
                STEP_NEW("give", d) set_acl("u:64100:rx", d);
                expect_may_read(user_party, d, 0);
                STEP_NEW("create, open", d) make_file(at("%s/open%d", d, i));
                STEP("delete, open") remove_file(at("%s/open%d", d, i));
        }
        tidy_steps();
}
END_TEST

/* A directory goes from an invisible place to a visible one, and back. */
START_TEST(test_moved) {
        const char *root = make_root("w"), *open = at("%s/open", root), *closed = at("%s/closed", root);

        make_dir(open);
        make_dir(closed);
        assert_system(chmod(closed, 0700) == 0, closed);
        make_dir(at("%s/d", closed));
        make_dir(at("%s/d/below", closed));
        make_dir(at("%s/d/own", closed));
        assert_system(chmod(at("%s/d/own", closed), 0700) == 0, closed);
        follow(root);
        for (int i = 0; i < 3; i++) {
                STEP("create, closed") make_file(at("%s/d/c%d", closed, i));
                STEP("create below, closed") make_file(at("%s/d/below/c%d", closed, i));
                STEP_NEW("out", at("%s/d", open)) move(at("%s/d", closed), at("%s/d", open));
                STEP_NEW("create, open", at("%s/d", open)) make_file(at("%s/d/o%d", open, i));
                STEP_NEW("create below, open", at("%s/d", open)) make_file(at("%s/d/below/o%d", open, i));
                STEP("write, open") append(at("%s/d/o%d", open, i), "text");
                STEP("write below, open") append(at("%s/d/below/c%d", open, i), "text");
                STEP("create in its own closed directory") make_file(at("%s/d/own/o%d", open, i));
                STEP("in") move(at("%s/d", open), at("%s/d", closed));
                STEP("write, closed") append(at("%s/d/o%d", closed, i), "text");
                STEP("delete below, closed") remove_file(at("%s/d/below/o%d", closed, i));
        }
        tidy_steps();
}
END_TEST

static void make_mixed(const char *path) {
        static const struct {
                const char *name;
                mode_t mode;
        } mixed[] = {
                { "open", 0755 }, { "closed", 0700 }, { "closed/open", 0755 }, { "search", 0711 },
                { "search/open", 0755 }, { "search/open/closed", 0700 }, { "list", 0744 }, { "list/open", 0755 },
        };

        make_dir(path);
        make_file(at("%s/file", path));
        for (size_t i = 0; i < ARRAY_SIZE(mixed); i++) {
                make_dir(at("%s/%s", path, mixed[i].name));
                make_file(at("%s/%s/file%zu", path, mixed[i].name, i));
        }
        for (size_t i = ARRAY_SIZE(mixed); i-- > 0;)
                assert_system(chmod(at("%s/%s", path, mixed[i].name), mixed[i].mode) == 0, path);
}

/* From outside of the tree, to where all may see it, and to where they may not: what is in it is told as created. */
START_TEST(test_moved_from_outside) {
        const char *root = make_root("w"), *open = at("%s/open", root), *closed = at("%s/closed", root);
        const char *outside = at("%s/outside", harness_tempdir());

        make_dir(open);
        make_dir(closed);
        assert_system(chmod(closed, 0700) == 0, closed);
        follow(root);
        make_mixed(outside);
        all.listed = at("%s/d", open);
        STEP("to where it is seen") move(outside, all.listed);
        all.listed = NULL;
        STEP("create in it") make_file(at("%s/d/new", open));
        STEP("create below it") make_file(at("%s/d/search/open/new", open));
        make_mixed(outside);
        all.listed = at("%s/d", closed);
        STEP("to where it is not") move(outside, all.listed);
        all.listed = NULL;
        STEP("create in it") make_file(at("%s/d/new", closed));
        STEP("create below it") make_file(at("%s/d/search/open/new", closed));
        tidy_steps();
}
END_TEST

/* The list that a watch asks for. */
START_TEST(test_list) {
        const char *root = make_root("w");

        make_mixed(at("%s/d", root));
        all.root = root;
        for (size_t i = 0; i < all.n_parties; i++) {
                struct party *party = &all.parties[i];

                follow_with(party, at("\"path\":\"%s\",\"tree\":{\"list\":true}", root));
                find_directories(root);
                person_watch(party->person, directories.paths, directories.size);
                lines_add(&party->seen, "listed %s", root);
                all.listed = root;
                step_end_of(party, "list");
                all.listed = NULL;
        }
        STEP("create") make_file(at("%s/d/search/open/new", root));
        tidy_steps();
}
END_TEST

/* A directory above the mount point is closed: no event of this file system says so. */
START_TEST(test_above_mount) {
        const char *above, *root;

        above = make_root("above");
        root = at("%s/mounted", above);
        make_dir(root);
        assert_system(mount("tmpfs", root, "tmpfs", 0, "mode=755") == 0, root);
        make_dir(at("%s/d", root));
        follow(root);
        STEP("create") make_file(at("%s/file", root));
        STEP("create below") make_file(at("%s/d/file", root));
        for (int i = 0; i < 2; i++) {
                assert_system(chmod(above, 0700) == 0, above);
                expect_may_read(user_party, root, EACCES);
                STEP("create, closed") make_file(at("%s/closed%d", root, i));
                STEP("create below, closed") make_file(at("%s/d/closed%d", root, i));
                assert_system(chmod(above, 0755) == 0, above);
                STEP_NEW("create, open", root) make_file(at("%s/open%d", root, i));
                STEP_NEW("create below, open", root) make_file(at("%s/d/open%d", root, i));
        }
        for (size_t i = 0; i < all.n_parties; i++)
                leave(&all.parties[i]);
        tidy_steps();
        assert_system(umount2(root, MNT_DETACH) == 0, root);
}
END_TEST

/* The watched directory is closed to the user for a while, and something is mounted elsewhere: the watch stays. */
START_TEST(test_mounted_elsewhere) {
        const char *root = make_root("w"), *elsewhere = make_root("elsewhere");

        follow(root);
        STEP("create") make_file(at("%s/file", root));
        STEP("close") assert_system(chmod(root, 0700) == 0, root);
        assert_system(mount("tmpfs", elsewhere, "tmpfs", 0, "mode=755") == 0, elsewhere);
        STEP("create, closed") make_file(at("%s/closed", root));
        assert_system(umount2(elsewhere, 0) == 0, elsewhere);
        STEP("create, closed, again") make_file(at("%s/closed2", root));
        STEP_NEW("open", root) assert_system(chmod(root, 0755) == 0, root);
        STEP_NEW("create, open", root) make_file(at("%s/open", root));
        STEP("create, open, again") make_file(at("%s/open2", root));
        tidy_steps();
}
END_TEST

static void start_with_mounts(void) {
        if (geteuid() != 0)
                harness_skip("takes root, who can become other users");
        if (!keep_mounts_private())
                harness_skip("mounts can't be kept private: no mount namespaces, or a chroot");
        start();
}

/* ---- refusals ------------------------------------------------------------------------------------------------- */

static void expect_watch(struct party *party, const char *members, const char *expected) {
        const char *error;

        party->fd = person_connect(party->person, all.daemon->socket);
        error = try_watch(party->fd, members);
        ck_assert_msg(strcmp(error, expected) == 0, "%s: {%s}: %s instead of %s", party->person->name, members,
                      *error ? error : "no error", *expected ? expected : "no error");
        party->fd = safe_close(party->fd);
}

START_TEST(test_refused) {
        static const struct {
                const char *path, *user, *root;
        } asked[] = {
                { "open", "", "" },
                { "open/sub", "", "" },
                { "open/none", "ENOENT", "ENOENT" },
                { "open/none/none", "ENOENT", "ENOENT" },
                { "open/file/none", "ENOTDIR", "ENOTDIR" },
                { "closed", "EACCES", "" },
                { "closed/sub", "EACCES", "" },
                { "closed/none", "EACCES", "ENOENT" },
                { "closed/sub/none", "EACCES", "ENOENT" },
                { "closed/file/none", "EACCES", "ENOTDIR" },
                { "search", "EACCES", "" },
                { "search/sub", "", "" },
                { "search/none", "ENOENT", "ENOENT" },
                { "list", "", "" },
                { "list/sub", "EACCES", "" },
                { "list/none", "EACCES", "ENOENT" },
                { "link/sub", "EACCES", "" },
                { "link/none", "EACCES", "ENOENT" },
        };
        const char *root = make_root("w");

        run(root, "mkdir -p open/sub closed/sub search/sub list/sub && touch open/file closed/file");
        run(root, "ln -s ../w/closed link && chmod 0700 closed && chmod 0711 search && chmod 0744 list");
        for (size_t i = 0; i < ARRAY_SIZE(asked); i++) {
                const char *members = at("\"path\":\"%s/%s\"", root, asked[i].path);

                expect_watch(user_party, members, asked[i].user);
                expect_watch(root_party, members, asked[i].root);
                /* One that may wait says nothing more. */
                if (strcmp(asked[i].user, "EACCES") == 0)
                        expect_watch(user_party, at("%s,\"notes\":[\"create\",\"back\"]", members), "EACCES");
        }
}
END_TEST

/* A descriptor is no way around: neither one that shows a path alone, nor one that somebody else has opened. */
START_TEST(test_refused_descriptor) {
        static const char call[] = "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":"
                                   "[{\"id\":1,\"filter\":\"tree\",\"descriptor\":0}]}}";
        const char *root = make_root("w"), *search = at("%s/search", root), *closed = at("%s/closed", root);

        make_dir(search);
        make_dir(closed);
        assert_system(chmod(search, 0711) == 0 && chmod(closed, 0700) == 0, root);
        for (int i = 0; i < 3; i++) {
                int passed = i == 0 ? person_open_path(user_party->person, search) :
                             i == 1 ? open(closed, O_RDONLY | O_DIRECTORY | O_CLOEXEC) :
                                      person_open_path(user_party->person, root);
                struct json_object *reply, *found = NULL;

                assert_system(passed >= 0, root);
                user_party->fd = person_connect(user_party->person, all.daemon->socket);
                client_send_with_fds(user_party->fd, call, sizeof(call), &passed, 1);
                reply = client_receive(user_party->fd, HARNESS_REPLY_MSEC);
                ck_assert_ptr_nonnull(reply);
                (void)json_pointer_get(reply, "/parameters/refused/0/errno", &found);
                ck_assert_msg(i == 2 ? !found : found && strcmp(json_object_get_string(found), "EACCES") == 0,
                              "%d: %s", i, json_object_to_json_string(reply));
                json_object_put(reply);
                (void)close(passed);
                user_party->fd = safe_close(user_party->fd);
        }
}
END_TEST

/* ---- secrets -------------------------------------------------------------------------------------------------- */

enum {
        LEAK_MSEC = 400, /* for each way to close a directory */
        SECRETS_MIN = 100,
};

static struct {
        size_t n_events, n_secrets, n_public;
        char *first; /* event with a secret */
} counts[PARTIES_MAX];

static bool mentions(const struct event *event, const char *text) {
        return (event->path.bytes && strstr(event->path.bytes, text)) ||
               (event->from_path.bytes && strstr(event->from_path.bytes, text));
}

static void count_event(struct party *party, const struct event *event, const char *json) {
        size_t i = (size_t)(party - all.parties);

        counts[i].n_events++;
        counts[i].n_public += mentions(event, "public");
        if (!mentions(event, "secret"))
                return;
        counts[i].n_secrets++;
        if (!counts[i].first)
                counts[i].first = strdup(json);
}

/* How a directory is closed to the user, and opened. */
struct way {
        const char *name;
        bool (*set)(bool open);
        bool moves;   /* the place in which names are made is another when it is open */
        bool others;  /* another process makes the names */
};

static struct {
        const char *above, *d, *open_d;
        char acl_open[256], acl_closed[256];
        ssize_t acl_open_size, acl_closed_size;
} leak;

static const char acl_name[] = "system.posix_acl_access";

static bool set_mode(bool open) {
        return chmod(leak.d, open ? 0755 : 0700) == 0;
}

static bool set_mode_above(bool open) {
        return chmod(leak.above, open ? 0755 : 0700) == 0;
}

static bool set_owner(bool open) {
        return chown(leak.d, open ? USER : 0, 0) == 0;
}

static bool set_group(bool open) {
        return chown(leak.d, 0, open ? GROUP_TOO : GROUP_OTHER) == 0;
}

static bool set_xattr(bool open) {
        return setxattr(leak.d, acl_name, open ? leak.acl_open : leak.acl_closed,
                        (size_t)(open ? leak.acl_open_size : leak.acl_closed_size), 0) == 0;
}

static bool set_location(bool open) {
        return rename(open ? leak.d : leak.open_d, open ? leak.open_d : leak.d) == 0;
}

static const struct way ways[] = {
        { "mode", set_mode, false, false },
        { "mode, by another process", set_mode, false, true },
        { "mode of the directory above", set_mode_above, false, false },
        { "mode of the directory above, by another process", set_mode_above, false, true },
        { "owner", set_owner, false, false },
        { "group", set_group, false, false },
        { "ACL", set_xattr, false, false },
        { "place", set_location, true, false },
        { "place, by another process", set_location, true, true },
        { "place of the directory above", set_location, true, false },
};

/* One name is made and removed in the directory. */
static bool make_and_remove(const char *directory, const char *word, unsigned i) {
        char path[PATH_MAX], other[PATH_MAX];
        bool is_new = (i / 64) % 2; /* or one that was there before */
        int fd;

        (void)snprintf(path, sizeof(path), "%s/%s%u%s", directory, word, is_new ? i : i % 4, i % 8 == 5 ? "\xff" : "");
        (void)snprintf(other, sizeof(other), "%s/%s-too%u", directory, word, is_new ? i : i % 4);
        if (i % 4 == 3)
                return mkdir(path, 0755) == 0 && rmdir(path) == 0;
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd < 0)
                return false;
        (void)!write(fd, "x", 1);
        (void)close(fd);
        if (i % 4 == 1)
                return rename(path, other) == 0 && unlink(other) == 0;
        return unlink(path) == 0;
}

/* What is done at once most of the time is done with a small pause in between now and then: what the daemon does
 * meanwhile falls into different moments. */
static void pause_shortly(unsigned i) {
        struct timespec t = { .tv_nsec = (long)(i * 7919 % 300) * 1000 };

        if ((i / 256) % 2)
                (void)nanosleep(&t, NULL);
}

static bool make_secrets(const struct way *way, bool (*make)(const char *, const char *, unsigned)) {
        int64_t end = now_msec() + LEAK_MSEC;

        for (unsigned i = 0; now_msec() < end || i < SECRETS_MIN * 2; i++) {
                if (!way->set(false) || !make(leak.d, "secret", i))
                        return false;
                if (i % 3 == 0)
                        pause_shortly(i);
                if (!way->set(true) || !make(way->moves ? leak.open_d : leak.d, "public", i))
                        return false;
                if (i % 3 == 1)
                        pause_shortly(i);
        }
        return way->set(false);
}

/* The names are another process's, which is asked for each: `order` is its socket. */
static int order;

struct order {
        char directory[PATH_MAX], word[16];
        unsigned i;
};

static bool make_by_other(const char *directory, const char *word, unsigned i) {
        static struct order o;
        char byte;

        (void)snprintf(o.directory, sizeof(o.directory), "%s", directory);
        (void)snprintf(o.word, sizeof(o.word), "%s", word);
        o.i = i;
        return send(order, &o, sizeof(o), MSG_NOSIGNAL) == sizeof(o) && recv(order, &byte, 1, 0) == 1;
}

static void serve_orders(int fd) {
        static struct order o;

        while (recv(fd, &o, sizeof(o), 0) == sizeof(o))
                if (!make_and_remove(o.directory, o.word, o.i) || send(fd, ".", 1, MSG_NOSIGNAL) != 1)
                        _exit(1);
        _exit(0);
}

static pid_t start_writer(const struct way *way) {
        pid_t pid = fork(), other = 0;
        int sockets[2], status = 0;
        bool done;

        assert_system(pid >= 0, "fork");
        if (pid > 0)
                return pid;
        if (way->others) {
                if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0 || (other = fork()) < 0)
                        _exit(1);
                if (other == 0) {
                        (void)close(sockets[0]);
                        serve_orders(sockets[1]);
                }
                (void)close(sockets[1]);
                order = sockets[0];
        }
        done = make_secrets(way, way->others ? make_by_other : make_and_remove);
        if (way->others) {
                (void)close(order);
                done &= waitpid(other, &status, 0) == other && status == 0;
        }
        _exit(done ? 0 : 1);
}

static void prepare_leak(const char *root, const struct way *way) {
        const char *a = at("%s/a", root);

        make_dir(a);
        leak.above = leak.d = at("%s/d", a);
        make_dir(leak.d);
        if (way->set == set_mode_above) {
                leak.d = at("%s/e", leak.above);
                make_dir(leak.d);
        } else if (way->set == set_owner) {
                assert_system(chmod(leak.d, 0700) == 0, leak.d);
        } else if (way->set == set_group) {
                assert_system(chmod(leak.d, 0750) == 0, leak.d);
        } else if (way->set == set_xattr) {
                need_acl();
                assert_system(chmod(leak.d, 0700) == 0, leak.d);
                set_acl("u:64100:---", leak.d);
                leak.acl_closed_size = getxattr(leak.d, acl_name, leak.acl_closed, sizeof(leak.acl_closed));
                set_acl("u:64100:rx", leak.d);
                leak.acl_open_size = getxattr(leak.d, acl_name, leak.acl_open, sizeof(leak.acl_open));
                ck_assert(leak.acl_closed_size > 0 && leak.acl_open_size > 0);
        } else if (way->moves) {
                make_dir(at("%s/closed", root));
                assert_system(chmod(at("%s/closed", root), 0700) == 0, root);
                leak.d = at("%s/closed/d", root);
                leak.open_d = at("%s/a/d", root);
        }
}

/* What is moved is the directory above: the names are made in "e" in it, in either place. */
static bool set_location_above(bool open) {
        char from[PATH_MAX], to[PATH_MAX];

        (void)snprintf(from, sizeof(from), "%.*s", (int)strlen(leak.d) - 2, leak.d);
        (void)snprintf(to, sizeof(to), "%.*s", (int)strlen(leak.open_d) - 2, leak.open_d);
        return rename(open ? from : to, open ? to : from) == 0;
}

static void finish_writer(pid_t writer) {
        int status;

        for (;;) {
                pid_t ended = waitpid(writer, &status, WNOHANG);

                assert_system(ended >= 0, "waitpid");
                for (size_t i = 0; i < all.n_parties; i++)
                        (void)take(&all.parties[i], 1, count_event);
                if (ended == writer)
                        break;
        }
        ck_assert_msg(status == 0, "the writer failed: status %d", status);
}

START_TEST(test_secret) {
        const char *root = make_root("w"), *marker = at("%s/public-marker", root);
        struct way way = ways[_i];

        harness_label(way.name);
        memset(counts, 0, sizeof(counts));
        prepare_leak(root, &way);
        if (strcmp(way.name, "place of the directory above") == 0) {
                make_dir(at("%s/e", leak.open_d));
                leak.d = at("%s/e", leak.d);
                leak.open_d = at("%s/e", leak.open_d);
                way.set = set_location_above;
        }
        follow(root);
        finish_writer(start_writer(&way));
        /* Behind all that was before. */
        for (size_t i = 0; i < all.n_parties; i++)
                counts[i].n_public = 0;
        make_file(marker);
        for (size_t i = 0; i < all.n_parties; i++) {
                int64_t deadline = now_msec() + HARNESS_REPLY_MSEC;

                while (counts[i].n_public == 0 && now_msec() < deadline)
                        (void)take(&all.parties[i], 50, count_event);
                drain(&all.parties[i], count_event);
                ck_assert_msg(counts[i].n_public > 0, "%s: not told of what was made at the end",
                              all.parties[i].person->name);
        }
        ck_assert_msg(counts[0].n_secrets >= SECRETS_MIN, "root was told of %zu secrets", counts[0].n_secrets);
        for (size_t i = 1; i < all.n_parties; i++)
                ck_assert_msg(counts[i].n_secrets == 0, "%s: %zu of %zu events tell a secret, %zu of root's do: %s",
                              all.parties[i].person->name, counts[i].n_secrets, counts[i].n_events, counts[0].n_secrets,
                              counts[i].first);
        for (size_t i = 0; i < all.n_parties; i++)
                free(counts[i].first);
}
END_TEST

/* ---- at random ------------------------------------------------------------------------------------------------ */

enum {
        NODES_MAX = 512, /* in one round, with those that end in it */
        DIRS_MAX = 24,   /* at the same time */
        FILES_MAX = 48,
        SERIALS_MAX = 65536,
        RANDOM_MSEC = 800,
        ROUND_OPERATIONS = 120,
};

/* A file or directory. Its name is new with each move, and is never used again. */
struct node {
        bool used, alive, is_dir;
        struct node *parent;
        unsigned serial;
        bool visible;        /* the user may read it: directories */
        bool is_new, steady; /* its name was made in this round, and its directory was visible since */
        uint64_t above[NODES_MAX / 64]; /* directories that it was below in this round */
};

static struct {
        const char *path;
        struct node nodes[NODES_MAX]; /* the first is the root */
        unsigned n_serials;
        bool ever[SERIALS_MAX];           /* was to be seen by the user, at some moment */
        bool named[PARTIES_MAX][SERIALS_MAX]; /* an event was about an entry of this name */
        struct node *owner[SERIALS_MAX];
        bool rescanned[PARTIES_MAX][NODES_MAX];
        size_t n_checked[PARTIES_MAX], n_covered[PARTIES_MAX];
        uint64_t state;
} chance;

static unsigned draw(unsigned n) {
        chance.state = chance.state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (unsigned)(chance.state >> 33) % n;
}

static size_t number_of(const struct node *node) {
        return (size_t)(node - chance.nodes);
}

static void put_path(const struct node *node, char *path) {
        if (node == chance.nodes) {
                (void)snprintf(path, PATH_MAX, "%s", chance.path);
                return;
        }
        put_path(node->parent, path);
        (void)snprintf(path + strlen(path), PATH_MAX - strlen(path), "/n%06u", node->serial);
}

static bool is_below(const struct node *node, const struct node *above) {
        for (; node; node = node->parent)
                if (node == above)
                        return true;
        return false;
}

/* The kernel's answer for the user, by whose ids this process goes in file systems for the moment (its groups are the
 * user's already, and its capabilities don't count then). At the end of each round the user's own process is asked. */
static bool user_may_read(const char *path) {
        int fd;

        (void)setfsgid(GROUP);
        (void)setfsuid(USER);
        fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        (void)setfsuid(0);
        (void)setfsgid(0);
        return safe_close(fd), fd >= 0;
}

static void mark_above(struct node *node) {
        for (struct node *n = node; n->parent; n = n->parent) {
                chance.ever[n->serial] = true; /* it is in the path of all that is told of there */
                node->above[number_of(n->parent) / 64] |= UINT64_C(1) << number_of(n->parent) % 64;
        }
}

static void add_above(struct node *node) {
        for (const struct node *n = node->parent; n; n = n->parent)
                node->above[number_of(n) / 64] |= UINT64_C(1) << number_of(n) % 64;
}

/* Something has changed who may read the directories at and below `top`. */
static void look(const struct node *top) {
        char path[PATH_MAX];

        for (struct node *n = chance.nodes; n < chance.nodes + NODES_MAX; n++) {
                if (!n->alive || !is_below(n, top))
                        continue;
                add_above(n);
                if (!n->is_dir)
                        continue;
                put_path(n, path);
                n->visible = user_may_read(path);
                if (n->visible)
                        mark_above(n);
        }
        for (struct node *n = chance.nodes + 1; n < chance.nodes + NODES_MAX; n++) {
                if (!n->alive)
                        continue;
                if (n->parent->visible)
                        chance.ever[n->serial] = true;
                else
                        n->steady = false;
        }
}

static void name_node(struct node *node, struct node *parent) {
        ck_assert_uint_lt(chance.n_serials, SERIALS_MAX - 1);
        node->parent = parent;
        node->serial = ++chance.n_serials;
        node->is_new = true;
        node->steady = parent->visible;
        chance.owner[node->serial] = node;
        if (parent->visible)
                chance.ever[node->serial] = true;
        add_above(node);
}

static struct node *new_node(struct node *parent, bool is_dir) {
        for (struct node *n = chance.nodes + 1; n < chance.nodes + NODES_MAX; n++)
                if (!n->used) {
                        *n = (struct node){ .used = true, .alive = true, .is_dir = is_dir };
                        name_node(n, parent);
                        return n;
                }
        return NULL;
}

/* One that is alive; a directory, or a file. */
static struct node *pick(bool is_dir, bool with_root) {
        struct node *found = with_root ? chance.nodes : NULL;
        unsigned n = with_root;

        for (struct node *p = chance.nodes + 1; p < chance.nodes + NODES_MAX; p++)
                if (p->alive && p->is_dir == is_dir && draw(++n) == 0)
                        found = p;
        return found;
}

static size_t count(bool is_dir) {
        size_t n = 0;

        for (const struct node *p = chance.nodes + 1; p < chance.nodes + NODES_MAX; p++)
                n += p->alive && p->is_dir == is_dir;
        return n;
}

static void do_make(bool is_dir) {
        struct node *node = count(is_dir) < (is_dir ? DIRS_MAX : FILES_MAX) ? new_node(pick(true, true), is_dir) : NULL;
        char path[PATH_MAX];
        int fd;

        if (!node)
                return;
        put_path(node, path);
        if (is_dir) {
                static const mode_t modes[] = { 0755, 0755, 0700, 0711, 0750 };

                assert_system(mkdir(path, modes[draw(ARRAY_SIZE(modes))]) == 0, path);
                look(node);
                return;
        }
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        assert_system(fd >= 0, path);
        (void)close(fd);
}

static void do_link(void) {
        struct node *node = pick(false, false), *other;
        char path[PATH_MAX], target[PATH_MAX];

        if (!node || count(false) >= FILES_MAX)
                return;
        other = new_node(pick(true, true), false);
        if (!other)
                return;
        put_path(node, path);
        put_path(other, target);
        assert_system(link(path, target) == 0, path);
}

static void do_write(void) {
        struct node *node = pick(false, false);
        char path[PATH_MAX];
        int fd;

        if (!node)
                return;
        put_path(node, path);
        fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
        assert_system(fd >= 0 && write(fd, "x", 1) == 1, path);
        (void)close(fd);
}

static void do_move(bool is_dir) {
        struct node *node = pick(is_dir, false), *to = pick(true, true);
        char path[PATH_MAX], target[PATH_MAX];

        if (!node || is_below(to, node))
                return;
        put_path(node, path);
        name_node(node, to);
        put_path(node, target);
        assert_system(rename(path, target) == 0, path);
        look(node);
}

static void do_rights(void) {
        static const mode_t modes[] = { 0700, 0711, 0755, 0750, 0755 };
        static const gid_t groups[] = { 0, GROUP, GROUP_TOO, GROUP_OTHER };
        struct node *node = pick(true, false);
        char path[PATH_MAX];

        if (!node)
                return;
        put_path(node, path);
        if (draw(4) > 0)
                assert_system(chmod(path, modes[draw(ARRAY_SIZE(modes))]) == 0, path);
        else
                assert_system(chown(path, draw(2) ? USER : 0, groups[draw(ARRAY_SIZE(groups))]) == 0, path);
        look(node);
}

/* From the leaves up, as rm -r does. */
static void do_remove(struct node *node) {
        char path[PATH_MAX];

        if (!node)
                return;
        for (struct node *n = chance.nodes + 1; n < chance.nodes + NODES_MAX; n++)
                if (n->alive && n->parent == node)
                        do_remove(n);
        put_path(node, path);
        assert_system((node->is_dir ? rmdir(path) : unlink(path)) == 0, path);
        node->alive = false;
}

static void do_something(void) {
        unsigned n = draw(100);

        if (n < 14)
                do_make(true);
        else if (n < 40)
                do_make(false);
        else if (n < 44)
                do_link();
        else if (n < 52)
                do_write();
        else if (n < 64)
                do_move(false);
        else if (n < 72)
                do_move(true);
        else if (n < 92)
                do_rights();
        else if (n < 98)
                do_remove(pick(false, false));
        else
                do_remove(pick(true, false));
}

/* Serials in a path; returns the last, of what the path is. 0: the root's. */
static unsigned take_serials(const struct party *party, const char *path, const char *json) {
        unsigned serial = 0;

        ck_assert_msg(is_at_or_below(path, chance.path), "%s: %s", party->person->name, json);
        for (const char *p = path + strlen(chance.path); (p = strstr(p, "/n")); p++) {
                serial = (unsigned)strtoul(p + 2, NULL, 10);
                ck_assert_msg(serial > 0 && serial <= chance.n_serials, "%s: %s", party->person->name, json);
                ck_assert_msg(party->person->is_root || chance.ever[serial],
                              "%s is told of n%06u, which was never to be seen: %s", party->person->name, serial, json);
        }
        return serial;
}

static void check_event(struct party *party, const struct event *event, const char *json) {
        size_t i = (size_t)(party - all.parties);
        unsigned serial = take_serials(party, event->path.bytes, json);

        if (event->from_path.bytes)
                (void)take_serials(party, event->from_path.bytes, json);
        if (event->notes & (KEV_NOTE_CREATE | KEV_NOTE_MOVEDIN | KEV_NOTE_RENAME))
                chance.named[i][serial] = true;
        if (event->notes & KEV_NOTE_RESCAN)
                chance.rescanned[i][serial > 0 ? number_of(chance.owner[serial]) : 0] = true;
}

static bool is_covered(size_t party, const struct node *node) {
        if (chance.rescanned[party][number_of(node)])
                return true;
        for (size_t i = 0; i < NODES_MAX; i++)
                if (node->above[i / 64] >> i % 64 & 1 && chance.rescanned[party][i])
                        return true;
        return false;
}

/* What was made while it could be seen, and still can, was told. */
static const struct node *find_untold(size_t party) {
        for (const struct node *n = chance.nodes + 1; n < chance.nodes + NODES_MAX; n++)
                if (n->alive && n->is_new && (all.parties[party].person->is_root || n->steady) &&
                    !chance.named[party][n->serial] && !is_covered(party, n))
                        return n;
        return NULL;
}

static void check_round(size_t i, unsigned round) {
        struct party *party = &all.parties[i];
        const struct node *untold;
        char path[PATH_MAX];

        drain(party, check_event);
        for (int64_t deadline = now_msec() + HARNESS_REPLY_MSEC; (untold = find_untold(i)) && now_msec() < deadline;)
                (void)take(party, 50, check_event);
        if (untold)
                put_path(untold, path);
        ck_assert_msg(!untold, "round %u: %s is not told of %s", round, party->person->name, path);
        for (const struct node *n = chance.nodes + 1; n < chance.nodes + NODES_MAX; n++)
                if (n->alive && n->is_new && (party->person->is_root || n->steady)) {
                        chance.n_checked[i]++;
                        chance.n_covered[i] += !chance.named[i][n->serial];
                }
}

/* The record is what the user's own process finds. */
static void check_record(void) {
        char path[PATH_MAX];

        for (const struct node *n = chance.nodes; n < chance.nodes + NODES_MAX; n++) {
                if (!n->alive || !n->is_dir)
                        continue;
                put_path(n, path);
                ck_assert_msg((person_may_read(user_party->person, path) == 0) == n->visible,
                              "the test is wrong about %s", path);
        }
}

static void begin_round(void) {
        memset(chance.rescanned, 0, sizeof(chance.rescanned));
        for (struct node *n = chance.nodes; n < chance.nodes + NODES_MAX; n++) {
                n->used = n->alive;
                n->is_new = n->steady = false;
                memset(n->above, 0, sizeof(n->above));
                if (n->alive)
                        add_above(n);
        }
}

static void drop_stranger(void) {
        all.n_parties--;
        person_free(all.parties[all.n_parties].person);
}

START_TEST(test_random) {
        int64_t end = now_msec() + RANDOM_MSEC;
        unsigned round = 0;

        chance.path = make_root("w");
        chance.state = (uint64_t)_i + 1;
        chance.nodes[0] = (struct node){ .used = true, .alive = true, .is_dir = true };
        drop_stranger(); /* what is to be seen is recorded for one user */
        follow(chance.path);
        ck_assert_int_eq(setgroups(ARRAY_SIZE(user_groups), user_groups), 0);
        look(chance.nodes);
        for (; now_msec() < end || round < 4; round++) {
                begin_round();
                for (int i = 0; i < ROUND_OPERATIONS; i++)
                        do_something();
                check_record();
                for (size_t i = 0; i < all.n_parties; i++)
                        check_round(i, round);
        }
        /* It was about something. */
        for (size_t i = 0; i < all.n_parties; i++)
                ck_assert_uint_gt(chance.n_checked[i], 10);
        ck_assert_uint_gt(chance.n_checked[1] - chance.n_covered[1], 0);
}
END_TEST

static void add_loop(TCase *c, const TTest *test, size_t n) {
        tcase_add_loop_test(c, test, 0, (int)n);
}

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("access");
        TCase *places_case = harness_case(suite, "places"), *changes_case = harness_case(suite, "changes");
        TCase *mounts_case = harness_case(suite, "mounts"), *refusals_case = harness_case(suite, "refusals");
        TCase *secrets_case = harness_case(suite, "secrets"), *random_case = harness_case(suite, "random");

        tcase_add_checked_fixture(places_case, start, stop);
        add_loop(places_case, test_place, ARRAY_SIZE(places));
        add_loop(places_case, test_place_is_root, ARRAY_SIZE(places));
        tcase_add_test(places_case, test_groups);
        tcase_add_checked_fixture(changes_case, start, stop);
        add_loop(changes_case, test_change, ARRAY_SIZE(changes));
        tcase_add_test(changes_case, test_change_acl);
        tcase_add_test(changes_case, test_moved);
        tcase_add_test(changes_case, test_moved_from_outside);
        tcase_add_test(changes_case, test_list);
        tcase_add_checked_fixture(mounts_case, start_with_mounts, stop);
        tcase_add_test(mounts_case, test_above_mount);
        tcase_add_test(mounts_case, test_mounted_elsewhere);
        tcase_add_checked_fixture(refusals_case, start, stop);
        tcase_add_test(refusals_case, test_refused);
        tcase_add_test(refusals_case, test_refused_descriptor);
        tcase_add_checked_fixture(secrets_case, start, stop);
        add_loop(secrets_case, test_secret, ARRAY_SIZE(ways));
        tcase_add_checked_fixture(random_case, start, stop);
        add_loop(random_case, test_random, 4);
        return harness_main(argc, argv);
}
