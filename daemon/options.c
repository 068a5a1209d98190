/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "options.h"

#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "config.h"
#include "log.h"
#include "sandbox.h"

enum {
        BUFFER_BYTES_MIN = 4096,
        BUFFER_BYTES_MAX = 1 << 30,
        LIMIT_BYTES_MIN = 64 * 1024, /* a message, and what is made of it */
        LIMIT_MAX = 1 << 30,
};

/* Where a value came from, for what is said of it. */
struct origin {
        const char *file; /* NULL: the command line */
        unsigned line;
        struct buffer *complaints;
};

void options_init(struct options *o) {
        *o = (struct options){
                .mode = geteuid() == 0 ? MODE_SYSTEM : MODE_USER, .log_level = -1, .limits = limits_default,
        };
}

void options_free(struct options *o) {
        for (size_t i = 0; i < o->n_listen; i++)
                free(o->listen[i]);
        free(o->mux);
        free(o->config);
        free(o->broker);
        buffer_free(&o->complaints);
        options_init(o);
}

static void put_line(struct buffer *complaints, const char *line) {
        buffer_put(complaints, line, strlen(line));
        buffer_put_literal(complaints, "\n");
}

static _printf_(2, 3) int complain(struct origin origin, const char *format, ...) {
        char line[4096];
        int n = origin.file ? snprintf(line, sizeof(line), "%s:%u: ", origin.file, origin.line) :
                              snprintf(line, sizeof(line), "--");
        va_list arguments;

        n = MIN(n, (int)sizeof(line) - 1);
        va_start(arguments, format);
        (void)vsnprintf(line + n, sizeof(line) - (size_t)n, format, arguments);
        va_end(arguments);
        put_line(origin.complaints, line);
        return -EINVAL;
}

/* ---- one value ------------------------------------------------------------------------------ */

static int set_listen(struct options *o, const char *value, struct origin origin) {
        if (value[0] != '/')
                return complain(origin, "listen: \"%s\" is not an absolute path", value);
        if (o->n_listen == LISTENERS_MAX)
                return complain(origin, "listen: more than %d sockets", LISTENERS_MAX);
        o->listen[o->n_listen] = strdup(value);
        if (!o->listen[o->n_listen])
                return -ENOMEM;
        o->n_listen++;
        return 0;
}

static int set_mode(struct options *o, const char *value, struct origin origin) {
        if (mode_from_name(value, &o->mode) < 0)
                return complain(origin, "mode: \"%s\" is none of system, user, private", value);
        o->mode_given = true;
        return 0;
}

static int set_mux(struct options *o, const char *value, struct origin origin) {
        char names[128]; /* few, and short */
        size_t n = 0;

        for (unsigned i = 0; mux_backend_name_at(i); i++)
                if (strcmp(mux_backend_name_at(i), value) == 0) {
                        free(o->mux);
                        o->mux = strdup(value);
                        return o->mux ? 0 : -ENOMEM;
                }
        for (unsigned i = 0; mux_backend_name_at(i); i++)
                n += (size_t)snprintf(names + n, sizeof(names) - n, "%s%s", i ? ", " : "", mux_backend_name_at(i));
        return complain(origin, "mux: \"%s\" is not in this build, which has %s", value, names);
}

static int set_file_mechanism(struct options *o, const char *value, struct origin origin) {
        static const char *const names[] = {
                [FILE_MECHANISM_AUTO] = "auto",
                [FILE_MECHANISM_FANOTIFY] = "fanotify",
                [FILE_MECHANISM_INOTIFY] = "inotify",
        };

        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (strcmp(value, names[i]) == 0) {
                        o->settings.file_mechanism = (enum file_mechanism)i;
                        return 0;
                }
        return complain(origin, "file-mechanism: \"%s\" is none of auto, fanotify, inotify", value);
}

static int set_file_queue(struct options *o, const char *value, struct origin origin) {
        o->settings.limited_queue = strcmp(value, "limited") == 0;
        if (o->settings.limited_queue || strcmp(value, "unlimited") == 0)
                return 0;
        return complain(origin, "file-queue: \"%s\" is neither limited nor unlimited", value);
}

static int set_process_feed(struct options *o, const char *value, struct origin origin) {
        static const char *const names[] = {
                [PROCESS_FEED_AUTO] = "auto",
                [PROCESS_FEED_BPF] = "bpf",
                [PROCESS_FEED_CONNECTOR] = "connector",
                [PROCESS_FEED_PIDFD] = "pidfd",
        };

        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (strcmp(value, names[i]) == 0) {
                        o->settings.process_feed = (enum process_feed)i;
                        return 0;
                }
        return complain(origin, "process-feed: \"%s\" is none of auto, bpf, connector, pidfd", value);
}

static bool read_number(const char *value, size_t min, size_t max, size_t *ret) {
        char *end;
        unsigned long long n;

        errno = 0;
        n = strtoull(value, &end, 10);
        *ret = (size_t)n;
        return !errno && *end == 0 && value[0] >= '0' && value[0] <= '9' && n >= min && n <= max;
}

static int set_buffer(const char *key, const char *value, struct origin origin, size_t *ret_bytes) {
        size_t n;

        if (!read_number(value, BUFFER_BYTES_MIN, BUFFER_BYTES_MAX, &n))
                return complain(origin, "%s: \"%s\" is not a number of bytes from %d to %d", key, value,
                                BUFFER_BYTES_MIN, BUFFER_BYTES_MAX);
        *ret_bytes = n;
        return 0;
}

static bool is_of_bytes(enum resource resource) {
        return resource == RESOURCE_WATCH_BYTES || resource == RESOURCE_QUEUE_BYTES || resource == RESOURCE_OUTPUT_BYTES;
}

static int set_limit(struct options *o, enum resource resource, const char *value, struct origin origin) {
        size_t min = is_of_bytes(resource) ? LIMIT_BYTES_MIN : 1;

        if (read_number(value, min, LIMIT_MAX, &o->limits.values[resource]))
                return 0;
        return complain(origin, "limit-%s: \"%s\" is not a number from %zu to %d", resource_name(resource), value, min,
                        LIMIT_MAX);
}

static int set_process_buffer(struct options *o, const char *value, struct origin origin) {
        return set_buffer("process-buffer", value, origin, &o->settings.process_buffer);
}

static int set_netdev_buffer(struct options *o, const char *value, struct origin origin) {
        return set_buffer("netdev-buffer", value, origin, &o->settings.netdev_buffer);
}

/* What the machine's other services say of groups takes code that a sandbox does not let in (nsswitch.conf(5)). */
static bool find_group(const char *name, gid_t *ret_gid) {
        FILE *file = fopen("/etc/group", "re");
        const struct group *group = NULL;

        while (file && (group = fgetgrent(file)) && strcmp(group->gr_name, name) != 0)
                ;
        if (!group && !sandbox_is_in_force())
                group = getgrnam(name);
        if (group)
                *ret_gid = group->gr_gid;
        if (file)
                (void)fclose(file);
        return group != NULL;
}

/* By its name, or number. */
static int set_process_observers(struct options *o, const char *value, struct origin origin) {
        char *end;
        unsigned long long n;

        errno = 0;
        n = strtoull(value, &end, 10);
        if (value[0] >= '0' && value[0] <= '9' && *end == 0 && !errno && n < UINT32_MAX)
                o->settings.observers = (gid_t)n;
        else if (!find_group(value, &o->settings.observers))
                return complain(origin, "process-observers: there is no group \"%s\"%s", value,
                                sandbox_is_in_force() ? " in /etc/group; one of another service takes a restart" : "");
        o->settings.has_observers = true;
        return 0;
}

static int set_log_level(struct options *o, const char *value, struct origin origin) {
        int level = log_level_from_name(value);

        if (level < 0)
                return complain(origin, "log-level: \"%s\" is none of debug, info, notice, warning, err, crit, alert, "
                                        "emerg", value);
        o->log_level = level;
        return 0;
}

static const struct {
        const char *key;
        int (*set)(struct options *o, const char *value, struct origin origin);
} keys[] = {
        { "listen", set_listen },
        { "mode", set_mode },
        { "mux", set_mux },
        { "file-mechanism", set_file_mechanism },
        { "file-queue", set_file_queue },
        { "netdev-buffer", set_netdev_buffer },
        { "process-buffer", set_process_buffer },
        { "process-feed", set_process_feed },
        { "process-observers", set_process_observers },
        { "log-level", set_log_level },
};

/* ---- files ----------------------------------------------------------------------------------- */

static char *strip(char *s) {
        size_t n;

        s += strspn(s, " \t");
        n = strlen(s);
        while (n > 0 && strchr(" \t\r\n", s[n - 1]))
                s[--n] = 0;
        return s;
}

static int set_line(struct options *o, char *line, struct origin origin) {
        char *key = strip(line), *value = strchr(key, '=');

        if (*key == 0 || *key == '#')
                return 0;
        if (!value)
                return complain(origin, "not of the form KEY = VALUE: \"%s\"", key);
        *value++ = 0;
        key = strip(key);
        value = strip(value);
        for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
                if (strcmp(keys[i].key, key) == 0)
                        return keys[i].set(o, value, origin);
        for (int i = 0; strncmp(key, "limit-", 6) == 0 && i < RESOURCE_COUNT; i++)
                if (strcmp(resource_name((enum resource)i), key + 6) == 0)
                        return set_limit(o, (enum resource)i, value, origin);
        return complain(origin, "there is no key \"%s\"", key);
}

/* Of a file as a whole, or a directory. */
static int complain_of_file(struct options *o, const char *path, int error) {
        char line[4096 + 256];

        (void)snprintf(line, sizeof(line), "%s: %s", path, strerror(-error));
        put_line(&o->complaints, line);
        return error;
}

/* Nothing of that name, or in a place that can't be looked at, as another user's home is. A link that leads nowhere
 * is there. */
static bool is_absent(const char *path) {
        struct stat st;

        return lstat(path, &st) < 0 && (errno == ENOENT || errno == ENOTDIR || errno == EACCES);
}

/* All lines are read, so that all that is wrong is told at once. */
static int read_lines(struct options *o, FILE *file, const char *path) {
        struct origin origin = { .file = path, .complaints = &o->complaints };
        char *line _cleanup_(freep) = NULL;
        size_t capacity = 0;
        int result = 0;
        ssize_t n;

        while ((n = getline(&line, &capacity, file)) >= 0) {
                int r;

                origin.line++;
                r = memchr(line, 0, (size_t)n) ? complain(origin, "a NUL byte in the line") : set_line(o, line, origin);
                if (r < 0 && r != -EINVAL)
                        return complain_of_file(o, path, r);
                result = MIN(result, r);
        }
        return feof(file) ? result : complain_of_file(o, path, -errno);
}

static int read_file(struct options *o, const char *path) {
        FILE *file = fopen(path, "re");
        int r;

        if (!file)
                return complain_of_file(o, path, -errno);
        r = read_lines(o, file, path);
        (void)fclose(file);
        return r;
}

/* One that need not exist. */
static int read_file_if_any(struct options *o, const char *path) {
        return is_absent(path) ? 0 : read_file(o, path);
}

/* A file that can't be read, before what is wrong in one. */
static int worse(int a, int b) {
        return a == 0 || (a == -EINVAL && b < 0) ? b : a;
}

static int is_drop_in(const struct dirent *entry) {
        size_t n = strlen(entry->d_name);

        return n > 5 && strcmp(entry->d_name + n - 5, ".conf") == 0;
}

static int read_drop_ins(struct options *o, const char *directory) {
        struct dirent **entries;
        char path[4096 + 256];
        int n, r = 0;

        if (is_absent(directory))
                return 0;
        n = scandir(directory, &entries, is_drop_in, alphasort);
        if (n < 0)
                return complain_of_file(o, directory, -errno);
        for (int i = 0; i < n; i++) {
                (void)snprintf(path, sizeof(path), "%s/%s", directory, entries[i]->d_name);
                r = worse(r, read_file_if_any(o, path));
                free(entries[i]);
        }
        free(entries);
        return r;
}

static int read_default_files(struct options *o) {
        const char *home = getenv("XDG_CONFIG_HOME");
        char path[2048], drop_ins[4096];
        int r;

        if (o->mode == MODE_SYSTEM)
                (void)snprintf(path, sizeof(path), "%s/kevd.conf", KEVD_SYSCONFDIR);
        else if (home && home[0] == '/')
                (void)snprintf(path, sizeof(path), "%s/kevd/kevd.conf", home);
        else if (getenv("HOME"))
                (void)snprintf(path, sizeof(path), "%s/.config/kevd/kevd.conf", getenv("HOME"));
        else
                return 0;
        r = read_file_if_any(o, path);
        (void)snprintf(drop_ins, sizeof(drop_ins), "%s.d", path);
        return worse(r, read_drop_ins(o, drop_ins));
}

static int read_configuration(struct options *o) {
        return o->config ? read_file(o, o->config) : read_default_files(o);
}

/* ---- command line ------------------------------------------------------------------------------- */

enum { OPTION_CONFIG = 1000, OPTION_CHECK_CONFIG, OPTION_BROKER, OPTION_SERVE_BROKER, OPTION_VERSION, OPTION_HELP, OPTION_LIMIT };

static const struct option long_options[] = {
        /* The first ones in the order of `keys`. */
        { "listen", required_argument, NULL, 0 },
        { "mode", required_argument, NULL, 1 },
        { "mux", required_argument, NULL, 2 },
        { "file-mechanism", required_argument, NULL, 3 },
        { "file-queue", required_argument, NULL, 4 },
        { "netdev-buffer", required_argument, NULL, 5 },
        { "process-buffer", required_argument, NULL, 6 },
        { "process-feed", required_argument, NULL, 7 },
        { "process-observers", required_argument, NULL, 8 },
        { "log-level", required_argument, NULL, 9 },
        { "limit-connections", required_argument, NULL, OPTION_LIMIT + RESOURCE_CONNECTIONS },
        { "limit-watches", required_argument, NULL, OPTION_LIMIT + RESOURCE_WATCHES },
        { "limit-watch-bytes", required_argument, NULL, OPTION_LIMIT + RESOURCE_WATCH_BYTES },
        { "limit-queue-bytes", required_argument, NULL, OPTION_LIMIT + RESOURCE_QUEUE_BYTES },
        { "limit-output-bytes", required_argument, NULL, OPTION_LIMIT + RESOURCE_OUTPUT_BYTES },
        { "limit-descriptors", required_argument, NULL, OPTION_LIMIT + RESOURCE_DESCRIPTORS },
        { "limit-timers", required_argument, NULL, OPTION_LIMIT + RESOURCE_TIMERS },
        { "limit-requests", required_argument, NULL, OPTION_LIMIT + RESOURCE_REQUESTS },
        { "config", required_argument, NULL, OPTION_CONFIG },
        { "check-config", no_argument, NULL, OPTION_CHECK_CONFIG },
        { "broker", required_argument, NULL, OPTION_BROKER },
        { "serve-broker", no_argument, NULL, OPTION_SERVE_BROKER },
        { "version", no_argument, NULL, OPTION_VERSION },
        { "help", no_argument, NULL, OPTION_HELP },
        { NULL, 0, NULL, 0 },
};

void options_print_help(void) {
        printf("kevd [OPTION...]\n\n"
               "Hands kernel events to every program that subscribes.\n\n"
               "  --listen=PATH              a socket to serve; can be given again\n"
               "  --mode=MODE                system, user, or private (one connection, on standard input)\n"
               "  --mux=NAME                 the multiplexer to run on:");
        for (unsigned i = 0; mux_backend_name_at(i); i++)
                printf(" %s", mux_backend_name_at(i));
        printf("\n"
               "  --file-mechanism=NAME      auto, fanotify (with privileges), or inotify\n"
               "  --file-queue=NAME          fanotify's queue of events: unlimited, or limited\n"
               "  --process-feed=NAME        auto, bpf, connector, or pidfd\n"
               "  --process-observers=GROUP  its members may see the processes of all users\n"
               "  --process-buffer=BYTES     the kernel's queue of what processes do\n"
               "  --netdev-buffer=BYTES      the same of network devices\n"
               "  --limit-RESOURCE=NUMBER    what a user may make the daemon hold:");
        for (int i = 0; i < RESOURCE_COUNT; i++)
                printf("%s %s", i % 5 == 0 ? "\n                            " : "", resource_name((enum resource)i));
        printf("\n"
               "  --config=FILE              read this file instead of the default ones\n"
               "  --check-config             read the configuration, say what is wrong, and end\n"
               "  --broker=PATH              the socket of a broker that runs already\n"
               "  --serve-broker             be that broker, for the socket that the service manager passes\n"
               "  --log-level=LEVEL          debug, info, notice, warning, err\n"
               "  --version                  print the version\n"
               "  --help                     print this\n\n"
               "See kevd(8).\n");
}

static int set_text(char **text, const char *value) {
        free(*text);
        *text = strdup(value);
        return *text ? 0 : -ENOMEM;
}

static int set_option(struct options *o, int option, const char *value) {
        switch (option) {
        case OPTION_CONFIG:
                return set_text(&o->config, value);
        case OPTION_CHECK_CONFIG:
                o->check_config = true;
                return 0;
        case OPTION_BROKER:
                return set_text(&o->broker, value);
        case OPTION_SERVE_BROKER:
                o->serve_broker = true;
                return 0;
        case OPTION_VERSION:
                o->version = true;
                return 0;
        case OPTION_HELP:
                o->help = true;
                return 0;
        default:
                if (option >= OPTION_LIMIT)
                        return set_limit(o, (enum resource)(option - OPTION_LIMIT), value, (struct origin){ .complaints = &o->complaints });
                if (option < 0 || (size_t)option >= ARRAY_SIZE(keys))
                        return -EINVAL; /* getopt has said why */
                return keys[option].set(o, value, (struct origin){ .complaints = &o->complaints });
        }
}

static int read_command_line(struct options *o, int argc, char **argv) {
        int option, r = 0;

        optind = 0;
        while (r == 0 && (option = getopt_long(argc, argv, "", long_options, NULL)) >= 0)
                r = set_option(o, option == '?' ? -1 : option, optarg);
        if (r == 0 && optind < argc) {
                char line[4096];

                (void)snprintf(line, sizeof(line), "unexpected argument \"%s\"", argv[optind]);
                put_line(&o->complaints, line);
                r = -EINVAL;
        }
        if (r == -EINVAL)
                put_line(&o->complaints, "Try 'kevd --help'.");
        return r;
}

int options_read(struct options *o, int argc, char **argv) {
        struct options first;
        int r;

        /* Once to learn which files to read, once more to go before them. */
        options_init(&first);
        r = read_command_line(&first, argc, argv);
        if (r < 0 || first.help || first.version || first.serve_broker) { /* which take no configuration */
                first.check_config = false;
                *o = first;
                return r;
        }
        o->mode = first.mode;
        o->check_config = first.check_config;
        o->config = take_pointer(&first.config);
        r = read_configuration(o);
        if (r == 0 && first.n_listen > 0) {
                for (size_t i = 0; i < o->n_listen; i++)
                        free(o->listen[i]);
                o->n_listen = 0;
        }
        options_free(&first);
        if (r == 0)
                r = read_command_line(o, argc, argv);
        if (o->log_level < 0) /* a private daemon shares its client's terminal */
                o->log_level = o->mode == MODE_PRIVATE ? LOG_WARNING : LOG_INFO;
        o->settings.keeps_feed = o->mode == MODE_SYSTEM;
        o->settings.acts_for_others = o->mode == MODE_SYSTEM || o->settings.file_mechanism == FILE_MECHANISM_FANOTIFY;
        return r;
}

void options_print_complaints(const struct options *o) {
        const char *line = o->complaints.data;

        for (size_t i = 0; i < o->complaints.size; i++)
                if (o->complaints.data[i] == '\n') {
                        (void)fprintf(stderr, "kevd: %.*s\n", (int)(o->complaints.data + i - line), line);
                        line = o->complaints.data + i + 1;
                }
}
