# SPDX-License-Identifier: GPL-2.0-or-later
"""Several exports of one NBD server: names, descriptions, sizes to the byte, who may write, contexts and
clients of each."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
import nbd_client as nbd
from nbd_client import EINVAL, ENOSPC, EPERM
from nbd_server import MODES, MiB, Server, ended, fails, held, need, pattern, raw_disk, refused, require, same, \
    serve_cases, tool

SIZES = (0, 1, 511, 512, 513, 4095, 1000001, MiB)
LONG = 'n' * 4096
EXPORTS = {'plain': 'a raw disk', 'image': 'ünï', 'protected': '', 'one-by-one': '', LONG: 'd' * 4096,
           **{f'size {n}': '' for n in SIZES}}


def make():
    """The options for all exports."""
    raw_disk('plain.raw', MiB, (0, MiB))
    tool('qemu-img', 'create', '-q', '-f', 'qcow2', 'image.qcow2', MiB)
    tool('qemu-img', 'bitmap', '--add', 'image.qcow2', 'b')
    rows = [('plain', 'plain.raw', 'format=raw'),
            ('image', 'image.qcow2', 'format=qcow2,bitmap=b,allocation-depth=on'),
            ('protected', raw_disk('protected.raw', MiB, (0, MiB)), 'format=raw,read-only=on'),
            ('one-by-one', raw_disk('one.raw', MiB), 'format=raw,clients=1'),
            (LONG, raw_disk('long.raw', MiB), 'format=raw')]
    rows += [(f'size {n}', raw_disk(f'{n}.raw', n, (0, n)), 'format=raw') for n in SIZES]
    for name, path, how in rows:
        yield '--export'
        what = f',description={EXPORTS[name]}' if EXPORTS[name] else ''
        yield f'name={name},file={os.path.abspath(path)},{how}{what}'


# ---- names ----

def all_are_listed(s):
    same(dict(s.handshake().list()), EXPORTS)


def other_clients_list_the_same(s):
    rows = json.loads(tool('nbdinfo', '--json', '--list', s.uri()))['exports']
    same({r['export-name']: r.get('description', '') for r in rows}, EXPORTS)
    same({r['export-name']: r['export-size'] for r in rows if r['export-name'].startswith('size')},
         {f'size {n}': n for n in SIZES})
    same([r['export-name'] for r in rows if r['is_read_only']], ['protected'])


def each_has_its_own_name_and_description(s):
    h = s.handshake()
    for name, what in EXPORTS.items():
        info = h.info(name, [nbd.INFO_NAME, nbd.INFO_DESCRIPTION, nbd.INFO_BLOCK_SIZE])
        same(info.name or name, name)
        same(info.description or '', what)


def no_other_name_will_do(s):
    h = s.handshake().structured_reply()
    for name in ('', 'plai', 'plain ', 'Plain', 'plain/', '../plain', 'size', LONG[:-1]):
        refused(nbd.ERR_UNKNOWN, h.info, name)
        refused(nbd.ERR_UNKNOWN, h.go, name)
        refused(nbd.ERR_UNKNOWN, h.list_contexts, name)
        ended(s.handshake().export_name, name)


def names_reach_the_right_disk(s):
    for name in ('plain', 'image'):
        for mode in ('simple', 'extended'):
            t = s.go(mode, name)
            t.write(8192, name.encode() * 100, nbd.FUA)
            t.disconnect()
    same(held('../plain.raw', 8192, 10), b'plainplain')
    t = s.go('simple', 'image')
    same(t.read(8192, 10), b'imageimage')
    t.disconnect()
    t = s.handshake().export_name('plain')
    same(t.read(8192, 10), b'plainplain')
    t.disconnect()


# ---- sizes ----

def sizes_are_exact(s):
    for n in SIZES:
        for mode in MODES:
            t = s.go(mode, f'size {n}')
            same((t.size, t.info.size), (n, n))
            if n:
                require(t.read(0, n) == pattern(0, n), 'wrong bytes')
                same(t.read(n - 1, 1), pattern(n - 1, 1))
                t.write(n - 1, pattern(n - 1, 1), nbd.FUA)
                t.zero(n - 1, 1)
                t.write(n - 1, pattern(n - 1, 1))
                t.trim(0, n)
                t.write(0, pattern(0, n))
            fails(EINVAL, t.read, n, 1)
            fails(ENOSPC, t.write, n, b'x')
            fails(ENOSPC, t.zero, n, 1)
            t.flush()
            t.disconnect()
        same(os.path.getsize(f'../{n}.raw'), n)
        require(held(f'../{n}.raw', 0, n) == pattern(0, n), 'wrong bytes in the file')


def block_sizes_are_kept(s):
    """Whatever they are: what does not obey them fails, and what does works."""
    for name in EXPORTS:
        t = s.go('structured', name)
        least, _, most = t.info.block
        if least > 1:
            fails(EINVAL, t.read, 1, least)
            fails(EINVAL, t.write, 0, b'x')
        if t.size >= most + least:
            fails((EINVAL, nbd.EOVERFLOW), t.read, 0, most + least)
        t.disconnect()


# ---- read-only ----

def nobody_writes_to_a_protected_disk(s):
    for mode in MODES:
        t = s.go(mode, 'protected')
        require(t.flags & nbd.READ_ONLY, 'no READ_ONLY')
        for n in (1, 512, 65536):
            fails(EPERM, t.write, 0, b'x' * n)
            fails(EPERM, t.write, 0, b'x' * n, nbd.FUA)
            fails(EPERM, t.zero, 0, n)
            fails(EPERM, t.trim, 0, n)
        fails((EPERM, ENOSPC), t.write, MiB, b'x')
        t.flush()
        t.cache(0, 4096)
        same(t.read(0, 512), pattern(0, 512))
        t.disconnect()
    require(held('../protected.raw', 0, MiB) == pattern(0, MiB), 'the disk changed')


# ---- contexts, clients ----

def contexts_are_those_of_the_export(s):
    h = s.handshake().structured_reply()
    same(set(h.list_contexts('plain')), {'base:allocation'})
    same(set(h.list_contexts('image')), {'base:allocation', 'qemu:allocation-depth', 'qemu:dirty-bitmap:b'})
    same(h.set_contexts('plain', ['qemu:dirty-bitmap:b']), {})
    h.set_contexts('image', ['qemu:dirty-bitmap:b'])
    t = h.go('plain')  # of another export: nothing is selected
    fails(EINVAL, t.status, 0, 512)
    t.disconnect()
    t = s.go('structured', 'image', ['qemu:dirty-bitmap:b'])
    same(list(t.status(0, 512)), ['qemu:dirty-bitmap:b'])
    t.disconnect()


def one_client_at_a_time(s):
    first = s.go('structured', 'one-by-one')
    h = s.handshake()
    refused((nbd.ERR_POLICY, nbd.ERR_UNKNOWN, nbd.ERR_SHUTDOWN), h.go, 'one-by-one')
    ended(s.handshake().export_name, 'one-by-one')
    h.info('one-by-one')
    first.disconnect()
    s.wait_for_files(s.idle_files + 2)  # h, and the one that tried EXPORT_NAME
    second = h.go('one-by-one')
    second.disconnect()


def exports_do_not_wait_for_each_other(s):
    clients = [s.go(MODES[n % 3], name) for n, name in enumerate(EXPORTS)]
    for t in clients:
        if t.size >= 512:
            t.submit(nbd.READ, 0, 512)
    for t in reversed(clients):
        t.wait_all()
        t.disconnect()


need('nbdinfo', 'qemu-img')
serve_cases(Server(*make()), globals())
