/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * desktop DIRECTORY: what a file manager or a photo library does behind its
 * windows. It keeps a view of a directory up to date. It shows kevd in a GLib
 * main loop.
 *
 * Two things that a program with a window cares about. Changes come in bursts (a
 * checkout, an import), and the view is drawn once for each burst, not once for
 * each event: REDRAW_MSEC after the first. And the daemon may be restarted under
 * the program: then it connects again, and reads the directory anew.
 */

#include <errno.h>
#include <glib-unix.h>
#include <kev.h>

enum { REDRAW_MSEC = 100, RECONNECT_MSEC = 1000 };

struct view {
        const char *directory;
        struct kev *kev;
        GHashTable *changed; /* paths to be looked at when the view is drawn */
        gboolean all;        /* everything is to be looked at */
        guint redraw;        /* the timeout's source, or 0 */
};

static gboolean on_redraw(gpointer userdata) {
        struct view *v = userdata;
        GHashTableIter i;
        gpointer path;

        v->redraw = 0;
        if (v->all)
                g_print("redraw: read %s again\n", v->directory);
        else
                g_print("redraw: %u changed\n", g_hash_table_size(v->changed));
        g_hash_table_iter_init(&i, v->changed);
        while (!v->all && g_hash_table_iter_next(&i, &path, NULL)) {
                g_autofree char *text = g_filename_display_name(path); /* names need not be UTF-8 */

                g_print("  %s\n", text);
        }
        g_hash_table_remove_all(v->changed);
        v->all = FALSE;
        return G_SOURCE_REMOVE;
}

static void redraw_soon(struct view *v) {
        if (v->redraw == 0)
                v->redraw = g_timeout_add(REDRAW_MSEC, on_redraw, v);
}

static void on_event(struct kev *kev G_GNUC_UNUSED, const struct kev_event *event, void *userdata) {
        struct view *v = userdata;
        const char *path = kev_event_path(event), *from = kev_event_from_path(event);

        /* `rescan`: too much happened for each change to be told. A view need not
         * know what: it looks again. */
        if (kev_event_notes(event) & (KEV_NOTE_RESCAN | KEV_NOTE_DEGRADED | KEV_NOTE_GONE))
                v->all = TRUE;
        /* The event's strings end with this function. */
        g_hash_table_add(v->changed, g_strdup(path));
        if (from)
                g_hash_table_add(v->changed, g_strdup(from));
        redraw_soon(v);
}

static int watch_directory(struct view *v) {
        struct kev_watch *watch = NULL;
        int r = kev_watch_new(KEV_FILTER_TREE, &watch);

        if (r == 0)
                r = kev_watch_set_path(watch, v->directory);
        if (r == 0)
                r = kev_watch_set_depth(watch, 1); /* what is shown, and nothing below it */
        if (r == 0)
                r = kev_add(v->kev, watch, on_event, v, NULL);
        kev_watch_free(watch);
        return r;
}

static gboolean on_reconnect(gpointer userdata);

static gboolean on_readable(gint fd G_GNUC_UNUSED, GIOCondition condition G_GNUC_UNUSED, gpointer userdata) {
        struct view *v = userdata;
        int r = kev_dispatch(v->kev, 0); /* 0: the main loop does the waiting */

        if (r >= 0 || r == -EINTR)
                return G_SOURCE_CONTINUE;
        g_printerr("%s\n", kev_error_message(v->kev));
        v->kev = kev_close(v->kev);
        (void)g_timeout_add(RECONNECT_MSEC, on_reconnect, v);
        return G_SOURCE_REMOVE;
}

static int view_connect(struct view *v) {
        int r = kev_open(NULL, &v->kev); /* the system's, the user's or, where none runs, one of the program's own */

        if (r < 0) {
                g_printerr("%s\n", kev_error_message(NULL));
                return r;
        }
        r = watch_directory(v);
        if (r < 0) {
                g_printerr("%s: %s\n", v->directory, kev_error_message(v->kev));
                v->kev = kev_close(v->kev);
                return r;
        }
        (void)g_unix_fd_add(kev_get_fd(v->kev), G_IO_IN, on_readable, v);
        /* Watch first, read after: what changes in between is seen twice, not never. */
        v->all = TRUE;
        redraw_soon(v);
        return 0;
}

static gboolean on_reconnect(gpointer userdata) {
        return view_connect(userdata) < 0 ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

int main(int argc, char **argv) {
        struct view v = { 0 };
        g_autoptr(GMainLoop) loop = g_main_loop_new(NULL, FALSE);

        if (argc != 2) {
                g_printerr("usage: %s DIRECTORY\n", argv[0]);
                return 2;
        }
        v.directory = argv[1];
        v.changed = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
        if (view_connect(&v) < 0)
                return 1;
        g_main_loop_run(loop);
        return 0;
}
