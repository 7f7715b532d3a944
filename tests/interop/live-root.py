#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# variants: release
"""A guest that boots from our server, and goes on when the server is killed or restarted under it."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
from bare import Disk, Guest
from hostile import run_cases
from interop import run
from live import RECONNECT, Export, Place, holds


def boots(place, fmt, end):
    disk = Disk()
    disk.write('root')
    if fmt != 'raw':
        run('qemu-img', 'convert', '-f', 'raw', '-O', fmt, 'root', f'root.{fmt}')
        os.rename(f'root.{fmt}', 'root')
    keys = ['-object', json.dumps(place.client_object())] if place.tls else []
    node = json.dumps(place.blockdev('disk', **{'reconnect-delay': RECONNECT}))
    server = Export(place, 'root', fmt)
    with Guest(disk, *keys, '-blockdev', node) as guest:
        guest.steps(50)
        end(server, lambda: guest.grant(50))  # while requests are in flight
        server = Export(place, 'root', fmt)
        guest.finish()
        end(server)                           # while none are
        with Export(place, 'root', fmt):
            guest.steps(50)
            guest.cmd('system_reset')
            guest.booted()
            guest.steps(50)
            guest.quit()
    holds(disk, 'root', fmt)


def killed():
    boots(Place(tcp=True, tls='x509'), 'raw', Export.killed)


def stopped():
    boots(Place(tcp=True), 'qcow2', Export.ended)


run_cases([killed, stopped])
