/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* How listings (listing.h) are made on fanotify: by the surveyor, which finds a directory by its handle. */

#include "fanotify.h"

#include <errno.h>

static struct view *view_of(const struct lister *lister) {
        return container_of(lister, struct view, lister);
}

static void on_due(struct due *due) {
        struct listing *l = container_of(due, struct listing, due);

        listing_on_answer(l, l->error);
}

static void on_listed(void *owner, const struct answer *answer, const char *bytes) {
        struct listing *l = owner;

        if (answer->size > 0)
                buffer_put(&l->entries, bytes, answer->size);
        if (answer->more)
                return;
        l->asked = NULL;
        l->error = answer->error;
        group_await(view_of(l->lister)->group, &l->due);
}

static int ask(struct lister *lister, struct listing *l) {
        struct view *v = view_of(lister);
        struct question question;

        if (!l->dir->place) /* its handle couldn't be had: a file system of its own, say */
                return -ENOENT;
        question = view_question(v, QUESTION_LIST, place_handle(l->dir->place));
        l->due.fn = on_due;
        l->asked_at = v->group->n_read;
        l->asked = helper_ask(&v->group->surveyor, &question, NULL, -1, on_listed, l);
        return l->asked ? 0 : -EIO;
}

static void forget(struct listing *l) {
        if (l->asked)
                asked_forget(take_pointer(&l->asked));
        list_remove(&l->due.link);
}

static bool is_older(const struct lister *lister, const struct listing *l) {
        return view_of(lister)->group->n_handled + 1 <= l->asked_at;
}

static int find(struct lister *lister, struct dir *dir, const char *name, struct handle_ref handle,
                struct dir **ret_dir) {
        *ret_dir = NULL;
        if (handle.size == 0)
                return 0;
        *ret_dir = fan_tree_place(view_of(lister), dir, name, handle);
        return *ret_dir ? 0 : -ENOMEM;
}

static void on_told(struct lister *lister, struct dir *dir, const char *name, struct handle_ref handle) {
        if (dir->place && handle.size > 0)
                names_on_corrected(view_of(lister)->group, place_handle(dir->place), name, true, handle);
}

static void inquire(struct lister *lister, struct inquiry *inquiry) {
        inquiry_begin(view_of(lister)->group->s, inquiry);
}

static void doubt(struct lister *lister, const char *why) {
        group_doubt(view_of(lister)->group, why);
}

const struct lister_class fanotify_lister = {
        .ask = ask,
        .forget = forget,
        .is_older = is_older,
        .find = find,
        .on_told = on_told,
        .inquire = inquire,
        .has_room = access_has_room,
        .doubt = doubt,
};
