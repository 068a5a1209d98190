/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The model is a tree of names. Each directory keeps its entries in a binary tree (tsearch(3)): by
 * name, so that 100,000 in one directory are no matter.
 */

#include "connect.h"
#include "replay.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "event.h"
#include "macro.h"

enum {
        DIFFERENCES_MAX = 12,
        LOG_LINES_MAX = 200,
        PATIENCE_MSEC = 5000, /* to tell what comes late from what never comes */
};

struct node {
        char *name;
        struct node *parent;
        void *entries; /* tsearch(3) */
        size_t n_entries;
        bool is_directory;
        bool dirty; /* to be read again */
};

struct replay {
        char *root_path;
        enum replay_rescan rescan;
        struct node root;
        size_t n_rescans, n_strange, first_strange;
        char strange_name[256];
        char **lines; /* the events, as JSON */
        size_t n_lines, lines_capacity;
};

/* What a step needs of an event. */
struct step {
        uint64_t notes;
        enum kev_kind kind;
        const char *path, *from_path;
};

/* ---- nodes ---------------------------------------------------------------------------------- */

static int compare_nodes(const void *a, const void *b) {
        return strcmp(((const struct node *)a)->name, ((const struct node *)b)->name);
}

static struct node *node_find(const struct node *parent, const char *name) {
        struct node key = { .name = (char *)name };
        void *found = tfind(&key, &parent->entries, compare_nodes);

        return found ? *(struct node **)found : NULL;
}

static void node_link(struct node *node, struct node *parent) {
        ck_assert_ptr_nonnull(tsearch(node, &parent->entries, compare_nodes));
        node->parent = parent;
        parent->n_entries++;
}

static void node_unlink(struct node *node) {
        ck_assert_ptr_nonnull(tdelete(node, &node->parent->entries, compare_nodes));
        node->parent->n_entries--;
        node->parent = NULL;
}

static void free_entry(void *entry);

static void node_clear(struct node *node) {
        tdestroy(node->entries, free_entry);
        node->entries = NULL;
        node->n_entries = 0;
}

static void free_entry(void *entry) {
        struct node *node = entry;

        node_clear(node);
        free(node->name);
        free(node);
}

static void node_remove(struct node *node) {
        node_unlink(node);
        free_entry(node);
}

static struct node *node_add(struct node *parent, const char *name, bool is_directory) {
        struct node *node = calloc(1, sizeof(*node));

        ck_assert_ptr_nonnull(node);
        node->name = strdup(name);
        ck_assert_ptr_nonnull(node->name);
        node->is_directory = is_directory;
        node_link(node, parent);
        return node;
}

static bool node_is_below(const struct node *node, const struct node *above) {
        while (node && node != above)
                node = node->parent;
        return node != NULL;
}

/* The directory that the path is in, and the name there; "" for the root itself. NULL: the model has no
 * such directory. */
static struct node *find_place(struct replay *r, const char *path, char ret_name[256]) {
        size_t size = strlen(r->root_path);
        struct node *node = &r->root;

        ck_assert_msg(strncmp(path, r->root_path, size) == 0 && (path[size] == '/' || path[size] == '\0'),
                      "a path that is not below %s: %s", r->root_path, path);
        path += size;
        ret_name[0] = '\0';
        for (;;) {
                path += *path == '/';
                size = strcspn(path, "/");
                ck_assert_uint_lt(size, 256);
                if (path[size] == '\0') {
                        memcpy(ret_name, path, size + 1);
                        return node;
                }
                memcpy(ret_name, path, size);
                ret_name[size] = '\0';
                node = node_find(node, ret_name);
                if (!node || !node->is_directory)
                        return NULL;
                path += size;
        }
}

/* ---- the disk -------------------------------------------------------------------------------- */

static int open_root(const struct replay *r) {
        return open(r->root_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int open_below(int fd, const char *name) {
        return openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* A directory by its node: paths may be longer than what one call takes. */
static int open_node(const struct replay *r, const struct node *node) {
        int above, fd;

        if (!node->parent)
                return open_root(r);
        above = open_node(r, node->parent);
        if (above < 0)
                return above;
        fd = open_below(above, node->name);
        (void)close(above);
        return fd;
}

static bool is_directory_at(int fd, const struct dirent *entry) {
        struct stat st;

        if (entry->d_type != DT_UNKNOWN)
                return entry->d_type == DT_DIR;
        return fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

static bool is_dot(const char *name) {
        return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Makes the node what the directory is. Takes the descriptor over; without one the directory has gone,
 * which other events will tell. */
static void read_again(struct node *node, int fd) {
        DIR *directory = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *entry;

        if (!directory)
                return;
        node_clear(node);
        node->dirty = false;
        while ((entry = readdir(directory))) {
                struct node *child;

                if (is_dot(entry->d_name))
                        continue;
                child = node_add(node, entry->d_name, is_directory_at(fd, entry));
                if (child->is_directory)
                        read_again(child, open_below(fd, entry->d_name));
        }
        (void)closedir(directory);
}

/* ---- replaying --------------------------------------------------------------------------------- */

/* The last event makes no sense. */
static void note_strange(struct replay *r, const char *name) {
        if (r->n_strange++ > 0)
                return;
        r->first_strange = r->n_lines - 1;
        (void)snprintf(r->strange_name, sizeof(r->strange_name), "%s", name);
}

static void on_rescan(struct replay *r, const char *path) {
        char name[256];
        struct node *node = find_place(r, path, name);

        r->n_rescans++;
        if (node && name[0])
                node = node_find(node, name);
        if (!node || !node->is_directory)
                return;
        if (r->rescan == REPLAY_AT_REST)
                node->dirty = true;
        else
                read_again(node, open_node(r, node));
}

static void on_removed(struct replay *r, const char *path) {
        char name[256];
        struct node *parent = find_place(r, path, name), *node = parent && name[0] ? node_find(parent, name) : NULL;

        if (node)
                node_remove(node);
}

/* `anew`: it takes the place of what was there, rather than being that. */
static void on_made(struct replay *r, const char *path, enum kev_kind kind, bool anew) {
        char name[256];
        struct node *parent = find_place(r, path, name), *node;
        bool is_directory = kind == KEV_KIND_DIRECTORY;

        if (!parent || !name[0]) {
                note_strange(r, name);
                return;
        }
        node = node_find(parent, name);
        if (node && (anew || node->is_directory != is_directory)) {
                node_remove(node);
                node = NULL;
        } else if (node)
                note_strange(r, name);
        if (!node)
                (void)node_add(parent, name, is_directory);
}

static bool is_in_dirty(const struct node *node) {
        while (node && !node->dirty)
                node = node->parent;
        return node != NULL;
}

/* What leaves a directory that is still to be read again is to be read where it goes. */
static void on_renamed(struct replay *r, const struct step *s) {
        char name[256], from_name[256];
        struct node *from = find_place(r, s->from_path, from_name), *to = find_place(r, s->path, name), *node, *target;
        bool dirty = is_in_dirty(from);

        node = from && from_name[0] ? node_find(from, from_name) : NULL;
        if (!node) {
                on_made(r, s->path, s->kind, true);
                node = to && name[0] ? node_find(to, name) : NULL;
                if (node && node->is_directory)
                        node->dirty |= dirty;
                return;
        }
        if (!to || !name[0] || node_is_below(to, node)) {
                note_strange(r, name);
                node_remove(node);
                return;
        }
        target = node_find(to, name);
        if (target == node)
                return;
        if (target && node_is_below(node, target)) { /* nonsense, but not to be believed */
                note_strange(r, name);
                return;
        }
        if (target)
                node_remove(target);
        node_unlink(node);
        free(node->name);
        node->name = strdup(name);
        ck_assert_ptr_nonnull(node->name);
        node_link(node, to);
        node->dirty |= dirty && node->is_directory;
}

static void apply(struct replay *r, const struct step *s) {
        ck_assert_ptr_nonnull(s->path);
        if (s->notes & KEV_NOTE_RENAME && s->from_path)
                on_renamed(r, s);
        else if (s->notes & (KEV_NOTE_DELETE | KEV_NOTE_MOVEDOUT | KEV_NOTE_GONE) &&
                 !(s->notes & (KEV_NOTE_CREATE | KEV_NOTE_MOVEDIN)))
                on_removed(r, s->path);
        else if (s->notes & (KEV_NOTE_CREATE | KEV_NOTE_MOVEDIN))
                on_made(r, s->path, s->kind, s->notes & (KEV_NOTE_MOVEDIN | KEV_NOTE_DELETE | KEV_NOTE_MOVEDOUT));
        if (s->notes & KEV_NOTE_RESCAN) {
                if (r->rescan == REPLAY_STRICT) {
                        replay_log(r, NULL);
                        ck_abort_msg("a rescan of %s", s->path);
                }
                on_rescan(r, s->path);
        }
}

static void keep_line(struct replay *r, const char *json) {
        if (r->n_lines == r->lines_capacity) {
                r->lines_capacity = MAX(r->lines_capacity * 2, 1024u);
                r->lines = realloc(r->lines, r->lines_capacity * sizeof(*r->lines));
                ck_assert_ptr_nonnull(r->lines);
        }
        r->lines[r->n_lines] = strdup(json);
        ck_assert_ptr_nonnull(r->lines[r->n_lines]);
        r->n_lines++;
}

void replay_event(struct replay *r, const struct kev_event *event) {
        struct step step = {
                .notes = kev_event_notes(event),
                .kind = kev_event_kind(event),
                .path = kev_event_path(event),
                .from_path = kev_event_from_path(event),
        };

        keep_line(r, kev_event_json(event));
        apply(r, &step);
}

void replay_raw_event(struct replay *r, const struct event *event, const char *json) {
        struct step step = {
                .notes = event->notes,
                .kind = event->kind,
                .path = event->path.bytes,
                .from_path = event->from_path.bytes,
        };

        keep_line(r, json);
        apply(r, &step);
}

size_t replay_n_rescans(const struct replay *r) {
        return r->n_rescans;
}

void replay_check_sane(struct replay *r, const char *what) {
        if (r->n_strange == 0)
                return;
        replay_log(r, r->strange_name);
        ck_abort_msg("%s: %zu strange events, the first of them %s", what, r->n_strange, r->lines[r->first_strange]);
}

/* A node that is read again takes all below it along. */
struct dirty {
        struct node **nodes;
        size_t n, capacity;
};

static void find_dirty(const void *entry, VISIT visit, void *closure) {
        struct node *node = *(struct node *const *)entry;
        struct dirty *d = closure;

        if (visit != preorder && visit != leaf)
                return;
        if (!node->dirty) {
                twalk_r(node->entries, find_dirty, d);
                return;
        }
        if (d->n == d->capacity) {
                d->capacity = MAX(d->capacity * 2, 64u);
                d->nodes = realloc(d->nodes, d->capacity * sizeof(*d->nodes));
                ck_assert_ptr_nonnull(d->nodes);
        }
        d->nodes[d->n++] = node;
}

void replay_rest(struct replay *r) {
        struct dirty d = { 0 };

        if (r->root.dirty)
                read_again(&r->root, open_root(r));
        twalk_r(r->root.entries, find_dirty, &d);
        for (size_t i = 0; i < d.n; i++)
                read_again(d.nodes[i], open_node(r, d.nodes[i]));
        free(d.nodes);
}

/* ---- comparing ----------------------------------------------------------------------------------- */

struct comparison {
        FILE *text;
        const struct replay *replay;
        size_t n;
        char first[256]; /* the name of the first difference */
        const char **names; /* of one directory on the disk, sorted by tsearch(3) */
};

static void print_path(struct comparison *c, const struct node *directory) {
        if (directory->parent) {
                print_path(c, directory->parent);
                fprintf(c->text, "%s/", directory->name);
        }
}

static void differ(struct comparison *c, const struct node *directory, const char *name, const char *how) {
        if (c->n++ == 0)
                (void)snprintf(c->first, sizeof(c->first), "%s", name);
        if (c->n > DIFFERENCES_MAX)
                return;
        fprintf(c->text, "  ");
        print_path(c, directory);
        fprintf(c->text, "%s: %s\n", name, how);
}

static int compare_names(const void *a, const void *b) {
        return strcmp(a, b);
}

struct missing {
        struct comparison *comparison;
        void *names;
};

static void find_missing(const void *entry, VISIT visit, void *closure) {
        const struct node *node = *(struct node *const *)entry;
        struct missing *m = closure;

        if ((visit == preorder || visit == leaf) && !tfind(node->name, &m->names, compare_names))
                differ(m->comparison, node->parent, node->name, "in the model, not on the disk");
}

static void compare_entry(struct comparison *c, struct node *node, int fd, const struct dirent *entry);

/* Takes the descriptor over. */
static void compare_directory(struct comparison *c, struct node *node, int fd) {
        DIR *directory = fdopendir(fd);
        struct missing missing = { .comparison = c };
        struct dirent *entry;
        size_t n = 0;

        ck_assert_ptr_nonnull(directory);
        while ((entry = readdir(directory))) {
                char *name;

                if (is_dot(entry->d_name))
                        continue;
                name = strdup(entry->d_name);
                ck_assert_ptr_nonnull(name);
                ck_assert_ptr_nonnull(tsearch(name, &missing.names, compare_names));
                n++;
                compare_entry(c, node, fd, entry);
        }
        twalk_r(node->entries, find_missing, &missing);
        tdestroy(missing.names, free);
        (void)closedir(directory);
}

static void compare_entry(struct comparison *c, struct node *node, int fd, const struct dirent *entry) {
        struct node *child = node_find(node, entry->d_name);
        bool is_directory = is_directory_at(fd, entry);
        int below;

        if (!child) {
                differ(c, node, entry->d_name, is_directory ? "a directory on the disk, not in the model" :
                                                              "on the disk, not in the model");
                return;
        }
        if (child->is_directory != is_directory) {
                differ(c, node, entry->d_name, is_directory ? "a directory on the disk, none in the model" :
                                                              "no directory on the disk, one in the model");
                return;
        }
        if (!is_directory)
                return;
        below = open_below(fd, entry->d_name);
        if (below < 0 && errno == EACCES)
                return; /* nobody can tell */
        assert_system(below >= 0, entry->d_name);
        compare_directory(c, child, below);
}

char *replay_compare(struct replay *r) {
        struct comparison c = { .replay = r };
        char *text = NULL;
        size_t size;
        int fd = open_root(r);

        c.text = open_memstream(&text, &size);
        ck_assert_ptr_nonnull(c.text);
        if (fd >= 0)
                compare_directory(&c, &r->root, fd);
        else if (r->root.n_entries > 0)
                differ(&c, &r->root, "", "the watched directory is gone, and not so in the model");
        if (c.n > DIFFERENCES_MAX)
                fprintf(c.text, "  and %zu more\n", c.n - DIFFERENCES_MAX);
        (void)fclose(c.text);
        if (c.n > 0) {
                replay_log(r, c.first);
                return text;
        }
        free(text);
        return NULL;
}

void replay_check(struct replay *r, const char *what) {
        char *differences;

        replay_rest(r);
        differences = replay_compare(r);
        ck_assert_msg(!differences, "%s: after %zu events, %zu of them rescans:\n%s", what, r->n_lines, r->n_rescans,
                      differences);
}

void replay_log(struct replay *r, const char *text) {
        char path[512];
        FILE *log;
        size_t n = 0, first = text || r->n_lines < LOG_LINES_MAX ? 0 : r->n_lines - LOG_LINES_MAX;

        (void)snprintf(path, sizeof(path), "%s/replay.log", harness_tempdir());
        log = fopen(path, "we");
        assert_system(log, path);
        for (size_t i = first; i < r->n_lines && n < LOG_LINES_MAX; i++)
                if (!text || strstr(r->lines[i], text)) {
                        fprintf(log, "%s\n", r->lines[i]);
                        n++;
                }
        (void)fclose(log);
}

struct replay *replay_new(const char *root, enum replay_rescan rescan) {
        struct replay *r = calloc(1, sizeof(*r));

        ck_assert_ptr_nonnull(r);
        r->root_path = strdup(root);
        ck_assert_ptr_nonnull(r->root_path);
        r->rescan = rescan;
        r->root.is_directory = true;
        return r;
}

void replay_free(struct replay *r) {
        node_clear(&r->root);
        for (size_t i = 0; i < r->n_lines; i++)
                free(r->lines[i]);
        free(r->lines);
        free(r->root_path);
        free(r);
}

/* ---- a client ------------------------------------------------------------------------------------- */

struct follower *follower_new_with(const struct daemon *daemon, struct kev_watch *watch, const char *path,
                                   enum replay_rescan rescan) {
        struct follower *f = calloc(1, sizeof(*f));
        int r;

        ck_assert_ptr_nonnull(f);
        r = open_kev(daemon->socket, &f->kev);
        ck_assert_msg(r == 0, "kev_open: %s", kev_error_message(NULL));
        r = kev_add(f->kev, watch, NULL, NULL, &f->id);
        ck_assert_msg(r == 0, "%s: %s", path, kev_error_message(f->kev));
        kev_watch_free(watch);
        f->replay = replay_new(path, rescan);
        return f;
}

struct kev_watch *new_tree_watch(const char *path, uint64_t notes) {
        struct kev_watch *watch;

        ck_assert_int_eq(kev_watch_new(KEV_FILTER_TREE, &watch), 0);
        ck_assert_int_eq(kev_watch_set_path(watch, path), 0);
        ck_assert_int_eq(kev_watch_set_notes(watch, notes), 0);
        return watch;
}

struct follower *follower_new(const struct daemon *daemon, const char *path, enum replay_rescan rescan) {
        struct kev_watch *watch = new_tree_watch(path, kev_filter_default_notes(KEV_FILTER_TREE) & ~KEV_NOTE_BACK);

        return follower_new_with(daemon, watch, path, rescan);
}

void follower_free(struct follower *f) {
        replay_free(f->replay);
        kev_close(f->kev);
        free(f);
}

static void check_event(struct follower *f, const struct kev_event *event) {
        ck_assert_int_eq(kev_event_id(event), f->id);
        ck_assert_int_eq(kev_event_filter(event), KEV_FILTER_TREE);
        ck_assert_uint_eq(kev_event_seq(event), f->seq + 1);
        ck_assert_uint_ne(kev_event_notes(event), 0);
        ck_assert_uint_ge(kev_event_count(event), 1);
        ck_assert_msg(!f->ended, "an event after the last: %s", kev_event_json(event));
}

bool follower_take(struct follower *f, int timeout_msec, const struct kev_event **ret_event) {
        const struct kev_event *event;
        int r = kev_wait(f->kev, timeout_msec, &event);

        ck_assert_msg(r >= 0, "kev_wait: %s", kev_error_message(f->kev));
        if (r == 0)
                return false;
        check_event(f, event);
        f->seq++;
        f->n_events++;
        f->n_counted += kev_event_count(event);
        f->notes |= kev_event_notes(event);
        f->ended = kev_event_flags(event) & KEV_FLAG_EOF;
        ck_assert(!f->ended || kev_event_notes(event) & KEV_NOTE_GONE);
        replay_event(f->replay, event);
        if (ret_event)
                *ret_event = event;
        return true;
}

void follower_drain(struct follower *f) {
        while (follower_take(f, 0, NULL))
                ;
}

/* What is wrong, after some patience: whether it only came late. */
static void explain(struct follower *f, const char *what, char *differences) {
        int64_t since = now_msec();

        while (now_msec() < since + PATIENCE_MSEC) {
                char *still;

                if (!follower_take(f, 50, NULL))
                        continue;
                follower_drain(f);
                replay_rest(f->replay);
                still = replay_compare(f->replay);
                ck_assert_msg(still, "%s: right only %d ms after the barrier said that nothing was due:\n%s", what,
                              (int)(now_msec() - since), differences);
                free(still);
        }
        ck_abort_msg("%s: after %zu events, %zu of them rescans:\n%s", what, f->replay->n_lines, f->replay->n_rescans,
                     differences);
}

void follower_check(struct follower *f, const char *what) {
        char *differences;

        follower_drain(f);
        replay_rest(f->replay);
        differences = replay_compare(f->replay);
        if (differences)
                explain(f, what, differences);
}
