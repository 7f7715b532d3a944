# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 300
"""Compressed clusters that are cut, rubbish, bombs, or ask for gigabytes to be decompressed."""
import os
import random
import struct
import sys
import zlib

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from hostile import Image, attack, run_cases

K64 = 1 << 16
SOUND = {'check': {0, 2, 3}, 'repair': {0, 1, 2, 3}}


def deflate(data, bits=-12):
    z = zlib.compressobj(9, zlib.DEFLATED, bits)
    return z.compress(data) + z.flush()


def holds(stream, kind, says=None, zstd=False, bits=16, **codes):
    image = Image(cluster_bits=bits, clusters=0)
    image.compressed(stream)
    if zstd:
        image.header(compression=1, incompatible=8)
    attack(image.close(), kind, says, **{**SOUND, **codes})


def sane():
    holds(deflate(b'a' * K64), 'fine')
    holds(deflate(b'a' * K64, -15), 'fine')


def deflate_cut():
    rng = random.Random(1)
    whole = deflate(bytes(rng.randrange(8) for _ in range(K64)))
    for n in (0, 1, 2, 100, len(whole) // 2, len(whole) - 512):
        holds(whole[:n], 'eio', read=1)


def deflate_too_short():
    # A stream that ends before the cluster is full.
    for n in (0, 1, 4096, K64 - 1):
        holds(deflate(b'a' * n), 'eio', read=1)


def deflate_bomb():
    # Goes on for a gigabyte: the cluster has what fits, or is refused.
    holds(deflate(b'\0' * (1 << 24)), 'report', bits=16, read={0, 1})
    stream = deflate(b'\0' * (1 << 30), -15)
    holds(stream, 'report', bits=21, read={0, 1})


def rubbish():
    rng = random.Random(2)
    for zstd in (False, True):
        for n in (1, 100, 30000):
            holds(rng.randbytes(n), 'eio', zstd=zstd, read=1)
        holds(b'\xff' * 1000, 'eio', zstd=zstd, read=1)
        holds(b'\0' * 1000, 'eio', zstd=zstd, read=1)


def zstd_frame(descriptor, rest=b''):
    return struct.pack('<IB', 0xfd2fb528, descriptor) + rest


def zstd_block(kind, size, data=b'', last=True):
    return struct.pack('<I', last | kind << 1 | size << 3)[:3] + data


def zstd_window():
    # Window logs up to 41, with one RLE block that fills the cluster.
    for log in (27, 31, 41):
        stream = zstd_frame(0, bytes([(log - 10) << 3])) + zstd_block(1, K64, b'x')
        holds(stream, 'report', zstd=True, read={0, 1})


def zstd_content_size():
    for size in (1 << 62, (1 << 64) - 1, K64 + 1, K64 - 1, 0):
        stream = zstd_frame(0xe0, struct.pack('<Q', size)) + zstd_block(1, K64, b'x')
        holds(stream, 'report', zstd=True, read={0, 1})


def zstd_empty_frames():
    empty = zstd_frame(0, b'\0') + zstd_block(0, 0)
    holds(empty * 8000, 'eio', zstd=True, bits=21, read=1)
    full = zstd_frame(0, b'\x30') + zstd_block(1, K64, b'x')
    holds(empty * 50 + full, 'report', zstd=True, read={0, 1})
    # Skippable frames.
    skip = struct.pack('<II', 0x184d2a50, 100) + b'\0' * 100
    holds(skip * 20 + full, 'report', zstd=True, read={0, 1})
    holds(struct.pack('<II', 0x184d2a50, 0xffffffff) + b'\0' * 600, 'eio', zstd=True, read=1)


def zstd_cut():
    full = zstd_frame(0, b'\x30') + zstd_block(0, 30000, b'x' * 30000, last=False)
    for n in (3, 5, 9, 1000, len(full)):
        holds(full[:n], 'eio', zstd=True, read=1)


def zstd_never_ending():
    # Blocks of nothing, until the space ends.
    stream = zstd_frame(0, b'\x30') + zstd_block(0, 0, last=False) * 20000
    holds(stream, 'eio', zstd=True, read=1)


def every_cluster_the_same_bomb():
    # 8192 guest clusters name one stream that takes long to decompress.
    image = Image(clusters=0, size=512 << 20)
    stream = deflate(bytes(K64))
    image.compressed(stream)
    entry = image.get(image.l2(0), '>Q')
    image.write(image.l2(0), struct.pack('>Q', entry) * 8192)
    attack(image.close(), 'report', read=0, repair={0, 1, 2})


def wrong_codec():
    # zlib data called zstd and the reverse.
    holds(deflate(b'a' * K64), 'eio', zstd=True, read=1)
    holds(zstd_frame(0, b'\x30') + zstd_block(1, K64, b'x'), 'eio', read=1)


run_cases([sane, deflate_cut, deflate_too_short, deflate_bomb, rubbish, zstd_window,
           zstd_content_size, zstd_empty_frames, zstd_cut, zstd_never_ending,
           every_cluster_the_same_bomb, wrong_codec])
