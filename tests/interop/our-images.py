# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 400
# variants: asan
"""Whatever we make, the peer reads and finds in order: images created, written, resized and with
snapshots taken by us, one for each pair of features; written to by the peer in between."""
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from interop import (MiB, checked, covering, disk_size, img, ours, peer, peer_is_reference,
                     run_rows, same_files, same_output)
from our_images import NAME, create, peer_writes, write_some
from peer_images import PARAMS, valid


def judge(model):
    """What the peer finds."""
    checked(NAME)
    peer('compare', '-f', 'qcow2', '-F', 'raw', NAME, model.path)
    for args in (['info', '--output=json'], ['map', '--output=json'], ['check', '--output=json']):
        same_output(*args, NAME)
    img('compare', '-f', 'qcow2', '-F', 'raw', NAME, model.path)


def take_snapshots(row, model, rng):
    """Takes them, with changes after each. Returns {name: model}."""
    names = {'none': [], 'one': ['first'], 'two': ['first', 'x' * 255],
             'several': ['first', 'second one', '3']}[row['snapshots']]
    taken = {}
    for n, name in enumerate(names):
        img('snapshot', '-c', name, NAME)
        taken[name] = model.copy(f'snapshot{n}.raw')
        write_some(model, row['cluster'], rng)
        judge(model)
    return taken


def check_snapshots(taken):
    for name, model in taken.items():
        for program in (peer, ours):
            program('convert', '-l', name, '-O', 'raw', NAME, 'out.raw')
            same_files('out.raw', model.path)


def use_snapshots(taken, model):
    """Goes back to each, deletes all."""
    for name, old in taken.items():
        img('snapshot', '-a', name, NAME)
        judge(old)
        model = old
    for name in taken:
        img('snapshot', '-d', name, NAME)
        judge(model)
    return model


def resize(row, model, rng):
    """Grows and shrinks; where the format forbids it, the image stays as it is."""
    grown, shrunk = model.size + 3 * row['cluster'] + 512, max(512, model.size // 1024 * 512)
    img('resize', '-q', '-f', 'qcow2', NAME, grown)
    model.resize(grown)
    judge(model)
    write_some(model, row['cluster'], rng)
    img('resize', '-q', '-f', 'qcow2', '--shrink', NAME, shrunk)
    model.resize(shrunk)
    judge(model)
    img('resize', '-q', '-f', 'qcow2', NAME, shrunk + MiB)
    model.resize(shrunk + MiB)
    judge(model)


def check_row(row, rng):
    model = create(row, disk_size(row['size'], row['cluster']))
    judge(model)
    write_some(model, row['cluster'], rng)
    judge(model)
    peer_writes(model, row['cluster'], rng)
    judge(model)
    taken = take_snapshots(row, model, rng)
    check_snapshots(taken)
    if taken:
        peer_writes(model, row['cluster'], rng)
        check_snapshots(taken)
        model = use_snapshots(taken, model)
    resize(row, model, rng)
    if os.path.exists('base.raw'):
        same_files('base.raw', 'base.model')


def affordable(row):
    """Without those in which a terabyte of zeros over a backing file takes gigabytes of tables."""
    return valid(row) and not (row['size'] == 'tib' and row['backing'] != 'none' and
                               (row['cluster'] < 2 * MiB or row['compat'] == '0.10'))


peer_is_reference()
run_rows(covering(dict(PARAMS, snapshots=['none', 'one', 'two', 'several']), affordable), check_row)
