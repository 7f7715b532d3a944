# SPDX-License-Identifier: GPL-2.0-or-later
# Our shell scripts are clean in the eyes of the shell linter.
cd "$TOP" || exit 1
command -v shellcheck >/dev/null || { echo "no shellcheck"; exit 77; }
# By their name or by their first line. Scripts of the tests have no #! line: bash runs them, in a
# directory of their own, and a failing cd or an unset variable fails the test anyway.
grep -rlE --exclude-dir=.git --exclude-dir=build -I '^#!/bin/(ba)?sh' . | xargs shellcheck || exit 1
find tests -name '*.sh' -print0 | xargs -0 shellcheck -s bash -S warning -x -P tests/lib -e SC2164
