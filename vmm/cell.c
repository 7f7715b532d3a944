/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The life of a cell: see cell.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "vmm/cell_impl.h"

#define LOG_MAX (UINT64_C(1) << 20)

static int start_engine(struct cell *cell, const struct engine_ops *ops,
			const struct cell_config *config, struct err *err)
{
	uint64_t size = config->memory ? config->memory : CELL_MEMORY_DEFAULT;
	struct elf_start start;
	int r = guest_memory_init(&cell->mem, round_up(size, CELL_BIG_PAGE), ops->shared, err);

	if (!r)
		r = elf_load(&cell->mem, &config->program, &start, err);
	if (!r)
		r = ops->start(&cell->engine, &cell->mem, &start, err);
	if (r < 0)
		guest_memory_free(&cell->mem);
	return r;
}

static int choose_engine(struct cell *cell, const struct cell_config *config, struct err *err)
{
	if (config->isolation == CELL_PROCESS)
		return start_engine(cell, &traced_engine, config, err);
	if (config->isolation == CELL_VM)
		return start_engine(cell, &kvm_engine, config, err);
	/* A program that cannot be loaded is no better off elsewhere, and will be told so there. */
	if (start_engine(cell, &kvm_engine, config, &cell->fallback) == 0)
		return 0;
	return start_engine(cell, &traced_engine, config, err);
}

int cell_new(struct cell **cell, const struct cell_config *config, struct err *err)
{
	struct cell *c = calloc(1, sizeof(*c));
	int r;

	*cell = NULL;
	if (!c)
		return err_nomem(err, sizeof(*c), "a cell");
	memcpy(c->files, config->files, sizeof(c->files));
	c->program = config->program;
	c->log = config->log;
	c->log_arg = config->log_arg;
	c->log_left = LOG_MAX;
	c->cpu_limit = config->cpu_limit;
	r = choose_engine(c, config, err);
	if (r < 0)
		free(c);
	else
		*cell = c;
	return r;
}

void cell_free(struct cell *cell)
{
	if (!cell)
		return;
	cell->engine->ops->free(cell->engine);
	guest_memory_free(&cell->mem);
	free(cell);
}

const char *cell_isolation_name(const struct cell *cell)
{
	return cell->engine->ops->name;
}

const char *cell_fallback_reason(const struct cell *cell)
{
	return cell->fallback.msg;
}

/* ---- limits ---- */

void cell_stop(struct cell *cell)
{
	atomic_store(&cell->stop, true);
	cell->engine->ops->interrupt(cell->engine);
}

static void on_timer(int sig, siginfo_t *info, void *context)
{
	struct cell *cell = info->si_value.sival_ptr;

	(void)sig;
	(void)context;
	if (!cell)
		return;
	atomic_store(&cell->timeout, true);
	cell->engine->ops->interrupt(cell->engine);
}

/* The limit is a signal to this thread, because the guest need not come back by itself. */
static int start_timer(struct cell *cell, clockid_t clock, struct err *err)
{
	struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO};
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM};
	struct itimerspec when = {.it_value = {.tv_sec = (time_t)(cell->cpu_limit / 1000000000),
					       .tv_nsec = (long)(cell->cpu_limit % 1000000000)},
				  /* Again, should the first one come between check and entry. */
				  .it_interval = {.tv_nsec = 10000000}};

	timer_t *timer = &cell->timers[cell->n_timers];

	event.sigev_value.sival_ptr = cell;
	event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	if (sigaction(SIGALRM, &action, NULL) < 0 || timer_create(clock, &event, timer) < 0)
		return err_sys(err, errno, "no timer for a cell");
	cell->n_timers++;
	if (timer_settime(*timer, 0, &when, NULL) < 0)
		return err_sys(err, errno, "no timer for a cell");
	return 0;
}

/* What the program uses, and what is used to serve it, where these are two. */
static int start_timers(struct cell *cell, struct err *err)
{
	clockid_t clock;
	int r;

	if (!cell->cpu_limit)
		return 0;
	if (cell->engine->ops->clock(cell->engine, &clock) < 0)
		return err_set(err, ENOTSUP, "no clock for a cell");
	r = start_timer(cell, clock, err);
	if (!r && clock != CLOCK_THREAD_CPUTIME_ID)
		r = start_timer(cell, CLOCK_THREAD_CPUTIME_ID, err);
	return r;
}

static void stop_timers(struct cell *cell)
{
	while (cell->n_timers)
		timer_delete(cell->timers[--cell->n_timers]);
}

/* ---- running ---- */

static void end(struct cell *cell, enum cell_end how)
{
	cell->result.end = how;
	cell->ended = true;
}

static int step(struct cell *cell, uint64_t *answer, struct err *err)
{
	struct call_regs regs;
	int r = cell->engine->ops->run(cell->engine, *answer, &regs, &cell->result.fault, err);

	switch (r) {
	case ENGINE_CALL:
		*answer = (uint64_t)cell_call(cell, &regs);
		cell->result.calls++;
		break;
	case ENGINE_FAULT:
		end(cell, CELL_FAULTED);
		break;
	default:
		break;
	}
	if (!cell->ended && atomic_load(&cell->timeout))
		end(cell, CELL_TIMEOUT);
	if (!cell->ended && atomic_load(&cell->stop))
		end(cell, CELL_STOPPED);
	return r < 0 ? r : 0;
}

int cell_run(struct cell *cell, struct cell_result *result, struct err *err)
{
	uint64_t answer = 0;
	int r = start_timers(cell, err);

	while (!r && !cell->ended)
		r = step(cell, &answer, err);
	stop_timers(cell);
	if (!r && cell->result.end == CELL_FAULTED &&
	    !elf_symbol(&cell->program, cell->result.fault.rip, cell->result.symbol,
			sizeof(cell->result.symbol)))
		cell->result.symbol[0] = 0;
	*result = cell->result;
	return r;
}

/* ---- reporting ---- */

static const char *const vectors[32] = {
	[0] = "division error",
	[1] = "debug trap",
	[2] = "non-maskable interrupt",
	[3] = "breakpoint",
	[4] = "overflow",
	[5] = "bound range exceeded",
	[6] = "invalid instruction",
	[7] = "no coprocessor",
	[8] = "double fault",
	[10] = "invalid TSS",
	[11] = "segment not present",
	[12] = "stack fault",
	[13] = "general protection fault",
	[14] = "page fault",
	[16] = "x87 error",
	[17] = "alignment check",
	[18] = "machine check",
	[19] = "SIMD error",
	[21] = "control protection fault",
};

static void describe_fault(const struct cell_result *result, char *buf, size_t size)
{
	const struct cell_fault *f = &result->fault;
	const char *name = f->vector < ARRAY_LEN(vectors) ? vectors[f->vector] : NULL;
	const char *in = *result->symbol ? " in " : "";
	unsigned long long rip = f->rip, rsp = f->rsp, address = f->address;

	if (f->vector == 14)
		snprintf(buf, size, "page fault: %s at address 0x%llx (rip 0x%llx%s%s, rsp 0x%llx)",
			 f->no_error     ? "access"
			 : f->error & 16 ? "execution"
			 : f->error & 2  ? "write"
					 : "read",
			 address, rip, in, result->symbol, rsp);
	else
		snprintf(buf, size, "%s (vector %u, error code 0x%llx, rip 0x%llx%s%s, rsp 0x%llx)",
			 name ? name : "unknown exception", f->vector, (unsigned long long)f->error,
			 rip, in, result->symbol, rsp);
}

void cell_describe(const struct cell_result *result, char *buf, size_t size)
{
	switch (result->end) {
	case CELL_EXITED:
		snprintf(buf, size, "ended with status %d", result->status);
		break;
	case CELL_FAULTED:
		describe_fault(result, buf, size);
		break;
	case CELL_KILLED:
		snprintf(buf, size, "gave up (signal %d)", result->status);
		break;
	case CELL_REFUSED:
		snprintf(buf, size, "forbidden system call %d", result->status);
		break;
	case CELL_TIMEOUT:
		snprintf(buf, size, "the limit of CPU time is used up");
		break;
	case CELL_STOPPED:
		snprintf(buf, size, "stopped");
		break;
	}
}
