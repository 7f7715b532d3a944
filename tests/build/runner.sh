# SPDX-License-Identifier: GPL-2.0-or-later
# The test runner sees what is wrong: a toy tree with one test for each way to fail.
# shellcheck disable=SC2016 # the toy tests expand
mkdir -p tree/tests/{cli,interop} tree/build/{bin,release,asan}
cp "$TOP/tests/run" tree/tests/
cd tree/tests || exit 1
fail() { echo "$*"; cat ../out; exit 1; }

echo 'echo out; echo err >&2; exit 3' >cli/good.sh
cp cli/good.sh cli/wrong-stdout.sh
cp cli/good.sh cli/wrong-stderr.sh
cp cli/good.sh cli/wrong-exit.sh
for t in good wrong-stdout wrong-stderr wrong-exit; do
	echo out >cli/$t.stdout
	echo err >cli/$t.stderr
	echo 3 >cli/$t.exit
done
echo other >cli/wrong-stdout.stdout
rm cli/wrong-stderr.stderr
echo 1 >cli/wrong-exit.exit

echo 'pwd; [ -z "$(ls -A)" ]' >interop/clean.sh
echo 'false' >interop/fails.sh
echo 'echo "no disk here"; exit 77' >interop/skips.sh
printf '# timeout: 1\nsleep 60 & sleep 60\n' >interop/hangs.sh
echo 'kill -SEGV $$' >interop/signal.sh
# A sanitizer's report fails a test that expected a failure.
echo 'p=${ASAN_OPTIONS%%:*}; echo "==1==ERROR: AddressSanitizer: x" >"${p#log_path=}.1"; true' >interop/report.sh
sed -i '1i# variants: release' interop/*.sh

python3 ./run >../out && fail "exit code 0"
[ "$(tail -n 1 ../out)" = "3 passed, 10 failed, 1 skipped" ] || fail "wrong last line"
for what in 'FAILED  cli/wrong-stdout \[asan\]' 'FAILED  cli/wrong-stderr \[release\]' \
	'exit code 3, expected 1' 'no end after 1 s' 'signal 11' 'ERROR: AddressSanitizer' \
	'skipped interop/skips \[release\]: no disk here'; do
	grep -q -- "$what" ../out || fail "no line: $what"
done
python3 ./run clean good >../out || fail "a good run fails"
[ "$(tail -n 1 ../out)" = "3 passed, 0 failed, 0 skipped" ] || fail "wrong last line of a good run"
python3 ./run nosuch >../out 2>&1 && fail "no test at all is a success"
true
