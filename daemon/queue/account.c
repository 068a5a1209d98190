/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "account.h"

#include <errno.h>
#include <stdlib.h>

#include "macro.h"

const struct limits limits_default = {
        .values = {
                [RESOURCE_CONNECTIONS] = 1024,
                [RESOURCE_WATCHES] = 256 * 1024,
                [RESOURCE_WATCH_BYTES] = 64 * 1024 * 1024,
                [RESOURCE_QUEUE_BYTES] = 64 * 1024 * 1024,
                [RESOURCE_OUTPUT_BYTES] = 64 * 1024 * 1024,
                [RESOURCE_DESCRIPTORS] = 16 * 1024,
                [RESOURCE_TIMERS] = 128 * 1024,
                [RESOURCE_REQUESTS] = 50 * 1000,
        },
};

const char *resource_name(enum resource resource) {
        static const char *const names[RESOURCE_COUNT] = {
                [RESOURCE_CONNECTIONS] = "connections", [RESOURCE_WATCHES] = "watches",
                [RESOURCE_WATCH_BYTES] = "watch-bytes", [RESOURCE_QUEUE_BYTES] = "queue-bytes",
                [RESOURCE_OUTPUT_BYTES] = "output-bytes", [RESOURCE_DESCRIPTORS] = "descriptors",
                [RESOURCE_TIMERS] = "timers", [RESOURCE_REQUESTS] = "requests",
        };

        return names[resource];
}

void accounts_init(struct accounts *accounts, const struct limits *limits) {
        *accounts = (struct accounts){ .limits = *limits };
        list_init(&accounts->departed);
}

static void forget(struct account *account) {
        hash_remove(&account->accounts->table, &account->node);
        free(account);
}

static void forget_departed(struct accounts *accounts, size_t keep) {
        list_for_each(entry, &accounts->departed) {
                if (accounts->n_departed <= keep)
                        break;
                accounts->n_departed--;
                list_remove(entry);
                forget(list_entry(entry, struct account, departed));
        }
}

void accounts_free(struct accounts *accounts) {
        forget_departed(accounts, 0);
        hash_free(&accounts->table);
}

struct account *account_get(struct accounts *accounts, uid_t uid) {
        struct account *account;

        for (struct hash_node *n = hash_first(&accounts->table, hash_u64(uid)); n; n = hash_next(n)) {
                account = container_of(n, struct account, node);
                if (account->uid != uid)
                        continue;
                if (account->refs == 0) {
                        list_remove(&account->departed);
                        accounts->n_departed--;
                }
                return account_ref(account);
        }
        account = calloc(1, sizeof(*account));
        if (!account || hash_add(&accounts->table, &account->node, hash_u64(uid)) < 0) {
                free(account);
                return NULL;
        }
        account->accounts = accounts;
        list_init(&account->departed);
        account->refs = 1;
        account->uid = uid;
        list_init(&account->postponed);
        list_init(&account->in_turn);
        list_init(&account->waiting);
        return account;
}

struct account *account_ref(struct account *account) {
        account->refs++;
        return account;
}

static bool has_counted(const struct account *account) {
        uint64_t sum = 0;

        for (size_t i = 0; i < FIGURE_COUNT; i++)
                sum |= account->figures[i];
        for (size_t i = 0; i < RESOURCE_COUNT; i++)
                sum |= account->met[i];
        return sum != 0;
}

static void depart(struct account *account) {
        struct accounts *accounts = account->accounts;

        list_remove(&account->in_turn);
        if (!has_counted(account)) {
                forget(account);
                return;
        }
        list_append(&accounts->departed, &account->departed);
        accounts->n_departed++;
        forget_departed(accounts, ACCOUNTS_REMEMBERED);
}

struct account *account_unref(struct account *account) {
        if (account && --account->refs == 0)
                depart(account);
        return NULL;
}

size_t account_limit(const struct account *account, enum resource resource) {
        return account->accounts->limits.values[resource];
}

size_t account_room(const struct account *account, enum resource resource) {
        size_t limit = account_limit(account, resource);

        return limit - MIN(limit, account->used[resource]);
}

int account_charge(struct account *account, enum resource resource, size_t amount) {
        if (account->used[resource] > account_limit(account, resource) || amount > account_room(account, resource)) {
                account->met[resource]++;
                return -EDQUOT;
        }
        account->used[resource] += amount;
        return 0;
}

void account_charge_anyway(struct account *account, enum resource resource, size_t amount) {
        account->used[resource] += amount;
}

void account_return(struct account *account, enum resource resource, size_t amount) {
        account->used[resource] -= amount;
}

void account_pace_anyway(struct account *account, size_t cost, uint64_t now_nsec) {
        size_t limit = account_limit(account, RESOURCE_REQUESTS);

        account->paced_nsec = MAX(account->paced_nsec, now_nsec) + cost * NSEC_PER_SEC / limit;
}

uint64_t account_pace(struct account *account, size_t cost, uint64_t now_nsec) {
        if (account->paced_nsec > now_nsec + NSEC_PER_SEC)
                return account->paced_nsec - NSEC_PER_SEC;
        account_pace_anyway(account, cost, now_nsec);
        return 0;
}
