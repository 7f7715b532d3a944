# SPDX-License-Identifier: GPL-2.0-or-later
"""Which files a command opens, and how: seen from outside, with strace."""
import os
import re
import shutil
import subprocess
import sys

CALL = re.compile(r'^(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)')
OPENS = ('open', 'openat', 'openat2', 'creat')


class Call:
    def __init__(self, name, args, result):
        self.name, self.args, self.result = name, args, result

    def path(self):
        m = re.search(r'"((?:[^"\\]|\\.)*)"', self.args)
        return m.group(1) if m else ''


def need_strace():
    """Ends the test as skipped where processes cannot be watched."""
    if not shutil.which('strace'):
        print('no strace')
        sys.exit(77)
    if subprocess.run(['strace', '-qq', '-o', '/dev/null', 'true'], stderr=subprocess.DEVNULL,
                      check=False).returncode:
        print('strace may not trace')
        sys.exit(77)


def watch(argv, calls):
    """Runs a command; (exit code, what it printed, the calls of these names)."""
    names = ','.join('?' + c for c in calls)
    proc = subprocess.run(['strace', '-f', '-qq', '-s', '4096', '-e', 'signal=none', '-e',
                           'trace=' + names, '-o', 'strace.log', *argv],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False, text=True, errors='replace')
    with open('strace.log', encoding='utf-8', errors='replace') as f:
        text = f.read()
    os.unlink('strace.log')
    # A call that another thread interrupts is told in two parts.
    text = re.sub(r'^(\d+ .*) <unfinished \.\.\.>\n', r'\1\n', text, flags=re.M)
    found = []
    for line in text.splitlines():
        m = CALL.match(line)
        if m:
            found.append(Call(m.group(1), m.group(2), int(m.group(3))))
        else:
            m = re.match(r'^(?:\d+ +)?(?:<\.\.\. )?(\w+)(?: resumed>)?[( ](.*)', line)
            if m:
                found.append(Call(m.group(1), m.group(2), 0))
    return proc.returncode, proc.stdout, found


def opened(argv):
    """(exit code, what it printed, paths that it tried to open)."""
    code, out, calls = watch(argv, OPENS)
    return code, out, [c.path() for c in calls if c.name in OPENS]
