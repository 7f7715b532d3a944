# SPDX-License-Identifier: GPL-2.0-or-later
"""Images that somebody made to do harm, and what our program has to do about them.

An Image is a small sane qcow2 file, written field by field; a test breaks it. `attack` then runs
every command over it and holds it to what is promised for any input:

    no signal, no sanitizer report, no hang: at most CPU_SECONDS of CPU time
    at most MEMORY of resident memory, a bounded amount of text
    a command that fails says so with exit code 1 and names the file
    the file is not changed by a command that only looks, nothing is left behind by one that fails
    a repair that says that all is well leaves nothing for a second repair

What else is expected is the test's to say:

    reject   nothing can be done with the file: every command fails with `says`
    eio      the image opens; `check` finds errors; reading the disk fails with `says`
    report   the image opens; `check` finds errors, or only leaks (`check=3`)
    fine     it only looks bad
"""
import hashlib
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback

VARIANT = os.environ.get('VARIANT', 'release')
CPU_SECONDS = 5 if VARIANT == 'release' else 30
WALL_SECONDS = 60
MEMORY = 256 << 20
OUTPUT = 2 << 20

COPIED, COMPRESSED = 1 << 63, 1 << 62

# Offsets of header fields, and their size.
FIELDS = {'magic': (0, 4), 'version': (4, 4), 'backing_offset': (8, 8), 'backing_size': (16, 4),
          'cluster_bits': (20, 4), 'size': (24, 8), 'crypt_method': (32, 4), 'l1_size': (36, 4),
          'l1_offset': (40, 8), 'reftable_offset': (48, 8), 'reftable_clusters': (56, 4),
          'nb_snapshots': (60, 4), 'snapshots_offset': (64, 8), 'incompatible': (72, 8),
          'compatible': (80, 8), 'autoclear': (88, 8), 'refcount_order': (96, 4),
          'header_length': (100, 4), 'compression': (104, 1)}
FORMATS = {1: '>B', 2: '>H', 4: '>I', 8: '>Q'}


class Image:
    """Clusters: 0 header, 1 refcount table, 2 refcount block, 3 L1, 4 L2, from 5 on data."""

    def __init__(self, path='x.qcow2', cluster_bits=16, clusters=4, size=1 << 20):
        self.path, self.bits, self.cluster = path, cluster_bits, 1 << cluster_bits
        self.file = open(path, 'w+b')
        self.next = 5
        self.header(magic=0x514649fb, version=3, cluster_bits=cluster_bits, size=size, l1_size=1,
                    l1_offset=3 * self.cluster, reftable_offset=self.cluster, reftable_clusters=1,
                    refcount_order=4, header_length=112)
        self.put(self.cluster, '>Q', 2 * self.cluster)
        self.put(self.l1(0), '>Q', 4 * self.cluster | COPIED)
        for k in range(5):
            self.refcount(k, 1)
        self.grow(5 * self.cluster)
        for i in range(clusters):
            self.put(self.l2(i), '>Q', self.new(bytes([65 + i]) * self.cluster) | COPIED)

    def put(self, off, fmt, *values):
        self.write(off, struct.pack(fmt, *values))

    def write(self, off, data):
        self.file.seek(off)
        self.file.write(data)
        self.file.flush()

    def get(self, off, fmt):
        self.file.seek(off)
        return struct.unpack(fmt, self.file.read(struct.calcsize(fmt)))[0]

    def header(self, **fields):
        for name, value in fields.items():
            off, size = FIELDS[name]
            self.put(off, FORMATS[size], value)
        return self

    def refcount(self, k, value):
        self.put(2 * self.cluster + 2 * k, '>H', value)

    def new(self, data=b'', clusters=1):
        """Space at the end, with refcount 1; its offset."""
        off = self.next * self.cluster
        clusters = max(clusters, -(-len(data) // self.cluster))
        for k in range(self.next, self.next + clusters):
            if k < self.cluster // 2:
                self.refcount(k, 1)
        self.next += clusters
        if data:
            self.write(off, data)
        self.grow(self.next * self.cluster)
        return off

    def grow(self, size):
        self.file.seek(0, os.SEEK_END)
        if self.file.tell() < size:
            self.file.truncate(size)

    def l1(self, i):
        return 3 * self.cluster + 8 * i

    def l2(self, i):
        return 4 * self.cluster + 8 * i

    def extension(self, kind, data, length=None, at=112):
        self.put(at, '>II', kind, len(data) if length is None else length)
        self.write(at + 8, data)
        return at + 8 + (len(data) + 7) // 8 * 8

    def backing(self, name, fmt=None):
        name = os.fsencode(name)
        at = self.extension(0xe2792aca, fmt.encode()) if fmt else 112
        self.put(at, '>II', 0, 0)
        self.write(at + 8, name)
        return self.header(backing_offset=at + 8, backing_size=len(name))

    def compressed(self, stream, guest=0, sectors=None):
        """A cluster of its own for a stream; the entry claims so many additional sectors."""
        off = self.new(stream)
        if sectors is None:
            sectors = max(len(stream) - 1, 0) // 512
        self.put(self.l2(guest), '>Q', COMPRESSED | sectors << (62 - (self.bits - 8)) | off)

    def snapshots(self, entries):
        """entries: dicts of l1_offset, l1_size, extra (bytes), extra_len, name."""
        table, empty = bytearray(), None # grows to 64 MiB: no copy per entry
        for i, e in enumerate(entries):
            extra = e.get('extra', struct.pack('>QQQ', 0, 1 << 20, (1 << 64) - 1))
            name, ident = e.get('name', b's%d' % i), b'%d' % (i + 1)
            if 'l1_offset' not in e:
                empty = empty or self.new(clusters=1)
            table += struct.pack('>QIHHIIQII', e.get('l1_offset', empty),
                                 e.get('l1_size', 1), len(ident), len(name), 0, 0, 0, 0,
                                 e.get('extra_len', len(extra))) + extra + ident + name
            table += b'\0' * (-len(table) % 8)
        return self.header(nb_snapshots=len(entries), snapshots_offset=self.new(bytes(table)))

    def bitmaps(self, entries, **ext):
        """entries: dicts of fields of a directory entry; `table`: entries of its table, in a place of
        its own. ext: fields of the header extension that are to be others."""
        directory = bytearray()
        for i, e in enumerate(entries):
            table = e.get('table', [0])
            if 'table_offset' not in e:
                e['table_offset'] = self.new(struct.pack(f'>{len(table)}Q', *table),
                                             clusters=len(table) * 8 // self.cluster + 1)
            name, extra = e.get('name', b'b%d' % i), e.get('extra', b'')
            directory += struct.pack('>QIIBBHI', e['table_offset'], e.get('table_size', len(table)),
                                     e.get('flags', 2), e.get('type', 1), e.get('granularity_bits', 16),
                                     e.get('name_len', len(name)), e.get('extra_len', len(extra)))
            directory += extra + name
            directory += e.get('padding', b'\0') * (-len(directory) % 8)
        off = self.new(bytes(directory), clusters=len(directory) // self.cluster + 1)
        data = struct.pack('>IIQQ', ext.get('n', len(entries)), ext.get('reserved', 0),
                           ext.get('bytes', len(directory)), ext.get('off', off))
        self.extension(0x23852875, data + bytes(24), length=ext.get('length', 24))
        return self.header(autoclear=1)

    def close(self):
        self.file.close()
        return self.path


class Mistake(Exception):
    """The program did what it must not do."""


class Run:
    def __init__(self, *argv, much=False):
        """much: there is a lot to say."""
        self.much = much
        self.argv = [os.environ['IMG'], *argv]
        with open('.out', 'w+b') as out, open('.err', 'w+b') as err:
            proc = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                    preexec_fn=limits)
            timer = threading.Timer(WALL_SECONDS, proc.kill)
            timer.start()
            _, status, self.used = os.wait4(proc.pid, 0)
            proc.returncode = 0 # reaped here
            timer.cancel()
            self.code = os.waitstatus_to_exitcode(status)
            self.out, self.err = read_back(out), read_back(err)
        self.judge()

    def judge(self):
        seconds = self.used.ru_utime + self.used.ru_stime
        if self.code < 0:
            self.fail(f'killed by {signal.Signals(-self.code).name}')
        if 'Sanitizer' in self.err or 'runtime error:' in self.err:
            self.fail('sanitizer report')
        if seconds > CPU_SECONDS:
            self.fail(f'{seconds:.1f} s of CPU time')
        if VARIANT == 'release' and self.used.ru_maxrss * 1024 > MEMORY:
            self.fail(f'{self.used.ru_maxrss >> 10} MiB of memory')
        if len(self.out) + len(self.err) > OUTPUT and not self.much:
            self.fail(f'{len(self.out) + len(self.err)} bytes of text')
        if self.code == 1 and not re.search(r'^img: ', self.err, re.M):
            self.fail('failed without a message')

    def fail(self, what):
        shown = f'{self.out[:600]}\n{self.err[-1200:]}'
        raise Mistake(f'{what}\n$ {" ".join(self.argv)}\nexit code {self.code}\n{shown}')

    def expect(self, codes, says=None):
        codes = {codes} if isinstance(codes, int) else codes
        if self.code not in codes:
            self.fail(f'exit code is not {sorted(codes)}')
        if says and self.code and not re.search(says, self.err + self.out):
            self.fail(f'does not say /{says}/')
        return self


def limits():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 45, 1 << 45))
    if VARIANT == 'release':
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))


def read_back(f):
    f.seek(0)
    return f.read(OUTPUT + 1).decode('utf-8', 'replace')


def fingerprint(path):
    """Changes when the file does. Large files: time, size and the beginning must do."""
    st = os.stat(path)
    with open(path, 'rb') as f:
        start = f.read(4 << 20)
    return st.st_size, st.st_mtime_ns, hashlib.sha256(start).hexdigest()


def copy(path):
    """A sparse copy, to be written to."""
    target = 'copy-' + os.path.basename(path)
    subprocess.run(['cp', '--sparse=always', '--reflink=auto', path, target], check=True)
    return target


def read_disk(path, *options):
    """Converts to raw; returns the run. Nothing may be left when it fails."""
    before = set(os.listdir('.')) | {'.out', '.err'}
    run = Run('convert', *options, '-O', 'raw', path, 'disk.raw')
    left = set(os.listdir('.')) - before
    if run.code == 0:
        os.unlink('disk.raw')
    elif left:
        run.fail(f'left behind: {sorted(left)}')
    return run


def repair(path):
    target = copy(path)
    first = Run('check', '-r', 'all', target)
    second = Run('check', '-r', 'all', target)
    if first.code == 0 and (second.code or 'repaired' in second.out):
        second.fail('a second repair found something')
    os.unlink(target)
    return first


def write(path):
    """Tries to change the image: each may work or fail, but properly."""
    for argv in (['snapshot', '-c', 'new'], ['resize', '-q', '-f', 'qcow2']):
        target = copy(path)
        more = ['+64K'] if argv[0] == 'resize' else []
        before = Run('check', '-q', target).code
        run = Run(*argv, target, *more).expect({0, 1})
        after = Run('check', '-q', target).code
        # Findings stay findings; an image that was sound (0) or leaked (3) stays so.
        if before in (0, 3) and after not in (0, 3):
            run.fail(f'check said {before} before and says {after} now')
        os.unlink(target)


KINDS = {
    'reject': {'info': 1, 'check': 1, 'map': 1, 'read': 1, 'repair': 1},
    'eio': {'info': 0, 'check': 2, 'map': {0, 1}, 'read': 1, 'repair': {0, 1, 2}},
    'report': {'info': 0, 'check': 2, 'map': {0, 1}, 'read': {0, 1}, 'repair': {0, 1, 2, 3}},
    'fine': {'info': 0, 'check': 0, 'map': 0, 'read': 0, 'repair': 0},
}


def attack(path, kind, says=None, **codes):
    want = dict(KINDS[kind], **codes)
    before = fingerprint(path)
    everywhere = says if kind == 'reject' else None
    for argv in (['info'], ['info', '--output=json'], ['info', '--backing-chain', '--untrusted']):
        Run(*argv, path).expect(want['info'], everywhere)
    run = Run('check', path).expect(want['check'], everywhere)
    Run('check', '--output=json', path).expect(run.code)
    for output in ('human', 'json'):
        Run('map', f'--output={output}', path).expect(want['map'], everywhere)
    read_disk(path).expect(want['read'], says)
    read_disk(path, '--untrusted').expect({want['read']} | {1} if isinstance(want['read'], int)
                                          else want['read'])
    if fingerprint(path) != before:
        raise Mistake(f'{path} was changed by commands that only look')
    repair(path).expect(want['repair'], everywhere)
    write(path)


def run_cases(cases):
    """cases: functions; each is called in an empty directory of its own."""
    failed = 0
    wanted = [a for a in sys.argv[1:] if a != '-v']
    for case in cases:
        name = case.__name__.strip('_')
        if wanted and name not in wanted:
            continue
        start = time.monotonic()
        os.mkdir(name)
        os.chdir(name)
        try:
            case()
        except Exception as e:  # noqa: whatever it is, the other cases are to be run
            failed += 1
            print(f'--- {name}: {e}')
            if not isinstance(e, Mistake):
                traceback.print_exc(file=sys.stdout)
        os.chdir('..')
        shutil.rmtree(name)
        if '-v' in sys.argv:
            print(f'{name}: {time.monotonic() - start:.1f} s')
    print(f'{len(cases)} cases, {failed} failed')
    sys.exit(1 if failed else 0)
