// The layout of the maps, which the BPF program and its reader share. This is plain C, and both include it.
#pragma once

#ifdef __cplusplus
#include <linux/types.h>
namespace node_kvm::bpf {
#endif

#define MOST_ADDRESS_SPACES 2
#define SLOT_BYTES 320     // copies a struct kvm_memory_slot whole; that of 6.18 has 280
#define TABLE_ENTRIES 512  // in a page table of either vendor

// The walk needs these fields. A kernel that lacks one of them sets its bit, and nothing is read.
enum field_bit {
  FIELD_KVM_MEMSLOTS,
  FIELD_KVM_MM,
  FIELD_KVM_MMU_INVALIDATE_SEQ,
  FIELD_MEMSLOTS_GENERATION,
  FIELD_MEMSLOTS_ID_HASH,
  FIELD_MEMSLOTS_NODE_IDX,
  FIELD_SLOT_ID_NODE,
  FIELD_SLOT_BASE_GFN,
  FIELD_SLOT_NPAGES,
  FIELD_SLOT_USERSPACE_ADDR,
  FIELD_SLOT_FLAGS,
  FIELD_SLOT_ID,
  FIELD_SLOT_AS_ID,
  FIELD_ARCH_ACTIVE_MMU_PAGES,
  FIELD_MMU_PAGE_LINK,
  FIELD_MMU_PAGE_ROLE,
  FIELD_MMU_PAGE_GFN,
  FIELD_MMU_PAGE_SPT,
  FIELD_MMU_PAGE_SHADOWED_TRANSLATION,
  FIELD_COUNT,
};

// The request for a walk, and its results about all VMs.
struct control {
  // The request.
  __u64 page_offset_base;   // 0: the walk works it out from a vCPU's root
  __u64 mmio_mask_address;  // the addresses of the kernel's variables, 0 where unknown
  __u64 mmio_value_address;
  __u64 me_mask_address;
  __s32 fd;  // the descriptor's number in the process; -1: any
  __u32 wants_tables;
  __u32 most_vms;
  __u32 most_slots;
  __u32 most_tables;
  __u32 pass;  // differs for each walk: a VM that an earlier walk saw does not count as seen
  // The results.
  __u32 vms;
  __u32 slots;
  __u32 tables;  // these three count everything there is, including records that had no room
  __u32 missing_fields;
  __u32 failed_reads;
  __u32 files;
  // The offsets of a slot's fields in its bytes.
  __u32 base_gfn_at, npages_at, userspace_addr_at, flags_at, id_at, as_id_at, gmem_file_at, slot_size;
};

enum vm_flag {
  VM_OWNED = 1,           // the process that holds the descriptor owns the memory that the slots map
  VM_SEEN_BEFORE = 2,     // the walk already reported this VM for another descriptor
  VM_NO_PAGE_OFFSET = 4,  // there are TDP tables, but the walk cannot tell where they lie
};

struct vm_record {
  __u64 kvm;  // serves only to tell one VM from another
  __u64 invalidations_before, invalidations_after;
  __u64 generation_before[MOST_ADDRESS_SPACES], generation_after[MOST_ADDRESS_SPACES];
  __u64 mmio_mask, mmio_value, me_mask;
  __u32 pid;  // the number in the reader's pid namespace
  __u32 fd;
  __u32 vcpus;
  __u32 flags;
  __u32 address_spaces;
  __u32 first_slot, slots;
  __u32 first_table, tables;
  __u32 failed_reads;
  __u32 set_swapped;  // a bit for each address space: at the end of the walk, another set of slots was in force
  __u32 padding;
  char command[16];
};

struct slot_record {
  __u8 bytes[SLOT_BYTES];
};

enum table_kind {
  TABLE_TDP = 1,
  TABLE_SHADOW = 2,           // the gfns follow from the first one
  TABLE_SHADOW_INDIRECT = 3,  // a record of its gfns follows it
  TABLE_TRANSLATIONS = 4,
};

struct table_record {
  __u64 gfn;
  __u32 role;  // union kvm_mmu_page_role of the page, or of the TDP root
  __u8 kind;
  __u8 level;
  __u16 changed;  // KVM freed the page while the walk copied it
  __u64 entries[TABLE_ENTRIES];
};

// The walk's own state. It lies in a map, not on the stack, because kernel 6.1 miscompiles a bpf_loop callback whose context begins as a
// constant.
struct walk_state {
  __u64 kvm;
  __u64 memslots;
  __u64 node;  // the list element to look at next
  __u64 list_head;
  __u64 page_offset_base;
  __u64 pfn_mask;
  __u64 table_at[8];     // for each level: the table that is being walked,
  __u64 table_gfn[8];    // its first gfn,
  __u32 table_index[8];  // and the next entry
  __u32 level, root_level;
  __u32 role;
  __u32 node_idx;
  __u32 bucket;
  __u32 most_pages;  // after so many shadow pages the walk has lost its way
  __u32 failed_reads;
};

#ifdef __cplusplus
}
#endif
