# SPDX-License-Identifier: GPL-2.0-or-later
"""A copy that is stopped dies of the signal, leaves a sound file system, and what was to be replaced."""
import os
import signal
import subprocess

IMG = os.environ['IMG']


def run(*argv):
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)


def start(*argv):
    return subprocess.Popen([IMG, 'cp', '--isolation=process', *argv], stderr=subprocess.PIPE, text=True)


def ended(proc, what):
    err = proc.communicate(timeout=60)[1]
    if proc.returncode != -signal.SIGINT or 'Stopped by SIGINT' not in err:
        print(f'{what}: {proc.returncode} {err!r}')


def sound(image):
    r = run('e2fsck', '-fn', image)
    if r.returncode:
        print(r.stdout.decode())


os.mkdir('tree')
with open('tree/old', 'w', encoding='ascii') as f:
    f.write('precious\n')
with open('tree/large', 'wb') as f:
    f.write(os.urandom(1 << 20) * 16)
run('mke2fs', '-q', '-t', 'ext4', '-d', 'tree', 'disk.raw', '64M')

# In: stopped while it waits for more.
os.mkfifo('pipe')
copy = start('pipe', 'disk.raw:/old')
with open('pipe', 'wb') as f:
    f.write(os.urandom(3 << 20))
    f.flush()
    copy.send_signal(signal.SIGINT)
    ended(copy, 'in')
sound('disk.raw')
if run('debugfs', '-R', 'cat /old', 'disk.raw').stdout.splitlines()[-1:] != [b'precious']:
    print('the old file is gone')
names = run('debugfs', '-R', 'ls -p /', 'disk.raw').stdout
if b'img' in names:
    print(names)

# Out: stopped while nobody takes what it has.
copy = start('disk.raw:/large', 'pipe')
with open('pipe', 'rb') as f:
    f.read(1 << 20)
    copy.send_signal(signal.SIGINT)
    while f.read(1 << 20):
        pass
ended(copy, 'out')
with open('target', 'w', encoding='ascii') as f:
    f.write('precious\n')
