# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 240
"""Images that we amend are judged by the peer: its check finds nothing, the options are what was
asked for, disk and snapshots hold what they held, and it can write on."""
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from interop import (KiB, MiB, Mistake, checked, covering, img, info, io_commands, peer, qemu_io,
                     run_rows, same_files, same_output)

NAME = 'disk.qcow2'
PARAMS = {
    'cluster': [512, 4 * KiB, 64 * KiB], 'from': ['0.10', '1.1'], 'bits': [1, 8, 16, 64],
    'to': ['0.10', '1.1'], 'to_bits': [1, 16, 64], 'lazy': [False, True],
    'backing': ['', 'base.raw', './' * 200 + 'base.raw'], 'snapshots': [0, 2],
    'coded': [False, True], 'size': [None, 2 * MiB],
}
SIZE = MiB + 1536


def valid(row):
    """What version 2 and narrow refcounts can hold."""
    narrow = min(row['bits'], row['to_bits'])
    return (not (row['from'] == '0.10' and row['bits'] != 16) and
            not (row['to'] == '0.10' and (row['to_bits'] != 16 or row['lazy'])) and
            not (row['snapshots'] and (narrow < 4 or row['size'])) and
            not (row['coded'] and narrow < 16) and
            not (len(row['backing']) > 300 and row['cluster'] == 512))


def content(out, snapshot=None):
    peer('convert', '-O', 'raw', *(['-l', snapshot] if snapshot else []), NAME, out)


def make(row, rng):
    options = f'cluster_size={row["cluster"]},compat={row["from"]},refcount_bits={row["bits"]}'
    backing = []
    if row['backing']:
        peer('create', '-q', '-f', 'raw', 'base.raw', SIZE)
        qemu_io('base.raw', f'write -P 77 0 {SIZE // 512 * 512}', fmt='raw')
        backing = ['-F', 'raw', '-b', row['backing']]
    peer('create', '-q', '-f', 'qcow2', *backing, '-o', options, NAME, SIZE)
    qemu_io(NAME, *io_commands(SIZE, row['cluster'], rng, row['coded']))
    for i in range(row['snapshots']):
        peer('snapshot', '-c', f's{i}', NAME)
        qemu_io(NAME, *io_commands(SIZE, row['cluster'], rng))


def judge(row, names):
    checked(NAME)
    img('check', '-q', NAME)
    same_output('info', '--output=json', NAME)
    same_output('map', '--output=json', NAME)
    data = info(NAME)['format-specific']['data']
    if (data['compat'], data['refcount-bits'], data.get('lazy-refcounts', False)) != (
            row['to'], row['to_bits'], row['lazy']):
        raise Mistake(f'options: {data}')
    if info(NAME)['virtual-size'] != (row['size'] or SIZE):
        raise Mistake('another size')
    for name in names:
        content('out.raw', name)
        if name is None and row['size']:
            os.truncate('before.raw', row['size'])
        same_files('out.raw', f'{name or "before"}.raw')


def check_row(row, rng):
    make(row, rng)
    names = [None] + [f's{i}' for i in range(row['snapshots'])]
    for name in names:
        content(f'{name or "before"}.raw', name)
    options = f'compat={row["to"]},refcount_bits={row["to_bits"]}'
    if row['to'] == '1.1':
        options += f',lazy_refcounts={"on" if row["lazy"] else "off"}'
    if row['size']:
        options += f',size={row["size"]}'
    img('amend', '-o', options, NAME)
    judge(row, names)
    # What the amended structures say is good for writing on.
    qemu_io(NAME, *io_commands(SIZE, row['cluster'], rng))
    checked(NAME)


run_rows(covering(PARAMS, valid, seed=8), check_row)
