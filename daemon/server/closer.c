/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "closer.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "account.h"
#include "macro.h"
#include "workers.h"

struct closing {
        struct work work;
        struct list done; /* in the mailbox */
        struct mailbox *mailbox;
        struct account *account;
        size_t n;
        int fds[];
};

static void end(struct account *account, size_t n) {
        account_return(account, RESOURCE_DESCRIPTORS, n);
        account_unref(account);
}

static void on_done(struct mailbox *mailbox) {
        struct list *entry;

        while ((entry = mailbox_take(mailbox))) {
                struct closing *closing = list_entry(entry, struct closing, done);

                end(closing->account, closing->n);
                free(closing);
        }
}

/* On a thread. */
static void run(struct work *work) {
        struct closing *closing = container_of(work, struct closing, work);

        for (size_t i = 0; i < closing->n; i++)
                (void)close(closing->fds[i]);
        mailbox_post(closing->mailbox, &closing->done);
}

int closer_open(struct closer *closer, struct mux *mux, struct workers *workers) {
        closer->workers = workers;
        return mailbox_open(&closer->mailbox, mux, on_done);
}

void closer_close(struct closer *closer) {
        on_done(&closer->mailbox);
        mailbox_close(&closer->mailbox);
}

void closer_add(struct closer *closer, struct account *account, const int *fds, size_t n) {
        struct closing *closing = n > 0 ? malloc(sizeof(*closing) + n * sizeof(int)) : NULL;

        if (n == 0)
                return;
        account_ref(account);
        if (closing) {
                *closing = (struct closing){ .work.run = run, .mailbox = &closer->mailbox, .account = account, .n = n };
                memcpy(closing->fds, fds, n * sizeof(int));
                workers_submit_anyhow(closer->workers, account->uid, &closing->work);
                return;
        }
        for (size_t i = 0; i < n; i++)
                (void)close(fds[i]);
        end(account, n);
}
