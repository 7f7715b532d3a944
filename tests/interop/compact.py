# SPDX-License-Identifier: GPL-2.0-or-later
"""compact on images that the peer made and filled, with holes, snapshots and compressed clusters: the
peer finds no fault and the same disks, the file is as small as it can be, and a second run has nothing
left to do.

variants: asan
"""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
from interop import *  # noqa: E402,F403

NAME = 'disk.qcow2'
PARAMS = {
    'cluster': [512, 4096, 65536],
    'compat': ['0.10', '1.1'],
    'refcount': [8, 16, 64],
    'coded': [False, True],
    'snapshots': [0, 1, 3],
    'lazy': [False, True],
    'bitmaps': [0, 2],
}


def valid(row):
    return row['compat'] == '1.1' or (row['refcount'] == 16 and not row['lazy'] and not row['bitmaps'])


def noise(path, size, rng):
    """Bytes that compress a little, with holes."""
    with open(path, 'wb') as f:
        f.truncate(size)
        for _ in range(6):
            f.seek(rng.randrange(size // 4096) * 4096)
            n = min(size - f.tell(), rng.randrange(1, size // 6))
            f.write(bytes(b & 15 for b in rng.randbytes(n)))


def change(row, size, rng):
    """Writes and discards, in whole clusters."""
    cluster, commands = row['cluster'], []
    for _ in range(rng.randrange(3, 9)):
        off = rng.randrange(size // cluster) * cluster
        length = min(size - off, cluster * rng.randrange(1, 40))
        commands.append(f'discard {off} {length}' if rng.random() < .5 else
                        f'write -P {rng.randrange(1, 256)} {off} {length}')
    qemu_io(NAME, *commands, options=('-d', 'unmap'))


def make(row, size, rng):
    noise('source.raw', size, rng)
    peer('convert', *(['-c'] if row['coded'] else []), '-O', 'qcow2', '-o',
         f"cluster_size={row['cluster']},compat={row['compat']},refcount_bits={row['refcount']}" +
         (',lazy_refcounts=on' if row['lazy'] else ''), 'source.raw', NAME)
    names = []
    for i in range(row['snapshots']):
        change(row, size, rng)
        peer('snapshot', '-c', f's{i}', NAME)
        names.append(f's{i}')
    for i in range(row['bitmaps']):  # what is written from now on sets their bits
        peer('bitmap', '--add', '-g', 512 << i, NAME, f'b{i}')
    change(row, size, rng)
    if len(names) > 1:
        peer('snapshot', '-d', names.pop(rng.randrange(len(names))), NAME)
    return names


def contents(names, suffix):
    peer('convert', '-O', 'raw', NAME, f'now.{suffix}')
    for s in names:
        peer('convert', '-l', f'snapshot.name={s}', '-O', 'raw', NAME, f'{s}.{suffix}')


def check_row(row, rng):
    size = row['cluster'] * rng.randrange(150, 700)
    names = make(row, size, rng)
    checked(NAME)
    bits = bitmaps(NAME)
    contents(names, 'before')
    first = json.loads(img('compact', '--output=json', NAME).out)
    checked(NAME)
    contents(names, 'after')
    if bitmaps(NAME) != bits or len(bits) != row['bitmaps']:
        raise Mistake(f'bitmaps {bitmaps(NAME)}, before {bits}')
    same_output('info', '--output=json', NAME)
    for s in ['now', *names]:
        same_files(f'{s}.before', f'{s}.after')
    if first['left'] or first['size-after'] != os.stat(NAME).st_size or \
            first['size-after'] > first['size-before']:
        raise Mistake(str(first))
    second = json.loads(img('compact', '--output=json', NAME).out)
    if second['moved'] or second['size-after'] != first['size-after']:
        raise Mistake(f'{first}, then {second}')


peer_is_reference()
run_rows(covering(PARAMS, valid, seed=7), check_row)
