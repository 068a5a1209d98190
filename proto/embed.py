#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes a C file that holds text files as strings: embed.py OUTPUT NAME=FILE..."""

import sys


def literal(text):
    lines = text.splitlines(keepends=True)
    return "\n".join('        "%s"' % l.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for l in lines)


with open(sys.argv[1], "w") as out:
    out.write('#include "interfaces.h"\n')
    for argument in sys.argv[2:]:
        name, path = argument.split("=", 1)
        with open(path) as f:
            out.write("\nconst char %s[] =\n%s;\n" % (name, literal(f.read())))
