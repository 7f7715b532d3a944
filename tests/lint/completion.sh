# SPDX-License-Identifier: GPL-2.0-or-later
# Bash completes commands, options, values and format options out of the program's own tables.
# shellcheck disable=SC2034 # COMP_… are read by the completion
. "$TOP/completion/img"
compopt() { :; } # there is no readline here
touch disk.qcow2 disk.raw other
bad=0

# The words are given as readline takes them apart; the last one is completed.
completes() { # "EXPECTED..." WORD...
	local want=$1 got
	shift
	COMP_WORDS=("$@")
	COMP_CWORD=$(($# - 1))
	COMP_LINE="$*"
	COMP_POINT=${#COMP_LINE}
	COMPREPLY=()
	_img
	got=$(printf '%s\n' "${COMPREPLY[@]}" | sort | paste -sd' ')
	[ "$got" = "$want" ] && return
	printf '%s\n  wanted: %s\n  got:    %s\n' "$*" "$want" "$got"
	bad=1
}

completes 'check checksum' img che
completes '--version' img --v
completes 'snapshot' img help sn
completes 'disk.qcow2 disk.raw' img info dis
completes '--backing-chain' img info --ba
completes 'qcow2 raw' img convert -O ''
completes 'qcow2' img convert --target-format = q
completes 'json' img map --output = j
completes 'leaks' img check -r l
completes 'plain' img compare --progress = pl
completes 'off' img resize --preallocation = o
completes 'writeback writethrough' img info -t wr
completes 'compat= compression_type=' img create -f qcow2 -o com
completes 'zlib zstd' img create -f qcow2 -o compression_type = z
completes '4k,preallocation=' img create -f qcow2 -o cluster_size = 4k,pre
completes 'off' img create -f qcow2 -o cluster_size = 4k,preallocation = o
completes 'preallocation=' img convert -f qcow2 -o pre
completes '' img create -f qcow2 -o encrypt
completes 'refcount_bits=' img amend -o ref
completes '1G,compat=' img amend -o size = 1G,com
completes 'disk.raw' img create -b disk.r
completes 'other' img convert disk.raw o

# The same where readline leaves words with "=" whole.
COMP_WORDBREAKS=${COMP_WORDBREAKS//=/}
completes '--output=json' img map --output=j
completes 'compression_type=zstd' img create -f qcow2 -o compression_type=zs

exit $bad
