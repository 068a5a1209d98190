/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "histogram.h"

const uint32_t histogram_bounds_usec[HISTOGRAM_BOUNDS] = {
        10,    20,     50,     100,    200,     500,     1000,    2000,    5000,     10000,
        20000, 50000,  100000, 200000, 500000,  1000000, 2000000, 5000000, 10000000,
};

void histogram_add(struct histogram *histogram, uint64_t usec, uint64_t n) {
        size_t i = 0;

        while (i < HISTOGRAM_BOUNDS && usec > histogram_bounds_usec[i])
                i++;
        histogram->counts[i] += n;
        histogram->sum_usec += usec * n;
}

uint64_t histogram_count(const struct histogram *histogram) {
        uint64_t count = 0;

        for (size_t i = 0; i <= HISTOGRAM_BOUNDS; i++)
                count += histogram->counts[i];
        return count;
}
