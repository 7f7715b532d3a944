#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a command in an emulated machine whose AMD processor has SVM, so that it meets the real
kvm.ko and kvm-amd.ko even where the host has no hardware virtualisation.

    machine.py [--npt 0|1] [--file SRC[:DST]]... [--timeout SECONDS] -- COMMAND...

The machine is QEMU's TCG with a Linux kernel of Debian and an initramfs that is made here: busybox,
the modules, the files (programs bring their shared libraries). Exit status: the command's, 124 after
the timeout, 125 when the machine did not work.
"""
import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

INIT = '''#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp TOP=/top TMPDIR=/tmp
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
while read -r file options; do insmod "/modules/$file" $options; done < /modules/order
cd /tmp
echo "MACHINE npt=$(cat /sys/module/kvm_amd/parameters/npt)"
[ -c /dev/kvm ] && sh /command < /dev/null
echo "STATUS $?" > /dev/ttyS1
poweroff -f
'''
KERNEL_OPTIONS = 'console=ttyS0 quiet panic=-1 nokaslr mitigations=off random.trust_cpu=on'


def kernel_release():
    found = sorted(glob.glob('/lib/modules/*cloud-amd64'))
    if not found:
        sys.exit('machine.py: no cloud kernel: apt-get install linux-image-cloud-amd64')
    return os.path.basename(found[-1])


def put(root, source, target):
    """Copies a file, and the shared libraries of a program that has some."""
    out = subprocess.run(['ldd', source], capture_output=True, text=True, check=False).stdout
    wanted = [(source, target)] + [(lib, lib) for lib in re.findall(r'(/\S+)', out)]
    for src, dst in wanted:
        dst = root + dst
        if not os.path.exists(dst):
            os.makedirs(os.path.dirname(dst), exist_ok=True)
            shutil.copy(src, dst)


def put_modules(root, release, npt):
    out = subprocess.run(['modprobe', '-S', release, '--show-depends', 'kvm_amd'],
                         capture_output=True, text=True, check=True).stdout
    with open(root + '/modules/order', 'w', encoding='ascii') as order:
        for path in dict.fromkeys(re.findall(r'^insmod (\S+)', out, re.M)):
            name = os.path.basename(path)
            shutil.copy(path, f'{root}/modules/{name}')
            order.write(name + (f' npt={npt}' if name.startswith('kvm-amd') else '') + '\n')


def make_initramfs(work, args):
    root = work + '/root'
    for d in 'bin dev proc sys tmp modules'.split():
        os.makedirs(f'{root}/{d}')
    put(root, '/bin/busybox', '/bin/busybox')
    put_modules(root, args.release, args.npt)
    for item in args.file:
        source, _, target = item.partition(':')
        put(root, source, target or '/bin/' + os.path.basename(source))
    with open(root + '/command', 'w', encoding='utf-8') as f:
        f.write(' '.join(args.command) + '\n')
    with open(root + '/init', 'w', encoding='ascii') as f:
        f.write(INIT)
    os.chmod(root + '/init', 0o755)
    with open(work + '/initramfs', 'wb') as f:
        subprocess.run('find . | cpio -o -H newc --quiet', shell=True, cwd=root, stdout=f, check=True)


def boot(work, args):
    """The command's exit status."""
    with open(work + '/console', 'w+b') as console:
        try:
            subprocess.run(
                ['qemu-system-x86_64', '-nodefaults', '-M', 'q35', '-accel', 'tcg', '-cpu', 'max',
                 '-m', '1024', '-display', 'none', '-no-reboot', '-serial', 'stdio',
                 '-serial', f'file:{work}/status', '-kernel', f'/boot/vmlinuz-{args.release}',
                 '-initrd', work + '/initramfs', '-append', KERNEL_OPTIONS],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, timeout=args.timeout, check=False)
        except subprocess.TimeoutExpired:
            return 124, console_text(console)
        return status(work), console_text(console)


def console_text(console):
    console.seek(0)
    return console.read().decode(errors='replace').replace('\r', '')


def status(work):
    with open(work + '/status', encoding='ascii', errors='replace') as f:
        m = re.search(r'STATUS (\d+)', f.read())
    return int(m.group(1)) if m else 125


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--npt', default='1', choices=['0', '1'])
    parser.add_argument('--file', action='append', default=[])
    parser.add_argument('--timeout', type=int, default=300)
    parser.add_argument('command', nargs='+')
    args = parser.parse_args()
    args.release = kernel_release()
    with tempfile.TemporaryDirectory() as work:
        make_initramfs(work, args)
        code, text = boot(work, args)
        # A rare hang of the emulated machine itself, seen once in a hundred boots.
        if code == 124:
            code, text = boot(work, args)
    print(text)
    sys.exit(code)


main()
