# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 300
"""commit and rebase on random backing chains, made by the peer: layers of all kinds and different
sizes, also with clusters larger or smaller than those below. The peer is the judge of what comes
out: the same disk, images without a mistake, the backing file that was asked for."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from interop import Mistake, MiB, img, peer, peer_is_reference, qemu_io, run_rows

ROWS = 36
PLAIN = ['cluster_size=512', 'cluster_size=4k', 'cluster_size=64k', 'cluster_size=256k', 'compat=v2',
         'compression_type=zstd', 'lazy_refcounts=on', 'refcount_bits=1', 'refcount_bits=2']
SPECIAL = ['extended_l2=on', 'extended_l2=on,cluster_size=16k', 'data_file={}.data',
           'data_file={}.data,cluster_size=4k', 'data_file={}.data,extended_l2=on']
RAW = ['data_file={}.data,data_file_raw=on', 'data_file={}.data,data_file_raw=on,extended_l2=on']


def commands(size, rng):
    for _ in range(rng.randrange(8)):
        off = rng.randrange(size // 512) * 512
        n = min(size - off, 512 * rng.choice([1, 3, 8, 64, 128, 500, 2000]))
        yield rng.choice([f'write -P {rng.randint(1, 4)} {off} {n}', f'write -P {rng.randint(1, 4)} {off} {n}',
                          f'write -P 0 {off} {n}', f'write -z {off} {n}', f'write -zu {off} {n}',
                          f'discard {off} {n}'])


class Layer:
    def __init__(self, name, below, rng):
        self.name, self.size = name, rng.randint(2, 5) * MiB + 512 * rng.randrange(9)
        self.fmt = 'raw' if not below and rng.random() < .5 else 'qcow2'
        kinds = rng.choice([PLAIN, SPECIAL]) if below else rng.choice([PLAIN, SPECIAL, RAW])
        self.options = rng.choice(kinds).format(name) if self.fmt == 'qcow2' else ''
        options = ['-o', self.options] if self.options else []
        backing = ['-b', below.name, '-F', below.fmt] if below else []
        peer('create', '-q', '-f', self.fmt, *options, *backing, name, self.size)
        todo = list(commands(self.size, rng))
        if todo:
            qemu_io(name, *todo, fmt=self.fmt)

    def content(self):
        peer('convert', '-f', self.fmt, '-O', 'raw', self.name, 'content')
        with open('content', 'rb') as f:
            return f.read()

    def check(self):
        if self.fmt == 'qcow2':
            peer('check', '-q', self.name)
        if 'data_file_raw' in self.options:
            img('compare', '-q', '-f', self.fmt, '-F', 'raw', self.name, f'{self.name}.data')


def make_chain(prefix, depth, rng):
    chain = []
    for n in range(depth):
        chain.append(Layer(f'{prefix}{n}', chain[-1] if chain else None, rng))
    return chain


def same(what, got, expected):
    if got != expected:
        at = next((n for n in range(0, min(len(got), len(expected)), 512)
                   if got[n:n + 512] != expected[n:n + 512]), 'the end')
        raise Mistake(f'{what}: {len(got)} bytes, {len(expected)} expected; differs at {at}')


def check_commit(chain, deep, rng):
    top = chain[-1]
    base = rng.choice(chain[:-1]) if deep else chain[-2]
    before, below = top.content(), base.content()
    options = ['-b', base.name] if deep else rng.choice([[], ['-d'], ['-m', '1'], ['-t', 'none']])
    img('commit', *options, top.name)
    same('backing file', base.content(), before + below[len(before):])
    base.check()
    if not deep:
        same('overlay', top.content(), before)
    if not deep and options != ['-d']:
        mapped = peer('map', '--output=json', top.name).out
        if b'"depth": 0, "present": true' in mapped or os.path.getsize(top.name) > 2 * MiB:
            raise Mistake(f'the overlay is not empty\n{mapped.decode()}')
    top.check()


def layers(image):
    """Which layer holds what. Whether data are a hole in the file is the file system's affair."""
    found = []
    for e in json.loads(peer('map', '--output=json', image.name).out):
        if found and found[-1][1:] == (e['depth'], e['present']):
            continue
        found.append((e['start'], e['depth'], e['present']))
    return found


def grain(image):
    """What the overlay can hold by itself: a cluster, or a subcluster of it."""
    info = json.loads(peer('info', '--output=json', image.name).out)
    extended = info['format-specific']['data']['extended-l2'] if 'compat=v2' not in image.options else False
    return info['cluster-size'] // (32 if extended else 1)


def check_dropped(top, disk, below):
    """Nothing is left in the overlay that is the same below it."""
    step = grain(top)
    below = below[:len(disk)].ljust(len(disk), b'\0')
    for e in json.loads(peer('map', '--output=json', top.name).out):
        if e['depth'] or not e['present']:
            continue
        for at in range(e['start'], e['start'] + e['length'], step):
            if disk[at:at + step] == below[at:at + step]:
                raise Mistake(f'{at} is still there, though the backing file has the same')


def check_rebase(chain, new, rng):
    top = chain[-1]
    before = top.content()
    options = [o for o in ('-c', '--drop-equal') if rng.random() < .4]
    if '-c' in options and 'data_file' in top.options:
        img('rebase', '-c', '-b', '', top.name, code=1)
        same('overlay', top.content(), before)
        options.remove('-c')
    if new:
        img('rebase', *options, '-b', new.name, '-F', new.fmt, top.name)
    else:
        img('rebase', *options, '-b', '', top.name)
    same('overlay', top.content(), before)
    top.check()
    told = peer('info', top.name).out.decode()
    if f'backing file: {new.name}\n' not in told if new else 'backing' in told:
        raise Mistake(told)
    # Once more, to the same one: there is nothing left to do.
    if new and '--drop-equal' in options:
        if '-c' not in options: # compressed clusters have no parts
            check_dropped(top, before, new.content())
        held = layers(top)
        img('rebase', '--drop-equal', '-b', new.name, '-F', new.fmt, top.name)
        if layers(top) != held:
            raise Mistake(f'rebase to the same backing file changed the image: {held}, now {layers(top)}')


def check_row(row, rng):
    chain = make_chain('a', rng.randint(2, 4), rng)
    kind = row['kind']
    if kind.startswith('commit'):
        check_commit(chain, kind == 'commit deep', rng)
    elif kind == 'rebase elsewhere':
        check_rebase(chain, make_chain('b', rng.randint(1, 3), rng)[-1], rng)
    elif kind == 'rebase down':
        check_rebase(chain, rng.choice(chain[:-1]), rng)
    else:
        check_rebase(chain, None, rng)


peer_is_reference()
KINDS = ['commit', 'commit deep', 'rebase elsewhere', 'rebase down', 'rebase elsewhere', 'rebase to nothing']
run_rows([{'kind': KINDS[n % len(KINDS)], 'n': n} for n in range(ROWS)], check_row)
