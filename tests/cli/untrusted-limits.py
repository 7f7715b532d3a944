# SPDX-License-Identifier: GPL-2.0-or-later
# variants: release
"""--untrusted limits memory, CPU time and output; each limit ends in an error that says so."""
import os
import signal
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from hostile import Image

IMG = os.environ['IMG']


def run(*argv, out=subprocess.PIPE):
    return subprocess.run([IMG, *argv], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE,
                          check=False, errors='replace')


def expect(proc, code, says):
    if proc.returncode != code or says not in proc.stderr:
        sys.exit(f'{proc.args}: exit {proc.returncode}, expected {code}: {proc.stderr}')


def bomb(path, disk_bits, entry=5 * 512):
    """A small image of a large disk: one L2 table, and one cluster of data, stand for all of it. Every
    other cluster is a hole, so that the ranges cannot be joined."""
    image = Image(path, cluster_bits=9, size=1 << disk_bits)
    entries = (1 << disk_bits) >> (9 + 6)
    image.header(l1_size=entries, l1_offset=1 << 20)
    for i in range(64):
        image.put(image.l2(i), '>Q', entry if i % 2 else 0)
    image.grow((1 << 20) + 8 * entries)
    image.write(1 << 20, (4 * 512).to_bytes(8, 'big') * entries)
    return image.close()


def feed(pipe):
    try:
        pipe.write(b'x' * (32 << 20))
    except BrokenPipeError:
        pass


def limits_of(*argv):
    """The soft limits that the kernel has for the process, seen with its own eyes."""
    proc = subprocess.Popen([IMG, 'convert', *argv, '-f', 'raw', '-', '-O', 'raw', '-'],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    feeder = threading.Thread(target=feed, args=(proc.stdin,))
    feeder.start()
    proc.stdout.read(1)  # it is at work
    with open(f'/proc/{proc.pid}/limits', encoding='ascii') as f:
        rows = {line[:26].strip(): line[26:].split()[0] for line in f}
    proc.kill()
    proc.wait()
    feeder.join()
    return [rows[k] for k in ('Max data size', 'Max cpu time', 'Max file size', 'Max core file size')]


# Each command, so that it opens IMAGE.
COMMANDS = {
    'amend': '-o size=1M IMAGE', 'bench': 'IMAGE', 'bitmap': '--list IMAGE', 'check': 'IMAGE',
    'checksum': 'IMAGE', 'commit': 'IMAGE', 'compact': 'IMAGE', 'compare': 'IMAGE IMAGE',
    'convert': 'IMAGE out.raw', 'create': '-f qcow2 -b IMAGE -F qcow2 out.qcow2', 'dd': 'if=IMAGE of=out.raw',
    'dedup': 'IMAGE', 'info': 'IMAGE', 'map': 'IMAGE', 'measure': 'IMAGE', 'rebase': '-b none IMAGE',
    'mirror': 'IMAGE IMAGE', 'resize': 'IMAGE 1G', 'snapshot': 'IMAGE', 'sparsify': '--zero-scan IMAGE',
    'cat': 'IMAGE:/f', 'chmod': '600 IMAGE:/f', 'chown': '0 IMAGE:/f', 'cp': 'IMAGE:/f f', 'df': 'IMAGE',
    'edit': '-e s/a/b/ IMAGE:/f', 'filesystems': 'IMAGE', 'fsck': 'IMAGE', 'ln': '-s f IMAGE:/l',
    'ls': 'IMAGE:/', 'mkdir': 'IMAGE:/d', 'mkfs': 'IMAGE', 'mv': 'IMAGE:/f IMAGE:/g', 'rm': 'IMAGE:/f',
    'serve': '--run true IMAGE', 'stat': 'IMAGE:/f', 'tar': 'out IMAGE:/',
}
# It opens no image.
NO_IMAGE = {'doctor'}
CODES = {'compare': 2, 'fsck': 8}


def test_memory(image):
    """Opening this image takes 16 MiB: more than one limit allows, and less than the other one."""
    told = run('--completion-data').stdout.splitlines()
    commands = {line.split('\t')[1] for line in told if line.startswith('command\t')}
    if commands != set(COMMANDS) | NO_IMAGE:
        sys.exit(f'not all commands are tested here: {commands ^ set(COMMANDS) ^ NO_IMAGE}')
    for command, args in COMMANDS.items():
        expect(run(command, '--untrusted=memory=8M', *args.replace('IMAGE', image).split()),
               CODES.get(command, 1), 'out of memory (16777216 bytes')
    expect(run('info', '--untrusted=memory=64M', image), 0, '')
    expect(run('map', '--untrusted=memory=64M', '-l', '1M', image), 0, '')
    # Enough to open it, not enough for what comes then.
    expect(run('check', '--untrusted=memory=64M', image), 1, 'Check failed: out of memory')


def main():
    default = limits_of('--untrusted')
    if default != [str(1 << 30), '600', str(1 << 40), '0']:
        sys.exit(f'limits: {default}')
    given = limits_of('--untrusted=memory=512M,time=7,output=1M')
    if given != [str(512 << 20), '7', str(1 << 20), '0']:
        sys.exit(f'limits: {given}')
    expect(run('info', '--untrusted=memory=lots', 'x'), 1, "'memory' expects")
    expect(run('info', '--untrusted=files=1', 'x'), 1, "Invalid parameter 'files'")

    path = bomb('bomb.qcow2', 33)
    expect(run('info', '--untrusted', path), 0, '')
    with open(os.devnull, 'w', encoding='ascii') as null:
        expect(run('map', '--untrusted', path, out=null), 1, 'more than 1048576 ranges')
    expect(run('convert', '--untrusted=output=1G', '-O', 'raw', path, '-', out=subprocess.DEVNULL), 1,
           'allows 1073741824 of output')
    expect(run('convert', '--untrusted=output=1M', '-O', 'raw', path, 'out.raw'), 1, 'File too large')
    if os.path.exists('out.raw'):
        sys.exit('out.raw was left behind')
    big = bomb('big.qcow2', 36)
    test_memory(big)
    # Time: the disk takes minutes to read, the limit is one second.
    expect(run('checksum', '--untrusted=time=1', big), -signal.SIGXCPU, 'Stopped by SIGXCPU')
    # Zeros and holes in turn: nothing to print, but all to be looked at.
    silent = bomb('silent.qcow2', 36, 1)
    expect(run('map', '--untrusted=time=1', silent), -signal.SIGXCPU, 'CPU time')


main()
