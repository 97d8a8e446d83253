/**
 * No header says which 64-bit fields are addresses or sizes below 2^53, which JavaScript takes as numbers. They are listed here. All other 64-bit
 * fields are bigints, as are the members of kvm_run, whose bytes may belong to another member.
 */
export const addresses = {
  kvm_userspace_memory_region: ['guest_phys_addr', 'memory_size', 'userspace_addr'],
  kvm_userspace_memory_region2: ['guest_phys_addr', 'memory_size', 'userspace_addr', 'guest_memfd_offset'],
  kvm_create_guest_memfd: ['size'],
  kvm_dirty_log: ['dirty_bitmap'],
  kvm_clear_dirty_log: ['first_page', 'dirty_bitmap'],
  kvm_dirty_gfn: ['offset'],
  kvm_coalesced_mmio_zone: ['addr'],
  kvm_coalesced_mmio: ['phys_addr'],
  kvm_ioeventfd: ['addr'],
  kvm_memory_attributes: ['address', 'size'],
  kvm_pre_fault_memory: ['gpa', 'size'],
  kvm_enc_region: ['addr', 'size'],
  kvm_device_attr: ['addr'],
  kvm_one_reg: ['addr'],
  kvm_vapic_addr: ['vapic_addr'],
  kvm_tdx_init_mem_region: ['source_addr', 'gpa', 'nr_pages']
}
