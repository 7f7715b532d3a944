# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 300
"""Exports of qemu-nbd and nbdkit as sources and targets, the peer reading the same export; servers that
can do little, or ask for whole blocks."""
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from interop import KiB, MiB, Mistake, Model, find, img, peer, run, run_rows, same_files, same_output
from nbd import nbdkit, need, qemu_nbd

SIZE = 12 * MiB
EXTENTS = ((0, 4 * KiB), (MiB + 512, 70000), (3 * MiB, 2 * MiB), (SIZE - 512, 512))


def disk(path='disk.raw'):
    model = Model(path, SIZE)
    for i, (off, length) in enumerate(EXTENTS):
        model.write(off, bytes([i + 1]) * length)
    model.copy('served.raw')
    return path


def empty(path='target.raw', size=SIZE):
    with open(path, 'wb') as f:
        f.write(b'\xee' * size)
    return path


def file_server(*filters, path='served.raw', options=()):
    return nbdkit(*options, *[f'--filter={f.split()[0]}' for f in filters], 'file', path,
                  *[p for f in filters for p in f.split()[1:]])


def reading(row, _):
    """convert, compare, checksum and map of an export are those of the file."""
    disk()
    with SERVERS[row['server']]() as server:
        img('convert', '-O', 'raw', '-f', 'raw', server.uri, 'copy.raw')
        same_files('disk.raw', 'copy.raw')
        img('compare', '-f', 'raw', '-F', 'raw', 'disk.raw', server.uri)
        a = img('checksum', '-f', 'raw', 'disk.raw').out.split()[0]
        b = img('checksum', '-f', 'raw', server.uri).out.split()[0]
        if a != b:
            raise Mistake(f'checksums differ: {a} {b}')
        same_output('map', '--output=json', '-f', 'raw', server.uri)
        same_output('info', '--output=json', '-f', 'raw', server.uri)
        if row['server'] in WRITABLE:
            writing(server)


def writing(server):
    """An export is written to, in place and as a new target; the file below has it, and nothing else."""
    model = Model('new.raw', SIZE)
    model.write(2 * MiB - 100, b'x' * 300)
    img('convert', '-n', '-f', 'raw', '-O', 'raw', 'new.raw', server.uri)
    peer('compare', '-f', 'raw', '-F', 'raw', 'new.raw', server.uri)
    same_files('new.raw', 'served.raw')
    model.write(5 * MiB, b'y' * MiB)
    img('convert', '--force', '-f', 'raw', '-O', 'raw', 'new.raw', server.uri)
    same_files('new.raw', 'served.raw')
    img('dd', '--force', '-f', 'raw', 'if=new.raw', f'of={server.uri}', 'bs=4096', 'count=700')
    peer('compare', '-f', 'raw', '-F', 'raw', 'new.raw', server.uri)


SERVERS = {
    'qemu-nbd': lambda: qemu_nbd('served.raw', 'raw'),
    'qemu-nbd, read-only': lambda: qemu_nbd('served.raw', 'raw', '-r'),
    'qemu-nbd, one client': lambda: qemu_nbd('served.raw', 'raw', '-e', '1'),
    'file': file_server,
    'file, no extents': lambda: file_server('noextents'),
    'file, nothing but data': lambda: file_server('nozero', 'noextents', 'nofilter'),
    'file, slow zeros': lambda: file_server('nozero zeromode=notrim'),
    'file, one connection': lambda: file_server('multi-conn multi-conn-mode=disable'),
    'file, whole blocks': lambda: file_server(
        'blocksize-policy blocksize-minimum=4096 blocksize-preferred=64K blocksize-maximum=128K '
        'blocksize-error-policy=error'),
    'file, small requests': lambda: file_server(
        'blocksize-policy blocksize-minimum=512 blocksize-preferred=512 blocksize-maximum=4096 '
        'blocksize-error-policy=error'),
    'file, old replies': lambda: file_server(options=('--no-sr',)),
    'file, late replies': lambda: file_server('delay rdelay=1ms'),
}
WRITABLE = [s for s in SERVERS if 'read-only' not in s]


def image_inside(row, _):
    """An export that holds a qcow2 file opens as qcow2, is read, written, checked, snapshotted; and the peer
    finds the file in order."""
    disk()
    peer('convert', '-f', 'raw', '-O', 'qcow2', 'disk.raw', 'in.qcow2')
    os.truncate('in.qcow2', 32 * MiB)
    with SERVERS_INSIDE[row['server']]() as server:
        same_output('info', '--output=json', '-f', 'qcow2', server.uri)
        img('compare', 'disk.raw', server.uri)
        img('snapshot', '-c', 'before', server.uri)
        img('resize', server.uri, '16M')
        Model('new.raw', 16 * MiB).write(7 * MiB, b'new' * 5000)
        img('convert', '-n', '-O', 'qcow2', 'new.raw', server.uri)
        img('check', server.uri)
        img('convert', '-l', 'before', '-O', 'raw', server.uri, 'before.raw')
        same_files('disk.raw', 'before.raw')
        peer('check', '-f', 'qcow2', server.uri)
        peer('compare', '-f', 'raw', '-F', 'qcow2', 'new.raw', server.uri)
        img('convert', '--force', '-O', 'qcow2', 'disk.raw', server.uri)
        peer('compare', '-f', 'raw', '-F', 'qcow2', 'disk.raw', server.uri)
    peer('check', 'in.qcow2')


SERVERS_INSIDE = {
    'qemu-nbd': lambda: qemu_nbd('in.qcow2', 'raw'),
    'whole blocks': lambda: file_server(
        'blocksize-policy blocksize-minimum=4096 blocksize-preferred=4096 blocksize-maximum=1M '
        'blocksize-error-policy=error', path='in.qcow2'),
}


def refusals(_row, _rng):
    """What cannot be: each with the name and a reason."""
    disk()
    empty('small.raw', 4 * MiB)
    with qemu_nbd('small.raw', 'raw') as server, qemu_nbd('served.raw', 'raw', '-r') as fixed:
        absent = server.uri.replace(':///', ':///absent')
        for argv, says in (
                (('convert', '-O', 'raw', 'disk.raw', server.uri), 'holds data already'),
                (('convert', '--force', '-O', 'raw', 'disk.raw', server.uri), 'the device has 4194304'),
                (('convert', '-n', '-O', 'raw', 'disk.raw', server.uri), 'smaller than input'),
                (('convert', '-n', '-O', 'raw', 'disk.raw', fixed.uri), 'read-only'),
                (('convert', '--resume', '--force', '-O', 'raw', 'disk.raw', server.uri), 'resumed'),
                (('resize', '-f', 'raw', server.uri, '1G'), 'cannot be resized'),
                (('snapshot', '-c', 'x', '-f', 'raw', server.uri), 'snapshots'),
                (('info', absent), "the server says: export 'absent' not present"),
                (('info', 'nbd+unix:///?socket=nobody.sock'), 'No such file or directory'),
                (('info', 'nbd+unix:///'), "the parameter 'socket' is missing"),
                (('info', 'nbd+unix:///?socket='), "the parameter 'socket' is missing"),
                (('info', 'nbd://localhost:65536'), 'the greatest is 65535'),
                (('info', 'nbd:localhost:65536'), 'the greatest is 65535'),
                (('info', 'nbds+unix:///?socket=' + server.path), 'whose certificates are trusted is to be said')):
            result = img(*argv, code=1)
            if says.encode() not in result.err:
                raise Mistake(f'not {says!r}\n{result.shown()}')


def small_accesses(_row, _rng):
    """Where whole blocks are asked for, parts of them are changed without the rest."""
    disk()
    model = Model('disk.raw', SIZE)
    for off, length in EXTENTS:
        model.write(off, b'd' * length)
    Model('part.raw', 1536).write(0, b'p' * 1536)
    with SERVERS['file, whole blocks']() as server:
        img('convert', '-n', '-f', 'raw', '-O', 'raw', 'disk.raw', server.uri)
        for off in (512, 4096 - 512, 8192, 16384 + 3072, SIZE - 1536):
            part = f'driver=raw,offset={off},size=1536,file.driver=nbd,file.filename={server.uri}'
            img('convert', '-n', '--target-image-opts', '-f', 'raw', 'part.raw', part)
            model.write(off, b'p' * 1536)
        img('compare', '-f', 'raw', '-F', 'raw', 'disk.raw', server.uri)
    same_files('disk.raw', 'served.raw')


def guest(_row, _rng):
    """What is inside a disk is looked at, and changed, over a connection that was made before the process
    that has it was sealed."""
    Model('served.raw', SIZE)
    run(find('mke2fs'), '-q', '-F', 'served.raw')
    Model('file', 70000).write(0, b'over the wire')
    with qemu_nbd('served.raw', 'raw') as server:
        img('cp', 'file', f'{server.uri}:/dir')
        img('cp', f'{server.uri}:/dir', 'back')
        same_files('file', 'back')
        if b'ext' not in img('filesystems', server.uri).out:
            raise Mistake('no file system is found')
        secret = img('ls', f"{server.uri.replace('nbd+', 'nbds+')}:/", code=1)
        if b'TLS' not in secret.err:
            raise Mistake(f'TLS is not refused\n{secret.shown()}')
    run(find('e2fsck'), '-fn', 'served.raw')


CHECKS = {'reading': reading, 'image inside': image_inside, 'refusals': refusals,
          'small accesses': small_accesses, 'guest': guest}

need('qemu-nbd', 'nbdkit')
if b'libnbd' in run('ldd', os.environ['IMG']).out:
    sys.exit('img is linked with libnbd: it starts slowly')
run_rows([{'check': 'reading', 'server': s} for s in SERVERS] +
         [{'check': 'image inside', 'server': s} for s in SERVERS_INSIDE] +
         [{'check': 'refusals'}, {'check': 'small accesses'}, {'check': 'guest'}],
         lambda row, rng: CHECKS[row['check']](row, rng))
