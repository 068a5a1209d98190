/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

struct json_object;
struct text;

/* The reply of GetStatistics as OpenMetrics text, the same in the same order each time. */
void metrics_put(struct text *out, struct json_object *statistics);
