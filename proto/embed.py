#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes a C file that holds text files as strings: embed.py OUTPUT NAME=FILE...

The strings are arrays of characters, since a string literal of more than 4095 is not for every compiler.
"""

import sys


def characters(line):
    return " ".join("'\\x%02x'," % byte for byte in line)


with open(sys.argv[1], "w") as out:
    out.write('#include "interfaces.h"\n')
    for argument in sys.argv[2:]:
        name, path = argument.split("=", 1)
        with open(path, "rb") as f:
            lines = "".join("        %s\n" % characters(line) for line in f)
        out.write("\nconst char %s[] = {\n%s        0,\n};\n" % (name, lines))
