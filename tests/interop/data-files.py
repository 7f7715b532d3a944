# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 240
"""Images with an external data file: made by one program, read, written, resized and converted by the
other, in turns; with data_file_raw the data file is the disk after every step. The locks of a data
file keep the programs apart as those of an image do."""
import os
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from interop import (KiB, MiB, Mistake, Model, checked, covering, img, peer, peer_is_reference, qemu_io,
                     run_rows, same_files, same_output)

NAME, DATA = 'disk.qcow2', 'disk.data'
PARAMS = {
    'maker': ['we', 'peer'], 'raw': ['on', 'off'], 'cluster': [512, 4 * KiB, 64 * KiB, 2 * MiB],
    'content': ['empty', 'copied', 'preallocated'], 'backing': [False, True],
    'size': [MiB, 3 * MiB + 1536], 'lazy': ['on', 'off'], 'extended': ['on', 'off'],
}


def valid(row):
    if row['extended'] == 'on' and row['cluster'] < 16 * KiB:
        return False
    return not row['backing'] or (row['raw'] == 'off' and row['content'] == 'empty')


def judge(row, model, exact=False):
    checked(NAME)
    peer('compare', '-f', 'qcow2', '-F', 'raw', NAME, model.path)
    img('compare', '-f', 'qcow2', '-F', 'raw', NAME, model.path)
    for args in (['info', '--output=json'], ['map', '--output=json'], ['map'],
                 ['check', '--output=json'], ['measure', '-O', 'qcow2']):
        same_output(*args, NAME)
    # The peer writes whole clusters, also behind the end of the disk.
    size = os.path.getsize(DATA)
    if size != model.size if exact else not model.size <= size < model.size + row['cluster']:
        raise Mistake(f'the data file has {size} bytes, the disk {model.size}')
    if row['raw'] == 'on':
        img('compare', '-f', 'raw', '-F', 'raw', DATA, model.path)


def peer_changes(row, model, rng):
    commands = []
    for _ in range(6):
        off = rng.randrange(model.size // 512) * 512
        length = min(rng.choice([512, row['cluster'], 3 * row['cluster']]), model.size - off)
        kind, byte = rng.choice(['write', 'write', 'zero', 'unmap', 'discard']), rng.randrange(1, 256)
        if kind == 'write':
            commands.append(f'write -P {byte} {off} {length}')
            model.write(off, bytes([byte]) * length)
        elif kind == 'discard':  # the peer rounds it to clusters
            off = off // row['cluster'] * row['cluster']
            if off + row['cluster'] <= model.size:
                commands.append(f'discard {off} {row["cluster"]}')
                model.zero(off, row['cluster'])
        else:
            commands.append(f'write -z {"-u" if kind == "unmap" else ""} {off} {length}')
            model.zero(off, length)
    qemu_io(NAME, *commands)


def we_change(row, model, rng):
    for _ in range(4):
        off = rng.randrange(model.size // 512) * 512
        length = min(rng.choice([512, 5 * row['cluster']]), model.size - off)
        if rng.randrange(2):
            model.zero(off, length)
        else:
            model.write(off, rng.randbytes(length))
    img('convert', '-n', '-f', 'raw', '-O', 'qcow2', model.path, NAME)


def make(row, model, rng):
    program = img if row['maker'] == 'we' else peer
    opts = (f'data_file={DATA},data_file_raw={row["raw"]},cluster_size={row["cluster"]},'
            f'lazy_refcounts={row["lazy"]},extended_l2={row["extended"]}')
    if row['content'] == 'copied':
        for _ in range(5):
            model.write(rng.randrange(model.size - 5000), rng.randbytes(5000))
        program('convert', '-f', 'raw', '-O', 'qcow2', '-o', opts, model.path, NAME)
        return
    if row['content'] == 'preallocated':
        opts += f',preallocation={rng.choice(["metadata", "falloc", "full"])}'
    base = []
    if row['backing']:
        for _ in range(5):
            model.write(rng.randrange(model.size - 5000), rng.randbytes(5000))
        model.copy('base.raw')
        base = ['-b', 'base.raw', '-F', 'raw']
    program('create', '-q', '-f', 'qcow2', '-o', opts, *base, NAME, model.size)


def check_row(row, rng):
    model = Model('model.raw', row['size'])
    make(row, model, rng)
    exact = row['maker'] == 'we'
    judge(row, model, exact)
    for turn in (we_change, peer_changes, we_change):
        turn(row, model, rng)
        exact = exact and turn is we_change
        judge(row, model, exact)
    for program in (img, peer):
        new = model.size + rng.randrange(1, 4 * row['cluster'] // 512 + 8) * 512
        if not row['backing']:  # the peer reads the backing file where a grown disk must be zeros
            program('resize', '-q', NAME, new)
            model.resize(new)
            judge(row, model, program is img)
    img('resize', '-q', '--shrink', NAME, model.size // 1024 * 512)
    model.resize(model.size // 1024 * 512)
    judge(row, model, True)
    for program in (img, peer):
        program('convert', '-O', 'raw', NAME, 'out.raw')
        same_files('out.raw', model.path)
        os.unlink('out.raw')


def check_locks():
    """Who writes has the data file for himself; who reads, too, as far as its size goes."""
    peer('create', '-q', '-f', 'qcow2', '-o', f'data_file={DATA}', NAME, MiB)
    peer('create', '-q', '-f', 'qcow2', '-o', 'data_file=two.data', 'two.qcow2', MiB)
    with open('two.qcow2', 'r+b') as f:  # two images that share their data
        head = f.read(4096).replace(b'DATA\0\0\0\x08two.data', b'DATA\0\0\0\x09disk.data')
        at = head.index(b'DATA')
        f.seek(at)
        f.write(b'DATA\0\0\0\x09disk.data'.ljust(24, b'\0') + bytes(8))
    peer('info', 'two.qcow2')
    with Holder('two.qcow2'):
        for argv in (['convert', NAME, 'out.raw'], ['resize', NAME, '2M'], ['checksum', NAME]):
            result = img(*argv, code=1)
            if b'lock' not in result.err or DATA.encode() not in result.err:
                raise Mistake(f'not refused for the lock of the data file\n{result.shown()}')
        for argv in (['info', NAME], ['check', NAME], ['map', NAME], ['measure', '-O', 'raw', NAME],
                     ['convert', '-U', NAME, 'out.raw']):
            img(*argv)
    with Holder('two.qcow2', '-r'):
        img('convert', '-U', NAME, 'out.raw', '--force')
        img('checksum', NAME)
        img('resize', NAME, '2M', code=1)


class Holder:
    """qemu-io with the image open."""

    def __init__(self, path, *options):
        self.argv = ['qemu-io', *options, '-f', 'qcow2', path]

    def __enter__(self):
        import subprocess  # pylint: disable=import-outside-toplevel
        self.proc = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT)
        self.proc.stdin.write(b'read 0 512\n')
        self.proc.stdin.flush()
        if not any(b'read 512/512' in line for line in self.proc.stdout):
            raise Mistake('qemu-io ended')

    def __exit__(self, *exc):
        self.proc.communicate(b'quit\n')


peer_is_reference()


def one(row, rng):
    if row == 'locks':
        check_locks()
    else:
        check_row(row, rng)


run_rows(covering(PARAMS, valid) + ['locks'], one)
