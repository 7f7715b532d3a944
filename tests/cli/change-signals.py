# SPDX-License-Identifier: GPL-2.0-or-later
"""A signal ends commands that change a guest in order: the call that runs is cancelled, the file
system is sound, the next disk is not touched, and no copy of a guest's file stays behind."""
import os
import signal
import subprocess

FILES = 3000


def debugfs(request, image):
    return subprocess.run(['debugfs', '-R', request, image], capture_output=True, text=True).stdout


def sound(image):
    r = subprocess.run(['e2fsck', '-fn', image], capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr


def make_image(image, tree):
    with open(image, 'wb') as f:
        f.truncate(32 << 20)
    subprocess.run(['mke2fs', '-q', '-t', 'ext4', '-N', '4096', '-d', tree, image], check=True,
                   stdout=subprocess.DEVNULL)


def rm():
    """The signal is there before img begins, and reaches it when it begins to listen."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    with subprocess.Popen(['img', 'rm', '-r', '--isolation=process', 'fs:/big', 'other:/big/0'],
                          stderr=subprocess.PIPE, text=True) as p:
        p.send_signal(signal.SIGINT)
        err = p.communicate()[1]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    assert p.returncode == 128 + signal.SIGINT and err == 'img: Stopped by SIGINT\n', (p, err)
    left = debugfs('ls -p /big', 'fs').count('/10')
    assert left, 'nothing is left'
    assert 'Inode' in debugfs('stat /big/0', 'other')


def edit(editor):
    env = dict(os.environ, EDITOR=editor)
    r = subprocess.run(['img', 'edit', '--isolation=process', 'other:/note'], env=env,
                       capture_output=True, text=True)
    assert not os.listdir('tmp'), os.listdir('tmp')
    return r.returncode, r.stderr, debugfs('cat /note', 'other')


def main():
    os.makedirs('tree/big')
    for i in range(FILES):
        os.close(os.open(f'tree/big/{i}', os.O_CREAT, 0o644))
    with open('tree/note', 'w', encoding='ascii') as f:
        f.write('old\n')
    make_image('fs', 'tree')
    make_image('other', 'tree')
    rm()
    os.mkdir('tmp')
    os.environ['TMPDIR'] = os.path.abspath('tmp')
    for sig in (signal.SIGTERM, signal.SIGHUP):
        # The shell waits for the signal that img passes on to it.
        r = edit(f'echo new > "$1"; kill -{sig.value} $PPID; while :; do sleep 0.01; done;')
        assert r == (-sig, f'img: Stopped by {sig.name}\n', 'old\n'), r
    # A terminal's Ctrl-C and Ctrl-\ are for the editor.
    r = edit('kill -INT $PPID; kill -QUIT $PPID; echo new >')
    assert r == (0, '', 'new\n'), r
    sound('fs')
    sound('other')


main()
