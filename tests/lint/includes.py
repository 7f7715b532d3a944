#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Includes go downwards only: the table says which folder may include from which others.

Drivers (folders and files of lib/formats) never include each other, though the list of all of them,
formats.c, includes them all; the test doubles are for tests
only, and tools never reach past the library through the public API or into a driver."""
import glob
import os
import re
import sys

TOP = os.environ['TOP']

# A folder may include its own headers and those of the folders that stand here.
BASE = ['lib/base']
IO = BASE + ['lib/io']
IMAGE = IO + ['lib/image']
OPS = IMAGE + ['lib/crypto', 'lib/ops']
ALLOWED = {
    'include': [],
    'vmm': IO + ['vmm'],
    # The agent runs elsewhere: it shares the base and the protocol.
    'lib/appliance/agent': BASE + ['lib/appliance'],
    'lib/appliance': IMAGE + ['vmm'],
    'lib/base': BASE,
    'lib/io': IO,
    'lib/image': IMAGE,
    'lib/crypto': IMAGE,
    'lib/formats': IMAGE + ['lib/crypto'],
    'lib/ops': OPS,
    'lib/api': OPS + ['include'],
    'nbd-server': OPS + ['nbd-server'],
    'tools': OPS + ['include', 'lib/appliance', 'vmm', 'nbd-server'],
}


def folder(path):
    """The key of ALLOWED that a file belongs to; None for tests and the like."""
    return next((k for k in ALLOWED if path.startswith(k + '/')), None)


def driver(path):
    """qcow2 for lib/formats/qcow2/map.c, raw for lib/formats/raw.c and raw_build.c."""
    m = re.match(r'lib/formats/([^/._]+)', path)
    return m and m.group(1)


def resolve(source, name):
    """The file of the tree that an #include "name" means; None: not ours."""
    for root in (os.path.dirname(source), 'lib', 'include', 'tools', ''):
        path = os.path.normpath(os.path.join(root, name))
        if os.path.exists(os.path.join(TOP, path)):
            return path
    return None


def complaint(source, target):
    """Why source may not include target, or None."""
    here, there = folder(source), folder(target)
    if target == 'lib/io/doubles.h' and not source.startswith('lib/io/doubles'):
        return 'test doubles are for tests'
    if here == 'lib/formats' and there == 'lib/formats':
        return None if driver(source) in ('formats', driver(target)) else 'drivers do not know each other'
    if there != here and there not in ALLOWED[here]:
        return f'{here} may not include from {there or os.path.dirname(target)}'
    return None


def main():
    bad = 0
    for path in sorted(glob.glob(os.path.join(TOP, '**', '*.[ch]'), recursive=True)):
        source = os.path.relpath(path, TOP)
        if not folder(source):
            continue
        with open(path, encoding='utf-8') as f:
            text = f.read()
        for m in re.finditer(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', text, re.M):
            target = resolve(source, m.group(2))
            if not target:
                why = 'no such header' if m.group(1) == '"' else None
            else:
                why = complaint(source, target)
            if why:
                line = text.count('\n', 0, m.start()) + 1
                print(f'{source}:{line}: {m.group(2)}: {why}')
                bad = 1
    return bad


sys.exit(main())
