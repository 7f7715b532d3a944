# SPDX-License-Identifier: GPL-2.0-or-later
# All C sources are as clang-format writes them.
cd "$TOP" || exit 1
command -v clang-format-14 >/dev/null || { echo "no clang-format-14"; exit 77; }
find include lib vmm nbd-server tools tests fuzz examples -name '*.[ch]' -print0 2>/dev/null |
	xargs -0 clang-format-14 --dry-run --Werror
