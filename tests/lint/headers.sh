# SPDX-License-Identifier: GPL-2.0-or-later
# Every header can be included alone, and the public one by a strict C99 compiler.
cd "$TOP" || exit 1
bad=0
while read -r h; do
	gcc -std=gnu11 -D_GNU_SOURCE -I. -Ilib -Iinclude -Itools -fsyntax-only -Wno-unused -xc "$h" || bad=1
done < <(find lib vmm nbd-server tools include -name '*.h' | sort)
gcc -std=c99 -pedantic -Wall -Wextra -Werror -fsyntax-only -xc include/imgkit.h || bad=1
exit $bad
