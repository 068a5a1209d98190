/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * util/hash: against an array of which nodes are in.
 */

#include "harness.h"
#include "hash.h"
#include "macro.h"
#include "unit.h"

enum { ITEMS = 4096 };

struct item {
        struct hash_node node;
        uint64_t hash;
        unsigned seen;
        bool in;
};

static struct item items[ITEMS];
static struct hash table;

static struct item *of(struct hash_node *node) {
        return container_of(node, struct item, node);
}

static bool holds(const struct item *item) {
        for (struct hash_node *n = hash_first(&table, item->hash); n; n = hash_next(n)) {
                assert_often(n->hash == item->hash, "another hash in the chain");
                if (of(n) == item)
                        return true;
        }
        return false;
}

static void put(struct item *item, uint64_t hash) {
        item->hash = hash;
        assert_often(hash_add(&table, &item->node, hash) == 0, "no memory");
        item->in = true;
}

static void take(struct item *item) {
        hash_remove(&table, &item->node);
        item->in = false;
}

static size_t count_in(void) {
        size_t n = 0;

        for (size_t i = 0; i < ITEMS; i++)
                n += items[i].in;
        return n;
}

/* What the array says is what the table says, in every way of asking. */
static void compare(void) {
        size_t n = 0;

        for (size_t i = 0; i < ITEMS; i++)
                items[i].seen = 0;
        hash_for_each(node, &table) {
                of(node)->seen++;
                n++;
        }
        ck_assert_uint_eq(n, count_in());
        ck_assert_uint_eq(n, table.n_nodes);
        for (size_t i = 0; i < ITEMS; i++) {
                assert_often(items[i].seen == items[i].in, "node %zu was visited %u times", i, items[i].seen);
                assert_often(holds(&items[i]) == items[i].in, "node %zu %s found", i, items[i].in ? "is not" : "is");
        }
}

START_TEST(empty) {
        ck_assert_ptr_null(hash_first(&table, 0));
        hash_remove(&table, &items[0].node);
        hash_for_each(node, &table)
                ck_abort_msg("%p is in an empty table", (void *)node);
        hash_free(&table);
        ck_assert_uint_eq(table.n_nodes, 0);
}
END_TEST

/* With few different hashes the chains are long. */
static void random_operations(uint64_t seed, uint64_t n_hashes) {
        struct random r = { seed };
        const unsigned steps = (unsigned)harness_rounds(200000);
        size_t most = 0, size = ITEMS;

        for (unsigned step = 0; step < steps; step++) {
                struct item *item = &items[random_below(&r, size)];

                if (step % 20000 == 0) {
                        compare();
                        size = step % 40000 == 0 ? ITEMS : 40; /* grow, then shrink */
                        for (size_t i = size; i < ITEMS; i++)
                                if (items[i].in)
                                        take(&items[i]);
                        if (size < ITEMS)
                                compare();
                }
                if (item->in)
                        take(item);
                else
                        put(item, n_hashes ? random_below(&r, n_hashes) : hash_u64(random_next(&r)));
                most = MAX(most, table.n_nodes);
        }
        ck_assert_uint_gt(most, ITEMS / 4);
        compare();
        for (size_t i = 0; i < ITEMS; i++)
                if (items[i].in)
                        take(&items[i]);
        compare();
        ck_assert_ptr_null(table.buckets);
}

START_TEST(random_spread) {
        random_operations(1, 0);
}
END_TEST

START_TEST(random_collisions) {
        random_operations(2, 50);
}
END_TEST

START_TEST(remove_twice) {
        put(&items[0], 7);
        put(&items[1], 7);
        take(&items[0]);
        hash_remove(&table, &items[0].node);
        compare();
        take(&items[1]);
        hash_remove(&table, &items[1].node);
        compare();
}
END_TEST

/* The table follows its size in both directions: shrinking waits for the next that are added. */
START_TEST(grows_and_shrinks) {
        size_t n_buckets;

        for (size_t i = 0; i < ITEMS; i++)
                put(&items[i], hash_u64(i));
        n_buckets = table.n_buckets;
        ck_assert_uint_ge(n_buckets, ITEMS / 2);
        for (size_t i = 0; i < ITEMS - 10; i++)
                take(&items[i]);
        ck_assert_uint_eq(table.n_buckets, n_buckets);
        for (size_t i = 0; i < 3; i++)
                put(&items[i], hash_u64(i));
        ck_assert_uint_lt(table.n_buckets, n_buckets / 4);
        compare();
        hash_free(&table);
}
END_TEST

/* "All nodes; the body may remove the node at hand." */
START_TEST(for_each_removes_all) {
        size_t n = 0;

        for (size_t i = 0; i < ITEMS; i++)
                put(&items[i], hash_u64(i));
        hash_for_each(node, &table) {
                take(of(node));
                n++;
        }
        ck_assert_uint_eq(n, ITEMS);
        compare();
}
END_TEST

START_TEST(for_each_removes_some) {
        struct random r = { 3 };
        const unsigned rounds = (unsigned)harness_rounds(200);
        bool kept[ITEMS];

        for (unsigned round = 0; round < rounds; round++) {
                size_t n = 1 + random_below(&r, ITEMS), rest = 1 + random_below(&r, 64);

                for (size_t i = 0; i < n; i++) {
                        put(&items[i], hash_u64(random_next(&r)));
                        items[i].seen = 0;
                        kept[i] = random_once_in(&r, rest);
                }
                hash_for_each(node, &table) {
                        struct item *item = of(node);

                        item->seen++;
                        if (!kept[item - items])
                                take(item);
                }
                for (size_t i = 0; i < n; i++)
                        assert_often(items[i].seen == 1, "round %u: node %zu of %zu was visited %u times", round, i, n,
                                     items[i].seen);
                compare();
                for (size_t i = 0; i < n; i++)
                        if (items[i].in)
                                take(&items[i]);
        }
}
END_TEST

START_TEST(bytes) {
        static const char text[] = "the quick brown fox jumps over the lazy dog";
        char copy[sizeof(text) + 8];

        for (size_t size = 0; size < sizeof(text); size++) {
                uint64_t hash = hash_bytes(text, size, 1);

                /* Neither the place in memory nor what is behind counts. */
                for (size_t shift = 0; shift < 8; shift++) {
                        memset(copy, '#', sizeof(copy));
                        memcpy(copy + shift, text, size);
                        ck_assert_uint_eq(hash_bytes(copy + shift, size, 1), hash);
                }
                ck_assert_uint_ne(hash_bytes(text, size, 2), hash);
                if (size > 0) {
                        ck_assert_uint_ne(hash_bytes(text, size - 1, 1), hash);
                        copy[7 + size - 1] ^= 1;
                        ck_assert_uint_ne(hash_bytes(copy + 7, size, 1), hash);
                }
        }
}
END_TEST

/* The low bits choose the bucket. */
START_TEST(spread) {
        unsigned buckets[256] = { 0 };

        for (uint64_t i = 0; i < 256 * 64; i++)
                buckets[hash_u64(i) & 255]++;
        for (size_t i = 0; i < 256; i++) {
                ck_assert_uint_gt(buckets[i], 8);
                ck_assert_uint_lt(buckets[i], 256);
        }
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("hash"), "table");

        tcase_add_test(c, empty);
        tcase_add_test(c, random_spread);
        tcase_add_test(c, random_collisions);
        tcase_add_test(c, remove_twice);
        tcase_add_test(c, grows_and_shrinks);
        tcase_add_test(c, for_each_removes_all);
        tcase_add_test(c, for_each_removes_some);
        tcase_add_test(c, bytes);
        tcase_add_test(c, spread);
        return harness_main(argc, argv);
}
