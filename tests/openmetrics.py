#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads metrics from standard input with others' parsers: that of OpenMetrics, and that of the older text format,
which node_exporter's textfile collector takes. Ends with 77 where these are not installed."""

import sys

try:
    from prometheus_client import parser
    from prometheus_client.openmetrics import parser as openmetrics
except ImportError:
    sys.exit(77)

text = sys.stdin.read()
samples = {
    (s.name, tuple(sorted(s.labels.items()))): s.value
    for f in openmetrics.text_string_to_metric_families(text)
    for s in f.samples
}
older = {
    (s.name, tuple(sorted(s.labels.items()))): s.value
    for f in parser.text_string_to_metric_families(text)
    for s in f.samples
}
if not samples or samples != older:
    sys.exit("the formats differ")
