# SPDX-License-Identifier: GPL-2.0-or-later
"""Bitmaps that one program makes, fills, merges, resizes and copies are the other's: the same bits, as a
third reader sees them, and as qemu-nbd tells its clients."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from interop import (KiB, MiB, Mistake, bitmaps, checked, covering, find, img, ours, peer,
                     peer_is_reference, qemu_io, run, run_rows, same_output)

NAME, SIZE = 'disk.qcow2', 10 * MiB + 512
WHO = {'we': ours, 'peer': peer}
PARAMS = {
    'make': ['we', 'peer'], 'merge': ['we', 'peer'], 'resize': ['we', 'peer'],
    'copy': ['we', 'peer', 'stream', 'over'], 'clear': ['we', 'peer'],
    'cluster': [512, 4 * KiB, 64 * KiB, 2 * MiB], 'granularity': [512, 4 * KiB, MiB],
    'change': [0, 3 * MiB, -4 * MiB], 'backing': [False, True],
}


def sound(path, expected):
    checked(path)
    same_output('info', '--output=json', path)
    if bitmaps(path) != expected:
        raise Mistake(f'{path}: {bitmaps(path)}\nexpected: {expected}')


def as_nbd_tells(path, name):
    """The dirty bytes of a bitmap that qemu-nbd exports."""
    sock = os.path.abspath('nbd.sock')
    with subprocess.Popen(['qemu-nbd', '-r', '-f', 'qcow2', '-k', sock, '-B', name, '--fork',
                           '--pid-file', 'nbd.pid', path], stdout=subprocess.DEVNULL) as server:
        if server.wait() != 0:
            raise Mistake('qemu-nbd does not start')
    try:
        text = run('nbdinfo', '--json', f'--map=qemu:dirty-bitmap:{name}',
                   f'nbd+unix:///?socket={sock}').out.decode()
    finally:
        with open('nbd.pid', encoding='ascii') as f:
            os.kill(int(f.read()), 15)
    import json  # pylint: disable=import-outside-toplevel
    return sum(e['length'] for e in json.loads(text) if e['type'] & 1)


def copy(row, out):
    if row['copy'] == 'stream':
        with open(out, 'wb') as f:
            subprocess.run([os.environ['IMG'], 'convert', '--bitmaps', '-O', 'qcow2', NAME, '-'],
                           stdout=f, check=True)
    elif row['copy'] == 'over':
        size = int.from_bytes(open(NAME, 'rb').read(32)[24:], 'big')
        peer('create', '-q', '-f', 'qcow2', '-o', f'cluster_size={row["cluster"]}', out, size)
        ours('convert', '-n', '--bitmaps', '-O', 'qcow2', NAME, out)
    else:
        WHO[row['copy']]('convert', '--bitmaps', '-O', 'qcow2', '-o',
                         f'cluster_size={row["cluster"]}', NAME, out)


def writes(rng, row):
    """Commands of qemu-io, and the bits that they set."""
    gran, commands, bits = row['granularity'], [], set()
    for _ in range(12):
        what = rng.choice(['write -P 7', 'write -z', 'discard'])
        off, length = rng.randrange(SIZE // 512 - 1) * 512, rng.choice([512, 4096, 200 * KiB])
        length = min(length, SIZE - off)
        commands.append(f'{what} {off} {length}')
        bits.update(range(off // gran, (off + length - 1) // gran + 1))
    return commands, bits


def check_row(row, rng):
    backing = ['-b', 'base.raw', '-F', 'raw'] if row['backing'] else []
    peer('create', '-q', '-f', 'raw', 'base.raw', MiB)
    peer('create', '-q', '-f', 'qcow2', '-o', f'cluster_size={row["cluster"]}', *backing, NAME, SIZE)
    WHO[row['make']]('bitmap', '--add', '-g', row['granularity'], NAME, 'first')
    commands, bits = writes(rng, row)
    qemu_io(NAME, *commands)
    expected = {'first': (2, row['granularity'], sorted(bits))}
    sound(NAME, expected)
    # Coarser, and not enabled.
    WHO[row['merge']]('bitmap', '--add', '--disable', '--merge', 'first', '-g', 4 * MiB, NAME, 'sum')
    expected['sum'] = (0, 4 * MiB, sorted({b * row['granularity'] // (4 * MiB) for b in bits}))
    sound(NAME, expected)
    if row['change']:
        WHO[row['resize']]('resize', '-q', '--shrink', NAME, SIZE + row['change'])
        size = SIZE + row['change']
        expected = {k: (f, g, [b for b in v if b * g < size]) for k, (f, g, v) in expected.items()}
        sound(NAME, expected)
    copy(row, 'copy.qcow2')
    sound('copy.qcow2', expected)
    WHO[row['clear']]('bitmap', '--clear', NAME, 'first')
    expected['first'] = (2, row['granularity'], [])
    sound(NAME, expected)


def what_clients_see():
    peer('create', '-q', '-f', 'qcow2', NAME, SIZE)
    img('bitmap', '--add', '-g', 4096, NAME, 'b')
    with open('data.raw', 'wb') as f:
        f.truncate(SIZE)
        for off in (0, 3 * MiB, 7 * MiB + 4096):
            f.seek(off)
            f.write(b'data' * 16384)
    img('convert', '-n', '--target-is-zero', '-f', 'raw', '-O', 'qcow2', 'data.raw', NAME)
    img('bitmap', '--disable', NAME, 'b')
    dirty = len(bitmaps(NAME)['b'][2]) * 4096
    told = as_nbd_tells(NAME, 'b')
    if not dirty == told == 3 * 64 * KiB:
        raise Mistake(f'{dirty} bytes are dirty; qemu-nbd says {told}')


peer_is_reference()
for program in ('qemu-nbd', 'nbdinfo'):
    find(program)
os.mkdir('nbd')
os.chdir('nbd')
what_clients_see()
os.chdir('..')
run_rows(covering(PARAMS, lambda row: True, seed=9), check_row)
