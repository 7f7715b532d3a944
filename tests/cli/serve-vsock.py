# SPDX-License-Identifier: GPL-2.0-or-later
"""--vsock: listens for the machines of this host, says where, and what is in the way; where there is no vsock
it says so."""
import os
import re
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from serving import IMG, Server


def refused(port, *why):
    """As the server says it."""
    proc = subprocess.run([IMG, 'serve', '-r', '-f', 'raw', '--vsock', str(port), 'disk'], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False)
    if proc.returncode != 1 or not all(w in proc.stderr for w in why):
        print(f'--vsock {port}: exit {proc.returncode}: {proc.stderr}')


def there():
    """Whether this kernel has it."""
    try:
        with socket.socket(socket.AF_VSOCK) as s:
            s.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
            return True
    except OSError:
        return False


with open('disk', 'wb') as disk:
    disk.truncate(1 << 20)
refused(-1, 'port')
refused(1 << 32, 'port')
if not there():
    refused(0, 'vsock')
    sys.exit()
with Server('-r', '-f', 'raw', '--vsock', '0', 'disk') as server:
    found = re.fullmatch(r'nbd\+vsock://1:(\d+)/?', server.uri)
    if not found:
        print(f'where: {server.uri}')
        sys.exit()
    refused(found[1], f'vsock port {found[1]}', os.strerror(98))
    with socket.socket(socket.AF_VSOCK) as other:  # it is taken, by us
        try:
            other.bind((socket.VMADDR_CID_ANY, int(found[1])))
            print('nobody listens there')
        except OSError:
            pass
    if server.stop() != (0, ''):
        print('it does not end in order')
