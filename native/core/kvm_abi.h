// Made by npm run generate:abi from linux-libc-dev 7.3.4-1~bpo13+1 and linux-headers-7.3.4+deb13-common 7.3.4-1~bpo13+1. Do not edit.
// Generator: sha256 63bdc1efdcbbbd16f2d3dd8d71e08978759be12a73f0a9e403baec1ca21c2395
// Below: sha256 47faf6c09921a0b371f7910d5a56c973b6692ad6c639bb47fa1ba5a8b8b0b857
// clang-format off
#pragma once

#ifdef __LINUX_KVM_H
#error "kvm_abi.h takes the place of <linux/kvm.h>"
#endif

#include <cstddef>
#include <cstdint>

struct kvm_arm_device_addr {
  uint64_t id;
  uint64_t addr;
};
static_assert(sizeof(kvm_arm_device_addr) == 16);
static_assert(offsetof(kvm_arm_device_addr, id) == 0);
static_assert(offsetof(kvm_arm_device_addr, addr) == 8);

struct kvm_clear_dirty_log {
  uint32_t slot;
  uint32_t num_pages;
  uint64_t first_page;
  union {
    void* dirty_bitmap;
    uint64_t padding2;
  };
};
static_assert(sizeof(kvm_clear_dirty_log) == 24);
static_assert(offsetof(kvm_clear_dirty_log, slot) == 0);
static_assert(offsetof(kvm_clear_dirty_log, num_pages) == 4);
static_assert(offsetof(kvm_clear_dirty_log, first_page) == 8);
static_assert(offsetof(kvm_clear_dirty_log, dirty_bitmap) == 16);
static_assert(offsetof(kvm_clear_dirty_log, padding2) == 16);

struct kvm_clock_data {
  uint64_t clock;
  uint32_t flags;
  uint32_t pad0;
  uint64_t realtime;
  uint64_t host_tsc;
  uint32_t pad[4];
};
static_assert(sizeof(kvm_clock_data) == 48);
static_assert(offsetof(kvm_clock_data, clock) == 0);
static_assert(offsetof(kvm_clock_data, flags) == 8);
static_assert(offsetof(kvm_clock_data, pad0) == 12);
static_assert(offsetof(kvm_clock_data, realtime) == 16);
static_assert(offsetof(kvm_clock_data, host_tsc) == 24);
static_assert(offsetof(kvm_clock_data, pad) == 32);

struct kvm_coalesced_mmio {
  uint64_t phys_addr;
  uint32_t len;
  union {
    uint32_t pad;
    uint32_t pio;
  };
  uint8_t data[8];
};
static_assert(sizeof(kvm_coalesced_mmio) == 24);
static_assert(offsetof(kvm_coalesced_mmio, phys_addr) == 0);
static_assert(offsetof(kvm_coalesced_mmio, len) == 8);
static_assert(offsetof(kvm_coalesced_mmio, pad) == 12);
static_assert(offsetof(kvm_coalesced_mmio, pio) == 12);
static_assert(offsetof(kvm_coalesced_mmio, data) == 16);

struct kvm_coalesced_mmio_ring {
  uint32_t first;
  uint32_t last;
  kvm_coalesced_mmio coalesced_mmio[];
};
static_assert(sizeof(kvm_coalesced_mmio_ring) == 8);
static_assert(offsetof(kvm_coalesced_mmio_ring, first) == 0);
static_assert(offsetof(kvm_coalesced_mmio_ring, last) == 4);

struct kvm_coalesced_mmio_zone {
  uint64_t addr;
  uint32_t size;
  union {
    uint32_t pad;
    uint32_t pio;
  };
};
static_assert(sizeof(kvm_coalesced_mmio_zone) == 16);
static_assert(offsetof(kvm_coalesced_mmio_zone, addr) == 0);
static_assert(offsetof(kvm_coalesced_mmio_zone, size) == 8);
static_assert(offsetof(kvm_coalesced_mmio_zone, pad) == 12);
static_assert(offsetof(kvm_coalesced_mmio_zone, pio) == 12);

struct kvm_config_tlb {
  uint64_t params;
  uint64_t array;
  uint32_t mmu_type;
  uint32_t array_len;
};
static_assert(sizeof(kvm_config_tlb) == 24);
static_assert(offsetof(kvm_config_tlb, params) == 0);
static_assert(offsetof(kvm_config_tlb, array) == 8);
static_assert(offsetof(kvm_config_tlb, mmu_type) == 16);
static_assert(offsetof(kvm_config_tlb, array_len) == 20);

struct kvm_cpuid_entry {
  uint32_t function;
  uint32_t eax;
  uint32_t ebx;
  uint32_t ecx;
  uint32_t edx;
  uint32_t padding;
};
static_assert(sizeof(kvm_cpuid_entry) == 24);
static_assert(offsetof(kvm_cpuid_entry, function) == 0);
static_assert(offsetof(kvm_cpuid_entry, eax) == 4);
static_assert(offsetof(kvm_cpuid_entry, ebx) == 8);
static_assert(offsetof(kvm_cpuid_entry, ecx) == 12);
static_assert(offsetof(kvm_cpuid_entry, edx) == 16);
static_assert(offsetof(kvm_cpuid_entry, padding) == 20);

struct kvm_cpuid {
  uint32_t nent;
  uint32_t padding;
  kvm_cpuid_entry entries[];
};
static_assert(sizeof(kvm_cpuid) == 8);
static_assert(offsetof(kvm_cpuid, nent) == 0);
static_assert(offsetof(kvm_cpuid, padding) == 4);

struct kvm_cpuid_entry2 {
  uint32_t function;
  uint32_t index;
  uint32_t flags;
  uint32_t eax;
  uint32_t ebx;
  uint32_t ecx;
  uint32_t edx;
  uint32_t padding[3];
};
static_assert(sizeof(kvm_cpuid_entry2) == 40);
static_assert(offsetof(kvm_cpuid_entry2, function) == 0);
static_assert(offsetof(kvm_cpuid_entry2, index) == 4);
static_assert(offsetof(kvm_cpuid_entry2, flags) == 8);
static_assert(offsetof(kvm_cpuid_entry2, eax) == 12);
static_assert(offsetof(kvm_cpuid_entry2, ebx) == 16);
static_assert(offsetof(kvm_cpuid_entry2, ecx) == 20);
static_assert(offsetof(kvm_cpuid_entry2, edx) == 24);
static_assert(offsetof(kvm_cpuid_entry2, padding) == 28);

struct kvm_cpuid2 {
  uint32_t nent;
  uint32_t padding;
  kvm_cpuid_entry2 entries[];
};
static_assert(sizeof(kvm_cpuid2) == 8);
static_assert(offsetof(kvm_cpuid2, nent) == 0);
static_assert(offsetof(kvm_cpuid2, padding) == 4);

struct kvm_create_device {
  uint32_t type;
  uint32_t fd;
  uint32_t flags;
};
static_assert(sizeof(kvm_create_device) == 12);
static_assert(offsetof(kvm_create_device, type) == 0);
static_assert(offsetof(kvm_create_device, fd) == 4);
static_assert(offsetof(kvm_create_device, flags) == 8);

struct kvm_create_guest_memfd {
  uint64_t size;
  uint64_t flags;
  uint64_t reserved[6];
};
static_assert(sizeof(kvm_create_guest_memfd) == 64);
static_assert(offsetof(kvm_create_guest_memfd, size) == 0);
static_assert(offsetof(kvm_create_guest_memfd, flags) == 8);
static_assert(offsetof(kvm_create_guest_memfd, reserved) == 16);

struct kvm_debug_exit_arch {
  uint32_t exception;
  uint32_t pad;
  uint64_t pc;
  uint64_t dr6;
  uint64_t dr7;
};
static_assert(sizeof(kvm_debug_exit_arch) == 32);
static_assert(offsetof(kvm_debug_exit_arch, exception) == 0);
static_assert(offsetof(kvm_debug_exit_arch, pad) == 4);
static_assert(offsetof(kvm_debug_exit_arch, pc) == 8);
static_assert(offsetof(kvm_debug_exit_arch, dr6) == 16);
static_assert(offsetof(kvm_debug_exit_arch, dr7) == 24);

struct kvm_debugregs {
  uint64_t db[4];
  uint64_t dr6;
  uint64_t dr7;
  uint64_t flags;
  uint64_t reserved[9];
};
static_assert(sizeof(kvm_debugregs) == 128);
static_assert(offsetof(kvm_debugregs, db) == 0);
static_assert(offsetof(kvm_debugregs, dr6) == 32);
static_assert(offsetof(kvm_debugregs, dr7) == 40);
static_assert(offsetof(kvm_debugregs, flags) == 48);
static_assert(offsetof(kvm_debugregs, reserved) == 56);

struct kvm_device_attr {
  uint32_t flags;
  uint32_t group;
  uint64_t attr;
  uint64_t addr;
};
static_assert(sizeof(kvm_device_attr) == 24);
static_assert(offsetof(kvm_device_attr, flags) == 0);
static_assert(offsetof(kvm_device_attr, group) == 4);
static_assert(offsetof(kvm_device_attr, attr) == 8);
static_assert(offsetof(kvm_device_attr, addr) == 16);

struct kvm_dirty_gfn {
  uint32_t flags;
  uint32_t slot;
  uint64_t offset;
};
static_assert(sizeof(kvm_dirty_gfn) == 16);
static_assert(offsetof(kvm_dirty_gfn, flags) == 0);
static_assert(offsetof(kvm_dirty_gfn, slot) == 4);
static_assert(offsetof(kvm_dirty_gfn, offset) == 8);

struct kvm_dirty_log {
  uint32_t slot;
  uint32_t padding1;
  union {
    void* dirty_bitmap;
    uint64_t padding2;
  };
};
static_assert(sizeof(kvm_dirty_log) == 16);
static_assert(offsetof(kvm_dirty_log, slot) == 0);
static_assert(offsetof(kvm_dirty_log, padding1) == 4);
static_assert(offsetof(kvm_dirty_log, dirty_bitmap) == 8);
static_assert(offsetof(kvm_dirty_log, padding2) == 8);

struct kvm_dirty_tlb {
  uint64_t bitmap;
  uint32_t num_dirty;
};
static_assert(sizeof(kvm_dirty_tlb) == 16);
static_assert(offsetof(kvm_dirty_tlb, bitmap) == 0);
static_assert(offsetof(kvm_dirty_tlb, num_dirty) == 8);

struct kvm_dtable {
  uint64_t base;
  uint16_t limit;
  uint16_t padding[3];
};
static_assert(sizeof(kvm_dtable) == 16);
static_assert(offsetof(kvm_dtable, base) == 0);
static_assert(offsetof(kvm_dtable, limit) == 8);
static_assert(offsetof(kvm_dtable, padding) == 10);

struct kvm_enable_cap {
  uint32_t cap;
  uint32_t flags;
  uint64_t args[4];
  uint8_t pad[64];
};
static_assert(sizeof(kvm_enable_cap) == 104);
static_assert(offsetof(kvm_enable_cap, cap) == 0);
static_assert(offsetof(kvm_enable_cap, flags) == 4);
static_assert(offsetof(kvm_enable_cap, args) == 8);
static_assert(offsetof(kvm_enable_cap, pad) == 40);

struct kvm_enc_region {
  uint64_t addr;
  uint64_t size;
};
static_assert(sizeof(kvm_enc_region) == 16);
static_assert(offsetof(kvm_enc_region, addr) == 0);
static_assert(offsetof(kvm_enc_region, size) == 8);

struct kvm_exit_snp_req_certs {
  uint64_t gpa;
  uint64_t npages;
  uint64_t ret;
};
static_assert(sizeof(kvm_exit_snp_req_certs) == 24);
static_assert(offsetof(kvm_exit_snp_req_certs, gpa) == 0);
static_assert(offsetof(kvm_exit_snp_req_certs, npages) == 8);
static_assert(offsetof(kvm_exit_snp_req_certs, ret) == 16);

struct kvm_fpu {
  uint8_t fpr[16][8];
  uint16_t fcw;
  uint16_t fsw;
  uint8_t ftwx;
  uint8_t pad1;
  uint16_t last_opcode;
  uint64_t last_ip;
  uint64_t last_dp;
  uint8_t xmm[16][16];
  uint32_t mxcsr;
  uint32_t pad2;
};
static_assert(sizeof(kvm_fpu) == 416);
static_assert(offsetof(kvm_fpu, fpr) == 0);
static_assert(offsetof(kvm_fpu, fcw) == 128);
static_assert(offsetof(kvm_fpu, fsw) == 130);
static_assert(offsetof(kvm_fpu, ftwx) == 132);
static_assert(offsetof(kvm_fpu, pad1) == 133);
static_assert(offsetof(kvm_fpu, last_opcode) == 134);
static_assert(offsetof(kvm_fpu, last_ip) == 136);
static_assert(offsetof(kvm_fpu, last_dp) == 144);
static_assert(offsetof(kvm_fpu, xmm) == 152);
static_assert(offsetof(kvm_fpu, mxcsr) == 408);
static_assert(offsetof(kvm_fpu, pad2) == 412);

struct kvm_guest_debug_arch {
  uint64_t debugreg[8];
};
static_assert(sizeof(kvm_guest_debug_arch) == 64);
static_assert(offsetof(kvm_guest_debug_arch, debugreg) == 0);

struct kvm_guest_debug {
  uint32_t control;
  uint32_t pad;
  kvm_guest_debug_arch arch;
};
static_assert(sizeof(kvm_guest_debug) == 72);
static_assert(offsetof(kvm_guest_debug, control) == 0);
static_assert(offsetof(kvm_guest_debug, pad) == 4);
static_assert(offsetof(kvm_guest_debug, arch) == 8);

struct kvm_hyperv_eventfd {
  uint32_t conn_id;
  int32_t fd;
  uint32_t flags;
  uint32_t padding[3];
};
static_assert(sizeof(kvm_hyperv_eventfd) == 24);
static_assert(offsetof(kvm_hyperv_eventfd, conn_id) == 0);
static_assert(offsetof(kvm_hyperv_eventfd, fd) == 4);
static_assert(offsetof(kvm_hyperv_eventfd, flags) == 8);
static_assert(offsetof(kvm_hyperv_eventfd, padding) == 12);

struct kvm_hyperv_exit {
  uint32_t type;
  uint32_t pad1;
  union {
    struct {
      uint32_t msr;
      uint32_t pad2;
      uint64_t control;
      uint64_t evt_page;
      uint64_t msg_page;
    } synic;
    struct {
      uint64_t input;
      uint64_t result;
      uint64_t params[2];
    } hcall;
    struct {
      uint32_t msr;
      uint32_t pad2;
      uint64_t control;
      uint64_t status;
      uint64_t send_page;
      uint64_t recv_page;
      uint64_t pending_page;
    } syndbg;
  } u;
};
static_assert(sizeof(kvm_hyperv_exit) == 56);
static_assert(offsetof(kvm_hyperv_exit, type) == 0);
static_assert(offsetof(kvm_hyperv_exit, pad1) == 4);
static_assert(offsetof(kvm_hyperv_exit, u) == 8);

struct kvm_interrupt {
  uint32_t irq;
};
static_assert(sizeof(kvm_interrupt) == 4);
static_assert(offsetof(kvm_interrupt, irq) == 0);

struct kvm_ioapic_state {
  uint64_t base_address;
  uint32_t ioregsel;
  uint32_t id;
  uint32_t irr;
  uint32_t pad;
  union {
    uint64_t bits;
    struct {
      uint8_t vector;
      uint8_t delivery_mode : 3;
      uint8_t dest_mode : 1;
      uint8_t delivery_status : 1;
      uint8_t polarity : 1;
      uint8_t remote_irr : 1;
      uint8_t trig_mode : 1;
      uint8_t mask : 1;
      uint8_t reserve : 7;
      uint8_t reserved[4];
      uint8_t dest_id;
    } fields;
  } redirtbl[24];
};
static_assert(sizeof(kvm_ioapic_state) == 216);
static_assert(offsetof(kvm_ioapic_state, base_address) == 0);
static_assert(offsetof(kvm_ioapic_state, ioregsel) == 8);
static_assert(offsetof(kvm_ioapic_state, id) == 12);
static_assert(offsetof(kvm_ioapic_state, irr) == 16);
static_assert(offsetof(kvm_ioapic_state, pad) == 20);
static_assert(offsetof(kvm_ioapic_state, redirtbl) == 24);

struct kvm_ioeventfd {
  uint64_t datamatch;
  uint64_t addr;
  uint32_t len;
  int32_t fd;
  uint32_t flags;
  uint8_t pad[36];
};
static_assert(sizeof(kvm_ioeventfd) == 64);
static_assert(offsetof(kvm_ioeventfd, datamatch) == 0);
static_assert(offsetof(kvm_ioeventfd, addr) == 8);
static_assert(offsetof(kvm_ioeventfd, len) == 16);
static_assert(offsetof(kvm_ioeventfd, fd) == 20);
static_assert(offsetof(kvm_ioeventfd, flags) == 24);
static_assert(offsetof(kvm_ioeventfd, pad) == 28);

struct kvm_irq_level {
  union {
    uint32_t irq;
    int32_t status;
  };
  uint32_t level;
};
static_assert(sizeof(kvm_irq_level) == 8);
static_assert(offsetof(kvm_irq_level, irq) == 0);
static_assert(offsetof(kvm_irq_level, status) == 0);
static_assert(offsetof(kvm_irq_level, level) == 4);

struct kvm_irq_routing_irqchip {
  uint32_t irqchip;
  uint32_t pin;
};
static_assert(sizeof(kvm_irq_routing_irqchip) == 8);
static_assert(offsetof(kvm_irq_routing_irqchip, irqchip) == 0);
static_assert(offsetof(kvm_irq_routing_irqchip, pin) == 4);

struct kvm_irq_routing_msi {
  uint32_t address_lo;
  uint32_t address_hi;
  uint32_t data;
  union {
    uint32_t pad;
    uint32_t devid;
  };
};
static_assert(sizeof(kvm_irq_routing_msi) == 16);
static_assert(offsetof(kvm_irq_routing_msi, address_lo) == 0);
static_assert(offsetof(kvm_irq_routing_msi, address_hi) == 4);
static_assert(offsetof(kvm_irq_routing_msi, data) == 8);
static_assert(offsetof(kvm_irq_routing_msi, pad) == 12);
static_assert(offsetof(kvm_irq_routing_msi, devid) == 12);

struct kvm_irq_routing_s390_adapter {
  uint64_t ind_addr;
  uint64_t summary_addr;
  uint64_t ind_offset;
  uint32_t summary_offset;
  uint32_t adapter_id;
};
static_assert(sizeof(kvm_irq_routing_s390_adapter) == 32);
static_assert(offsetof(kvm_irq_routing_s390_adapter, ind_addr) == 0);
static_assert(offsetof(kvm_irq_routing_s390_adapter, summary_addr) == 8);
static_assert(offsetof(kvm_irq_routing_s390_adapter, ind_offset) == 16);
static_assert(offsetof(kvm_irq_routing_s390_adapter, summary_offset) == 24);
static_assert(offsetof(kvm_irq_routing_s390_adapter, adapter_id) == 28);

struct kvm_irq_routing_hv_sint {
  uint32_t vcpu;
  uint32_t sint;
};
static_assert(sizeof(kvm_irq_routing_hv_sint) == 8);
static_assert(offsetof(kvm_irq_routing_hv_sint, vcpu) == 0);
static_assert(offsetof(kvm_irq_routing_hv_sint, sint) == 4);

struct kvm_irq_routing_xen_evtchn {
  uint32_t port;
  uint32_t vcpu;
  uint32_t priority;
};
static_assert(sizeof(kvm_irq_routing_xen_evtchn) == 12);
static_assert(offsetof(kvm_irq_routing_xen_evtchn, port) == 0);
static_assert(offsetof(kvm_irq_routing_xen_evtchn, vcpu) == 4);
static_assert(offsetof(kvm_irq_routing_xen_evtchn, priority) == 8);

struct kvm_irq_routing_entry {
  uint32_t gsi;
  uint32_t type;
  uint32_t flags;
  uint32_t pad;
  union {
    kvm_irq_routing_irqchip irqchip;
    kvm_irq_routing_msi msi;
    kvm_irq_routing_s390_adapter adapter;
    kvm_irq_routing_hv_sint hv_sint;
    kvm_irq_routing_xen_evtchn xen_evtchn;
    uint32_t pad[8];
  } u;
};
static_assert(sizeof(kvm_irq_routing_entry) == 48);
static_assert(offsetof(kvm_irq_routing_entry, gsi) == 0);
static_assert(offsetof(kvm_irq_routing_entry, type) == 4);
static_assert(offsetof(kvm_irq_routing_entry, flags) == 8);
static_assert(offsetof(kvm_irq_routing_entry, pad) == 12);
static_assert(offsetof(kvm_irq_routing_entry, u) == 16);

struct kvm_irq_routing {
  uint32_t nr;
  uint32_t flags;
  kvm_irq_routing_entry entries[];
};
static_assert(sizeof(kvm_irq_routing) == 8);
static_assert(offsetof(kvm_irq_routing, nr) == 0);
static_assert(offsetof(kvm_irq_routing, flags) == 4);

struct kvm_pic_state {
  uint8_t last_irr;
  uint8_t irr;
  uint8_t imr;
  uint8_t isr;
  uint8_t priority_add;
  uint8_t irq_base;
  uint8_t read_reg_select;
  uint8_t poll;
  uint8_t special_mask;
  uint8_t init_state;
  uint8_t auto_eoi;
  uint8_t rotate_on_auto_eoi;
  uint8_t special_fully_nested_mode;
  uint8_t init4;
  uint8_t elcr;
  uint8_t elcr_mask;
};
static_assert(sizeof(kvm_pic_state) == 16);
static_assert(offsetof(kvm_pic_state, last_irr) == 0);
static_assert(offsetof(kvm_pic_state, irr) == 1);
static_assert(offsetof(kvm_pic_state, imr) == 2);
static_assert(offsetof(kvm_pic_state, isr) == 3);
static_assert(offsetof(kvm_pic_state, priority_add) == 4);
static_assert(offsetof(kvm_pic_state, irq_base) == 5);
static_assert(offsetof(kvm_pic_state, read_reg_select) == 6);
static_assert(offsetof(kvm_pic_state, poll) == 7);
static_assert(offsetof(kvm_pic_state, special_mask) == 8);
static_assert(offsetof(kvm_pic_state, init_state) == 9);
static_assert(offsetof(kvm_pic_state, auto_eoi) == 10);
static_assert(offsetof(kvm_pic_state, rotate_on_auto_eoi) == 11);
static_assert(offsetof(kvm_pic_state, special_fully_nested_mode) == 12);
static_assert(offsetof(kvm_pic_state, init4) == 13);
static_assert(offsetof(kvm_pic_state, elcr) == 14);
static_assert(offsetof(kvm_pic_state, elcr_mask) == 15);

struct kvm_irqchip {
  uint32_t chip_id;
  uint32_t pad;
  union {
    uint8_t dummy[512];
    kvm_pic_state pic;
    kvm_ioapic_state ioapic;
  } chip;
};
static_assert(sizeof(kvm_irqchip) == 520);
static_assert(offsetof(kvm_irqchip, chip_id) == 0);
static_assert(offsetof(kvm_irqchip, pad) == 4);
static_assert(offsetof(kvm_irqchip, chip) == 8);

struct kvm_irqfd {
  uint32_t fd;
  uint32_t gsi;
  uint32_t flags;
  uint32_t resamplefd;
  uint8_t pad[16];
};
static_assert(sizeof(kvm_irqfd) == 32);
static_assert(offsetof(kvm_irqfd, fd) == 0);
static_assert(offsetof(kvm_irqfd, gsi) == 4);
static_assert(offsetof(kvm_irqfd, flags) == 8);
static_assert(offsetof(kvm_irqfd, resamplefd) == 12);
static_assert(offsetof(kvm_irqfd, pad) == 16);

struct kvm_lapic_state {
  uint8_t regs[1024];
};
static_assert(sizeof(kvm_lapic_state) == 1024);
static_assert(offsetof(kvm_lapic_state, regs) == 0);

struct kvm_memory_attributes {
  uint64_t address;
  uint64_t size;
  uint64_t attributes;
  uint64_t flags;
};
static_assert(sizeof(kvm_memory_attributes) == 32);
static_assert(offsetof(kvm_memory_attributes, address) == 0);
static_assert(offsetof(kvm_memory_attributes, size) == 8);
static_assert(offsetof(kvm_memory_attributes, attributes) == 16);
static_assert(offsetof(kvm_memory_attributes, flags) == 24);

struct kvm_mp_state {
  uint32_t mp_state;
};
static_assert(sizeof(kvm_mp_state) == 4);
static_assert(offsetof(kvm_mp_state, mp_state) == 0);

struct kvm_msi {
  uint32_t address_lo;
  uint32_t address_hi;
  uint32_t data;
  uint32_t flags;
  uint32_t devid;
  uint8_t pad[12];
};
static_assert(sizeof(kvm_msi) == 32);
static_assert(offsetof(kvm_msi, address_lo) == 0);
static_assert(offsetof(kvm_msi, address_hi) == 4);
static_assert(offsetof(kvm_msi, data) == 8);
static_assert(offsetof(kvm_msi, flags) == 12);
static_assert(offsetof(kvm_msi, devid) == 16);
static_assert(offsetof(kvm_msi, pad) == 20);

struct kvm_msr_entry {
  uint32_t index;
  uint32_t reserved;
  uint64_t data;
};
static_assert(sizeof(kvm_msr_entry) == 16);
static_assert(offsetof(kvm_msr_entry, index) == 0);
static_assert(offsetof(kvm_msr_entry, reserved) == 4);
static_assert(offsetof(kvm_msr_entry, data) == 8);

struct kvm_msr_filter_range {
  uint32_t flags;
  uint32_t nmsrs;
  uint32_t base;
  void* bitmap;
};
static_assert(sizeof(kvm_msr_filter_range) == 24);
static_assert(offsetof(kvm_msr_filter_range, flags) == 0);
static_assert(offsetof(kvm_msr_filter_range, nmsrs) == 4);
static_assert(offsetof(kvm_msr_filter_range, base) == 8);
static_assert(offsetof(kvm_msr_filter_range, bitmap) == 16);

struct kvm_msr_filter {
  uint32_t flags;
  kvm_msr_filter_range ranges[16];
};
static_assert(sizeof(kvm_msr_filter) == 392);
static_assert(offsetof(kvm_msr_filter, flags) == 0);
static_assert(offsetof(kvm_msr_filter, ranges) == 8);

struct kvm_msr_list {
  uint32_t nmsrs;
  uint32_t indices[];
};
static_assert(sizeof(kvm_msr_list) == 4);
static_assert(offsetof(kvm_msr_list, nmsrs) == 0);

struct kvm_msrs {
  uint32_t nmsrs;
  uint32_t pad;
  kvm_msr_entry entries[];
};
static_assert(sizeof(kvm_msrs) == 8);
static_assert(offsetof(kvm_msrs, nmsrs) == 0);
static_assert(offsetof(kvm_msrs, pad) == 4);

struct kvm_vmx_nested_state_hdr {
  uint64_t vmxon_pa;
  uint64_t vmcs12_pa;
  struct {
    uint16_t flags;
  } smm;
  uint16_t pad;
  uint32_t flags;
  uint64_t preemption_timer_deadline;
};
static_assert(sizeof(kvm_vmx_nested_state_hdr) == 32);
static_assert(offsetof(kvm_vmx_nested_state_hdr, vmxon_pa) == 0);
static_assert(offsetof(kvm_vmx_nested_state_hdr, vmcs12_pa) == 8);
static_assert(offsetof(kvm_vmx_nested_state_hdr, smm) == 16);
static_assert(offsetof(kvm_vmx_nested_state_hdr, pad) == 18);
static_assert(offsetof(kvm_vmx_nested_state_hdr, flags) == 20);
static_assert(offsetof(kvm_vmx_nested_state_hdr, preemption_timer_deadline) == 24);

struct kvm_svm_nested_state_hdr {
  uint64_t vmcb_pa;
  uint64_t gpat;
};
static_assert(sizeof(kvm_svm_nested_state_hdr) == 16);
static_assert(offsetof(kvm_svm_nested_state_hdr, vmcb_pa) == 0);
static_assert(offsetof(kvm_svm_nested_state_hdr, gpat) == 8);

struct kvm_vmx_nested_state_data {
  uint8_t vmcs12[4096];
  uint8_t shadow_vmcs12[4096];
};
static_assert(sizeof(kvm_vmx_nested_state_data) == 8192);
static_assert(offsetof(kvm_vmx_nested_state_data, vmcs12) == 0);
static_assert(offsetof(kvm_vmx_nested_state_data, shadow_vmcs12) == 4096);

struct kvm_svm_nested_state_data {
  uint8_t vmcb12[4096];
};
static_assert(sizeof(kvm_svm_nested_state_data) == 4096);
static_assert(offsetof(kvm_svm_nested_state_data, vmcb12) == 0);

struct kvm_nested_state {
  uint16_t flags;
  uint16_t format;
  uint32_t size;
  union {
    kvm_vmx_nested_state_hdr vmx;
    kvm_svm_nested_state_hdr svm;
    uint8_t pad[120];
  } hdr;
};
static_assert(sizeof(kvm_nested_state) == 128);
static_assert(offsetof(kvm_nested_state, flags) == 0);
static_assert(offsetof(kvm_nested_state, format) == 2);
static_assert(offsetof(kvm_nested_state, size) == 4);
static_assert(offsetof(kvm_nested_state, hdr) == 8);

struct kvm_one_reg {
  uint64_t id;
  uint64_t addr;
};
static_assert(sizeof(kvm_one_reg) == 16);
static_assert(offsetof(kvm_one_reg, id) == 0);
static_assert(offsetof(kvm_one_reg, addr) == 8);

struct kvm_pit_channel_state {
  uint32_t count;
  uint16_t latched_count;
  uint8_t count_latched;
  uint8_t status_latched;
  uint8_t status;
  uint8_t read_state;
  uint8_t write_state;
  uint8_t write_latch;
  uint8_t rw_mode;
  uint8_t mode;
  uint8_t bcd;
  uint8_t gate;
  int64_t count_load_time;
};
static_assert(sizeof(kvm_pit_channel_state) == 24);
static_assert(offsetof(kvm_pit_channel_state, count) == 0);
static_assert(offsetof(kvm_pit_channel_state, latched_count) == 4);
static_assert(offsetof(kvm_pit_channel_state, count_latched) == 6);
static_assert(offsetof(kvm_pit_channel_state, status_latched) == 7);
static_assert(offsetof(kvm_pit_channel_state, status) == 8);
static_assert(offsetof(kvm_pit_channel_state, read_state) == 9);
static_assert(offsetof(kvm_pit_channel_state, write_state) == 10);
static_assert(offsetof(kvm_pit_channel_state, write_latch) == 11);
static_assert(offsetof(kvm_pit_channel_state, rw_mode) == 12);
static_assert(offsetof(kvm_pit_channel_state, mode) == 13);
static_assert(offsetof(kvm_pit_channel_state, bcd) == 14);
static_assert(offsetof(kvm_pit_channel_state, gate) == 15);
static_assert(offsetof(kvm_pit_channel_state, count_load_time) == 16);

struct kvm_pit_config {
  uint32_t flags;
  uint32_t pad[15];
};
static_assert(sizeof(kvm_pit_config) == 64);
static_assert(offsetof(kvm_pit_config, flags) == 0);
static_assert(offsetof(kvm_pit_config, pad) == 4);

struct kvm_pit_state {
  kvm_pit_channel_state channels[3];
};
static_assert(sizeof(kvm_pit_state) == 72);
static_assert(offsetof(kvm_pit_state, channels) == 0);

struct kvm_pit_state2 {
  kvm_pit_channel_state channels[3];
  uint32_t flags;
  uint32_t reserved[9];
};
static_assert(sizeof(kvm_pit_state2) == 112);
static_assert(offsetof(kvm_pit_state2, channels) == 0);
static_assert(offsetof(kvm_pit_state2, flags) == 72);
static_assert(offsetof(kvm_pit_state2, reserved) == 76);

struct kvm_pmu_event_filter {
  uint32_t action;
  uint32_t nevents;
  uint32_t fixed_counter_bitmap;
  uint32_t flags;
  uint32_t pad[4];
  uint64_t events[];
};
static_assert(sizeof(kvm_pmu_event_filter) == 32);
static_assert(offsetof(kvm_pmu_event_filter, action) == 0);
static_assert(offsetof(kvm_pmu_event_filter, nevents) == 4);
static_assert(offsetof(kvm_pmu_event_filter, fixed_counter_bitmap) == 8);
static_assert(offsetof(kvm_pmu_event_filter, flags) == 12);
static_assert(offsetof(kvm_pmu_event_filter, pad) == 16);

struct kvm_pre_fault_memory {
  uint64_t gpa;
  uint64_t size;
  uint64_t flags;
  uint64_t padding[5];
};
static_assert(sizeof(kvm_pre_fault_memory) == 64);
static_assert(offsetof(kvm_pre_fault_memory, gpa) == 0);
static_assert(offsetof(kvm_pre_fault_memory, size) == 8);
static_assert(offsetof(kvm_pre_fault_memory, flags) == 16);
static_assert(offsetof(kvm_pre_fault_memory, padding) == 24);

struct kvm_reg_list {
  uint64_t n;
  uint64_t reg[];
};
static_assert(sizeof(kvm_reg_list) == 8);
static_assert(offsetof(kvm_reg_list, n) == 0);

struct kvm_regs {
  uint64_t rax;
  uint64_t rbx;
  uint64_t rcx;
  uint64_t rdx;
  uint64_t rsi;
  uint64_t rdi;
  uint64_t rsp;
  uint64_t rbp;
  uint64_t r8;
  uint64_t r9;
  uint64_t r10;
  uint64_t r11;
  uint64_t r12;
  uint64_t r13;
  uint64_t r14;
  uint64_t r15;
  uint64_t rip;
  uint64_t rflags;
};
static_assert(sizeof(kvm_regs) == 144);
static_assert(offsetof(kvm_regs, rax) == 0);
static_assert(offsetof(kvm_regs, rbx) == 8);
static_assert(offsetof(kvm_regs, rcx) == 16);
static_assert(offsetof(kvm_regs, rdx) == 24);
static_assert(offsetof(kvm_regs, rsi) == 32);
static_assert(offsetof(kvm_regs, rdi) == 40);
static_assert(offsetof(kvm_regs, rsp) == 48);
static_assert(offsetof(kvm_regs, rbp) == 56);
static_assert(offsetof(kvm_regs, r8) == 64);
static_assert(offsetof(kvm_regs, r9) == 72);
static_assert(offsetof(kvm_regs, r10) == 80);
static_assert(offsetof(kvm_regs, r11) == 88);
static_assert(offsetof(kvm_regs, r12) == 96);
static_assert(offsetof(kvm_regs, r13) == 104);
static_assert(offsetof(kvm_regs, r14) == 112);
static_assert(offsetof(kvm_regs, r15) == 120);
static_assert(offsetof(kvm_regs, rip) == 128);
static_assert(offsetof(kvm_regs, rflags) == 136);

struct kvm_reinject_control {
  uint8_t pit_reinject;
  uint8_t reserved[31];
};
static_assert(sizeof(kvm_reinject_control) == 32);
static_assert(offsetof(kvm_reinject_control, pit_reinject) == 0);
static_assert(offsetof(kvm_reinject_control, reserved) == 1);

struct kvm_xen_exit {
  uint32_t type;
  union {
    struct {
      uint32_t longmode;
      uint32_t cpl;
      uint64_t input;
      uint64_t result;
      uint64_t params[6];
    } hcall;
  } u;
};
static_assert(sizeof(kvm_xen_exit) == 80);
static_assert(offsetof(kvm_xen_exit, type) == 0);
static_assert(offsetof(kvm_xen_exit, u) == 8);

struct kvm_segment {
  uint64_t base;
  uint32_t limit;
  uint16_t selector;
  uint8_t type;
  uint8_t present;
  uint8_t dpl;
  uint8_t db;
  uint8_t s;
  uint8_t l;
  uint8_t g;
  uint8_t avl;
  uint8_t unusable;
  uint8_t padding;
};
static_assert(sizeof(kvm_segment) == 24);
static_assert(offsetof(kvm_segment, base) == 0);
static_assert(offsetof(kvm_segment, limit) == 8);
static_assert(offsetof(kvm_segment, selector) == 12);
static_assert(offsetof(kvm_segment, type) == 14);
static_assert(offsetof(kvm_segment, present) == 15);
static_assert(offsetof(kvm_segment, dpl) == 16);
static_assert(offsetof(kvm_segment, db) == 17);
static_assert(offsetof(kvm_segment, s) == 18);
static_assert(offsetof(kvm_segment, l) == 19);
static_assert(offsetof(kvm_segment, g) == 20);
static_assert(offsetof(kvm_segment, avl) == 21);
static_assert(offsetof(kvm_segment, unusable) == 22);
static_assert(offsetof(kvm_segment, padding) == 23);

struct kvm_sregs {
  kvm_segment cs;
  kvm_segment ds;
  kvm_segment es;
  kvm_segment fs;
  kvm_segment gs;
  kvm_segment ss;
  kvm_segment tr;
  kvm_segment ldt;
  kvm_dtable gdt;
  kvm_dtable idt;
  uint64_t cr0;
  uint64_t cr2;
  uint64_t cr3;
  uint64_t cr4;
  uint64_t cr8;
  uint64_t efer;
  uint64_t apic_base;
  uint64_t interrupt_bitmap[4];
};
static_assert(sizeof(kvm_sregs) == 312);
static_assert(offsetof(kvm_sregs, cs) == 0);
static_assert(offsetof(kvm_sregs, ds) == 24);
static_assert(offsetof(kvm_sregs, es) == 48);
static_assert(offsetof(kvm_sregs, fs) == 72);
static_assert(offsetof(kvm_sregs, gs) == 96);
static_assert(offsetof(kvm_sregs, ss) == 120);
static_assert(offsetof(kvm_sregs, tr) == 144);
static_assert(offsetof(kvm_sregs, ldt) == 168);
static_assert(offsetof(kvm_sregs, gdt) == 192);
static_assert(offsetof(kvm_sregs, idt) == 208);
static_assert(offsetof(kvm_sregs, cr0) == 224);
static_assert(offsetof(kvm_sregs, cr2) == 232);
static_assert(offsetof(kvm_sregs, cr3) == 240);
static_assert(offsetof(kvm_sregs, cr4) == 248);
static_assert(offsetof(kvm_sregs, cr8) == 256);
static_assert(offsetof(kvm_sregs, efer) == 264);
static_assert(offsetof(kvm_sregs, apic_base) == 272);
static_assert(offsetof(kvm_sregs, interrupt_bitmap) == 280);

struct kvm_vcpu_events {
  struct {
    uint8_t injected;
    uint8_t nr;
    uint8_t has_error_code;
    uint8_t pending;
    uint32_t error_code;
  } exception;
  struct {
    uint8_t injected;
    uint8_t nr;
    uint8_t soft;
    uint8_t shadow;
  } interrupt;
  struct {
    uint8_t injected;
    uint8_t pending;
    uint8_t masked;
    uint8_t pad;
  } nmi;
  uint32_t sipi_vector;
  uint32_t flags;
  struct {
    uint8_t smm;
    uint8_t pending;
    uint8_t smm_inside_nmi;
    uint8_t latched_init;
  } smi;
  struct {
    uint8_t pending;
  } triple_fault;
  uint8_t reserved[26];
  uint8_t exception_has_payload;
  uint64_t exception_payload;
};
static_assert(sizeof(kvm_vcpu_events) == 64);
static_assert(offsetof(kvm_vcpu_events, exception) == 0);
static_assert(offsetof(kvm_vcpu_events, interrupt) == 8);
static_assert(offsetof(kvm_vcpu_events, nmi) == 12);
static_assert(offsetof(kvm_vcpu_events, sipi_vector) == 16);
static_assert(offsetof(kvm_vcpu_events, flags) == 20);
static_assert(offsetof(kvm_vcpu_events, smi) == 24);
static_assert(offsetof(kvm_vcpu_events, triple_fault) == 28);
static_assert(offsetof(kvm_vcpu_events, reserved) == 29);
static_assert(offsetof(kvm_vcpu_events, exception_has_payload) == 55);
static_assert(offsetof(kvm_vcpu_events, exception_payload) == 56);

struct kvm_sync_regs {
  kvm_regs regs;
  kvm_sregs sregs;
  kvm_vcpu_events events;
};
static_assert(sizeof(kvm_sync_regs) == 520);
static_assert(offsetof(kvm_sync_regs, regs) == 0);
static_assert(offsetof(kvm_sync_regs, sregs) == 144);
static_assert(offsetof(kvm_sync_regs, events) == 456);

struct kvm_run {
  uint8_t request_interrupt_window;
  uint8_t immediate_exit;
  uint8_t padding1[6];
  uint32_t exit_reason;
  uint8_t ready_for_interrupt_injection;
  uint8_t if_flag;
  uint16_t flags;
  uint64_t cr8;
  uint64_t apic_base;
  union {
    struct {
      uint64_t hardware_exit_reason;
    } hw;
    struct {
      uint64_t hardware_entry_failure_reason;
      uint32_t cpu;
    } fail_entry;
    struct {
      uint32_t exception;
      uint32_t error_code;
    } ex;
    struct {
      uint8_t direction;
      uint8_t size;
      uint16_t port;
      uint32_t count;
      uint64_t data_offset;
    } io;
    struct {
      kvm_debug_exit_arch arch;
    } debug;
    struct {
      uint64_t phys_addr;
      uint8_t data[8];
      uint32_t len;
      uint8_t is_write;
    } mmio;
    struct {
      uint64_t phys_addr;
      uint8_t data[8];
      uint32_t len;
      uint8_t is_write;
    } iocsr_io;
    struct {
      uint64_t nr;
      uint64_t args[6];
      uint64_t ret;
      union {
        uint32_t longmode;
        uint64_t flags;
      };
    } hypercall;
    struct {
      uint64_t rip;
      uint32_t is_write;
      uint32_t pad;
    } tpr_access;
    struct {
      uint8_t icptcode;
      uint16_t ipa;
      uint32_t ipb;
    } s390_sieic;
    uint64_t s390_reset_flags;
    struct {
      uint64_t trans_exc_code;
      uint32_t pgm_code;
    } s390_ucontrol;
    struct {
      uint32_t dcrn;
      uint32_t data;
      uint8_t is_write;
    } dcr;
    struct {
      uint32_t suberror;
      uint32_t ndata;
      uint64_t data[16];
    } internal;
    struct {
      uint32_t suberror;
      uint32_t ndata;
      uint64_t flags;
      union {
        struct {
          uint8_t insn_size;
          uint8_t insn_bytes[15];
        };
      };
    } emulation_failure;
    struct {
      uint64_t gprs[32];
    } osi;
    struct {
      uint64_t nr;
      uint64_t ret;
      uint64_t args[9];
    } papr_hcall;
    struct {
      uint16_t subchannel_id;
      uint16_t subchannel_nr;
      uint32_t io_int_parm;
      uint32_t io_int_word;
      uint32_t ipb;
      uint8_t dequeued;
    } s390_tsch;
    struct {
      uint32_t epr;
    } epr;
    struct {
      uint32_t type;
      uint32_t ndata;
      union {
        uint64_t flags;
        uint64_t data[16];
      };
    } system_event;
    struct {
      uint64_t addr;
      uint8_t ar;
      uint8_t reserved;
      uint8_t fc;
      uint8_t sel1;
      uint16_t sel2;
    } s390_stsi;
    struct {
      uint8_t vector;
    } eoi;
    kvm_hyperv_exit hyperv;
    struct {
      uint64_t esr_iss;
      uint64_t fault_ipa;
    } arm_nisv;
    struct {
      uint8_t error;
      uint8_t pad[7];
      uint32_t reason;
      uint32_t index;
      uint64_t data;
    } msr;
    kvm_xen_exit xen;
    struct {
      uint64_t extension_id;
      uint64_t function_id;
      uint64_t args[6];
      uint64_t ret[2];
    } riscv_sbi;
    struct {
      uint64_t csr_num;
      uint64_t new_value;
      uint64_t write_mask;
      uint64_t ret_value;
    } riscv_csr;
    struct {
      uint32_t flags;
    } notify;
    struct {
      uint64_t flags;
      uint64_t gpa;
      uint64_t size;
    } memory_fault;
    struct {
      uint64_t flags;
      uint64_t nr;
      union {
        struct {
          uint64_t ret;
          uint64_t data[5];
        } unknown;
        struct {
          uint64_t ret;
          uint64_t gpa;
          uint64_t size;
        } get_quote;
        struct {
          uint64_t ret;
          uint64_t leaf;
          uint64_t r11;
          uint64_t r12;
          uint64_t r13;
          uint64_t r14;
        } get_tdvmcall_info;
        struct {
          uint64_t ret;
          uint64_t vector;
        } setup_event_notify;
      };
    } tdx;
    struct {
      uint64_t flags;
      uint64_t esr;
      uint64_t gva;
      uint64_t gpa;
    } arm_sea;
    kvm_exit_snp_req_certs snp_req_certs;
    uint8_t padding[256];
  };
  uint64_t kvm_valid_regs;
  uint64_t kvm_dirty_regs;
  union {
    kvm_sync_regs regs;
    uint8_t padding[2048];
  } s;
};
static_assert(sizeof(kvm_run) == 2352);
static_assert(offsetof(kvm_run, request_interrupt_window) == 0);
static_assert(offsetof(kvm_run, immediate_exit) == 1);
static_assert(offsetof(kvm_run, padding1) == 2);
static_assert(offsetof(kvm_run, exit_reason) == 8);
static_assert(offsetof(kvm_run, ready_for_interrupt_injection) == 12);
static_assert(offsetof(kvm_run, if_flag) == 13);
static_assert(offsetof(kvm_run, flags) == 14);
static_assert(offsetof(kvm_run, cr8) == 16);
static_assert(offsetof(kvm_run, apic_base) == 24);
static_assert(offsetof(kvm_run, hw) == 32);
static_assert(offsetof(kvm_run, fail_entry) == 32);
static_assert(offsetof(kvm_run, ex) == 32);
static_assert(offsetof(kvm_run, io) == 32);
static_assert(offsetof(kvm_run, debug) == 32);
static_assert(offsetof(kvm_run, mmio) == 32);
static_assert(offsetof(kvm_run, iocsr_io) == 32);
static_assert(offsetof(kvm_run, hypercall) == 32);
static_assert(offsetof(kvm_run, tpr_access) == 32);
static_assert(offsetof(kvm_run, s390_sieic) == 32);
static_assert(offsetof(kvm_run, s390_reset_flags) == 32);
static_assert(offsetof(kvm_run, s390_ucontrol) == 32);
static_assert(offsetof(kvm_run, dcr) == 32);
static_assert(offsetof(kvm_run, internal) == 32);
static_assert(offsetof(kvm_run, emulation_failure) == 32);
static_assert(offsetof(kvm_run, osi) == 32);
static_assert(offsetof(kvm_run, papr_hcall) == 32);
static_assert(offsetof(kvm_run, s390_tsch) == 32);
static_assert(offsetof(kvm_run, epr) == 32);
static_assert(offsetof(kvm_run, system_event) == 32);
static_assert(offsetof(kvm_run, s390_stsi) == 32);
static_assert(offsetof(kvm_run, eoi) == 32);
static_assert(offsetof(kvm_run, hyperv) == 32);
static_assert(offsetof(kvm_run, arm_nisv) == 32);
static_assert(offsetof(kvm_run, msr) == 32);
static_assert(offsetof(kvm_run, xen) == 32);
static_assert(offsetof(kvm_run, riscv_sbi) == 32);
static_assert(offsetof(kvm_run, riscv_csr) == 32);
static_assert(offsetof(kvm_run, notify) == 32);
static_assert(offsetof(kvm_run, memory_fault) == 32);
static_assert(offsetof(kvm_run, tdx) == 32);
static_assert(offsetof(kvm_run, arm_sea) == 32);
static_assert(offsetof(kvm_run, snp_req_certs) == 32);
static_assert(offsetof(kvm_run, padding) == 32);
static_assert(offsetof(kvm_run, kvm_valid_regs) == 288);
static_assert(offsetof(kvm_run, kvm_dirty_regs) == 296);
static_assert(offsetof(kvm_run, s) == 304);

struct kvm_s390_keyop {
  uint64_t guest_addr;
  uint8_t key;
  uint8_t operation;
  uint8_t pad[6];
};
static_assert(sizeof(kvm_s390_keyop) == 16);
static_assert(offsetof(kvm_s390_keyop, guest_addr) == 0);
static_assert(offsetof(kvm_s390_keyop, key) == 8);
static_assert(offsetof(kvm_s390_keyop, operation) == 9);
static_assert(offsetof(kvm_s390_keyop, pad) == 10);

struct kvm_sev_attestation_report {
  uint8_t mnonce[16];
  uint64_t uaddr;
  uint32_t len;
  uint32_t pad0;
};
static_assert(sizeof(kvm_sev_attestation_report) == 32);
static_assert(offsetof(kvm_sev_attestation_report, mnonce) == 0);
static_assert(offsetof(kvm_sev_attestation_report, uaddr) == 16);
static_assert(offsetof(kvm_sev_attestation_report, len) == 24);
static_assert(offsetof(kvm_sev_attestation_report, pad0) == 28);

struct kvm_sev_cmd {
  uint32_t id;
  uint32_t pad0;
  uint64_t data;
  uint32_t error;
  uint32_t sev_fd;
};
static_assert(sizeof(kvm_sev_cmd) == 24);
static_assert(offsetof(kvm_sev_cmd, id) == 0);
static_assert(offsetof(kvm_sev_cmd, pad0) == 4);
static_assert(offsetof(kvm_sev_cmd, data) == 8);
static_assert(offsetof(kvm_sev_cmd, error) == 16);
static_assert(offsetof(kvm_sev_cmd, sev_fd) == 20);

struct kvm_sev_dbg {
  uint64_t src_uaddr;
  uint64_t dst_uaddr;
  uint32_t len;
  uint32_t pad0;
};
static_assert(sizeof(kvm_sev_dbg) == 24);
static_assert(offsetof(kvm_sev_dbg, src_uaddr) == 0);
static_assert(offsetof(kvm_sev_dbg, dst_uaddr) == 8);
static_assert(offsetof(kvm_sev_dbg, len) == 16);
static_assert(offsetof(kvm_sev_dbg, pad0) == 20);

struct kvm_sev_guest_status {
  uint32_t handle;
  uint32_t policy;
  uint32_t state;
};
static_assert(sizeof(kvm_sev_guest_status) == 12);
static_assert(offsetof(kvm_sev_guest_status, handle) == 0);
static_assert(offsetof(kvm_sev_guest_status, policy) == 4);
static_assert(offsetof(kvm_sev_guest_status, state) == 8);

struct kvm_sev_init {
  uint64_t vmsa_features;
  uint32_t flags;
  uint16_t ghcb_version;
  uint16_t pad1;
  uint32_t pad2[8];
};
static_assert(sizeof(kvm_sev_init) == 48);
static_assert(offsetof(kvm_sev_init, vmsa_features) == 0);
static_assert(offsetof(kvm_sev_init, flags) == 8);
static_assert(offsetof(kvm_sev_init, ghcb_version) == 12);
static_assert(offsetof(kvm_sev_init, pad1) == 14);
static_assert(offsetof(kvm_sev_init, pad2) == 16);

struct kvm_sev_launch_measure {
  uint64_t uaddr;
  uint32_t len;
  uint32_t pad0;
};
static_assert(sizeof(kvm_sev_launch_measure) == 16);
static_assert(offsetof(kvm_sev_launch_measure, uaddr) == 0);
static_assert(offsetof(kvm_sev_launch_measure, len) == 8);
static_assert(offsetof(kvm_sev_launch_measure, pad0) == 12);

struct kvm_sev_launch_secret {
  uint64_t hdr_uaddr;
  uint32_t hdr_len;
  uint32_t pad0;
  uint64_t guest_uaddr;
  uint32_t guest_len;
  uint32_t pad1;
  uint64_t trans_uaddr;
  uint32_t trans_len;
  uint32_t pad2;
};
static_assert(sizeof(kvm_sev_launch_secret) == 48);
static_assert(offsetof(kvm_sev_launch_secret, hdr_uaddr) == 0);
static_assert(offsetof(kvm_sev_launch_secret, hdr_len) == 8);
static_assert(offsetof(kvm_sev_launch_secret, pad0) == 12);
static_assert(offsetof(kvm_sev_launch_secret, guest_uaddr) == 16);
static_assert(offsetof(kvm_sev_launch_secret, guest_len) == 24);
static_assert(offsetof(kvm_sev_launch_secret, pad1) == 28);
static_assert(offsetof(kvm_sev_launch_secret, trans_uaddr) == 32);
static_assert(offsetof(kvm_sev_launch_secret, trans_len) == 40);
static_assert(offsetof(kvm_sev_launch_secret, pad2) == 44);

struct kvm_sev_launch_start {
  uint32_t handle;
  uint32_t policy;
  uint64_t dh_uaddr;
  uint32_t dh_len;
  uint32_t pad0;
  uint64_t session_uaddr;
  uint32_t session_len;
  uint32_t pad1;
};
static_assert(sizeof(kvm_sev_launch_start) == 40);
static_assert(offsetof(kvm_sev_launch_start, handle) == 0);
static_assert(offsetof(kvm_sev_launch_start, policy) == 4);
static_assert(offsetof(kvm_sev_launch_start, dh_uaddr) == 8);
static_assert(offsetof(kvm_sev_launch_start, dh_len) == 16);
static_assert(offsetof(kvm_sev_launch_start, pad0) == 20);
static_assert(offsetof(kvm_sev_launch_start, session_uaddr) == 24);
static_assert(offsetof(kvm_sev_launch_start, session_len) == 32);
static_assert(offsetof(kvm_sev_launch_start, pad1) == 36);

struct kvm_sev_launch_update_data {
  uint64_t uaddr;
  uint32_t len;
  uint32_t pad0;
};
static_assert(sizeof(kvm_sev_launch_update_data) == 16);
static_assert(offsetof(kvm_sev_launch_update_data, uaddr) == 0);
static_assert(offsetof(kvm_sev_launch_update_data, len) == 8);
static_assert(offsetof(kvm_sev_launch_update_data, pad0) == 12);

struct kvm_sev_receive_start {
  uint32_t handle;
  uint32_t policy;
  uint64_t pdh_uaddr;
  uint32_t pdh_len;
  uint32_t pad0;
  uint64_t session_uaddr;
  uint32_t session_len;
  uint32_t pad1;
};
static_assert(sizeof(kvm_sev_receive_start) == 40);
static_assert(offsetof(kvm_sev_receive_start, handle) == 0);
static_assert(offsetof(kvm_sev_receive_start, policy) == 4);
static_assert(offsetof(kvm_sev_receive_start, pdh_uaddr) == 8);
static_assert(offsetof(kvm_sev_receive_start, pdh_len) == 16);
static_assert(offsetof(kvm_sev_receive_start, pad0) == 20);
static_assert(offsetof(kvm_sev_receive_start, session_uaddr) == 24);
static_assert(offsetof(kvm_sev_receive_start, session_len) == 32);
static_assert(offsetof(kvm_sev_receive_start, pad1) == 36);

struct kvm_sev_receive_update_data {
  uint64_t hdr_uaddr;
  uint32_t hdr_len;
  uint32_t pad0;
  uint64_t guest_uaddr;
  uint32_t guest_len;
  uint32_t pad1;
  uint64_t trans_uaddr;
  uint32_t trans_len;
  uint32_t pad2;
};
static_assert(sizeof(kvm_sev_receive_update_data) == 48);
static_assert(offsetof(kvm_sev_receive_update_data, hdr_uaddr) == 0);
static_assert(offsetof(kvm_sev_receive_update_data, hdr_len) == 8);
static_assert(offsetof(kvm_sev_receive_update_data, pad0) == 12);
static_assert(offsetof(kvm_sev_receive_update_data, guest_uaddr) == 16);
static_assert(offsetof(kvm_sev_receive_update_data, guest_len) == 24);
static_assert(offsetof(kvm_sev_receive_update_data, pad1) == 28);
static_assert(offsetof(kvm_sev_receive_update_data, trans_uaddr) == 32);
static_assert(offsetof(kvm_sev_receive_update_data, trans_len) == 40);
static_assert(offsetof(kvm_sev_receive_update_data, pad2) == 44);

struct kvm_sev_send_start {
  uint32_t policy;
  uint32_t pad0;
  uint64_t pdh_cert_uaddr;
  uint32_t pdh_cert_len;
  uint32_t pad1;
  uint64_t plat_certs_uaddr;
  uint32_t plat_certs_len;
  uint32_t pad2;
  uint64_t amd_certs_uaddr;
  uint32_t amd_certs_len;
  uint32_t pad3;
  uint64_t session_uaddr;
  uint32_t session_len;
  uint32_t pad4;
};
static_assert(sizeof(kvm_sev_send_start) == 72);
static_assert(offsetof(kvm_sev_send_start, policy) == 0);
static_assert(offsetof(kvm_sev_send_start, pad0) == 4);
static_assert(offsetof(kvm_sev_send_start, pdh_cert_uaddr) == 8);
static_assert(offsetof(kvm_sev_send_start, pdh_cert_len) == 16);
static_assert(offsetof(kvm_sev_send_start, pad1) == 20);
static_assert(offsetof(kvm_sev_send_start, plat_certs_uaddr) == 24);
static_assert(offsetof(kvm_sev_send_start, plat_certs_len) == 32);
static_assert(offsetof(kvm_sev_send_start, pad2) == 36);
static_assert(offsetof(kvm_sev_send_start, amd_certs_uaddr) == 40);
static_assert(offsetof(kvm_sev_send_start, amd_certs_len) == 48);
static_assert(offsetof(kvm_sev_send_start, pad3) == 52);
static_assert(offsetof(kvm_sev_send_start, session_uaddr) == 56);
static_assert(offsetof(kvm_sev_send_start, session_len) == 64);
static_assert(offsetof(kvm_sev_send_start, pad4) == 68);

struct kvm_sev_send_update_data {
  uint64_t hdr_uaddr;
  uint32_t hdr_len;
  uint32_t pad0;
  uint64_t guest_uaddr;
  uint32_t guest_len;
  uint32_t pad1;
  uint64_t trans_uaddr;
  uint32_t trans_len;
  uint32_t pad2;
};
static_assert(sizeof(kvm_sev_send_update_data) == 48);
static_assert(offsetof(kvm_sev_send_update_data, hdr_uaddr) == 0);
static_assert(offsetof(kvm_sev_send_update_data, hdr_len) == 8);
static_assert(offsetof(kvm_sev_send_update_data, pad0) == 12);
static_assert(offsetof(kvm_sev_send_update_data, guest_uaddr) == 16);
static_assert(offsetof(kvm_sev_send_update_data, guest_len) == 24);
static_assert(offsetof(kvm_sev_send_update_data, pad1) == 28);
static_assert(offsetof(kvm_sev_send_update_data, trans_uaddr) == 32);
static_assert(offsetof(kvm_sev_send_update_data, trans_len) == 40);
static_assert(offsetof(kvm_sev_send_update_data, pad2) == 44);

struct kvm_sev_snp_launch_finish {
  uint64_t id_block_uaddr;
  uint64_t id_auth_uaddr;
  uint8_t id_block_en;
  uint8_t auth_key_en;
  uint8_t vcek_disabled;
  uint8_t host_data[32];
  uint8_t pad0[3];
  uint16_t flags;
  uint64_t pad1[4];
};
static_assert(sizeof(kvm_sev_snp_launch_finish) == 88);
static_assert(offsetof(kvm_sev_snp_launch_finish, id_block_uaddr) == 0);
static_assert(offsetof(kvm_sev_snp_launch_finish, id_auth_uaddr) == 8);
static_assert(offsetof(kvm_sev_snp_launch_finish, id_block_en) == 16);
static_assert(offsetof(kvm_sev_snp_launch_finish, auth_key_en) == 17);
static_assert(offsetof(kvm_sev_snp_launch_finish, vcek_disabled) == 18);
static_assert(offsetof(kvm_sev_snp_launch_finish, host_data) == 19);
static_assert(offsetof(kvm_sev_snp_launch_finish, pad0) == 51);
static_assert(offsetof(kvm_sev_snp_launch_finish, flags) == 54);
static_assert(offsetof(kvm_sev_snp_launch_finish, pad1) == 56);

struct kvm_sev_snp_launch_start {
  uint64_t policy;
  uint8_t gosvw[16];
  uint16_t flags;
  uint8_t pad0[6];
  uint64_t pad1[4];
};
static_assert(sizeof(kvm_sev_snp_launch_start) == 64);
static_assert(offsetof(kvm_sev_snp_launch_start, policy) == 0);
static_assert(offsetof(kvm_sev_snp_launch_start, gosvw) == 8);
static_assert(offsetof(kvm_sev_snp_launch_start, flags) == 24);
static_assert(offsetof(kvm_sev_snp_launch_start, pad0) == 26);
static_assert(offsetof(kvm_sev_snp_launch_start, pad1) == 32);

struct kvm_sev_snp_launch_update {
  uint64_t gfn_start;
  uint64_t uaddr;
  uint64_t len;
  uint8_t type;
  uint8_t pad0;
  uint16_t flags;
  uint32_t pad1;
  uint64_t pad2[4];
};
static_assert(sizeof(kvm_sev_snp_launch_update) == 64);
static_assert(offsetof(kvm_sev_snp_launch_update, gfn_start) == 0);
static_assert(offsetof(kvm_sev_snp_launch_update, uaddr) == 8);
static_assert(offsetof(kvm_sev_snp_launch_update, len) == 16);
static_assert(offsetof(kvm_sev_snp_launch_update, type) == 24);
static_assert(offsetof(kvm_sev_snp_launch_update, pad0) == 25);
static_assert(offsetof(kvm_sev_snp_launch_update, flags) == 26);
static_assert(offsetof(kvm_sev_snp_launch_update, pad1) == 28);
static_assert(offsetof(kvm_sev_snp_launch_update, pad2) == 32);

struct kvm_signal_mask {
  uint32_t len;
  uint8_t sigset[];
};
static_assert(sizeof(kvm_signal_mask) == 4);
static_assert(offsetof(kvm_signal_mask, len) == 0);

struct kvm_sregs2 {
  kvm_segment cs;
  kvm_segment ds;
  kvm_segment es;
  kvm_segment fs;
  kvm_segment gs;
  kvm_segment ss;
  kvm_segment tr;
  kvm_segment ldt;
  kvm_dtable gdt;
  kvm_dtable idt;
  uint64_t cr0;
  uint64_t cr2;
  uint64_t cr3;
  uint64_t cr4;
  uint64_t cr8;
  uint64_t efer;
  uint64_t apic_base;
  uint64_t flags;
  uint64_t pdptrs[4];
};
static_assert(sizeof(kvm_sregs2) == 320);
static_assert(offsetof(kvm_sregs2, cs) == 0);
static_assert(offsetof(kvm_sregs2, ds) == 24);
static_assert(offsetof(kvm_sregs2, es) == 48);
static_assert(offsetof(kvm_sregs2, fs) == 72);
static_assert(offsetof(kvm_sregs2, gs) == 96);
static_assert(offsetof(kvm_sregs2, ss) == 120);
static_assert(offsetof(kvm_sregs2, tr) == 144);
static_assert(offsetof(kvm_sregs2, ldt) == 168);
static_assert(offsetof(kvm_sregs2, gdt) == 192);
static_assert(offsetof(kvm_sregs2, idt) == 208);
static_assert(offsetof(kvm_sregs2, cr0) == 224);
static_assert(offsetof(kvm_sregs2, cr2) == 232);
static_assert(offsetof(kvm_sregs2, cr3) == 240);
static_assert(offsetof(kvm_sregs2, cr4) == 248);
static_assert(offsetof(kvm_sregs2, cr8) == 256);
static_assert(offsetof(kvm_sregs2, efer) == 264);
static_assert(offsetof(kvm_sregs2, apic_base) == 272);
static_assert(offsetof(kvm_sregs2, flags) == 280);
static_assert(offsetof(kvm_sregs2, pdptrs) == 288);

struct kvm_stats_desc {
  uint32_t flags;
  int16_t exponent;
  uint16_t size;
  uint32_t offset;
  uint32_t bucket_size;
  uint8_t name[];
};
static_assert(sizeof(kvm_stats_desc) == 16);
static_assert(offsetof(kvm_stats_desc, flags) == 0);
static_assert(offsetof(kvm_stats_desc, exponent) == 4);
static_assert(offsetof(kvm_stats_desc, size) == 6);
static_assert(offsetof(kvm_stats_desc, offset) == 8);
static_assert(offsetof(kvm_stats_desc, bucket_size) == 12);

struct kvm_stats_header {
  uint32_t flags;
  uint32_t name_size;
  uint32_t num_desc;
  uint32_t id_offset;
  uint32_t desc_offset;
  uint32_t data_offset;
};
static_assert(sizeof(kvm_stats_header) == 24);
static_assert(offsetof(kvm_stats_header, flags) == 0);
static_assert(offsetof(kvm_stats_header, name_size) == 4);
static_assert(offsetof(kvm_stats_header, num_desc) == 8);
static_assert(offsetof(kvm_stats_header, id_offset) == 12);
static_assert(offsetof(kvm_stats_header, desc_offset) == 16);
static_assert(offsetof(kvm_stats_header, data_offset) == 20);

struct kvm_tdx_capabilities {
  uint64_t supported_attrs;
  uint64_t supported_xfam;
  uint64_t kernel_tdvmcallinfo_1_r11;
  uint64_t user_tdvmcallinfo_1_r11;
  uint64_t kernel_tdvmcallinfo_1_r12;
  uint64_t user_tdvmcallinfo_1_r12;
  uint64_t reserved[250];
  kvm_cpuid2 cpuid;
};
static_assert(sizeof(kvm_tdx_capabilities) == 2056);
static_assert(offsetof(kvm_tdx_capabilities, supported_attrs) == 0);
static_assert(offsetof(kvm_tdx_capabilities, supported_xfam) == 8);
static_assert(offsetof(kvm_tdx_capabilities, kernel_tdvmcallinfo_1_r11) == 16);
static_assert(offsetof(kvm_tdx_capabilities, user_tdvmcallinfo_1_r11) == 24);
static_assert(offsetof(kvm_tdx_capabilities, kernel_tdvmcallinfo_1_r12) == 32);
static_assert(offsetof(kvm_tdx_capabilities, user_tdvmcallinfo_1_r12) == 40);
static_assert(offsetof(kvm_tdx_capabilities, reserved) == 48);
static_assert(offsetof(kvm_tdx_capabilities, cpuid) == 2048);

struct kvm_tdx_cmd {
  uint32_t id;
  uint32_t flags;
  uint64_t data;
  uint64_t hw_error;
};
static_assert(sizeof(kvm_tdx_cmd) == 24);
static_assert(offsetof(kvm_tdx_cmd, id) == 0);
static_assert(offsetof(kvm_tdx_cmd, flags) == 4);
static_assert(offsetof(kvm_tdx_cmd, data) == 8);
static_assert(offsetof(kvm_tdx_cmd, hw_error) == 16);

struct kvm_tdx_init_mem_region {
  uint64_t source_addr;
  uint64_t gpa;
  uint64_t nr_pages;
};
static_assert(sizeof(kvm_tdx_init_mem_region) == 24);
static_assert(offsetof(kvm_tdx_init_mem_region, source_addr) == 0);
static_assert(offsetof(kvm_tdx_init_mem_region, gpa) == 8);
static_assert(offsetof(kvm_tdx_init_mem_region, nr_pages) == 16);

struct kvm_tdx_init_vm {
  uint64_t attributes;
  uint64_t xfam;
  uint64_t mrconfigid[6];
  uint64_t mrowner[6];
  uint64_t mrownerconfig[6];
  uint64_t reserved[12];
  kvm_cpuid2 cpuid;
};
static_assert(sizeof(kvm_tdx_init_vm) == 264);
static_assert(offsetof(kvm_tdx_init_vm, attributes) == 0);
static_assert(offsetof(kvm_tdx_init_vm, xfam) == 8);
static_assert(offsetof(kvm_tdx_init_vm, mrconfigid) == 16);
static_assert(offsetof(kvm_tdx_init_vm, mrowner) == 64);
static_assert(offsetof(kvm_tdx_init_vm, mrownerconfig) == 112);
static_assert(offsetof(kvm_tdx_init_vm, reserved) == 160);
static_assert(offsetof(kvm_tdx_init_vm, cpuid) == 256);

struct kvm_tpr_access_ctl {
  uint32_t enabled;
  uint32_t flags;
  uint32_t reserved[8];
};
static_assert(sizeof(kvm_tpr_access_ctl) == 40);
static_assert(offsetof(kvm_tpr_access_ctl, enabled) == 0);
static_assert(offsetof(kvm_tpr_access_ctl, flags) == 4);
static_assert(offsetof(kvm_tpr_access_ctl, reserved) == 8);

struct kvm_translation {
  uint64_t linear_address;
  uint64_t physical_address;
  uint8_t valid;
  uint8_t writeable;
  uint8_t usermode;
  uint8_t pad[5];
};
static_assert(sizeof(kvm_translation) == 24);
static_assert(offsetof(kvm_translation, linear_address) == 0);
static_assert(offsetof(kvm_translation, physical_address) == 8);
static_assert(offsetof(kvm_translation, valid) == 16);
static_assert(offsetof(kvm_translation, writeable) == 17);
static_assert(offsetof(kvm_translation, usermode) == 18);
static_assert(offsetof(kvm_translation, pad) == 19);

struct kvm_userspace_memory_region {
  uint32_t slot;
  uint32_t flags;
  uint64_t guest_phys_addr;
  uint64_t memory_size;
  uint64_t userspace_addr;
};
static_assert(sizeof(kvm_userspace_memory_region) == 32);
static_assert(offsetof(kvm_userspace_memory_region, slot) == 0);
static_assert(offsetof(kvm_userspace_memory_region, flags) == 4);
static_assert(offsetof(kvm_userspace_memory_region, guest_phys_addr) == 8);
static_assert(offsetof(kvm_userspace_memory_region, memory_size) == 16);
static_assert(offsetof(kvm_userspace_memory_region, userspace_addr) == 24);

struct kvm_userspace_memory_region2 {
  uint32_t slot;
  uint32_t flags;
  uint64_t guest_phys_addr;
  uint64_t memory_size;
  uint64_t userspace_addr;
  uint64_t guest_memfd_offset;
  uint32_t guest_memfd;
  uint32_t pad1;
  uint64_t pad2[14];
};
static_assert(sizeof(kvm_userspace_memory_region2) == 160);
static_assert(offsetof(kvm_userspace_memory_region2, slot) == 0);
static_assert(offsetof(kvm_userspace_memory_region2, flags) == 4);
static_assert(offsetof(kvm_userspace_memory_region2, guest_phys_addr) == 8);
static_assert(offsetof(kvm_userspace_memory_region2, memory_size) == 16);
static_assert(offsetof(kvm_userspace_memory_region2, userspace_addr) == 24);
static_assert(offsetof(kvm_userspace_memory_region2, guest_memfd_offset) == 32);
static_assert(offsetof(kvm_userspace_memory_region2, guest_memfd) == 40);
static_assert(offsetof(kvm_userspace_memory_region2, pad1) == 44);
static_assert(offsetof(kvm_userspace_memory_region2, pad2) == 48);

struct kvm_vapic_addr {
  uint64_t vapic_addr;
};
static_assert(sizeof(kvm_vapic_addr) == 8);
static_assert(offsetof(kvm_vapic_addr, vapic_addr) == 0);

struct kvm_vfio_spapr_tce {
  int32_t groupfd;
  int32_t tablefd;
};
static_assert(sizeof(kvm_vfio_spapr_tce) == 8);
static_assert(offsetof(kvm_vfio_spapr_tce, groupfd) == 0);
static_assert(offsetof(kvm_vfio_spapr_tce, tablefd) == 4);

struct kvm_x86_mce {
  uint64_t status;
  uint64_t addr;
  uint64_t misc;
  uint64_t mcg_status;
  uint8_t bank;
  uint8_t pad1[7];
  uint64_t pad2[3];
};
static_assert(sizeof(kvm_x86_mce) == 64);
static_assert(offsetof(kvm_x86_mce, status) == 0);
static_assert(offsetof(kvm_x86_mce, addr) == 8);
static_assert(offsetof(kvm_x86_mce, misc) == 16);
static_assert(offsetof(kvm_x86_mce, mcg_status) == 24);
static_assert(offsetof(kvm_x86_mce, bank) == 32);
static_assert(offsetof(kvm_x86_mce, pad1) == 33);
static_assert(offsetof(kvm_x86_mce, pad2) == 40);

struct kvm_xcr {
  uint32_t xcr;
  uint32_t reserved;
  uint64_t value;
};
static_assert(sizeof(kvm_xcr) == 16);
static_assert(offsetof(kvm_xcr, xcr) == 0);
static_assert(offsetof(kvm_xcr, reserved) == 4);
static_assert(offsetof(kvm_xcr, value) == 8);

struct kvm_xcrs {
  uint32_t nr_xcrs;
  uint32_t flags;
  kvm_xcr xcrs[16];
  uint64_t padding[16];
};
static_assert(sizeof(kvm_xcrs) == 392);
static_assert(offsetof(kvm_xcrs, nr_xcrs) == 0);
static_assert(offsetof(kvm_xcrs, flags) == 4);
static_assert(offsetof(kvm_xcrs, xcrs) == 8);
static_assert(offsetof(kvm_xcrs, padding) == 264);

struct kvm_xen_hvm_attr {
  uint16_t type;
  uint16_t pad[3];
  union {
    uint8_t long_mode;
    uint8_t vector;
    uint8_t runstate_update_flag;
    union {
      uint64_t gfn;
      uint64_t hva;
    } shared_info;
    struct {
      uint32_t send_port;
      uint32_t type;
      uint32_t flags;
      union {
        struct {
          uint32_t port;
          uint32_t vcpu;
          uint32_t priority;
        } port;
        struct {
          uint32_t port;
          int32_t fd;
        } eventfd;
        uint32_t padding[4];
      } deliver;
    } evtchn;
    uint32_t xen_version;
    uint64_t pad[8];
  } u;
};
static_assert(sizeof(kvm_xen_hvm_attr) == 72);
static_assert(offsetof(kvm_xen_hvm_attr, type) == 0);
static_assert(offsetof(kvm_xen_hvm_attr, pad) == 2);
static_assert(offsetof(kvm_xen_hvm_attr, u) == 8);

struct kvm_xen_hvm_config {
  uint32_t flags;
  uint32_t msr;
  uint64_t blob_addr_32;
  uint64_t blob_addr_64;
  uint8_t blob_size_32;
  uint8_t blob_size_64;
  uint8_t pad2[30];
};
static_assert(sizeof(kvm_xen_hvm_config) == 56);
static_assert(offsetof(kvm_xen_hvm_config, flags) == 0);
static_assert(offsetof(kvm_xen_hvm_config, msr) == 4);
static_assert(offsetof(kvm_xen_hvm_config, blob_addr_32) == 8);
static_assert(offsetof(kvm_xen_hvm_config, blob_addr_64) == 16);
static_assert(offsetof(kvm_xen_hvm_config, blob_size_32) == 24);
static_assert(offsetof(kvm_xen_hvm_config, blob_size_64) == 25);
static_assert(offsetof(kvm_xen_hvm_config, pad2) == 26);

struct kvm_xen_vcpu_attr {
  uint16_t type;
  uint16_t pad[3];
  union {
    uint64_t gpa;
    uint64_t hva;
    uint64_t pad[8];
    struct {
      uint64_t state;
      uint64_t state_entry_time;
      uint64_t time_running;
      uint64_t time_runnable;
      uint64_t time_blocked;
      uint64_t time_offline;
    } runstate;
    uint32_t vcpu_id;
    struct {
      uint32_t port;
      uint32_t priority;
      uint64_t expires_ns;
    } timer;
    uint8_t vector;
  } u;
};
static_assert(sizeof(kvm_xen_vcpu_attr) == 72);
static_assert(offsetof(kvm_xen_vcpu_attr, type) == 0);
static_assert(offsetof(kvm_xen_vcpu_attr, pad) == 2);
static_assert(offsetof(kvm_xen_vcpu_attr, u) == 8);

struct kvm_xsave {
  uint32_t region[1024];
  uint32_t extra[];
};
static_assert(sizeof(kvm_xsave) == 4096);
static_assert(offsetof(kvm_xsave, region) == 0);

inline constexpr unsigned long KVM_ARM_SET_DEVICE_ADDR = 0x4010aeab;
inline constexpr unsigned long KVM_ARM_VCPU_FINALIZE = 0x4004aec2;
inline constexpr unsigned long KVM_CHECK_EXTENSION = 0xae03;
inline constexpr unsigned long KVM_CLEAR_DIRTY_LOG = 0xc018aec0;
inline constexpr unsigned long KVM_CREATE_DEVICE = 0xc00caee0;
inline constexpr unsigned long KVM_CREATE_GUEST_MEMFD = 0xc040aed4;
inline constexpr unsigned long KVM_CREATE_IRQCHIP = 0xae60;
inline constexpr unsigned long KVM_CREATE_PIT = 0xae64;
inline constexpr unsigned long KVM_CREATE_PIT2 = 0x4040ae77;
inline constexpr unsigned long KVM_CREATE_VCPU = 0xae41;
inline constexpr unsigned long KVM_CREATE_VM = 0xae01;
inline constexpr unsigned long KVM_DIRTY_TLB = 0x4010aeaa;
inline constexpr unsigned long KVM_ENABLE_CAP = 0x4068aea3;
inline constexpr unsigned long KVM_GET_API_VERSION = 0xae00;
inline constexpr unsigned long KVM_GET_CLOCK = 0x8030ae7c;
inline constexpr unsigned long KVM_GET_CPUID2 = 0xc008ae91;
inline constexpr unsigned long KVM_GET_DEBUGREGS = 0x8080aea1;
inline constexpr unsigned long KVM_GET_DEVICE_ATTR = 0x4018aee2;
inline constexpr unsigned long KVM_GET_DIRTY_LOG = 0x4010ae42;
inline constexpr unsigned long KVM_GET_EMULATED_CPUID = 0xc008ae09;
inline constexpr unsigned long KVM_GET_FPU = 0x81a0ae8c;
inline constexpr unsigned long KVM_GET_IRQCHIP = 0xc208ae62;
inline constexpr unsigned long KVM_GET_LAPIC = 0x8400ae8e;
inline constexpr unsigned long KVM_GET_MP_STATE = 0x8004ae98;
inline constexpr unsigned long KVM_GET_MSRS = 0xc008ae88;
inline constexpr unsigned long KVM_GET_MSR_FEATURE_INDEX_LIST = 0xc004ae0a;
inline constexpr unsigned long KVM_GET_MSR_INDEX_LIST = 0xc004ae02;
inline constexpr unsigned long KVM_GET_NESTED_STATE = 0xc080aebe;
inline constexpr unsigned long KVM_GET_NR_MMU_PAGES = 0xae45;
inline constexpr unsigned long KVM_GET_ONE_REG = 0x4010aeab;
inline constexpr unsigned long KVM_GET_PIT = 0xc048ae65;
inline constexpr unsigned long KVM_GET_PIT2 = 0x8070ae9f;
inline constexpr unsigned long KVM_GET_REGS = 0x8090ae81;
inline constexpr unsigned long KVM_GET_REG_LIST = 0xc008aeb0;
inline constexpr unsigned long KVM_GET_SREGS = 0x8138ae83;
inline constexpr unsigned long KVM_GET_SREGS2 = 0x8140aecc;
inline constexpr unsigned long KVM_GET_STATS_FD = 0xaece;
inline constexpr unsigned long KVM_GET_SUPPORTED_CPUID = 0xc008ae05;
inline constexpr unsigned long KVM_GET_SUPPORTED_HV_CPUID = 0xc008aec1;
inline constexpr unsigned long KVM_GET_TSC_KHZ = 0xaea3;
inline constexpr unsigned long KVM_GET_VCPU_EVENTS = 0x8040ae9f;
inline constexpr unsigned long KVM_GET_VCPU_MMAP_SIZE = 0xae04;
inline constexpr unsigned long KVM_GET_XCRS = 0x8188aea6;
inline constexpr unsigned long KVM_GET_XSAVE = 0x9000aea4;
inline constexpr unsigned long KVM_GET_XSAVE2 = 0x9000aecf;
inline constexpr unsigned long KVM_HAS_DEVICE_ATTR = 0x4018aee3;
inline constexpr unsigned long KVM_HYPERV_EVENTFD = 0x4018aebd;
inline constexpr unsigned long KVM_INTERRUPT = 0x4004ae86;
inline constexpr unsigned long KVM_IOEVENTFD = 0x4040ae79;
inline constexpr unsigned long KVM_IRQFD = 0x4020ae76;
inline constexpr unsigned long KVM_IRQ_LINE = 0x4008ae61;
inline constexpr unsigned long KVM_IRQ_LINE_STATUS = 0xc008ae67;
inline constexpr unsigned long KVM_KVMCLOCK_CTRL = 0xaead;
inline constexpr unsigned long KVM_MEMORY_ENCRYPT_OP = 0xc008aeba;
inline constexpr unsigned long KVM_MEMORY_ENCRYPT_REG_REGION = 0x8010aebb;
inline constexpr unsigned long KVM_MEMORY_ENCRYPT_UNREG_REGION = 0x8010aebc;
inline constexpr unsigned long KVM_NMI = 0xae9a;
inline constexpr unsigned long KVM_PPC_ALLOCATE_HTAB = 0xc004aea7;
inline constexpr unsigned long KVM_PPC_GET_COMPAT_CAPS = 0xaeb8;
inline constexpr unsigned long KVM_PPC_SVM_OFF = 0xaeb3;
inline constexpr unsigned long KVM_PRE_FAULT_MEMORY = 0xc040aed5;
inline constexpr unsigned long KVM_REGISTER_COALESCED_MMIO = 0x4010ae67;
inline constexpr unsigned long KVM_REINJECT_CONTROL = 0xae71;
inline constexpr unsigned long KVM_RESET_DIRTY_RINGS = 0xaec7;
inline constexpr unsigned long KVM_RUN = 0xae80;
inline constexpr unsigned long KVM_S390_CLEAR_RESET = 0xaec4;
inline constexpr unsigned long KVM_S390_ENABLE_SIE = 0xae06;
inline constexpr unsigned long KVM_S390_INITIAL_RESET = 0xae97;
inline constexpr unsigned long KVM_S390_KEYOP = 0xc010ae53;
inline constexpr unsigned long KVM_S390_NORMAL_RESET = 0xaec3;
inline constexpr unsigned long KVM_S390_STORE_STATUS = 0x4008ae95;
inline constexpr unsigned long KVM_S390_VCPU_FAULT = 0x4008ae52;
inline constexpr unsigned long KVM_SET_BOOT_CPU_ID = 0xae78;
inline constexpr unsigned long KVM_SET_CLOCK = 0x4030ae7b;
inline constexpr unsigned long KVM_SET_CPUID = 0x4008ae8a;
inline constexpr unsigned long KVM_SET_CPUID2 = 0x4008ae90;
inline constexpr unsigned long KVM_SET_DEBUGREGS = 0x4080aea2;
inline constexpr unsigned long KVM_SET_DEVICE_ATTR = 0x4018aee1;
inline constexpr unsigned long KVM_SET_FPU = 0x41a0ae8d;
inline constexpr unsigned long KVM_SET_GSI_ROUTING = 0x4008ae6a;
inline constexpr unsigned long KVM_SET_GUEST_DEBUG = 0x4048ae9b;
inline constexpr unsigned long KVM_SET_IDENTITY_MAP_ADDR = 0x4008ae48;
inline constexpr unsigned long KVM_SET_IRQCHIP = 0x8208ae63;
inline constexpr unsigned long KVM_SET_LAPIC = 0x4400ae8f;
inline constexpr unsigned long KVM_SET_MEMORY_ATTRIBUTES = 0x4020aed2;
inline constexpr unsigned long KVM_SET_MP_STATE = 0x4004ae99;
inline constexpr unsigned long KVM_SET_MSRS = 0x4008ae89;
inline constexpr unsigned long KVM_SET_NESTED_STATE = 0x4080aebf;
inline constexpr unsigned long KVM_SET_NR_MMU_PAGES = 0xae44;
inline constexpr unsigned long KVM_SET_ONE_REG = 0x4010aeac;
inline constexpr unsigned long KVM_SET_PIT = 0x8048ae66;
inline constexpr unsigned long KVM_SET_PIT2 = 0x4070aea0;
inline constexpr unsigned long KVM_SET_PMU_EVENT_FILTER = 0x4020aeb2;
inline constexpr unsigned long KVM_SET_REGS = 0x4090ae82;
inline constexpr unsigned long KVM_SET_SIGNAL_MASK = 0x4004ae8b;
inline constexpr unsigned long KVM_SET_SREGS = 0x4138ae84;
inline constexpr unsigned long KVM_SET_SREGS2 = 0x4140aecd;
inline constexpr unsigned long KVM_SET_TSC_KHZ = 0xaea2;
inline constexpr unsigned long KVM_SET_TSS_ADDR = 0xae47;
inline constexpr unsigned long KVM_SET_USER_MEMORY_REGION = 0x4020ae46;
inline constexpr unsigned long KVM_SET_USER_MEMORY_REGION2 = 0x40a0ae49;
inline constexpr unsigned long KVM_SET_VAPIC_ADDR = 0x4008ae93;
inline constexpr unsigned long KVM_SET_VCPU_EVENTS = 0x4040aea0;
inline constexpr unsigned long KVM_SET_XCRS = 0x4188aea7;
inline constexpr unsigned long KVM_SET_XSAVE = 0x5000aea5;
inline constexpr unsigned long KVM_SIGNAL_MSI = 0x4020aea5;
inline constexpr unsigned long KVM_SMI = 0xaeb7;
inline constexpr unsigned long KVM_TPR_ACCESS_REPORTING = 0xc028ae92;
inline constexpr unsigned long KVM_TRANSLATE = 0xc018ae85;
inline constexpr unsigned long KVM_UNREGISTER_COALESCED_MMIO = 0x4010ae68;
inline constexpr unsigned long KVM_X86_GET_MCE_CAP_SUPPORTED = 0x8008ae9d;
inline constexpr unsigned long KVM_X86_SETUP_MCE = 0x4008ae9c;
inline constexpr unsigned long KVM_X86_SET_MCE = 0x4040ae9e;
inline constexpr unsigned long KVM_X86_SET_MSR_FILTER = 0x4188aec6;
inline constexpr unsigned long KVM_XEN_HVM_CONFIG = 0x4038ae7a;
inline constexpr unsigned long KVM_XEN_HVM_EVTCHN_SEND = 0x400caed0;
inline constexpr unsigned long KVM_XEN_HVM_GET_ATTR = 0xc048aec8;
inline constexpr unsigned long KVM_XEN_HVM_SET_ATTR = 0x4048aec9;
inline constexpr unsigned long KVM_XEN_VCPU_GET_ATTR = 0xc048aeca;
inline constexpr unsigned long KVM_XEN_VCPU_SET_ATTR = 0x4048aecb;

inline constexpr int AC_VECTOR = 0x11;
inline constexpr int BP_VECTOR = 0x3;
inline constexpr int BR_VECTOR = 0x5;
inline constexpr int CP_VECTOR = 0x15;
inline constexpr int DB_VECTOR = 0x1;
inline constexpr int DE_VECTOR = 0x0;
inline constexpr int DF_VECTOR = 0x8;
inline constexpr int GP_VECTOR = 0xd;
inline constexpr int GUEST_MEMFD_FLAG_INIT_SHARED = 0x2;
inline constexpr int GUEST_MEMFD_FLAG_MMAP = 0x1;
inline constexpr int HV_VECTOR = 0x1c;
inline constexpr int KVMIO = 0xae;
inline constexpr int KVM_APIC_REG_SIZE = 0x400;
inline constexpr int KVM_API_VERSION = 0xc;
inline constexpr int KVM_BUS_LOCK_DETECTION_EXIT = 0x2;
inline constexpr int KVM_BUS_LOCK_DETECTION_OFF = 0x1;
inline constexpr int KVM_CAP_ADJUST_CLOCK = 0x27;
inline constexpr int KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED = 0xf3;
inline constexpr int KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE = 0xe4;
inline constexpr int KVM_CAP_ARM_EL1_32BIT = 0x5d;
inline constexpr int KVM_CAP_ARM_EL2 = 0xf0;
inline constexpr int KVM_CAP_ARM_EL2_E2H0 = 0xf1;
inline constexpr int KVM_CAP_ARM_INJECT_EXT_DABT = 0xb2;
inline constexpr int KVM_CAP_ARM_INJECT_SERROR_ESR = 0x9e;
inline constexpr int KVM_CAP_ARM_IRQ_LINE_LAYOUT_2 = 0xae;
inline constexpr int KVM_CAP_ARM_MTE = 0xcd;
inline constexpr int KVM_CAP_ARM_NISV_TO_USER = 0xb1;
inline constexpr int KVM_CAP_ARM_PMU_V3 = 0x7e;
inline constexpr int KVM_CAP_ARM_PMU_V3_STRICT = 0xfb;
inline constexpr int KVM_CAP_ARM_PSCI = 0x57;
inline constexpr int KVM_CAP_ARM_PSCI_0_2 = 0x66;
inline constexpr int KVM_CAP_ARM_PTRAUTH_ADDRESS = 0xab;
inline constexpr int KVM_CAP_ARM_PTRAUTH_GENERIC = 0xac;
inline constexpr int KVM_CAP_ARM_SEA_TO_USER = 0xf5;
inline constexpr int KVM_CAP_ARM_SET_DEVICE_ADDR = 0x58;
inline constexpr int KVM_CAP_ARM_SUPPORTED_BLOCK_SIZES = 0xe5;
inline constexpr int KVM_CAP_ARM_SUPPORTED_REG_MASK_RANGES = 0xe6;
inline constexpr int KVM_CAP_ARM_SVE = 0xaa;
inline constexpr int KVM_CAP_ARM_SYSTEM_SUSPEND = 0xd8;
inline constexpr int KVM_CAP_ARM_USER_IRQ = 0x90;
inline constexpr int KVM_CAP_ARM_VM_IPA_SIZE = 0xa5;
inline constexpr int KVM_CAP_ARM_WRITABLE_IMP_ID_REGS = 0xef;
inline constexpr int KVM_CAP_ASSIGN_DEV_IRQ = 0x1d;
inline constexpr int KVM_CAP_ASYNC_PF = 0x3b;
inline constexpr int KVM_CAP_ASYNC_PF_INT = 0xb7;
inline constexpr int KVM_CAP_BINARY_STATS_FD = 0xcb;
inline constexpr int KVM_CAP_CHECK_EXTENSION_VM = 0x69;
inline constexpr int KVM_CAP_CLOCKSOURCE = 0x8;
inline constexpr int KVM_CAP_COALESCED_MMIO = 0xf;
inline constexpr int KVM_CAP_COALESCED_PIO = 0xa2;
inline constexpr int KVM_CAP_COUNTER_OFFSET = 0xe3;
inline constexpr int KVM_CAP_DEBUGREGS = 0x32;
inline constexpr int KVM_CAP_DESTROY_MEMORY_REGION_WORKS = 0x15;
inline constexpr int KVM_CAP_DEVICE_CTRL = 0x59;
inline constexpr int KVM_CAP_DIRTY_LOG_RING = 0xc0;
inline constexpr int KVM_CAP_DIRTY_LOG_RING_ACQ_REL = 0xdf;
inline constexpr int KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP = 0xe1;
inline constexpr int KVM_CAP_DISABLE_QUIRKS = 0x74;
inline constexpr int KVM_CAP_DISABLE_QUIRKS2 = 0xd5;
inline constexpr int KVM_CAP_ENABLE_CAP = 0x36;
inline constexpr int KVM_CAP_ENABLE_CAP_VM = 0x62;
inline constexpr int KVM_CAP_ENFORCE_PV_FEATURE_CPUID = 0xbe;
inline constexpr int KVM_CAP_EXCEPTION_PAYLOAD = 0xa4;
inline constexpr int KVM_CAP_EXIT_HYPERCALL = 0xc9;
inline constexpr int KVM_CAP_EXIT_ON_EMULATION_FAILURE = 0xcc;
inline constexpr int KVM_CAP_EXT_CPUID = 0x7;
inline constexpr int KVM_CAP_EXT_EMUL_CPUID = 0x5f;
inline constexpr int KVM_CAP_GET_MSR_FEATURES = 0x99;
inline constexpr int KVM_CAP_GET_TSC_KHZ = 0x3d;
inline constexpr int KVM_CAP_GUEST_DEBUG_HW_BPS = 0x77;
inline constexpr int KVM_CAP_GUEST_DEBUG_HW_WPS = 0x78;
inline constexpr int KVM_CAP_GUEST_MEMFD = 0xea;
inline constexpr int KVM_CAP_GUEST_MEMFD_FLAGS = 0xf4;
inline constexpr int KVM_CAP_HALT_POLL = 0xb6;
inline constexpr int KVM_CAP_HLT = 0x1;
inline constexpr int KVM_CAP_HYPERV = 0x2c;
inline constexpr int KVM_CAP_HYPERV_CPUID = 0xa7;
inline constexpr int KVM_CAP_HYPERV_DIRECT_TLBFLUSH = 0xaf;
inline constexpr int KVM_CAP_HYPERV_ENFORCE_CPUID = 0xc7;
inline constexpr int KVM_CAP_HYPERV_ENLIGHTENED_VMCS = 0xa3;
inline constexpr int KVM_CAP_HYPERV_EVENTFD = 0x9a;
inline constexpr int KVM_CAP_HYPERV_SEND_IPI = 0xa1;
inline constexpr int KVM_CAP_HYPERV_SPIN = 0x2e;
inline constexpr int KVM_CAP_HYPERV_SYNIC = 0x7b;
inline constexpr int KVM_CAP_HYPERV_SYNIC2 = 0x94;
inline constexpr int KVM_CAP_HYPERV_TIME = 0x60;
inline constexpr int KVM_CAP_HYPERV_TLBFLUSH = 0x9b;
inline constexpr int KVM_CAP_HYPERV_VAPIC = 0x2d;
inline constexpr int KVM_CAP_HYPERV_VP_INDEX = 0x95;
inline constexpr int KVM_CAP_IMMEDIATE_EXIT = 0x88;
inline constexpr int KVM_CAP_INTERNAL_ERROR_DATA = 0x28;
inline constexpr int KVM_CAP_INTR_SHADOW = 0x31;
inline constexpr int KVM_CAP_IOAPIC_POLARITY_IGNORED = 0x61;
inline constexpr int KVM_CAP_IOEVENTFD = 0x24;
inline constexpr int KVM_CAP_IOEVENTFD_ANY_LENGTH = 0x7a;
inline constexpr int KVM_CAP_IOEVENTFD_NO_LENGTH = 0x64;
inline constexpr int KVM_CAP_IOMMU = 0x12;
inline constexpr int KVM_CAP_IRQCHIP = 0x0;
inline constexpr int KVM_CAP_IRQFD = 0x20;
inline constexpr int KVM_CAP_IRQFD_RESAMPLE = 0x52;
inline constexpr int KVM_CAP_IRQ_INJECT_STATUS = 0x1a;
inline constexpr int KVM_CAP_IRQ_MPIC = 0x5a;
inline constexpr int KVM_CAP_IRQ_ROUTING = 0x19;
inline constexpr int KVM_CAP_IRQ_XICS = 0x5c;
inline constexpr int KVM_CAP_JOIN_MEMORY_REGIONS_WORKS = 0x1e;
inline constexpr int KVM_CAP_KVMCLOCK_CTRL = 0x4c;
inline constexpr int KVM_CAP_LAST_CPU = 0xb8;
inline constexpr int KVM_CAP_MANUAL_DIRTY_LOG_PROTECT = 0xa6;
inline constexpr int KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 = 0xa8;
inline constexpr int KVM_CAP_MAX_VCPUS = 0x42;
inline constexpr int KVM_CAP_MAX_VCPU_ID = 0x80;
inline constexpr int KVM_CAP_MCE = 0x1f;
inline constexpr int KVM_CAP_MEMORY_ATTRIBUTES = 0xe9;
inline constexpr int KVM_CAP_MEMORY_FAULT_INFO = 0xe8;
inline constexpr int KVM_CAP_MIPS_64BIT = 0x8b;
inline constexpr int KVM_CAP_MIPS_FPU = 0x6f;
inline constexpr int KVM_CAP_MIPS_MSA = 0x70;
inline constexpr int KVM_CAP_MIPS_TE = 0x8a;
inline constexpr int KVM_CAP_MIPS_VZ = 0x89;
inline constexpr int KVM_CAP_MMU_SHADOW_CACHE_CONTROL = 0x2;
inline constexpr int KVM_CAP_MP_STATE = 0xe;
inline constexpr int KVM_CAP_MSI_DEVID = 0x83;
inline constexpr int KVM_CAP_MSR_PLATFORM_INFO = 0x9f;
inline constexpr int KVM_CAP_MULTI_ADDRESS_SPACE = 0x76;
inline constexpr int KVM_CAP_NESTED_STATE = 0x9d;
inline constexpr int KVM_CAP_NOP_IO_DELAY = 0xc;
inline constexpr int KVM_CAP_NR_MEMSLOTS = 0xa;
inline constexpr int KVM_CAP_NR_VCPUS = 0x9;
inline constexpr int KVM_CAP_ONE_REG = 0x46;
inline constexpr int KVM_CAP_PCI_2_3 = 0x4b;
inline constexpr int KVM_CAP_PCI_SEGMENT = 0x2f;
inline constexpr int KVM_CAP_PIT = 0xb;
inline constexpr int KVM_CAP_PIT2 = 0x21;
inline constexpr int KVM_CAP_PIT_STATE2 = 0x23;
inline constexpr int KVM_CAP_PMU_CAPABILITY = 0xd4;
inline constexpr int KVM_CAP_PMU_EVENT_FILTER = 0xad;
inline constexpr int KVM_CAP_PMU_EVENT_MASKED_EVENTS = 0xe2;
inline constexpr int KVM_CAP_PPC_AIL_MODE_3 = 0xd2;
inline constexpr int KVM_CAP_PPC_ALLOC_HTAB = 0x50;
inline constexpr int KVM_CAP_PPC_BOOKE_SREGS = 0x3e;
inline constexpr int KVM_CAP_PPC_BOOKE_WATCHDOG = 0x53;
inline constexpr int KVM_CAP_PPC_COMPAT_CAPS = 0xfa;
inline constexpr int KVM_CAP_PPC_DAWR1 = 0xc2;
inline constexpr int KVM_CAP_PPC_ENABLE_HCALL = 0x68;
inline constexpr int KVM_CAP_PPC_EPR = 0x56;
inline constexpr int KVM_CAP_PPC_FIXUP_HCALL = 0x67;
inline constexpr int KVM_CAP_PPC_FWNMI = 0x92;
inline constexpr int KVM_CAP_PPC_GET_CPU_CHAR = 0x97;
inline constexpr int KVM_CAP_PPC_GET_PVINFO = 0x39;
inline constexpr int KVM_CAP_PPC_GET_SMMU_INFO = 0x4e;
inline constexpr int KVM_CAP_PPC_GUEST_DEBUG_SSTEP = 0xb0;
inline constexpr int KVM_CAP_PPC_HIOR = 0x43;
inline constexpr int KVM_CAP_PPC_HTAB_FD = 0x54;
inline constexpr int KVM_CAP_PPC_HTM = 0x84;
inline constexpr int KVM_CAP_PPC_HWRNG = 0x73;
inline constexpr int KVM_CAP_PPC_IRQ_LEVEL = 0x3a;
inline constexpr int KVM_CAP_PPC_IRQ_XIVE = 0xa9;
inline constexpr int KVM_CAP_PPC_MMU_HASH_V3 = 0x87;
inline constexpr int KVM_CAP_PPC_MMU_RADIX = 0x86;
inline constexpr int KVM_CAP_PPC_NESTED_HV = 0xa0;
inline constexpr int KVM_CAP_PPC_OSI = 0x34;
inline constexpr int KVM_CAP_PPC_PAIRED_SINGLES = 0x30;
inline constexpr int KVM_CAP_PPC_PAPR = 0x44;
inline constexpr int KVM_CAP_PPC_RMA = 0x41;
inline constexpr int KVM_CAP_PPC_RPT_INVALIDATE = 0xca;
inline constexpr int KVM_CAP_PPC_RTAS = 0x5b;
inline constexpr int KVM_CAP_PPC_SECURE_GUEST = 0xb5;
inline constexpr int KVM_CAP_PPC_SEGSTATE = 0x2b;
inline constexpr int KVM_CAP_PPC_SMT = 0x40;
inline constexpr int KVM_CAP_PPC_SMT_POSSIBLE = 0x93;
inline constexpr int KVM_CAP_PPC_UNSET_IRQ = 0x35;
inline constexpr int KVM_CAP_PRE_FAULT_MEMORY = 0xec;
inline constexpr int KVM_CAP_PTP_KVM = 0xc6;
inline constexpr int KVM_CAP_PV_MMU = 0xd;
inline constexpr int KVM_CAP_READONLY_MEM = 0x51;
inline constexpr int KVM_CAP_REINJECT_CONTROL = 0x18;
inline constexpr int KVM_CAP_RISCV_MP_STATE_RESET = 0xf2;
inline constexpr int KVM_CAP_S390_AIS = 0x8d;
inline constexpr int KVM_CAP_S390_AIS_MIGRATION = 0x96;
inline constexpr int KVM_CAP_S390_BPB = 0x98;
inline constexpr int KVM_CAP_S390_CMMA_MIGRATION = 0x91;
inline constexpr int KVM_CAP_S390_COW = 0x4f;
inline constexpr int KVM_CAP_S390_CPU_TOPOLOGY = 0xde;
inline constexpr int KVM_CAP_S390_CSS_SUPPORT = 0x55;
inline constexpr int KVM_CAP_S390_DIAG318 = 0xba;
inline constexpr int KVM_CAP_S390_GMAP = 0x47;
inline constexpr int KVM_CAP_S390_GS = 0x8c;
inline constexpr int KVM_CAP_S390_HPAGE_1M = 0x9c;
inline constexpr int KVM_CAP_S390_HPAGE_2G = 0xf9;
inline constexpr int KVM_CAP_S390_INJECT_IRQ = 0x71;
inline constexpr int KVM_CAP_S390_IRQCHIP = 0x63;
inline constexpr int KVM_CAP_S390_IRQ_STATE = 0x72;
inline constexpr int KVM_CAP_S390_KEYOP = 0xf7;
inline constexpr int KVM_CAP_S390_MEM_OP = 0x6c;
inline constexpr int KVM_CAP_S390_MEM_OP_EXTENSION = 0xd3;
inline constexpr int KVM_CAP_S390_PROTECTED = 0xb4;
inline constexpr int KVM_CAP_S390_PROTECTED_ASYNC_DISABLE = 0xe0;
inline constexpr int KVM_CAP_S390_PROTECTED_DUMP = 0xd9;
inline constexpr int KVM_CAP_S390_PSW = 0x2a;
inline constexpr int KVM_CAP_S390_RI = 0x7c;
inline constexpr int KVM_CAP_S390_SKEYS = 0x6e;
inline constexpr int KVM_CAP_S390_UCONTROL = 0x49;
inline constexpr int KVM_CAP_S390_USER_INSTR0 = 0x82;
inline constexpr int KVM_CAP_S390_USER_OPEREXEC = 0xf6;
inline constexpr int KVM_CAP_S390_USER_SIGP = 0x6a;
inline constexpr int KVM_CAP_S390_USER_STSI = 0x6d;
inline constexpr int KVM_CAP_S390_VCPU_RESETS = 0xb3;
inline constexpr int KVM_CAP_S390_VECTOR_REGISTERS = 0x6b;
inline constexpr int KVM_CAP_S390_VSIE_ESAMODE = 0xf8;
inline constexpr int KVM_CAP_S390_ZPCI_OP = 0xdd;
inline constexpr int KVM_CAP_SET_BOOT_CPU_ID = 0x22;
inline constexpr int KVM_CAP_SET_GUEST_DEBUG = 0x17;
inline constexpr int KVM_CAP_SET_GUEST_DEBUG2 = 0xc3;
inline constexpr int KVM_CAP_SET_IDENTITY_MAP_ADDR = 0x25;
inline constexpr int KVM_CAP_SET_TSS_ADDR = 0x4;
inline constexpr int KVM_CAP_SGX_ATTRIBUTE = 0xc4;
inline constexpr int KVM_CAP_SIGNAL_MSI = 0x4d;
inline constexpr int KVM_CAP_SMALLER_MAXPHYADDR = 0xb9;
inline constexpr int KVM_CAP_SPAPR_MULTITCE = 0x5e;
inline constexpr int KVM_CAP_SPAPR_RESIZE_HPT = 0x85;
inline constexpr int KVM_CAP_SPAPR_TCE = 0x3f;
inline constexpr int KVM_CAP_SPAPR_TCE_64 = 0x7d;
inline constexpr int KVM_CAP_SPAPR_TCE_VFIO = 0x8e;
inline constexpr int KVM_CAP_SPLIT_IRQCHIP = 0x79;
inline constexpr int KVM_CAP_SREGS2 = 0xc8;
inline constexpr int KVM_CAP_STEAL_TIME = 0xbb;
inline constexpr int KVM_CAP_SW_TLB = 0x45;
inline constexpr int KVM_CAP_SYNC_MMU = 0x10;
inline constexpr int KVM_CAP_SYNC_REGS = 0x4a;
inline constexpr int KVM_CAP_SYSTEM_EVENT_DATA = 0xd7;
inline constexpr int KVM_CAP_SYS_ATTRIBUTES = 0xd1;
inline constexpr int KVM_CAP_SYS_HYPERV_CPUID = 0xbf;
inline constexpr int KVM_CAP_TSC_CONTROL = 0x3c;
inline constexpr int KVM_CAP_TSC_DEADLINE_TIMER = 0x48;
inline constexpr int KVM_CAP_USER_MEMORY = 0x3;
inline constexpr int KVM_CAP_USER_MEMORY2 = 0xe7;
inline constexpr int KVM_CAP_USER_NMI = 0x16;
inline constexpr int KVM_CAP_VAPIC = 0x6;
inline constexpr int KVM_CAP_VCPU_ATTRIBUTES = 0x7f;
inline constexpr int KVM_CAP_VCPU_EVENTS = 0x29;
inline constexpr int KVM_CAP_VM_ATTRIBUTES = 0x65;
inline constexpr int KVM_CAP_VM_COPY_ENC_CONTEXT_FROM = 0xc5;
inline constexpr int KVM_CAP_VM_DISABLE_NX_HUGE_PAGES = 0xdc;
inline constexpr int KVM_CAP_VM_GPA_BITS = 0xcf;
inline constexpr int KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM = 0xce;
inline constexpr int KVM_CAP_VM_TSC_CONTROL = 0xd6;
inline constexpr int KVM_CAP_VM_TYPES = 0xeb;
inline constexpr int KVM_CAP_X2APIC_API = 0x81;
inline constexpr int KVM_CAP_X86_APIC_BUS_CYCLES_NS = 0xed;
inline constexpr int KVM_CAP_X86_BUS_LOCK_EXIT = 0xc1;
inline constexpr int KVM_CAP_X86_DISABLE_EXITS = 0x8f;
inline constexpr int KVM_CAP_X86_GUEST_MODE = 0xee;
inline constexpr int KVM_CAP_X86_MSR_FILTER = 0xbd;
inline constexpr int KVM_CAP_X86_NOTIFY_VMEXIT = 0xdb;
inline constexpr int KVM_CAP_X86_ROBUST_SINGLESTEP = 0x33;
inline constexpr int KVM_CAP_X86_SMM = 0x75;
inline constexpr int KVM_CAP_X86_TRIPLE_FAULT_EVENT = 0xda;
inline constexpr int KVM_CAP_X86_USER_SPACE_MSR = 0xbc;
inline constexpr int KVM_CAP_XCRS = 0x38;
inline constexpr int KVM_CAP_XEN_HVM = 0x26;
inline constexpr int KVM_CAP_XSAVE = 0x37;
inline constexpr int KVM_CAP_XSAVE2 = 0xd0;
inline constexpr int KVM_CLOCK_HOST_TSC = 0x8;
inline constexpr int KVM_CLOCK_REALTIME = 0x4;
inline constexpr int KVM_CLOCK_TSC_STABLE = 0x2;
inline constexpr int KVM_COALESCED_MMIO_PAGE_OFFSET = 0x2;
inline constexpr int KVM_CPUID_FLAG_SIGNIFCANT_INDEX = 0x1;
inline constexpr int KVM_CPUID_FLAG_STATEFUL_FUNC = 0x2;
inline constexpr int KVM_CPUID_FLAG_STATE_READ_NEXT = 0x4;
inline constexpr int KVM_CREATE_DEVICE_TEST = 0x1;
inline constexpr int KVM_DEV_TYPE_ARM_PV_TIME = 0xa;
inline constexpr int KVM_DEV_TYPE_ARM_VGIC_ITS = 0x8;
inline constexpr int KVM_DEV_TYPE_ARM_VGIC_V2 = 0x5;
inline constexpr int KVM_DEV_TYPE_ARM_VGIC_V3 = 0x7;
inline constexpr int KVM_DEV_TYPE_ARM_VGIC_V5 = 0x10;
inline constexpr int KVM_DEV_TYPE_FLIC = 0x6;
inline constexpr int KVM_DEV_TYPE_FSL_MPIC_20 = 0x1;
inline constexpr int KVM_DEV_TYPE_FSL_MPIC_42 = 0x2;
inline constexpr int KVM_DEV_TYPE_LOONGARCH_DMSINTC = 0xf;
inline constexpr int KVM_DEV_TYPE_LOONGARCH_EIOINTC = 0xd;
inline constexpr int KVM_DEV_TYPE_LOONGARCH_IPI = 0xc;
inline constexpr int KVM_DEV_TYPE_LOONGARCH_PCHPIC = 0xe;
inline constexpr int KVM_DEV_TYPE_MAX = 0x11;
inline constexpr int KVM_DEV_TYPE_RISCV_AIA = 0xb;
inline constexpr int KVM_DEV_TYPE_VFIO = 0x4;
inline constexpr int KVM_DEV_TYPE_XICS = 0x3;
inline constexpr int KVM_DEV_TYPE_XIVE = 0x9;
inline constexpr int KVM_DEV_VFIO_FILE = 0x1;
inline constexpr int KVM_DEV_VFIO_FILE_ADD = 0x1;
inline constexpr int KVM_DEV_VFIO_FILE_DEL = 0x2;
inline constexpr int KVM_DEV_VFIO_GROUP = 0x1;
inline constexpr int KVM_DEV_VFIO_GROUP_ADD = 0x1;
inline constexpr int KVM_DEV_VFIO_GROUP_DEL = 0x2;
inline constexpr int KVM_DEV_VFIO_GROUP_SET_SPAPR_TCE = 0x3;
inline constexpr int KVM_DIRTY_GFN_F_DIRTY = 0x1;
inline constexpr int KVM_DIRTY_GFN_F_MASK = 0x3;
inline constexpr int KVM_DIRTY_GFN_F_RESET = 0x2;
inline constexpr int KVM_DIRTY_LOG_INITIALLY_SET = 0x2;
inline constexpr int KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE = 0x1;
inline constexpr int KVM_DIRTY_LOG_PAGE_OFFSET = 0x40;
inline constexpr int KVM_EXIT_AP_RESET_HOLD = 0x20;
inline constexpr int KVM_EXIT_ARM_LDST64B = 0x2a;
inline constexpr int KVM_EXIT_ARM_NISV = 0x1c;
inline constexpr int KVM_EXIT_ARM_SEA = 0x29;
inline constexpr int KVM_EXIT_ARM_SEA_FLAG_GPA_VALID = 0x1;
inline constexpr int KVM_EXIT_DCR = 0xf;
inline constexpr int KVM_EXIT_DEBUG = 0x4;
inline constexpr int KVM_EXIT_DIRTY_RING_FULL = 0x1f;
inline constexpr int KVM_EXIT_EPR = 0x17;
inline constexpr int KVM_EXIT_EXCEPTION = 0x1;
inline constexpr int KVM_EXIT_FAIL_ENTRY = 0x9;
inline constexpr int KVM_EXIT_HLT = 0x5;
inline constexpr int KVM_EXIT_HYPERCALL = 0x3;
inline constexpr int KVM_EXIT_HYPERCALL_LONG_MODE = 0x1;
inline constexpr int KVM_EXIT_HYPERV = 0x1b;
inline constexpr int KVM_EXIT_HYPERV_HCALL = 0x2;
inline constexpr int KVM_EXIT_HYPERV_SYNDBG = 0x3;
inline constexpr int KVM_EXIT_HYPERV_SYNIC = 0x1;
inline constexpr int KVM_EXIT_INTERNAL_ERROR = 0x11;
inline constexpr int KVM_EXIT_INTR = 0xa;
inline constexpr int KVM_EXIT_IO = 0x2;
inline constexpr int KVM_EXIT_IOAPIC_EOI = 0x1a;
inline constexpr int KVM_EXIT_IO_IN = 0x0;
inline constexpr int KVM_EXIT_IO_OUT = 0x1;
inline constexpr int KVM_EXIT_IRQ_WINDOW_OPEN = 0x7;
inline constexpr int KVM_EXIT_LOONGARCH_IOCSR = 0x26;
inline constexpr int KVM_EXIT_MEMORY_FAULT = 0x27;
inline constexpr int KVM_EXIT_MMIO = 0x6;
inline constexpr int KVM_EXIT_NMI = 0x10;
inline constexpr int KVM_EXIT_NOTIFY = 0x25;
inline constexpr int KVM_EXIT_OSI = 0x12;
inline constexpr int KVM_EXIT_PAPR_HCALL = 0x13;
inline constexpr int KVM_EXIT_RISCV_CSR = 0x24;
inline constexpr int KVM_EXIT_RISCV_SBI = 0x23;
inline constexpr int KVM_EXIT_S390_RESET = 0xe;
inline constexpr int KVM_EXIT_S390_SIEIC = 0xd;
inline constexpr int KVM_EXIT_S390_STSI = 0x19;
inline constexpr int KVM_EXIT_S390_TSCH = 0x16;
inline constexpr int KVM_EXIT_S390_UCONTROL = 0x14;
inline constexpr int KVM_EXIT_SET_TPR = 0xb;
inline constexpr int KVM_EXIT_SHUTDOWN = 0x8;
inline constexpr int KVM_EXIT_SNP_REQ_CERTS = 0x2b;
inline constexpr int KVM_EXIT_SYSTEM_EVENT = 0x18;
inline constexpr int KVM_EXIT_TDX = 0x28;
inline constexpr int KVM_EXIT_TPR_ACCESS = 0xc;
inline constexpr int KVM_EXIT_UNKNOWN = 0x0;
inline constexpr int KVM_EXIT_WATCHDOG = 0x15;
inline constexpr int KVM_EXIT_X86_BUS_LOCK = 0x21;
inline constexpr int KVM_EXIT_X86_RDMSR = 0x1d;
inline constexpr int KVM_EXIT_X86_WRMSR = 0x1e;
inline constexpr int KVM_EXIT_XEN = 0x22;
inline constexpr int KVM_EXIT_XEN_HCALL = 0x1;
inline constexpr int KVM_GUESTDBG_BLOCKIRQ = 0x100000;
inline constexpr int KVM_GUESTDBG_ENABLE = 0x1;
inline constexpr int KVM_GUESTDBG_INJECT_BP = 0x80000;
inline constexpr int KVM_GUESTDBG_INJECT_DB = 0x40000;
inline constexpr int KVM_GUESTDBG_SINGLESTEP = 0x2;
inline constexpr int KVM_GUESTDBG_USE_HW_BP = 0x20000;
inline constexpr int KVM_GUESTDBG_USE_SW_BP = 0x10000;
inline constexpr int KVM_HYPERV_CONN_ID_MASK = 0xffffff;
inline constexpr int KVM_HYPERV_EVENTFD_DEASSIGN = 0x1;
inline constexpr int KVM_INTERNAL_ERROR_DELIVERY_EV = 0x3;
inline constexpr int KVM_INTERNAL_ERROR_EMULATION = 0x1;
inline constexpr int KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES = 0x1;
inline constexpr int KVM_INTERNAL_ERROR_SIMUL_EX = 0x2;
inline constexpr int KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON = 0x4;
inline constexpr int KVM_IOAPIC_NUM_PINS = 0x18;
inline constexpr int KVM_IOEVENTFD_FLAG_DATAMATCH = 0x1;
inline constexpr int KVM_IOEVENTFD_FLAG_DEASSIGN = 0x4;
inline constexpr int KVM_IOEVENTFD_FLAG_PIO = 0x2;
inline constexpr int KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY = 0x8;
inline constexpr int KVM_IOEVENTFD_VALID_FLAG_MASK = 0x1f;
inline constexpr int KVM_IRQCHIP_IOAPIC = 0x2;
inline constexpr int KVM_IRQCHIP_PIC_MASTER = 0x0;
inline constexpr int KVM_IRQCHIP_PIC_SLAVE = 0x1;
inline constexpr int KVM_IRQFD_FLAG_DEASSIGN = 0x1;
inline constexpr int KVM_IRQFD_FLAG_RESAMPLE = 0x2;
inline constexpr int KVM_IRQ_ROUTING_HV_SINT = 0x4;
inline constexpr int KVM_IRQ_ROUTING_IRQCHIP = 0x1;
inline constexpr int KVM_IRQ_ROUTING_MSI = 0x2;
inline constexpr int KVM_IRQ_ROUTING_S390_ADAPTER = 0x3;
inline constexpr int KVM_IRQ_ROUTING_XEN_EVTCHN = 0x5;
inline constexpr uint32_t KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL = 0xffffffff;
inline constexpr int KVM_MAX_XCRS = 0x10;
inline constexpr int KVM_MEMORY_ATTRIBUTE_PRIVATE = 0x8;
inline constexpr int KVM_MEMORY_EXIT_FLAG_PRIVATE = 0x8;
inline constexpr int KVM_MEM_GUEST_MEMFD = 0x4;
inline constexpr int KVM_MEM_LOG_DIRTY_PAGES = 0x1;
inline constexpr int KVM_MEM_READONLY = 0x2;
inline constexpr int KVM_MMU_FSL_BOOKE_HV = 0x1;
inline constexpr int KVM_MMU_FSL_BOOKE_NOHV = 0x0;
inline constexpr int KVM_MP_STATE_AP_RESET_HOLD = 0x9;
inline constexpr int KVM_MP_STATE_CHECK_STOP = 0x6;
inline constexpr int KVM_MP_STATE_HALTED = 0x3;
inline constexpr int KVM_MP_STATE_INIT_RECEIVED = 0x2;
inline constexpr int KVM_MP_STATE_LOAD = 0x8;
inline constexpr int KVM_MP_STATE_OPERATING = 0x7;
inline constexpr int KVM_MP_STATE_RUNNABLE = 0x0;
inline constexpr int KVM_MP_STATE_SIPI_RECEIVED = 0x4;
inline constexpr int KVM_MP_STATE_STOPPED = 0x5;
inline constexpr int KVM_MP_STATE_SUSPENDED = 0xa;
inline constexpr int KVM_MP_STATE_UNINITIALIZED = 0x1;
inline constexpr int KVM_MSI_VALID_DEVID = 0x1;
inline constexpr int KVM_MSR_EXIT_REASON_FILTER = 0x4;
inline constexpr int KVM_MSR_EXIT_REASON_INVAL = 0x1;
inline constexpr int KVM_MSR_EXIT_REASON_UNKNOWN = 0x2;
inline constexpr int KVM_MSR_EXIT_REASON_VALID_MASK = 0x7;
inline constexpr int KVM_MSR_FILTER_DEFAULT_ALLOW = 0x0;
inline constexpr int KVM_MSR_FILTER_DEFAULT_DENY = 0x1;
inline constexpr int KVM_MSR_FILTER_MAX_BITMAP_SIZE = 0x600;
inline constexpr int KVM_MSR_FILTER_MAX_RANGES = 0x10;
inline constexpr int KVM_MSR_FILTER_RANGE_VALID_MASK = 0x3;
inline constexpr int KVM_MSR_FILTER_READ = 0x1;
inline constexpr int KVM_MSR_FILTER_VALID_MASK = 0x1;
inline constexpr int KVM_MSR_FILTER_WRITE = 0x2;
inline constexpr int KVM_NOTIFY_CONTEXT_INVALID = 0x1;
inline constexpr int KVM_NR_INTERRUPTS = 0x100;
inline constexpr int KVM_NR_IRQCHIPS = 0x3;
inline constexpr int KVM_PIO_PAGE_OFFSET = 0x1;
inline constexpr int KVM_PIT_FLAGS_HPET_LEGACY = 0x1;
inline constexpr int KVM_PIT_FLAGS_SPEAKER_DATA_ON = 0x2;
inline constexpr int KVM_PIT_SPEAKER_DUMMY = 0x1;
inline constexpr int KVM_PMU_CAP_DISABLE = 0x1;
inline constexpr int KVM_PMU_EVENT_ALLOW = 0x0;
inline constexpr int KVM_PMU_EVENT_DENY = 0x1;
inline constexpr int KVM_PMU_EVENT_FLAGS_VALID_MASK = 0x1;
inline constexpr int KVM_PMU_EVENT_FLAG_MASKED_EVENTS = 0x1;
inline constexpr uint64_t KVM_PMU_MASKED_ENTRY_EVENT_SELECT = 0xf000000ffull;
inline constexpr uint64_t KVM_PMU_MASKED_ENTRY_EXCLUDE = 0x80000000000000ull;
inline constexpr uint64_t KVM_PMU_MASKED_ENTRY_UMASK_MASK = 0xff00000000000000ull;
inline constexpr int KVM_PMU_MASKED_ENTRY_UMASK_MASK_SHIFT = 0x38;
inline constexpr int KVM_PMU_MASKED_ENTRY_UMASK_MATCH = 0xff00;
inline constexpr uint64_t KVM_REG_ARCH_MASK = 0xff00000000000000ull;
inline constexpr uint64_t KVM_REG_ARM = 0x4000000000000000ull;
inline constexpr uint64_t KVM_REG_ARM64 = 0x6000000000000000ull;
inline constexpr int KVM_REG_GENERIC = 0x0;
inline constexpr int KVM_REG_GUEST_SSP = 0x0;
inline constexpr uint64_t KVM_REG_IA64 = 0x3000000000000000ull;
inline constexpr uint64_t KVM_REG_LOONGARCH = 0x9000000000000000ull;
inline constexpr uint64_t KVM_REG_MIPS = 0x7000000000000000ull;
inline constexpr uint64_t KVM_REG_PPC = 0x1000000000000000ull;
inline constexpr uint64_t KVM_REG_RISCV = 0x8000000000000000ull;
inline constexpr uint64_t KVM_REG_S390 = 0x5000000000000000ull;
inline constexpr uint64_t KVM_REG_SIZE_MASK = 0xf0000000000000ull;
inline constexpr int KVM_REG_SIZE_SHIFT = 0x34;
inline constexpr uint64_t KVM_REG_SIZE_U1024 = 0x70000000000000ull;
inline constexpr uint64_t KVM_REG_SIZE_U128 = 0x40000000000000ull;
inline constexpr uint64_t KVM_REG_SIZE_U16 = 0x10000000000000ull;
inline constexpr uint64_t KVM_REG_SIZE_U2048 = 0x80000000000000ull;
inline constexpr uint64_t KVM_REG_SIZE_U256 = 0x50000000000000ull;
inline constexpr uint64_t KVM_REG_SIZE_U32 = 0x20000000000000ull;
inline constexpr uint64_t KVM_REG_SIZE_U512 = 0x60000000000000ull;
inline constexpr uint64_t KVM_REG_SIZE_U64 = 0x30000000000000ull;
inline constexpr int KVM_REG_SIZE_U8 = 0x0;
inline constexpr uint64_t KVM_REG_X86 = 0x2000000000000000ull;
inline constexpr int KVM_RUN_X86_BUS_LOCK = 0x2;
inline constexpr int KVM_RUN_X86_GUEST_MODE = 0x4;
inline constexpr int KVM_RUN_X86_SMM = 0x1;
inline constexpr int KVM_S390_GET_SKEYS_NONE = 0x1;
inline constexpr int KVM_S390_KEYOP_ISKE = 0x1;
inline constexpr int KVM_S390_KEYOP_RRBE = 0x2;
inline constexpr int KVM_S390_KEYOP_SSKE = 0x3;
inline constexpr int KVM_S390_SIE_PAGE_OFFSET = 0x1;
inline constexpr int KVM_S390_SKEYS_MAX = 0x100000;
inline constexpr uint64_t KVM_S390_STORE_STATUS_NOADDR = 0xffffffffffffffffull;
inline constexpr uint64_t KVM_S390_STORE_STATUS_PREFIXED = 0xfffffffffffffffeull;
inline constexpr int KVM_SEV_CERT_EXPORT = 0x13;
inline constexpr int KVM_SEV_DBG_DECRYPT = 0x11;
inline constexpr int KVM_SEV_DBG_ENCRYPT = 0x12;
inline constexpr int KVM_SEV_ES_INIT = 0x1;
inline constexpr int KVM_SEV_GET_ATTESTATION_REPORT = 0x14;
inline constexpr int KVM_SEV_GUEST_STATUS = 0x10;
inline constexpr int KVM_SEV_INIT = 0x0;
inline constexpr int KVM_SEV_INIT2 = 0x16;
inline constexpr int KVM_SEV_LAUNCH_FINISH = 0x7;
inline constexpr int KVM_SEV_LAUNCH_MEASURE = 0x6;
inline constexpr int KVM_SEV_LAUNCH_SECRET = 0x5;
inline constexpr int KVM_SEV_LAUNCH_START = 0x2;
inline constexpr int KVM_SEV_LAUNCH_UPDATE_DATA = 0x3;
inline constexpr int KVM_SEV_LAUNCH_UPDATE_VMSA = 0x4;
inline constexpr int KVM_SEV_NR_MAX = 0x68;
inline constexpr int KVM_SEV_PAGE_TYPE_INVALID = 0x0;
inline constexpr int KVM_SEV_RECEIVE_FINISH = 0xf;
inline constexpr int KVM_SEV_RECEIVE_START = 0xc;
inline constexpr int KVM_SEV_RECEIVE_UPDATE_DATA = 0xd;
inline constexpr int KVM_SEV_RECEIVE_UPDATE_VMSA = 0xe;
inline constexpr int KVM_SEV_SEND_CANCEL = 0x15;
inline constexpr int KVM_SEV_SEND_FINISH = 0xb;
inline constexpr int KVM_SEV_SEND_START = 0x8;
inline constexpr int KVM_SEV_SEND_UPDATE_DATA = 0x9;
inline constexpr int KVM_SEV_SEND_UPDATE_VMSA = 0xa;
inline constexpr int KVM_SEV_SNP_ENABLE_REQ_CERTS = 0x67;
inline constexpr int KVM_SEV_SNP_FINISH_DATA_SIZE = 0x20;
inline constexpr int KVM_SEV_SNP_ID_AUTH_SIZE = 0x1000;
inline constexpr int KVM_SEV_SNP_ID_BLOCK_SIZE = 0x60;
inline constexpr int KVM_SEV_SNP_LAUNCH_FINISH = 0x66;
inline constexpr int KVM_SEV_SNP_LAUNCH_START = 0x64;
inline constexpr int KVM_SEV_SNP_LAUNCH_UPDATE = 0x65;
inline constexpr int KVM_SEV_SNP_PAGE_TYPE_CPUID = 0x6;
inline constexpr int KVM_SEV_SNP_PAGE_TYPE_NORMAL = 0x1;
inline constexpr int KVM_SEV_SNP_PAGE_TYPE_SECRETS = 0x5;
inline constexpr int KVM_SEV_SNP_PAGE_TYPE_UNMEASURED = 0x4;
inline constexpr int KVM_SEV_SNP_PAGE_TYPE_ZERO = 0x3;
inline constexpr int KVM_SREGS2_FLAGS_PDPTRS_VALID = 0x1;
inline constexpr int KVM_STATE_NESTED_EVMCS = 0x4;
inline constexpr int KVM_STATE_NESTED_FORMAT_SVM = 0x1;
inline constexpr int KVM_STATE_NESTED_FORMAT_VMX = 0x0;
inline constexpr int KVM_STATE_NESTED_GIF_SET = 0x100;
inline constexpr int KVM_STATE_NESTED_GUEST_MODE = 0x1;
inline constexpr int KVM_STATE_NESTED_MTF_PENDING = 0x8;
inline constexpr int KVM_STATE_NESTED_RUN_PENDING = 0x2;
inline constexpr int KVM_STATE_NESTED_SMM_GUEST_MODE = 0x1;
inline constexpr int KVM_STATE_NESTED_SMM_VMXON = 0x2;
inline constexpr int KVM_STATE_NESTED_SVM_VMCB_SIZE = 0x1000;
inline constexpr int KVM_STATE_NESTED_VMX_VMCS_SIZE = 0x1000;
inline constexpr int KVM_STATE_VMX_PREEMPTION_TIMER_DEADLINE = 0x1;
inline constexpr int KVM_STATS_BASE_MASK = 0xf00;
inline constexpr int KVM_STATS_BASE_MAX = 0x100;
inline constexpr int KVM_STATS_BASE_POW10 = 0x0;
inline constexpr int KVM_STATS_BASE_POW2 = 0x100;
inline constexpr int KVM_STATS_BASE_SHIFT = 0x8;
inline constexpr int KVM_STATS_TYPE_CUMULATIVE = 0x0;
inline constexpr int KVM_STATS_TYPE_INSTANT = 0x1;
inline constexpr int KVM_STATS_TYPE_LINEAR_HIST = 0x3;
inline constexpr int KVM_STATS_TYPE_LOG_HIST = 0x4;
inline constexpr int KVM_STATS_TYPE_MASK = 0xf;
inline constexpr int KVM_STATS_TYPE_MAX = 0x4;
inline constexpr int KVM_STATS_TYPE_PEAK = 0x2;
inline constexpr int KVM_STATS_TYPE_SHIFT = 0x0;
inline constexpr int KVM_STATS_UNIT_BOOLEAN = 0x40;
inline constexpr int KVM_STATS_UNIT_BYTES = 0x10;
inline constexpr int KVM_STATS_UNIT_CYCLES = 0x30;
inline constexpr int KVM_STATS_UNIT_MASK = 0xf0;
inline constexpr int KVM_STATS_UNIT_MAX = 0x40;
inline constexpr int KVM_STATS_UNIT_NONE = 0x0;
inline constexpr int KVM_STATS_UNIT_SECONDS = 0x20;
inline constexpr int KVM_STATS_UNIT_SHIFT = 0x4;
inline constexpr int KVM_SYNC_X86_EVENTS = 0x4;
inline constexpr int KVM_SYNC_X86_REGS = 0x1;
inline constexpr int KVM_SYNC_X86_SREGS = 0x2;
inline constexpr int KVM_SYNC_X86_VALID_FIELDS = 0x7;
inline constexpr int KVM_SYSTEM_EVENT_CRASH = 0x3;
inline constexpr int KVM_SYSTEM_EVENT_RESET = 0x2;
inline constexpr int KVM_SYSTEM_EVENT_SEV_TERM = 0x6;
inline constexpr int KVM_SYSTEM_EVENT_SHUTDOWN = 0x1;
inline constexpr int KVM_SYSTEM_EVENT_SUSPEND = 0x5;
inline constexpr int KVM_SYSTEM_EVENT_TDX_FATAL = 0x7;
inline constexpr int KVM_SYSTEM_EVENT_WAKEUP = 0x4;
inline constexpr int KVM_TDX_CAPABILITIES = 0x0;
inline constexpr int KVM_TDX_CMD_NR_MAX = 0x6;
inline constexpr int KVM_TDX_FINALIZE_VM = 0x4;
inline constexpr int KVM_TDX_GET_CPUID = 0x5;
inline constexpr int KVM_TDX_INIT_MEM_REGION = 0x3;
inline constexpr int KVM_TDX_INIT_VCPU = 0x2;
inline constexpr int KVM_TDX_INIT_VM = 0x1;
inline constexpr int KVM_TDX_MEASURE_MEMORY_REGION = 0x1;
inline constexpr int KVM_VCPUEVENT_VALID_NMI_PENDING = 0x1;
inline constexpr int KVM_VCPUEVENT_VALID_PAYLOAD = 0x10;
inline constexpr int KVM_VCPUEVENT_VALID_SHADOW = 0x4;
inline constexpr int KVM_VCPUEVENT_VALID_SIPI_VECTOR = 0x2;
inline constexpr int KVM_VCPUEVENT_VALID_SMM = 0x8;
inline constexpr int KVM_VCPUEVENT_VALID_TRIPLE_FAULT = 0x20;
inline constexpr int KVM_VCPU_TSC_CTRL = 0x0;
inline constexpr int KVM_VCPU_TSC_OFFSET = 0x0;
inline constexpr int KVM_VM_MIPS_AUTO = 0x0;
inline constexpr int KVM_VM_MIPS_TE = 0x2;
inline constexpr int KVM_VM_MIPS_VZ = 0x1;
inline constexpr int KVM_VM_PPC_HV = 0x1;
inline constexpr int KVM_VM_PPC_PR = 0x2;
inline constexpr int KVM_VM_S390_UCONTROL = 0x1;
inline constexpr int KVM_VM_TYPE_ARM_IPA_SIZE_MASK = 0xff;
inline constexpr uint32_t KVM_VM_TYPE_ARM_MASK = 0x800000ff;
inline constexpr uint32_t KVM_VM_TYPE_ARM_PROTECTED = 0x80000000;
inline constexpr int KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK = 0x2;
inline constexpr int KVM_X2APIC_API_USE_32BIT_IDS = 0x1;
inline constexpr int KVM_X2APIC_DISABLE_SUPPRESS_EOI_BROADCAST = 0x8;
inline constexpr int KVM_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST = 0x4;
inline constexpr int KVM_X86_DEFAULT_VM = 0x0;
inline constexpr int KVM_X86_DISABLE_EXITS_APERFMPERF = 0x10;
inline constexpr int KVM_X86_DISABLE_EXITS_CSTATE = 0x8;
inline constexpr int KVM_X86_DISABLE_EXITS_HLT = 0x2;
inline constexpr int KVM_X86_DISABLE_EXITS_MWAIT = 0x1;
inline constexpr int KVM_X86_DISABLE_EXITS_PAUSE = 0x4;
inline constexpr int KVM_X86_GRP_SEV = 0x1;
inline constexpr int KVM_X86_GRP_SYSTEM = 0x0;
inline constexpr int KVM_X86_NOTIFY_VMEXIT_ENABLED = 0x1;
inline constexpr int KVM_X86_NOTIFY_VMEXIT_USER = 0x2;
inline constexpr int KVM_X86_QUIRK_CD_NW_CLEARED = 0x2;
inline constexpr int KVM_X86_QUIRK_FIX_HYPERCALL_INSN = 0x20;
inline constexpr int KVM_X86_QUIRK_IGNORE_GUEST_PAT = 0x200;
inline constexpr int KVM_X86_QUIRK_LAPIC_MMIO_HOLE = 0x4;
inline constexpr int KVM_X86_QUIRK_LINT0_REENABLED = 0x1;
inline constexpr int KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT = 0x10;
inline constexpr int KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS = 0x40;
inline constexpr int KVM_X86_QUIRK_NESTED_SVM_SHARED_PAT = 0x800;
inline constexpr int KVM_X86_QUIRK_OUT_7E_INC_RIP = 0x8;
inline constexpr int KVM_X86_QUIRK_SLOT_ZAP_ALL = 0x80;
inline constexpr int KVM_X86_QUIRK_STUFF_FEATURE_MSRS = 0x100;
inline constexpr int KVM_X86_QUIRK_VMCS12_ALLOW_FREEZE_IN_SMM = 0x400;
inline constexpr int KVM_X86_REG_TYPE_KVM = 0x3;
inline constexpr int KVM_X86_REG_TYPE_MSR = 0x2;
inline constexpr int KVM_X86_SEV_ES_VM = 0x3;
inline constexpr int KVM_X86_SEV_SNP_REQ_CERTS = 0x2;
inline constexpr int KVM_X86_SEV_VM = 0x2;
inline constexpr int KVM_X86_SEV_VMSA_FEATURES = 0x0;
inline constexpr int KVM_X86_SHADOW_INT_MOV_SS = 0x1;
inline constexpr int KVM_X86_SHADOW_INT_STI = 0x2;
inline constexpr int KVM_X86_SNP_POLICY_BITS = 0x1;
inline constexpr int KVM_X86_SNP_VM = 0x4;
inline constexpr int KVM_X86_SW_PROTECTED_VM = 0x1;
inline constexpr int KVM_X86_TDX_VM = 0x5;
inline constexpr int KVM_X86_XCOMP_GUEST_SUPP = 0x0;
inline constexpr int KVM_XEN_ATTR_TYPE_EVTCHN = 0x3;
inline constexpr int KVM_XEN_ATTR_TYPE_LONG_MODE = 0x0;
inline constexpr int KVM_XEN_ATTR_TYPE_RUNSTATE_UPDATE_FLAG = 0x5;
inline constexpr int KVM_XEN_ATTR_TYPE_SHARED_INFO = 0x1;
inline constexpr int KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA = 0x6;
inline constexpr int KVM_XEN_ATTR_TYPE_UPCALL_VECTOR = 0x2;
inline constexpr int KVM_XEN_ATTR_TYPE_XEN_VERSION = 0x4;
inline constexpr int KVM_XEN_EVTCHN_DEASSIGN = 0x1;
inline constexpr int KVM_XEN_EVTCHN_RESET = 0x4;
inline constexpr int KVM_XEN_EVTCHN_UPDATE = 0x2;
inline constexpr int KVM_XEN_HVM_CONFIG_EVTCHN_2LEVEL = 0x10;
inline constexpr int KVM_XEN_HVM_CONFIG_EVTCHN_SEND = 0x20;
inline constexpr int KVM_XEN_HVM_CONFIG_HYPERCALL_MSR = 0x1;
inline constexpr int KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL = 0x2;
inline constexpr int KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE = 0x80;
inline constexpr int KVM_XEN_HVM_CONFIG_RUNSTATE = 0x8;
inline constexpr int KVM_XEN_HVM_CONFIG_RUNSTATE_UPDATE_FLAG = 0x40;
inline constexpr int KVM_XEN_HVM_CONFIG_SHARED_INFO = 0x4;
inline constexpr int KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA = 0x100;
inline constexpr uint64_t KVM_XEN_INVALID_GFN = 0xffffffffffffffffull;
inline constexpr uint64_t KVM_XEN_INVALID_GPA = 0xffffffffffffffffull;
inline constexpr int KVM_XEN_MSR_MAX_INDEX = 0x4fffffff;
inline constexpr int KVM_XEN_MSR_MIN_INDEX = 0x40000000;
inline constexpr int KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR = 0x2;
inline constexpr int KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADJUST = 0x5;
inline constexpr int KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT = 0x3;
inline constexpr int KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA = 0x4;
inline constexpr int KVM_XEN_VCPU_ATTR_TYPE_TIMER = 0x7;
inline constexpr int KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR = 0x8;
inline constexpr int KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID = 0x6;
inline constexpr int KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO = 0x0;
inline constexpr int KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO_HVA = 0x9;
inline constexpr int KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO = 0x1;
inline constexpr int MC_VECTOR = 0x12;
inline constexpr int MF_VECTOR = 0x10;
inline constexpr int NM_VECTOR = 0x7;
inline constexpr int NP_VECTOR = 0xb;
inline constexpr int OF_VECTOR = 0x4;
inline constexpr int PF_VECTOR = 0xe;
inline constexpr int SS_VECTOR = 0xc;
inline constexpr int SX_VECTOR = 0x1e;
inline constexpr int TS_VECTOR = 0xa;
inline constexpr int UD_VECTOR = 0x6;
inline constexpr int VC_VECTOR = 0x1d;
inline constexpr int VE_VECTOR = 0x14;
inline constexpr int XM_VECTOR = 0x13;
