# SPDX-License-Identifier: GPL-2.0-or-later
"""compact, sparsify and dedup, one after the other, on images with every mixture of features: extended L2
entries, an external data file, a backing file, snapshots, compressed clusters, bitmaps. Each either
does its work or says why it cannot; then the peer finds no fault, and reads the same disk, the same
snapshots and the same bits as before. Encrypted images are refused.

variants: asan
"""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from interop import (KiB, MiB, Mistake, bitmaps, checked, covering, img, peer, peer_is_reference, qemu_io,
                     run_rows, same_files)

NAME, SIZE = 'disk.qcow2', 3 * MiB + 512
PARAMS = {
    'extended': [False, True], 'data': ['inside', 'outside', 'raw'], 'backing': [False, True],
    'snapshots': [0, 2], 'coded': [False, True], 'bitmaps': [0, 2], 'cluster': [16 * KiB, 64 * KiB],
    'lazy': ['on', 'off'], 'first': ['compact', 'sparsify', 'dedup'],
}
COMMANDS = {
    'compact': ['compact'], 'sparsify': ['sparsify', '--zero-scan'],
    'dedup': ['dedup', '--within-disk'],
}


def valid(row):
    if row['data'] != 'inside' and (row['snapshots'] or row['coded']):
        return False
    return not (row['data'] == 'raw' and row['backing'])


def blocks(rng, size):
    """Data with zeros in it, and with pieces that come again."""
    twins = [rng.randbytes(64 * KiB), bytes(64 * KiB), bytes([7]) * 64 * KiB]
    out = bytearray()
    while len(out) < size:
        piece = rng.choice(twins)
        out += piece if rng.random() < .7 else piece[:4 * KiB] + bytes(60 * KiB)
    return bytes(out[:size])


def make(row, rng):
    opts = (f'cluster_size={row["cluster"]},lazy_refcounts={row["lazy"]},'
            f'extended_l2={"on" if row["extended"] else "off"}')
    if row['data'] != 'inside':
        opts += f',data_file=disk.data,data_file_raw={"on" if row["data"] == "raw" else "off"}'
    base = []
    if row['backing']:
        with open('base.raw', 'wb') as f:
            f.write(blocks(rng, 2 * MiB))
        base = ['-b', 'base.raw', '-F', 'raw']
    peer('create', '-q', '-f', 'qcow2', '-o', opts, *base, NAME, SIZE)
    with open('content.raw', 'wb') as f:
        f.write(blocks(rng, SIZE))
    peer('convert', '-n', '-S', '0', *(['-c'] if row['coded'] else []), '-f', 'raw', '-O', 'qcow2',
         'content.raw', NAME)
    for i in range(row['bitmaps']):
        peer('bitmap', '--add', '-g', 4096 << i, NAME, f'b{i}')
    names = [f's{i}' for i in range(row['snapshots'])]
    for name in names:
        peer('snapshot', '-c', name, NAME)
        change(rng)
    change(rng)
    return names


def change(rng):
    commands = []
    for _ in range(6):
        off, length = rng.randrange(SIZE // 4096) * 4096, rng.choice([512, 4 * KiB, 200 * KiB])
        what = rng.choice(['discard', 'write -P 7', 'write -P 0', 'write -z -u'])
        commands.append(f'{what} {off} {min(length, SIZE - off)}')
    qemu_io(NAME, *commands, options=('-d', 'unmap'))


def contents(names, suffix):
    peer('convert', '-O', 'raw', NAME, f'now.{suffix}')
    for s in names:
        peer('convert', '-l', f'snapshot.name={s}', '-O', 'raw', NAME, f'{s}.{suffix}')


def judge(row, names, bits, may_set):
    checked(NAME)
    contents(names, 'after')
    for s in ['now', *names]:
        same_files(f'{s}.before', f'{s}.after')
    if row['data'] == 'raw':
        img('compare', '-f', 'raw', '-F', 'raw', 'now.before', 'disk.data')
    now = bitmaps(NAME)
    for name, (flags, grain, dirty) in bits.items():
        if now[name][:2] != (flags, grain) or not set(dirty) <= set(now[name][2]) or \
                not (may_set or dirty == now[name][2]):
            raise Mistake(f'bitmap {name}: {now[name]}, before {bits[name]}')


def storage():
    return sum(os.stat(f).st_blocks for f in (NAME, 'disk.data') if os.path.exists(f)) * 512


def run(command, row, names, bits):
    """What it says about itself holds."""
    if command == 'dedup' and row['data'] != 'inside':
        refusal = img(*COMMANDS[command], NAME, code=1)
        if b'external data file cannot be shared' not in refusal.err:
            raise Mistake(refusal.shown())
        return
    before = storage()
    first = json.loads(img(*COMMANDS[command], '--output=json', NAME).out)
    judge(row, names, bits, command == 'sparsify')
    if storage() > before + 64 * KiB:  # a table or two may be new
        raise Mistake(f'{before} bytes became {storage()}')
    again = json.loads(img(*COMMANDS[command], '--output=json', NAME).out)
    if command != 'compact' and again['freed'] >= 4 * KiB:  # less may be no hole in a file
        raise Mistake(f'{first}, then {again}')
    if command == 'compact' and first['size-after'] != os.stat(NAME).st_size:
        raise Mistake(str(first))


def check_row(row, rng):
    names = make(row, rng)
    checked(NAME)
    contents(names, 'before')
    order = [row['first'], *[c for c in COMMANDS if c != row['first']]]
    for command in order:
        run(command, row, names, bitmaps(NAME))


def check_encrypted():
    peer('create', '-q', '--object', 'secret,id=s,data=x', '-f', 'qcow2', '-o',
         'encrypt.format=aes,encrypt.key-secret=s', NAME, MiB)
    with open(NAME, 'rb') as f:
        before = f.read()
    for argv in COMMANDS.values():
        refusal = img(*argv, NAME, code=1)
        if b'encrypted' not in refusal.err:
            raise Mistake(refusal.shown())
    with open(NAME, 'rb') as f:
        if f.read() != before:
            raise Mistake('a refused image was written to')


def check_subclusters():
    """A copy has data in the same subclusters as the peer's."""
    with open('content.raw', 'wb') as f:
        f.truncate(SIZE)
        for off in (0, 70 * KiB, 300 * KiB, 2 * MiB + 30 * KiB):
            f.seek(off)
            f.write(b'x' * 5000)
    for more in ('', ',preallocation=metadata', ',cluster_size=2M', ',data_file=disk.data'):
        maps = []
        for program in (img, peer):
            program('convert', '-f', 'raw', '-O', 'qcow2', '-o', 'extended_l2=on' + more, 'content.raw',
                    NAME)
            checked(NAME)
            peer('compare', '-q', NAME, 'content.raw')
            maps.append([(e['start'], e['length']) for e in
                         json.loads(peer('map', '--output=json', NAME).out) if e['data']])
            os.unlink(NAME)
            if 'data_file' in more:
                os.unlink('disk.data')
        if maps[0] != maps[1]:
            raise Mistake(f'{more}: data at {maps[0]}, the peer {maps[1]}')


def check_hidden():
    """Subclusters of zeros hide what the backing file of the copy holds there."""
    with open('base.raw', 'wb') as f:
        f.write(b'b' * MiB)
    peer('create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', NAME)
    qemu_io(NAME, 'write -P 9 0 64k', 'write -P 0 8k 24k', 'write -P 5 128k 4k', 'write -z 140k 4k')
    for more in ('', ',preallocation=metadata', ',data_file=disk.data'):
        img('convert', '-O', 'qcow2', '-o', 'extended_l2=on' + more, '-B', 'base.raw', '-F', 'raw', NAME,
            'copy.qcow2')
        checked('copy.qcow2')
        peer('compare', '-q', NAME, 'copy.qcow2')
        zeros = [e for e in json.loads(peer('map', '--output=json', 'copy.qcow2').out)
                 if e['depth'] == 0 and e['zero'] and not e['data']]
        if [8 * KiB, 24 * KiB] not in [[e['start'], e['length']] for e in zeros]:
            raise Mistake(f'{more}: zeros at {zeros}')
        os.unlink('copy.qcow2')


peer_is_reference()
SINGLE = {'encrypted': check_encrypted, 'subclusters': check_subclusters, 'hidden': check_hidden}


def one(row, rng):
    if 'single' in row:
        SINGLE[row['single']]()
    else:
        check_row(row, rng)


run_rows(covering(PARAMS, valid) + [{'single': name} for name in SINGLE], one)
