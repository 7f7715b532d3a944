# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 300
"""Images that name other files: chains that loop or never end, names that are no plain paths, FIFOs
and devices. No file is opened because an image names it in a form that is not a path; `info` opens
nothing but what it was given; with --untrusted nothing does."""
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from hostile import COMPRESSED, COPIED, Image, Run, copy, read_disk, run_cases

SECRET = b'secret of the host ' * 64


def overlay(name, fmt=None, path='x.qcow2'):
    image = Image(path, clusters=0)
    image.backing(name, fmt)
    return image.close()


def looks_fine(path):
    """What does not need the backing file works."""
    Run('info', path).expect(0)
    Run('info', '--output=json', path).expect(0)
    Run('check', path).expect(0)
    Run('map', path).expect(0)


def refused(path, says=None):
    looks_fine(path)
    for argv in (['map', '--backing-chain', path], ['compare', path, path], ['checksum', path],
                 ['info', '--backing-chain', path]):
        Run(*argv).expect({1, 2}, says)
    read_disk(path).expect(1, says)
    untouched(path)


def untouched(path):
    """Nothing at all but the file itself is needed or opened by these."""
    for argv in (['info'], ['check'], ['map']):
        Run(*argv, '--untrusted', path).expect(0)
    read_disk(path, '--untrusted').expect(1)


def self_and_circles():
    refused(overlay('x.qcow2', 'qcow2'), 'loop|circle|itself')
    refused(overlay('./x.qcow2', 'qcow2'), 'loop|circle|itself')
    os.link('x.qcow2', 'hard.qcow2')
    refused('hard.qcow2', 'loop|circle|itself')
    for i in range(3):
        overlay(f'c{(i + 1) % 3}.qcow2', 'qcow2', f'c{i}.qcow2')
    refused('c0.qcow2', 'loop|circle|itself')
    os.symlink('link.qcow2', 'target.qcow2')
    overlay('target.qcow2', 'qcow2', 'link.qcow2')
    refused('link.qcow2', 'loop|circle|itself')


def deep_chains():
    Image('d0.qcow2').close()
    for i in range(1, 1201):
        overlay(f'd{i - 1}.qcow2', 'qcow2', f'd{i}.qcow2')
    read_disk('d30.qcow2').expect(0)
    for depth in (200, 1200):
        refused(f'd{depth}.qcow2', 'chain|deep|long')


def names_that_are_no_paths():
    with open('secret.raw', 'wb') as f:
        f.write(SECRET)
    for name in ('json:{"driver":"raw","file":{"driver":"file","filename":"secret.raw"}}',
                 'json:{', 'nbd://127.0.0.1:10809/x', 'nbd:unix:/tmp/x', 'http://127.0.0.1/x',
                 'https://127.0.0.1/x', 'ssh://localhost/x', 'file:secret.raw',
                 'file://secret.raw', 'fat:rw:/etc', 'blkdebug::secret.raw', 'rbd:pool/x',
                 'driver=raw,file.filename=secret.raw', 'gluster://x/y', 'iscsi://x/y/0'):
        path = overlay(name, 'raw')
        refused(path)
        for argv in (['info', '--backing-chain'], ['map', '--backing-chain'], ['check']):
            run = Run(*argv, path)
            if 'secret of the host' in run.out + run.err:
                run.fail('told the secret')


def json_names_in_a_chain():
    # The second file of the chain names the third in a bad form.
    overlay('json:{"driver":"file","filename":"secret.raw"}', 'raw', 'middle.qcow2')
    refused(overlay('middle.qcow2', 'qcow2'))


def fifos_and_devices():
    os.mkfifo('pipe')
    os.mkdir('dir')
    server = socket.socket(socket.AF_UNIX)
    server.bind('sock')
    for name in ('pipe', 'dir', 'sock', '/dev/zero', '/dev/null', '/dev/tty', '/dev/stdin',
                 '/proc/self/fd/0'):
        for fmt in ('raw', 'qcow2', None):
            refused(overlay(name, fmt))
    server.close()


def given_directly():
    # The same, named by the user.
    os.mkfifo('pipe')
    os.mkdir('dir')
    server = socket.socket(socket.AF_UNIX)
    server.bind('sock')
    for name in ('pipe', 'dir', 'sock', '/dev/zero', '/dev/null', 'missing', ''):
        for command in ('info', 'check', 'map', 'checksum', 'measure'):
            Run(command, name).expect({1})
    Run('convert', '-O', 'raw', 'dir', 'disk.raw').expect(1)
    if os.path.exists('disk.raw'):
        raise OSError('disk.raw was left behind')
    server.close()


def missing_and_wrong_backing():
    refused(overlay('missing.raw', 'raw'), 'missing.raw')
    refused(overlay('/nonexistent/deep/down.raw', 'raw'), 'down.raw')
    with open('text.raw', 'wb') as f:
        f.write(b'no qcow2 at all' * 1000)
    refused(overlay('text.raw', 'qcow2'), 'text.raw')
    for fmt in ('vmdk', 'nosuch', 'qcow2\0x', 'file', 'nbd'):
        refused(overlay('text.raw', fmt))


def names_full_of_control_characters():
    path = overlay(b'\x1b[2J\x1b]0;title\x07\r\nsecond line \xff\xfe', 'raw')
    looks_fine(path)
    for argv in (['info'], ['info', '--backing-chain'], ['map'], ['map', '--backing-chain'],
                 ['compare', path]):
        run = Run(*argv, path)
        if '\x1b' in run.out + run.err or '\nsecond line' in run.out + run.err:
            run.fail('a name steers the terminal')
    read_disk(path).expect(1)


def data_file():
    # An image whose data is in another file: opened beside the image only, and never if it is no
    # regular file; info, check and map open none at all.
    os.mkdir('inside')
    for path in ('secret.raw', 'inside/short.raw', 'inside/empty.raw'):
        with open(path, 'wb') as f:
            f.write(SECRET if 'secret' in path else b'x' * 1000 if 'short' in path else b'')
    os.mkfifo('inside/pipe')
    os.symlink('../secret.raw', 'inside/link.raw')
    os.symlink('..', 'inside/up')
    os.symlink('/dev/zero', 'inside/zero')
    names = {b'json:{"driver":"file","filename":"secret.raw"}': 'not a plain path',
             b'nbd://localhost/disk': 'not a plain path', b'file:short.raw': 'not a plain path',
             os.path.abspath('secret.raw').encode(): 'not in its directory',
             b'/etc/passwd': 'not in its directory', b'/dev/zero': 'not in its directory',
             b'../secret.raw': 'not in its directory', b'x/../../secret.raw': 'not in its directory',
             b'link.raw': 'not in its directory', b'up/secret.raw': 'not in its directory',
             b'zero': 'not in its directory', b'pipe': 'regular file', b'.': 'directory',
             b'gone.raw': 'No such file', b'x.qcow2': 'the image itself', b'./x.qcow2': 'the image itself',
             b'': "'data-file' is required", b'short.raw': 'beyond the end', b'empty.raw': 'beyond the end',
             b'\x1b[2J': 'No such file', b'a' * 5000: 'File name too long'}
    for name, says in names.items():
        image = Image('inside/x.qcow2', clusters=0)
        for i in range(4):
            image.put(image.l2(i), '>Q', COPIED | i * image.cluster)
        image.extension(0x44415441, name)
        path = image.header(incompatible=4).close()
        Run('info', path).expect(0)
        Run('info', '--output=json', path).expect(0)
        Run('check', path).expect(0)
        Run('map', path).expect(0)
        read_disk(path).expect(1, says)
        read_disk(path, '--untrusted').expect(1)
        if 'beyond' not in says:
            Run('resize', '-q', path, '+1M').expect(1, says)
        Run('snapshot', '-c', 's', path).expect(1, 'internal snapshots')
    with open('secret.raw', 'rb') as f:
        if f.read() != SECRET:
            raise OSError('the secret was written to')


def data_file_entries():
    # Entries that put data elsewhere than at its own offset, or that are compressed.
    with open('disk.data', 'wb') as f:
        f.truncate(1 << 20)
    for entry, says in ((COPIED | 2 << 16, 'puts guest offset'), (COPIED | 1 << 40, 'puts guest offset'),
                        (COMPRESSED | 5 << 16, 'compressed cluster'), (COPIED | 0x10200, 'cluster-aligned')):
        image = Image(clusters=0)
        image.put(image.l2(1), '>Q', entry)
        image.extension(0x44415441, b'disk.data')
        path = image.header(incompatible=4).close()
        Run('check', path)
        Run('map', path).expect(1, says)
        read_disk(path).expect(1, says)
        target = copy(path)
        Run('convert', '-n', '-O', 'qcow2', '-f', 'raw', 'disk.data', target).expect({0, 1})
    if os.path.getsize('disk.data') != 1 << 20:
        raise OSError('the data file has grown')


def untrusted_takes_nothing_for_raw():
    # A disk whose guest wrote a header into its first sector, and one that is none.
    with open('disk.img', 'wb') as f:
        f.write(b'no magic' * 4096)
    Run('info', '--untrusted', 'disk.img').expect(1)
    Run('info', '--untrusted', '-f', 'raw', 'disk.img').expect(0)
    read_disk('disk.img', '--untrusted').expect(1)


run_cases([self_and_circles, deep_chains, names_that_are_no_paths, json_names_in_a_chain,
           fifos_and_devices, given_directly, missing_and_wrong_backing,
           names_full_of_control_characters, data_file, data_file_entries, untrusted_takes_nothing_for_raw])
