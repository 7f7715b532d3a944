# SPDX-License-Identifier: GPL-2.0-or-later
# variants: release
"""Where partitions are: each one that sfdisk makes is where it says, in each kind of table, and holds what
was written there; those that it does not list cannot be served."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from interop import find
from serving import IMG, out

for program in ('sfdisk', 'nbdcopy'):
    find(program)
MiB = 1 << 20

TABLES = {
    'dos': 'label: dos\n,1M\n,2M,83\n',
    'holes': 'label: dos\n4 : start=1M, size=1M\n2 : start=3M, size=1M\n',
    'logical': 'label: dos\n1M,1M\n,16M,5\n,1M\n,2M\n,3M\n,1M\n',
    'moved': 'label: dos\n2 : start=1M, size=12M, type=f\n5 : start=8M, size=1M\n6 : start=2M, size=1M\n',
    'gpt': 'label: gpt\n,1M\n,2M\n10 : size=3M\n',
    'long': 'label: gpt\ntable-length: 256\n200 : size=1M\n',
    'short': 'label: gpt\ntable-length: 4\n4 : size=1M\n',
}


def refused(path, number):
    out(IMG, 'serve', '-r', '-f', 'raw', '-P', str(number), '--run', 'true', path, code=1)


for name, script in TABLES.items():
    disk = name + '.raw'
    with open(disk, 'wb') as f:
        f.truncate(32 * MiB)
    os.system(f"printf '%b' '{script}' | sfdisk -q {disk}")
    table = json.loads(out('sfdisk', '--json', disk))['partitiontable']
    numbers = {}
    with open(disk, 'r+b') as f:
        for part in table['partitions']:
            number = int(part['node'][len(disk):])
            numbers[number] = part
            if part.get('type') not in ('5', 'f'):
                f.seek(part['start'] * 512)
                f.write(b'%d' % number * 100)
    for number in sorted({*range(1, 8), *numbers, 201, 4294967295}):
        part = numbers.get(number)
        if not part or part.get('type') in ('5', 'f'):
            refused(disk, number)
            continue
        out(IMG, 'serve', '-r', '-f', 'raw', '-P', str(number), '--run', 'nbdcopy "$uri" part', disk)
        with open('part', 'rb') as f:
            head = f.read(1000)
        if os.path.getsize('part') != part['size'] * 512 or not head.startswith(b'%d' % number * 100):
            print(f'{name}: partition {number}: {os.path.getsize("part")} bytes, begins with {head[:10]}')
            sys.exit(1)
        os.unlink('part')
