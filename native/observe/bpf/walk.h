// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// The common parts of the walk: the maps, and reads of kernel memory that count their failures.
#pragma once

// clang-format off
#include <linux/bpf.h>  // this must precede the helpers, which use its types
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
// clang-format on
#include <stddef.h>

#include "layout.h"

// The records go to arrays inside arrays: when one was too small, user space puts a larger one in its place.
#define OUTPUT(name, size)                                     \
  struct {                                                     \
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);                  \
    __uint(max_entries, 1);                                    \
    __uint(key_size, 4);                                       \
    __array(                                                   \
        values, struct {                                       \
          __uint(type, BPF_MAP_TYPE_ARRAY);                    \
          __uint(max_entries, 1);                              \
          __uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP); \
          __uint(key_size, 4);                                 \
          __uint(value_size, size);                            \
        });                                                    \
  } name SEC(".maps")

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(key_size, 4);
  __uint(value_size, sizeof(struct control));
} controls SEC(".maps");
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(key_size, 4);
  __uint(value_size, sizeof(struct walk_state));
} states SEC(".maps");
// The walk that last reported a VM, so that a VM with two descriptors is reported once.
struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, 4096);
  __uint(key_size, 8);
  __uint(value_size, 4);
} seen SEC(".maps");
OUTPUT(vm_output, sizeof(struct vm_record));
OUTPUT(slot_output, sizeof(struct slot_record));
OUTPUT(table_output, sizeof(struct table_record));

static __always_inline struct control *find_control(void) {
  __u32 zero = 0;
  return bpf_map_lookup_elem(&controls, &zero);
}
static __always_inline struct walk_state *find_state(void) {
  __u32 zero = 0;
  return bpf_map_lookup_elem(&states, &zero);
}
static __always_inline void *find_output(void *outer, __u32 index) {
  __u32 zero = 0;
  void *inner = bpf_map_lookup_elem(outer, &zero);
  return inner ? bpf_map_lookup_elem(inner, &index) : NULL;
}

static __always_inline __u64 read_word(struct walk_state *state, __u64 address) {
  __u64 value = 0;
  if (bpf_probe_read_kernel(&value, sizeof value, (void *)address) != 0) state->failed_reads++;
  return value;
}
#define READ(state, target, pointer, field)                                                                        \
  do {                                                                                                             \
    if (bpf_probe_read_kernel(&(target), sizeof(target), __builtin_preserve_access_index(&(pointer)->field)) != 0) \
      (state)->failed_reads++;                                                                                     \
  } while (0)
