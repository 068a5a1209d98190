/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "process_tree.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "options.h"
#include "pids.h"
#include "print.h"

enum {
        BUCKETS = 1024,
        COMM_BYTES = 15, /* of a name, in events */
        ENDED_MAX = 10,  /* that are shown at a time */
        LEVELS_MAX = 64, /* of indentation */
        INDENTATION = 3,
};

#define ENDED_NSEC (3 * NSEC_PER_SEC) /* for so long they are shown */
#define DRAW_NSEC (50 * NSEC_PER_MSEC) /* between two drawings */

#define DIM "\033[2m"
#define RESET "\033[0m"
#define UP "\033[%zuA"       /* so many lines */
#define CLEAR_LINE "\033[K"  /* from the cursor on */
#define CLEAR_BELOW "\033[J" /* from the cursor on */
#define CLEAR_ALL "\033[H\033[2J"

struct node {
        struct node *parent, *first, *last, *next, *previous;
        struct node *next_in_bucket; /* while it runs */
        struct node *next_ended;
        int64_t id; /* the watch's */
        pid_t pid;
        size_t depth;
        struct text name;
        struct text outcome;
        bool has_ended; /* or can't be followed any more */
        bool is_past;   /* shown only for its children's sake */
        int64_t ended_nsec;
};

struct process_tree {
        bool colour;
        struct node *first; /* what the watches are about */
        size_t n_nodes;
        struct node *buckets[BUCKETS]; /* those that run, by pid */
        struct node *first_ended, *last_ended;
        size_t n_ended;
        uint64_t n_lost;
        bool has_uncounted; /* so many, or more */
        bool failed; /* no memory */

        bool has_changed;
        int64_t next_nsec; /* no drawing before that */
        size_t n_drawn;    /* lines */
        struct winsize size; /* by then */
};

static int64_t now_nsec(void) {
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

/* ---- nodes --------------------------------------------------------------------- */

static struct node **bucket_of(struct process_tree *t, pid_t pid) {
        return &t->buckets[(unsigned)pid % BUCKETS];
}

/* The one that runs. */
static struct node *find(struct process_tree *t, int64_t id, pid_t pid) {
        for (struct node *n = *bucket_of(t, pid); n; n = n->next_in_bucket)
                if (n->id == id && n->pid == pid)
                        return n;
        return NULL;
}

static struct node *find_root(const struct process_tree *t, int64_t id) {
        for (struct node *n = t->first; n; n = n->next)
                if (n->id == id)
                        return n;
        return NULL;
}

static void forget_pid(struct process_tree *t, struct node *node) {
        struct node **p = bucket_of(t, node->pid);

        while (*p && *p != node)
                p = &(*p)->next_in_bucket;
        if (*p)
                *p = node->next_in_bucket;
}

/* As the last child, or without a parent in front of all. */
static struct node *node_new(struct process_tree *t, struct node *parent, int64_t id, pid_t pid) {
        struct node *n = calloc(1, sizeof(*n)), **bucket = bucket_of(t, pid);

        if (!n)
                return NULL;
        n->id = id;
        n->pid = pid;
        n->parent = parent;
        if (parent) {
                n->depth = parent->depth + 1;
                n->previous = parent->last;
                *(parent->last ? &parent->last->next : &parent->first) = n;
                parent->last = n;
        } else {
                n->next = t->first;
                if (n->next)
                        n->next->previous = n;
                t->first = n;
        }
        n->next_in_bucket = *bucket;
        *bucket = n;
        t->n_nodes++;
        t->has_changed = true;
        return n;
}

static void node_free(struct process_tree *t, struct node *n) {
        struct node **first = n->parent ? &n->parent->first : &t->first;

        *(n->previous ? &n->previous->next : first) = n->next;
        if (n->next)
                n->next->previous = n->previous;
        else if (n->parent)
                n->parent->last = n->previous;
        t->n_nodes--;
        t->has_changed = true;
        text_free(&n->name);
        text_free(&n->outcome);
        free(n);
}

/* It was shown for long enough, and so were those who had to wait for it. */
static void node_pass(struct process_tree *t, struct node *n) {
        n->is_past = true;
        while (n->is_past && !n->first && n->parent) {
                struct node *parent = n->parent;

                node_free(t, n);
                n = parent;
        }
}

static void pass_ended(struct process_tree *t, int64_t now) {
        while (t->first_ended && (t->n_ended > ENDED_MAX || now - t->first_ended->ended_nsec >= ENDED_NSEC)) {
                struct node *n = t->first_ended;

                t->first_ended = n->next_ended;
                if (!t->first_ended)
                        t->last_ended = NULL;
                t->n_ended--;
                node_pass(t, n);
        }
}

/* `outcome` was filled in. */
static void node_end(struct process_tree *t, struct node *n) {
        forget_pid(t, n);
        n->has_ended = true;
        n->ended_nsec = now_nsec();
        *(t->last_ended ? &t->last_ended->next_ended : &t->first_ended) = n;
        t->last_ended = n;
        t->n_ended++;
        t->has_changed = true;
        pass_ended(t, n->ended_nsec);
}

struct process_tree *process_tree_new(bool colour) {
        struct process_tree *t = calloc(1, sizeof(*t));

        if (t) {
                t->colour = colour;
                t->has_changed = true;
        }
        return t;
}

/* The next one, each behind its parent. */
static struct node *next_of(const struct node *n) {
        if (n->first)
                return n->first;
        while (!n->next && n->parent)
                n = n->parent;
        return n->next;
}

struct process_tree *process_tree_free(struct process_tree *t) {
        struct node *n = t ? t->first : NULL;

        while (n) {
                struct node *up;

                while (n->first)
                        n = n->first;
                up = n->parent;
                node_free(t, n);
                n = up ? up : t->first;
        }
        free(t);
        return NULL;
}

int process_tree_add(struct process_tree *t, int64_t id, pid_t pid) {
        struct node *n = node_new(t, NULL, id, pid);
        char comm[PIDS_COMM_MAX];

        if (!n)
                return -ENOMEM;
        if (pids_read_comm(pid, comm))
                text_puts_escaped(&n->name, comm);
        return n->name.failed ? -ENOMEM : 0;
}

/* ---- events -------------------------------------------------------------------- */

/* The name or, where that may have been cut and the program's begins like it, the program's. */
static const char *name_of(const struct kev_event *event) {
        const char *comm = kev_event_comm(event), *exe = kev_event_exe(event), *last;

        last = exe ? strrchr(exe, '/') : NULL;
        last = last ? last + 1 : exe;
        if (!comm || (last && strlen(comm) == COMM_BYTES && strncmp(last, comm, COMM_BYTES) == 0))
                return last;
        return comm;
}

static void set_name(struct process_tree *t, struct node *n, const struct kev_event *event) {
        const char *name = name_of(event);

        if (!name)
                return;
        text_reset(&n->name);
        text_puts_escaped(&n->name, name);
        t->has_changed = true;
}

/* The ones that it should hang below may be missing: then it hangs below the first. */
static struct node *take_child(struct process_tree *t, const struct kev_event *event, pid_t pid) {
        int64_t id = kev_event_id(event);
        struct node *parent = NULL, *n = find(t, id, pid);
        pid_t parent_pid;

        if (n) { /* another's number, whose end was not told */
                text_puts(&n->outcome, "status not known");
                node_end(t, n);
        }
        if (kev_event_parent(event, &parent_pid) == 0)
                parent = find(t, id, parent_pid);
        if (!parent)
                parent = find_root(t, id);
        n = node_new(t, parent, id, pid);
        if (!n) {
                t->failed = true;
                return NULL;
        }
        if (!name_of(event) && parent && parent->name.data) /* it begins as its parent's copy */
                text_puts(&n->name, parent->name.data);
        set_name(t, n, event);
        return n;
}

void process_tree_take(struct process_tree *t, const struct kev_event *event) {
        uint64_t notes = kev_event_notes(event);
        struct node *n;
        pid_t pid;

        if (notes & KEV_NOTE_LOST) {
                t->n_lost += kev_event_count(event);
                t->has_uncounted = t->has_uncounted || kev_event_count(event) == 0;
                t->has_changed = true;
        }
        if (kev_event_pid(event, &pid) < 0)
                return;
        n = notes & KEV_NOTE_CHILD ? take_child(t, event, pid) : find(t, kev_event_id(event), pid);
        if (!n)
                return;
        if (notes & KEV_NOTE_EXEC)
                set_name(t, n, event);
        if (notes & KEV_NOTE_EXIT)
                print_outcome(&n->outcome, event);
        else if (notes & KEV_NOTE_TRACKERR)
                text_puts(&n->outcome, "can't be followed any more");
        if (notes & (KEV_NOTE_EXIT | KEV_NOTE_TRACKERR))
                node_end(t, n);
}

/* ---- drawing ------------------------------------------------------------------- */

/* "|  `- ": which of those above have more children to come. */
static void put_branches(struct text *line, const struct node *node) {
        char branches[LEVELS_MAX * INDENTATION];
        size_t levels = node->depth < LEVELS_MAX ? node->depth : LEVELS_MAX;
        const struct node *n = node;

        while (n->depth > levels)
                n = n->parent;
        for (size_t i = levels; i > 0; i--, n = n->parent)
                memcpy(branches + (i - 1) * INDENTATION,
                       n == node ? (n->next ? "|- " : "`- ") : (n->next ? "|  " : "   "), INDENTATION);
        text_put(line, branches, levels * INDENTATION);
}

/* A line never wraps: no character takes more columns than it has bytes. */
static void put_line(struct text *out, const struct text *line, size_t columns) {
        size_t size = line->size;

        if (size >= columns) {
                size = columns - 1;
                while (size > 0 && ((unsigned char)line->data[size] & 0xc0) == 0x80)
                        size--;
        }
        if (size > 0)
                text_put(out, line->data, size);
}

static void put_node(const struct process_tree *t, struct text *out, const struct node *n, size_t columns) {
        bool dim = t->colour && n->has_ended;
        struct text line = { 0 };

        put_branches(&line, n);
        text_printf(&line, "%d %s", (int)n->pid, n->name.data ? n->name.data : "?");
        if (n->outcome.data)
                text_printf(&line, "  %s", n->outcome.data);
        text_puts(out, dim ? CLEAR_LINE DIM : CLEAR_LINE);
        put_line(out, &line, columns);
        text_puts(out, dim ? RESET "\n" : "\n");
        out->failed = out->failed || line.failed || n->name.failed || n->outcome.failed;
        text_free(&line);
}

static bool has_lost(const struct process_tree *t) {
        return t->n_lost > 0 || t->has_uncounted;
}

static void put_rest(const struct process_tree *t, struct text *out, size_t n_hidden, size_t columns) {
        struct text line = { 0 };

        if (n_hidden > 0)
                text_printf(&line, "... %zu more", n_hidden);
        if (n_hidden > 0 && has_lost(t))
                text_puts(&line, ", ");
        if (has_lost(t))
                print_lost(&line, t->n_lost, t->has_uncounted);
        text_puts(out, CLEAR_LINE);
        put_line(out, &line, columns);
        text_puts(out, "\n");
        out->failed = out->failed || line.failed;
        text_free(&line);
}

/* To where the tree began. In a window of another size its lines may be anywhere. */
static void put_return(const struct process_tree *t, struct text *out, const struct winsize *size) {
        if (t->n_drawn == 0)
                return;
        if (size->ws_row != t->size.ws_row || size->ws_col != t->size.ws_col)
                text_puts(out, CLEAR_ALL);
        else
                text_printf(out, "\r" UP, t->n_drawn);
}

static void get_size(struct winsize *ret) {
        *ret = (struct winsize){ 0 };
        (void)ioctl(STDOUT_FILENO, TIOCGWINSZ, ret);
        if (ret->ws_row == 0)
                ret->ws_row = 24;
        if (ret->ws_col == 0)
                ret->ws_col = 80;
}

void process_tree_draw(struct process_tree *t, struct text *out, bool last) {
        int64_t now = now_nsec();
        size_t room, n_shown, n = 0;
        struct winsize size;

        pass_ended(t, now);
        out->failed = out->failed || t->failed;
        if (!t->has_changed || (!last && now < t->next_nsec))
                return;
        get_size(&size);
        put_return(t, out, &size);
        room = size.ws_row > 2 ? size.ws_row - 1u : 1; /* the cursor's line is below */
        n_shown = t->n_nodes;
        if (t->n_nodes > room || has_lost(t))
                n_shown = t->n_nodes < room ? t->n_nodes : room - 1;
        for (const struct node *node = t->first; node && n < n_shown; node = next_of(node), n++)
                put_node(t, out, node, size.ws_col);
        if (n_shown < t->n_nodes || has_lost(t)) {
                put_rest(t, out, t->n_nodes - n_shown, size.ws_col);
                n++;
        }
        text_puts(out, CLEAR_BELOW);
        t->n_drawn = n;
        t->size = size;
        t->has_changed = false;
        t->next_nsec = now + DRAW_NSEC;
}

int64_t process_tree_due(const struct process_tree *t) {
        if (t->has_changed)
                return t->next_nsec;
        return t->first_ended ? t->first_ended->ended_nsec + ENDED_NSEC : -1;
}
