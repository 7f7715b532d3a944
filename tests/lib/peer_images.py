# SPDX-License-Identifier: GPL-2.0-or-later
"""Images as the peer makes them, for each combination of what the format can do."""
import struct

from interop import MiB, KiB, Mistake, disk_size, info, io_commands, peer, qemu_io, run

PARAMS = {
    'cluster': [512, 4 * KiB, 64 * KiB, 2 * MiB],
    'compat': ['0.10', '1.1'],
    'coding': ['none', 'zlib', 'zstd'],
    'backing': ['none', 'raw', 'qcow2', 'chain', 'smaller', 'larger'],
    'snapshots': ['none', 'one', 'several', 'vmstate'],
    'size': ['tiny', '513s', 'odd', 'tib'],
    'refcount': [1, 2, 8, 16, 64],
    'prealloc': ['off', 'metadata', 'falloc', 'full'],
    'lazy': ['off', 'on'],
    'extended': ['off', 'on'],
}


def valid(row):
    """What the format allows, and what does not cost gigabytes."""
    old = row['compat'] == '0.10'
    extended = row.get('extended') == 'on'
    return not (
        (extended and (old or row['cluster'] < 16 * KiB)) or
        (old and (row['refcount'] != 16 or row['lazy'] == 'on' or row['coding'] == 'zstd')) or
        (row['backing'] != 'none' and row['prealloc'] != 'off' and not extended) or
        (row['cluster'] == 512 and row['size'] == 'tib') or  # the L1 table would exceed 32 MiB
        (row['size'] == 'tib' and row['prealloc'] != 'off') or
        (row['size'] == 'tiny' and row['backing'] == 'smaller') or
        (row['refcount'] == 1 and row['snapshots'] != 'none') or
        (row['refcount'] == 2 and row['snapshots'] == 'several'))


def options(row):
    text = (f'cluster_size={row["cluster"]},compat={row["compat"]},'
            f'refcount_bits={row["refcount"]},preallocation={row["prealloc"]},'
            f'lazy_refcounts={row["lazy"]},extended_l2={row["extended"]}')
    return text + (',compression_type=zstd' if row['coding'] == 'zstd' else '')


def make_backing(row, size, rng):
    """Returns the name and format of what lies below, or None."""
    kind = row['backing']
    if kind == 'none':
        return None
    size = {'smaller': size // 1024 * 512, 'larger': size + MiB + 512}.get(kind, size)
    run('mkdir', '-p', 'base')
    with open('base/base.raw', 'wb') as f:
        f.truncate(size)
    qemu_io('base/base.raw', *io_commands(size, 4 * KiB, rng), fmt='raw')
    if kind == 'raw':
        return 'base/base.raw', 'raw'
    peer('create', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'base/mid.qcow2')
    qemu_io('base/mid.qcow2', *io_commands(size, 64 * KiB, rng, True))
    if kind != 'chain':
        return 'base/mid.qcow2', 'qcow2'
    peer('create', '-f', 'qcow2', '-o', 'cluster_size=4k', '-b', 'mid.qcow2', '-F', 'qcow2',
         'base/top.qcow2')
    qemu_io('base/top.qcow2', *io_commands(size, 4 * KiB, rng, True))
    return 'base/top.qcow2', 'qcow2'


def add_snapshots(path, row, size, rng):
    names = {'none': [], 'one': ['first'], 'vmstate': ['first'],
             'several': ['first', 'second one', '3']}[row['snapshots']]
    for name in names:
        peer('snapshot', '-c', name, path)
        qemu_io(path, *io_commands(size, row['cluster'], rng))
    if len(names) > 2:
        peer('snapshot', '-d', names[1], path)


def patch(path, off, data):
    with open(path, 'r+b') as f:
        f.seek(off)
        f.write(data)


def read_at(path, off, length):
    with open(path, 'rb') as f:
        f.seek(off)
        return f.read(length)


def covered_by_table(row):
    """Guest bytes for which an L2 table has entries."""
    return row['cluster'] // (16 if row.get('extended') == 'on' else 8) * row['cluster']


def vm_state_offset(size, covered):
    """Where the state of a machine lies in the guest's address space: after the last L1 entry."""
    return max(1, -(-size // covered)) * covered


def add_vm_state(path, row, size):
    """A snapshot with state of a machine, as the emulator leaves it. qemu-img alone cannot make one:
    a larger disk holds the state behind what will be its end, and then its size is corrected."""
    cluster, state = row['cluster'], 3 * row['cluster'] + 77
    covered = covered_by_table(row)
    at = vm_state_offset(size, covered)
    peer('resize', path, str(at + 2 * covered))
    qemu_io(path, f'write -P 0x5d {at} {state}')
    peer('snapshot', '-c', 'running', path)
    end = -(-state // cluster) * cluster
    qemu_io(path, f'discard {at} {end}')
    patch(path, 24, struct.pack('>Q', size))
    entries, table = struct.unpack('>IQ', read_at(path, 60, 12))
    for _ in range(entries):
        lengths = struct.unpack('>HH', read_at(path, table + 12, 4))
        extra = struct.unpack('>I', read_at(path, table + 36, 4))[0]
        name = read_at(path, table + 40 + extra + lengths[0], lengths[1])
        if name == b'running':
            patch(path, table + 32, struct.pack('>I', state))
            patch(path, table + 40, struct.pack('>QQ', state, size))
            return
        table += -(-(40 + extra + sum(lengths)) // 8) * 8
    raise Mistake('the new snapshot is not in its table')


def make(path, row, rng):
    """The image. Returns its size in bytes and the names of its snapshots."""
    size = disk_size(row['size'], row['cluster'])
    args = ['create', '-f', 'qcow2', '-o', options(row)]
    backing = make_backing(row, size, rng)
    if backing:
        args += ['-b', backing[0], '-F', backing[1]]
    peer(*args, path, size)
    coded = row['coding'] != 'none' and row['prealloc'] == 'off'
    qemu_io(path, *io_commands(size, row['cluster'], rng, coded))
    if row['snapshots'] == 'vmstate':
        add_vm_state(path, row, size)
    add_snapshots(path, row, size, rng)
    return size, [s['name'] for s in info(path).get('snapshots', [])]
