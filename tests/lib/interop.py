# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests in which the peer is the judge have in common.

Running programs and saying clearly what went wrong, covering arrays (every pair of values of two
parameters occurs in some row), comparing large sparse files, and the model of a disk: a sparse raw
file to which every write is applied as well.
"""
import itertools
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import time
import traceback

KiB, MiB, GiB, TiB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
SKIP = 77
# The texts and JSON keys that the peer personality reproduces are those of this version.
PEER_VERSION = '7.2.'


class Mistake(Exception):
    """Something that a program did or printed is not what the test wants."""


def skip(reason):
    print(reason)
    sys.exit(SKIP)


def find(program):
    return shutil.which(program) or skip(f'no {program}')


def peer_is_reference():
    """Skips the test where qemu-img is not the version whose texts we reproduce."""
    text = subprocess.run([find('qemu-img'), '--version'], stdout=subprocess.PIPE, check=True,
                          text=True).stdout
    if f'version {PEER_VERSION}' not in text:
        skip(f'qemu-img is not of version {PEER_VERSION}x')


class Result:
    def __init__(self, argv, proc):
        self.argv, self.code = argv, proc.returncode
        self.out, self.err = proc.stdout, proc.stderr

    def shown(self):
        text = f'$ {" ".join(self.argv)}\nexit code {self.code}\n'
        for name, data in (('stdout', self.out), ('stderr', self.err)):
            if data:
                shown = data.decode('utf-8', 'replace')
                text += f'{name}: {shown[:3000]}\n'
        return text


def run(*argv, code=0, timeout=100):
    """Runs a program; its exit code must be `code` (None: any)."""
    argv = [str(a) for a in argv]
    proc = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=timeout, check=False)
    result = Result(argv, proc)
    if code is not None and result.code != code:
        raise Mistake(f'expected exit code {code}\n{result.shown()}')
    return result


def img(*argv, code=0):
    """Our program under its own name."""
    return run(os.environ['IMG'], *argv, code=code)


def ours(*argv, code=0):
    """Our program under the peer's name."""
    return run(DROP_IN, *argv, code=code)


def peer(*argv, code=0):
    return run(PEER, *argv, code=code)


def qemu_io(path, *commands, fmt='qcow2', options=()):
    """Runs qemu-io commands; it reports errors of commands on stdout, with exit code 0 or 1."""
    argv = [QEMU_IO, '-f', fmt, *options]
    for c in commands:
        argv += ['-c', c]
    result = run(*argv, path)
    if re.search(rb'failed|error|rror:|invalid', result.out):
        raise Mistake(f'qemu-io reports an error\n{result.shown()}')
    return result


def same_output(*argv, **files):
    """Peer and drop-in say the same: stdout and exit code. Returns the peer's result."""
    theirs, we = peer(*argv, code=None), ours(*argv, code=None)
    if (theirs.code, theirs.out) != (we.code, we.out):
        raise Mistake(f'outputs differ\n--- peer\n{theirs.shown()}--- ours\n{we.shown()}')
    return theirs


# ---- qcow2 ----

def bitmaps(path):
    """Name -> (flags, granularity, dirty bits), read from the file itself."""
    with open(path, 'rb') as f:
        data = f.read()
    cluster, size = 1 << struct.unpack_from('>I', data, 20)[0], struct.unpack_from('>Q', data, 24)[0]
    at, found = struct.unpack_from('>I', data, 100)[0], {}
    while struct.unpack_from('>I', data, at)[0] not in (0, 0x23852875):
        at += 8 + (struct.unpack_from('>I', data, at + 4)[0] + 7) // 8 * 8
    if not data[95] & 1 or not struct.unpack_from('>I', data, at)[0]:
        return found
    n, _, _, at = struct.unpack_from('>IIQQ', data, at + 8)
    for _ in range(n):
        table, entries, flags, _, bits, name, extra = struct.unpack_from('>QIIBBHI', data, at)
        content = b''
        for e in struct.unpack_from(f'>{entries}Q', data, table):
            host = e & 0x00fffffffffffe00
            content += (data[host:host + cluster] if host else bytes([255 * (e & 1)])).ljust(
                cluster, b'\xff' if e & 1 else b'\0')
        count = (size + (1 << bits) - 1) >> bits
        dirty = [i for i in range(count) if content[i // 8] >> (i % 8) & 1]
        found[data[at + 24 + extra:at + 24 + extra + name].decode()] = (flags, 1 << bits, dirty)
        at += (24 + extra + name + 7) // 8 * 8
    return found


# ---- sparse files ----

def extents(fd):
    """The parts of a file that hold data, as the file system tells."""
    end, pos = os.fstat(fd).st_size, 0
    while pos < end:
        try:
            data = os.lseek(fd, pos, os.SEEK_DATA)
        except OSError:  # ENXIO: a hole up to the end
            return
        pos = os.lseek(fd, data, os.SEEK_HOLE)
        yield data, pos


def compare_at(fds, start, end, names):
    for pos in range(start, end, MiB):
        n = min(MiB, end - pos)
        a, b = (os.pread(fd, n, pos) for fd in fds)
        if a != b:
            at = next(i for i in range(n) if a[i:i + 1] != b[i:i + 1])
            raise Mistake(f'{names[0]} and {names[1]} differ at byte {pos + at}: '
                          f'{a[at:at + 8].hex()} and {b[at:at + 8].hex()}')


def same_files(a, b):
    """The two files hold the same bytes; holes are zeros and are not read twice."""
    fds = [os.open(p, os.O_RDONLY) for p in (a, b)]
    try:
        sizes = [os.fstat(fd).st_size for fd in fds]
        if sizes[0] != sizes[1]:
            raise Mistake(f'{a} has {sizes[0]} bytes, {b} has {sizes[1]}')
        for fd in fds:
            for start, end in extents(fd):
                compare_at(fds, start, min(end, sizes[0]), (a, b))
    finally:
        for fd in fds:
            os.close(fd)


def copy_sparse(a, b):
    run('cp', '--sparse=always', a, b)


class Model:
    """A raw file that holds what an image should hold."""

    def __init__(self, path, size):
        self.path, self.size = path, size
        with open(path, 'wb') as f:
            f.truncate(size)

    def write(self, off, data):
        with open(self.path, 'r+b') as f:
            f.seek(off)
            f.write(data)

    def zero(self, off, length):
        for pos in range(off, off + length, MiB):
            self.write(pos, bytes(min(MiB, off + length - pos)))

    def resize(self, size):
        os.truncate(self.path, size)
        self.size = size

    def copy(self, path):
        copy_sparse(self.path, path)
        other = Model.__new__(Model)
        other.path, other.size = path, self.size
        return other


# ---- covering arrays ----

def pairs_of(row):
    return {((a, row[a]), (b, row[b])) for a, b in itertools.combinations(sorted(row), 2)}


def complete(params, valid, fixed, rng):
    """A valid row at random that has the fixed values, or None."""
    for _ in range(400):
        row = {k: fixed.get(k, rng.choice(v)) for k, v in params.items()}
        if valid(row):
            return row
    return None


def covering(params, valid, seed=1):
    """Rows in which every pair of values occurs that a valid row can have. Always the same ones."""
    rng = random.Random(seed)
    wanted = {((a, x), (b, y)) for a, b in itertools.combinations(sorted(params), 2)
              for x in params[a] for y in params[b]}
    order = sorted(wanted, key=repr)
    rng.shuffle(order)
    rows = []
    for pair in order:
        if pair not in wanted:
            continue
        candidates = [complete(params, valid, dict(pair), rng) for _ in range(40)]
        candidates = [r for r in candidates if r]
        wanted.discard(pair)
        if candidates:
            best = max(candidates, key=lambda r: len(pairs_of(r) & wanted))
            wanted -= pairs_of(best)
            rows.append(best)
    return rows


def row_name(row):
    return ' '.join(f'{k}={v}' for k, v in row.items())


def run_rows(rows, check):
    """Runs check(row, rng) in a directory of its own for each row; tells which failed; exits."""
    failed = 0
    only = [int(n) for n in os.environ.get('ROW', '').split()]  # for finding mistakes
    for i, row in enumerate(rows):
        if only and i not in only:
            continue
        os.mkdir(f'row{i}')
        os.chdir(f'row{i}')
        begin = time.monotonic()
        try:
            check(row, random.Random(i))
        except Exception as e:  # noqa: whatever it is, the other rows are to be run
            failed += 1
            what = str(e) if isinstance(e, Mistake) else traceback.format_exc()
            print(f'==== row {i}: {row_name(row)}\n{what}')
        os.chdir('..')
        if only:
            print(f'{row_name(row)}: {time.monotonic() - begin:.1f} s')
        else:
            shutil.rmtree(f'row{i}')
    print(f'{len(rows)} combinations, {failed} failed')
    sys.exit(1 if failed else 0)


# ---- what disks hold ----

def disk_size(name, cluster):
    """Sizes that are odd in different ways. `odd` ends within a cluster (of more than 512 bytes)."""
    return {'tiny': 512, '513s': 513 * 512, 'odd': max(MiB, 3 * cluster) + 1536, 'tib': TiB}[name]


def places(size, cluster, rng):
    """Byte ranges near the start, the middle and the end of a disk, aligned and not."""
    small = [1, 511, 512, 4096, cluster, cluster + 512, 3 * cluster]
    for base in sorted({0, (size // 2) & ~(cluster - 1), max(0, size - 2 * cluster)}):
        for _ in range(4):
            off = base + rng.choice([0, 512, cluster, rng.randrange(2 * cluster)])
            length = min(rng.choice(small), 4 * MiB, size - off)
            if length > 0:
                yield off, length


def io_commands(size, cluster, rng, coded=False):
    """qemu-io commands that leave data, zeros and holes; and compressed clusters, if the image is
    new: they come first, because the peer compresses only into nothing."""
    first, then, top = set(), [], size // cluster
    for off, length in places(size, cluster, rng):
        kind = rng.choice(['data', 'data', 'data', 'zero', 'unmap', 'discard', 'coded'])
        if kind == 'data':
            then.append(f'write -P {rng.randrange(1, 256)} {off} {length}')
        elif kind == 'coded' and coded and top:
            first.add(min(off // cluster, top - 1) * cluster)
        elif kind == 'discard' and length >= 512:
            then.append(f'discard {off & ~511} {length & ~511}')
        else:
            flag = '-zu' if kind == 'unmap' else '-z'
            then.append(f'write {flag} {off} {length}')
    return [f'write -c -P {rng.randrange(1, 256)} {at} {cluster}' for at in sorted(first)] + then


def checked(path, fmt='qcow2', code=0):
    """The peer's check finds nothing."""
    return peer('check', '-f', fmt, path, code=code)


def info(path):
    return json.loads(peer('info', '--output=json', path).out)


PEER = find('qemu-img')
QEMU_IO = find('qemu-io')
os.makedirs('as-peer', exist_ok=True)
DROP_IN = os.path.abspath('as-peer/qemu-img')
if not os.path.lexists(DROP_IN):
    os.symlink(os.environ['IMG'], DROP_IN)
