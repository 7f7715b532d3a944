#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# variants: asan
"""The server of a mirror's target dies or is restarted in the middle, and the migration succeeds all
the same: QEMU waits for the server and sends again what was not answered, or the job fails and is
started once more. Nothing that the guest wrote is missing."""
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
from bare import Disk, Guest, local
from hostile import run_cases
from interop import Mistake, img, run
from live import RECONNECT, Export, Place, failed, full_speed, holds, is_running, start_mirror, switch


def begin(fmt):
    """A disk with a model, and an empty target."""
    disk = Disk()
    disk.write('source')
    run('qemu-img', 'create', '-q', '-f', fmt, 'target', disk.size)
    return disk


def resumed(place, fmt, end, options=(), **mirror):
    """`end` ends the server in the middle of the job, which goes on with another one."""
    disk = begin(fmt)
    server = Export(place, 'target', fmt, *options)
    with Guest(disk, *local('source', 'raw')) as guest:
        guest.steps(30)
        place.give_keys(guest)
        start_mirror(guest, place, target={'reconnect-delay': RECONNECT}, **mirror)
        guest.steps(20)
        is_running(guest)
        guest.grant(20)
        end(server, lambda: full_speed(guest))
        with Export(place, 'target', fmt, *options):
            guest.grant(20)
            switch(guest)
            guest.steps(20)
            guest.quit()
    holds(disk, 'target', fmt, killed=end is Export.killed)


def killed():
    """What a raw image was told is in it, however the server ends."""
    resumed(Place(tcp=True, tls='x509'), 'raw', Export.killed)


def stopped():
    """A server that is asked to end writes what it holds of a qcow2 image in memory."""
    resumed(Place(), 'qcow2', Export.ended)


def killed_while_writes_wait():
    """The guest's writes wait for the target, and so for the server."""
    resumed(Place(tcp=True), 'raw', Export.killed, **{'copy-mode': 'write-blocking'})


def killed_with_all_written():
    """With this cache mode a qcow2 image, too, has what was acknowledged, however the server ends."""
    resumed(Place(), 'qcow2', Export.killed, ['--cache=writethrough'])


def started_again():
    """Without patience the job fails, and the guest does not notice. It is started once more."""
    place, disk = Place(tcp=True, tls='psk'), begin('qcow2')
    server = Export(place, 'target', 'qcow2')
    with Guest(disk, *local('source', 'raw')) as guest:
        guest.steps(30)
        place.give_keys(guest)
        start_mirror(guest, place)
        guest.steps(20)
        is_running(guest)
        guest.grant(20)
        server.killed(lambda: full_speed(guest))
        failed(guest)
        guest.cmd('blockdev-del', **{'node-name': 'mirror-target'})
        # A server that was killed leaves nothing worse than leaked clusters (exit code 3).
        if img('check', '-f', 'qcow2', 'target', code=None).code not in (0, 3):
            raise Mistake('the image is damaged')
        guest.finish()
        with Export(place, 'target', 'qcow2'):
            start_mirror(guest, place)
            guest.steps(20)
            full_speed(guest)
            switch(guest)
            guest.steps(20)
            guest.quit()
    img('check', '-r', 'leaks', '-f', 'qcow2', 'target', code=None)
    holds(disk, 'target', 'qcow2')


run_cases([killed, stopped, killed_while_writes_wait, killed_with_all_written, started_again])
