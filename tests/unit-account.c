/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * queue/account: charges against an array of what each user holds.
 */

#include "account.h"
#include "harness.h"
#include "macro.h"
#include "unit.h"

enum { USERS = 40 };

static const struct limits limits = {
        .values = { [RESOURCE_CONNECTIONS] = 3,
                    [RESOURCE_WATCHES] = 100,
                    [RESOURCE_QUEUE_BYTES] = 1000000,
                    [RESOURCE_OUTPUT_BYTES] = 0,
                    [RESOURCE_REQUESTS] = 10 },
};

static struct accounts accounts;

static void setup(void) {
        accounts_init(&accounts, &limits);
}

START_TEST(one_a_user) {
        struct account *a = account_get(&accounts, 1000), *b = account_get(&accounts, 1001);

        ck_assert_ptr_nonnull(a);
        ck_assert_ptr_ne(a, b);
        ck_assert_ptr_eq(account_get(&accounts, 1000), a);
        ck_assert_ptr_eq(account_ref(a), a);
        ck_assert_uint_eq(accounts.table.n_nodes, 2);

        ck_assert_ptr_null(account_unref(a));
        ck_assert_ptr_null(account_unref(a));
        ck_assert_uint_eq(accounts.table.n_nodes, 2);
        ck_assert_ptr_null(account_unref(a));
        ck_assert_uint_eq(accounts.table.n_nodes, 1);
        ck_assert_ptr_null(account_unref(b));
        ck_assert_uint_eq(accounts.table.n_nodes, 0);
        ck_assert_ptr_null(account_unref(NULL));
        accounts_free(&accounts);
}
END_TEST

START_TEST(limit_is_the_last_that_fits) {
        struct account *a = account_get(&accounts, 0), *b = account_get(&accounts, (uid_t)-2);

        ck_assert_uint_eq(account_limit(a, RESOURCE_WATCHES), 100);
        ck_assert_int_eq(account_charge(a, RESOURCE_WATCHES, 101), -EDQUOT);
        ck_assert_uint_eq(a->used[RESOURCE_WATCHES], 0);
        ck_assert_int_eq(account_charge(a, RESOURCE_WATCHES, 99), 0);
        ck_assert_int_eq(account_charge(a, RESOURCE_WATCHES, 2), -EDQUOT);
        ck_assert_int_eq(account_charge(a, RESOURCE_WATCHES, 1), 0);
        ck_assert_int_eq(account_charge(a, RESOURCE_WATCHES, 1), -EDQUOT);
        ck_assert_int_eq(account_charge(a, RESOURCE_WATCHES, 0), 0);
        ck_assert_uint_eq(a->used[RESOURCE_WATCHES], 100);
        /* Another user, another resource. */
        ck_assert_int_eq(account_charge(b, RESOURCE_WATCHES, 100), 0);
        ck_assert_int_eq(account_charge(a, RESOURCE_CONNECTIONS, 3), 0);
        account_return(a, RESOURCE_WATCHES, 1);
        ck_assert_int_eq(account_charge(a, RESOURCE_WATCHES, 1), 0);
        ck_assert_int_eq(account_charge(a, RESOURCE_OUTPUT_BYTES, 1), -EDQUOT);
        account_unref(a);
        account_unref(b);
        accounts_free(&accounts);
}
END_TEST

START_TEST(amounts_do_not_wrap) {
        struct account *a = account_get(&accounts, 5);

        ck_assert_int_eq(account_charge(a, RESOURCE_QUEUE_BYTES, 10), 0);
        ck_assert_int_eq(account_charge(a, RESOURCE_QUEUE_BYTES, SIZE_MAX), -EDQUOT);
        ck_assert_int_eq(account_charge(a, RESOURCE_QUEUE_BYTES, SIZE_MAX - 9), -EDQUOT);
        ck_assert_uint_eq(a->used[RESOURCE_QUEUE_BYTES], 10);
        /* Past the limit nothing more fits, nothing at all included. */
        account_charge_anyway(a, RESOURCE_QUEUE_BYTES, 2000000);
        ck_assert_int_eq(account_charge(a, RESOURCE_QUEUE_BYTES, 1), -EDQUOT);
        ck_assert_uint_eq(a->used[RESOURCE_QUEUE_BYTES], 2000010);
        account_return(a, RESOURCE_QUEUE_BYTES, 2000010);
        ck_assert_int_eq(account_charge(a, RESOURCE_QUEUE_BYTES, 1000000), 0);
        account_unref(a);
        accounts_free(&accounts);
}
END_TEST

struct holder {
        struct account *account;
        unsigned refs;
        size_t used[RESOURCE_COUNT];
};

static void step(struct random *r, struct holder *h, uid_t uid) {
        enum resource resource = (enum resource)random_below(r, RESOURCE_COUNT);
        size_t limit = limits.values[resource], amount = random_below(r, limit / 2 + 2);

        switch (random_below(r, 5)) {
        case 0:
                assert_often(!h->account || account_get(&accounts, uid) == h->account, "a second account of %u", uid);
                if (!h->account)
                        h->account = account_get(&accounts, uid);
                h->refs++;
                break;
        case 1:
                if (!h->account)
                        break;
                for (size_t i = 0; h->refs == 1 && i < RESOURCE_COUNT; i++)
                        account_return(h->account, (enum resource)i, h->used[i]);
                account_unref(h->account);
                if (--h->refs == 0)
                        *h = (struct holder){ 0 };
                break;
        case 2:
                if (!h->account)
                        break;
                amount = random_below(r, h->used[resource] + 1);
                account_return(h->account, resource, amount);
                h->used[resource] -= amount;
                break;
        default:
                if (!h->account)
                        break;
                assert_often(account_charge(h->account, resource, amount) ==
                                     (h->used[resource] + amount > limit ? -EDQUOT : 0),
                             "%zu beside %zu of %zu", amount, h->used[resource], limit);
                if (h->used[resource] + amount <= limit)
                        h->used[resource] += amount;
                break;
        }
}

/* A second's worth at once, and the rest at the limit's pace: 10 of a second. */
START_TEST(pace) {
        enum { COST = NSEC_PER_SEC / 10 };
        struct account *a = account_get(&accounts, 1000), *b = account_get(&accounts, 1001);
        uint64_t now = 100 * NSEC_PER_SEC, when;

        for (int i = 0; i <= 10; i++) /* what is left of the credit is enough for one more */
                ck_assert_uint_eq(account_pace(a, 1, now), 0);
        when = account_pace(a, 1, now);
        ck_assert_uint_eq(when, now + COST);
        ck_assert_uint_eq(account_pace(a, 1, when - 1), when); /* asking costs nothing */
        ck_assert_uint_eq(account_pace(b, 1, now), 0);
        ck_assert_uint_eq(account_pace(a, 1, when), 0);
        ck_assert_uint_eq(account_pace(a, 1, when), when + COST);
        now += 1000 * NSEC_PER_SEC; /* who was silent has no more than one second's */
        ck_assert_uint_eq(account_pace(a, 25, now), 0);
        ck_assert_uint_eq(account_pace(a, 1, now), now + 15 * COST);
        account_unref(a);
        account_unref(b);
        accounts_free(&accounts);
}
END_TEST

/* Of those who have left, the last ones of whom something was counted. */
START_TEST(departed_are_remembered) {
        struct account *a;

        for (uid_t uid = 0; uid < 2 * ACCOUNTS_REMEMBERED; uid++) {
                a = account_get(&accounts, uid);
                a->figures[FIGURE_DELIVERED] = uid;
                account_unref(a);
        }
        ck_assert_uint_eq(accounts.table.n_nodes, ACCOUNTS_REMEMBERED);
        a = account_get(&accounts, ACCOUNTS_REMEMBERED - 1); /* the last one that was forgotten */
        ck_assert_uint_eq(a->figures[FIGURE_DELIVERED], 0);
        account_unref(a);
        ck_assert_uint_eq(accounts.n_departed, ACCOUNTS_REMEMBERED);
        a = account_get(&accounts, ACCOUNTS_REMEMBERED);
        ck_assert_uint_eq(a->figures[FIGURE_DELIVERED], ACCOUNTS_REMEMBERED);
        ck_assert_uint_eq(accounts.n_departed, ACCOUNTS_REMEMBERED - 1);
        account_unref(a); /* has left last, now */
        for (uid_t uid = 2 * ACCOUNTS_REMEMBERED; uid < 3 * ACCOUNTS_REMEMBERED - 1; uid++) {
                a = account_get(&accounts, uid);
                ck_assert_int_eq(account_charge(a, RESOURCE_WATCHES, SIZE_MAX), -EDQUOT);
                ck_assert_uint_eq(a->met[RESOURCE_WATCHES], 1);
                account_unref(a);
        }
        a = account_get(&accounts, ACCOUNTS_REMEMBERED);
        ck_assert_uint_eq(a->figures[FIGURE_DELIVERED], ACCOUNTS_REMEMBERED);
        account_unref(a);
        accounts_free(&accounts);
}
END_TEST

START_TEST(random_operations) {
        static struct holder holders[USERS];
        struct random r = { 11 };
        const unsigned steps = (unsigned)harness_rounds(200000);

        for (unsigned i = 0; i < steps; i++) {
                size_t user = random_below(&r, USERS), n_held = 0;
                struct holder *h = &holders[user];

                step(&r, h, (uid_t)user);
                for (size_t j = 0; h->account && j < RESOURCE_COUNT; j++)
                        assert_often(h->account->used[j] == h->used[j], "step %u: %zu are used instead of %zu", i,
                                     h->account->used[j], h->used[j]);
                for (size_t j = 0; j < USERS; j++)
                        n_held += holders[j].account != NULL;
                assert_often(accounts.table.n_nodes - accounts.n_departed == n_held, "step %u: not %zu accounts", i,
                             n_held);
        }
        for (size_t i = 0; i < USERS; i++)
                for (; holders[i].refs > 0; holders[i].refs--)
                        account_unref(holders[i].account);
        ck_assert_uint_eq(accounts.table.n_nodes, accounts.n_departed);
        accounts_free(&accounts);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("account"), "account");

        tcase_add_checked_fixture(c, setup, NULL);
        tcase_add_test(c, one_a_user);
        tcase_add_test(c, limit_is_the_last_that_fits);
        tcase_add_test(c, amounts_do_not_wrap);
        tcase_add_test(c, pace);
        tcase_add_test(c, departed_are_remembered);
        tcase_add_test(c, random_operations);
        return harness_main(argc, argv);
}
