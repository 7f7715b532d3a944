# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs command lines with the peer and with our program under the peer's name, and compares what
they print, their exit codes, and what they leave behind.

    python3 parity.py TABLE [PATTERN]      one table, tests/cli/parity/TABLE.cases

A table consists of lines:

    # ...           a comment
    + command       prepares the directory in which the following cases run; a block of such lines
                    replaces the block before it. `qemu-img` and `qemu-io` are the peer's
    = name          a name for the next case; without one, its command line is its name
    $ arguments     a case: qemu-img with these arguments, as a shell reads them
    & arguments     one more command of the same case
    ? command       run after the case, with the peer; what it prints is compared too

Each case runs twice, in copies of one prepared directory. Of the files that come out different, mode
and size (raw) or what the peer says about them (info, check, map) are compared. Differences must be
listed, with our text and the reason, in tests/cli/peer-differences; and what is listed must occur: a
reason that became void fails.
"""
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from interop import DROP_IN, MiB, PEER, extents, peer_is_reference  # noqa: E402

TABLES = os.path.join(os.environ['TOP'], 'tests', 'cli', 'parity')
LISTED = os.path.join(os.environ['TOP'], 'tests', 'cli', 'peer-differences')
STREAMS = ('stdout', 'stderr', 'exit', 'files', 'after')


class Case:
    def __init__(self, setup):
        self.setup, self.name, self.commands, self.after = setup, None, [], []


def parse_table(path):
    cases, setup, case, name = [], [], None, None
    with open(path, encoding='utf-8') as f:
        for line in f.read().splitlines():
            mark, rest = line[:2], line[2:]
            if mark == '+ ':
                setup = setup + [rest] if case is None else [rest]
                case = None
            elif mark == '= ':
                name = rest
            elif mark == '$ ' or line == '$':
                case = Case(setup)
                case.commands.append(rest)
                case.name, name = name or rest or '(nothing)', None
                cases.append(case)
            elif mark == '& ':
                case.commands.append(rest)
            elif mark == '? ':
                case.after.append(rest)
            elif line and not line.startswith('#'):
                sys.exit(f'{path}: cannot read: {line}')
    names = [c.name for c in cases]
    for n in names:
        if names.count(n) > 1:
            sys.exit(f'{path}: two cases are named: {n}')
    return cases


def parse_differences(table):
    """{case: {stream: text}} of the table."""
    listed, case, stream = {}, None, None
    with open(LISTED, encoding='utf-8') as f:
        for line in f.read().splitlines():
            if line.startswith('= '):
                where, name = line[2:].split(': ', 1)
                case = listed.setdefault(name, {}) if where == table else {}
                stream = None
            elif line.startswith('| ') or line == '|':
                case[stream] += line[2:] + '\n'
            elif line.startswith('~ '):
                case[stream] += line[2:]
            elif line.split(':')[0] in STREAMS:
                stream = line.split(':')[0]
                case[stream] = ''
            elif line.startswith('why: '):
                case['why'] = line[5:]
            elif line and line[0] not in '# ':
                sys.exit(f'{LISTED}: cannot read: {line}')
    return listed


# ---- running ----

def shell(command, program, **extra):
    """Runs a shell command in which qemu-img is the given program."""
    path = os.path.dirname(program) + ':' + os.environ['PATH']
    env = dict(os.environ, PATH=path, LC_ALL='C', TZ='UTC', COLUMNS='80', **extra)
    return subprocess.run(['bash', '-c', command], cwd='work', env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, timeout=60)


def digest(path):
    """Of the bytes of a file; zeros count the same, stored or not."""
    result, fd = hashlib.sha256(), os.open(path, os.O_RDONLY)
    stored = {n for start, end in extents(fd) for n in range(start // MiB, -(-end // MiB))}
    for n in sorted(stored):
        data = os.pread(fd, MiB, n * MiB).rstrip(b'\0')
        result.update(b'%d %d ' % (n, len(data)) + data if data else b'')
    os.close(fd)
    return result.digest()


def snapshot_of(directory):
    """What is in a directory."""
    found = {}
    for base, _, files in os.walk(directory):
        for name in files:
            path = os.path.join(base, name)
            st = os.lstat(path)
            content = digest(path) if stat.S_ISREG(st.st_mode) else None
            found[os.path.relpath(path, directory)] = (st.st_mode, st.st_size, content)
    return found


def decoded(data):
    return data.decode('utf-8', 'backslashreplace')


def one_progress(text):
    """How often progress is shown depends on the time; that it ends at 100 % does not."""
    return re.sub(r'(?:    \(\d+\.\d\d/100%\)\r)*( {4}\(\d+\.\d\d/100%\))\r', r'\1(CR)\n', text)


def normalised(text):
    """Without times, and without the space that a file takes, which is the allocator's choice."""
    text = re.sub(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d', 'DATE', text)
    text = re.sub(r'("date-n?sec": )\d+', r'\1N', text)
    return re.sub(r'(disk size: |"actual-size": ).*', r'\1N', text)


def ask_peer(directory, *args):
    proc = subprocess.run([PEER, *args], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          check=False, text=True, cwd=directory)
    return proc.returncode, proc.stdout


def describe_map(directory, name):
    """Where data, zeros and nothing are. Not where they are in the file, nor what of it is a hole:
    that is the allocator's choice."""
    code, out = ask_peer(directory, 'map', '--output=json', '-U', name)
    text, last, end = f'map: exit {code}\n', None, 0
    for e in json.loads(out or '[]') if code == 0 else []:
        kind = f'depth {e["depth"]} ' + ('data' if e['data'] else 'zero' if e['present'] else 'none')
        if kind != last:
            text += f'{e["start"]} {kind}\n'
        last, end = kind, e['start'] + e['length']
    return f'{text}{end} end\n'


def describe(directory, name):
    """What the peer says about an image; of another file, its size."""
    path = os.path.join(directory, name)
    mode = os.lstat(path).st_mode
    text = f'{name}: {stat.filemode(mode)}\n'
    if not stat.S_ISREG(mode):
        return text
    with open(path, 'rb') as f:
        magic = f.read(4)
    if magic != b'QFI\xfb':
        return f'{text}{os.path.getsize(path)} bytes\n'
    code, out = ask_peer(directory, 'info', '--output=json', '-U', name)
    checked, _ = ask_peer(directory, 'check', '-q', '-U', name)
    return (f'{text}info: exit {code}\n{normalised(out)}check: exit {checked}\n'
            f'{describe_map(directory, name)}')


class Outcome:
    """What a case did with one of the programs; its directory is kept until the next case."""

    def __init__(self, case, program, keep):
        shutil.rmtree('work', ignore_errors=True)
        subprocess.run(['cp', '-a', 'pristine', 'work'], check=True)
        self.text, self.directory = dict.fromkeys(STREAMS, ''), keep
        before = snapshot_of('work')
        for command in case.commands:
            self.add(shell('qemu-img ' + command, program))
        for command in case.after:
            proc = shell(command, PEER)
            self.text['after'] += decoded(proc.stdout + proc.stderr)
        self.files = snapshot_of('work')
        self.changed = {n for n in set(before) | set(self.files)
                        if before.get(n) != self.files.get(n)}
        shutil.rmtree(keep, ignore_errors=True)
        os.rename('work', keep)

    def add(self, proc):
        self.text['stdout'] += one_progress(decoded(proc.stdout))
        self.text['stderr'] += decoded(proc.stderr)
        self.text['exit'] += f'{proc.returncode}\n'

    def describe(self, names):
        for name in sorted(names):
            self.text['files'] += (describe(self.directory, name) if name in self.files else
                                   f'{name}: not there\n')
        if names:
            for stream in ('stdout', 'stderr', 'after'):
                self.text[stream] = normalised(self.text[stream])
        return self.text


def run_case(case):
    """{stream: text} of the case run with the peer, and with our program."""
    theirs, we = Outcome(case, PEER, 'theirs'), Outcome(case, DROP_IN, 'ours')
    changed = {n for n in theirs.changed | we.changed if theirs.files.get(n) != we.files.get(n)}
    return theirs.describe(changed), we.describe(changed)


def prepare(setup, _done=[None]):  # noqa: remembers what is prepared
    if _done[0] == setup:
        return
    shutil.rmtree('pristine', ignore_errors=True)
    shutil.rmtree('work', ignore_errors=True)
    os.mkdir('work')
    for command in setup:
        proc = shell(command, PEER)
        if proc.returncode:
            sys.exit(f'cannot prepare: {command}\n{(proc.stdout + proc.stderr).decode()}')
    os.rename('work', 'pristine')
    _done[0] = setup


# ---- judging ----

def block(text):
    """In the form of the list of differences; a last line without its end has a mark of its own."""
    *lines, rest = text.split('\n')
    return ''.join(f'|{" " if line else ""}{line}\n' for line in lines) + (f'~ {rest}\n' if rest else '')


def report(table, case, theirs, we):
    """A case that differs, in the form in which it could be listed."""
    text = f'= {table}: {case.name}\n'
    for stream in STREAMS:
        if theirs[stream] != we[stream]:
            text += f'{stream}:\n{block(we[stream])}'
            text += '# the peer:\n' + re.sub('^', '#', block(theirs[stream]), flags=re.M)[:3000] + '\n'
    return text


def judge(table, case, theirs, we, listed):
    """Text of what is wrong, or ''."""
    differing = {s: we[s] for s in STREAMS if theirs[s] != we[s]}
    allowed = {s: t for s, t in listed.items() if s != 'why'}
    if differing == allowed and (not listed or listed.get('why')):
        return ''
    if not differing:
        return f'= {table}: {case.name}\nis listed in peer-differences, but does not differ\n'
    return report(table, case, theirs, we)


def main():
    peer_is_reference()
    table, only = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ''
    listed = parse_differences(table)
    cases = parse_table(os.path.join(TABLES, table + '.cases'))
    bad = ''
    for name in set(listed) - {c.name for c in cases}:
        bad += f'= {table}: {name}\nis listed in peer-differences, but is no case\n'
    for case in cases:
        if only not in case.name:
            continue
        prepare(case.setup)
        bad += judge(table, case, *run_case(case), listed.get(case.name, {}))
    print(bad, end='')
    sys.exit(1 if bad else 0)


main()
