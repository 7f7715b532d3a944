// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * img-serve: what the sealed process can still do to others.
 *
 * variants: release
 */
#include "unit.h"

#include <sys/wait.h>

#include "../../tools/helpers/serve/seal.c"

/* How a sealed process ends that sends signal 0 to this process, or to itself. */
static int after_signal(bool to_itself)
{
	pid_t us = getpid(), child = fork();
	int status;

	if (child == 0) {
		struct err e;
		pid_t to = to_itself ? getpid() : us;

		if (serve_seal(&e) < 0)
			_exit(2);
		_exit(syscall(SYS_tgkill, to, to, 0) == 0 ? 0 : 1);
	}
	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	return status;
}

static void signals_go_to_itself_only(void **state)
{
	int status;

	(void)state;
	if (!sandbox_seccomp())
		skip();
	status = after_signal(true);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	status = after_signal(false);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(signals_go_to_itself_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
