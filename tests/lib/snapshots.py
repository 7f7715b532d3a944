# SPDX-License-Identifier: GPL-2.0-or-later
"""Internal snapshots as they are on disk, read by neither program: the table, and what a snapshot
keeps of a machine. And snapshots with such a state, as the emulator leaves them."""
import struct

from interop import Mistake, peer, qemu_io
from peer_images import patch, read_at

OFFSET = 0x00fffffffffffe00
NO_ICOUNT = (1 << 64) - 1


def header(path):
    """Cluster size, bytes of an L2 entry, disk size."""
    bits, size = struct.unpack('>IQ', read_at(path, 20, 12))
    version, incompat = struct.unpack('>I', read_at(path, 4, 4))[0], 0
    if version >= 3:
        incompat = struct.unpack('>Q', read_at(path, 72, 8))[0]
    return 1 << bits, 16 if incompat & 16 else 8, size


def table(path):
    """The snapshots in order; `at` is where the entry is, `l1` where its L1 table is."""
    found = []
    n, at = struct.unpack('>IQ', read_at(path, 60, 12))
    for _ in range(n):
        (l1, entries, id_len, name_len, sec, nsec, clock, state,
         extra) = struct.unpack('>QIHHIIQII', read_at(path, at, 40))
        more = read_at(path, at + 40, extra)
        s = {'at': at, 'l1': (l1, entries), 'date': (sec, nsec), 'clock': clock, 'state': state,
             'icount': NO_ICOUNT, 'size': header(path)[2]}
        if extra >= 16:
            s['state'], s['size'] = struct.unpack('>QQ', more[:16])
        if extra >= 24:
            s['icount'] = struct.unpack('>Q', more[16:24])[0]
        names = read_at(path, at + 40 + extra, id_len + name_len)
        s['id'], s['name'] = names[:id_len].decode(), names[id_len:].decode()
        found.append(s)
        at += -(-(40 + extra + id_len + name_len) // 8) * 8
    return found


def said(path):
    """What the table says to people."""
    return [{k: v for k, v in s.items() if k not in ('at', 'l1')} for s in table(path)]


def state_at(path, size):
    """Where a snapshot with a disk of that size has its state: L1 index, bytes that an entry covers."""
    cluster, entry, _ = header(path)
    covered = cluster // entry * cluster
    return -(-size // covered), covered


def cluster_of(path, s, off):
    """The cluster at an offset of the guest, which must not be compressed; zeros if there is none."""
    cluster, entry, _ = header(path)
    covered = cluster // entry * cluster
    if off // covered >= s['l1'][1]:
        raise Mistake(f'the L1 table of {s["name"]} does not reach {off}')
    l2 = struct.unpack('>Q', read_at(path, s['l1'][0] + off // covered * 8, 8))[0] & OFFSET
    if not l2:
        return bytes(cluster)
    words = struct.unpack(f'>{entry // 8}Q',
                          read_at(path, l2 + off % covered // cluster * entry, entry))
    if words[0] >> 62 & 1:
        raise Mistake(f'a part of the state of {s["name"]} is compressed')
    if entry == 16:
        host, sub = words[0] & OFFSET, cluster // 32
        return b''.join(read_at(path, host + i * sub, sub) if words[1] >> i & 1 else bytes(sub)
                        for i in range(32))
    host = 0 if words[0] & 1 else words[0] & OFFSET
    return read_at(path, host, cluster).ljust(cluster, b'\0') if host else bytes(cluster)


def state(path, s):
    """The bytes of the state of a machine."""
    index, covered = state_at(path, s['size'])
    step = header(path)[0]
    data = b''.join(cluster_of(path, s, index * covered + at) for at in range(0, s['state'], step))
    return data[:s['state']]


def describe(path, name, **what):
    """Changes what the table says of a snapshot: state, size, clock, icount, nsec."""
    s = [s for s in table(path) if s['name'] == name][-1]
    for key, off, form in (('nsec', 20, '>I'), ('clock', 24, '>Q'), ('state', 40, '>Q'),
                           ('size', 48, '>Q'), ('icount', 56, '>Q')):
        if key in what:
            patch(path, s['at'] + off, struct.pack(form, what[key]))
    if 'state' in what:
        patch(path, s['at'] + 32, struct.pack('>I', what['state']))


def take_running(path, name, length, seed=1):
    """Takes a snapshot with a state of `length` bytes. No program that is here can make one: a larger
    disk holds the state behind what will be its end, and then its size is corrected."""
    size = header(path)[2]
    index, covered = state_at(path, size)
    at, piece = index * covered, 40 * 1024 + 512
    peer('resize', path, str(at + -(-length // covered) * covered))
    qemu_io(path, *(f'write -P {(seed + i) % 255 + 1} {at + off} {min(piece, length - off)}'
                    for i, off in enumerate(range(0, length, piece))))
    peer('snapshot', '-c', name, path)
    # Size first: else it would be what the peer keeps, and the state were a part of the disk.
    qemu_io(path, f'discard {at} {-(-length // covered) * covered}', options=('-d', 'unmap'))
    patch(path, 24, struct.pack('>Q', size))
    describe(path, name, state=length, size=size, clock=seed * 1234567891011, icount=seed * 77,
             nsec=seed * 999)
