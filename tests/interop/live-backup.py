#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# variants: asan
"""Backups of a running guest, pulled by our client from QEMU's NBD server: all of the disk once, then
what a dirty bitmap has, over TLS; the guest writes meanwhile. And backups of a disk that our server
exports with a bitmap, pulled by QEMU's tools and by our client."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
from bare import Disk, Guest, local
from hostile import run_cases
from interop import Mistake, img, peer, run
from live import Export, Place, holds


def point_in_time(guest, n):
    """From now on, what the disk holds can be read as export `pN`, and bitmap `bN` has what changes
    after this moment; of the export, bitmap b(N-1) has what changed since the last time."""
    run('qemu-img', 'create', '-q', '-f', 'qcow2', f'fleece{n}', guest.disk.size)
    guest.cmd('blockdev-add', **{
        'driver': 'qcow2', 'node-name': f'p{n}', 'backing': 'disk',
        'file': {'driver': 'file', 'filename': f'fleece{n}'}})
    actions = [('block-dirty-bitmap-add', {'node': 'disk', 'name': f'b{n}'}),
               ('blockdev-backup', {'job-id': f'p{n}', 'device': 'disk', 'target': f'p{n}', 'sync': 'none'})]
    if n > 0:
        actions.insert(0, ('block-dirty-bitmap-disable', {'node': 'disk', 'name': f'b{n - 1}'}))
    guest.cmd('transaction', actions=[{'type': kind, 'data': data} for kind, data in actions])
    export = {'type': 'nbd', 'id': f'e{n}', 'node-name': f'p{n}', 'name': f'p{n}'}
    if n > 0:
        export['bitmaps'] = [{'node': 'disk', 'name': f'b{n - 1}'}]
    guest.cmd('block-export-add', **export)


def over(guest, n):
    """The backup is done."""
    guest.cmd('block-export-del', id=f'e{n}')
    guest.event('BLOCK_EXPORT_DELETED', id=f'e{n}')
    guest.cmd('job-cancel', id=f'p{n}')
    guest.event('JOB_STATUS_CHANGE', id=f'p{n}', status='null')
    guest.cmd('blockdev-del', **{'node-name': f'p{n}'})


def pulled_from(place):
    """A guest's disk at two points in time, by export name."""
    disk = Disk()
    disk.write('source')
    with Guest(disk, *local('source', 'raw')) as guest:
        if place.tls:
            guest.cmd('object-add', **{**place.client_object(), 'endpoint': 'server'})
        guest.steps(100)
        guest.cmd('nbd-server-start', **{'addr': place.server_address(),
                                         **({'tls-creds': 'tls'} if place.tls else {})})
        point_in_time(guest, 0)
        guest.grant(40)
        img('convert', '-f', 'raw', '-O', 'qcow2', place.uri('p0'), 'backup')
        holds(disk, 'backup', 'qcow2')
        over(guest, 0)
        guest.finish()
        point_in_time(guest, 1)
        guest.grant(40)
        out = json.loads(img('mirror', '-q', '--bitmap', 'b0', '--output=json', place.uri('p1'), 'backup').out)
        if out['mode'] != 'incremental' or not 0 < out['copied'] < disk.size // 2:
            raise Mistake(f'copied: {out}')
        holds(disk, 'backup', 'qcow2')
        over(guest, 1)
        guest.finish()
        guest.quit()


def from_qemu():
    pulled_from(Place())


def from_qemu_over_tls():
    pulled_from(Place(tls='x509'))


def run_on(place, disk, fmt, steps):
    """A guest boots from our server and does some steps."""
    with Export(place, 'root', fmt), Guest(disk, '-blockdev', json.dumps(place.blockdev('disk'))) as guest:
        guest.steps(steps)
        guest.quit()


def dirty_for_peer(place, bitmap):
    """The dirty ranges that the peer sees. It shows them as ranges without data."""
    node = place.blockdev('disk')
    options = ','.join(['driver=nbd', f"server.type=unix,server.path={place.path}", f"export={node['export']}",
                        f'x-dirty-bitmap=qemu:dirty-bitmap:{bitmap}'])
    ranges = json.loads(peer('map', '--output=json', '--image-opts', options).out)
    return [(r['start'], r['length']) for r in ranges if not r['data']]


def from_our_server():
    """A guest runs from our server, which notes in a bitmap what it writes. Later the server exports
    the disk with that bitmap, and what it has is put over the older backup."""
    place, disk = Place(), Disk()
    disk.write('first')
    img('convert', '-q', '-f', 'raw', '-O', 'qcow2', 'first', 'root')
    run_on(place, disk, 'qcow2', 60)
    img('convert', '-q', '-f', 'qcow2', '-O', 'raw', 'root', 'backup')
    img('bitmap', '--add', '-f', 'qcow2', 'root', 'changes')
    run_on(place, disk, 'qcow2', 40)
    with Export(place, 'root', 'qcow2', '-r', '-B', 'changes'):
        pulled = img('mirror', '-q', '--bitmap', 'changes', '--output=json', place.uri(), 'backup')
        result, dirty = json.loads(pulled.out), dirty_for_peer(place, 'changes')
        if result['bitmap-cleared'] or not 0 < result['copied'] < disk.size // 2 or \
                result['copied'] != sum(length for _, length in dirty):
            raise Mistake(f'dirty for the peer: {dirty}\n{pulled.shown()}')
    holds(disk, 'backup', 'raw')


run_cases([from_qemu, from_qemu_over_tls, from_our_server])
