# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of a machine in a snapshot is the same, byte for byte, after everything that rewrites tables
around it; the table of snapshots says the same, and the peer finds no fault.

variants: asan
"""
import os
import shutil
import struct
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from interop import KiB, MiB, Mistake, checked, img, io_commands, peer, qemu_io, run_rows
from peer_images import patch, read_at
from snapshots import OFFSET, header, said, state, table, take_running

SIZE = MiB + 1536
NAME = 'disk.qcow2'


def leak():
    """A cluster that nothing refers to: the refcount of one behind the end is 1."""
    cluster = header(NAME)[0]
    end = os.path.getsize(NAME) // cluster + 2
    block = struct.unpack('>Q', read_at(NAME, struct.unpack('>Q', read_at(NAME, 48, 8))[0], 8))[0]
    patch(NAME, block + end * 2, b'\0\1')


def lose_refcounts():
    """All clusters of the L2 table that has the state seem to be free."""
    s = table(NAME)[0]
    cluster = header(NAME)[0]
    block = struct.unpack('>Q', read_at(NAME, struct.unpack('>Q', read_at(NAME, 48, 8))[0], 8))[0]
    for at in range(0, s['l1'][1] * 8, 8):
        l2 = struct.unpack('>Q', read_at(NAME, s['l1'][0] + at, 8))[0] & OFFSET
        if l2:
            patch(NAME, block + l2 // cluster * 2, b'\0\0')


def write():
    qemu_io(NAME, 'write -P 0x31 0 300k', 'write -z 64k 64k', 'discard 128k 128k')


def took_another():
    img('snapshot', '-c', 'another', NAME)
    write()


def went(name):
    return lambda: img('snapshot', '-a', name, NAME)


def deleted_others():
    for name in ('between', 'last'):
        img('snapshot', '-d', name, NAME)


def repaired_leak():
    leak()
    img('check', '-q', '-r', 'leaks', NAME)


def repaired_all():
    lose_refcounts()
    img('check', '-q', '-r', 'all', NAME)


def ran(*argv):
    return lambda: img(*argv)


def committed():
    """Into it; and from it, which leaves it as it is."""
    peer('create', '-f', 'qcow2', '-b', NAME, '-F', 'qcow2', 'over')
    qemu_io('over', 'write -P 0x77 100k 300k')
    img('commit', '-q', 'over')
    img('commit', '-q', '-d', NAME)


def rebased():
    peer('create', '-f', 'qcow2', 'new-base', SIZE)
    img('rebase', '-u', '-b', 'new-base', '-F', 'qcow2', NAME)


def refused(*argv):
    """Snapshots would change with what lies below."""
    return lambda: img(*argv, code=1)


CHANGES = {
    'write': write,
    'grow': ran('resize', '-q', NAME, '+3M'),
    'grow over the state': ran('resize', '-q', NAME, '+40M'),
    'shrink': ran('resize', '-q', '--shrink', NAME, '600k'),
    'take': took_another,
    'go back': went('between'),
    'go back to it': went('running'),
    'rebase': refused('rebase', '-b', '', NAME),
    'commit from it': refused('commit', NAME),
    'rebase -c': refused('rebase', '-c', '-b', '', NAME),
    'commit': committed,
    'rebase -u': rebased,
    'no backing file': ran('rebase', '-u', '-b', '', NAME),
    'wider refcounts': ran('amend', '-o', 'refcount_bits=64', NAME),
    'refcounts as before': ran('amend', '-o', 'refcount_bits=16', NAME),
    'lazy refcounts': ran('amend', '-o', 'lazy_refcounts=on', NAME),
    'repair leaks': repaired_leak,
    'repair': repaired_all,
    'sparsify': ran('sparsify', '--zero-scan', NAME),
    'dedup': ran('dedup', NAME),
    'dedup inside': ran('dedup', '--within-disk', NAME),
    'compact': ran('compact', '-q', NAME),
    'delete others': deleted_others,
}


def make(cluster, coded, rng):
    peer('create', '-f', 'qcow2', 'base', SIZE)
    qemu_io('base', *io_commands(SIZE, 4 * KiB, rng))
    peer('create', '-f', 'qcow2', '-o', f'cluster_size={cluster}', '-b', 'base', '-F', 'qcow2', NAME)
    qemu_io(NAME, *io_commands(SIZE, cluster, rng, coded))
    take_running(NAME, 'running', 3 * cluster + 77, seed=3)
    qemu_io(NAME, *io_commands(SIZE, cluster, rng))
    peer('snapshot', '-c', 'between', NAME)
    take_running(NAME, 'running too', 70001, seed=200)
    qemu_io(NAME, *io_commands(SIZE, cluster, rng))
    peer('snapshot', '-c', 'last', NAME)


def running():
    return [(s, state(NAME, t)) for s, t in zip(said(NAME), table(NAME)) if s['state']]


def check_row(row, rng):
    make(row['cluster'], row['coded'], rng)
    checked(NAME)
    before = running()
    if [len(data) for _, data in before] != [3 * row['cluster'] + 77, 70001]:
        raise Mistake('no states to begin with')
    shutil.copy(NAME, 'first')
    for name, change in CHANGES.items():
        # Each on the image as it was made, or one after the other.
        if not row['in turn']:
            shutil.copy('first', NAME)
        try:
            change()
            checked(NAME)
            if running() != before:
                raise Mistake('the state of the machine, or what the table says of it, has changed')
        except Mistake as e:
            raise Mistake(f'{name}: {e}') from e


run_rows([{'cluster': c, 'coded': coded, 'in turn': in_turn}
          for c, coded, in_turn in ((4 * KiB, True, False), (512, False, True),
                                    (64 * KiB, True, True))], check_row)
