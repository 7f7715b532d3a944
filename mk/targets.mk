# SPDX-License-Identifier: GPL-2.0-or-later
# What people type: install, test, lint, bench, demo, fuzz, clean.

# Sub-makes use all CPUs unless the caller said how many.
submake = $(MAKE) --no-print-directory \
	$(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$$(nproc 2>/dev/null || echo 2))

.PHONY: help deps install uninstall test test-svm check lint lint-cheap format bench bench-nbd demo fuzz soak coverage clean

help:
	@sed -n 's/^#: //p' mk/targets.mk

#: make            build: build/bin/img, build/release/libimgkit.{a,so}
#: make deps       install what is missing (Debian packages; build-aux/packages is the list)
deps:
	@build-aux/deps

#: make install    PREFIX=/usr/local DESTDIR=
install: all $(B)/imgkit.pc
	$(INSTALL) -d $(addprefix $(DESTDIR),$(bindir) $(libexecdir)/imgkit $(libdir)/pkgconfig \
		$(includedir) $(mandir)/man1 $(compdir))
	$(INSTALL) $(img) $(DESTDIR)$(bindir)/
	$(if $(helpers),$(INSTALL) $(helpers) $(DESTDIR)$(libexecdir)/imgkit/)
	$(INSTALL) -m 644 include/imgkit.h $(DESTDIR)$(includedir)/
	$(INSTALL) -m 644 $(B)/libimgkit.a $(DESTDIR)$(libdir)/
	$(INSTALL) -m 755 $(B)/$(SONAME) $(DESTDIR)$(libdir)/libimgkit.so.$(VERSION)
	ln -sf libimgkit.so.$(VERSION) $(DESTDIR)$(libdir)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(libdir)/libimgkit.so
	$(INSTALL) -m 644 $(B)/imgkit.pc $(DESTDIR)$(libdir)/pkgconfig/
	$(if $(wildcard man/*.1),$(INSTALL) -m 644 $(wildcard man/*.1) $(DESTDIR)$(mandir)/man1/)
	$(if $(wildcard completion/img),$(INSTALL) -m 644 completion/img $(DESTDIR)$(compdir)/)

$(B)/imgkit.pc: build-aux/imgkit.pc.in include/imgkit.h FORCE
	@sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(libdir)|; s|@INCLUDEDIR@|$(includedir)|' \
		-e 's|@VERSION@|$(VERSION)|; s|@LIBS@|$(libs)|' $< > $@

uninstall:
	rm -f $(addprefix $(DESTDIR),$(bindir)/img $(libdir)/libimgkit.a $(libdir)/libimgkit.so \
		$(libdir)/$(SONAME) $(libdir)/libimgkit.so.$(VERSION) $(libdir)/pkgconfig/imgkit.pc \
		$(includedir)/imgkit.h $(compdir)/img \
		$(patsubst man/%,$(mandir)/man1/%,$(wildcard man/*.1)))
	rm -rf $(DESTDIR)$(libexecdir)/imgkit

#: make test       install test tools, build all variants, run every test; T=pattern for some
# T="a b": tests whose name matches a or b. RUN= more options for tests/run (see --help).
test check:
	@build-aux/deps build test lint
	+@$(submake) VARIANT=release all tests
	+@$(submake) VARIANT=asan tests
	+@$(submake) VARIANT=tsan tests
	@$(PYTHON) tests/run $(RUN) $(foreach t,$(T),'$(t)')

#: make test-svm   the cells on the real kvm-amd.ko, in an emulated machine; some minutes
cell_in_svm = tests/svm/machine.py --npt $(1) --file build/release/tests/unit/test-cell:/bin/test-cell \
	--file build/agent/guest-attack:/top/build/agent/guest-attack -- ONLY_VM=1 test-cell
guest_in_svm = tests/svm/machine.py --npt $(1) --file build/bin/img --file build/svm/disk:/disk \
	--file tests/svm/guest.sh:/guest.sh \
	$(if $(wildcard /sbin/e2fsck.static),--file /sbin/e2fsck.static:/sbin/e2fsck.static) -- sh /guest.sh
test-svm:
	@build-aux/deps build test svm
	+@$(submake) VARIANT=release build/release/tests/unit/test-cell programs
	@sh tests/svm/make-disk.sh build/svm/disk
	$(call cell_in_svm,1)
	$(call cell_in_svm,0)
	$(call guest_in_svm,1)
	$(call guest_in_svm,0)

#: make lint       format, include direction, sizes, shellcheck, man pages, clang-tidy
lint:
	@build-aux/deps build test lint tidy
	+@$(submake) VARIANT=release all
	@$(PYTHON) tests/run lint/
	@build-aux/tidy

#: make format     clang-format all sources
format:
	clang-format-14 -i $$(git ls-files '*.c' '*.h')

#: make bench      img against qemu-img on a real disk; BENCH="--only zlib --runs 5"
bench: bench-nbd
	@build-aux/deps build demo
	+@$(submake) VARIANT=release programs build/release/bench/measure
	@bench/mkdata
	@$(PYTHON) bench/run $(BENCH)

#: make bench-nbd  the NBD server against its peers; BENCH_NBD="--only qcow2"
bench-nbd:
	@build-aux/deps build bench
	+@$(submake) VARIANT=release programs build/release/bench/nbd-load
	@$(PYTHON) bench/nbd $(BENCH_NBD)

#: make demo       the main job on a real guest disk, told step by step
demo:
	@build-aux/deps build demo
	+@$(submake) VARIANT=release programs libs
	@demo/run

#: make fuzz       libFuzzer, TIME=60 seconds for each target; T=name for one
TIME ?= 60
fuzz:
	@build-aux/deps build fuzz
	+@$(submake) VARIANT=fuzz fuzzers
	@build-aux/fuzz $(TIME) $(foreach t,$(T),'$(t)')

#: make soak       the randomised tests again and again with new seeds, for TIME=60 seconds each
soak:
	@build-aux/deps build test
	+@$(submake) VARIANT=release all tests
	+@$(submake) VARIANT=asan tests
	+@$(submake) VARIANT=tsan tests
	@SOAK_SECONDS=$(TIME) $(PYTHON) tests/run --soak $(TIME) $(foreach t,$(T),'$(t)')

#: make coverage   which lines of lib/ the tests run, per file
coverage:
	@build-aux/deps build test
	+@$(submake) VARIANT=cov programs tests
	@find build/cov -name '*.gcda' -delete
	@$(PYTHON) tests/run --as cov $(RUN) $(foreach t,$(T),'$(t)')
	@build-aux/coverage

#: make clean
clean:
	rm -rf build
