# SPDX-License-Identifier: GPL-2.0-or-later
# Every source names its licence at the top: LGPL for the library, GPL for the rest; the agent is a
# program that the library carries.
cd "$TOP" || exit 1
bad=0
check() { # LICENCE FILE...
	want="SPDX-License-Identifier: $1"
	shift
	for f; do
		head -n 2 "$f" | grep -qF "$want" || { echo "$f: no line \"$want\" at the top"; bad=1; }
	done
}
mapfile -t lib < <(find lib include -name '*.[ch]' ! -path 'lib/appliance/agent/*')
mapfile -t rest < <(find lib/appliance/agent tools tests fuzz examples bench demo build-aux \
	\( -name '*.[ch]' -o -name '*.sh' -o -name '*.py' -o -perm -u=x -type f \) ! -path '*/corpus/*')
check LGPL-2.1-or-later "${lib[@]}"
check GPL-2.0-or-later "${rest[@]}"
exit $bad
