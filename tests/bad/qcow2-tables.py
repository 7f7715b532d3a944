# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 600
# variants: asan
"""qcow2 tables that point to wrong places, to themselves, to each other, past the end."""
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from hostile import COMPRESSED, COPIED, Image, Run, attack, copy, fingerprint, read_disk, run_cases

K64 = 1 << 16


def with_l2(value, guest=0):
    image = Image()
    image.put(image.l2(guest), '>Q', value)
    return image


def data_past_the_end():
    for off in (1 << 20, 1 << 40, (1 << 56) - K64):
        attack(with_l2(off | COPIED).close(), 'eio', r'x\.qcow2')
    # The last byte of the address space.
    attack(with_l2(0xbfffffffffff0000).close(), 'eio')


def data_misaligned():
    attack(with_l2(5 * K64 + 512 | COPIED).close(), 'eio', 'align')
    # Space of a zero cluster: the repair drops it, and then all is well.
    attack(with_l2(5 * K64 + 512 | 1).close(), 'report', read={0, 1}, repair=0)


def data_reserved_bits():
    for bit in (1, 5, 8, 56, 61):
        attack(with_l2(5 * K64 | COPIED | 1 << bit).close(), 'report')


def data_on_metadata():
    # Refcount table, refcount block, L1, its own L2 table.
    for k in range(1, 5):
        attack(with_l2(k * K64 | COPIED).close(), 'report', repair=0)


def data_shared():
    image = with_l2(5 * K64 | COPIED, guest=9)
    attack(image.close(), 'report', repair=0, read=0)


def all_entries_the_same():
    image = Image(size=512 << 20)
    image.write(image.l2(0), struct.pack('>Q', 5 * K64 | COPIED) * 8192)
    attack(image.close(), 'report', repair=0, read=0)


def with_subclusters(entry, bitmap):
    """An image with extended L2 entries, of which the first is this."""
    image = Image(clusters=0).header(incompatible=16)
    data = image.new(b'A' * K64)
    image.put(image.l2(0), '>QQ', entry(data), bitmap)
    return image


def subcluster_bitmaps():
    def mapped(data):
        return data | COPIED

    # Allocated and zero at once; space that is not there.
    attack(with_subclusters(mapped, 1 << 32 | 1).close(), 'eio', 'allocated and zeros')
    attack(with_subclusters(lambda _: 0, 1 << 31).close(), 'eio', 'no cluster')
    attack(with_subclusters(lambda data: data + 512 | COPIED, 1).close(), 'eio', 'align')
    # Of a compressed cluster there are no subclusters.
    attack(with_subclusters(lambda data: data | COMPRESSED, 1).close(), 'report', read=1)


def subclusters_that_are_too_small():
    image = Image(cluster_bits=13, clusters=0).header(incompatible=16)
    attack(image.close(), 'reject', 'at least 16 KiB', check={1, 2}, repair={1, 2})


def l1_to_wrong_places():
    for off in (1 << 20, 1 << 40, (1 << 56) - K64, 4 * K64 + 512, K64 - 512):
        image = Image()
        image.put(image.l1(0), '>Q', off | COPIED)
        attack(image.close(), 'report')
    for bit in (0, 8, 56, 62):
        image = Image()
        image.put(image.l1(0), '>Q', 4 * K64 | COPIED | 1 << bit)
        attack(image.close(), 'report')


def l1_to_metadata():
    # Header, refcount table, refcount block, itself; data.
    for k in (0, 1, 2, 3, 5):
        image = Image()
        image.put(image.l1(0), '>Q', k * K64 | COPIED)
        attack(image.close(), 'report')


def l1_past_the_end():
    for off in (6 * K64 + (1 << 20), 1 << 50):
        image = Image().header(l1_offset=off)
        attack(image.close(), 'reject', None, check=2, repair={1, 2})


def many_l1_entries_one_table():
    # 4 Mi L1 entries that all name one L2 table full of data.
    image = Image(clusters=1)
    image.write(image.l2(0), struct.pack('>Q', 5 * K64 | COPIED) * 8192)
    l1 = image.new(struct.pack('>Q', 4 * K64 | COPIED) * (4 << 20))
    image.header(l1_size=4 << 20, l1_offset=l1, size=(4 << 20) << 29)
    path = image.close()
    Run('info', path).expect(0)
    Run('check', path).expect(2)
    Run('check', '-r', 'all', copy(path)).expect({1, 2})
    Run('map', '-l', '1G', path).expect({0, 1})


def l1_into_holes():
    # Each of 1 Mi L1 entries names a table of its own, all in one hole of 64 GiB.
    image = Image(clusters=1)
    entries = 1 << 20
    l1 = image.new(clusters=entries * 8 // K64)
    first = image.next
    image.write(l1, struct.pack(f'>{entries}Q', *((first + i) << 16 | COPIED
                                                  for i in range(entries))))
    image.header(l1_size=entries, l1_offset=l1, size=entries << 29)
    image.grow((first + entries) << 16)
    path = image.close()
    Run('info', path).expect(0)
    Run('check', path).expect(2)
    Run('map', '-l', '1G', path).expect({0, 1})


def entries_far_apart():
    # Entries spread over a sparse file of 1 TiB: no array as long as the file.
    image = Image(clusters=0, cluster_bits=12, size=1 << 21)
    step = (1 << 40) // 512
    image.write(image.l2(0), struct.pack('>512Q', *(i * step // 4096 * 4096 + (1 << 20) | COPIED
                                                    for i in range(512))))
    image.grow(1 << 40)
    path = image.close()
    Run('info', path).expect(0)
    Run('check', path).expect(2)


def too_many_clusters():
    # 2^31 clusters of 512 bytes: the peer gives up as well, but not after eating the memory.
    image = Image(clusters=0, cluster_bits=9, size=1 << 14)
    image.grow(1 << 40)
    path = image.close()
    Run('info', path).expect(0)
    Run('check', path).expect(1, 'too many clusters')


def every_counter_large():
    # Counts that do not fit small counters, all over a sparse file of 512 GiB.
    image = Image(clusters=0, cluster_bits=16, size=1 << 40)
    far = [(1 << 39) // 8192 * i // K64 * K64 + (16 << 20) | COPIED for i in range(8192)]
    image.write(image.l2(0), struct.pack('>8192Q', *far))
    l1 = image.new(struct.pack('>Q', 4 * K64 | COPIED) * 2048)
    image.header(l1_size=2048, l1_offset=l1)
    image.grow(1 << 39)
    path = image.close()
    Run('check', path).expect(2)


def refcount_table():
    # The block of cluster 0: missing, misaligned, outside, on the header, on the table, on data.
    for value in (0, 2 * K64 + 512, 1 << 30, 1 << 63, (1 << 64) - K64, K64, 5 * K64):
        image = Image()
        image.put(K64, '>Q', value)
        attack(image.close(), 'report', check={1, 2}, repair=0, read=0)
    for bits in (1, 511):
        image = Image()
        image.put(K64, '>Q', 2 * K64 | bits)
        attack(image.close(), 'report', repair=0, read=0)
    # Two entries, one block.
    image = Image()
    image.put(K64 + 8, '>Q', 2 * K64)
    attack(image.close(), 'report', repair=0, read=0)


def refcount_table_on_metadata():
    for k in (2, 3, 4, 5):
        attack(Image().header(reftable_offset=k * K64).close(), 'report', check={1, 2})
    attack(Image().header(reftable_offset=1 << 50).close(), 'report', check={1, 2}, repair=0)


def refcounts_all_wrong():
    for pattern in (b'\0\0', b'\0\2', b'\xff\xff'):
        image = Image()
        image.write(2 * K64, pattern * 32768)
        attack(image.close(), 'report', check={2, 3}, repair=0, read=0)


def refcount_of_cluster_0():
    # A free header: an allocator that believes it overwrites the image.
    image = Image()
    image.refcount(0, 0)
    path = image.close()
    Run('check', path).expect(2)
    target = copy(path)
    for _ in range(3):
        Run('snapshot', '-c', 'x', target).expect({0, 1})
    Run('info', target).expect(0)


def compressed_entries():
    stream = b'\x63\x00' * 100
    for sectors in (0, 1, 255, 256, 511):
        image = Image()
        image.compressed(stream, sectors=sectors & 0xff)
        attack(image.close(), 'report', check={0, 2, 3}, repair={0, 1, 2})
    for value in (COMPRESSED | 1 << 40, COMPRESSED | COPIED | 5 * K64, COMPRESSED | (1 << 62) - 1,
                  (1 << 64) - 1):
        attack(with_l2(value).close(), 'eio', None, read={0, 1})


def snapshot_of_a_broken_table():
    # Refused, and the image stays as it was, bit by bit.
    path = with_l2(0xbfffffffffff0000).close()
    before = fingerprint(path)[2]
    Run('snapshot', '-c', 'x', path).expect(1)
    if fingerprint(path)[2] != before:
        Run('snapshot', '-l', path).fail('the image was changed')


def convert_snapshots(path, says):
    """Refused, and nothing stays."""
    Run('convert', '--snapshots', '-O', 'qcow2', path, 'copy').expect(1, says)
    if os.path.exists('copy'):
        Run('info', 'copy').fail('half a target was left')


def snapshot_state():
    # Behind all that is mapped, behind the last byte, or where the disk of another snapshot is.
    for state, size in ((1 << 62, 1 << 20), ((1 << 64) - 1, 1 << 20), (1 << 40, 1 << 20),
                        (1, 1 << 62), (0, (1 << 64) - 1), (1 << 30, 1 << 40)):
        image = Image().snapshots([{'extra': struct.pack('>QQQ', state, size, 0)}])
        path = image.close()
        Run('snapshot', '-l', path).expect(0)
        convert_snapshots(path, r's0')


def snapshot_l1():
    for fields in ({'l1_size': 1 << 28}, {'l1_size': (1 << 32) - 1}, {'l1_offset': K64 + 8},
                   {'l1_offset': 1 << 50}, {'l1_offset': (1 << 64) - K64}):
        image = Image().snapshots([fields])
        path = image.close()
        attack(path, 'report', read=0)
        read_disk(path, '-l', 's0').expect(1)
        for argv in (['-a', 's0'], ['-d', 's0']):
            target = copy(path)
            Run('snapshot', *argv, target).expect({0, 1})
            read_disk(target).expect(0)
        convert_snapshots(path, r's0')


def snapshots_sharing_one_l1():
    # 20000 snapshots with one L1 table of 32 MiB.
    image = Image(clusters=1)
    entries = 4 << 20
    l1 = image.new(struct.pack('>Q', 4 * K64) * entries)
    image.snapshots([{'l1_offset': l1, 'l1_size': entries}] * 20000)
    path = image.close()
    Run('check', path).expect(2)


def snapshot_table():
    # Extra data that is huge, missing, or longer than the file.
    for n in (65536, (1 << 32) - 1):
        image = Image().snapshots([{'extra_len': n}])
        attack(image.close(), 'reject', 'snapshot', repair={0, 1, 2})
    image = Image().snapshots([{'extra': b''}])
    attack(image.close(), 'report', repair=0, read=0)
    # Past the end of the file.
    image = Image().header(nb_snapshots=3, snapshots_offset=1 << 40)
    attack(image.close(), 'report', info={0, 1}, map={0, 1}, repair={0, 1, 2})
    # On top of other tables.
    for k in (0, 1, 3, 4):
        image = Image().header(nb_snapshots=2, snapshots_offset=k * K64)
        attack(image.close(), 'report', info={0, 1}, check={1, 2})


def snapshot_names():
    # 65536 snapshots with names of 1000 bytes: 64 MiB, the most that is allowed, and more.
    image = Image().snapshots([{'name': b'n' * 950}] * 65536)
    path = image.close()
    Run('check', path).expect({1, 2})
    Run('check', '-r', 'all', copy(path)).expect({0, 1, 2})
    image = Image('y.qcow2').snapshots([{'name': b'\x1b[2J\xff\x00' + b'a' * 20}] * 3)
    path = image.close()
    Run('check', path).expect(2)
    for argv in (['info'], ['snapshot', '-l']):
        run = Run(*argv, path).expect(0)
        if '\x1b' in run.out + run.err:
            run.fail('a name steers the terminal')


def small_clusters():
    # The same mistakes with clusters of 512 bytes, where everything is close together.
    for guest, value in ((0, 1 << 30), (1, 512 | COPIED), (2, 513 | COPIED), (3, (1 << 62) - 1)):
        image = Image(cluster_bits=9, size=1 << 14)
        image.put(image.l2(guest), '>Q', value)
        attack(image.close(), 'report')


run_cases([data_past_the_end, data_misaligned, data_reserved_bits, data_on_metadata, data_shared,
           all_entries_the_same, l1_to_wrong_places, l1_to_metadata, l1_past_the_end,
           many_l1_entries_one_table, l1_into_holes, entries_far_apart, too_many_clusters,
           every_counter_large, refcount_table, refcount_table_on_metadata, refcounts_all_wrong,
           refcount_of_cluster_0, compressed_entries, snapshot_of_a_broken_table, snapshot_l1, snapshot_state,
           snapshots_sharing_one_l1, snapshot_table, snapshot_names, small_clusters,
           subcluster_bitmaps, subclusters_that_are_too_small])
