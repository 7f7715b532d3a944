# SPDX-License-Identifier: GPL-2.0-or-later
"""What the Linux kernel, or a directory of the host, says of a tree; and images in loop mounts."""
import hashlib
import os
import stat
import subprocess


def run(*argv, env=None):
    r = subprocess.run(argv, capture_output=True, env=env)
    assert r.returncode == 0, (argv, r.stdout, r.stderr)
    return r.stdout


def img(command, *argv):
    """It must succeed and have no complaints."""
    r = subprocess.run(['img', command, '--isolation=process', *argv], capture_output=True)
    assert r.returncode == 0 and not r.stderr, (command, argv, r.returncode, r.stderr)
    return r.stdout


def sound(image):
    run('e2fsck', '-fn', image)


def make_ext(image, size, *options):
    with open(image, 'wb') as f:
        f.truncate(size)
    run('mke2fs', '-q', '-t', 'ext4', *options, image)


class Mounted:
    """The kernel's view of an image, in the directory "mnt"."""

    def __init__(self, image, *options):
        self.image, self.options = image, options

    def __enter__(self):
        run('mount', '-o', ','.join(('loop',) + self.options), self.image, 'mnt')
        return os.path.abspath('mnt')

    def __exit__(self, *what):
        run('umount', 'mnt')


def can_mount(image):
    """Only root can, and not in every container."""
    os.mkdir('mnt')
    r = subprocess.run(['mount', '-o', 'loop,ro', image, 'mnt'], capture_output=True)
    if r.returncode == 0:
        run('umount', 'mnt')
    return r.returncode == 0


def _content(fd):
    """The bytes and where they are: holes of 10 GiB are not read."""
    digest, at, end = hashlib.sha256(), 0, os.fstat(fd).st_size
    while at < end:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        hole = os.lseek(fd, at, os.SEEK_HOLE)
        while at < hole:
            piece = os.pread(fd, min(1 << 20, hole - at), at)
            # Zeros that one stores and the other does not are the same bytes.
            for i in range(0, len(piece), 4096):
                if piece[i:i + 4096].strip(b'\0'):
                    digest.update(b'%d:' % (at + i) + piece[i:i + 4096].rstrip(b'\0'))
            at += len(piece)
    return end, digest.hexdigest()


def _entry(path, name, times):
    st = os.lstat(path)
    fact = [oct(st.st_mode), st.st_uid, st.st_gid, st.st_rdev]
    if not stat.S_ISDIR(st.st_mode):
        fact.append(st.st_nlink)
    if stat.S_ISLNK(st.st_mode):
        fact.append(os.readlink(path))
    if stat.S_ISREG(st.st_mode):
        fd = os.open(path, os.O_RDONLY | os.O_NOATIME if os.getuid() == 0 else os.O_RDONLY)
        fact.append(_content(fd))
        os.close(fd)
    fact.append({n: os.getxattr(path, n, follow_symlinks=False)
                 for n in os.listxattr(path, follow_symlinks=False)})
    if times:
        fact.append(st.st_mtime_ns // times)
    return fact


def look(top, times=0):
    """Everything that is in a directory, by name (bytes); lost+found is not looked at. It goes into
    directories by their names alone: paths may be longer than the kernel takes. times: nanoseconds
    of a unit in which they are compared, 0: not at all."""
    found, here = {}, os.open('.', os.O_RDONLY)
    links = {}

    def enter(prefix):
        for entry in sorted(os.listdir(b'.')):
            name = prefix + entry
            if name == b'lost+found':
                continue
            st = os.lstat(entry)
            found[name] = _entry(entry, name, times)
            if not stat.S_ISDIR(st.st_mode) and st.st_nlink > 1:
                # Which names are one file, by the first of them.
                found[name].append(links.setdefault(st.st_ino, name))
            if stat.S_ISDIR(st.st_mode):
                os.chdir(entry)
                enter(name + b'/')
                os.chdir(b'..')

    os.chdir(top)
    try:
        enter(b'')
    finally:
        os.fchdir(here)
        os.close(here)
    return found


def same(ours, theirs, who):
    """Two results of look."""
    for name in sorted(set(ours) | set(theirs)):
        assert ours.get(name) == theirs.get(name), \
            f'{name}:\n  img: {ours.get(name)}\n  {who}: {theirs.get(name)}'
