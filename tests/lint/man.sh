# SPDX-License-Identifier: GPL-2.0-or-later
# Every command has a manual page that names all of its options and no other, without mistakes that
# mandoc would report.
cd "$TOP" || exit 1
command -v mandoc >/dev/null || { echo "no mandoc"; exit 77; }
bad=0
complain() { echo "$*"; bad=1; }

"$IMG" --completion-data >"$TMPDIR/data" || exit 1
grep -q "^command" "$TMPDIR/data" || { echo "no commands in --completion-data"; exit 1; }

# The page as text, without overstriking.
rendered() { # PAGE
	mandoc -T ascii -O width=500 "$1" | sed 's/.\x08//g'
}

# The options that the rendered page names anywhere, one a line.
named() { # PAGE
	rendered "$1" | grep -oE -- '(^|[^[:alnum:]-])(--[a-z][a-z-]+|-[A-Za-z0-9])\b' |
		grep -oE -- '-.*' | sort -u
}

while IFS=$'\t' read -r _ cmd _; do
	page=man/img-$cmd.1
	[ -f "$page" ] || { complain "$page: missing"; continue; }
	awk -F'\t' -v c="$cmd" '$1 == "option" && $2 == c {
		if ($3 ~ /^-[^-]/) print $3
		if ($4 ~ /^--/) print $4
	} END { print "-h"; print "--help" }' "$TMPDIR/data" | sort -u >"$TMPDIR/table"
	named "$page" >"$TMPDIR/page"
	while read -r option; do
		[ "$option" = -h ] || [ "$option" = --help ] || complain "$page: does not tell of $option"
	done < <(comm -23 "$TMPDIR/table" "$TMPDIR/page")
	# Text may mention other commands' long options; the list of its own must not have strangers.
	while read -r option; do
		complain "$page: lists $option, which the command does not have"
	done < <(rendered "$page" | grep -oE -- '^ {5,}(-[A-Za-z]|--[a-z][a-z-]+)\b' |
		grep -oE -- '-.*' | sort -u | comm -23 - "$TMPDIR/table")
done < <(grep "^command" "$TMPDIR/data")

# The page of the program names every command.
while IFS=$'\t' read -r _ cmd _; do
	rendered man/img.1 | grep -qw -- "$cmd" || complain "man/img.1: does not name $cmd"
done < <(grep "^command" "$TMPDIR/data")

for page in man/*.1; do
	mandoc -T lint -W warning "$page" || bad=1
done
exit $bad
