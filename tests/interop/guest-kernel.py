# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux is the judge: the same changes, made by img and by the kernel in a loop mount, come to the
same tree, with owners, modes, ACLs, capabilities and other attributes; and what Linux did not unmount is
sound afterwards. Needs root and loop devices."""
import os
import shutil
import stat
import struct
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from guest_trees import Mounted, can_mount, img, look, make_ext, run, same, sound

USER, GROUP, NAMED_GROUP, MASK, OTHER = 1, 4, 8, 16, 32
NOBODY = 0xffffffff
CAPABILITY = struct.pack('<5I', 0x02000001, 1 << 12, 0, 0, 0)


def acl(*entries):
    return struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *e) for e in entries)


def fill(top):
    """What the changes begin with."""
    named = acl((USER, 7, NOBODY), (GROUP, 5, NOBODY), (NAMED_GROUP, 6, 70000),
                (MASK, 7, NOBODY), (OTHER, 1, NOBODY))
    small = acl((USER, 5, NOBODY), (GROUP, 7, NOBODY), (OTHER, 0, NOBODY))
    for name in ('group', 'acl', 'small', 'both', 'tree', 'tree/sub', 'many'):
        os.mkdir(f'{top}/{name}')
    for name in ('file', 'prog', 'lock', 'text', 'acl/text', 'tree/a', 'tree/sub/b'):
        with open(f'{top}/{name}', 'w', encoding='ascii') as f:
            f.write(f'this is {name}\n')
    for i in range(400):
        os.close(os.open(f'{top}/many/a long name for an index {i}', os.O_CREAT, 0o600))
    os.symlink('../file', f'{top}/tree/link')
    os.symlink('tree', f'{top}/way')
    os.mkfifo(f'{top}/tree/pipe')
    os.mknod(f'{top}/tree/null', stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for name in ('group', 'both'):
        os.chown(f'{top}/{name}', 5, 90000)
        os.chmod(f'{top}/{name}', 0o2775)
    for name in ('acl', 'both'):
        os.setxattr(f'{top}/{name}', 'system.posix_acl_default', named)
    os.setxattr(f'{top}/small', 'system.posix_acl_default', small)
    for name in ('acl', 'text', 'tree/a'):
        os.setxattr(f'{top}/{name}', 'system.posix_acl_access', named)
    os.setxattr(f'{top}/text', 'user.note', b'x' * 300)
    os.setxattr(f'{top}/prog', 'security.capability', CAPABILITY)
    os.setxattr(f'{top}/tree/sub/b', 'security.capability', CAPABILITY)
    os.setxattr(f'{top}/tree/sub/b', 'user.note', b'kept')
    os.chmod(f'{top}/prog', 0o6755)
    os.chmod(f'{top}/lock', 0o2644)
    os.chmod(f'{top}/tree/sub/b', 0o4711)
    os.chmod(f'{top}/tree/null', 0o6666)


def edit(path, old, new):
    with open(path, 'r+', encoding='ascii') as f:
        text = f.read().replace(old, new)
        f.seek(0)
        f.truncate()
        f.write(text)


def make(*paths):
    for path in paths:
        os.mkdir(path, 0o755)


# What img is asked for, I: standing for the image, and what the kernel does for it.
CHANGES = [
    ('mkdir I:/new I:/group/new I:/acl/new I:/small/new I:/both/new I:/both/new/deep',
     lambda: make('new', 'group/new', 'acl/new', 'small/new', 'both/new', 'both/new/deep')),
    ('mkdir -p I:/group/p/q/r', lambda: make('group/p', 'group/p/q', 'group/p/q/r')),
    ('ln -s ../file I:/both/soft', lambda: os.symlink('../file', 'both/soft')),
    ('ln -s /' + 'x' * 200 + ' I:/group/long', lambda: os.symlink('/' + 'x' * 200, 'group/long')),
    ('ln /file I:/both/hard', lambda: os.link('file', 'both/hard')),
    ('chmod g-w,o+w I:/text I:/acl/new', lambda: run('chmod', 'g-w,o+w', 'text', 'acl/new')),
    ('chmod -R u+s,go=rX I:/tree I:/acl', lambda: run('chmod', '-R', 'u+s,go=rX', 'tree', 'acl')),
    ('chown 12:34 I:/prog I:/lock I:/text', lambda: run('chown', '12:34', 'prog', 'lock', 'text')),
    ('chown -h 70000:70001 I:/tree/link',
     lambda: run('chown', '-h', '70000:70001', 'tree/link')),
    ('chown -R 77 I:/tree', lambda: run('chown', '-R', '77', 'tree')),
    ('chown -R 99:99 I:/way', lambda: run('chown', '-R', '99:99', 'way')),
    ('mv I:/acl/new I:/group/moved', lambda: os.rename('acl/new', 'group/moved')),
    ('mv I:/lock I:/group', lambda: os.rename('lock', 'group/lock')),
    ('edit -e s/this/that/ I:/text', lambda: edit('text', 'this', 'that')),
    ('edit -e s/this/that/ I:/acl/text', lambda: edit('acl/text', 'this', 'that')),
    ('rm I:/tree/pipe I:/tree/null', lambda: (os.remove('tree/pipe'), os.remove('tree/null'))),
    ('rm -r I:/many', lambda: shutil.rmtree('many')),
    ('mkdir I:/many', lambda: make('many')),
]

def unclean():
    """What Linux has not unmounted: its journal is replayed before anything is changed."""
    with Mounted('ours') as top:
        with open(f'{top}/late', 'w', encoding='ascii') as f:
            f.write('late news\n')
        for i in range(300):
            os.mkdir(f'{top}/late-{i}')
        os.sync()
        shutil.copyfile('ours', 'pulled')
    assert b'needs_recovery' in run('dumpe2fs', '-h', 'pulled')
    img('mkdir', 'pulled:/late-300')
    img('edit', '-e', 's/late/latest/', 'pulled:/late')
    sound('pulled')
    with Mounted('pulled', 'ro') as top:
        with open(f'{top}/late', encoding='ascii') as f:
            assert f.read() == 'latest news\n'
        assert len([n for n in os.listdir(top) if n.startswith('late-')]) == 301


def main():
    make_ext('ours', 24 << 20)
    if os.getuid() != 0 or not can_mount('ours'):
        print('needs root and loop mounts of ext4')
        sys.exit(77)
    with Mounted('ours') as top:
        fill(top)
    shutil.copyfile('ours', 'theirs')
    os.umask(0)
    for words, _ in CHANGES:
        argv = [w.replace('I:/', 'ours:/', 1) for w in words.split()]
        img(*argv)
    here = os.getcwd()
    with Mounted('theirs') as top:
        os.chdir(top)
        for _, change in CHANGES:
            change()
        os.chdir(here)
        theirs = look(top)
    sound('ours')
    with Mounted('ours', 'ro') as top:
        ours = look(top)
    same(ours, theirs, 'Linux')
    assert len(ours) > 20
    unclean()


main()
