/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Figures for monitoring: GetStatistics counts what was done, neither more nor less, each event has become of
 * something, and kev status --metrics says the same in the OpenMetrics format. That losses of the kernel's are counted
 * as repaired is in test-overflow.c, test-netdev.c; the sums within one queue in queues.c.
 */

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "files.h"
#include "harness.h"
#include "macro.h"
#include "unit.h"

static struct daemon *kevd;
static int asker; /* its connection asks for figures, and has no watches */

static void begin_with(const char *option) {
        kevd = daemon_start(option);
        asker = client_connect(kevd->socket);
}

/* Other users may come in. */
static void begin(void) {
        ck_assert_int_eq(chmod(harness_tempdir(), 0711), 0);
        begin_with(getuid() == 0 ? "--mode=system" : NULL);
}

static void end(void) {
        (void)close(asker);
        daemon_stop(kevd);
}

/* ---- what is asked ----------------------------------------------------------------------- */

static struct json_object *get_statistics(void) {
        return client_call(asker, "org.kevd.manager.GetStatistics", NULL);
}

static int64_t figure(const char *pointer) {
        struct json_object *reply = get_statistics();
        int64_t value = number_at(reply, at("/parameters%s", pointer));

        json_object_put(reply);
        return value;
}

/* Of a named object in an array: -1 if there is none. */
static int64_t figure_of(const char *array, const char *key, const char *value, const char *pointer) {
        struct json_object *reply = get_statistics(), *all = json_at(reply, at("/parameters/%s", array));
        int64_t found = -1;

        for (size_t i = 0; i < json_object_array_length(all); i++) {
                struct json_object *object = json_object_array_get_idx(all, i);

                if (strcmp(json_object_get_string(json_at(object, at("/%s", key))), value) == 0)
                        found = number_at(object, pointer);
        }
        json_object_put(reply);
        return found;
}

static int64_t figure_of_user(uid_t uid, const char *pointer) {
        return figure_of("users", "user", at("%u", uid), pointer);
}

static int64_t balance(struct json_object *events) {
        return number_at(events, "/eventsIn") + number_at(events, "/summaries") + number_at(events, "/restored") -
               number_at(events, "/delivered") - number_at(events, "/merged") - number_at(events, "/discarded") -
               number_at(events, "/pending");
}

static int64_t sum_over(struct json_object *array, const char *pointer) {
        int64_t sum = 0;

        for (size_t i = 0; i < json_object_array_length(array); i++)
                sum += number_at(json_object_array_get_idx(array, i), pointer);
        return sum;
}

/* Each event has become of something; what is counted apart is the whole. No more than 256 users have left. */
static void check_sums(void) {
        static const char *const members[] = { "eventsIn", "summaries", "restored", "delivered", "merged", "discarded",
                                               "pending", "rescans" };
        struct json_object *reply = get_statistics(), *users = json_at(reply, "/parameters/users"),
                           *sources = json_at(reply, "/parameters/sources");

        ck_assert_msg(balance(json_at(reply, "/parameters/events")) == 0, "%s", json_object_to_json_string(reply));
        for (size_t i = 0; i < json_object_array_length(users); i++)
                ck_assert_int_eq(balance(json_at(json_object_array_get_idx(users, i), "/events")), 0);
        for (size_t i = 0; i < ARRAY_SIZE(members); i++)
                ck_assert_int_eq(sum_over(users, at("/events/%s", members[i])),
                                 number_at(reply, at("/parameters/events/%s", members[i])));
        ck_assert_int_eq(sum_over(sources, "/events"), number_at(reply, "/parameters/events/eventsIn"));
        ck_assert_int_eq(sum_over(users, "/queueBytes"), number_at(reply, "/parameters/queueBytes"));
        ck_assert_int_eq(sum_over(users, "/refused"), number_at(reply, "/parameters/refused"));
        ck_assert_int_eq(sum_over(json_at(reply, "/parameters/latency/buckets"), "/count"),
                         number_at(reply, "/parameters/latency/count"));
        json_object_put(reply);
}

/* ---- what is done --------------------------------------------------------------------------- */

static void add(int fd, const char *watch) {
        client_change(fd, "{\"add\":[%s]}", watch);
}

static void change(int fd, const char *parameters) {
        json_object_put(client_call(fd, "org.kevd.events.Change", parameters));
}

static void trigger(int fd, const char *name, int n) {
        for (int i = 0; i < n; i++)
                json_object_put(client_call(fd, "org.kevd.events.Trigger", at("{\"name\":\"%s\"}", name)));
}

/* How many events there were. */
static size_t take(int fd, int max) {
        struct json_object *reply =
                client_call(fd, "org.kevd.events.Wait", at("{\"timeoutMsec\":0,\"maxEvents\":%d}", max));
        size_t n = json_object_array_length(json_at(reply, "/parameters/events"));

        json_object_put(reply);
        return n;
}

#define USER "\"filter\":\"user\",\"name\":\"a\""

/* ---- counted ---------------------------------------------------------------------------------- */

START_TEST(test_counted) {
        int fd = client_connect(kevd->socket), other = client_connect(kevd->socket);

        add(fd, "{\"id\":1," USER "},{\"id\":2," USER "}");
        add(other, "{\"id\":1," USER "}");
        trigger(fd, "a", 7);
        ck_assert_int_eq(figure("/events/eventsIn"), 21);
        ck_assert_int_eq(figure("/events/pending"), 21);
        ck_assert_int_eq(figure("/watches"), 3);
        ck_assert_int_eq(figure("/connections"), 3);
        ck_assert_int_gt(figure("/queueBytes"), 0);
        ck_assert_int_eq(figure_of("sources", "name", "user", "/events"), 21);
        ck_assert_int_eq(figure_of("sources", "name", "user", "/watches"), 3);
        ck_assert_int_eq(figure_of("sources", "name", "timer", "/events"), 0);
        ck_assert_int_eq(figure_of_user(getuid(), "/events/pending"), 21);
        ck_assert_int_eq(figure("/latency/count"), 0);
        check_sums();

        ck_assert_uint_eq(take(fd, 5), 5); /* one reply each */
        ck_assert_uint_eq(take(fd, 100), 9);
        ck_assert_uint_eq(take(other, 100), 7);
        ck_assert_uint_eq(take(other, 100), 0); /* and one without an event */
        ck_assert_int_eq(figure("/latency/count"), 3);
        ck_assert_int_gt(figure("/latency/sumUsec"), 0);
        ck_assert_int_eq(figure("/events/delivered"), 21);
        ck_assert_int_eq(figure("/events/pending"), 0);
        ck_assert_int_eq(figure("/events/merged"), 0);
        ck_assert_int_eq(figure("/events/discarded"), 0);
        ck_assert_int_eq(figure("/queueBytes"), 0);
        check_sums();

        trigger(fd, "a", 1);
        change(fd, "{\"remove\":[1]}");
        ck_assert_int_eq(figure("/events/discarded"), 1);
        change(fd, "{\"add\":[{\"id\":2," USER "}]}"); /* is in use */
        ck_assert_int_eq(figure("/refused"), 1);
        check_sums();
        (void)close(fd);
        (void)close(other);
}
END_TEST

/* An event as old as that is in the bucket that it belongs to. */
START_TEST(test_latency) {
        enum { OLD_MSEC = 30 };
        int fd = client_connect(kevd->socket);
        int64_t start = now_msec(), n = 0, took;
        struct json_object *reply;

        add(fd, "{\"id\":1," USER "}");
        trigger(fd, "a", 1);
        while (now_msec() < start + OLD_MSEC)
                (void)figure("/connections");
        start = now_msec() - start;
        ck_assert_uint_eq(take(fd, 1), 1);
        reply = get_statistics();
        took = number_at(reply, "/parameters/latency/sumUsec");
        for (size_t i = 0;; i++) {
                struct json_object *bucket = json_at(reply, at("/parameters/latency/buckets/%zu", i));
                struct json_object *bound = json_at(bucket, "/upToUsec");

                n += number_at(bucket, "/count");
                if (!bound || json_object_get_int64(bound) >= took)
                        break;
                ck_assert_int_eq(n, 0);
        }
        ck_assert_int_eq(n, 1);
        json_object_put(reply);
        (void)close(fd);
}
END_TEST

/* ---- sums ---------------------------------------------------------------------------------------- */

/* Events for which there is no room are merged; a connection that ends takes its own along. */
START_TEST(test_bound_and_end) {
        const char *root = make_root("w");
        int fd, other;
        int64_t pending, discarded;

        begin_with("--limit-queue-bytes=65536"); /* of which a connection has a quarter */
        fd = client_connect(kevd->socket);
        other = client_connect(kevd->socket);
        add(fd, at("{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\"},{\"id\":2," USER "}", root));
        add(other, at("{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\",\"notes\":[\"create\"]}", root));
        for (int i = 0; i < 30; i++) {
                make_dir(at("%s/%d", root, i));
                for (int j = 0; j < 30; j++)
                        make_file(at("%s/%d/%d", root, i, j));
        }
        trigger(fd, "a", 300);
        ck_assert_uint_eq(take(fd, 3), 3); /* what the kernel had is told by then */
        ck_assert_int_gt(figure("/events/merged"), 500);
        ck_assert_int_gt(figure("/events/summaries"), 0);
        ck_assert_int_gt(figure("/events/rescans"), 0);
        ck_assert_int_gt(figure_of_user(getuid(), "/limitsMet/queueBytes"), 0);
        check_sums();

        pending = figure("/events/pending");
        discarded = figure("/events/discarded");
        ck_assert_int_gt(pending, 0);
        ck_assert_int_eq(discarded, 0);
        (void)close(fd);
        (void)close(other);
        while (figure("/connections") > 1)
                ;
        ck_assert_int_eq(figure("/events/pending"), 0);
        ck_assert_int_eq(figure("/events/discarded"), pending);
        ck_assert_int_eq(figure_of_user(getuid(), "/queueBytes"), 0);
        check_sums();
        end();
}
END_TEST

enum { CLIENTS = 4, IDS = 6 };

static void add_any(struct random *r, int fd, const char *root) {
        static const char *const flags[] = { "", ",\"flags\":[\"oneshot\"]", ",\"flags\":[\"dispatch\"]",
                                             ",\"flags\":[\"disabled\"]" };
        const char *flag = flags[random_below(r, ARRAY_SIZE(flags))];
        size_t id = random_below(r, IDS);

        switch (random_below(r, 4)) {
        case 0:
                change(fd, at("{\"add\":[{\"id\":%zu,\"filter\":\"tree\",\"path\":\"%s\"%s}]}", id, root, flag));
                break;
        case 1:
                change(fd, at("{\"add\":[{\"id\":%zu,\"filter\":\"tree\",\"path\":\"%s\",\"tree\":{\"settleMsec\":20}%s}]}",
                              id, root, flag));
                break;
        case 2:
                change(fd, at("{\"add\":[{\"id\":%zu,\"filter\":\"timer\",\"data\":2%s}]}", id, flag));
                break;
        default:
                change(fd, at("{\"add\":[{\"id\":%zu," USER "%s}]}", id, flag));
                break;
        }
}

static void step(struct random *r, int *fd, const char *root, int number) {
        switch (random_below(r, 9)) {
        case 0:
                add_any(r, *fd, root);
                break;
        case 1:
                change(*fd, at("{\"remove\":[%zu]}", random_below(r, IDS)));
                break;
        case 2:
                change(*fd, at("{\"disable\":[%zu]}", random_below(r, IDS)));
                break;
        case 3:
                change(*fd, at("{\"enable\":[%zu]}", random_below(r, IDS)));
                break;
        case 4:
                trigger(*fd, "a", (int)random_below(r, 50));
                break;
        case 5:
        case 6:
                (void)take(*fd, 1 + (int)random_below(r, 20));
                break;
        case 7:
                for (size_t i = random_below(r, 40); i > 0; i--)
                        make_file(at("%s/%d-%zu", root, number, i));
                break;
        default:
                if (random_below(r, 6) > 0)
                        break;
                (void)close(*fd);
                *fd = client_connect(kevd->socket);
        }
}

START_TEST(test_random) {
        struct random r = { (uint64_t)_i + 1 };
        const char *root = make_root("w");
        int fds[CLIENTS], n = harness_rounds(600);

        begin_with("--limit-queue-bytes=65536");
        for (int i = 0; i < CLIENTS; i++)
                fds[i] = client_connect(kevd->socket);
        for (int i = 0; i < n; i++) {
                step(&r, &fds[random_below(&r, CLIENTS)], root, i);
                if (i % 10 == 0)
                        check_sums();
        }
        ck_assert_int_gt(figure("/events/delivered"), 0);
        ck_assert_int_gt(figure("/events/discarded"), 0);
        for (int i = 0; i < CLIENTS; i++)
                (void)close(fds[i]);
        while (figure("/connections") > 1)
                ;
        ck_assert_int_eq(figure("/events/pending"), 0);
        check_sums();
        end();
}
END_TEST

/* ---- users ---------------------------------------------------------------------------------------- */

START_TEST(test_limits_met) {
        int fd, other;

        begin_with("--limit-timers=1");
        fd = client_connect(kevd->socket);
        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":1000000}]}");
        ck_assert_int_eq(figure_of_user(getuid(), "/limitsMet/timers"), 0);
        change(fd, "{\"add\":[{\"id\":2,\"filter\":\"timer\",\"data\":1000000},"
                   "{\"id\":3,\"filter\":\"timer\",\"data\":1000000}]}");
        ck_assert_int_eq(figure_of_user(getuid(), "/limitsMet/timers"), 2);
        ck_assert_int_eq(figure_of_user(getuid(), "/limitsMet/watches"), 0);
        ck_assert_int_eq(figure_of_user(getuid(), "/refused"), 2);
        (void)close(fd);
        end();

        begin_with("--limit-connections=2");
        fd = client_connect(kevd->socket);
        json_object_put(client_call(fd, "org.kevd.events.GetLimits", NULL));
        other = client_connect(kevd->socket);
        client_expect_close(other, HARNESS_REPLY_MSEC);
        ck_assert_int_eq(figure_of_user(getuid(), "/limitsMet/connections"), 1);
        ck_assert_int_eq(figure("/connectionsRefused"), 1);
        (void)close(fd);
        (void)close(other);
        end();
}
END_TEST

static bool has_left(void *userdata _unused_) {
        return figure_of_user(OTHER_CLIENT, "/connections") == 0;
}

/* Its socket is closed on a thread, and held against its user until then. */
static bool only_asker_is_there(void *userdata _unused_) {
        struct json_object *status = client_call(asker, "org.kevd.manager.GetStatus", NULL);
        size_t n = json_object_array_length(json_at(status, "/parameters/users"));

        json_object_put(status);
        return n == 1;
}

/* What was counted of a user is still there when all connections are gone, and goes on with the next. */
START_TEST(test_who_has_left) {
        int fd;

        if (getuid() != 0)
                harness_skip("only root can be another user");
        begin();
        fd = client_connect_as(kevd->socket, OTHER_CLIENT);
        add(fd, "{\"id\":1," USER "}");
        trigger(fd, "a", 4);
        ck_assert_uint_eq(take(fd, 3), 3);
        ck_assert_int_eq(figure_of_user(OTHER_CLIENT, "/events/pending"), 1);
        ck_assert_int_eq(figure_of_user(getuid(), "/events/eventsIn"), 0);
        (void)close(fd);
        ck_assert(wait_until(has_left, NULL, HARNESS_REPLY_MSEC));
        ck_assert_int_eq(figure_of_user(OTHER_CLIENT, "/events/delivered"), 3);
        ck_assert_int_eq(figure_of_user(OTHER_CLIENT, "/events/discarded"), 1);
        check_sums();
        ck_assert(wait_until(only_asker_is_there, NULL, HARNESS_REPLY_MSEC));

        fd = client_connect_as(kevd->socket, OTHER_CLIENT);
        add(fd, "{\"id\":1," USER "}");
        trigger(fd, "a", 1);
        ck_assert_int_eq(figure_of_user(OTHER_CLIENT, "/events/eventsIn"), 5);
        ck_assert_int_eq(figure_of_user(OTHER_CLIENT, "/connections"), 1);
        (void)close(fd);
        end();
}
END_TEST

START_TEST(test_others) {
        struct json_object *reply;
        int fd;

        if (getuid() != 0)
                harness_skip("only root can be another user");
        begin();
        fd = client_connect_as(kevd->socket, OTHER_CLIENT);
        reply = client_call(fd, "org.kevd.manager.GetStatistics", NULL);
        ck_assert_str_eq(text_at(reply, "/error"), "org.varlink.service.PermissionDenied");
        ck_assert_str_eq(json_object_to_json_string_ext(json_at(reply, "/parameters"), JSON_C_TO_STRING_PLAIN), "{}");
        json_object_put(reply);
        (void)close(fd);
        end();
}
END_TEST

/* ---- the text ----------------------------------------------------------------------------------- */

enum { TEXT_MAX = 256 * 1024 };

/* What kev status --metrics prints; the test's own memory. */
static char *get_metrics(void) {
        static char texts[2][TEXT_MAX];
        static int which;
        char *text = texts[which++ % 2];
        FILE *output = popen(at("\"$KEV\" status --metrics --address '%s'", kevd->socket), "re");
        size_t n;

        assert_system(output, "popen");
        n = fread(text, 1, TEXT_MAX - 1, output);
        text[n] = 0;
        ck_assert_int_eq(pclose(output), 0);
        return text;
}

/* What the samples of a type may be called behind the family's name. */
static bool fits(const char *type, const char *end) {
        static const char *const of_histogram[] = { "_bucket{", "_count ", "_sum " };

        if (strcmp(type, "counter") == 0)
                return strncmp(end, "_total{", 7) == 0 || strncmp(end, "_total ", 7) == 0;
        for (size_t i = 0; strcmp(type, "histogram") == 0 && i < ARRAY_SIZE(of_histogram); i++)
                if (strncmp(end, of_histogram[i], strlen(of_histogram[i])) == 0)
                        return true;
        return strcmp(type, "gauge") == 0 && (*end == '{' || *end == ' ');
}

/* A sample: NAME{LABEL="VALUE",...} NUMBER, with the braces or without. The number is cut off. */
static double read_sample(char *line) {
        char *p = line + strcspn(line, "{ "), *end;
        double value;

        for (const char *c = line; c < p; c++)
                ck_assert_msg(islower(*c) || isdigit(*c) || *c == '_', "%s", line);
        if (*p == '{')
                do {
                        p += 1 + strspn(p + 1, "abcdefghijklmnopqrstuvwxyz_");
                        ck_assert_msg(p[0] == '=' && p[1] == '"', "%s", line);
                        for (p += 2; *p != '"'; p++) {
                                p += *p == '\\';
                                ck_assert_msg(*p, "%s", line);
                        }
                        p++;
                } while (*p == ',');
        p += *p == '}';
        ck_assert_msg(*p == ' ', "%s", line);
        value = strtod(p + 1, &end);
        ck_assert_msg(end > p + 1 && *end == 0, "%s", line);
        *p = 0;
        return value;
}

/* Checks the text and takes it to pieces; `ret_names` is what has to be the same each time. */
static size_t read_metrics(char *text, const char *wanted, double *ret_value, char *ret_names) {
        char family[128] = "", type[16] = "", *names = ret_names;
        size_t n = 0;

        ck_assert_msg(strlen(text) > 6 && strcmp(text + strlen(text) - 6, "# EOF\n") == 0, "%s", text);
        for (char *line = strtok(text, "\n"); strcmp(line, "# EOF") != 0; line = strtok(NULL, "\n")) {
                char name[128], what[128];
                double value;

                if (sscanf(line, "# TYPE %127s %15s", name, what) == 2) {
                        ck_assert_str_ne(name, family);
                        ck_assert_ptr_null(strstr(ret_names, at("\n%s ", name))); /* each family once */
                        (void)snprintf(family, sizeof(family), "%s", name);
                        (void)snprintf(type, sizeof(type), "%s", what);
                        names += sprintf(names, "\n%s ", name);
                } else if (sscanf(line, "# UNIT %127s %127s", name, what) == 2) {
                        ck_assert_str_eq(name, family);
                        ck_assert_str_eq(name + strlen(name) - strlen(what) - 1, at("_%s", what));
                        ck_assert(strcmp(what, "seconds") == 0 || strcmp(what, "bytes") == 0);
                } else if (sscanf(line, "# HELP %127s %127s", name, what) == 2)
                        ck_assert_str_eq(name, family);
                else {
                        ck_assert_msg(strncmp(line, family, strlen(family)) == 0 && fits(type, line + strlen(family)),
                                      "%s in %s", line, family);
                        value = read_sample(line);
                        if (wanted && strcmp(line, wanted) == 0)
                                *ret_value = value;
                        names += sprintf(names, "%s ", line);
                        n++;
                }
        }
        return n;
}

static double metric(const char *wanted) {
        static char names[TEXT_MAX];
        double value = -1;

        names[0] = 0;
        (void)read_metrics(get_metrics(), wanted, &value, names);
        ck_assert_msg(value >= 0, "there is no %s", wanted);
        return value;
}

static void do_something(int *fd, int *other) {
        *fd = client_connect(kevd->socket);
        *other = getuid() == 0 ? client_connect_as(kevd->socket, OTHER_CLIENT) : client_connect(kevd->socket);
        add(*fd, "{\"id\":1," USER "}");
        add(*other, "{\"id\":1," USER "}");
        trigger(*fd, "a", 9);
        trigger(*other, "a", 9);
        ck_assert_uint_eq(take(*fd, 4), 4);
}

START_TEST(test_metrics) {
        static char names[2][TEXT_MAX];
        int fd, other;

        do_something(&fd, &other);
        ck_assert_uint_gt(read_metrics(get_metrics(), NULL, NULL, names[0]), 30);
        trigger(fd, "a", 1);
        ck_assert_uint_eq(take(fd, 100), getuid() == 0 ? 6 : 15);
        (void)read_metrics(get_metrics(), NULL, NULL, names[1]);
        ck_assert_str_eq(names[0], names[1]);

        ck_assert_double_eq(metric("kevd_events_in_total"), (double)figure("/events/eventsIn"));
        ck_assert_double_eq(metric("kevd_events_delivered_total"), (double)figure("/events/delivered"));
        ck_assert_double_eq(metric("kevd_events_pending"), (double)figure("/events/pending"));
        ck_assert_double_eq(metric("kevd_queue_bytes"), (double)figure("/queueBytes"));
        ck_assert_double_eq(metric("kevd_source_events_total{source=\"user\"}"), (double)figure("/events/eventsIn"));
        ck_assert_double_eq(metric(at("kevd_user_events_in_total{uid=\"%u\"}", getuid())),
                            (double)figure_of_user(getuid(), "/events/eventsIn"));
        ck_assert_double_eq(metric(at("kevd_user_limits_met_total{uid=\"%u\",limit=\"timers\"}", getuid())), 0);
        ck_assert_double_eq(metric("kevd_latency_seconds_count"), 2);
        ck_assert_double_eq(metric("kevd_latency_seconds_bucket{le=\"+Inf\"}"), 2);
        ck_assert_double_le(metric("kevd_latency_seconds_bucket{le=\"1e-05\"}"),
                            metric("kevd_latency_seconds_bucket{le=\"10.0\"}"));
        ck_assert_double_eq_tol(metric("kevd_latency_seconds_sum"), (double)figure("/latency/sumUsec") / 1e6, 1e-9);
        (void)close(fd);
        (void)close(other);
}
END_TEST

/* Others' parsers take it. */
START_TEST(test_metrics_elsewhere) {
        int fd, other, status;

        do_something(&fd, &other);
        /* A python3 of somebody's own, which is first in PATH, may lack what Debian's has. */
        status = system(at("for p in python3 /usr/bin/python3; do\n"
                           "        s=0\n"
                           "        \"$KEV\" status --metrics --address '%s' | $p '%s' || s=$?\n"
                           "        [ $s -eq 77 ] || [ $s -eq 127 ] || exit $s\n"
                           "done\nexit 77", kevd->socket, OPENMETRICS));
        (void)close(fd);
        (void)close(other);
        if (WEXITSTATUS(status) == 77) {
                end();
                harness_skip("python3-prometheus-client is not installed");
        }
        ck_assert_int_eq(status, 0);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *s = harness_suite("statistics");
        TCase *c = harness_case(s, "counted");

        tcase_add_checked_fixture(c, begin, end);
        tcase_add_test(c, test_counted);
        tcase_add_test(c, test_latency);

        c = harness_case(s, "sums");
        tcase_set_timeout(c, 60);
        tcase_add_test(c, test_bound_and_end);
        tcase_add_loop_test(c, test_random, 0, 4);

        c = harness_case(s, "users");
        tcase_add_test(c, test_limits_met);
        tcase_add_test(c, test_who_has_left);
        tcase_add_test(c, test_others);

        c = harness_case(s, "metrics");
        tcase_add_checked_fixture(c, begin, end);
        tcase_add_test(c, test_metrics);
        tcase_add_test(c, test_metrics_elsewhere);
        return harness_main(argc, argv);
}
