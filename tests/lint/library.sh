# SPDX-License-Identifier: GPL-2.0-or-later
# The library never prints, never ends the process and never runs another program. Two files are
# about processes and may: the cage of the appliance, and the engine of cells that are processes.
# The agent is a program.
cd "$TOP" || exit 1
# shellcheck disable=SC2016 # perl code
find lib vmm nbd-server -name '*.c' ! -path 'lib/appliance/agent/*' ! -path lib/appliance/cage.c \
	! -path vmm/traced.c -print0 | xargs -0 perl -0777 -e '
	my $bad = 0;
	my $calls = join "|", qw(printf vprintf puts putchar putc fputs fputc fprintf vfprintf dprintf
		perror exit _exit _Exit quick_exit abort system popen fork vfork execv execvp execl
		posix_spawn err errx warn warnx syslog setlocale alloca);
	while (my $name = shift) {
		open(my $f, "<", $name) or die;
		my $text = <$f>;
		# Comments and strings may say what they like; line numbers stay.
		$text =~ s{(/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\])*")}{(my $t = $1) =~ s/[^\n]//g; $t}gse;
		while ($text =~ /(?<!->)(?<!\.)\b($calls)\s*\(|\b(stdout|stderr)\b/g) {
			my $line = 1 + (substr($text, 0, $-[0]) =~ tr/\n//);
			print "$name:$line: ", $1 // $2, "\n";
			$bad = 1;
		}
	}
	exit $bad'
