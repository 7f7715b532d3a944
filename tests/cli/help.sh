# SPDX-License-Identifier: GPL-2.0-or-later
# Every command explains itself: the same shape for each, nothing on stderr, exit code 0.
commands=$(img --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p')
echo $commands
for c in $commands; do
	img "$c" --help > long
	echo "$c: exit $?"
	# ls, chown and others have -h for something else.
	grep -q -- '^      --help ' long && cp long short || img "$c" -h > short
	img help "$c" > asked
	cmp long short && cmp long asked
	head -n 1 long | grep -vE "^Usage: img $c \[OPTIONS\] "
	sed -n 2p long | grep -vE '^[A-Z].*\.$'
	sed -n 4p long | grep -vx 'Options:'
	tail -n 1 long | grep -vE '^Exit status: 0 .*\.$'
	grep -cE -- '^  (-h,|   ) --help ' long | grep -vx 1
done
img -h | cmp - <(img --help)
img help | cmp - <(img --help)
