# SPDX-License-Identifier: GPL-2.0-or-later
# imgkit's build. `make help` lists the targets; HACKING.md explains.
#
# Objects live in a directory named by the variant (build/release, build/asan, build/tsan,
# build/fuzz), so flags never mix. VARIANT= chooses one, B= moves its directory.
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:

VARIANT ?= release
B       ?= build/$(VARIANT)
# Programs of the release build go to build/bin, those of other builds stay with their objects.
BIN     := $(if $(filter build/release,$(B)),build/bin,$(B))

PREFIX     ?= /usr/local
bindir     ?= $(PREFIX)/bin
libdir     ?= $(PREFIX)/lib
libexecdir ?= $(PREFIX)/libexec
includedir ?= $(PREFIX)/include
mandir     ?= $(PREFIX)/share/man
compdir    ?= $(PREFIX)/share/bash-completion/completions

# ---- tools and flags ----
ifeq ($(origin CC),default)
CC := gcc
endif
CC       ?= gcc
CLANG    ?= clang-14
AR       ?= ar
OBJCOPY  ?= objcopy
INSTALL  ?= install
PYTHON   ?= python3
WERROR   ?= -Werror
# The agent is the same program for every variant.
agent_cc := $(CC)
ifeq ($(VARIANT),fuzz)
CC := $(CLANG)
endif

WARN := -Wall -Wextra $(WERROR) -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wvla -Wwrite-strings -Wundef
SAN  := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

CFLAGS_release  := -O2 -g -fstack-protector-strong -fstack-clash-protection
CPPFLAGS_release := -D_FORTIFY_SOURCE=2
LDFLAGS_release := -Wl,-z,relro,-z,now,--as-needed
CFLAGS_asan     := -O1 -g $(SAN)
CFLAGS_tsan     := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
CFLAGS_fuzz     := -O1 -g $(SAN) -fsanitize=fuzzer-no-link
CFLAGS_cov      := -O0 -g --coverage

all_cppflags = -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Ilib -Iinclude -Itools -I. \
	$(CPPFLAGS_$(VARIANT)) $(CPPFLAGS)
all_cflags   = -std=gnu11 $(WARN) $(CFLAGS_$(VARIANT)) -fPIC -fvisibility=hidden -pthread $(CFLAGS)
all_ldflags  = $(CFLAGS_$(VARIANT)) -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS)

# Third-party libraries. The programs take the static ones where they exist: it saves a third of
# the start-up time. Asked for when linking, so that a machine without them can parse this file.
deps      := deflate zstd jansson seccomp z
libs       = $(deps:%=-l%)
static_of  = $(filter /%,$(shell $(CC) -print-file-name=lib$(1).a))
prog_libs  = $(if $(filter release,$(VARIANT)),$(foreach l,$(deps),$(or $(call static_of,$l),-l$l)),$(libs))

# ---- sources ----
lib_src    := $(sort $(shell find lib -name '*.c'))
double_src := $(wildcard lib/io/doubles/*.c lib/io/doubles.c)
lib_src    := $(filter-out $(double_src),$(lib_src))
# The agent is a program of its own, which the library carries.
agent_src  := $(filter lib/appliance/agent/%,$(lib_src))
agent_src  += $(addprefix lib/appliance/,check.c wire.c) $(addprefix lib/base/,bytes.c err.c ranges.c)
agent_part := $(filter-out %/main.c,$(filter lib/appliance/agent/%,$(agent_src)))
lib_src    := $(filter-out lib/appliance/agent/%,$(lib_src)) $(wildcard vmm/*.c)
server_src := $(wildcard nbd-server/*.c)
tool_src   := $(filter-out tools/main.c,$(wildcard tools/*.c))
helper_src := $(wildcard tools/helpers/*.c)
# These are more than one file.
tar_src    := $(wildcard tools/helpers/tar/*.c)
serve_src  := $(wildcard tools/helpers/serve/*.c)
test_dirs  := unit fault crash model bad
test_c     := $(wildcard $(test_dirs:%=tests/%/*.c) tests/lib/*.c)
# A test program is a file with a main(); the others are shared by all of them.
main_re    := ^(int )?main\(
test_src   := $(if $(test_c),$(shell grep -lE '$(main_re)' $(test_c)))
testlib_src := $(filter-out $(test_src),$(test_c))
fuzz_src   := $(wildcard fuzz/fuzz-*.c)
fuzzlib_src := $(filter-out $(fuzz_src) fuzz/replay.c,$(wildcard fuzz/*.c))

obj = $(patsubst %.c,$(B)/%.o,$(1))

# ---- version: the public header is the source ----
version_part = $(shell sed -n 's/^\#define IMGKIT_VERSION_$(1)  *//p' include/imgkit.h)
VERSION   = $(call version_part,MAJOR).$(call version_part,MINOR).$(call version_part,PATCH)
SONAME   := libimgkit.so.0

# ---- what there is to make ----
img     := $(BIN)/img
helpers := $(helper_src:tools/helpers/%.c=$(BIN)/img-%)
core    := $(B)/libcore.a
tests   := $(test_src:%.c=$(B)/%)
replays := $(fuzz_src:fuzz/fuzz-%.c=$(B)/fuzz/replay-%)
fuzzers := $(fuzz_src:%.c=$(B)/%)

.PHONY: all programs libs tests replays fuzzers
all: programs libs
programs: $(img) $(helpers)
libs: $(B)/libimgkit.a $(B)/libimgkit.so
# The runner knows which of them run with this variant.
ifneq ($(filter tests,$(MAKECMDGOALS)),)
tests: $(shell $(PYTHON) tests/run --programs $(VARIANT) $(if $(filter cov,$(VARIANT)),--as cov) | sed 's|.*/|$(B)/&|')
endif
fuzzers: $(fuzzers)

V ?= 0
Q  = $(if $(filter 0,$(V)),@)
say = $(if $(filter 0,$(V)),@printf '  %-7s %s\n' '$(1)' '$(2)')

# ---- compiling ----
# Rebuild when flags or the set of sources change: the text of each is kept in a file.
.PHONY: FORCE
stamp = @mkdir -p $(@D); printf '%s\n' '$(1)' | cmp -s - $@ || printf '%s\n' '$(1)' > $@
$(B)/.flags: FORCE
	$(call stamp,$(CC) $(all_cppflags) $(all_cflags) $(all_ldflags))
$(B)/.sources: FORCE
	$(call stamp,$(sort $(lib_src) $(agent_src) $(tool_src) $(server_src) $(double_src) $(testlib_src) $(fuzzlib_src)))

# One clear message in place of a hundred when the headers of the dependencies are missing.
$(B)/.ready: build-aux/packages
	@mkdir -p $(@D)
	@printf '#include <%s>\n' jansson.h libdeflate.h libnbd.h seccomp.h zlib.h zstd.h ext2fs/ext2fs.h blkid/blkid.h archive.h | $(CC) -E -xc - >/dev/null 2>&1 || \
		{ echo "The compiler or headers of the libraries are missing: run 'make deps' first." >&2; \
		  exit 1; }
	@touch $@

$(B)/%.o: %.c $(B)/.flags | $(B)/.ready
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(all_cppflags) $(all_cflags) -MMD -MP -c $< -o $@

# Tests find what they share.
$(B)/tests/%.o $(B)/fuzz/%.o: all_cppflags += -Itests -Itests/lib

# ---- libraries ----
ar = $(call say,AR,$@) ; rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)

# All of lib/ for our own programs and tests.
$(core): $(call obj,$(lib_src)) $(B)/.sources
	$(ar)
$(B)/libdoubles.a: $(call obj,$(double_src)) $(B)/.sources
	$(ar)
# The agent's parts, for tests and fuzzing.
$(B)/libagent.a: $(call obj,$(agent_part)) $(B)/.sources
	$(ar)
$(B)/libtools.a: $(call obj,$(tool_src)) $(B)/.sources
	$(ar)
# The NBD server, without the program around it.
$(B)/libserver.a: $(call obj,$(server_src)) $(B)/.sources
	$(ar)
$(B)/libtest.a: $(call obj,$(testlib_src)) $(B)/.sources
	$(ar)
$(B)/libfuzz.a: $(call obj,$(fuzzlib_src)) $(B)/.sources
	$(ar)

# For others: one object in which all but imgkit_* is local, so that names cannot clash.
$(B)/libimgkit.a: $(call obj,$(lib_src)) $(B)/.sources
	$(call say,AR,$@)
	$(Q)$(CC) -r -nostdlib -o $(B)/imgkit.o $(filter %.o,$^)
	$(Q)$(OBJCOPY) --localize-hidden $(B)/imgkit.o
	$(Q)rm -f $@ && $(AR) rcs $@ $(B)/imgkit.o
$(B)/$(SONAME): $(call obj,$(lib_src)) lib/api/imgkit.map $(B)/.sources
	$(call say,LD,$@)
	$(Q)$(CC) -shared $(all_ldflags) -Wl,-soname,$(SONAME) -Wl,--version-script=lib/api/imgkit.map \
		$(if $(filter release,$(VARIANT)),-Wl$(,)-z$(,)defs) $(filter %.o,$^) -o $@ $(libs)
$(B)/libimgkit.so: $(B)/$(SONAME)
	@ln -sf $(SONAME) $@
, := ,

# ---- the agent ----
# One static program, the same for every variant: its own build without PIC or sanitizers, because
# it runs at fixed addresses in a machine without a kernel. agent-native is it as an ordinary
# program with the variant's flags, for tests and fuzzing.
agent_cflags := -std=gnu11 $(WARN) -O2 -g -fno-pie -fstack-protector-strong
agent_cppflags := -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -D_FORTIFY_SOURCE=2 -Ilib
agent_blkid  := build/agent/libblkid.a
agent_blkid_syms := $(foreach f,read lseek fstat,--redefine-sym $(f)=probe_$(f)) --redefine-sym posix_fadvise=probe_fadvise
agent_libs   := -lext2fs -lcom_err $(agent_blkid) -luuid
agent_obj     = $(patsubst %.c,build/agent/%.o,$(agent_src))

build/agent/.flags: FORCE
	$(call stamp,$(agent_cc) $(agent_cppflags) $(agent_cflags) $(agent_libs) $(agent_blkid_syms) $(agent_src))
build/agent/%.o: %.c build/agent/.flags | $(B)/.ready
	$(call say,CC,$< (agent))
	@mkdir -p $(@D)
	$(Q)$(agent_cc) $(agent_cppflags) $(agent_cflags) -MMD -MP -c $< -o $@
# libblkid with our functions for reading, which make fewer system calls: probe_io.c.
$(agent_blkid): build/agent/.flags
	$(call say,OBJCOPY,$@)
	$(Q)$(OBJCOPY) $(agent_blkid_syms) $(call static_of,blkid) $@
build/agent/agent: $(agent_obj) $(agent_blkid)
	$(call say,LD,$@)
	$(Q)$(agent_cc) -static -no-pie $(agent_cflags) -Wl,-z,noexecstack -Wl,--build-id=none $(filter %.o,$^) -o $@ $(agent_libs)
# The symbols stay: a report of a fault names the function.
build/agent/agent.stripped: build/agent/agent
	$(Q)$(OBJCOPY) --strip-debug $< $@
$(B)/lib/appliance/blob.o: build/agent/agent.stripped
# Programs that tests run in cells.
guests := $(patsubst tests/guests/%.c,build/agent/guest-%,$(wildcard tests/guests/*.c))
build/agent/guest-%: tests/guests/%.c build/agent/.flags
	$(call say,LD,$@)
	$(Q)$(agent_cc) -static -no-pie -D_GNU_SOURCE -std=gnu11 $(WARN) -O1 -g $< $(call link_flags,$<) -o $@
$(B)/agent-native: $(call obj,$(agent_src)) $(agent_blkid)
	$(call say,LD,$@)
	$(Q)$(CC) -pie $(all_ldflags) $(filter %.o,$^) -o $@ $(agent_libs)

# ---- programs ----
# Extra libraries of the helper programs: why they are programs of their own.
libs_img-checksum = -lcrypto
libs_img-dedup    = -lcrypto
libs_img-tar      = -larchive
libs_img-serve    = -lssl -lcrypto

$(img): $(call obj,tools/main.c $(tool_src)) $(core) $(B)/.flags
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -pie $(all_ldflags) $(filter %.o %.a,$^) -o $@ $(prog_libs)
$(BIN)/img-tar: $(call obj,$(tar_src))
$(BIN)/img-serve: $(call obj,$(serve_src)) $(B)/libserver.a
$(BIN)/img-%: $(B)/tools/helpers/%.o $(B)/tools/helpers/frame/main.o $(B)/libtools.a $(core) $(B)/.flags
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -pie $(all_ldflags) $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group \
		-o $@ $(libs_img-$*) $(prog_libs)

# ---- test programs ----
# A line " * link: FLAGS" in the head comment of a test adds flags (--wrap=malloc, say).
link_flags = $(shell sed -n 's|^ \* link: ||p' $(1))
$(tests): $(B)/tests/%: $(B)/tests/%.o $(B)/libtest.a $(B)/libtools.a $(B)/libdoubles.a \
		$(B)/libagent.a $(B)/libserver.a $(core) | $(guests) $(B)/agent-native
	$(call say,LD,$@)
	$(Q)$(CC) -pie $(all_ldflags) $< -Wl,--start-group $(filter %.a,$^) -Wl,--end-group \
		$(call link_flags,tests/$*.c) -o $@ -lcmocka $(libs)
fuzz_libs = $(B)/libfuzz.a $(B)/libtest.a $(B)/libdoubles.a $(B)/libagent.a $(B)/libserver.a $(core)
fuzz_link = -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(call link_flags,fuzz/fuzz-$*.c) -o $@ $(libs)
$(replays): $(B)/fuzz/replay-%: $(B)/fuzz/fuzz-%.o $(B)/fuzz/replay.o $(fuzz_libs) | $(agent_blkid)
	$(call say,LD,$@)
	$(Q)$(CC) -pie $(all_ldflags) $(filter %.o,$^) $(fuzz_link)
$(fuzzers): $(B)/fuzz/fuzz-%: $(B)/fuzz/fuzz-%.o $(fuzz_libs) | $(agent_blkid)
	$(call say,LD,$@)
	$(Q)$(CC) $(all_ldflags) -fsanitize=fuzzer $(filter %.o,$^) $(fuzz_link)

$(B)/bench/measure $(B)/bench/nbd-load: $(B)/bench/%: $(B)/bench/%.o
	$(call say,LD,$@)
	$(Q)$(CC) -pie $(all_ldflags) $^ -o $@ $(libs_bench-$*)
libs_bench-nbd-load = -lnbd

include mk/targets.mk
-include $(shell find $(B) build/agent -name '*.d' 2>/dev/null)
