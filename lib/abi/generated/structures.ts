// Made by npm run generate:abi from linux-libc-dev 7.3.4-1~bpo13+1 and linux-headers-7.3.4+deb13-common 7.3.4-1~bpo13+1. Do not edit.
// Generator: sha256 63bdc1efdcbbbd16f2d3dd8d71e08978759be12a73f0a9e403baec1ca21c2395
// Below: sha256 8ebfe2ebc51f2872fdbd0754759c8042a8f89b51d6025abda4eec87f519c62ec
import { address, array, bits, bytes, i16, i32, i64, u16, u32, u64, u8 } from '../fields.js'
import { struct, type StructOf } from '../struct.js'

export const kvm_arm_device_addr = struct('kvm_arm_device_addr', 16, () => ({ id: [0, u64], addr: [8, u64] }))
export type kvm_arm_device_addr = StructOf<typeof kvm_arm_device_addr>

export const kvm_clear_dirty_log = struct('kvm_clear_dirty_log', 24, () => ({ slot: [0, u32], num_pages: [4, u32], first_page: [8, address], dirty_bitmap: [16, address], padding2: [16, u64] }))
export type kvm_clear_dirty_log = StructOf<typeof kvm_clear_dirty_log>

export const kvm_clock_data = struct('kvm_clock_data', 48, () => ({ clock: [0, u64], flags: [8, u32], pad0: [12, u32], realtime: [16, u64], host_tsc: [24, u64], pad: [32, array(u32, 4)] }))
export type kvm_clock_data = StructOf<typeof kvm_clock_data>

export const kvm_coalesced_mmio = struct('kvm_coalesced_mmio', 24, () => ({ phys_addr: [0, address], len: [8, u32], pad: [12, u32], pio: [12, u32], data: [16, bytes(8)] }))
export type kvm_coalesced_mmio = StructOf<typeof kvm_coalesced_mmio>

export const kvm_coalesced_mmio_ring = struct('kvm_coalesced_mmio_ring', 8, () => ({ first: [0, u32], last: [4, u32] }), () => ({ coalesced_mmio: kvm_coalesced_mmio }))
export type kvm_coalesced_mmio_ring = StructOf<typeof kvm_coalesced_mmio_ring>

export const kvm_coalesced_mmio_zone = struct('kvm_coalesced_mmio_zone', 16, () => ({ addr: [0, address], size: [8, u32], pad: [12, u32], pio: [12, u32] }))
export type kvm_coalesced_mmio_zone = StructOf<typeof kvm_coalesced_mmio_zone>

export const kvm_config_tlb = struct('kvm_config_tlb', 24, () => ({ params: [0, u64], array: [8, u64], mmu_type: [16, u32], array_len: [20, u32] }))
export type kvm_config_tlb = StructOf<typeof kvm_config_tlb>

export const kvm_cpuid_entry = struct('kvm_cpuid_entry', 24, () => ({ function: [0, u32], eax: [4, u32], ebx: [8, u32], ecx: [12, u32], edx: [16, u32], padding: [20, u32] }))
export type kvm_cpuid_entry = StructOf<typeof kvm_cpuid_entry>

export const kvm_cpuid = struct('kvm_cpuid', 8, () => ({ nent: [0, u32], padding: [4, u32] }), () => ({ entries: kvm_cpuid_entry }))
export type kvm_cpuid = StructOf<typeof kvm_cpuid>

export const kvm_cpuid_entry2 = struct('kvm_cpuid_entry2', 40, () => ({ function: [0, u32], index: [4, u32], flags: [8, u32], eax: [12, u32], ebx: [16, u32], ecx: [20, u32], edx: [24, u32], padding: [28, array(u32, 3)] }))
export type kvm_cpuid_entry2 = StructOf<typeof kvm_cpuid_entry2>

export const kvm_cpuid2 = struct('kvm_cpuid2', 8, () => ({ nent: [0, u32], padding: [4, u32] }), () => ({ entries: kvm_cpuid_entry2 }))
export type kvm_cpuid2 = StructOf<typeof kvm_cpuid2>

export const kvm_create_device = struct('kvm_create_device', 12, () => ({ type: [0, u32], fd: [4, u32], flags: [8, u32] }))
export type kvm_create_device = StructOf<typeof kvm_create_device>

export const kvm_create_guest_memfd = struct('kvm_create_guest_memfd', 64, () => ({ size: [0, address], flags: [8, u64], reserved: [16, array(u64, 6)] }))
export type kvm_create_guest_memfd = StructOf<typeof kvm_create_guest_memfd>

export const kvm_debug_exit_arch = struct('kvm_debug_exit_arch', 32, () => ({ exception: [0, u32], pad: [4, u32], pc: [8, u64], dr6: [16, u64], dr7: [24, u64] }))
export type kvm_debug_exit_arch = StructOf<typeof kvm_debug_exit_arch>

export const kvm_debugregs = struct('kvm_debugregs', 128, () => ({ db: [0, array(u64, 4)], dr6: [32, u64], dr7: [40, u64], flags: [48, u64], reserved: [56, array(u64, 9)] }))
export type kvm_debugregs = StructOf<typeof kvm_debugregs>

export const kvm_device_attr = struct('kvm_device_attr', 24, () => ({ flags: [0, u32], group: [4, u32], attr: [8, u64], addr: [16, address] }))
export type kvm_device_attr = StructOf<typeof kvm_device_attr>

export const kvm_dirty_gfn = struct('kvm_dirty_gfn', 16, () => ({ flags: [0, u32], slot: [4, u32], offset: [8, address] }))
export type kvm_dirty_gfn = StructOf<typeof kvm_dirty_gfn>

export const kvm_dirty_log = struct('kvm_dirty_log', 16, () => ({ slot: [0, u32], padding1: [4, u32], dirty_bitmap: [8, address], padding2: [8, u64] }))
export type kvm_dirty_log = StructOf<typeof kvm_dirty_log>

export const kvm_dirty_tlb = struct('kvm_dirty_tlb', 16, () => ({ bitmap: [0, u64], num_dirty: [8, u32] }))
export type kvm_dirty_tlb = StructOf<typeof kvm_dirty_tlb>

export const kvm_dtable = struct('kvm_dtable', 16, () => ({ base: [0, u64], limit: [8, u16], padding: [10, array(u16, 3)] }))
export type kvm_dtable = StructOf<typeof kvm_dtable>

export const kvm_enable_cap = struct('kvm_enable_cap', 104, () => ({ cap: [0, u32], flags: [4, u32], args: [8, array(u64, 4)], pad: [40, bytes(64)] }))
export type kvm_enable_cap = StructOf<typeof kvm_enable_cap>

export const kvm_enc_region = struct('kvm_enc_region', 16, () => ({ addr: [0, address], size: [8, address] }))
export type kvm_enc_region = StructOf<typeof kvm_enc_region>

export const kvm_exit_snp_req_certs = struct('kvm_exit_snp_req_certs', 24, () => ({ gpa: [0, u64], npages: [8, u64], ret: [16, u64] }))
export type kvm_exit_snp_req_certs = StructOf<typeof kvm_exit_snp_req_certs>

export const kvm_fpu = struct('kvm_fpu', 416, () => ({ fpr: [0, array(bytes(8), 16)], fcw: [128, u16], fsw: [130, u16], ftwx: [132, u8], pad1: [133, u8], last_opcode: [134, u16], last_ip: [136, u64], last_dp: [144, u64], xmm: [152, array(bytes(16), 16)], mxcsr: [408, u32], pad2: [412, u32] }))
export type kvm_fpu = StructOf<typeof kvm_fpu>

export const kvm_guest_debug_arch = struct('kvm_guest_debug_arch', 64, () => ({ debugreg: [0, array(u64, 8)] }))
export type kvm_guest_debug_arch = StructOf<typeof kvm_guest_debug_arch>

export const kvm_guest_debug = struct('kvm_guest_debug', 72, () => ({ control: [0, u32], pad: [4, u32], arch: [8, kvm_guest_debug_arch] }))
export type kvm_guest_debug = StructOf<typeof kvm_guest_debug>

export const kvm_hyperv_eventfd = struct('kvm_hyperv_eventfd', 24, () => ({ conn_id: [0, u32], fd: [4, i32], flags: [8, u32], padding: [12, array(u32, 3)] }))
export type kvm_hyperv_eventfd = StructOf<typeof kvm_hyperv_eventfd>

export const kvm_hyperv_exit = struct('kvm_hyperv_exit', 56, () => ({ type: [0, u32], pad1: [4, u32], u: [8, struct('kvm_hyperv_exit.u', 48, () => ({ synic: [0, struct('kvm_hyperv_exit.u.synic', 32, () => ({ msr: [0, u32], pad2: [4, u32], control: [8, u64], evt_page: [16, u64], msg_page: [24, u64] }))], hcall: [0, struct('kvm_hyperv_exit.u.hcall', 32, () => ({ input: [0, u64], result: [8, u64], params: [16, array(u64, 2)] }))], syndbg: [0, struct('kvm_hyperv_exit.u.syndbg', 48, () => ({ msr: [0, u32], pad2: [4, u32], control: [8, u64], status: [16, u64], send_page: [24, u64], recv_page: [32, u64], pending_page: [40, u64] }))] }))] }))
export type kvm_hyperv_exit = StructOf<typeof kvm_hyperv_exit>

export const kvm_interrupt = struct('kvm_interrupt', 4, () => ({ irq: [0, u32] }))
export type kvm_interrupt = StructOf<typeof kvm_interrupt>

export const kvm_ioapic_state = struct('kvm_ioapic_state', 216, () => ({ base_address: [0, u64], ioregsel: [8, u32], id: [12, u32], irr: [16, u32], pad: [20, u32], redirtbl: [24, array(struct('kvm_ioapic_state.redirtbl', 8, () => ({ bits: [0, u64], fields: [0, struct('kvm_ioapic_state.redirtbl.fields', 8, () => ({ vector: [0, u8], delivery_mode: [1, bits(1, 0, 3)], dest_mode: [1, bits(1, 3, 1)], delivery_status: [1, bits(1, 4, 1)], polarity: [1, bits(1, 5, 1)], remote_irr: [1, bits(1, 6, 1)], trig_mode: [1, bits(1, 7, 1)], mask: [2, bits(1, 0, 1)], reserve: [2, bits(1, 1, 7)], reserved: [3, bytes(4)], dest_id: [7, u8] }))] })), 24)] }))
export type kvm_ioapic_state = StructOf<typeof kvm_ioapic_state>

export const kvm_ioeventfd = struct('kvm_ioeventfd', 64, () => ({ datamatch: [0, u64], addr: [8, address], len: [16, u32], fd: [20, i32], flags: [24, u32], pad: [28, bytes(36)] }))
export type kvm_ioeventfd = StructOf<typeof kvm_ioeventfd>

export const kvm_irq_level = struct('kvm_irq_level', 8, () => ({ irq: [0, u32], status: [0, i32], level: [4, u32] }))
export type kvm_irq_level = StructOf<typeof kvm_irq_level>

export const kvm_irq_routing_irqchip = struct('kvm_irq_routing_irqchip', 8, () => ({ irqchip: [0, u32], pin: [4, u32] }))
export type kvm_irq_routing_irqchip = StructOf<typeof kvm_irq_routing_irqchip>

export const kvm_irq_routing_msi = struct('kvm_irq_routing_msi', 16, () => ({ address_lo: [0, u32], address_hi: [4, u32], data: [8, u32], pad: [12, u32], devid: [12, u32] }))
export type kvm_irq_routing_msi = StructOf<typeof kvm_irq_routing_msi>

export const kvm_irq_routing_s390_adapter = struct('kvm_irq_routing_s390_adapter', 32, () => ({ ind_addr: [0, u64], summary_addr: [8, u64], ind_offset: [16, u64], summary_offset: [24, u32], adapter_id: [28, u32] }))
export type kvm_irq_routing_s390_adapter = StructOf<typeof kvm_irq_routing_s390_adapter>

export const kvm_irq_routing_hv_sint = struct('kvm_irq_routing_hv_sint', 8, () => ({ vcpu: [0, u32], sint: [4, u32] }))
export type kvm_irq_routing_hv_sint = StructOf<typeof kvm_irq_routing_hv_sint>

export const kvm_irq_routing_xen_evtchn = struct('kvm_irq_routing_xen_evtchn', 12, () => ({ port: [0, u32], vcpu: [4, u32], priority: [8, u32] }))
export type kvm_irq_routing_xen_evtchn = StructOf<typeof kvm_irq_routing_xen_evtchn>

export const kvm_irq_routing_entry = struct('kvm_irq_routing_entry', 48, () => ({ gsi: [0, u32], type: [4, u32], flags: [8, u32], pad: [12, u32], u: [16, struct('kvm_irq_routing_entry.u', 32, () => ({ irqchip: [0, kvm_irq_routing_irqchip], msi: [0, kvm_irq_routing_msi], adapter: [0, kvm_irq_routing_s390_adapter], hv_sint: [0, kvm_irq_routing_hv_sint], xen_evtchn: [0, kvm_irq_routing_xen_evtchn], pad: [0, array(u32, 8)] }))] }))
export type kvm_irq_routing_entry = StructOf<typeof kvm_irq_routing_entry>

export const kvm_irq_routing = struct('kvm_irq_routing', 8, () => ({ nr: [0, u32], flags: [4, u32] }), () => ({ entries: kvm_irq_routing_entry }))
export type kvm_irq_routing = StructOf<typeof kvm_irq_routing>

export const kvm_pic_state = struct('kvm_pic_state', 16, () => ({ last_irr: [0, u8], irr: [1, u8], imr: [2, u8], isr: [3, u8], priority_add: [4, u8], irq_base: [5, u8], read_reg_select: [6, u8], poll: [7, u8], special_mask: [8, u8], init_state: [9, u8], auto_eoi: [10, u8], rotate_on_auto_eoi: [11, u8], special_fully_nested_mode: [12, u8], init4: [13, u8], elcr: [14, u8], elcr_mask: [15, u8] }))
export type kvm_pic_state = StructOf<typeof kvm_pic_state>

export const kvm_irqchip = struct('kvm_irqchip', 520, () => ({ chip_id: [0, u32], pad: [4, u32], chip: [8, struct('kvm_irqchip.chip', 512, () => ({ dummy: [0, bytes(512)], pic: [0, kvm_pic_state], ioapic: [0, kvm_ioapic_state] }))] }))
export type kvm_irqchip = StructOf<typeof kvm_irqchip>

export const kvm_irqfd = struct('kvm_irqfd', 32, () => ({ fd: [0, u32], gsi: [4, u32], flags: [8, u32], resamplefd: [12, u32], pad: [16, bytes(16)] }))
export type kvm_irqfd = StructOf<typeof kvm_irqfd>

export const kvm_lapic_state = struct('kvm_lapic_state', 1024, () => ({ regs: [0, bytes(1024)] }))
export type kvm_lapic_state = StructOf<typeof kvm_lapic_state>

export const kvm_memory_attributes = struct('kvm_memory_attributes', 32, () => ({ address: [0, address], size: [8, address], attributes: [16, u64], flags: [24, u64] }))
export type kvm_memory_attributes = StructOf<typeof kvm_memory_attributes>

export const kvm_mp_state = struct('kvm_mp_state', 4, () => ({ mp_state: [0, u32] }))
export type kvm_mp_state = StructOf<typeof kvm_mp_state>

export const kvm_msi = struct('kvm_msi', 32, () => ({ address_lo: [0, u32], address_hi: [4, u32], data: [8, u32], flags: [12, u32], devid: [16, u32], pad: [20, bytes(12)] }))
export type kvm_msi = StructOf<typeof kvm_msi>

export const kvm_msr_entry = struct('kvm_msr_entry', 16, () => ({ index: [0, u32], reserved: [4, u32], data: [8, u64] }))
export type kvm_msr_entry = StructOf<typeof kvm_msr_entry>

export const kvm_msr_filter_range = struct('kvm_msr_filter_range', 24, () => ({ flags: [0, u32], nmsrs: [4, u32], base: [8, u32], bitmap: [16, u64] }))
export type kvm_msr_filter_range = StructOf<typeof kvm_msr_filter_range>

export const kvm_msr_filter = struct('kvm_msr_filter', 392, () => ({ flags: [0, u32], ranges: [8, array(kvm_msr_filter_range, 16)] }))
export type kvm_msr_filter = StructOf<typeof kvm_msr_filter>

export const kvm_msr_list = struct('kvm_msr_list', 4, () => ({ nmsrs: [0, u32] }), () => ({ indices: u32 }))
export type kvm_msr_list = StructOf<typeof kvm_msr_list>

export const kvm_msrs = struct('kvm_msrs', 8, () => ({ nmsrs: [0, u32], pad: [4, u32] }), () => ({ entries: kvm_msr_entry }))
export type kvm_msrs = StructOf<typeof kvm_msrs>

export const kvm_vmx_nested_state_hdr = struct('kvm_vmx_nested_state_hdr', 32, () => ({ vmxon_pa: [0, u64], vmcs12_pa: [8, u64], smm: [16, struct('kvm_vmx_nested_state_hdr.smm', 2, () => ({ flags: [0, u16] }))], pad: [18, u16], flags: [20, u32], preemption_timer_deadline: [24, u64] }))
export type kvm_vmx_nested_state_hdr = StructOf<typeof kvm_vmx_nested_state_hdr>

export const kvm_svm_nested_state_hdr = struct('kvm_svm_nested_state_hdr', 16, () => ({ vmcb_pa: [0, u64], gpat: [8, u64] }))
export type kvm_svm_nested_state_hdr = StructOf<typeof kvm_svm_nested_state_hdr>

export const kvm_vmx_nested_state_data = struct('kvm_vmx_nested_state_data', 8192, () => ({ vmcs12: [0, bytes(4096)], shadow_vmcs12: [4096, bytes(4096)] }))
export type kvm_vmx_nested_state_data = StructOf<typeof kvm_vmx_nested_state_data>

export const kvm_svm_nested_state_data = struct('kvm_svm_nested_state_data', 4096, () => ({ vmcb12: [0, bytes(4096)] }))
export type kvm_svm_nested_state_data = StructOf<typeof kvm_svm_nested_state_data>

export const kvm_nested_state = struct('kvm_nested_state', 128, () => ({ flags: [0, u16], format: [2, u16], size: [4, u32], hdr: [8, struct('kvm_nested_state.hdr', 120, () => ({ vmx: [0, kvm_vmx_nested_state_hdr], svm: [0, kvm_svm_nested_state_hdr], pad: [0, bytes(120)] }))] }), () => ({ vmx: kvm_vmx_nested_state_data, svm: kvm_svm_nested_state_data }))
export type kvm_nested_state = StructOf<typeof kvm_nested_state>

export const kvm_one_reg = struct('kvm_one_reg', 16, () => ({ id: [0, u64], addr: [8, address] }))
export type kvm_one_reg = StructOf<typeof kvm_one_reg>

export const kvm_pit_channel_state = struct('kvm_pit_channel_state', 24, () => ({ count: [0, u32], latched_count: [4, u16], count_latched: [6, u8], status_latched: [7, u8], status: [8, u8], read_state: [9, u8], write_state: [10, u8], write_latch: [11, u8], rw_mode: [12, u8], mode: [13, u8], bcd: [14, u8], gate: [15, u8], count_load_time: [16, i64] }))
export type kvm_pit_channel_state = StructOf<typeof kvm_pit_channel_state>

export const kvm_pit_config = struct('kvm_pit_config', 64, () => ({ flags: [0, u32], pad: [4, array(u32, 15)] }))
export type kvm_pit_config = StructOf<typeof kvm_pit_config>

export const kvm_pit_state = struct('kvm_pit_state', 72, () => ({ channels: [0, array(kvm_pit_channel_state, 3)] }))
export type kvm_pit_state = StructOf<typeof kvm_pit_state>

export const kvm_pit_state2 = struct('kvm_pit_state2', 112, () => ({ channels: [0, array(kvm_pit_channel_state, 3)], flags: [72, u32], reserved: [76, array(u32, 9)] }))
export type kvm_pit_state2 = StructOf<typeof kvm_pit_state2>

export const kvm_pmu_event_filter = struct('kvm_pmu_event_filter', 32, () => ({ action: [0, u32], nevents: [4, u32], fixed_counter_bitmap: [8, u32], flags: [12, u32], pad: [16, array(u32, 4)] }), () => ({ events: u64 }))
export type kvm_pmu_event_filter = StructOf<typeof kvm_pmu_event_filter>

export const kvm_pre_fault_memory = struct('kvm_pre_fault_memory', 64, () => ({ gpa: [0, address], size: [8, address], flags: [16, u64], padding: [24, array(u64, 5)] }))
export type kvm_pre_fault_memory = StructOf<typeof kvm_pre_fault_memory>

export const kvm_reg_list = struct('kvm_reg_list', 8, () => ({ n: [0, u64] }), () => ({ reg: u64 }))
export type kvm_reg_list = StructOf<typeof kvm_reg_list>

export const kvm_regs = struct('kvm_regs', 144, () => ({ rax: [0, u64], rbx: [8, u64], rcx: [16, u64], rdx: [24, u64], rsi: [32, u64], rdi: [40, u64], rsp: [48, u64], rbp: [56, u64], r8: [64, u64], r9: [72, u64], r10: [80, u64], r11: [88, u64], r12: [96, u64], r13: [104, u64], r14: [112, u64], r15: [120, u64], rip: [128, u64], rflags: [136, u64] }))
export type kvm_regs = StructOf<typeof kvm_regs>

export const kvm_reinject_control = struct('kvm_reinject_control', 32, () => ({ pit_reinject: [0, u8], reserved: [1, bytes(31)] }))
export type kvm_reinject_control = StructOf<typeof kvm_reinject_control>

export const kvm_xen_exit = struct('kvm_xen_exit', 80, () => ({ type: [0, u32], u: [8, struct('kvm_xen_exit.u', 72, () => ({ hcall: [0, struct('kvm_xen_exit.u.hcall', 72, () => ({ longmode: [0, u32], cpl: [4, u32], input: [8, u64], result: [16, u64], params: [24, array(u64, 6)] }))] }))] }))
export type kvm_xen_exit = StructOf<typeof kvm_xen_exit>

export const kvm_segment = struct('kvm_segment', 24, () => ({ base: [0, u64], limit: [8, u32], selector: [12, u16], type: [14, u8], present: [15, u8], dpl: [16, u8], db: [17, u8], s: [18, u8], l: [19, u8], g: [20, u8], avl: [21, u8], unusable: [22, u8], padding: [23, u8] }))
export type kvm_segment = StructOf<typeof kvm_segment>

export const kvm_sregs = struct('kvm_sregs', 312, () => ({ cs: [0, kvm_segment], ds: [24, kvm_segment], es: [48, kvm_segment], fs: [72, kvm_segment], gs: [96, kvm_segment], ss: [120, kvm_segment], tr: [144, kvm_segment], ldt: [168, kvm_segment], gdt: [192, kvm_dtable], idt: [208, kvm_dtable], cr0: [224, u64], cr2: [232, u64], cr3: [240, u64], cr4: [248, u64], cr8: [256, u64], efer: [264, u64], apic_base: [272, u64], interrupt_bitmap: [280, array(u64, 4)] }))
export type kvm_sregs = StructOf<typeof kvm_sregs>

export const kvm_vcpu_events = struct('kvm_vcpu_events', 64, () => ({ exception: [0, struct('kvm_vcpu_events.exception', 8, () => ({ injected: [0, u8], nr: [1, u8], has_error_code: [2, u8], pending: [3, u8], error_code: [4, u32] }))], interrupt: [8, struct('kvm_vcpu_events.interrupt', 4, () => ({ injected: [0, u8], nr: [1, u8], soft: [2, u8], shadow: [3, u8] }))], nmi: [12, struct('kvm_vcpu_events.nmi', 4, () => ({ injected: [0, u8], pending: [1, u8], masked: [2, u8], pad: [3, u8] }))], sipi_vector: [16, u32], flags: [20, u32], smi: [24, struct('kvm_vcpu_events.smi', 4, () => ({ smm: [0, u8], pending: [1, u8], smm_inside_nmi: [2, u8], latched_init: [3, u8] }))], triple_fault: [28, struct('kvm_vcpu_events.triple_fault', 1, () => ({ pending: [0, u8] }))], reserved: [29, bytes(26)], exception_has_payload: [55, u8], exception_payload: [56, u64] }))
export type kvm_vcpu_events = StructOf<typeof kvm_vcpu_events>

export const kvm_sync_regs = struct('kvm_sync_regs', 520, () => ({ regs: [0, kvm_regs], sregs: [144, kvm_sregs], events: [456, kvm_vcpu_events] }))
export type kvm_sync_regs = StructOf<typeof kvm_sync_regs>

export const kvm_run = struct('kvm_run', 2352, () => ({ request_interrupt_window: [0, u8], immediate_exit: [1, u8], padding1: [2, bytes(6)], exit_reason: [8, u32], ready_for_interrupt_injection: [12, u8], if_flag: [13, u8], flags: [14, u16], cr8: [16, u64], apic_base: [24, u64], hw: [32, struct('kvm_run.hw', 8, () => ({ hardware_exit_reason: [0, u64] }))], fail_entry: [32, struct('kvm_run.fail_entry', 16, () => ({ hardware_entry_failure_reason: [0, u64], cpu: [8, u32] }))], ex: [32, struct('kvm_run.ex', 8, () => ({ exception: [0, u32], error_code: [4, u32] }))], io: [32, struct('kvm_run.io', 16, () => ({ direction: [0, u8], size: [1, u8], port: [2, u16], count: [4, u32], data_offset: [8, u64] }))], debug: [32, struct('kvm_run.debug', 32, () => ({ arch: [0, kvm_debug_exit_arch] }))], mmio: [32, struct('kvm_run.mmio', 24, () => ({ phys_addr: [0, u64], data: [8, bytes(8)], len: [16, u32], is_write: [20, u8] }))], iocsr_io: [32, struct('kvm_run.iocsr_io', 24, () => ({ phys_addr: [0, u64], data: [8, bytes(8)], len: [16, u32], is_write: [20, u8] }))], hypercall: [32, struct('kvm_run.hypercall', 72, () => ({ nr: [0, u64], args: [8, array(u64, 6)], ret: [56, u64], longmode: [64, u32], flags: [64, u64] }))], tpr_access: [32, struct('kvm_run.tpr_access', 16, () => ({ rip: [0, u64], is_write: [8, u32], pad: [12, u32] }))], s390_sieic: [32, struct('kvm_run.s390_sieic', 8, () => ({ icptcode: [0, u8], ipa: [2, u16], ipb: [4, u32] }))], s390_reset_flags: [32, u64], s390_ucontrol: [32, struct('kvm_run.s390_ucontrol', 16, () => ({ trans_exc_code: [0, u64], pgm_code: [8, u32] }))], dcr: [32, struct('kvm_run.dcr', 12, () => ({ dcrn: [0, u32], data: [4, u32], is_write: [8, u8] }))], internal: [32, struct('kvm_run.internal', 136, () => ({ suberror: [0, u32], ndata: [4, u32], data: [8, array(u64, 16)] }))], emulation_failure: [32, struct('kvm_run.emulation_failure', 32, () => ({ suberror: [0, u32], ndata: [4, u32], flags: [8, u64], insn_size: [16, u8], insn_bytes: [17, bytes(15)] }))], osi: [32, struct('kvm_run.osi', 256, () => ({ gprs: [0, array(u64, 32)] }))], papr_hcall: [32, struct('kvm_run.papr_hcall', 88, () => ({ nr: [0, u64], ret: [8, u64], args: [16, array(u64, 9)] }))], s390_tsch: [32, struct('kvm_run.s390_tsch', 20, () => ({ subchannel_id: [0, u16], subchannel_nr: [2, u16], io_int_parm: [4, u32], io_int_word: [8, u32], ipb: [12, u32], dequeued: [16, u8] }))], epr: [32, struct('kvm_run.epr', 4, () => ({ epr: [0, u32] }))], system_event: [32, struct('kvm_run.system_event', 136, () => ({ type: [0, u32], ndata: [4, u32], flags: [8, u64], data: [8, array(u64, 16)] }))], s390_stsi: [32, struct('kvm_run.s390_stsi', 16, () => ({ addr: [0, u64], ar: [8, u8], reserved: [9, u8], fc: [10, u8], sel1: [11, u8], sel2: [12, u16] }))], eoi: [32, struct('kvm_run.eoi', 1, () => ({ vector: [0, u8] }))], hyperv: [32, kvm_hyperv_exit], arm_nisv: [32, struct('kvm_run.arm_nisv', 16, () => ({ esr_iss: [0, u64], fault_ipa: [8, u64] }))], msr: [32, struct('kvm_run.msr', 24, () => ({ error: [0, u8], pad: [1, bytes(7)], reason: [8, u32], index: [12, u32], data: [16, u64] }))], xen: [32, kvm_xen_exit], riscv_sbi: [32, struct('kvm_run.riscv_sbi', 80, () => ({ extension_id: [0, u64], function_id: [8, u64], args: [16, array(u64, 6)], ret: [64, array(u64, 2)] }))], riscv_csr: [32, struct('kvm_run.riscv_csr', 32, () => ({ csr_num: [0, u64], new_value: [8, u64], write_mask: [16, u64], ret_value: [24, u64] }))], notify: [32, struct('kvm_run.notify', 4, () => ({ flags: [0, u32] }))], memory_fault: [32, struct('kvm_run.memory_fault', 24, () => ({ flags: [0, u64], gpa: [8, u64], size: [16, u64] }))], tdx: [32, struct('kvm_run.tdx', 64, () => ({ flags: [0, u64], nr: [8, u64], unknown: [16, struct('kvm_run.tdx.unknown', 48, () => ({ ret: [0, u64], data: [8, array(u64, 5)] }))], get_quote: [16, struct('kvm_run.tdx.get_quote', 24, () => ({ ret: [0, u64], gpa: [8, u64], size: [16, u64] }))], get_tdvmcall_info: [16, struct('kvm_run.tdx.get_tdvmcall_info', 48, () => ({ ret: [0, u64], leaf: [8, u64], r11: [16, u64], r12: [24, u64], r13: [32, u64], r14: [40, u64] }))], setup_event_notify: [16, struct('kvm_run.tdx.setup_event_notify', 16, () => ({ ret: [0, u64], vector: [8, u64] }))] }))], arm_sea: [32, struct('kvm_run.arm_sea', 32, () => ({ flags: [0, u64], esr: [8, u64], gva: [16, u64], gpa: [24, u64] }))], snp_req_certs: [32, kvm_exit_snp_req_certs], padding: [32, bytes(256)], kvm_valid_regs: [288, u64], kvm_dirty_regs: [296, u64], s: [304, struct('kvm_run.s', 2048, () => ({ regs: [0, kvm_sync_regs], padding: [0, bytes(2048)] }))] }))
export type kvm_run = StructOf<typeof kvm_run>

export const kvm_s390_keyop = struct('kvm_s390_keyop', 16, () => ({ guest_addr: [0, u64], key: [8, u8], operation: [9, u8], pad: [10, bytes(6)] }))
export type kvm_s390_keyop = StructOf<typeof kvm_s390_keyop>

export const kvm_sev_attestation_report = struct('kvm_sev_attestation_report', 32, () => ({ mnonce: [0, bytes(16)], uaddr: [16, u64], len: [24, u32], pad0: [28, u32] }))
export type kvm_sev_attestation_report = StructOf<typeof kvm_sev_attestation_report>

export const kvm_sev_cmd = struct('kvm_sev_cmd', 24, () => ({ id: [0, u32], pad0: [4, u32], data: [8, u64], error: [16, u32], sev_fd: [20, u32] }))
export type kvm_sev_cmd = StructOf<typeof kvm_sev_cmd>

export const kvm_sev_dbg = struct('kvm_sev_dbg', 24, () => ({ src_uaddr: [0, u64], dst_uaddr: [8, u64], len: [16, u32], pad0: [20, u32] }))
export type kvm_sev_dbg = StructOf<typeof kvm_sev_dbg>

export const kvm_sev_guest_status = struct('kvm_sev_guest_status', 12, () => ({ handle: [0, u32], policy: [4, u32], state: [8, u32] }))
export type kvm_sev_guest_status = StructOf<typeof kvm_sev_guest_status>

export const kvm_sev_init = struct('kvm_sev_init', 48, () => ({ vmsa_features: [0, u64], flags: [8, u32], ghcb_version: [12, u16], pad1: [14, u16], pad2: [16, array(u32, 8)] }))
export type kvm_sev_init = StructOf<typeof kvm_sev_init>

export const kvm_sev_launch_measure = struct('kvm_sev_launch_measure', 16, () => ({ uaddr: [0, u64], len: [8, u32], pad0: [12, u32] }))
export type kvm_sev_launch_measure = StructOf<typeof kvm_sev_launch_measure>

export const kvm_sev_launch_secret = struct('kvm_sev_launch_secret', 48, () => ({ hdr_uaddr: [0, u64], hdr_len: [8, u32], pad0: [12, u32], guest_uaddr: [16, u64], guest_len: [24, u32], pad1: [28, u32], trans_uaddr: [32, u64], trans_len: [40, u32], pad2: [44, u32] }))
export type kvm_sev_launch_secret = StructOf<typeof kvm_sev_launch_secret>

export const kvm_sev_launch_start = struct('kvm_sev_launch_start', 40, () => ({ handle: [0, u32], policy: [4, u32], dh_uaddr: [8, u64], dh_len: [16, u32], pad0: [20, u32], session_uaddr: [24, u64], session_len: [32, u32], pad1: [36, u32] }))
export type kvm_sev_launch_start = StructOf<typeof kvm_sev_launch_start>

export const kvm_sev_launch_update_data = struct('kvm_sev_launch_update_data', 16, () => ({ uaddr: [0, u64], len: [8, u32], pad0: [12, u32] }))
export type kvm_sev_launch_update_data = StructOf<typeof kvm_sev_launch_update_data>

export const kvm_sev_receive_start = struct('kvm_sev_receive_start', 40, () => ({ handle: [0, u32], policy: [4, u32], pdh_uaddr: [8, u64], pdh_len: [16, u32], pad0: [20, u32], session_uaddr: [24, u64], session_len: [32, u32], pad1: [36, u32] }))
export type kvm_sev_receive_start = StructOf<typeof kvm_sev_receive_start>

export const kvm_sev_receive_update_data = struct('kvm_sev_receive_update_data', 48, () => ({ hdr_uaddr: [0, u64], hdr_len: [8, u32], pad0: [12, u32], guest_uaddr: [16, u64], guest_len: [24, u32], pad1: [28, u32], trans_uaddr: [32, u64], trans_len: [40, u32], pad2: [44, u32] }))
export type kvm_sev_receive_update_data = StructOf<typeof kvm_sev_receive_update_data>

export const kvm_sev_send_start = struct('kvm_sev_send_start', 72, () => ({ policy: [0, u32], pad0: [4, u32], pdh_cert_uaddr: [8, u64], pdh_cert_len: [16, u32], pad1: [20, u32], plat_certs_uaddr: [24, u64], plat_certs_len: [32, u32], pad2: [36, u32], amd_certs_uaddr: [40, u64], amd_certs_len: [48, u32], pad3: [52, u32], session_uaddr: [56, u64], session_len: [64, u32], pad4: [68, u32] }))
export type kvm_sev_send_start = StructOf<typeof kvm_sev_send_start>

export const kvm_sev_send_update_data = struct('kvm_sev_send_update_data', 48, () => ({ hdr_uaddr: [0, u64], hdr_len: [8, u32], pad0: [12, u32], guest_uaddr: [16, u64], guest_len: [24, u32], pad1: [28, u32], trans_uaddr: [32, u64], trans_len: [40, u32], pad2: [44, u32] }))
export type kvm_sev_send_update_data = StructOf<typeof kvm_sev_send_update_data>

export const kvm_sev_snp_launch_finish = struct('kvm_sev_snp_launch_finish', 88, () => ({ id_block_uaddr: [0, u64], id_auth_uaddr: [8, u64], id_block_en: [16, u8], auth_key_en: [17, u8], vcek_disabled: [18, u8], host_data: [19, bytes(32)], pad0: [51, bytes(3)], flags: [54, u16], pad1: [56, array(u64, 4)] }))
export type kvm_sev_snp_launch_finish = StructOf<typeof kvm_sev_snp_launch_finish>

export const kvm_sev_snp_launch_start = struct('kvm_sev_snp_launch_start', 64, () => ({ policy: [0, u64], gosvw: [8, bytes(16)], flags: [24, u16], pad0: [26, bytes(6)], pad1: [32, array(u64, 4)] }))
export type kvm_sev_snp_launch_start = StructOf<typeof kvm_sev_snp_launch_start>

export const kvm_sev_snp_launch_update = struct('kvm_sev_snp_launch_update', 64, () => ({ gfn_start: [0, u64], uaddr: [8, u64], len: [16, u64], type: [24, u8], pad0: [25, u8], flags: [26, u16], pad1: [28, u32], pad2: [32, array(u64, 4)] }))
export type kvm_sev_snp_launch_update = StructOf<typeof kvm_sev_snp_launch_update>

export const kvm_signal_mask = struct('kvm_signal_mask', 4, () => ({ len: [0, u32] }), () => ({ sigset: u8 }))
export type kvm_signal_mask = StructOf<typeof kvm_signal_mask>

export const kvm_sregs2 = struct('kvm_sregs2', 320, () => ({ cs: [0, kvm_segment], ds: [24, kvm_segment], es: [48, kvm_segment], fs: [72, kvm_segment], gs: [96, kvm_segment], ss: [120, kvm_segment], tr: [144, kvm_segment], ldt: [168, kvm_segment], gdt: [192, kvm_dtable], idt: [208, kvm_dtable], cr0: [224, u64], cr2: [232, u64], cr3: [240, u64], cr4: [248, u64], cr8: [256, u64], efer: [264, u64], apic_base: [272, u64], flags: [280, u64], pdptrs: [288, array(u64, 4)] }))
export type kvm_sregs2 = StructOf<typeof kvm_sregs2>

export const kvm_stats_desc = struct('kvm_stats_desc', 16, () => ({ flags: [0, u32], exponent: [4, i16], size: [6, u16], offset: [8, u32], bucket_size: [12, u32] }), () => ({ name: u8 }))
export type kvm_stats_desc = StructOf<typeof kvm_stats_desc>

export const kvm_stats_header = struct('kvm_stats_header', 24, () => ({ flags: [0, u32], name_size: [4, u32], num_desc: [8, u32], id_offset: [12, u32], desc_offset: [16, u32], data_offset: [20, u32] }))
export type kvm_stats_header = StructOf<typeof kvm_stats_header>

export const kvm_tdx_capabilities = struct('kvm_tdx_capabilities', 2056, () => ({ supported_attrs: [0, u64], supported_xfam: [8, u64], kernel_tdvmcallinfo_1_r11: [16, u64], user_tdvmcallinfo_1_r11: [24, u64], kernel_tdvmcallinfo_1_r12: [32, u64], user_tdvmcallinfo_1_r12: [40, u64], reserved: [48, array(u64, 250)], cpuid: [2048, kvm_cpuid2] }))
export type kvm_tdx_capabilities = StructOf<typeof kvm_tdx_capabilities>

export const kvm_tdx_cmd = struct('kvm_tdx_cmd', 24, () => ({ id: [0, u32], flags: [4, u32], data: [8, u64], hw_error: [16, u64] }))
export type kvm_tdx_cmd = StructOf<typeof kvm_tdx_cmd>

export const kvm_tdx_init_mem_region = struct('kvm_tdx_init_mem_region', 24, () => ({ source_addr: [0, address], gpa: [8, address], nr_pages: [16, address] }))
export type kvm_tdx_init_mem_region = StructOf<typeof kvm_tdx_init_mem_region>

export const kvm_tdx_init_vm = struct('kvm_tdx_init_vm', 264, () => ({ attributes: [0, u64], xfam: [8, u64], mrconfigid: [16, array(u64, 6)], mrowner: [64, array(u64, 6)], mrownerconfig: [112, array(u64, 6)], reserved: [160, array(u64, 12)], cpuid: [256, kvm_cpuid2] }))
export type kvm_tdx_init_vm = StructOf<typeof kvm_tdx_init_vm>

export const kvm_tpr_access_ctl = struct('kvm_tpr_access_ctl', 40, () => ({ enabled: [0, u32], flags: [4, u32], reserved: [8, array(u32, 8)] }))
export type kvm_tpr_access_ctl = StructOf<typeof kvm_tpr_access_ctl>

export const kvm_translation = struct('kvm_translation', 24, () => ({ linear_address: [0, u64], physical_address: [8, u64], valid: [16, u8], writeable: [17, u8], usermode: [18, u8], pad: [19, bytes(5)] }))
export type kvm_translation = StructOf<typeof kvm_translation>

export const kvm_userspace_memory_region = struct('kvm_userspace_memory_region', 32, () => ({ slot: [0, u32], flags: [4, u32], guest_phys_addr: [8, address], memory_size: [16, address], userspace_addr: [24, address] }))
export type kvm_userspace_memory_region = StructOf<typeof kvm_userspace_memory_region>

export const kvm_userspace_memory_region2 = struct('kvm_userspace_memory_region2', 160, () => ({ slot: [0, u32], flags: [4, u32], guest_phys_addr: [8, address], memory_size: [16, address], userspace_addr: [24, address], guest_memfd_offset: [32, address], guest_memfd: [40, u32], pad1: [44, u32], pad2: [48, array(u64, 14)] }))
export type kvm_userspace_memory_region2 = StructOf<typeof kvm_userspace_memory_region2>

export const kvm_vapic_addr = struct('kvm_vapic_addr', 8, () => ({ vapic_addr: [0, address] }))
export type kvm_vapic_addr = StructOf<typeof kvm_vapic_addr>

export const kvm_vfio_spapr_tce = struct('kvm_vfio_spapr_tce', 8, () => ({ groupfd: [0, i32], tablefd: [4, i32] }))
export type kvm_vfio_spapr_tce = StructOf<typeof kvm_vfio_spapr_tce>

export const kvm_x86_mce = struct('kvm_x86_mce', 64, () => ({ status: [0, u64], addr: [8, u64], misc: [16, u64], mcg_status: [24, u64], bank: [32, u8], pad1: [33, bytes(7)], pad2: [40, array(u64, 3)] }))
export type kvm_x86_mce = StructOf<typeof kvm_x86_mce>

export const kvm_xcr = struct('kvm_xcr', 16, () => ({ xcr: [0, u32], reserved: [4, u32], value: [8, u64] }))
export type kvm_xcr = StructOf<typeof kvm_xcr>

export const kvm_xcrs = struct('kvm_xcrs', 392, () => ({ nr_xcrs: [0, u32], flags: [4, u32], xcrs: [8, array(kvm_xcr, 16)], padding: [264, array(u64, 16)] }))
export type kvm_xcrs = StructOf<typeof kvm_xcrs>

export const kvm_xen_hvm_attr = struct('kvm_xen_hvm_attr', 72, () => ({ type: [0, u16], pad: [2, array(u16, 3)], u: [8, struct('kvm_xen_hvm_attr.u', 64, () => ({ long_mode: [0, u8], vector: [0, u8], runstate_update_flag: [0, u8], shared_info: [0, struct('kvm_xen_hvm_attr.u.shared_info', 8, () => ({ gfn: [0, u64], hva: [0, u64] }))], evtchn: [0, struct('kvm_xen_hvm_attr.u.evtchn', 28, () => ({ send_port: [0, u32], type: [4, u32], flags: [8, u32], deliver: [12, struct('kvm_xen_hvm_attr.u.evtchn.deliver', 16, () => ({ port: [0, struct('kvm_xen_hvm_attr.u.evtchn.deliver.port', 12, () => ({ port: [0, u32], vcpu: [4, u32], priority: [8, u32] }))], eventfd: [0, struct('kvm_xen_hvm_attr.u.evtchn.deliver.eventfd', 8, () => ({ port: [0, u32], fd: [4, i32] }))], padding: [0, array(u32, 4)] }))] }))], xen_version: [0, u32], pad: [0, array(u64, 8)] }))] }))
export type kvm_xen_hvm_attr = StructOf<typeof kvm_xen_hvm_attr>

export const kvm_xen_hvm_config = struct('kvm_xen_hvm_config', 56, () => ({ flags: [0, u32], msr: [4, u32], blob_addr_32: [8, u64], blob_addr_64: [16, u64], blob_size_32: [24, u8], blob_size_64: [25, u8], pad2: [26, bytes(30)] }))
export type kvm_xen_hvm_config = StructOf<typeof kvm_xen_hvm_config>

export const kvm_xen_vcpu_attr = struct('kvm_xen_vcpu_attr', 72, () => ({ type: [0, u16], pad: [2, array(u16, 3)], u: [8, struct('kvm_xen_vcpu_attr.u', 64, () => ({ gpa: [0, u64], hva: [0, u64], pad: [0, array(u64, 8)], runstate: [0, struct('kvm_xen_vcpu_attr.u.runstate', 48, () => ({ state: [0, u64], state_entry_time: [8, u64], time_running: [16, u64], time_runnable: [24, u64], time_blocked: [32, u64], time_offline: [40, u64] }))], vcpu_id: [0, u32], timer: [0, struct('kvm_xen_vcpu_attr.u.timer', 16, () => ({ port: [0, u32], priority: [4, u32], expires_ns: [8, u64] }))], vector: [0, u8] }))] }))
export type kvm_xen_vcpu_attr = StructOf<typeof kvm_xen_vcpu_attr>

export const kvm_xsave = struct('kvm_xsave', 4096, () => ({ region: [0, array(u32, 1024)] }), () => ({ extra: u32 }))
export type kvm_xsave = StructOf<typeof kvm_xsave>
