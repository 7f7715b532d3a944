# SPDX-License-Identifier: GPL-2.0-or-later
# variants: release
"""What the process that meets clients has left: nothing but its open files. Images that it serves can be
unlinked, their file system can be full; clients hear of it."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from serving import IMG, Server, out


def check(what, got, expected):
    if got != expected:
        print(f'{what}: {got!r}, expected {expected!r}')


def status(pid):
    with open(f'/proc/{pid}/status', encoding='ascii') as f:
        return dict(line.rstrip('\n').split(':\t', 1) for line in f)


out(IMG, 'create', '-q', '-f', 'qcow2', 'disk.qcow2', '1M')
root = os.geteuid() == 0
user = ['--user', 'nobody'] if root else []
with Server('-k', 's', *user, 'disk.qcow2') as server:
    seen = status(server.server)
    check('seccomp', seen['Seccomp'], '2')
    check('no new privileges', seen['NoNewPrivs'], '1')
    for kind in ('Inh', 'Prm', 'Eff', 'Amb'):
        check(f'capabilities {kind}', int(seen[f'Cap{kind}'], 16), 0)
    if root:
        check('bounding set', int(seen['CapBnd'], 16), 0)
        check('users', set(seen['Uid'].split()), {str(os.stat('/proc').st_uid + 65534)})
        check('groups', seen['Groups'].strip(), '')
    # Its files: the image, the socket, what it waits with, and nothing of the caller's.
    if not root:  # whom it belongs to may look
        names = [os.readlink(f'/proc/{server.server}/fd/{n}') for n in os.listdir(f'/proc/{server.server}/fd')]
        files = sorted(n for n in names if n.startswith('/') and n != '/dev/null')
        check('files', files, [os.path.abspath('disk.qcow2')])
        pipes = [n for n in names if n.startswith('pipe:')]
        check('pipes', len(pipes), 1)  # messages
    # An image without a name is as good as any.
    os.rename('disk.qcow2', 'gone')
    os.unlink('gone')
    subprocess.run(['qemu-io', '-f', 'raw', '-c', 'write -q -P 3 0 1M', '-c', 'read -q -P 3 0 1M',
                    server.uri], check=True)
    check('end', server.stop(), (0, ''))
