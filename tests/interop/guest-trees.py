# SPDX-License-Identifier: GPL-2.0-or-later
# variants: release
# timeout: 240
"""Trees that file systems find hard: deep ones, 100,000 names in a directory, files with holes of
10 GiB, hard links, long and non-UTF-8 names, attributes, ACLs, devices. img reads those that mke2fs
made, and makes and changes its own; e2fsck finds nothing, and Linux, where there are loop mounts, sees
what the host's directory has. Needs root, to whom all attributes are open."""
import os
import re
import shutil
import socket
import stat
import struct
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from guest_trees import Mounted, can_mount, img, look, make_ext, run, same, sound

MANY, DEPTH, GIB = 100000, 700, 1 << 30
NOBODY = 0xffffffff
ACL = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *e) for e in (
    (1, 7, NOBODY), (2, 6, 1234567), (4, 5, NOBODY), (8, 4, 70000), (16, 7, NOBODY), (32, 0, NOBODY)))


def write(path, *pieces, size=None):
    """pieces: offset and bytes."""
    with open(path, 'wb') as f:
        for at, data in pieces:
            f.seek(at)
            f.write(data)
        if size is not None:
            f.truncate(size)


def make_names(top):
    os.mkdir(top)
    names = [b'x' * 255, '\u00e4'.encode() * 127, b'\xff\xfe not UTF-8', b' ', b'-rf', b'a\nb', b'\x1b[31m',
             b'\\x41', b'...', b'#', b"'\"$(rm)`;*?", b'a:', b'x@snap',
             bytes(range(1, 47)) + bytes(range(48, 256))]
    for name in names:
        write(os.path.join(top, name), (0, b'this is ' + name))
    os.mkdir(os.path.join(top, b'\xc3\x28'))
    write(os.path.join(top, b'\xc3\x28', b'\xf0inner'), (0, b'inner'))


def make_deep(top):
    here = os.getcwd()
    os.mkdir(top)
    os.chdir(top)
    for i in range(DEPTH):
        os.mkdir(f'{i % 100}')
        os.chdir(f'{i % 100}')
    write('bottom', (0, b'deep down'))
    os.chdir(here)


def make_files(top):
    os.mkdir(top)
    noise = os.urandom(70000)
    write(f'{top}/empty')
    write(f'{top}/holes', (0, b'begin'), (5 * GIB + 12345, noise), (10 * GIB - 3, b'end'))
    write(f'{top}/nothing', size=10 * GIB)
    write(f'{top}/scattered', *((i * 9000, b'%d' % i) for i in range(600)), size=10 ** 7)
    for n in (1, 59, 60, 61, 4095, 4096, 4097, 1 << 20):
        write(f'{top}/{n}', (0, noise[:1] * n))
    for n in (1, 59, 60, 255, 1023, 4094):
        os.symlink('t' * n, f'{top}/link{n}')
    os.mkdir(f'{top}/other')
    for i in range(200):
        os.link(f'{top}/4097', f'{top}/other/{i}')
    os.mkfifo(f'{top}/fifo')
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(os.path.relpath(f'{top}/socket'))
    for i, mode in enumerate((0o4755, 0o2755, 0o1777, 0o400, 0o7777)):
        write(f'{top}/mode{i}', (0, b'm'))
        os.chmod(f'{top}/mode{i}', mode)
    for i, t in enumerate((0, 1, 2 ** 31 - 1, 2 ** 31, 2 ** 33 + 7)):
        write(f'{top}/time{i}', (0, b't'))
        os.utime(f'{top}/time{i}', ns=(t * 10 ** 9, t * 10 ** 9 + 123456789))


def make_owned(top):
    os.mkdir(top)
    for i, owner in enumerate(((1, 2), (65535, 65536), (4294967294, 1 << 31))):
        write(f'{top}/{i}', (0, b'o'))
        os.chown(f'{top}/{i}', *owner)
    for i, device in enumerate(((1, 3), (255, 255), (256, 256), (4095, 1048575))):
        os.mknod(f'{top}/c{i}', stat.S_IFCHR | 0o600, os.makedev(*device))
        os.mknod(f'{top}/b{i}', stat.S_IFBLK | 0o660, os.makedev(*device))
    write(f'{top}/trusted', (0, b't'))
    os.setxattr(f'{top}/trusted', 'trusted.overlay.opaque', b'y')
    os.setxattr(f'{top}/trusted', 'security.capability', struct.pack('<5I', 0x02000001, 1, 0, 0, 0))


def make_attributes(top):
    os.mkdir(top)
    for i, attributes in enumerate((
            {'user.small': b'v'}, {'user.empty': b''}, {'user.' + 'n' * 250: b'v'},
            {f'user.{k}': b'%d' % k * 20 for k in range(20)}, {'user.large': b'l' * 3000},
            {'system.posix_acl_access': ACL, 'user.x': b'\0\xff\n'})):
        write(f'{top}/{i}', (0, b'a'))
        for name, value in attributes.items():
            os.setxattr(f'{top}/{i}', name, value)
    os.setxattr(top, 'system.posix_acl_default', ACL)


def make_tree(top):
    os.mkdir(top)
    make_names(os.fsencode(f'{top}/names'))
    make_deep(f'{top}/deep')
    make_files(f'{top}/files')
    make_attributes(f'{top}/attributes')
    make_owned(f'{top}/owned')


def make_many(top):
    os.mkdir(top)
    for i in range(MANY):
        os.close(os.open(f'{top}/file number {i}', os.O_CREAT, 0o640))


def reads(tree):
    """mke2fs made it, img copies it out: the host has it twice."""
    with open('theirs', 'wb') as f:
        f.truncate(GIB)
    # It keeps no sockets, no parts of seconds, and no times after 2038.
    aside = ('socket', 'time3', 'time4')
    for name in aside:
        os.rename(f'{tree}/files/{name}', name)
    run('mke2fs', '-q', '-t', 'ext4', '-d', tree, 'theirs')
    img('cp', '-a', 'theirs:/', 'out')
    shutil.rmtree('out/lost+found')
    there = look(tree, 10 ** 9)
    back = look('out', 10 ** 9)
    for name in aside:
        os.rename(name, f'{tree}/files/{name}')
    same(back, there, 'host')
    shutil.rmtree('out')
    os.remove('theirs')


def names_in(image, directory):
    """What debugfs counts, which lists removed names as well, with inode 0."""
    return len(re.findall(rb'^/[1-9]\d*/.*/file number', run('debugfs', '-R', f'ls -p {directory}', image),
                          re.MULTILINE))


def free_inodes(image):
    return int(re.search(rb'Free inodes: +(\d+)', run('dumpe2fs', '-h', image)).group(1))


def linux(image, expected, times):
    sound(image)
    if not MOUNTS:
        return
    with Mounted(image, 'ro') as top:
        same(look(top, times), expected, 'host')


def makes(tree):
    """img makes it, in an overlay: Linux has the same."""
    make_ext('base', 2 * GIB, '-N', '120000', '-b', '4096')
    run('img', 'create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'raw', 'disk.qcow2')
    img('cp', '-a', f'{tree}/.', 'disk.qcow2:/')
    run('img', 'convert', '-O', 'raw', 'disk.qcow2', 'ours')
    linux('ours', look(tree, 1), 1)
    os.remove('disk.qcow2')
    os.remove('base')


def changes(tree):
    """The same changes to the image and, by the host's programs, to the tree."""
    env = dict(os.environ, LC_ALL='C')
    for argv in (['chmod', '-R', 'u+rwX,g-w,o=g', '/files', '/names'], ['mv', '/deep/0/1/2', '/names/moved'],
                 ['rm', '-r', '/names/moved/3', '/files/other'], ['chmod', '750', '/attributes/5'],
                 ['mkdir', '/attributes/inherits'], ['ln', '/files/holes', '/files/again'],
                 ['rm', '/files/1048576', '/files/nothing', '/files/link4094']):
        img(argv[0], *(f'ours:{a}' if a[0] == '/' else a for a in argv[1:]))
        if argv[0] == 'mkdir':
            os.mkdir(tree + argv[1], 0o755)
            continue
        run(argv[0], *(tree + a if a[0] == '/' else a for a in argv[1:]), env=env)
    img('chown', '-R', '70000:7', 'ours:/files', 'ours:/owned')
    run('chown', '-R', '70000:7', f'{tree}/files', f'{tree}/owned')
    linux('ours', look(tree), 0)


def many():
    """Into a directory with an index, and out of it again, to the last."""
    before = free_inodes('ours')
    make_many('many')
    img('cp', '-a', 'many', 'ours:/')
    sound('ours')
    assert names_in('ours', '/many') == MANY
    assert run('img', 'ls', 'ours:/many').count(b'\n') == MANY
    if MOUNTS:
        with Mounted('ours', 'ro') as top:
            assert sorted(os.listdir(f'{top}/many')) == sorted(os.listdir('many'))
            # By the index, not by looking through.
            for i in range(0, MANY, 997):
                assert os.stat(f'{top}/many/file number {i}').st_size == 0
    img('rm', *(f'ours:/many/file number {i}' for i in range(0, 2000, 3)))
    sound('ours')
    assert names_in('ours', '/many') == MANY - 667
    img('rm', '-r', 'ours:/many')
    sound('ours')
    assert free_inodes('ours') == before


def main():
    global MOUNTS
    os.umask(0o022)
    make_ext('probe', 1 << 20)
    MOUNTS = can_mount('probe')
    try:
        make_tree('tree')
    except OSError as e:
        print(f'not all kinds of files can be made here: {e}')
        sys.exit(77)
    reads('tree')
    makes('tree')
    changes('tree')
    many()


MOUNTS = False
main()
