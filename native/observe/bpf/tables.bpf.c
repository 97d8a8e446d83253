// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Reads the memslots and the second stage of VMs from outside. It is an iterator over open files (Documentation/bpf/bpf_iterators.rst) that
// recognizes a VM's descriptor and copies the VM's memslots and page tables as they lie; user space interprets them. It takes no lock and
// writes nothing that belongs to the kernel. It does not prevent changes during the walk, but reports them by generation counters.
#include <stdbool.h>

#include "kernel.h"
#include "walk.h"

#define MOST_STEPS (1 << 23)  // bpf_loop() allows no more
#define MOST_SLOT_STEPS (1 << 17)
#define MOST_ROOTS 64
#define SPARE_PAGES 1024  // so many shadow pages may be made while the list is walked

// ---- The first table: the memslots, which are found by the hash of their ids. The hash is a list of lists, so the walk needs no stack.

static long visit_slot(__u32 step, void *unused) {
  struct walk_state *state = find_state();
  struct control *control = find_control();
  if (!state || !control) return 1;
  const __u64 set = state->memslots;
  if (state->node == 0) {
    if (state->bucket >= 128) return 1;
    state->node = read_word(state, set + bpf_core_field_offset(struct kvm_memslots, id_hash) + 8ULL * state->bucket++);
    return 0;
  }
  const __u64 slot = state->node - bpf_core_field_offset(struct kvm_memory_slot, id_node) - 16ULL * state->node_idx;
  const __u32 index = control->slots++;
  struct slot_record *record = index < control->most_slots ? find_output(&slot_output, index) : NULL;
  const __u32 size = bpf_core_type_size(struct kvm_memory_slot);
  if (record && size <= SLOT_BYTES && bpf_probe_read_kernel(record, size, (void *)slot) != 0) state->failed_reads++;
  state->node = read_word(state, state->node);
  return 0;
}

static __always_inline void walk_slots(struct walk_state *state, struct vm_record *vm) {
  const __u32 spaces = bpf_core_field_size(((struct kvm *)0)->memslots) / 8;
  vm->address_spaces = spaces < MOST_ADDRESS_SPACES ? spaces : MOST_ADDRESS_SPACES;
  // This is unrolled, because the walk over a hash is one loop already.
  for (int space = 0; space < MOST_ADDRESS_SPACES; space++) {
    if (space >= spaces) break;
    const __u64 place = state->kvm + bpf_core_field_offset(struct kvm, memslots) + 8ULL * space;
    const __u64 before = read_word(state, place);
    struct kvm_memslots *set = (void *)before;
    __u64 generation = 0;
    int node_idx = 0;
    READ(state, generation, set, generation);
    READ(state, node_idx, set, node_idx);
    vm->generation_before[space] = generation;
    state->memslots = before;
    state->node_idx = node_idx & 1;
    state->node = 0;
    state->bucket = 0;
    if (before) bpf_loop(MOST_SLOT_STEPS, visit_slot, NULL, 0);
  }
}

static __always_inline void end_slots(struct walk_state *state, struct vm_record *vm, const __u64 *sets) {
  const __u32 spaces = bpf_core_field_size(((struct kvm *)0)->memslots) / 8;
  for (int space = 0; space < MOST_ADDRESS_SPACES; space++) {
    if (space >= spaces) break;
    const __u64 now = read_word(state, state->kvm + bpf_core_field_offset(struct kvm, memslots) + 8ULL * space);
    struct kvm_memslots *set = (void *)now;
    __u64 generation = 0;
    READ(state, generation, set, generation);
    vm->generation_after[space] = generation;
    if (now != sets[space]) vm->set_swapped |= 1u << space;
  }
}

// ---- The third table: page tables, which are copied whole.

static __always_inline struct table_record *next_table(struct control *control) {
  const __u32 index = control->tables++;
  return index < control->most_tables ? find_output(&table_output, index) : NULL;
}

static __always_inline struct table_record *copy_table(struct walk_state *state, struct control *control, __u8 kind, __u64 address) {
  struct table_record *record = next_table(control);
  if (!record) return NULL;
  record->kind = kind;
  record->changed = 0;
  if (bpf_probe_read_kernel(record->entries, sizeof record->entries, (void *)address) != 0) {
    state->failed_reads++;
    record->changed = 1;
  }
  return record;
}

static long visit_shadow_page(__u32 step, void *unused) {
  struct walk_state *state = find_state();
  struct control *control = find_control();
  if (!state || !control || state->node == 0 || state->node == state->list_head) return 1;
  // A page that KVM frees during the walk is moved to another list, so the walk may never meet the end of the list that it began.
  if (step >= state->most_pages) {
    state->failed_reads++;
    return 1;
  }
  struct kvm_mmu_page *page = (void *)(state->node - bpf_core_field_offset(struct kvm_mmu_page, link));
  __u64 gfn = 0, spt = 0, spt_after = 0, translations = 0;
  __u32 role = 0, role_after = 0;
  READ(state, gfn, page, gfn);
  READ(state, role, page, role);
  READ(state, spt, page, spt);
  READ(state, translations, page, shadowed_translation);
  // A change of the slots took pages with ROLE_INVALID out of use; KVM frees them later.
  if (!(role & ROLE_INVALID) && spt != 0) {
    struct table_record *record = copy_table(state, control, translations ? TABLE_SHADOW_INDIRECT : TABLE_SHADOW, spt);
    struct table_record *gfns = translations ? copy_table(state, control, TABLE_TRANSLATIONS, translations) : NULL;
    READ(state, role_after, page, role);
    READ(state, spt_after, page, spt);
    if (record) {
      record->gfn = gfn;
      record->role = role;
      record->level = role & ROLE_LEVEL;
      if (role != role_after || spt != spt_after || (gfns && gfns->changed)) record->changed = 1;
    }
  }
  state->node = read_word(state, state->node);
  return 0;
}

// One step of a walk down a TDP root: it looks at one entry of the current table, then goes down into the next table or up again.
static long visit_tdp(__u32 step, void *unused) {
  struct walk_state *state = find_state();
  struct control *control = find_control();
  if (!state || !control) return 1;
  const __u32 level = state->level;
  if (level > state->root_level || level < 2 || level > 5) return 1;
  const __u32 index = state->table_index[level & 7];
  if (index >= TABLE_ENTRIES) {
    state->level = level + 1;
    return 0;
  }
  state->table_index[level & 7] = index + 1;
  const __u64 entry = read_word(state, state->table_at[level & 7] + 8ULL * index);
  if (!(entry & SPTE_PRESENT) || (entry & SPTE_HUGE)) return 0;
  const __u64 child = state->page_offset_base + (entry & state->pfn_mask);
  const __u64 gfn = state->table_gfn[level & 7] + ((__u64)index << ((level - 1) * 9));
  struct table_record *record = copy_table(state, control, TABLE_TDP, child);
  if (record) {
    record->gfn = gfn;
    record->role = state->role;
    record->level = level - 1;
  }
  if (level == 2) return 0;
  state->table_at[(level - 1) & 7] = child;
  state->table_gfn[(level - 1) & 7] = gfn;
  state->table_index[(level - 1) & 7] = 0;
  state->level = level - 1;
  return 0;
}

static long visit_root(__u32 step, void *unused) {
  struct walk_state *state = find_state();
  struct control *control = find_control();
  if (!state || !control || state->node == 0 || state->node == state->list_head) return 1;
  struct kvm_mmu_page *page = (void *)(state->node - bpf_core_field_offset(struct kvm_mmu_page, link));
  __u64 spt = 0;
  __u32 role = 0;
  READ(state, role, page, role);
  READ(state, spt, page, spt);
  const __u32 level = role & ROLE_LEVEL;
  if (!(role & ROLE_INVALID) && spt != 0 && level >= 2 && level <= 5) {
    struct table_record *record = copy_table(state, control, TABLE_TDP, spt);
    if (record) {
      record->gfn = 0;
      record->role = role;
      record->level = level;
    }
    state->role = role;
    state->level = state->root_level = level;
    state->table_at[level & 7] = spt;
    state->table_gfn[level & 7] = 0;
    state->table_index[level & 7] = 0;
    if (state->page_offset_base) bpf_loop(MOST_STEPS, visit_tdp, NULL, 0);
  }
  state->node = read_word(state, state->node);
  return 0;
}

// Finds where the kernel maps all physical memory: both addresses of a root's table are known (kvm_mmu_page.spt, kvm_mmu_root_info.hpa).
// The base lies on a border of 1 GiB (arch/x86/mm/kaslr.c), which exposes a pair of addresses that do not belong to one table.
static __always_inline __u64 find_page_offset(struct walk_state *state, struct kvm *kvm) {
  __u64 head = 0, hpa = 0;
  READ(state, head, kvm, vcpu_array.xa_head);
  // An entry that points to a node of the tree has 10 in its two lowest bits (include/linux/xarray.h).
  for (int depth = 0; depth < 3; depth++) {
    if ((head & 3) != 2 || head <= 4096) break;
    head = read_word(state, head - 2 + bpf_core_field_offset(struct xa_node, slots));
  }
  if (head <= 4096) return 0;
  struct kvm_vcpu *vcpu = (void *)head;
  READ(state, hpa, vcpu, arch.root_mmu.root.hpa);
  __u64 node = 0, spt = 0;
  READ(state, node, kvm, arch.tdp_mmu_roots.next);
  for (int number = 0; number < 8; number++) {
    if (node == 0 || node == state->list_head) break;
    struct kvm_mmu_page *page = (void *)(node - bpf_core_field_offset(struct kvm_mmu_page, link));
    READ(state, spt, page, spt);
    const __u64 base = spt - (hpa & FRAME_MASK);
    if (spt != 0 && hpa != 0 && hpa != ~0ULL && (base & ((1ULL << 30) - 1)) == 0 && base >= 0xff11000000000000ULL) return base;
    node = read_word(state, node);
  }
  return 0;
}

static __always_inline void walk_tables(struct walk_state *state, struct control *control, struct vm_record *vm) {
  struct kvm *kvm = (void *)state->kvm;
  const __u64 pages = state->kvm + bpf_core_field_offset(struct kvm, arch) + bpf_core_field_offset(struct kvm_arch, active_mmu_pages);
  state->list_head = pages;
  state->node = read_word(state, pages);
  unsigned long used = MOST_STEPS;
  if (bpf_core_field_exists(((struct kvm_arch *)0)->n_used_mmu_pages)) READ(state, used, kvm, arch.n_used_mmu_pages);
  state->most_pages = used < MOST_STEPS ? used + SPARE_PAGES : MOST_STEPS;
  bpf_loop(MOST_STEPS, visit_shadow_page, NULL, 0);
  if (!bpf_core_field_exists(((struct kvm_arch *)0)->tdp_mmu_roots)) return;
  const __u64 roots = state->kvm + bpf_core_field_offset(struct kvm, arch) + bpf_core_field_offset(struct kvm_arch, tdp_mmu_roots);
  state->list_head = roots;
  state->node = read_word(state, roots);
  // Without the TDP MMU the kernel leaves the list's head zero or empty.
  if (state->node == 0 || state->node == roots) return;
  state->page_offset_base = control->page_offset_base ? control->page_offset_base : find_page_offset(state, kvm);
  if (!state->page_offset_base) vm->flags |= VM_NO_PAGE_OFFSET;
  bpf_loop(MOST_ROOTS, visit_root, NULL, 0);
}

// ---- One VM.

static __always_inline void read_masks(struct walk_state *state, struct control *control, struct vm_record *vm) {
  struct kvm *kvm = (void *)state->kvm;
  vm->mmio_mask = control->mmio_mask_address ? read_word(state, control->mmio_mask_address) : 0;
  vm->me_mask = control->me_mask_address ? read_word(state, control->me_mask_address) : 0;
  vm->mmio_value = control->mmio_value_address ? read_word(state, control->mmio_value_address) : 0;
  if (bpf_core_field_exists(((struct kvm_arch *)0)->shadow_mmio_value)) READ(state, vm->mmio_value, kvm, arch.shadow_mmio_value);
  state->pfn_mask = FRAME_MASK & ~vm->me_mask;
}

static __always_inline __u32 pid_for_reader(struct walk_state *state, struct task_struct *task) {
  struct task_struct *reader = (void *)bpf_get_current_task();
  struct task_struct *leader = NULL;
  struct pid *own = NULL, *pid = NULL;
  __u32 level = 0;
  int number = 0;
  READ(state, own, reader, thread_pid);
  READ(state, level, own, level);
  READ(state, leader, task, group_leader);
  READ(state, pid, leader, thread_pid);
  const __u64 numbers = (__u64)pid + bpf_core_field_offset(struct pid, numbers) + (__u64)bpf_core_type_size(struct upid) * level;
  if (bpf_probe_read_kernel(&number, sizeof number, (void *)numbers) != 0) state->failed_reads++;
  return number;
}

static __always_inline void tell_vm(struct walk_state *state, struct control *control, struct vm_record *vm, struct task_struct *task) {
  struct kvm *kvm = (void *)state->kvm;
  struct mm_struct *kvm_mm = NULL, *task_mm = NULL;
  __u64 sets[MOST_ADDRESS_SPACES] = {};
  vm->kvm = state->kvm;
  READ(state, vm->command, task, comm);
  READ(state, vm->vcpus, kvm, online_vcpus.counter);
  READ(state, kvm_mm, kvm, mm);
  READ(state, task_mm, task, mm);
  if (kvm_mm == task_mm) vm->flags |= VM_OWNED;
  __u32 *before = bpf_map_lookup_elem(&seen, &state->kvm);
  if (before && *before == control->pass) vm->flags |= VM_SEEN_BEFORE;
  vm->first_slot = control->slots;
  vm->first_table = control->tables;
  // Several processes may hold the VM; it is reported for the one whose memory it maps.
  if (!(vm->flags & VM_OWNED) || (vm->flags & VM_SEEN_BEFORE)) return;
  __u32 pass = control->pass;
  bpf_map_update_elem(&seen, &state->kvm, &pass, BPF_ANY);
  read_masks(state, control, vm);
  READ(state, vm->invalidations_before, kvm, mmu_invalidate_seq);
  const __u64 place = state->kvm + bpf_core_field_offset(struct kvm, memslots);
  sets[0] = read_word(state, place);
  if (bpf_core_field_size(((struct kvm *)0)->memslots) > 8) sets[1] = read_word(state, place + 8);
  walk_slots(state, vm);
  vm->slots = control->slots - vm->first_slot;
  if (control->wants_tables) walk_tables(state, control, vm);
  vm->tables = control->tables - vm->first_table;
  end_slots(state, vm, sets);
  READ(state, vm->invalidations_after, kvm, mmu_invalidate_seq);
}

#define NEED(bit, type, field) (bpf_core_field_exists(((struct type *)0)->field) ? 0 : 1u << (bit))

static __always_inline __u32 missing_fields(void) {
  return NEED(FIELD_KVM_MEMSLOTS, kvm, memslots) | NEED(FIELD_KVM_MM, kvm, mm) |
         NEED(FIELD_KVM_MMU_INVALIDATE_SEQ, kvm, mmu_invalidate_seq) | NEED(FIELD_MEMSLOTS_GENERATION, kvm_memslots, generation) |
         NEED(FIELD_MEMSLOTS_ID_HASH, kvm_memslots, id_hash) | NEED(FIELD_MEMSLOTS_NODE_IDX, kvm_memslots, node_idx) |
         NEED(FIELD_SLOT_ID_NODE, kvm_memory_slot, id_node) | NEED(FIELD_SLOT_BASE_GFN, kvm_memory_slot, base_gfn) |
         NEED(FIELD_SLOT_NPAGES, kvm_memory_slot, npages) | NEED(FIELD_SLOT_USERSPACE_ADDR, kvm_memory_slot, userspace_addr) |
         NEED(FIELD_SLOT_FLAGS, kvm_memory_slot, flags) | NEED(FIELD_SLOT_ID, kvm_memory_slot, id) |
         NEED(FIELD_SLOT_AS_ID, kvm_memory_slot, as_id) | NEED(FIELD_ARCH_ACTIVE_MMU_PAGES, kvm_arch, active_mmu_pages) |
         NEED(FIELD_MMU_PAGE_LINK, kvm_mmu_page, link) | NEED(FIELD_MMU_PAGE_ROLE, kvm_mmu_page, role) |
         NEED(FIELD_MMU_PAGE_GFN, kvm_mmu_page, gfn) | NEED(FIELD_MMU_PAGE_SPT, kvm_mmu_page, spt) |
         NEED(FIELD_MMU_PAGE_SHADOWED_TRANSLATION, kvm_mmu_page, shadowed_translation);
}

static __always_inline void tell_layout(struct control *control) {
  control->base_gfn_at = bpf_core_field_offset(struct kvm_memory_slot, base_gfn);
  control->npages_at = bpf_core_field_offset(struct kvm_memory_slot, npages);
  control->userspace_addr_at = bpf_core_field_offset(struct kvm_memory_slot, userspace_addr);
  control->flags_at = bpf_core_field_offset(struct kvm_memory_slot, flags);
  control->id_at = bpf_core_field_offset(struct kvm_memory_slot, id);
  control->as_id_at = bpf_core_field_offset(struct kvm_memory_slot, as_id);
  control->gmem_file_at =
      bpf_core_field_exists(((struct kvm_memory_slot *)0)->gmem) ? bpf_core_field_offset(struct kvm_memory_slot, gmem) : 0;
  control->slot_size = bpf_core_type_size(struct kvm_memory_slot);
}

// Only the kernel gives names to the files of this file system.
static __always_inline bool is_vm(struct walk_state *state, struct file *file) {
  __u64 magic = 0, name = 0;
  const unsigned char *text = NULL;
  struct inode *inode = NULL;
  struct super_block *super = NULL;
  READ(state, inode, file, f_inode);
  READ(state, super, inode, i_sb);
  READ(state, magic, super, s_magic);
  if (magic != ANONYMOUS_INODES) return false;
  struct dentry *dentry = NULL;
  READ(state, dentry, file, f_path.dentry);
  READ(state, text, dentry, d_name.name);
  bpf_probe_read_kernel(&name, 7, text);
  return (name & NAME_MASK) == NAME_KVM_VM;
}

SEC("iter/task_file")
int walk(struct bpf_iter__task_file *context) {
  struct control *control = find_control();
  struct walk_state *state = find_state();
  struct file *file = context->file;
  struct task_struct *task = context->task;
  if (!control || !state || !file || !task) return 0;
  control->files++;
  const __u32 missing = missing_fields();
  if (missing) {
    control->missing_fields = missing;
    return 0;
  }
  if (control->fd >= 0 && (__u32)control->fd != context->fd) return 0;
  state->failed_reads = 0;
  if (!is_vm(state, file)) return 0;
  tell_layout(control);
  READ(state, state->kvm, file, private_data);
  const __u32 index = control->vms++;
  struct vm_record *vm = index < control->most_vms ? find_output(&vm_output, index) : NULL;
  if (!vm) return 0;
  __builtin_memset(vm, 0, sizeof *vm);
  vm->fd = context->fd;
  vm->pid = pid_for_reader(state, task);
  tell_vm(state, control, vm, task);
  vm->failed_reads = state->failed_reads;
  control->failed_reads += state->failed_reads;
  return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
