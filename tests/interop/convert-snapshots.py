# SPDX-License-Identifier: GPL-2.0-or-later
"""convert --snapshots: every snapshot of what the peer made is in the target, in the same order, with
all that the table says, the same disk and the same state of a machine; what was shared is; the peer
finds no fault, goes back to each of them, and goes on writing.

variants: asan
"""
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from interop import (KiB, MiB, Mistake, checked, covering, img, io_commands, peer, qemu_io, run,
                     run_rows, same_files)
from snapshots import said, state, table, take_running

NAME, OUT = 'disk.qcow2', 'out.qcow2'
SIZE = MiB + 1536
PARAMS = {
    'from': [512, 4 * KiB, 64 * KiB],
    'to': ['cluster_size=512,refcount_bits=64', 'cluster_size=4k,compression_type=zstd',
           'cluster_size=64k,lazy_refcounts=on', 'compat=0.10', 'extended_l2=on,cluster_size=32k'],
    'old': [False, True], 'extended': [False, True], 'coded': [False, True],
    'compress': [False, True], 'backing': ['none', 'raw', 'qcow2'],
    'states': [(), (777,), (70000, 300000)], 'size': ['same', 'grows', 'shrinks', 'both'],
    'how': ['new', 'existing', 'pipe', 'bitmaps'],
}


def valid(row):
    v2 = 'compat=0.10' in row['to']
    return not (
        (row['old'] and (row['extended'] or row['size'] != 'same' or len(row['states']) > 1 or
                         row['how'] == 'bitmaps')) or
        # It cannot make a larger disk of these.
        (row['old'] and row['states'] and row['backing'] != 'none') or
        (row['extended'] and row['from'] < 16 * KiB) or
        (v2 and (row['size'] != 'same' or row['how'] == 'bitmaps')) or
        (row['compress'] and row['how'] == 'existing'))


def write(row, rng):
    qemu_io(NAME, *io_commands(MiB // 2, row['from'], rng))


def make(row, rng):
    options = (f'cluster_size={row["from"]},compat={"0.10" if row["old"] else "1.1"},'
               f'extended_l2={"on" if row["extended"] else "off"}')
    below = []
    if row['backing'] != 'none':
        peer('create', '-f', row['backing'], 'base', 3 * MiB)
        qemu_io('base', *io_commands(3 * MiB, 4 * KiB, rng), fmt=row['backing'])
        below = ['-b', 'base', '-F', row['backing']]
    peer('create', '-f', 'qcow2', '-o', options, *below, NAME, SIZE)
    qemu_io(NAME, *io_commands(SIZE, row['from'], rng, row['coded']))
    for i, length in enumerate(row['states']):
        take_running(NAME, f'running {i}', length, seed=i + 5)
        write(row, rng)
        peer('snapshot', '-c', f's{i}', NAME)
    if row['size'] in ('grows', 'both'):
        peer('resize', NAME, SIZE + MiB + 512)
        qemu_io(NAME, *io_commands(SIZE + MiB, row['from'], rng))
    peer('snapshot', '-c', 'other size', NAME)
    if row['size'] in ('shrinks', 'both'):
        peer('resize', '--shrink', NAME, SIZE - 300 * 1024)
        peer('snapshot', '-c', 'smaller', NAME)
        peer('resize', NAME, SIZE)
        peer('snapshot', '-c', 'and back', NAME)
    write(row, rng)
    if row['how'] == 'bitmaps':
        peer('bitmap', '--add', NAME, 'changed')
        write(row, rng)


def convert(row):
    args = ['convert', '--snapshots', '-q', '-O', 'qcow2']
    args += ['-c'] if row['compress'] else []
    new = ['-o', row['to']]
    if row['how'] == 'existing':
        size = peer('info', NAME).out.split(b'virtual size:')[1].split(b'(')[1].split()[0].decode()
        peer('create', '-f', 'qcow2', *new, OUT, size)
        qemu_io(OUT, 'write -P 0x99 0 1M')
        return img(*args, '-n', NAME, OUT)
    if row['how'] == 'pipe':
        return run('sh', '-c', f'"$IMG" {" ".join(args + new)} {NAME} - | cat > {OUT}')
    return img(*args, *new, *(['--bitmaps'] if row['how'] == 'bitmaps' else []), NAME, OUT)


def judge(row):
    checked(OUT)
    img('check', '-q', OUT)
    if said(NAME) != said(OUT):
        raise Mistake(f'the tables differ\n{said(NAME)}\n{said(OUT)}')
    if peer('snapshot', '-l', NAME).out != peer('snapshot', '-l', OUT).out:
        raise Mistake('the lists differ')
    peer('compare', NAME, OUT)
    for a, b in zip(table(NAME), table(OUT)):
        for path, raw in ((NAME, 'a.raw'), (OUT, 'b.raw')):
            peer('convert', '-l', f'snapshot.id={a["id"]}', '-O', 'raw', path, raw)
            # It shows as much as the disk has now, and may show the state.
            os.truncate(raw, min(a['size'], os.path.getsize(raw)))
        same_files('a.raw', 'b.raw')
        if a['size'] != SIZE:
            for path, raw in ((NAME, 'a.raw'), (OUT, 'b.raw')):
                img('convert', '--force', '-l', f'snapshot.id={a["id"]}', path, raw)
            same_files('a.raw', 'b.raw')
        if state(NAME, a) != state(OUT, b):
            raise Mistake(f'the state in {a["name"]} is not the same')
        if a['state'] and not state(NAME, a).strip(b'\0'):
            raise Mistake('no state to begin with')
    if row['how'] == 'bitmaps' and 'changed' not in peer('info', OUT).out.decode():
        raise Mistake('the bitmap is lost')


def check_row(row, rng):
    make(row, rng)
    convert(row)
    judge(row)
    # Which may be in parts of clusters, where one of the two has smaller ones.
    same = row['to'].startswith(f'cluster_size={row["from"] // KiB}k') and row['backing'] == 'none'
    if same and not row['coded'] and row['how'] in ('new', 'pipe', 'bitmaps'):
        # What was shared is shared: nothing but tables may be more.
        if os.path.getsize(OUT) > os.path.getsize(NAME) + 8 * row['from']:
            raise Mistake(f'{os.path.getsize(OUT)} bytes of {os.path.getsize(NAME)}')
    if row['how'] == 'bitmaps':  # with them nobody may go back
        peer('bitmap', '--remove', OUT, 'changed')
    for s in table(OUT)[::-1]:
        peer('snapshot', '-a', s['id'], OUT)
    checked(OUT)
    qemu_io(OUT, *io_commands(MiB // 2, row['from'], rng))
    checked(OUT)
    for s in table(OUT):
        img('snapshot', '-d', s['id'], OUT)
    checked(OUT)


run_rows(covering(PARAMS, valid, seed=9), check_row)
