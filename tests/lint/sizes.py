#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Lists functions above 60 lines and files above 700, and fails above 100 and 900.

Functions are found by their braces in the first column, which lint/format guarantees."""
import glob
import os
import re
import sys

TOP = os.environ['TOP']
FUNCTION, FUNCTION_MAX = 60, 100
FILE, FILE_MAX = 700, 900


def functions(lines):
    """(name, length of the body) of each function."""
    start = name = None
    for n, line in enumerate(lines):
        if line.startswith('{'):
            start = n
        elif line.startswith('}') and start is not None:
            yield name, n - start - 1
            start = None
        elif start is None:
            m = re.match(r'^\w.*?(\w+)\(', line)
            if m and not line.startswith('#'):
                name = m.group(1)


def main():
    worst = False
    for path in sorted(glob.glob(os.path.join(TOP, '**', '*.[ch]'), recursive=True)):
        name = os.path.relpath(path, TOP)
        if name.startswith('build/'):
            continue
        with open(path, encoding='utf-8') as f:
            lines = f.read().splitlines()
        if len(lines) > FILE:
            print(f'{name}: {len(lines)} lines')
            worst |= len(lines) > FILE_MAX
        for function, length in functions(lines):
            if length > FUNCTION:
                print(f'{name}: {function}: {length} lines')
                worst |= length > FUNCTION_MAX
    return worst


sys.exit(main())
