# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 400
# variants: asan
"""qcow2 headers with every field at its extremes: refused, with the field named."""
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from hostile import COPIED, Image, Run, attack, read_disk, run_cases

MAX32, MAX64 = (1 << 32) - 1, (1 << 64) - 1


def rejected(says, **fields):
    image = Image()
    path = image.header(**fields).close()
    attack(path, 'reject', says)


def l1_size():
    for n in (MAX32, 0x7fffffff, (32 << 20) // 8 + 1):
        rejected('L1 table too large', l1_size=n)
    rejected('L1 table is too small', l1_size=0)


def l1_offset():
    rejected('not cluster-aligned', l1_offset=3 * 65536 + 512)
    rejected('out of range', l1_offset=MAX64 - 65535)
    rejected('out of range', l1_offset=1 << 63)
    rejected('overlap the header', l1_offset=0)


def size():
    for n in (MAX64, 1 << 63, (1 << 63) - 1, 1 << 50, (512 << 20) + 1):
        rejected('L1 table', size=n)


def version():
    for n in (0, 1, 4, MAX32):
        # Probing takes only what it knows for qcow2; named, it is refused.
        path = Image().header(version=n).close()
        Run('info', '-f', 'qcow2', path).expect(1, 'version')


def cluster_bits():
    for n in (0, 8, 22, 31, 32, 63, 64, MAX32):
        rejected('cluster size', cluster_bits=n)


def refcounts():
    for n in (7, 31, 64, MAX32):
        rejected('refcount width', refcount_order=n)
    for n in (MAX32, 0x20001, 129):
        rejected('refcount table too large', reftable_clusters=n)
    rejected('not cluster-aligned', reftable_offset=65536 + 512)
    rejected('out of range', reftable_offset=MAX64 - 65535)
    rejected('overlap the header', reftable_offset=0)


def refcount_table_missing():
    attack(Image().header(reftable_clusters=0).close(), 'reject', 'refcount table')


def snapshots():
    for n in (MAX32, 0x7fffffff, 65537):
        rejected('snapshot table too large', nb_snapshots=n)
    rejected('not cluster-aligned', nb_snapshots=1, snapshots_offset=65536 + 8)
    rejected('out of range', nb_snapshots=1, snapshots_offset=MAX64 - 65535)


def header_length():
    for n in (MAX32, 0x7fffffff, 65537, 103, 72, 0):
        rejected('header', header_length=n)
    rejected('multiple of 8', header_length=113)
    # Longer than we know, and inside the cluster: kept.
    image = Image()
    attack(image.header(header_length=4096).close(), 'fine')


def features():
    for n in (1 << 5, 1 << 63, MAX64 & ~0x1f):
        rejected('feature', incompatible=n)
    # A name that the image brings along is shown, but cannot steer a terminal.
    image = Image()
    end = image.extension(0x6803f857, b'\x00\x05' + b'evil\x1b[2Jname'.ljust(46, b'\0'))
    image.put(end, '>II', 0, 0)
    attack(image.header(incompatible=1 << 5).close(), 'reject', r'evil\\x1b\[2Jname')
    # Unknown compatible and autoclear features are no reason.
    attack(Image().header(compatible=1 << 63, autoclear=1 << 62).close(), 'fine')


def compression_type():
    rejected('compression', compression=2, incompatible=8)
    rejected('compression', compression=1)
    rejected('compression', compression=0, incompatible=8)


def encryption():
    for n in (3, MAX32):
        rejected('encryption', crypt_method=n)
    for n in (1, 2): # no key, no crypto header
        attack(Image().header(crypt_method=n).close(), 'eio', 'encrypt', check=0, repair=0)


def extensions():
    for length in (MAX32, 0x7fffffff, 65536, 65536 - 119):
        image = Image()
        image.extension(0x12345678, b'', length)
        attack(image.close(), 'reject', 'extension')
    # Up to the last byte of the cluster, without an end marker.
    image = Image()
    image.extension(0x12345678, b'', 65536 - 120)
    attack(image.close(), 'fine')
    # Twice what may stand once.
    image = Image()
    at = image.extension(0xe2792aca, b'raw')
    image.extension(0xe2792aca, b'raw', at=at)
    attack(image.close(), 'reject', 'second')
    image = Image()
    image.extension(0xe2792aca, b'r' * 16)
    attack(image.close(), 'reject', 'format name too long')
    # Bitmaps: nobody can list them, the disk can be read.
    for data in (b'', b'\xff' * 24, b'\xff' * 4096):
        image = Image()
        end = image.extension(0x23852875, data)
        image.put(end, '>II', 0, 0)
        attack(image.header(autoclear=1).close(), 'report', info=1)


def thousands_of_extensions():
    image = Image(cluster_bits=21)
    for at in range(112, (1 << 21) - 16, 8):
        image.put(at, '>II', 0x20000000 + at, 0)
    attack(image.close(), 'fine')


def backing_name():
    rejected('too long', backing_offset=200, backing_size=MAX32)
    rejected('too long', backing_offset=200, backing_size=1024)
    rejected('too long', backing_offset=65536 - 10, backing_size=11)
    rejected('backing file offset', backing_offset=65537, backing_size=1)
    rejected('backing file offset', backing_offset=MAX64, backing_size=1)
    rejected('inside the header', backing_offset=24, backing_size=8)


def corrupt_bit():
    # May be looked at, not written to; a check that finds nothing takes the bit away.
    path = Image().header(incompatible=2).close()
    attack(path, 'fine')
    Run('snapshot', '-c', 'x', path).expect(1, 'corrupt')
    Run('check', '-r', 'all', path).expect(0)
    Run('snapshot', '-c', 'x', path).expect(0)


def dirty_bit():
    # Refcounts are all wrong: writing starts with a repair.
    image = Image().header(incompatible=1, compatible=1)
    for k in range(64):
        image.refcount(k, k % 3)
    path = image.close()
    attack(path, 'report')
    Run('snapshot', '-c', 'x', path).expect(0)
    Run('check', path).expect(0)
    # With what no repair can mend, nothing is written.
    image = Image('y.qcow2').header(incompatible=1)
    image.put(image.l2(1), '>Q', 1 << 40 | COPIED)
    path = image.close()
    attack(path, 'report')
    Run('snapshot', '-c', 'x', path).expect(1, 'repair')


def cut_short():
    whole = Image('whole.qcow2', size=1 << 19)
    whole.close()
    with open('whole.qcow2', 'rb') as f:
        data = f.read()
    for n in (0, 1, 4, 7, 8, 71, 72, 103):
        path = f'cut-{n}.qcow2'
        with open(path, 'wb') as f:
            f.write(data[:n])
        Run('info', '-f', 'qcow2', path).expect(1)
        Run('check', '-f', 'qcow2', path).expect(1)
        Run('convert', '-f', 'qcow2', '-O', 'raw', path, 'disk.raw').expect(1)
    # Metadata missing: never zeros where data was allocated.
    for n in (65536, 2 * 65536, 3 * 65536, 4 * 65536, 4 * 65536 + 8, 5 * 65536, 6 * 65536):
        path = f'cut-{n}.qcow2'
        with open(path, 'wb') as f:
            f.write(data[:n])
        Run('info', path).expect({0, 1})
        Run('check', path).expect({1, 2})
        if n > 3 * 65536:
            read_disk(path).expect(1, path)


run_cases([l1_size, l1_offset, size, version, cluster_bits, refcounts, refcount_table_missing,
           snapshots, header_length, features, compression_type, encryption, extensions,
           thousands_of_extensions, backing_name, corrupt_bit, dirty_bit, cut_short])
