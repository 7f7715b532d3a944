# SPDX-License-Identifier: GPL-2.0-or-later
# variants: release
# timeout: 300
"""Long commands that are stopped in the middle of their work: SIGUSR1 tells how far they are and changes
nothing; SIGINT and SIGTERM end them, they say so and die of the signal, and the image is whole, with what
it held, and without a cluster that leaks. A library that is loaded before the program holds it at a given
call, so nothing here depends on time."""
import json
import os
import re
import signal
import subprocess
import time

IMG, TOP = os.environ['IMG'], os.environ['TOP']
MiB = 1 << 20


def img(*argv, code=0):
    proc = subprocess.run([IMG, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, text=True)
    if proc.returncode != code:
        print(f'{argv}: exit code {proc.returncode}: {proc.stderr}')
    return proc.stdout


def copy(source, target):
    subprocess.run(['cp', '--sparse=always', source, target], check=True)


def raw(path, letter, size=12 * MiB):
    """No two clusters are equal, and none is zeros."""
    with open(path, 'wb') as f:
        for n in range(size // 512):
            f.write((b'%c%015d' % (letter, n)) * 32)


# ---- what is stopped ----

class Gated:
    """A command that waits at the at-th call of a kind."""

    def __init__(self, argv, call, at):
        self.argv = argv
        reached, theirs = os.pipe()
        go, self.go = os.pipe()
        env = dict(os.environ, LD_PRELOAD=os.path.abspath('gate.so'), GATE_CALL=call, GATE_AT=str(at),
                   GATE_REACHED=str(theirs), GATE_GO=str(go))
        self.proc = subprocess.Popen([IMG, *argv], env=env, pass_fds=(theirs, go), stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        os.close(theirs)
        os.close(go)
        self.here = os.read(reached, 1) == b'\1'
        os.close(reached)
        if not self.here:
            print(f'{argv}: ended before: {self.proc.communicate()}')

    def states(self):
        """Of all threads; and whether a signal waits for somebody to take it."""
        base, found, pending = f'/proc/{self.proc.pid}/task', set(), False
        for thread in os.listdir(base):
            try:
                with open(f'{base}/{thread}/status', encoding='ascii') as f:
                    text = f.read()
            except (FileNotFoundError, ProcessLookupError): # it just ended
                found.add('X')
                continue
            found.add(re.search(r'^State:\s+(\w)', text, re.M)[1])
            pending |= int(re.search(r'^ShdPnd:\s+(\w+)', text, re.M)[1], 16) != 0
        return found, pending

    def send(self, number):
        """Returns when the program has taken the signal, and every thread waits again."""
        self.proc.send_signal(number)
        while self.proc.poll() is None and self.states() != ({'S'}, False):
            time.sleep(0.002)

    def end(self):
        if self.proc.poll() is None:
            os.write(self.go, b'\1')
        os.close(self.go)
        return self.proc.communicate()

    def kill(self):
        self.proc.kill()
        self.proc.wait()
        self.end()


def stopped(what, number):
    argv, call, at, whole = what
    job = Gated(argv, call, at)
    if not job.here:
        return
    job.send(signal.SIGUSR1)
    job.send(number)
    _, err = job.end()
    if job.proc.returncode != -number:
        print(f'{argv}: {number.name}: exit code {job.proc.returncode}: {err}')
    lines = err.splitlines()
    if not re.fullmatch(r' *\(\d+\.\d\d/100%\)', lines[0] if lines else ''):
        print(f'{argv}: SIGUSR1: {err!r}')
    if not lines or lines[-1] != f'img: Stopped by {number.name}':
        print(f'{argv}: {number.name}: {err!r}')
    whole()


def told(what):
    """SIGUSR1 alone: the command ends as ever."""
    argv, call, at, whole = what
    job = Gated(argv, call, at)
    if not job.here:
        return
    job.send(signal.SIGUSR1)
    _, err = job.end()
    if job.proc.returncode or not re.fullmatch(r' *\(\d+\.\d\d/100%\)\n', err):
        print(f'{argv}: SIGUSR1: exit code {job.proc.returncode}: {err!r}')
    whole()


def killed_in_bitmap():
    """Killed at once: as after a power cut, the disk is there, and the bitmap is whole or says that it is
    not."""
    for argv in (['--merge', 'one', 'x.qcow2', 'two'], ['--clear', 'x.qcow2', 'one'],
                 ['--remove', 'x.qcow2', 'one'], ['--add', 'x.qcow2', 'three']):
        for at in (1, 2, 4):
            copy('bits.qcow2', 'x.qcow2')
            job = Gated(['bitmap', *argv], 'write', at)
            job.kill()
            code = subprocess.run([IMG, 'check', '-q', 'x.qcow2'], stderr=subprocess.DEVNULL, check=False).returncode
            if job.proc.returncode != -signal.SIGKILL or code not in (0, 3):
                print(f'bitmap {argv}, write {at}: exit code {job.proc.returncode}, check says {code}')
            img('compare', '-q', 'x.qcow2', 'bits.qcow2')
            img('info', 'x.qcow2')


def in_bitmap():
    """What is too short to be stopped is done; what was stopped is stored, and can be done again."""
    copy('bits.qcow2', 'x.qcow2')
    for action in ('--clear', '--remove'):
        job = Gated(['bitmap', action, 'x.qcow2', 'one'], 'write', 1)
        job.send(signal.SIGTERM)
        _, err = job.end()
        if job.proc.returncode or err:
            print(f'bitmap {action}: exit code {job.proc.returncode}: {err}')
        sound('x.qcow2', 'bits.qcow2')
    if dirty('x.qcow2') != {'two': 0}:
        print(f'bitmap --clear, --remove: {dirty("x.qcow2")}')


# ---- the images ----

def dirty(path):
    return {b['name']: b['dirty'] for b in json.loads(img('bitmap', '--list', '--output=json', path))}


def merged():
    """Each cluster of a bitmap is for 256 MiB of disk, and looked at by itself."""
    copy('bits.qcow2', 'x.qcow2')

    def whole():
        sound('x.qcow2', 'bits.qcow2')
        found = dirty('x.qcow2')
        if not 0 < found['two'] < found['one']:
            print(f'bitmap --merge: {found}')
        img('bitmap', '--merge', 'one', 'x.qcow2', 'two')
        found = dirty('x.qcow2')
        if found['two'] != found['one']:
            print(f'bitmap --merge, again: {found}')
    return whole


def sound(path, like=None):
    img('check', '-q', path)
    if 'in-use' in img('info', '--output=json', path):
        print(f'{path}: its bitmap is void')
    if like:
        img('compare', '-q', path, like)


def chain():
    copy('top.origin', 'top.qcow2')
    copy('base.raw', 'below.raw')
    return lambda: sound('top.qcow2', 'content.raw')


def alone(source):
    """One image that is changed in place, and holds the same afterwards."""
    copy(source, 'x.qcow2')
    return lambda: sound('x.qcow2', source)


def benched():
    img('create', '-q', '--force', '-f', 'qcow2', '-o', 'cluster_size=4k', 'x.qcow2', '40M')
    img('bitmap', '--add', 'x.qcow2', 'b')
    return lambda: sound('x.qcow2')


def new(path):
    """A target that does not get its name before it is whole."""
    def gone():
        if os.path.exists(path) and subprocess.run([IMG, 'compare', '-q', path, 'base.raw'], check=False).returncode:
            print(f'{path} is there, and is not whole')
        for name in os.listdir('.'):
            if name.startswith(('.', path)):
                os.unlink(name) if name == path else print(f'{name} was left behind')
    return gone


def make_images():
    raw('base.raw', ord('a'))
    raw('other.raw', ord('b'))
    raw('part.raw', ord('c'), 4 * MiB)
    copy('base.raw', 'below.raw')
    img('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', 'below.raw', 'top.qcow2')
    img('convert', '-n', '-O', 'qcow2', 'part.raw', 'top.qcow2')
    copy('top.qcow2', 'top.origin')
    img('convert', '-O', 'raw', 'top.qcow2', 'content.raw')
    img('convert', '-O', 'qcow2', '-o', 'cluster_size=4k', 'base.raw', 'plain.qcow2')
    # Space in front of what is in use.
    copy('plain.qcow2', 'holes.qcow2')
    img('snapshot', '-c', 's', 'holes.qcow2')
    img('convert', '-n', '-O', 'qcow2', 'other.raw', 'holes.qcow2')
    img('snapshot', '-d', 's', 'holes.qcow2')
    # Zeros that are stored, under a bitmap.
    with open('zeros.raw', 'wb') as f:
        f.write(bytes(6 * MiB) + b'data' * (6 * MiB // 4))
    img('convert', '-S', '0', '-O', 'qcow2', 'zeros.raw', 'tracked.qcow2')
    img('bitmap', '--add', 'tracked.qcow2', 'b')
    # Bitmaps of some clusters, one of them with something in it.
    with open('sparse.raw', 'wb') as f:
        for at in range(4):
            f.seek(at * 256 * MiB)
            f.write(b'sparse' * 4096)
        f.truncate(1024 * MiB)
    img('create', '-q', '-f', 'qcow2', 'bits.qcow2', '1G')
    img('bitmap', '--add', '-g', '512', 'bits.qcow2', 'one')
    img('convert', '-n', '--target-is-zero', '-O', 'qcow2', 'sparse.raw', 'bits.qcow2')
    img('bitmap', '--add', '--disable', '-g', '512', 'bits.qcow2', 'two')
    # Small clusters: many references.
    img('convert', '-O', 'qcow2', '-o', 'cluster_size=512', 'base.raw', 'small.qcow2')


def commands():
    x = ['x.qcow2']
    return [
        (['commit', '-q', 'top.qcow2'], 'write', 3, chain),
        (['commit', '-q', '-d', 'top.qcow2'], 'write', 3, chain),
        (['rebase', '-q', '-b', 'other.raw', '-F', 'raw', 'top.qcow2'], 'write', 3, chain),
        (['rebase', '-q', '-c', '-b', 'other.raw', '-F', 'raw', 'top.qcow2'], 'write', 3, chain),
        (['amend', '-q', '-o', 'refcount_bits=64'] + x, 'write', 3, lambda: alone('small.qcow2')),
        (['amend', '-q', '-o', 'compat=0.10'] + x, 'read', 20, lambda: alone('small.qcow2')),
        (['bench', '-q', '-w', '-c', '5000', '-s', '4k', '-S', '4k'] + x, 'write', 500, benched),
        (['bitmap', '--merge', 'one'] + x + ['two'], 'write', 1, merged),
        (['compact', '-q'] + x, 'read', 20, lambda: alone('holes.qcow2')),
        (['sparsify', '-q', '--zero-scan'] + x, 'read', 10, lambda: alone('plain.qcow2')),
        (['sparsify', '-q', '--zero-scan'] + x, 'read', 15, lambda: alone('tracked.qcow2')),
        (['dedup', '-q'] + x, 'read', 20, lambda: alone('plain.qcow2')),
        (['check', '-q'] + x, 'read', 10, lambda: alone('small.qcow2')),
        (['dd', '-O', 'qcow2', 'bs=64k', 'if=base.raw', 'of=dd.qcow2'], 'write', 5,
         lambda: new('dd.qcow2')),
        (['convert', '-q', '-O', 'qcow2', 'base.raw', 'new.qcow2'], 'write', 3, lambda: new('new.qcow2')),
        (['convert', '-q', '-c', '-O', 'qcow2', 'base.raw', 'new.qcow2'], 'write', 3,
         lambda: new('new.qcow2')),
    ]


subprocess.run([os.environ.get('CC', 'gcc'), '-shared', '-fPIC', '-O1', '-D_GNU_SOURCE', '-o', 'gate.so',
                os.path.join(TOP, 'tests/lib/preload/gate.c')], check=True)
make_images()
killed_in_bitmap()
in_bitmap()
for argv_, call_, at_, prepare in commands():
    if argv_[0] in ('commit', 'amend', 'compact', 'bench'):
        prepare()
        told((argv_, call_, at_, lambda: sound(argv_[-1]))) # pylint: disable=cell-var-from-loop
    for n in (signal.SIGINT, signal.SIGTERM):
        stopped((argv_, call_, at_, prepare()), n)
