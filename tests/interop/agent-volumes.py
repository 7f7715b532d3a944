#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# variants: release asan
"""The agent's list of volumes against what sfdisk and blkid say of the same images: tables of both
kinds with logical partitions, gaps and odd numbers, 512 and 4096 byte sectors, file systems of many
kinds, disks without a table, and signatures that contradict each other.

The conversation is written here once more, from protocol.h, so that both sides of it in C are not
wrong in the same way."""
import json
import os
import socket
import struct
import subprocess
import sys
import uuid
import zlib

sys.stdout.reconfigure(line_buffering=True)
CALL, HELLO, DONE, FAIL = 1, 16, 18, 19
OP_VOLUMES = 1
MIB = 1 << 20


class Reader:
    """Values out of a payload."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, fmt):
        n = struct.calcsize(fmt)
        self.at += n
        return struct.unpack(fmt, self.data[self.at - n:self.at])[0]

    def text(self):
        n = self.number('<I')
        self.at += n
        return self.data[self.at - n:self.at].decode()


def receive(sock, n):
    data = b''
    while len(data) < n:
        more = sock.recv(n - len(data))
        if not more:
            raise EOFError('the agent ended')
        data += more
    return data


def frame(sock):
    length, kind, _, _, _ = struct.unpack('<IHHII', receive(sock, 16))
    return kind, receive(sock, length)


def volume(r):
    v = {'disk': r.number('<I'), 'part': r.number('<I'), 'offset': r.number('<Q'),
         'size': r.number('<Q'), 'sector': r.number('<I')}
    for key in ('table', 'part_type', 'part_uuid', 'part_name'):
        v[key] = r.text()
    v['part_flags'] = r.number('<I')
    for key in ('usage', 'type', 'label', 'uuid', 'version'):
        v[key] = r.text()
    v['fs_size'], v['fs_block'] = r.number('<Q'), r.number('<I')
    return v


def volumes(image):
    """What the agent of the build says of a disk."""
    ours, theirs = socket.socketpair()
    with open(image, 'rb') as disk, ours:
        fds = (theirs.fileno(), theirs.fileno(), 2, disk.fileno())
        high = [os.dup(fd) if fd > 2 else fd for fd in fds]

        def arrange():
            spare = [os.dup2(fd, 100 + i) for i, fd in enumerate(high)]
            for i, fd in enumerate(spare):
                os.dup2(fd, i)
            os.closerange(4, 200)

        agent = subprocess.Popen([os.path.join(os.environ['BUILD'], 'agent-native')],
                                 preexec_fn=arrange, close_fds=False)
        for fd in set(high) - {2}:
            os.close(fd)
        theirs.close()
        kind, hello = frame(ours)
        assert kind == HELLO and struct.unpack('<II', hello)[1] == 1, (kind, hello)
        ours.sendall(struct.pack('<IHHII', 0, CALL, OP_VOLUMES, 1, 0))
        kind, data = frame(ours)
        assert kind == DONE, data
        ours.shutdown(socket.SHUT_WR)
        assert agent.wait() == 0
    r = Reader(data)
    found = [volume(r) for _ in range(r.number('<I'))]
    assert r.at == len(data)
    return found


# ---- what others say ----

def run(*argv, **more):
    return subprocess.run(argv, check=True, capture_output=True, text=True, **more).stdout


def sfdisk(image):
    """(number, start, size, type, uuid, name, bootable) of each partition."""
    table = json.loads(run('sfdisk', '-J', image))['partitiontable']
    sector = table.get('sectorsize', 512)
    result = []
    for p in table.get('partitions', []):
        number = int(p['node'][len(image):].lstrip('p'))
        kind = p['type'].lower() if table['label'] == 'gpt' else '0x' + p['type'].lower()
        uuid = p.get('uuid', '').lower() or f"{table['id'][2:].lower()}-{number:02x}"
        result.append((number, p['start'] * sector, p['size'] * sector, kind, uuid,
                       p.get('name', ''),
                       p.get('bootable', False) or 'LegacyBIOSBootable' in p.get('attrs', '')))
    return result


def blkid(image, offset, size):
    """The values of a low-level probe; {} when nothing is found, None when it is ambivalent."""
    r = subprocess.run(['blkid', '-p', '-o', 'export', '-u', 'filesystem,raid,crypto,other',
                        '-O', str(offset), '-S', str(size), image], capture_output=True, text=True)
    if r.returncode == 8:
        return None
    return dict(line.split('=', 1) for line in r.stdout.splitlines() if '=' in line)


def unescape(text):
    return text.replace('\\ ', ' ').replace('\\', '')


def compare(image, table, sector=512):
    size = os.path.getsize(image)
    found = volumes(image)
    whole, parts = found[0], found[1:]
    check(image, 'disk', (whole['part'], whole['offset'], whole['size'], whole['table']),
          (0, 0, size, table))
    if table:
        check(image, 'sector', whole['sector'], sector)
        ours = [(v['part'], v['offset'], v['size'], v['part_type'], v['part_uuid'], v['part_name'],
                 bool(v['part_flags'] & 1)) for v in parts]
        if sector == 512:
            check(image, 'partitions', sorted(ours), sorted(sfdisk(image)))
    for v in found:
        extended = v['part_type'] in ('0x5', '0xf', '0x85')
        theirs = {} if extended else blkid(image, v['offset'], v['size'])
        name = f"volume {v['part']}"
        if theirs is None:
            check(image, name, (v['usage'], v['type']), ('ambivalent', ''))
            continue
        for ours, key in (('type', 'TYPE'), ('uuid', 'UUID'), ('usage', 'USAGE'), ('label', 'LABEL')):
            check(image, f'{name} {ours}', v[ours], unescape(theirs.get(key, '')))
    return found


bad = 0


def check(image, what, ours, theirs):
    global bad
    if ours != theirs:
        print(f'{image}: {what}:\n  ours:   {ours}\n  theirs: {theirs}')
        bad = 1


# ---- the images ----

def blank(image, size):
    with open(image, 'wb') as f:
        f.truncate(size)
    return image


def partitioned(image, size, script):
    blank(image, size)
    run('sfdisk', '-q', image, input='\n'.join(script) + '\n')
    return image


def gpt(image, size, sector, parts):
    """A table for sectors of any size, which not every sfdisk makes. parts: (start, size)."""
    linux = uuid.UUID('0fc63daf-8483-4772-8e79-3d69d8477de4').bytes_le
    entries = b''.join(struct.pack('<16s16sQQQ72s', linux, uuid.uuid4().bytes_le, start // sector,
                                   (start + n) // sector - 1, 0, b'') for start, n in parts)
    entries = entries.ljust(128 * 128, b'\0')
    last = size // sector - 1
    n = -(-len(entries) // sector)
    disk = uuid.uuid4().bytes_le

    def header(mine, other, table):
        h = struct.pack('<8sIIIIQQQQ16sQIII', b'EFI PART', 0x10000, 92, 0, 0, mine, other, 2 + n,
                        last - n - 1, disk, table, 128, 128, zlib.crc32(entries))
        return h[:16] + struct.pack('<I', zlib.crc32(h)) + h[20:]

    with open(blank(image, size), 'r+b') as f:
        f.seek(446)
        f.write(struct.pack('<BBBBBBBBII', 0, 0, 2, 0, 0xee, 255, 255, 255, 1, last))
        f.seek(510)
        f.write(b'\x55\xaa')
        for mine, other, table in ((1, last, 2), (last, 1, last - n)):
            f.seek(mine * sector)
            f.write(header(mine, other, table))
            f.seek(table * sector)
            f.write(entries)
    return image


def put(image, offset, size, *mkfs):
    """A file system, made in a file of its own, at an offset of the image."""
    blank('part', size)
    run(*mkfs, 'part')
    with open('part', 'rb') as src, open(image, 'r+b') as dst:
        dst.seek(offset)
        dst.write(src.read())
    os.unlink('part')


def main():
    image = partitioned('dos', 96 * MIB, [
        'label: dos', 'label-id: 0x12345678', 'd1 : start=2048,size=8M,type=83,bootable',
        'd2 : size=60M,type=f', 'd4 : start=90M,size=2M,type=7', 'd5 : size=8M,type=83',
        'd6 : size=4M,type=82', 'd7 : start=40M,size=8M,type=c', 'd8 : size=1M,type=ee'])
    put(image, 1 * MIB, 8 * MIB, 'mke2fs', '-q', '-t', 'ext2', '-L', 'a label')
    five = next(p for p in sfdisk(image) if p[0] == 5)
    put(image, five[1], five[2], 'mke2fs', '-q', '-t', 'ext4', '-b', '4096')
    six = next(p for p in sfdisk(image) if p[0] == 6)
    put(image, six[1], six[2], 'mkswap', '-L', 'swap')
    found = compare(image, 'dos')
    assert len(found) == 1 + 7, found

    image = partitioned('gpt', 64 * MIB, [
        'label: gpt', 'd3 : start=2048,size=8M,name="root €",type=linux,attrs=LegacyBIOSBootable',
        'd100 : size=4M,type=uefi', 'd7 : start=30M,size=16M,name=late'])
    put(image, 1 * MIB, 8 * MIB, 'mke2fs', '-q', '-t', 'ext3')
    found = compare(image, 'gpt')
    assert len(found) == 1 + 3, found

    image = gpt('sectors', 64 * MIB, 4096, [(MIB, 8 * MIB), (9 * MIB, 8 * MIB)])
    put(image, 1 * MIB, 8 * MIB, 'mke2fs', '-q', '-t', 'ext4', '-b', '4096')
    found = compare(image, 'gpt', 4096)
    assert [(v['offset'], v['size']) for v in found[1:]] == \
        [(MIB, 8 * MIB), (9 * MIB, 8 * MIB)] and found[1]['type'] == 'ext4', found

    image = blank('bare', 16 * MIB)
    compare(image, '')
    put(image, 0, 16 * MIB, 'mke2fs', '-q', '-t', 'ext4', '-L', 'bare')
    found = compare(image, '')
    assert found[0]['label'] == 'bare' and found[0]['version'] == '1.0'
    with open(image, 'r+b') as f:  # and a header of LUKS in front of it
        f.write(b'LUKS\xba\xbe\0\1' + bytes(200))
    compare(image, '')
    with open(image, 'r+b') as f:  # a swap signature, too
        f.seek(4086)
        f.write(b'SWAPSPACE2')
    compare(image, '')

    # A partition behind the end of the disk, an empty disk, and one of less than a sector.
    image = partitioned('cut', 64 * MIB, ['label: dos', 'size=10M', 'size=10M', 'size=20M'])
    os.truncate(image, 15 * MIB)
    found = volumes(image)
    assert len(found) >= 1, found
    assert volumes(blank('empty', 0))[0]['size'] == 0
    assert len(volumes(blank('tiny', 100))) == 1
    return bad


sys.exit(main())
