# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 300
"""map and info of random backing chains, made by the peer: layers of all kinds and different sizes,
so that the ends of short layers, zeros over data and space set aside in advance all occur. What is
printed must be the same to the byte, also for a part of the disk."""
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from interop import MiB, peer, peer_is_reference, qemu_io, run_rows, same_output

CHAINS = 40


def new_layer(name, base, base_fmt, rng):
    """Returns (format, size, cluster size)."""
    size = rng.choice([1, 3, 10, 33]) * MiB + rng.choice([0, 512, 7168])
    if not base and rng.random() < .3:
        peer('create', '-q', '-f', 'raw', name, size)
        return 'raw', size, 65536
    cluster = rng.choice([512, 4096, 65536, 2 * MiB])
    options = [f'cluster_size={cluster}', rng.choice(['compat=v2', 'compat=v3', 'compat=v3'])]
    if options[1] == 'compat=v3':
        options.append(f'refcount_bits={rng.choice([1, 4, 16, 64])}')
    if not base and rng.random() < .4:
        options.append(f'preallocation={rng.choice(["metadata", "falloc"])}')
    backing = ['-b', base, '-F', base_fmt] if base else []
    peer('create', '-q', '-f', 'qcow2', '-o', ','.join(options), *backing, name, size)
    return 'qcow2', size, cluster


def commands(fmt, size, cluster, rng):
    """A compressed cluster comes first: the peer compresses only into nothing."""
    if fmt == 'qcow2' and rng.random() < .3 and size > cluster:
        at = rng.randrange(size // cluster) * cluster
        yield f'write -c -P 7 {at} {cluster}'
    for _ in range(rng.randint(0, 12)):
        off = rng.randrange(size // 512) * 512
        n = min(size - off, rng.choice([512, 4096, 69632, MiB]))
        yield rng.choice([f'write -P {rng.randint(1, 255)} {off} {n}', f'write -z {off} {n}',
                          f'write -zu {off} {n}', f'discard {off} {n}'])


def check_chain(_, rng):
    name, fmt, size = None, None, 0
    for depth in range(rng.randint(1, 4)):
        base, base_fmt = name, fmt
        name = f'layer{depth}'
        fmt, size, cluster = new_layer(name, base, base_fmt, rng)
        todo = list(commands(fmt, size, cluster, rng))
        if todo:
            # What an image takes no part of (preallocated: no compressed cluster) is left out.
            qemu_io(name, *[c for c in todo if ' -c ' not in c or base], fmt=fmt)
    same_output('info', '--backing-chain', '--output=json', '-f', fmt, name)
    same_output('info', '--backing-chain', '-f', fmt, name)
    same_output('map', '-f', fmt, name)
    same_output('map', '--output=json', '-f', fmt, name)
    for _ in range(4):
        same_output('map', '--output=json', '-f', fmt, '-s', rng.randrange(size), '-l',
                    rng.randrange(1, size), name)


peer_is_reference()
run_rows([{'chain': n} for n in range(CHAINS)], check_chain)
