#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The disk of a running guest moves to our server, by QEMU's mirror jobs, while the guest writes;
then the guest goes on with the new disk. What it wrote is all there."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
from bare import DISCARD, DISCARDED, LANES, SECTOR, Disk, Guest, local
from hostile import run_cases
from interop import Mistake, img, run
from live import Export, Place, full_speed, holds, is_running, start_mirror, switch


def migrate(place, fmt, **mirror):
    """Returns the disk's model; the new disk is in `target`."""
    disk = Disk()
    disk.write('source')
    run('qemu-img', 'create', '-q', '-f', fmt, 'target', disk.size)
    with Export(place, 'target', fmt), Guest(disk, *local('source', 'raw')) as guest:
        guest.steps(30)
        place.give_keys(guest)
        start_mirror(guest, place, **mirror)
        guest.steps(30)
        is_running(guest)
        guest.grant(30)
        full_speed(guest)
        switch(guest)
        guest.steps(60)
        guest.quit()
    holds(disk, 'target', fmt)
    return disk


def raw_over_tls():
    migrate(Place(tcp=True, tls='x509'), 'raw')


def qcow2_over_tls():
    disk = migrate(Place(tcp=True, tls='x509'), 'qcow2')
    # What the guest discarded last, on the new disk, takes no space there.
    spans = [(r['start'], r['start'] + r['length'])
             for r in json.loads(img('map', '--output=json', '-f', 'qcow2', 'target').out) if r['data']]
    last = [disk.plan(step, lane) for step in range(disk.done - 59, disk.done + 1) for lane in range(LANES)]
    places = [(at * SECTOR, (at + count) * SECTOR) for what, at, count in last
              if what == DISCARD and all(by & DISCARDED for by in disk.by[at:at + count])]
    if not places or any(a < end and at < b for at, end in places for a, b in spans):
        raise Mistake(f'discarded: {places}, still held: {spans}')


def write_blocking():
    migrate(Place(tcp=True, tls='psk'), 'qcow2', **{'copy-mode': 'write-blocking'})


def drive_mirror():
    """The older command opens the target by itself, with a URI, and asks for discards."""
    place, disk = Place(), Disk()
    disk.write('source')
    run('qemu-img', 'create', '-q', '-f', 'raw', 'target', disk.size)
    with Export(place, 'target', 'raw'), Guest(disk, *local('source', 'raw')) as guest:
        guest.steps(30)
        guest.cmd('drive-mirror', **{
            'job-id': 'mirror', 'device': 'disk', 'target': f'nbd+unix:///disk?socket={place.path}',
            'format': 'raw', 'mode': 'existing', 'sync': 'full', 'node-name': 'mirror-target'})
        guest.grant(30)
        switch(guest)
        guest.steps(30)
        guest.quit()
    holds(disk, 'target', 'raw')


run_cases([raw_over_tls, qcow2_over_tls, write_blocking, drive_mirror])
