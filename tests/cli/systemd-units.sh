# SPDX-License-Identifier: GPL-2.0-or-later
# The units of examples/systemd are understood by systemd, and their commands by img.
# variants: release
units=$TOP/examples/systemd
help=$(img serve --help)
for option in $(sed -n 's/^ExecStart=.*img serve //p' "$units"/*.service "$units"/*.conf | grep -oE -e '--[a-z-]+'); do
	grep -qE -e " $option( |$)" <<<"$help" || echo "img serve has no $option"
done
if command -v systemd-analyze >/dev/null; then
	mkdir 'img-serve@disk.raw.service.d'
	cp "$units"/img-serve@.* .
	cp "$units/tls.conf" 'img-serve@disk.raw.service.d'
	# The man page and the program are not installed.
	sed -i '/^Documentation=/d; s|/usr/local/bin/img|'"$(realpath "$IMG")"'|' img-serve@.service ./*.d/tls.conf
	SYSTEMD_UNIT_PATH=$PWD: systemd-analyze verify --man=no 'img-serve@disk.raw.service' 'img-serve@disk.raw.socket' 2>&1 |
		grep img-serve@
else
	# Sections, comments, and settings on one line each.
	grep -nvE '^(#.*|\[(Unit|Socket|Service|Install)\]|[A-Z][A-Za-z]+=.*|)$' "$units"/*
fi
true
