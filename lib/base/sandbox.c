/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Landlock (Documentation/userspace-api/landlock.rst of Linux) and seccomp, by libseccomp. */
#include "base/sandbox.h"

#include <errno.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

int sandbox_landlock(void)
{
	long v = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	return v > 0 ? (int)v : 0;
}

bool sandbox_seccomp(void)
{
	unsigned action = SECCOMP_RET_KILL_PROCESS;

	return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

/* struct landlock_ruleset_attr of version 6: the headers may be older than the kernel. */
struct rights {
	uint64_t files, net, scope;
};

/*
 * All that each version of the interface knows; more would be an error. But not the scope of
 * signals: children that were started before are outside of it.
 */
static struct rights all_rights(int version, size_t *size)
{
	struct rights r = {.files = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1};

	*size = version >= 6 ? sizeof(r) : version >= 4 ? 2 * sizeof(r.files) : sizeof(r.files);
	if (version >= 2)
		r.files |= UINT64_C(1) << 13; /* REFER */
	if (version >= 3)
		r.files |= UINT64_C(1) << 14; /* TRUNCATE */
	if (version >= 4)
		r.net = 3; /* BIND_TCP, CONNECT_TCP */
	if (version >= 5)
		r.files |= UINT64_C(1) << 15; /* IOCTL_DEV */
	if (version >= 6)
		r.scope = 1; /* ABSTRACT_UNIX_SOCKET */
	return r;
}

/* A ruleset that handles every right and grants none. */
static int lock_files(struct err *err)
{
	int version = sandbox_landlock();
	size_t size;
	const struct rights rights = all_rights(version, &size);
	CLEANUP_FD int fd = -1;

	if (!version)
		return 0;
	fd = (int)syscall(SYS_landlock_create_ruleset, &rights, size, 0);
	if (fd < 0 || syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		return err_sys(err, errno, "Landlock");
	return 0;
}

static int add_rule(scmp_filter_ctx filter, const struct sandbox_call *call)
{
	if (call->arg == SANDBOX_FAILS)
		return seccomp_rule_add(filter, SCMP_ACT_ERRNO((uint16_t)call->value), call->nr, 0);
	if (call->arg == SANDBOX_ANY)
		return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call->nr, 0);
	struct scmp_arg_cmp cmp = {.arg = (unsigned)call->arg,
				   .op = SCMP_CMP_MASKED_EQ,
				   .datum_a = call->mask,
				   .datum_b = call->value};
	return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call->nr, 1, &cmp);
}

static void free_filter(scmp_filter_ctx *filter)
{
	if (*filter)
		seccomp_release(*filter);
}

static int filter_calls(const struct sandbox_call *calls, size_t n, struct err *err)
{
	__attribute__((cleanup(free_filter))) scmp_filter_ctx filter =
		seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r;

	if (!filter)
		return err_nomem(err, 0, "a filter of system calls");
	for (size_t i = 0; i < n; i++) {
		r = add_rule(filter, &calls[i]);
		if (r < 0)
			return err_sys(err, -r, "seccomp: system call %d", calls[i].nr);
	}
	r = seccomp_load(filter);
	return r < 0 ? err_sys(err, -r, "seccomp") : 0;
}

int sandbox_seal(const struct sandbox_call *calls, size_t n, struct err *err)
{
	int r;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_sys(err, errno, "PR_SET_NO_NEW_PRIVS");
	r = lock_files(err);
	return r < 0 ? r : filter_calls(calls, n, err);
}
