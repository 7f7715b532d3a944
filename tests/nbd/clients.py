# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 300
"""The NBD server and the clients that people use: nbdinfo, nbdcopy, libnbd, qemu-img, qemu-io, nbd-client."""
import json
import os
import subprocess
import sys

try:
    import nbd  # libnbd's: before tests/lib, which has another of that name
except ImportError:  # python3 may be another than the system's
    sys.path.append('/usr/lib/python3/dist-packages')
    try:
        import nbd
    except ImportError:
        print('no libnbd for python')
        sys.exit(77)
sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
import nbd_client
from nbd_server import MiB, Server, held, need, pattern, raw_disk, require, same, serve_cases, tool

need('nbdinfo', 'nbdcopy', 'qemu-img', 'qemu-io', 'nbd-client')
SIZE = 8 * MiB
PARTS = ((0, MiB), (3 * MiB, 2 * MiB), (SIZE - 4096, 4096))
PATH = raw_disk('x.raw', SIZE, *PARTS)
WHAT = 'a disk with ü'


def fresh():
    raw_disk(PATH, SIZE, *PARTS)


def same_as_disk(path):
    require(held(path, 0, SIZE) == held(PATH, 0, SIZE), f'{path} differs')


def output(*argv):
    """Of a program that may say things on stderr."""
    return subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          check=True, timeout=nbd_client.PATIENCE).stdout.decode()


# ---- nbdinfo ----

def nbdinfo_lists(s):
    whole = json.loads(output('nbdinfo', '--json', '--list', s.uri()))
    same((whole['protocol'], whole['TLS'], whole['structured']), ('newstyle-fixed', False, True))
    export = whole['exports'][0]
    for key, want in (('export-name', ''), ('description', WHAT), ('export-size', SIZE), ('is_read_only', False),
                      ('can_flush', True), ('can_fua', True), ('can_trim', True), ('can_zero', True),
                      ('can_df', True), ('can_cache', True), ('can_multi_conn', True)):
        same(export[key], want, key)
    same(export['contexts'], ['base:allocation'])
    same(len(whole['exports']), 1)


def nbdinfo_maps(s):
    rows = json.loads(output('nbdinfo', '--map', '--json', s.uri()))
    found = [(r['offset'], r['length'], r['type']) for r in rows]
    hole = nbd_client.STATE_HOLE | nbd_client.STATE_ZERO
    same(found, [(0, MiB, 0), (MiB, 2 * MiB, hole), (3 * MiB, 2 * MiB, 0),
                 (5 * MiB, 3 * MiB - 4096, hole), (SIZE - 4096, 4096, 0)])


# ---- nbdcopy ----

def nbdcopy_out(s):
    for options in ([], ['--synchronous'], ['--connections=4', '--requests=64', '--request-size=65536'],
                    ['--no-extents']):
        tool('nbdcopy', *options, s.uri(), 'copy.raw')
        same_as_disk('copy.raw')


def nbdcopy_in(s):
    for options in ([], ['--synchronous'], ['--connections=4', '--threads=2'], ['--allocated'], ['--flush']):
        source = raw_disk('source.raw', SIZE, (MiB + 512, 3 * MiB), (SIZE - 512, 512))
        tool('nbdcopy', *options, source, s.uri())
        same_as_disk(source)
    fresh()


# ---- qemu ----

def qemu_img_reads(s):
    info = json.loads(output('qemu-img', 'info', '--output=json', s.uri()))
    same((info['format'], info['virtual-size']), ('raw', SIZE))
    rows = json.loads(output('qemu-img', 'map', '-f', 'raw', '--output=json', s.uri()))
    same([(r['start'], r['length'], r['zero']) for r in rows],
         [(0, MiB, False), (MiB, 2 * MiB, True), (3 * MiB, 2 * MiB, False), (5 * MiB, 3 * MiB - 4096, True),
          (SIZE - 4096, 4096, False)])
    tool('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', s.uri(), 'copy.raw')
    same_as_disk('copy.raw')
    tool('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', s.uri(), PATH)


def qemu_img_writes(s):
    source = raw_disk('source.raw', SIZE, (5 * MiB + 512, MiB))
    tool('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', source, s.uri())
    same_as_disk(source)
    fresh()


def qemu_io_does_everything(s):
    out = tool('qemu-io', '-f', 'raw', '-c', 'write -P 7 5000 100000', '-c', 'read -P 7 5000 100000',
               '-c', 'write -z 8000 1000', '-c', 'read -P 0 8000 1000', '-c', 'write -z -u 65536 65536',
               '-c', 'write -f -P 8 200000 4096', '-c', 'read -P 8 200000 4096', '-c', 'discard 1048576 65536',
               '-c', 'flush', '-c', 'aio_write -P 9 300000 70000', '-c', 'aio_write -P 10 400000 70000',
               '-c', 'aio_flush', '-c', 'read -P 9 300000 70000', '-c', f'write -P 11 {SIZE - 512} 512',
               s.uri())
    require('rror' not in out and 'fail' not in out, out)
    same(held(PATH, 5000, 3000), b'\x07' * 3000)
    same(held(PATH, 8000, 1000), bytes(1000))
    same(held(PATH, 400000, 70000), b'\x0a' * 70000)
    same(held(PATH, SIZE - 512, 512), b'\x0b' * 512)
    fresh()


# ---- libnbd ----

def connected(s, **settings):
    h = nbd.NBD()
    h.add_meta_context('base:allocation')
    for name, value in settings.items():
        getattr(h, name)(value)
    h.connect_uri(s.uri())
    return h


def libnbd_reads_and_writes(s):
    h = connected(s)
    same(h.get_size(), SIZE)
    same(bytes(h.pread(5000, 3 * MiB + 7)), pattern(3 * MiB + 7, 5000))
    h.pwrite(b'z' * 5000, MiB + 1, nbd.CMD_FLAG_FUA)
    same(bytes(h.pread(5002, MiB)), b'\0' + b'z' * 5000 + b'\0')
    h.zero(5000, MiB + 1)
    h.trim(4096, 0)
    h.cache(MiB, 0)
    h.flush()
    h.shutdown()
    fresh()


def libnbd_takes_structured_reads(s):
    h, chunks = connected(s), []

    def chunk(data, offset, kind, error):
        chunks.append((offset, len(data), kind))
        return error.value
    h.pread_structured(2 * MiB, MiB // 2, chunk)
    same(sum(n for _, n, kind in chunks if kind == nbd.READ_DATA), MiB // 2)
    same([offset for offset, _, kind in chunks if kind == nbd.READ_HOLE], [MiB])
    h.shutdown()


def libnbd_takes_status(s):
    h, found = connected(s), []

    def extent(context, offset, entries, _error):
        same((context, offset), ('base:allocation', MiB))
        found.extend(entries)
    h.block_status(4 * MiB, MiB, extent)
    same(found[:4], [2 * MiB, 3, 2 * MiB, 0])
    h.shutdown()


def libnbd_with_many_in_flight(s):
    h, buffers = connected(s), []
    for n in range(200):
        buffer = nbd.Buffer(4096)
        buffers.append((n, buffer, h.aio_pread(buffer, n * 4096)))
    for n, buffer, cookie in buffers:
        while not h.aio_command_completed(cookie):
            h.poll(-1)
        require(bytes(buffer.to_bytearray()) == pattern(n * 4096, 4096), f'read {n}')
    h.shutdown()


def libnbd_is_told_of_mistakes(s):
    h = connected(s)
    h.set_strict_mode(0)
    for function, args, want in ((h.pread, (512, SIZE), 22), (h.pwrite, (b'x' * 512, SIZE), 28),
                                 (h.trim, (512, SIZE), 22), (h.zero, (512, SIZE), 28),
                                 (h.pread, (512, 2**63 - 512), 22)):
        try:
            function(*args)
        except nbd.Error as e:
            same(e.errnum, want, function.__name__)
        else:
            require(False, f'{function.__name__}{args} succeeds')
    same(bytes(h.pread(512, 0)), pattern(0, 512))
    h.shutdown()


def libnbd_haggles(s):
    h, names = nbd.NBD(), []
    h.set_opt_mode(True)
    h.connect_uri(s.uri())
    h.opt_list(lambda name, description: names.append((name, description)))
    same(names, [('', WHAT)])
    names.clear()
    h.opt_list_meta_context(names.append)
    same(names, ['base:allocation'])
    h.set_export_name('other')
    try:
        h.opt_info()
        require(False, 'an unknown export is known')
    except nbd.Error:
        pass
    h.set_export_name('')
    h.set_full_info(True)
    h.opt_info()
    same((h.get_size(), h.get_export_description()), (SIZE, WHAT))
    h.opt_go()
    same(bytes(h.pread(512, 0)), pattern(0, 512))
    h.shutdown()


def libnbd_without_structured_replies(s):
    h = nbd.NBD()
    h.set_request_structured_replies(False)
    h.connect_uri(s.uri())
    same(bytes(h.pread(MiB, 3 * MiB)), pattern(3 * MiB, MiB))
    h.shutdown()


def libnbd_with_padding(s):
    h = nbd.NBD()
    h.set_handshake_flags(nbd.HANDSHAKE_FLAG_FIXED_NEWSTYLE)
    h.connect_uri(s.uri())
    same(bytes(h.pread(512, 0)), pattern(0, 512))
    h.shutdown()


# ---- the kernel's client, as far as it goes without a kernel that takes part ----

def nbd_client_lists(s):
    same(tool('nbd-client', '-u', s.path, '-l').splitlines()[-1], f': {WHAT}')


def nbd_client_shakes_hands(s):
    out = tool('nbd-client', '-u', s.path, '/dev/null', codes=(1,))
    require('size = 8MB' in out, out)


serve_cases(Server('-f', 'raw', '-D', WHAT, PATH), globals())
