# SPDX-License-Identifier: GPL-2.0-or-later
"""chmod gives each mode that chmod(1) of the host gives, to files and directories, alone and in
trees. What is no mode to chmod(1) is none to us."""
import os
import re
import shutil
import stat
import subprocess

MODES = [0o400, 0o644, 0o750, 0o4711, 0o2755, 0o6470, 0o1777, 0o7777, 0o2604]
EXPRESSIONS = [
    '755', '0', '4755', '00755', '02700', '7777', 'u+x', 'go-rwx', '+x', '-x', '-w', '+w', '=', '=rwx',
    'u=rw,go=r', 'a+X', 'u-x,+X', 'g=u', 'o=g-w', 'u=g,g=o', 'u+s', 'g-s', 'ug+s', '+t', 'u+t', 'o+t',
    'a-st', 'a=s', 'u=rwxs', 'g=', 'a=rX', 'u+r+w-x', 'go=u-w,o-x', 'ugo=o', '+rwxXst', '-s', '=t,a+r',
]
WRONG = ['', '8', '77777', 'u', 'u+q', 'q+x', 'u+ux', ',', 'u+x,', '0x1', '+rwu', '7u', '644,u+x', 'u 7']


def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True)


def make_tree(top):
    os.mkdir(top)
    for i, mode in enumerate(MODES):
        with open(f'{top}/f{i}', 'w', encoding='ascii') as f:
            f.write('x')
        os.mkdir(f'{top}/d{i}')
        with open(f'{top}/d{i}/inner', 'w', encoding='ascii') as f:
            f.write('x')
    os.symlink('f0', f'{top}/link')
    for i, mode in enumerate(MODES):
        # Directories can be read by who is not root.
        os.chmod(f'{top}/d{i}/inner', mode)
        os.chmod(f'{top}/d{i}', mode | 0o700)
        os.chmod(f'{top}/f{i}', mode)


def host_modes(top):
    found = {}
    for base, dirs, files in os.walk(top):
        for name in dirs + files:
            path = os.path.join(base, name)
            try:
                found[os.path.relpath(path, top)] = stat.S_IMODE(os.lstat(path).st_mode)
            except PermissionError: # of who is not root
                pass
    return found


def image_modes(image, names):
    out = subprocess.run(['debugfs', '-f', '-', image], capture_output=True, text=True,
                         input=''.join(f'stat /{n}\n' for n in names)).stdout
    modes = [int(m, 8) for m in re.findall(r'Mode:\s+([0-7]+)', out)]
    assert len(modes) == len(names), out
    return dict(zip(names, modes))


def make_image(image, tree):
    with open(image, 'wb') as f:
        f.truncate(8 << 20)
    r = run('mke2fs', '-q', '-t', 'ext4', '-d', tree, image)
    assert r.returncode == 0, r.stderr


def sound(image):
    r = run('e2fsck', '-fn', image)
    assert r.returncode == 0, r.stdout + r.stderr


def judge(expressions, names, recursive):
    """One after the other, on the tree and on the image."""
    for text in expressions:
        words = ['-R'] if recursive else []
        r = run('chmod', *words, '--', text, *(os.path.join('tree', n) for n in names))
        assert r.returncode == 0, (text, r.stderr)
        r = run('img', 'chmod', '--isolation=process', *words, text, *(f'fs:/{n}' for n in names))
        assert r.returncode == 0 and not r.stderr, (text, r.stderr)
        host = host_modes('tree')
        image = image_modes('fs', list(host))
        wrong = {n: (oct(host[n]), oct(image[n])) for n in host if host[n] != image[n]}
        assert not wrong, (text, wrong)


def main():
    os.umask(0o022)
    make_tree('tree')
    names = [n for n in sorted(os.listdir('tree')) if n != 'link']
    for i in range(0, len(EXPRESSIONS), 3):
        run('chmod', '-R', 'u+rwx', 'tree')
        shutil.rmtree('tree')
        make_tree('tree')
        make_image('fs', 'tree')
        judge(EXPRESSIONS[i:i + 3], names, False)
    # Who is not root must be able to look into the directories.
    judge(['u+rwX', 'go=rX', 'u=rwx,g+s', '4751', 'a+t,-w', 'u+rwx'], ['d1', 'd4', 'link'], True)
    for text in WRONG:
        theirs = run('chmod', '--', text, 'tree/f0')
        ours = run('img', 'chmod', text, 'fs:/f0')
        assert theirs.returncode and ours.returncode == 1 and 'is not a mode' in ours.stderr, \
            (text, theirs, ours)
    sound('fs')
    run('chmod', '-R', 'u+rwx', 'tree')


main()
