// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Progress display and signals of a long command.
 *
 * One thread owns both: it waits for signals with sigtimedwait, whose timeout is the tick of the
 * display. The signals are blocked in the command's thread before the workers start and so in all
 * of them: nothing runs in signal context, and no system call of a worker is interrupted.
 *
 * A signal that was ignored when we started (nohup) stays ignored. SIGUSR1 gets an empty handler
 * for good, so that one that comes after the end does not kill us.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/size.h"
#include "cli.h"

#define TICK_NS      100000000L /* of the display */
#define JSON_TICKS   5          /* a JSON line every half second */
#define RATE_WINDOW  3.0        /* seconds over which the rate is averaged */
#define RATE_SETTLED 1.0        /* seconds until a forecast means something */

struct progress {
	enum progress_mode mode;
	const char *what;
	struct job *job;
	struct job *program; /* cli->stop; may be NULL */
	FILE *out;
	bool fancy; /* AUTO on a terminal */

	pthread_t thread;
	atomic_bool stop;
	atomic_int signal; /* the one that cancelled the job */
	sigset_t caught, old_mask;

	/* the rest belongs to the thread, and after its end to progress_stop */
	double start, last_time, rate; /* seconds; bytes per second */
	double shown;                  /* percentage printed last (plain) */
	uint64_t last_done;
	unsigned ticks;
};

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

struct sample {
	uint64_t done, total;
	double percent, elapsed;
};

static struct sample sample_job(const struct progress *p)
{
	struct sample s = {
		.done = atomic_load_explicit(&p->job->done, memory_order_relaxed),
		.total = atomic_load_explicit(&p->job->total, memory_order_relaxed),
		.elapsed = now() - p->start,
	};

	if (s.done > s.total)
		s.done = s.total;
	if (s.total)
		s.percent = 100.0 * (double)s.done / (double)s.total;
	return s;
}

/* The plain average of the first RATE_WINDOW seconds, after that one that forgets. */
static void update_rate(struct progress *p, const struct sample *s)
{
	double t = p->start + s->elapsed, dt = t - p->last_time, w;

	if (dt <= 0)
		return;
	w = s->elapsed < RATE_WINDOW ? dt / s->elapsed : dt / (dt + RATE_WINDOW);
	p->rate += w * ((double)(s->done - p->last_done) / dt - p->rate);
	p->last_time = t;
	p->last_done = s->done;
}

/* Seconds left, or -1 when nobody knows. */
static double time_left(const struct progress *p, const struct sample *s)
{
	if (s->elapsed < RATE_SETTLED || p->rate < 1 || s->total == 0)
		return -1;
	return (double)(s->total - s->done) / p->rate;
}

static const char *format_seconds(double seconds, char *buf, size_t room)
{
	unsigned long s = (unsigned long)(seconds + 0.5);

	if (s >= 3600)
		snprintf(buf, room, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
	else
		snprintf(buf, room, "%lu:%02lu", s / 60, s % 60);
	return buf;
}

/* The line on a terminal: the whole of it is rewritten each time. */
static void show_fancy(const struct progress *p, const struct sample *s)
{
	char done[32], total[32], rate[32], left[32];
	double eta = time_left(p, s);

	fprintf(p->out, "\r%s %5.1f%%  %s / %s  %s/s", p->what, s->percent,
		size_format(s->done, done, sizeof(done)),
		size_format(s->total, total, sizeof(total)),
		size_format((uint64_t)p->rate, rate, sizeof(rate)));
	if (eta >= 0)
		fprintf(p->out, "  %s left", format_seconds(eta, left, sizeof(left)));
	fputs("\033[K", p->out);
	fflush(p->out);
}

static void finish_fancy(const struct progress *p, const struct sample *s, bool ok)
{
	char size[32], rate[32], time[32];
	double speed = s->elapsed > 0 ? (double)s->done / s->elapsed : 0;

	fprintf(p->out, "\r%s %s  %s in %s, %s/s\033[K\n", p->what, ok ? "100%" : "stopped",
		size_format(s->done, size, sizeof(size)),
		format_seconds(s->elapsed, time, sizeof(time)),
		size_format((uint64_t)speed, rate, sizeof(rate)));
}

static void show_plain(struct progress *p, double percent)
{
	fprintf(p->out, "    (%3.2f/100%%)\r", percent);
	fflush(p->out);
	p->shown = percent;
}

static void show_json(const struct progress *p, const struct sample *s, const char *state)
{
	double eta = s->done < s->total ? time_left(p, s) : -1;

	fprintf(p->out,
		"{\"operation\": \"%s\", \"state\": \"%s\", \"done\": %" PRIu64
		", \"total\": %" PRIu64 ", \"percent\": %.2f, \"seconds\": %.3f, \"rate\": %.0f",
		p->what, state, s->done, s->total, s->percent, s->elapsed, p->rate);
	if (eta >= 0)
		fprintf(p->out, ", \"left\": %.1f", eta);
	fputs("}\n", p->out);
	fflush(p->out);
}

static void tick(struct progress *p)
{
	struct sample s = sample_job(p);

	update_rate(p, &s);
	if (p->fancy) {
		if (s.total) /* else the plan is not made yet */
			show_fancy(p, &s);
	} else if (p->mode == PROGRESS_JSON) {
		if (p->ticks++ % JSON_TICKS == 0)
			show_json(p, &s, "running");
	} else if (p->ticks++ == 0 || s.percent >= p->shown + 1) {
		show_plain(p, s.percent);
	}
}

static void on_signal(struct progress *p, int sig)
{
	if (sig == SIGUSR1) {
		if (!atomic_load(&p->stop))
			fprintf(stderr, "    (%3.2f/100%%)\n", sample_job(p).percent);
		return;
	}
	if (atomic_load(&p->signal) == 0) {
		atomic_store(&p->signal, sig);
		atomic_store(&p->job->cancelled, true);
		if (p->program)
			atomic_store(&p->program->cancelled, true);
		return;
	}
	if (sig == SIGXCPU) /* comes every second; the kernel has the last word */
		return;
	/* The second time: the user does not want to wait for us to tidy up. */
	signal(sig, SIG_DFL);
	pthread_sigmask(SIG_UNBLOCK, &p->caught, NULL);
	raise(sig);
}

static bool is_plain(const struct progress *p)
{
	return p->mode != PROGRESS_NONE && p->mode != PROGRESS_JSON && !p->fancy;
}

static void *watch(void *arg)
{
	struct progress *p = arg;
	const bool display = p->mode != PROGRESS_NONE;
	const struct timespec wait = {.tv_nsec = TICK_NS};

	if (display && !is_plain(p))
		tick(p);
	while (!atomic_load(&p->stop)) {
		int sig = display ? sigtimedwait(&p->caught, NULL, &wait)
				  : sigwaitinfo(&p->caught, NULL);

		if (sig > 0)
			on_signal(p, sig);
		else if (errno == EAGAIN && !atomic_load(&p->stop))
			tick(p);
	}
	return NULL;
}

static void nothing(int sig)
{
	(void)sig;
}

static void choose_signals(sigset_t *set)
{
	static const int wanted[] = {SIGINT, SIGTERM, SIGHUP, SIGXCPU};
	struct sigaction sa = {.sa_handler = nothing, .sa_flags = SA_RESTART};

	sigemptyset(set);
	sigaddset(set, SIGUSR1); /* also what progress_stop wakes the thread with */
	sigaction(SIGUSR1, &sa, NULL);
	for (unsigned i = 0; i < ARRAY_LEN(wanted); i++) {
		if (sigaction(wanted[i], NULL, &sa) == 0 && sa.sa_handler != SIG_IGN)
			sigaddset(set, wanted[i]);
	}
}

struct progress *progress_start(const struct cli *cli, enum progress_mode mode, const char *what,
				struct job *job)
{
	struct progress *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->mode = mode;
	p->what = what;
	p->job = job;
	p->program = cli->stop;
	p->out = cli->stdout_taken ? stderr : stdout;
	p->fancy = mode == PROGRESS_AUTO && !cli->peer && isatty(fileno(p->out));
	p->start = p->last_time = now();
	/* Here, not in the thread: the peer's line begins at 0 however fast the work is. */
	if (is_plain(p))
		tick(p);
	choose_signals(&p->caught);
	pthread_sigmask(SIG_BLOCK, &p->caught, &p->old_mask);
	if (pthread_create(&p->thread, NULL, watch, p) != 0) {
		pthread_sigmask(SIG_SETMASK, &p->old_mask, NULL);
		free(p);
		return NULL;
	}
	return p;
}

static void finish_display(struct progress *p, bool ok)
{
	struct sample s = sample_job(p);

	if (ok && s.done < s.total) {
		s.done = s.total;
		s.percent = 100;
	}
	if (p->fancy) {
		finish_fancy(p, &s, ok);
	} else if (p->mode == PROGRESS_JSON) {
		p->rate = s.elapsed > 0 ? (double)s.done / s.elapsed : 0;
		show_json(p, &s, ok ? "done" : atomic_load(&p->signal) ? "cancelled" : "failed");
	} else {
		if (ok && p->shown < 100)
			show_plain(p, 100);
		fputc('\n', p->out);
	}
	fflush(p->out);
}

/* What came after the thread's end: counted here, or it would strike when the mask is restored. */
static void drain_signals(struct progress *p)
{
	const struct timespec at_once = {0};
	int sig;

	while ((sig = sigtimedwait(&p->caught, NULL, &at_once)) > 0) {
		if (sig != SIGUSR1)
			atomic_store(&p->signal, sig);
	}
}

int progress_stop(struct progress *p, bool ok)
{
	int sig;

	if (!p)
		return 0;
	atomic_store(&p->stop, true);
	pthread_kill(p->thread, SIGUSR1);
	pthread_join(p->thread, NULL);
	drain_signals(p);
	if (p->mode != PROGRESS_NONE)
		finish_display(p, ok);
	pthread_sigmask(SIG_SETMASK, &p->old_mask, NULL);
	sig = atomic_load(&p->signal);
	free(p);
	return sig;
}

bool progress_mode_find(const char *text, enum progress_mode *mode)
{
	static const struct {
		const char *name;
		enum progress_mode mode;
	} names[] = {
		{"auto", PROGRESS_AUTO},
		{"plain", PROGRESS_PLAIN},
		{"json", PROGRESS_JSON},
		{"none", PROGRESS_NONE},
	};

	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		if (strcmp(names[i].name, text) == 0) {
			*mode = names[i].mode;
			return true;
		}
	}
	return false;
}

bool progress_parse(const struct cli *cli, const char *text, enum progress_mode *mode)
{
	if (progress_mode_find(text, mode))
		return true;
	cli_error(cli, "--progress must be auto, plain, json or none");
	return false;
}
