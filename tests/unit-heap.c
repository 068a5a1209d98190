/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * util/heap: against a sorted array of what is in.
 */

#include "harness.h"
#include "heap.h"
#include "macro.h"
#include "unit.h"

enum { ITEMS = 2000 };

struct item {
        uint64_t before; /* what is around the index, to see that nothing else is written */
        uint32_t index, after;
        uint64_t key;
};

static struct item items[ITEMS];
static struct item *sorted[ITEMS]; /* the smallest key first */
static size_t n_sorted;
static struct heap heap;

static struct item *of(uint32_t *index) {
        return container_of(index, struct item, index);
}

/* Where in the array one with that key begins. */
static size_t find_key(uint64_t key) {
        size_t low = 0, high = n_sorted;

        while (low < high) {
                size_t middle = (low + high) / 2;

                if (sorted[middle]->key < key)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

static void model_clear(const struct item *item) {
        size_t i = find_key(item->key);

        while (sorted[i] != item)
                i++;
        n_sorted--;
        memmove(&sorted[i], &sorted[i + 1], (n_sorted - i) * sizeof(*sorted));
}

static void model_set(struct item *item, uint64_t key) {
        size_t i = find_key(key);

        memmove(&sorted[i + 1], &sorted[i], (n_sorted - i) * sizeof(*sorted));
        n_sorted++;
        sorted[i] = item;
        item->key = key;
}

static void set(struct item *item, uint64_t key) {
        if (item->index > 0)
                model_clear(item);
        ck_assert_int_eq(heap_set(&heap, &item->index, key), 0);
        model_set(item, key);
}

static void clear(struct item *item) {
        if (item->index > 0)
                model_clear(item);
        heap_clear(&heap, &item->index);
}

/* Of equal keys any may come first. */
static void compare_first(void) {
        const uint32_t *first = heap_first(&heap);

        assert_often(heap.size == n_sorted, "%zu in the heap, %zu in the array", heap.size, n_sorted);
        assert_often((first == NULL) == (n_sorted == 0), "%zu are in, %sone is first", n_sorted, first ? "" : "n");
        if (first)
                assert_often(heap_first_key(&heap) == sorted[0]->key && of(heap_first(&heap))->key == sorted[0]->key,
                             "%llu is first, not %llu", (unsigned long long)heap_first_key(&heap),
                             (unsigned long long)sorted[0]->key);
}

/* Each index leads to its own entry, and the rule of heaps holds. */
static void compare_all(void) {
        compare_first();
        for (size_t i = 1; i <= heap.size; i++) {
                const struct item *item = of(heap.entries[i].index);

                assert_often(item->index == i && item->key == heap.entries[i].key, "entry %zu says it is %u", i,
                             item->index);
                assert_often(i == 1 || heap.entries[i / 2].key <= item->key, "entry %zu is less than the one above", i);
        }
        for (size_t i = 0; i < ITEMS; i++)
                assert_often(items[i].before == 0 && items[i].after == 0, "what is beside an index was written to");
}

static void pop(void) {
        struct item *first = of(heap_first(&heap));

        clear(first);
        ck_assert_uint_eq(first->index, 0);
}

static void free_heap(void) {
        heap_free(&heap);
        ck_assert_ptr_null(heap_first(&heap));
}

START_TEST(empty) {
        ck_assert_ptr_null(heap_first(&heap));
        heap_clear(&heap, &items[0].index);
        heap_free(&heap);
        ck_assert_ptr_null(heap_first(&heap));
        set(&items[0], 0);
        pop();
        clear(&items[0]);
        ck_assert_ptr_null(heap_first(&heap));
        free_heap();
}
END_TEST

static const struct {
        const char *name;
        uint64_t n_keys; /* 0: any */
} spreads[] = {
        { "all different", 0 }, { "some equal", 1000 }, { "many equal", 7 }, { "all equal", 1 },
};

/* It grows, stays, and shrinks: what is done most changes. */
START_TEST(random_operations) {
        struct random r = { 41 + (uint64_t)_i };
        size_t most = 0;

        harness_label(spreads[_i].name);
        for (unsigned step = 0; step < 60000; step++) {
                struct item *item = &items[random_below(&r, ITEMS)];
                unsigned phase = step / 10000 % 3;
                uint64_t key = random_next(&r);
                size_t choice = random_below(&r, 10);

                if (spreads[_i].n_keys)
                        key %= spreads[_i].n_keys;
                if (choice < (phase == 0 ? 8u : phase == 1 ? 5u : 2u))
                        set(item, key);
                else if (choice % 2)
                        clear(item);
                else if (n_sorted > 0)
                        pop();
                most = MAX(most, n_sorted);
                compare_first();
                if (step % 500 == 0)
                        compare_all();
        }
        ck_assert_uint_gt(most, ITEMS / 2);
        compare_all();
        while (n_sorted > 0) {
                compare_first();
                pop();
        }
        compare_all();
        free_heap();
}
END_TEST

/* Those that were put in rising, in falling and in no order come out in the same. */
START_TEST(comes_out_sorted) {
        static const char *const orders[] = { "rising", "falling", "no order" };
        uint64_t last = 0;

        harness_label(orders[_i]);
        for (size_t i = 0; i < ITEMS; i++)
                set(&items[i], _i == 0 ? i : _i == 1 ? ITEMS - i : i * 7919 % ITEMS);
        compare_all();
        for (size_t i = 0; i < ITEMS; i++) {
                ck_assert_uint_ge(heap_first_key(&heap), last);
                last = heap_first_key(&heap);
                pop();
        }
        ck_assert_ptr_null(heap_first(&heap));
        free_heap();
}
END_TEST

START_TEST(largest_keys) {
        set(&items[0], UINT64_MAX);
        set(&items[1], 0);
        set(&items[2], INT64_MAX);
        set(&items[3], UINT64_MAX - 1);
        for (size_t i = 0; i < 4; i++) {
                static const size_t order[] = { 1, 2, 3, 0 };

                ck_assert_ptr_eq(heap_first(&heap), &items[order[i]].index);
                pop();
        }
        free_heap();
}
END_TEST

/* Memory is given back; what went last finds room without asking for any. */
START_TEST(shrinks) {
        size_t largest;

        for (size_t i = 0; i < ITEMS; i++)
                set(&items[i], i);
        largest = heap.capacity;
        while (n_sorted > 0) {
                pop();
                ck_assert_uint_lt(heap.size + 1, heap.capacity);
        }
        ck_assert_uint_lt(heap.capacity, largest / 8);
        for (size_t i = 0; i < ITEMS; i++)
                set(&items[i], ITEMS - i);
        compare_all();
        free_heap();
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("heap"), "heap");

        tcase_add_test(c, empty);
        tcase_add_loop_test(c, random_operations, 0, ARRAY_SIZE(spreads));
        tcase_add_loop_test(c, comes_out_sorted, 0, 3);
        tcase_add_test(c, largest_keys);
        tcase_add_test(c, shrinks);
        return harness_main(argc, argv);
}
