// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// The kernel's structures, by the fields that the walk uses, and the kernel's constants. CO-RE moves each access to where the running
// kernel's own BTF has the field, whether KVM is built in or a module.
#pragma once

#include <linux/types.h>

#define KERNEL_STRUCT __attribute__((preserve_access_index))

struct list_head {
  struct list_head *next;
} KERNEL_STRUCT;
struct hlist_node {
  struct hlist_node *next;
} KERNEL_STRUCT;
struct hlist_head {
  struct hlist_node *first;
} KERNEL_STRUCT;
struct upid {
  int nr;
} KERNEL_STRUCT;
struct pid {
  unsigned int level;
  struct upid numbers[1];
} KERNEL_STRUCT;
struct mm_struct;
struct task_struct {
  struct mm_struct *mm;
  struct task_struct *group_leader;
  struct pid *thread_pid;
  char comm[16];
} KERNEL_STRUCT;
struct super_block {
  unsigned long s_magic;
} KERNEL_STRUCT;
struct inode {
  struct super_block *i_sb;
} KERNEL_STRUCT;
struct qstr {
  const unsigned char *name;
} KERNEL_STRUCT;
struct dentry {
  struct qstr d_name;
} KERNEL_STRUCT;
struct path {
  struct dentry *dentry;
} KERNEL_STRUCT;
struct file {
  struct inode *f_inode;
  struct path f_path;
  void *private_data;
} KERNEL_STRUCT;
struct bpf_iter_meta;
struct bpf_iter__task_file {
  struct bpf_iter_meta *meta;
  struct task_struct *task;
  __u32 fd;
  struct file *file;
} KERNEL_STRUCT;
typedef struct {
  int counter;
} atomic_t;
struct xarray {
  void *xa_head;
} KERNEL_STRUCT;
struct xa_node {
  void *slots[64];
} KERNEL_STRUCT;
struct kvm_memslots {
  __u64 generation;
  struct hlist_head id_hash[128];
  int node_idx;
} KERNEL_STRUCT;
struct kvm_memory_slot {
  struct hlist_node id_node[2];
  __u64 base_gfn;
  unsigned long npages;
  unsigned long userspace_addr;
  __u32 flags;
  short id;
  __u16 as_id;
  struct {
    struct file *file;
  } gmem;
} KERNEL_STRUCT;
struct kvm_arch {
  struct list_head active_mmu_pages;
  struct list_head tdp_mmu_roots;
  unsigned long n_used_mmu_pages;
  __u8 mmu_valid_gen;
  __u64 shadow_mmio_value;
} KERNEL_STRUCT;
struct kvm {
  struct mm_struct *mm;
  struct kvm_memslots *memslots[1];
  struct xarray vcpu_array;
  atomic_t online_vcpus;
  struct kvm_arch arch;
  unsigned long mmu_invalidate_seq;
} KERNEL_STRUCT;
union kvm_mmu_page_role {
  __u32 word;
};
struct kvm_mmu_page {
  struct list_head link;
  union kvm_mmu_page_role role;
  __u64 gfn;
  __u64 *spt;
  __u64 *shadowed_translation;
  __u8 mmu_valid_gen;
} KERNEL_STRUCT;
struct kvm_mmu_root_info {
  __u64 hpa;
} KERNEL_STRUCT;
struct kvm_mmu {
  struct kvm_mmu_root_info root;
} KERNEL_STRUCT;
struct kvm_vcpu_arch {
  struct kvm_mmu root_mmu;
} KERNEL_STRUCT;
struct kvm_vcpu {
  struct kvm *kvm;
  struct kvm_vcpu_arch arch;
} KERNEL_STRUCT;

#define ANONYMOUS_INODES 0x09041934      // ANON_INODE_FS_MAGIC of <linux/magic.h>
#define NAME_KVM_VM 0x006d762d6d766bULL  // "kvm-vm" with its final zero
#define NAME_MASK 0x00ffffffffffffffULL
#define SPTE_PRESENT (1ULL << 11)  // SPTE_MMU_PRESENT_MASK, in every format (arch/x86/kvm/mmu/spte.h)
#define SPTE_HUGE (1ULL << 7)
#define ROLE_LEVEL 0xf  // the first field of union kvm_mmu_page_role; 6.1 to 6.18 agree on these
#define ROLE_INVALID (1u << 11)
#define FRAME_MASK 0x000ffffffffff000ULL
