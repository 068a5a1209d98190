/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "result.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

static int compare(const void *a, const void *b) {
        double x = *(const double *)a, y = *(const double *)b;

        return (x > y) - (x < y);
}

static double *sorted(const double *values, const double *floor, size_t n) {
        double *copy = malloc(n * sizeof(*copy));

        bench_check_system(copy, "malloc");
        for (size_t i = 0; i < n; i++)
                copy[i] = floor ? values[i] / floor[i] : values[i];
        qsort(copy, n, sizeof(*copy), compare);
        return copy;
}

static double middle(const double *sorted, size_t n) {
        return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

double result_median(const double *values, size_t n) {
        double *copy = n > 0 ? sorted(values, NULL, n) : NULL;
        double median = n > 0 ? middle(copy, n) : 0;

        free(copy);
        return median;
}

static bool has_floor(const struct result *r) {
        for (size_t i = 0; r->floor && i < r->n; i++)
                if (r->floor[i] <= 0)
                        return false;
        return r->floor;
}

static void put(struct json_object *line, const char *name, struct json_object *value) {
        (void)json_object_object_add(line, name, value);
}

static struct json_object *make_line(const struct result *r) {
        struct json_object *line = json_object_new_object();
        double *values = sorted(r->values, NULL, r->n), *ratios = has_floor(r) ? sorted(r->values, r->floor, r->n) : NULL;

        put(line, "workload", json_object_new_string(r->workload));
        put(line, "program", json_object_new_string(r->program));
        put(line, "variant", json_object_new_string(r->variant));
        put(line, "metric", json_object_new_string(r->metric));
        put(line, "unit", json_object_new_string(r->unit));
        put(line, "x", json_object_new_double(r->x));
        put(line, "rounds", json_object_new_uint64(r->n));
        put(line, "median", json_object_new_double(middle(values, r->n)));
        put(line, "least", json_object_new_double(values[0]));
        put(line, "most", json_object_new_double(values[r->n - 1]));
        if (ratios)
                put(line, "ratio", json_object_new_double(middle(ratios, r->n)));
        if (r->completeness != COMPLETENESS_NONE)
                put(line, "complete", json_object_new_boolean(r->completeness == COMPLETENESS_WHOLE));
        free(values);
        free(ratios);
        return line;
}

void result_write(const struct result *r) {
        const char *path = getenv("KEVD_BENCH_RESULTS");
        struct json_object *line;
        FILE *file;

        if (!path || !*path || r->n == 0)
                return;
        file = fopen(path, "ae");
        bench_check_system(file, path);
        line = make_line(r);
        bench_check_system(fprintf(file, "%s\n", json_object_to_json_string_ext(line, JSON_C_TO_STRING_PLAIN)) > 0, path);
        bench_check_system(fclose(file) == 0, path);
        json_object_put(line);
}
