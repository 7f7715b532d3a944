# SPDX-License-Identifier: GPL-2.0-or-later
"""An archive that is stopped, in both directions: dead of the signal, a sound file system, no target."""
import io
import os
import signal
import subprocess
import tarfile

IMG = os.environ['IMG']


def run(*argv):
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)


def start(*argv, **files):
    return subprocess.Popen([IMG, 'tar', argv[0], '--isolation=process', *argv[1:]], stderr=subprocess.PIPE, **files)


def ended(proc, what):
    err = proc.stderr.read()
    proc.wait(timeout=60)
    if proc.returncode != -signal.SIGINT or b'Stopped by SIGINT' not in err:
        print(f'{what}: {proc.returncode} {err!r}')


os.mkdir('tree')
with open('tree/large', 'wb') as f:
    f.write(os.urandom(1 << 20) * 16)
run('mke2fs', '-q', '-t', 'ext4', '-d', 'tree', 'disk.raw', '64M')

# Out: stopped while nobody takes what it has.
tar = start('out', 'disk.raw:/', stdout=subprocess.PIPE)
tar.stdout.read(1 << 20)
tar.send_signal(signal.SIGINT)
while tar.stdout.read(1 << 20):
    pass
ended(tar, 'out')

# In: stopped while it waits for more.
archive = io.BytesIO()
with tarfile.open(fileobj=archive, mode='w') as t:
    t.add('tree')
tar = start('in', 'disk.raw:/', stdin=subprocess.PIPE)
tar.stdin.write(archive.getvalue()[:5 << 20])
tar.stdin.flush()
tar.send_signal(signal.SIGINT)
ended(tar, 'in')
check = run('e2fsck', '-fn', 'disk.raw')
if check.returncode:
    print(check.stdout.decode())

# A target that is a file: nothing of it is left.
os.mkfifo('slow')
tar = start('out', 'disk.raw:/', '-f', 'x.tar')
tar.send_signal(signal.SIGINT)
tar.communicate()
left = [n for n in os.listdir('.') if 'img-tar' in n]
if left or (tar.returncode and os.path.exists('x.tar')):
    print(left, tar.returncode)
