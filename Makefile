# imgkit: see HACKING.md. (Bootstrap version.)
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := all
CC ?= cc
VARIANT ?= release
B := build/$(VARIANT)
CPPFLAGS := -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Ilib -Iinclude -Itools
WARN := -std=gnu11 -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wwrite-strings -Wundef
CFLAGS_release := -O2 -g
CFLAGS_asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
CFLAGS_tsan := -O1 -g -fsanitize=thread
CFLAGS := $(WARN) $(CFLAGS_$(VARIANT)) -fPIC -fvisibility=hidden -pthread
LIBS := -ldeflate -lzstd -lz -ljansson -pthread
lib_src := $(filter-out lib/io/doubles/%,$(shell find lib -name '*.c'))
tool_src := $(wildcard tools/*.c)
all: $(B)/img
$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@
$(B)/img: $(lib_src:%.c=$(B)/%.o) $(tool_src:%.c=$(B)/%.o)
	$(CC) $(CFLAGS) $^ -o $@ $(LIBS)
	@mkdir -p build/bin; [ $(VARIANT) != release ] || cp $@ build/bin/img
-include $(shell find $(B) -name '*.d' 2>/dev/null)
