# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 400
"""New images made by convert, with each pair of source, options of the target and way of working: the
peer finds them in order and the same as the source; and any number of workers makes the same file."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from interop import (KiB, MiB, Mistake, checked, covering, disk_size, img, io_commands, peer,
                     peer_is_reference, qemu_io, run, run_rows, same_files, same_output)

PARAMS = {
    'source': ['raw', 'qcow2', 'coded', 'overlay', 'snapshot', 'two', 'pipe'],
    'target': ['file', 'pipe'],
    'cluster': [512, 4 * KiB, 64 * KiB, 2 * MiB],
    'compat': ['0.10', '1.1'],
    'coding': ['none', 'zlib', 'narrow', 'zstd'],
    'refcount': [1, 2, 8, 16, 64],
    'prealloc': ['off', 'metadata', 'falloc', 'full'],
    'lazy': ['off', 'on'],
    'backing': ['none', 'same', 'flat'],
    'sparse': ['default', '0', '512', '64k'],
    'size': ['tiny', '513s', 'odd', 'tib'],
    'workers': [1, 3, 8],
    'order': ['kept', 'free'],
}


def valid(row):
    old, coded = row['compat'] == '0.10', row['coding'] != 'none'
    return not (
        (old and (row['refcount'] != 16 or row['lazy'] == 'on' or row['coding'] == 'zstd')) or
        (row['prealloc'] != 'off' and (coded or row['backing'] != 'none')) or
        (row['backing'] != 'none' and row['source'] != 'overlay') or
        (row['size'] == 'tib' and (row['cluster'] == 512 or row['prealloc'] != 'off' or
                                   row['sparse'] == '0' or row['source'] in ('two', 'pipe'))) or
        (row['source'] == 'pipe' and row['prealloc'] != 'off') or
        (row['target'] == 'pipe' and (row['prealloc'] != 'off' or row['order'] == 'free' or
                                      row['size'] == 'tib')))


def make_source(kind, size, rng):
    """Arguments of convert that name the source, and what the peer says it holds: a raw file."""
    names, options = ['source'], []
    if kind in ('raw', 'two', 'pipe'):
        with open('source', 'wb') as f:
            f.truncate(size)
        qemu_io('source', *io_commands(size, 64 * KiB, rng), fmt='raw')
        options = ['-f', 'raw']
        if kind == 'two':
            names *= 2
    else:
        peer('create', '-q', '-f', 'raw', 'base.raw', size)
        qemu_io('base.raw', *io_commands(size, 64 * KiB, rng), fmt='raw')
        over = ['-b', 'base.raw', '-F', 'raw'] if kind == 'overlay' else []
        peer('create', '-q', '-f', 'qcow2', *over, 'source', size)
        qemu_io('source', *io_commands(size, 64 * KiB, rng, kind == 'coded'))
        if kind == 'snapshot':
            peer('snapshot', '-c', 'then', 'source')
            qemu_io('source', *io_commands(size, 64 * KiB, rng))
            options = ['-l', 'then']
    peer('convert', '-O', 'raw', *options, *names, 'truth.raw')
    return options, names


def target_options(row):
    text = (f'cluster_size={row["cluster"]},compat={row["compat"]},refcount_bits={row["refcount"]},'
            f'preallocation={row["prealloc"]},lazy_refcounts={row["lazy"]}')
    argv = ['-O', 'qcow2', '-m', str(row['workers'])]
    if row['coding'] == 'zstd':
        text += ',compression_type=zstd'
    if row['coding'] == 'narrow':
        argv += ['--compression-window=narrow']
    if row['coding'] != 'none':
        argv += ['-c']
    if row['sparse'] != 'default':
        argv += ['-S', row['sparse']]
    if row['order'] == 'free':
        argv += ['-W']
    if row['backing'] == 'same':
        argv += ['-B', 'base.raw', '-F', 'raw']
    elif row['backing'] == 'flat':
        peer('convert', '-O', 'qcow2', 'base.raw', 'flat.qcow2')
        argv += ['-B', 'flat.qcow2', '-F', 'qcow2']
    return argv + ['-o', text]


def convert(row, options, names, argv, target):
    """Runs convert with pipes where the row wants them."""
    command = [os.environ['IMG'], 'convert', *options, *argv]
    if row['source'] == 'pipe':
        names = ['-']
    command += [*names, '--output=-'] if row['target'] == 'pipe' else [*names, target]
    with open('source', 'rb') if row['source'] == 'pipe' else open(os.devnull, 'rb') as stdin, \
            open(target, 'wb') if row['target'] == 'pipe' else open(os.devnull, 'wb') as stdout:
        feed = subprocess.Popen(['cat'], stdin=stdin, stdout=subprocess.PIPE)
        take = subprocess.Popen(['cat'], stdin=subprocess.PIPE, stdout=stdout)
        proc = subprocess.run(command, stdin=feed.stdout, stdout=take.stdin, stderr=subprocess.PIPE,
                              check=False)
        feed.stdout.close()
        take.stdin.close()
        take.wait()
        feed.wait()
    if proc.returncode:
        raise Mistake(f'exit code {proc.returncode}\n$ {" ".join(command)}\n{proc.stderr.decode()}')


def count_coded(path):
    """Compressed clusters, as the peer counts them."""
    return json.loads(peer('check', '--output=json', path).out).get('compressed-clusters', 0)


def judge(row, path):
    checked(path)
    peer('compare', '-f', 'qcow2', '-F', 'raw', path, 'truth.raw')
    img('compare', '-f', 'qcow2', '-F', 'raw', path, 'truth.raw')
    for args in (['info', '--output=json'], ['map', '--output=json'], ['check', '--output=json']):
        same_output(*args, path)
    if row['coding'] != 'none' and row['size'] == 'odd' and not count_coded(path):
        raise Mistake('nothing is compressed')


def check_row(row, rng):
    options, names = make_source(row['source'], disk_size(row['size'], row['cluster']), rng)
    argv = target_options(row)
    convert(row, options, names, argv, 'one.qcow2')
    judge(row, 'one.qcow2')
    if row['order'] == 'kept':
        argv[argv.index('-m') + 1] = str(1 + row['workers'] % 8)
        convert(row, options, names, argv, 'two.qcow2')
        run('cmp', 'one.qcow2', 'two.qcow2')
    img('convert', '-O', 'raw', 'one.qcow2', 'back.raw')
    same_files('back.raw', 'truth.raw')


peer_is_reference()
run_rows(covering(PARAMS, valid, seed=3), check_row)
