// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vmm: an honest program runs in both cages, and each attack of tests/guests/attack.c ends as a clean
 * report of the same kind in both. A host without /dev/kvm can only run one of them, and says so.
 */
#include "unit.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "io/doubles.h"
#include "vmm/cell.h"

/* ns of CPU time: of a program that ends by itself on any machine, and of one that does not. */
#define AMPLE UINT64_C(60000000000)
#define SHORT UINT64_C(150000000)

static const void *guest;
static size_t guest_size;

static const void *load(const char *name, size_t *size)
{
	const char *top = getenv("TOP");
	char path[4096];
	struct stat st;
	void *p;
	int fd;

	snprintf(path, sizeof(path), "%s/build/agent/%s", top ? top : ".", name);
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	close(fd);
	*size = (size_t)st.st_size;
	return p;
}

static bool have_kvm(void)
{
	return access("/dev/kvm", R_OK | W_OK) == 0;
}

struct run {
	struct cell_result result;
	char out[256]; /* what the program wrote */
	char text[200];
};

/* Runs the guest with one argument (or none) and "world" as its input. */
static void run_guest(enum cell_isolation how, const char *arg, uint64_t limit, struct run *run)
{
	const char *const argv[] = {"guest", arg, NULL};
	struct cell_config config = {.program = {guest, guest_size, argv},
				     .isolation = how,
				     .cpu_limit = limit};
	struct err e = {0};
	struct cell *cell;
	struct io *disk;
	int in[2], out[2];
	ssize_t n;

	assert_true(pipe(in) == 0 && pipe(out) == 0);
	assert_int_equal(write(in[1], "world", 5), 5);
	close(in[1]);
	ok(mem_open("disk", 1 << 20, &disk, &e), &e);
	config.files[0] = (struct cell_file){.kind = CELL_STREAM_IN, .fd = in[0]};
	config.files[1] = (struct cell_file){.kind = CELL_STREAM_OUT, .fd = out[1]};
	config.files[2] = (struct cell_file){.kind = CELL_LOG};
	config.files[3] = (struct cell_file){.kind = CELL_DISK, .io = disk};
	ok(cell_new(&cell, &config, &e), &e);
	assert_string_equal(cell_isolation_name(cell), how == CELL_VM ? "vm" : "process");
	ok(cell_run(cell, &run->result, &e), &e);
	cell_describe(&run->result, run->text, sizeof(run->text));
	cell_free(cell);
	io_close(disk);
	close(out[1]);
	n = read(out[0], run->out, sizeof(run->out) - 1);
	run->out[n > 0 ? n : 0] = 0;
	close(out[0]);
	close(in[0]);
}

static void honest(enum cell_isolation how)
{
	struct run run;

	run_guest(how, NULL, AMPLE, &run);
	assert_string_equal(run.out, "hello 1.50\n");
	assert_int_equal(run.result.end, CELL_EXITED);
	assert_int_equal(run.result.status, 7);
}

static void honest_program_in_vm(void **state)
{
	(void)state;
	if (have_kvm())
		honest(CELL_VM);
	else
		printf("no /dev/kvm: the cage that is a VM is not tested\n");
}

static void honest_program_in_process(void **state)
{
	(void)state;
	honest(CELL_PROCESS);
}

enum { ANY = -1 };

static const struct attack {
	const char *name;
	enum cell_end end;
	int what; /* vector of a fault, else the status; ANY */
} attacks[] = {
	{"~level", CELL_FAULTED, 13},
	{"first_registers", CELL_EXITED, 0},
	{"null_write", CELL_FAULTED, 14},
	{"wild_read", CELL_FAULTED, 14},
	{"high_half", CELL_FAULTED, 14},
	{"non_canonical", CELL_FAULTED, 13},
	{"jump_non_canonical", CELL_FAULTED, 13},
	{"write_text", CELL_FAULTED, 14},
	{"execute_data", CELL_FAULTED, 14},
	{"execute_stack", CELL_FAULTED, 14},
	{"stack_overflow", CELL_FAULTED, 14},
	{"write_descriptors", CELL_FAULTED, 14},
	{"write_tables", CELL_FAULTED, 14},
	{"beyond_memory", CELL_FAULTED, 14},
	{"old_page", CELL_FAULTED, 14},
	{"invalid", CELL_FAULTED, 6},
	{"breakpoint", CELL_FAULTED, 3},
	{"old_call", CELL_FAULTED, ANY},
	{"halt", CELL_FAULTED, 13},
	{"no_interrupts", CELL_FAULTED, 13},
	{"port_out", CELL_FAULTED, 13},
	{"port_in", CELL_FAULTED, 13},
	{"doorbell_in", CELL_FAULTED, 13},
	{"forged_vector", CELL_FAULTED, 13},
	{"read_msr", CELL_FAULTED, 13},
	{"write_msr", CELL_FAULTED, 13},
	{"write_cr3", CELL_FAULTED, 13},
	{"load_idt", CELL_FAULTED, 13},
	{"system_enter", CELL_FAULTED, ANY},
	/* 13, but QEMU's TCG reads the stack of a far return with the rights of a kernel. */
	{"far_kernel", CELL_FAULTED, ANY},
	{"iret_kernel", CELL_FAULTED, ANY},
	{"divide", CELL_FAULTED, 0},
	{"single_step", CELL_FAULTED, 1},
	{"io_level", CELL_FAULTED, 13},
	{"sysret", CELL_FAULTED, 13},
	{"swap_gs", CELL_FAULTED, 13},
	{"odd_segments", CELL_EXITED, 0},
	{"odd_base", CELL_FAULTED, ANY},
	{"narrow_call", CELL_FAULTED, ANY},
	{"bad_return", CELL_FAULTED, 13},
	{"call_execve", CELL_REFUSED, 59},
	{"call_socket", CELL_REFUSED, 41},
	{"call_ptrace", CELL_REFUSED, 101},
	{"call_clone", CELL_REFUSED, 56},
	{"call_huge", CELL_REFUSED, ANY},
	{"open_host", CELL_EXITED, 0},
	{"bad_pointers", CELL_EXITED, 0},
	{"bad_lengths", CELL_EXITED, 0},
	{"bad_files", CELL_EXITED, 0},
	{"all_memory", CELL_EXITED, 0},
	{"clean_memory", CELL_EXITED, 0},
	{"fragments", CELL_EXITED, 0},
	{"overlapping_move", CELL_EXITED, 0},
	{"gaps", CELL_EXITED, 0},
	{"give_up", CELL_KILLED, 6},
	{"loop", CELL_TIMEOUT, ANY},
	{"storm", CELL_TIMEOUT, ANY},
	{"errands", CELL_TIMEOUT, ANY},
	{"chatter", CELL_TIMEOUT, ANY},
};

static void all_attacks(enum cell_isolation how)
{
	for (size_t i = 0; i < ARRAY_LEN(attacks); i++) {
		const struct attack *a = &attacks[i];
		struct run run;
		int what;

		run_guest(how, a->name, a->end == CELL_TIMEOUT ? SHORT : AMPLE, &run);
		what = run.result.end == CELL_FAULTED ? (int)run.result.fault.vector
						      : run.result.status;
		if (run.result.end != a->end || (a->what != ANY && what != a->what))
			fail_msg("%s: %s", a->name, run.text);
	}
}

static void attacks_in_vm(void **state)
{
	(void)state;
	if (have_kvm())
		all_attacks(CELL_VM);
	else
		printf("no /dev/kvm: the cage that is a VM is not tested\n");
}

static void attacks_in_process(void **state)
{
	(void)state;
	/* There the far return of a process kills QEMU's guest kernel, see above. */
	if (getenv("ONLY_VM"))
		printf("ONLY_VM: the cage that is a process is not attacked\n");
	else
		all_attacks(CELL_PROCESS);
}

/* ---- stopping ---- */

/* A disk that is too large to be cleared in a lifetime; somebody loses patience soon. */
struct vast {
	struct io io;
	struct cell *cell;
	unsigned cleared;
};

static int vast_zero(struct io *io, uint64_t off, uint64_t len, unsigned flags, struct err *err)
{
	struct vast *v = (struct vast *)(void *)io;

	(void)off;
	(void)len;
	(void)flags;
	(void)err;
	if (++v->cleared == 3)
		cell_stop(v->cell);
	return 0;
}

static void stopped_in_a_call(void **state)
{
	static const struct io_ops ops = {.name = "vast", .zero = vast_zero};
	const char *const argv[] = {"guest", "zero_vast_disk", NULL};
	struct vast vast = {0};
	struct cell_config config = {.program = {guest, guest_size, argv},
				     .isolation = CELL_PROCESS,
				     .files[4] = {.kind = CELL_DISK, .io = &vast.io}};
	struct cell_result result;
	struct err e = {0};

	(void)state;
	ok(io_init(&vast.io, &ops, "vast", &e), &e);
	atomic_store(&vast.io.size, UINT64_C(1) << 60);
	ok(cell_new(&vast.cell, &config, &e), &e);
	ok(cell_run(vast.cell, &result, &e), &e);
	assert_int_equal(result.end, CELL_STOPPED);
	assert_int_equal(vast.cleared, 3);
	cell_free(vast.cell);
	free(vast.io.name);
}

/* ---- programs that are none ---- */

static void damaged_programs(void **state)
{
	const char *const argv[] = {"guest", NULL};
	unsigned char *copy = malloc(guest_size);

	(void)state;
	assert_non_null(copy);
	/* Each byte of the headers, wrong in some ways; and files that are cut off. */
	for (size_t at = 0; at < 64 + 56 * 10; at++) {
		memcpy(copy, guest, guest_size);
		copy[at] ^= (unsigned char)(1u << at % 8);
		copy[(at * 7) % 600] += (unsigned char)at;
		struct cell_config config = {.program = {copy, guest_size, argv},
					     .isolation = CELL_PROCESS,
					     .cpu_limit = SHORT};
		struct cell *cell = NULL;
		struct err e = {0};
		struct guest_memory mem;
		struct elf_start start;

		ok(guest_memory_init(&mem, CELL_RAM_MIN, false, &e), &e);
		if (elf_load(&mem, &config.program, &start, &e) < 0)
			assert_true(*e.msg);
		guest_memory_free(&mem);
		config.program.size = at;
		assert_int_equal(cell_new(&cell, &config, &e), -ENOEXEC);
		assert_null(cell);
	}
	free(copy);
}

/* A fault in a program whose table of sections makes no sense has no name, or any. */
static void damaged_symbols(void **state)
{
	unsigned char *copy = malloc(guest_size);
	const struct elf_program program = {copy, guest_size, NULL};
	char name[64];
	Elf64_Ehdr h;

	(void)state;
	assert_non_null(copy);
	memcpy(copy, guest, guest_size);
	memcpy(&h, copy, sizeof(h));
	assert_true(elf_symbol(&program, h.e_entry, name, sizeof(name)));
	assert_string_equal(name, "entry+0x0");
	for (size_t at = 0; at < sizeof(h) + h.e_shnum * sizeof(Elf64_Shdr); at++) {
		unsigned char *p = copy + (at < sizeof(h) ? at : h.e_shoff + at - sizeof(h));
		unsigned char old = *p;

		for (unsigned v = 0; v < 3; v++) {
			*p = v == 0 ? 0xff : v == 1 ? 0 : (unsigned char)(old + 1);
			/* An address that none has, so that all are looked at. */
			elf_symbol(&program, 1, name, sizeof(name));
		}
		*p = old;
	}
	free(copy);
}

static int setup(void **state)
{
	(void)state;
	guest = load("guest-attack", &guest_size);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(honest_program_in_vm), cmocka_unit_test(honest_program_in_process),
		cmocka_unit_test(attacks_in_vm),        cmocka_unit_test(attacks_in_process),
		cmocka_unit_test(stopped_in_a_call),    cmocka_unit_test(damaged_programs),
		cmocka_unit_test(damaged_symbols),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
