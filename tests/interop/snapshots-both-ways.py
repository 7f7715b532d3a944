# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots that one program takes are applied and deleted by the other, in every order, state of a
machine included; the lists are the same and what is on the disk is what was there."""
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from interop import (KiB, MiB, Mistake, checked, covering, img, io_commands, ours, peer,
                     peer_is_reference, qemu_io, run_rows, same_files, same_output)
from peer_images import add_vm_state, covered_by_table, patch, read_at, vm_state_offset

NAME = 'disk.qcow2'
WHO = {'we': img, 'peer': peer}
PARAMS = {
    'take1': ['we', 'peer'], 'take2': ['we', 'peer'], 'apply': ['we', 'peer'], 'delete': ['we', 'peer'],
    'cluster': [512, 4 * KiB, 64 * KiB], 'compat': ['0.10', '1.1'], 'refcount': [2, 8, 16],
    'state': [False, True], 'resized': [False, True], 'coded': [False, True],
}
SIZE = MiB + 1536


def valid(row):
    # To go back to a snapshot takes one more reference for a moment: no more than one of 2 bits.
    return ((row['compat'] == '1.1' or (row['refcount'] == 16 and not row['resized'])) and
            not (row['refcount'] == 2 and row['state']))


def peer_content(out, snapshot=None):
    peer('convert', '-O', 'raw', *(['-l', snapshot] if snapshot else []), NAME, out)


def state_of(name):
    """The bytes of a machine's state in a snapshot: applied to a copy, and read past the disk's end."""
    os.system(f'cp {NAME} copy.qcow2')
    peer('snapshot', '-a', name, 'copy.qcow2')
    size = int.from_bytes(read_at('copy.qcow2', 24, 8), 'big')
    cluster = 1 << int.from_bytes(read_at('copy.qcow2', 20, 4), 'big')
    at = vm_state_offset(size, covered_by_table({'cluster': cluster}))
    patch('copy.qcow2', 24, (at + 64 * KiB).to_bytes(8, 'big'))
    # The L1 table has the entries; only the disk's size hides them.
    peer('convert', '-O', 'raw', 'copy.qcow2', 'state.raw')
    with open('state.raw', 'rb') as f:
        f.seek(at)
        return f.read().rstrip(b'\0')


def judge():
    checked(NAME)
    img('check', '-q', NAME)
    same_output('snapshot', '-l', NAME)
    same_output('info', '--output=json', NAME)
    same_output('map', '--output=json', NAME)


def check_row(row, rng):
    peer('create', '-q', '-f', 'qcow2', '-o', f'cluster_size={row["cluster"]},compat={row["compat"]},'
         f'refcount_bits={row["refcount"]}', NAME, SIZE)
    qemu_io(NAME, *io_commands(SIZE, row['cluster'], rng, row['coded']))
    if row['state']:
        add_vm_state(NAME, row, SIZE)
        before = state_of('running')
        if not before:
            raise Mistake('no state to begin with')
    truth = {}
    for i in (1, 2) if row['refcount'] > 2 else (1,):
        WHO[row[f'take{i}']]('snapshot', '-c', f'snap{i}', NAME)
        judge()
        peer_content(f'snap{i}.raw')
        truth[f'snap{i}'] = f'snap{i}.raw'
        if i == 1 and row['resized']:
            img('resize', '-q', NAME, SIZE + 3 * MiB)
        qemu_io(NAME, *io_commands(SIZE, row['cluster'], rng))
        judge()
    for name, raw in truth.items():
        ours('convert', '-O', 'raw', '-l', name, NAME, 'out.raw')
        same_files('out.raw', raw)
    if row['state'] and state_of('running') != before:
        raise Mistake('the state of the machine has changed')
    for name, raw in truth.items():
        WHO[row['apply']]('snapshot', '-a', name, NAME)
        judge()
        peer_content('out.raw')
        same_files('out.raw', raw)
    for name in list(truth) + (['running'] if row['state'] else []):
        WHO[row['delete']]('snapshot', '-d', name, NAME)
        judge()
    peer_content('out.raw')
    same_files('out.raw', raw)


peer_is_reference()
run_rows(covering(PARAMS, valid, seed=4), check_row)
