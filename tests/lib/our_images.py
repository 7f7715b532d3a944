# SPDX-License-Identifier: GPL-2.0-or-later
"""Images as we make and change them, each beside a model: a raw file that holds what it should."""
import os

from interop import KiB, MiB, Model, img, places, qemu_io

NAME, MODEL = 'disk.qcow2', 'model.raw'
BASE_DATA = 3 * MiB  # bytes at the start of a backing file that are not a hole


def create(row, size):
    """An image over a backing file of its own, or none. Returns its model."""
    text = (f'cluster_size={row["cluster"]},compat={row["compat"]},refcount_bits={row["refcount"]},'
            f'preallocation={row["prealloc"]},lazy_refcounts={row["lazy"]},'
            f'extended_l2={row["extended"]}')
    if row['coding'] == 'zstd':
        text += ',compression_type=zstd'
    img('create', '-q', '-f', 'qcow2', '-o', text, *make_backing(row, size), NAME, size)
    model = Model(MODEL, size)
    if os.path.exists('base.model'):
        with open('base.model', 'rb') as f:
            model.write(0, f.read(min(size, BASE_DATA)))
    return model


def make_backing(row, size):
    """Options for what lies below; what it holds is left in base.model."""
    kind = row['backing']
    if kind == 'none':
        return []
    length = {'smaller': size // 1024 * 512, 'larger': size + MiB + 512}.get(kind, size)
    with open('base.model', 'wb') as f:
        for n in range(0, min(length, BASE_DATA), 64 * KiB):
            f.write(bytes([n // (64 * KiB) % 3]) * min(64 * KiB, length - n))
        f.truncate(length)
    if kind == 'raw':
        os.link('base.model', 'base.raw')
        return ['-b', 'base.raw', '-F', 'raw']
    os.mkdir('sub')
    img('convert', '-O', 'qcow2', *(['-c'] if row['coding'] != 'none' else []), 'base.model',
        'sub/base.qcow2')
    if kind != 'chain':
        return ['-b', 'sub/base.qcow2', '-F', 'qcow2']
    img('create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'sub/mid.qcow2')
    img('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', '-b', os.path.abspath('sub/mid.qcow2'),
        '-F', 'qcow2', 'sub/top.qcow2')
    return ['-b', 'sub/top.qcow2', '-F', 'qcow2']


def write_some(model, cluster, rng):
    """Changes the model here and there and writes it over the image, holes as zeros."""
    for off, length in places(model.size, cluster, rng):
        kind = rng.randrange(4)
        if kind == 0:
            model.zero(off, length)
        elif kind == 1:
            model.write(off, rng.randbytes(length))
        else:
            model.write(off, bytes([rng.randrange(1, 256)]) * length)
    img('convert', '-n', '-f', 'raw', '-O', 'qcow2', model.path, NAME)


def peer_writes(model, cluster, rng):
    """The peer changes our image, and the same bytes change in the model."""
    commands = []
    for off, length in places(model.size, cluster, rng):
        if rng.randrange(3):
            value = rng.randrange(1, 256)
            commands.append(f'write -P {value} {off} {length}')
            model.write(off, bytes([value]) * length)
        else:
            commands.append(f'write -{rng.choice(["z", "zu"])} {off} {length}')
            model.zero(off, length)
    qemu_io(NAME, *commands)
