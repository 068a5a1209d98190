/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * mux/mailbox, with every backend (muxes.h): what threads send comes in order, none of it is missing, and it wakes the
 * loop; and one that could not be opened.
 */

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "harness.h"
#include "list.h"
#include "macro.h"
#include "mailbox.h"
#include "mux.h"
#include "muxes.h"

enum { SENDERS = 4, LETTERS = 20000 };

struct letter {
        struct list link;
        unsigned sender, number;
};

static struct mailbox mailbox;
static unsigned next_number[SENDERS], n_letters, n_times;
static bool in_parts; /* all letters but the last of each */

static void on_mail(struct mailbox *m) {
        struct list *message;

        ck_assert_ptr_eq(m, &mailbox);
        n_times++; /* that it was called */
        while ((message = mailbox_take(m))) {
                struct letter *letter = list_entry(message, struct letter, link);

                ck_assert_uint_eq(letter->number, next_number[letter->sender]++);
                free(letter);
                n_letters++;
        }
}

static void send_letter(unsigned sender, unsigned number) {
        struct letter *letter = malloc(sizeof(*letter));

        if (!letter)
                abort();
        *letter = (struct letter){ .sender = sender, .number = number };
        list_init(&letter->link);
        if (in_parts && number + 1 < LETTERS)
                mailbox_post_part(&mailbox, &letter->link);
        else
                mailbox_post(&mailbox, &letter->link);
}

static void *sender_main(void *argument) {
        unsigned sender = (unsigned)(uintptr_t)argument;

        for (unsigned i = 0; i < LETTERS; i++)
                send_letter(sender, i);
        return NULL;
}

START_TEST(mail_from_threads) {
        uint64_t deadline = monotonic_nsec() + 25 * NSEC_PER_SEC;

        open_mux(_i);
        for (int n = 0; n < 2; n++) {
                pthread_t threads[SENDERS];

                in_parts = n == 1;
                n_letters = 0;
                memset(next_number, 0, sizeof(next_number));
                ck_assert_int_eq(mailbox_open(&mailbox, mux, on_mail), 0);
                for (uintptr_t i = 0; i < SENDERS; i++)
                        ck_assert_int_eq(pthread_create(&threads[i], NULL, sender_main, (void *)i), 0);
                while (n_letters < SENDERS * LETTERS && monotonic_nsec() < deadline)
                        turn((int64_t)NSEC_PER_SEC);
                for (size_t i = 0; i < SENDERS; i++)
                        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
                ck_assert_uint_eq(n_letters, SENDERS * LETTERS);
                ck_assert_ptr_null(mailbox_take(&mailbox));
                mailbox_close(&mailbox);
        }
        close_mux();
}
END_TEST

START_TEST(mail_wakes_the_loop_once) {
        open_mux(_i);
        ck_assert_int_eq(mailbox_open(&mailbox, mux, on_mail), 0);
        send_letter(0, 0);
        send_letter(0, 1);
        turn(-1);
        ck_assert_uint_eq(n_letters, 2);
        turns(3);
        ck_assert_uint_eq(n_times, 1);
        /* Taken without being called: the next letter wakes it all the same. */
        send_letter(0, 2);
        free(list_entry(mailbox_take(&mailbox), struct letter, link));
        next_number[0]++;
        send_letter(0, 3);
        turn(-1);
        ck_assert_uint_eq(n_letters, 3);
        mailbox_close(&mailbox);
        close_mux();
}
END_TEST

/* A part wakes a loop that doesn't look by itself, and one that does comes to it with nothing else to wake it. */
START_TEST(mail_in_parts) {
        open_mux(_i);
        ck_assert_int_eq(mailbox_open(&mailbox, mux, on_mail), 0);
        in_parts = true;
        for (unsigned i = 0; i < 100; i++) {
                send_letter(0, i);
                while (n_letters <= i)
                        turn(-1);
                while (i % 2 == 0 && mailbox.paced) /* until it would sleep */
                        turn(-1);
        }
        mailbox_close(&mailbox);
        close_mux();
}
END_TEST

/* One that could not be opened is as one that has nothing. */
START_TEST(mail_without_descriptors) {
        struct rlimit before, none;

        open_mux(_i);
        assert_system(getrlimit(RLIMIT_NOFILE, &before) == 0, "getrlimit");
        none = (struct rlimit){ .rlim_max = before.rlim_max };
        assert_system(setrlimit(RLIMIT_NOFILE, &none) == 0, "setrlimit");
        ck_assert_int_eq(mailbox_open(&mailbox, mux, on_mail), -EMFILE);
        assert_system(setrlimit(RLIMIT_NOFILE, &before) == 0, "setrlimit");
        ck_assert_ptr_null(mailbox_take(&mailbox));
        mailbox_close(&mailbox);
        close_mux();
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("mux-mailbox"), "mailbox");
        int n = count_backends();

        tcase_add_loop_test(c, mail_from_threads, 0, n);
        tcase_add_loop_test(c, mail_wakes_the_loop_once, 0, n);
        tcase_add_loop_test(c, mail_in_parts, 0, n);
        tcase_add_loop_test(c, mail_without_descriptors, 0, n);
        return harness_main(argc, argv);
}
