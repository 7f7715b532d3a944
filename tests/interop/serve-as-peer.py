# SPDX-License-Identifier: GPL-2.0-or-later
# variants: release
"""Called qemu-nbd, the program takes that one's command lines: clients are told the same of the export, and
it lives as long."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from interop import find
from serving import IMG, out

PEER = find('qemu-nbd')
find('nbdinfo')
os.symlink(IMG, 'qemu-nbd')
SOCK = os.path.abspath('sock')
URI = f'nbd+unix:///?socket={SOCK}'


def told(prog, *argv):
    """What clients hear of the export; --fork returns when the server listens."""
    subprocess.run([prog, '--fork', '--pid-file', 'pid', '-t', '-k', SOCK, *argv], check=True)
    with open('pid', encoding='ascii') as f:
        pid = int(f.read())
    try:
        exports = json.loads(out('nbdinfo', '--list', '--json', URI))['exports']
    finally:
        os.kill(pid, 15)
    while os.path.exists(SOCK):  # removed at its end
        os.sched_yield()
    for export in exports:
        export.pop('uri', None)
    return exports


out('qemu-img', 'create', '-q', '-f', 'qcow2', 'disk.qcow2', '3M')
out('qemu-img', 'snapshot', '-c', 'first', 'disk.qcow2')
out('qemu-img', 'bitmap', '--add', 'disk.qcow2', 'dirty')
bad = 0
for line in ('', '-r', '-r -e 3', '-e 0', '-x name -D words', '-f qcow2 -A', '-r -B dirty', '-l first',
             '-l snapshot.name=first', '--cache=none --aio=native', '-n --discard=unmap --detect-zeroes=unmap',
             '-f raw -o 65536', '--image-opts', '-s', '-v'):
    image = 'driver=qcow2,file.filename=disk.qcow2' if line == '--image-opts' else 'disk.qcow2'
    theirs, ours = (told(p, *line.split(), image) for p in (PEER, './qemu-nbd'))
    if ours != theirs:
        bad = 1
        print(f'{line or "no options"}:\n ours   {ours}\n theirs {theirs}')
# Without -t it ends when its client has left.
for prog in (PEER, './qemu-nbd'):
    subprocess.run([prog, '--fork', '-k', SOCK, 'disk.qcow2'], check=True)
    out('qemu-io', '-f', 'raw', '-c', 'write -q 0 64k', URI)
    while os.path.exists(SOCK):
        os.sched_yield()
out('qemu-img', 'check', '-q', 'disk.qcow2')
sys.exit(bad)
