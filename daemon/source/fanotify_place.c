/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which directory a handle is: known, asked for, or outside of all that is watched. */

#include <errno.h>
#include <string.h>

#include "fanotify.h"
#include "log.h"

enum {
        INSIDE_MAX = 65536, /* places of a view, */
        INSIDE_IN_DOUBT_MAX = 4 * INSIDE_MAX, /* and while names are in doubt */
        OUTSIDE_MAX = 8192,
        SHRINK_TRIES = 64, /* beside those that are too many, */
        SHRINK_A_TURN = 1024, /* and no more at once */
        LINKS_MAX = 16384,
};

struct place *place_find(struct view *v, struct handle_ref handle) {
        for (struct hash_node *n = hash_first(&v->places, handle_hash(handle)); n; n = hash_next(n)) {
                struct place *p = container_of(n, struct place, node);

                if (p->type == handle.type && p->size == handle.size && memcmp(p->bytes, handle.bytes, p->size) == 0)
                        return p;
        }
        return NULL;
}

static struct place *new_place(struct view *v, struct handle_ref handle) {
        struct place *p = calloc(1, sizeof(*p) + handle.size);

        if (!p)
                return NULL;
        p->view = v;
        p->type = handle.type;
        p->size = handle.size;
        memcpy(p->bytes, handle.bytes, handle.size);
        list_init(&p->verdicts);
        if (hash_add(&v->places, &p->node, handle_hash(handle)) < 0) {
                free(p);
                return NULL;
        }
        list_append(&v->outside, &p->used);
        v->n_outside++;
        return p;
}

static void touch(struct place *p) {
        struct list *list = p->dir ? &p->view->inside : &p->view->outside;

        if (list->previous == &p->used)
                return;
        list_remove(&p->used);
        list_append(list, &p->used);
}

static void put_inside(struct place *p, struct dir *dir) {
        p->dir = dir;
        dir->place = p;
        p->view->n_outside--;
        p->view->n_inside++;
        touch(p);
}

static void put_outside(struct place *p) {
        if (p->dir) {
                p->dir->place = NULL;
                p->dir = NULL;
                verdicts_forget(p);
                p->view->n_inside--;
                p->view->n_outside++;
        }
        touch(p);
}

static void forget_question(struct place *p) {
        if (p->asked)
                asked_forget(take_pointer(&p->asked));
        buffer_free(&p->links);
        p->links = BUFFER_INIT;
        p->answered = false;
        p->error = 0;
}

void place_free(struct place *p) {
        struct view *v = p->view;

        forget_question(p);
        put_outside(p);
        v->n_outside--;
        list_remove(&p->used);
        hash_remove(&v->places, &p->node);
        free(p);
}

struct place *place_bind(struct view *v, struct handle_ref handle, struct dir *dir) {
        struct place *p = place_find(v, handle);

        if (dir->place && dir->place != p)
                place_free(dir->place);
        if (!p)
                p = new_place(v, handle);
        if (!p || p->dir == dir)
                return p;
        if (p->dir && (p->dir == v->tree.root || tree_is_below(dir, p->dir))) {
                group_doubt(v->group, "a directory is said to be below itself");
                return NULL;
        }
        verdicts_keep(p);
        put_outside(p);
        forget_question(p);
        put_inside(p, dir);
        p->changed = group_now(v->group);
        return p;
}

/* ---- asking -------------------------------------------------------------------------------------------- */

static void on_place(void *owner, const struct answer *answer, const char *bytes) {
        struct place *p = owner;
        struct group *g = p->view->group;

        if (answer->size > 0)
                buffer_put(&p->links, bytes, answer->size);
        if (answer->more)
                return;
        p->asked = NULL;
        p->answered = true;
        p->error = p->links.error ? ENOMEM : answer->error;
        group_read(g); /* the moves from before the answer */
        if (!g->drained)
                group_doubt(g, "the moves from before an answer can't all be read");
        mux_defer(g->s->mux, &g->go_on);
}

/* False: it can't be asked. */
static bool ask(struct place *p) {
        struct question question = view_question(p->view, QUESTION_PLACE, place_handle(p));

        forget_question(p);
        p->asked_at = p->view->group->n_read;
        p->asked_generation = p->view->generation;
        p->asked = helper_ask(&p->view->group->surveyor, &question, NULL, -1, on_place, p);
        return p->asked != NULL;
}

static bool ask_again(struct place *p) {
        if (ask(p))
                return true;
        group_doubt(p->view->group, "a place can't be asked for");
        return false;
}

static bool is_outside(const struct place *p) {
        return !p->dir && !p->asked && !p->answered && p->generation == p->view->generation;
}

void place_expect(struct view *v, struct handle_ref handle) {
        struct place *p = place_find(v, handle);

        if (!p)
                p = new_place(v, handle);
        if (p && !p->dir && !p->asked && !p->answered && !is_outside(p))
                (void)ask(p);
}

/* ---- from an answer to a place --------------------------------------------------------------------------- */

struct step {
        struct handle_ref handle;
        const char *name;
        size_t name_size;
};

/* The links, in an array that the caller frees. 0 with no memory, or if they make no sense. */
static size_t parse_links(const char *bytes, size_t size, struct step **ret) {
        struct step *steps = NULL;
        size_t n = 0, capacity = 0;
        struct link_view link;

        while (size > 0) {
                const char *start = bytes;

                if (n == capacity) {
                        struct step *more = realloc(steps, (capacity = MAX(capacity * 2, 32u)) * sizeof(*steps));

                        if (!more)
                                break;
                        steps = more;
                }
                if (!link_take(&bytes, &size, &link) || link.handle.size == 0 || n >= LINKS_MAX)
                        break;
                steps[n++] = (struct step){
                        .handle = { .type = link.handle.type, .size = link.handle.size,
                                    .bytes = (const unsigned char *)start + sizeof(struct link_header) },
                        .name = link.name,
                        .name_size = link.name_size,
                };
        }
        if (size > 0)
                n = 0;
        *ret = steps;
        return n;
}

/* The directory of a step, made where it belongs. */
static struct dir *make_step(struct view *v, struct dir *parent, const struct step *step) {
        char name[256];
        struct place *p = place_find(v, step->handle);
        struct dir *dir;
        enum told told;

        if (step->name_size == 0 || step->name_size >= sizeof(name))
                return NULL;
        memcpy(name, step->name, step->name_size);
        name[step->name_size] = 0;
        dir = tree_child(&v->tree, parent, name);
        if (dir && p && p->dir == dir)
                return dir;
        if (dir && dir->place) /* its end has not been told yet, or was merged away */
                fan_tree_drop(v, dir, realtime_nsec() / NSEC_PER_USEC);
        if (p && p->dir) {
                if (tree_is_below(parent, p->dir))
                        return NULL;
                if (tree_move(&v->tree, p->dir, parent, name) < 0) {
                        fan_tree_drop(v, p->dir, realtime_nsec() / NSEC_PER_USEC);
                        return NULL;
                }
                p->changed = group_now(v->group);
                return p->dir;
        }
        dir = tree_make_child(&v->tree, parent, name);
        if (!dir || !place_bind(v, step->handle, dir))
                return NULL;
        told = parent->place ? names_told(v->group, place_handle(parent->place), name, step->handle) : TOLD_UNKNOWN;
        if ((told == TOLD_ABSENT || told == TOLD_OTHER) && tree_is_watched_below(parent, NULL))
                fan_tree_make_good(v, dir, told);
        return dir;
}

struct dir *place_take_links(struct view *v, const char *links, size_t size) {
        struct step *steps _cleanup_(freep) = NULL;
        size_t n = parse_links(links, size, &steps);
        struct dir *dir = n > 0 && steps[0].name_size == 0 && place_bind(v, steps[0].handle, v->tree.root) ?
                                  v->tree.root :
                                  NULL;

        for (size_t i = 1; dir && i < n; i++)
                dir = make_step(v, dir, &steps[i]);
        return dir;
}

enum outcome {
        OUTCOME_INSIDE,
        OUTCOME_OUTSIDE,
        OUTCOME_WAITS,
};

/* `likely`: where it is, unless a move has led elsewhere. */
static size_t find_step(const struct step *steps, size_t n, size_t likely, struct handle_ref handle) {
        if (likely < n && handle_ref_equal(steps[likely].handle, handle))
                return likely;
        for (size_t i = n; i-- > 0;)
                if (handle_ref_equal(steps[i].handle, handle))
                        return i;
        return SIZE_MAX;
}

static enum outcome settle_place(struct place *p, struct step *links, size_t n_links, struct step *way, size_t way_max,
                                 struct dir **ret_dir) {
        struct view *v = p->view;
        struct group *g = v->group;
        struct handle_ref at = place_handle(p);
        struct dir *dir = NULL;
        size_t n = 0, likely = n_links - 1;

        /* Up, as far as it is not known. */
        for (;;) {
                struct place *known = place_find(v, at);
                /* parse_links() has written what it has counted: NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage) */
                const struct pending_move *move = group_next_move(g, at);
                size_t i;

                if (known && known->dir) {
                        dir = known->dir;
                        break;
                }
                if (n == way_max || (known && known != p && is_outside(known)))
                        return OUTCOME_OUTSIDE;
                if (move) {
                        way[n++] = (struct step){ .handle = at, .name = move->name, .name_size = strlen(move->name) };
                        at = move->from;
                        continue;
                }
                i = links ? find_step(links, n_links, likely, at) : SIZE_MAX;
                if (i == SIZE_MAX || i == 0) {
                        if (known == p)
                                return OUTCOME_OUTSIDE;
                        if (!place_resolve(v, at, &dir))
                                return OUTCOME_WAITS;
                        if (!dir)
                                return OUTCOME_OUTSIDE;
                        break;
                }
                if (group_has_moved(g, p->asked_at, handle_hash(at)))
                        return ask_again(p) ? OUTCOME_WAITS : OUTCOME_OUTSIDE;
                way[n++] = (struct step){ .handle = at, .name = links[i].name, .name_size = links[i].name_size };
                at = links[i - 1].handle;
                likely = i - 1;
        }
        if (!tree_is_watched_below(dir, NULL))
                return OUTCOME_OUTSIDE;
        while (dir && n-- > 0)
                dir = make_step(v, dir, &way[n]);
        if (!dir)
                group_doubt(g, "a directory can't be where it is said to be");
        *ret_dir = dir;
        return dir ? OUTCOME_INSIDE : OUTCOME_OUTSIDE;
}

/* What is above a directory outside is so, too: it needs no question any more. But if one of them moves, or has moved
 * since, what the links have above it is where it goes, which says nothing of where it was. */
static void note_above(struct view *v, uint64_t asked_at, const struct step *links, size_t n) {
        while (n-- > 0 && !group_next_move(v->group, links[n].handle) &&
               !group_has_moved(v->group, asked_at, handle_hash(links[n].handle)))
                place_is_outside(v, links[n].handle);
}

/* Something was mounted over it, or above it or its mount, as it was looked for, which may be over since, or not read
 * yet: then it is looked for once more. The event is from before that, so what comes and goes without end does not hold
 * it up: it is covered by what was told of the mount, and for the next one the place is not known. */
static bool was_covered(struct place *p) {
        const struct view *v = p->view;
        bool before = p->asks_anew;

        p->asks_anew = !before && ((p->error == EXDEV && p->asked_generation != v->generation) ||
                                   (p->error == ENODEV && !v->is_lost));
        return p->asks_anew;
}

/* Whether an error says nothing but that it is outside. */
static bool is_certain(const struct view *v, int error) {
        return error == 0 || error == ESTALE || error == EXDEV || error == ENOENT || (error == ENODEV && v->is_lost);
}

bool place_resolve(struct view *v, struct handle_ref handle, struct dir **ret_dir) {
        struct step *links _cleanup_(freep) = NULL, *way _cleanup_(freep) = NULL;
        struct place *p = place_find(v, handle);
        size_t n_links, way_max;
        enum outcome outcome;

        *ret_dir = NULL;
        if (!p)
                p = new_place(v, handle);
        if (!p) {
                group_doubt(v->group, "no memory for a place");
                return true;
        }
        if (p->dir) {
                touch(p);
                *ret_dir = p->dir;
                return true;
        }
        if (p->asked)
                return false;
        if (is_outside(p)) {
                touch(p);
                return true;
        }
        if (!p->answered)
                return !ask_again(p);
        n_links = p->error ? 0 : parse_links(p->links.data, p->links.size, &links);
        way_max = n_links + 1024;
        way = malloc(way_max * sizeof(*way));
        if (!way || (!p->error && p->links.size > 0 && n_links == 0))
                group_doubt(v->group, "a place can't be read");
        outcome = way ? settle_place(p, links, n_links, way, way_max, ret_dir) : OUTCOME_OUTSIDE;
        if (outcome == OUTCOME_WAITS)
                return false;
        if (!p->answered) /* asked once more, and the links are gone */
                n_links = 0;
        if (outcome == OUTCOME_OUTSIDE && p->error == ENODEV && !v->is_lost) {
                if (view_look(v))
                        return !ask_again(p);
                if (!mounts_show(&v->group->s->mounts, v->mount))
                        view_lose(v);
        }
        if (outcome == OUTCOME_OUTSIDE && was_covered(p))
                return !ask_again(p);
        if (outcome == OUTCOME_OUTSIDE) {
                p->generation = p->error == EXDEV ? p->asked_generation : v->generation;
                note_above(v, p->asked_at, links, n_links);
                if (p->error == ENAMETOOLONG || p->error == EMLINK)
                        log_notice("fanotify: %s: a directory is too deep, or one of too many, to be followed",
                                   v->mount_point);
                else if (!is_certain(v, p->error))
                        group_doubt(v->group, strerror(p->error));
        }
        p->asks_anew = false;
        forget_question(p);
        return true;
}

void place_is_outside(struct view *v, struct handle_ref handle) {
        struct place *p = place_find(v, handle);

        if (p) /* by another name, or merged */
                return;
        p = new_place(v, handle);
        if (p)
                p->generation = v->generation;
}

/* ---- bounds --------------------------------------------------------------------------------------------------- */

/* Frees the directory's node with it, unless that is needed. */
static bool evict(struct view *v, struct place *p) {
        struct dir *dir = p->dir;

        if (p->asked || p->answered)
                return false;
        if (!dir) {
                place_free(p);
                return true;
        }
        if (dir == v->tree.root || dir->first_child || dir->n_watches > 0 || dir->listing || dir->refs > 0)
                return false;
        verdicts_keep(p);
        place_free(p);
        tree_free_dir(&v->tree, dir);
        return true;
}

static void shrink(struct view *v, struct list *list, const size_t *n, size_t max) {
        for (size_t tries = *n > max ? MIN(*n - max + SHRINK_TRIES, (size_t)SHRINK_A_TURN) : 0; *n > max && tries > 0; tries--) {
                struct place *p = list_entry(list->next, struct place, used);

                if (!evict(v, p))
                        touch(p);
        }
}

void places_shrink(struct view *v) {
        shrink(v, &v->outside, &v->n_outside, OUTSIDE_MAX);
        if (v->n_inside > INSIDE_MAX && !list_empty(&v->group->names_doubtful)) { /* they are looked for where they are */
                if (v->n_inside <= INSIDE_IN_DOUBT_MAX)
                        return;
                group_doubt(v->group, "more directories than can be remembered");
        }
        shrink(v, &v->inside, &v->n_inside, INSIDE_MAX);
}
