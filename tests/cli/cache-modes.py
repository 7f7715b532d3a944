# SPDX-License-Identifier: GPL-2.0-or-later
# variants: release
"""Cache modes do what they say, as the kernel sees it: O_DIRECT, and when data is flushed."""
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from syscalls import OPENS, need_strace, watch

IMG = os.environ['IMG']
WRITES = ('write', 'pwrite64', 'pwritev', 'pwritev2')
FLUSHES = ('fsync', 'fdatasync', 'sync_file_range', 'syncfs')
DIRECT = {'none', 'off', 'directsync'}
SYNC = {'writethrough', 'directsync'}
MODES = ('writeback', 'none', 'off', 'writethrough', 'directsync', 'unsafe')


def fail(text):
    print(text)
    sys.exit(1)


def run(argv, name):
    """(whether the file was opened with O_DIRECT, whether a flush follows each data write, flushes)"""
    code, out, calls = watch([IMG, *argv], OPENS + WRITES + FLUSHES)
    if code:
        fail(f'img {" ".join(argv)}: exit {code}: {out}')
    opens = [c for c in calls if c.name in OPENS and c.path() == name]
    fd = str(opens[-1].result) if opens else 'none'
    mine = [c for c in calls if c.name not in OPENS and c.args.split(',')[0].split(')')[0] == fd]
    pairs = zip(mine, mine[1:] + [None])
    each = all(b and b.name in FLUSHES for a, b in pairs if a.name in WRITES)
    return any('O_DIRECT' in c.args for c in opens), each, sum(c.name in FLUSHES for c in mine)


def has_direct():
    try:
        os.close(os.open('source.raw', os.O_RDONLY | os.O_DIRECT))
        return True
    except OSError:
        return False


def target(mode, argv):
    with open('target.raw', 'wb') as f:
        f.truncate(4 << 20)
    direct, each, flushes = run(['convert', '-m', '1', '-n', *argv], 'target.raw')
    if direct != (mode in DIRECT):
        fail(f'{argv}: O_DIRECT: {direct}')
    if mode in SYNC and not each:
        fail(f'{argv}: a write without a flush behind it')
    if (mode == 'unsafe') != (flushes == 0):
        fail(f'{argv}: {flushes} flushes')
    if mode not in SYNC and each and flushes:
        fail(f'{argv}: a flush behind each write')


def main():
    need_strace()
    with open('source.raw', 'wb') as f:
        f.write(os.urandom(4 << 20))
    modes = [m for m in MODES if m not in DIRECT or has_direct()]
    for mode in modes:
        target(mode, ['-t', mode, '-f', 'raw', 'source.raw', 'target.raw'])
        direct, _, _ = run(['convert', '-T', mode, '-f', 'raw', '--force', 'source.raw', 'new.raw'],
                           'source.raw')
        if direct != (mode in DIRECT):
            fail(f'-T {mode}: O_DIRECT: {direct}')
        for command in (['info', '-t'], ['check', '-T'], ['checksum', '-T']):
            if command[0] != 'check' and run([*command, mode, '-f', 'raw', 'source.raw'],
                                             'source.raw')[0] != (mode in DIRECT):
                fail(f'{command} {mode}')
    described = 'driver=raw,file.filename=target.raw'
    for mode, options in (('unsafe', 'cache.no-flush=on'), ('writeback', 'cache.no-flush=off'),
                          ('none', 'cache.direct=on,cache.no-flush=off')):
        if mode in modes:
            target(mode, ['--target-image-opts', '-f', 'raw', 'source.raw', f'{described},{options}'])


main()
