/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Figures for bench/run: beside what it prints, a benchmark appends lines of JSON to the file that
 * $KEVD_BENCH_RESULTS names. Where it names none, nothing is written.
 */

#include <stdbool.h>
#include <stddef.h>

enum completeness {
        COMPLETENESS_NONE, /* nothing that could be missing */
        COMPLETENESS_WHOLE,
        COMPLETENESS_MISSING, /* events are: then it is wrong, not fast */
};

/* One figure, measured as many times as there were rounds. */
struct result {
        const char *workload; /* "attach", as in bench/run */
        const char *program;  /* "kevd", "floor", "inotifywait" */
        const char *variant;  /* of the workload, in words: "cold", "1,000 clients" */
        const char *metric;   /* "time", "p99" */
        const char *unit;     /* "ms", "us", "bytes", "1" */
        double x;             /* what grows: directories, clients; 0: nothing does */
        const double *values; /* of the rounds, in any order */
        size_t n;
        const double *floor;  /* of the same rounds, in the same order, or NULL */
        enum completeness completeness;
};

/* 0 of none. */
double result_median(const double *values, size_t n);
/* Median, least and most, and the median of the ratios to the floor. A file that can't be written ends the program. */
void result_write(const struct result *result);
