#include "observe/table_reader.h"

#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>

#include "observe/bpf/tables.skeleton.h"

namespace node_kvm {
namespace {

// One walk reads at most this much of VMs: 64 MiB of their records and slots, 256 MiB of page tables.
constexpr uint32_t kMostVms = 4096;
constexpr uint32_t kMostSlots = 1 << 18;
constexpr uint32_t kMostTables = 1 << 16;
constexpr uint64_t kPresent = 1 << 11;  // SPTE_MMU_PRESENT_MASK
constexpr uint64_t kHuge = 1 << 7;
constexpr uint64_t kFrameMask = 0x000ffffffffff000;
constexpr uint64_t kGfnMask = kFrameMask >> 12;  // limits a gfn that was read while it changed, and may be too large for an address
// The last byte of union kvm_mmu_page_role is the address space.
constexpr unsigned kSmmShift = 24;

// The distribution's <linux/bpf.h> may be older than the running kernel, so the parts of bpf_attr and bpf_iter_link_info that are used here
// stand at the offsets of the UAPI.
union Attribute {
  bpf_attr attr;
  char bytes[256];
};
struct IteratorTarget {
  uint32_t tid, pid, pid_fd;  // bpf_iter_link_info.task, since 6.1
};

long Bpf(int command, Attribute* attribute) { return syscall(SYS_bpf, command, attribute, sizeof(bpf_attr)); }

// The verifier gives up with EAGAIN when any signal is pending for the thread. A signal that does not end the process may come again, so
// the program is loaded several times, as libbpf does.
constexpr int kLoadTries = 8;
template <typename Load>
int Tried(Load load) {
  int result = -EAGAIN;
  for (int tries = 0; tries < kLoadTries && result == -EAGAIN; tries++) result = load();
  return result;
}

bool Fail(TableFailure* failure, const char* step, int error) {
  failure->step = step;
  failure->error = error;
  return false;
}

// The argument of a light skeleton's loader program (tools/lib/bpf/skel_internal.h).
struct LoaderContext {
  uint32_t size, flags, log_level, log_size;
  uint64_t log;
};
struct LoaderMap {
  int fd;
  uint32_t most_entries;
  alignas(8) uint64_t initial_value;
};
struct Loader {
  LoaderContext context{};
  LoaderMap maps[bpf::kMapCount]{};
  int programs[bpf::kProgramCount]{};
};

int CreateArray(uint32_t value_size, uint32_t entries, uint32_t flags) {
  Attribute attribute{};
  attribute.attr.map_type = BPF_MAP_TYPE_ARRAY;
  attribute.attr.key_size = 4;
  attribute.attr.value_size = value_size;
  attribute.attr.max_entries = entries;
  attribute.attr.map_flags = flags;
  const long fd = Bpf(BPF_MAP_CREATE, &attribute);
  return fd < 0 ? -errno : static_cast<int>(fd);
}

int UpdateFirst(int map, const void* value) {
  const uint32_t key = 0;
  Attribute attribute{};
  attribute.attr.map_fd = map;
  attribute.attr.key = reinterpret_cast<uintptr_t>(&key);
  attribute.attr.value = reinterpret_cast<uintptr_t>(value);
  return Bpf(BPF_MAP_UPDATE_ELEM, &attribute) < 0 ? -errno : 0;
}

int LoadLoader(int map, std::string* log) {
  static const char license[] = "Dual BSD/GPL";
  Attribute attribute{};
  attribute.attr.prog_type = BPF_PROG_TYPE_SYSCALL;
  attribute.attr.insns = reinterpret_cast<uintptr_t>(bpf::kLoaderInstructions);
  attribute.attr.insn_cnt = bpf::kLoaderInstructionsSize / sizeof(bpf_insn);
  attribute.attr.license = reinterpret_cast<uintptr_t>(license);
  attribute.attr.fd_array = reinterpret_cast<uintptr_t>(&map);
  attribute.attr.prog_flags = BPF_F_SLEEPABLE;
  const int fd = Tried([&attribute] {
    const long loaded = Bpf(BPF_PROG_LOAD, &attribute);
    return loaded < 0 ? -errno : static_cast<int>(loaded);
  });
  if (fd < 0 && fd != -EPERM) *log = "the loader program itself was refused";
  return fd;
}

int RunLoader(int program, Loader* loader) {
  Attribute attribute{};
  attribute.attr.test.prog_fd = static_cast<uint32_t>(program);
  attribute.attr.test.ctx_in = reinterpret_cast<uintptr_t>(loader);
  attribute.attr.test.ctx_size_in = loader->context.size;
  if (Bpf(BPF_PROG_TEST_RUN, &attribute) < 0) return -errno;
  return static_cast<int>(attribute.attr.test.retval);
}

// Called only after a refusal: the kernel takes longer to write the log than to load, and it also refuses a log that has too little room.
std::string VerifierLog(int program) {
  constexpr size_t kKept = 4000;
  std::vector<char> log(1 << 24);
  Loader loader;
  loader.context = {sizeof loader, 0, 1, static_cast<uint32_t>(log.size()), reinterpret_cast<uintptr_t>(log.data())};
  RunLoader(program, &loader);
  for (const LoaderMap& map : loader.maps) OwnedFd(map.fd > 0 ? map.fd : -1).Reset();
  for (const int fd : loader.programs) OwnedFd(fd > 0 ? fd : -1).Reset();
  const std::string text(log.data(), strnlen(log.data(), log.size()));
  return text.size() <= kKept ? text : text.substr(text.size() - kKept);
}

int OpenIterator(int program, uint32_t pid) {
  IteratorTarget target{};
  target.pid = pid;
  Attribute attribute{};
  attribute.attr.link_create.prog_fd = static_cast<uint32_t>(program);
  attribute.attr.link_create.attach_type = BPF_TRACE_ITER;
  if (pid != 0) {
    attribute.attr.link_create.iter_info = reinterpret_cast<uintptr_t>(&target);
    attribute.attr.link_create.iter_info_len = sizeof target;
  }
  const OwnedFd link(static_cast<int>(Bpf(BPF_LINK_CREATE, &attribute)));
  if (link.get() < 0) return -errno;
  Attribute iterator{};
  iterator.attr.iter_create.link_fd = static_cast<uint32_t>(link.get());
  const long fd = Bpf(BPF_ITER_CREATE, &iterator);
  return fd < 0 ? -errno : static_cast<int>(fd);
}

template <typename Value>
Value At(const bpf::slot_record& slot, uint32_t offset) {
  Value value{};
  if (offset <= sizeof slot.bytes - sizeof value) memcpy(&value, slot.bytes + offset, sizeof value);
  return value;
}

// Computes the mask where the kernel's mask cannot be read but its value can: EPT marks MMIO by write and execute without read, and all
// other formats mark it by reserved bits, for which value and mask are the same (kvm_mmu_set_ept_masks(), kvm_mmu_reset_all_pte_masks()).
uint64_t MmioMask(const bpf::vm_record& vm) {
  constexpr uint64_t kWriteExecute = 6, kEptMask = uint64_t{1} << 63 | 7;
  if (vm.mmio_mask != 0 || vm.mmio_value == 0) return vm.mmio_mask;
  return (vm.mmio_value & 7) == kWriteExecute ? kEptMask : vm.mmio_value;
}

bool Before(const Leaf& left, const Leaf& right) {
  if (left.address_space != right.address_space) return left.address_space < right.address_space;
  return left.gfn != right.gfn ? left.gfn < right.gfn : left.level < right.level;
}

}  // namespace

TableReader& TableReader::Instance() {
  // This is never destroyed: a Worker may be in it when the process ends.
  static auto* reader = new TableReader;
  return *reader;
}

bool TableReader::Load(TableFailure* failure) {
  const std::lock_guard lock(mutex_);
  return LoadLocked(failure);
}

bool TableReader::LoadLocked(TableFailure* failure) {
  if (loaded_) return true;
  const OwnedFd data(CreateArray(bpf::kLoaderDataSize, 1, 0));
  if (data.get() < 0) return Fail(failure, "map", data.get());
  if (const int error = UpdateFirst(data.get(), bpf::kLoaderData); error < 0) return Fail(failure, "map", error);
  const OwnedFd program(LoadLoader(data.get(), &failure->log));
  if (program.get() < 0) return Fail(failure, "loader", program.get());
  Loader loader;
  loader.context.size = sizeof loader;
  const int error = Tried([&] { return RunLoader(program.get(), &loader); });
  // The maps that were made, which are there even when the loader failed after it made them.
  std::vector<OwnedFd> maps;
  for (const LoaderMap& map : loader.maps) maps.emplace_back(map.fd > 0 ? map.fd : -1);
  OwnedFd walk(loader.programs[bpf::kWalk] > 0 ? loader.programs[bpf::kWalk] : -1);
  if (error < 0) {
    failure->log = VerifierLog(program.get());
    return Fail(failure, "program", error);
  }
  void* control = mmap(nullptr, sizeof(bpf::control), PROT_READ | PROT_WRITE, MAP_SHARED, maps[bpf::kControls].get(), 0);
  if (control == MAP_FAILED) return Fail(failure, "map", -errno);
  control_ = static_cast<bpf::control*>(control);
  maps_ = std::move(maps);
  program_ = std::move(walk);
  loaded_ = true;
  return true;
}

bool TableReader::Reserve(Output* output, int outer, size_t record, uint32_t room, TableFailure* failure) {
  if (output->room >= room) return true;
  OwnedFd fd(CreateArray(static_cast<uint32_t>(record), room, BPF_F_MMAPABLE | BPF_F_INNER_MAP));
  if (fd.get() < 0) return Fail(failure, "room", fd.get());
  const size_t bytes = record * room;
  void* memory = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (memory == MAP_FAILED) return Fail(failure, "room", -errno);
  const int number = fd.get();
  if (const int error = UpdateFirst(outer, &number); error < 0) {
    munmap(memory, bytes);
    return Fail(failure, "room", error);
  }
  if (output->memory != nullptr) munmap(output->memory, output->bytes);
  *output = {std::move(fd), memory, bytes, room};
  return true;
}

bool TableReader::Run(const TableRequest& request, TableFailure* failure) {
  const OwnedFd iterator(OpenIterator(program_.get(), request.pid));
  if (iterator.get() < 0) return Fail(failure, "iterator", iterator.get());
  *control_ = {};
  control_->page_offset_base = request.page_offset_base;
  control_->mmio_mask_address = request.mmio_mask_address;
  control_->mmio_value_address = request.mmio_value_address;
  control_->me_mask_address = request.me_mask_address;
  control_->fd = request.fd;
  control_->wants_tables = request.tables;
  control_->most_vms = vms_.room;
  control_->most_slots = slots_.room;
  control_->most_tables = tables_.room;
  control_->pass = ++pass_;
  char nothing[64];
  ssize_t got;
  do got = read(iterator.get(), nothing, sizeof nothing);
  while (got > 0 || (got < 0 && (errno == EINTR || errno == EAGAIN)));
  if (got < 0) return Fail(failure, "walk", -errno);
  failure->missing_fields = control_->missing_fields;
  if (control_->missing_fields != 0 || control_->slot_size > SLOT_BYTES) return Fail(failure, "fields", -EOPNOTSUPP);
  return true;
}

bool TableReader::Walk(const TableRequest& request, const std::function<void(const TableWalk&)>& visit, TableFailure* failure) {
  const std::lock_guard lock(mutex_);
  if (!LoadLocked(failure)) return false;
  uint32_t vms = 64, slots = 1024, tables = 256;
  for (;;) {
    if (!Reserve(&vms_, maps_[bpf::kVmOutput].get(), sizeof(bpf::vm_record), vms, failure)) return false;
    if (!Reserve(&slots_, maps_[bpf::kSlotOutput].get(), sizeof(bpf::slot_record), slots, failure)) return false;
    if (!Reserve(&tables_, maps_[bpf::kTableOutput].get(), sizeof(bpf::table_record), tables, failure)) return false;
    if (!Run(request, failure)) return false;
    // There is a little room to spare, because the VM may have grown when it is read again.
    const auto larger = [](uint32_t there, uint32_t room, uint32_t most) {
      return there <= room ? room : std::min(most, there + there / 8 + 8);
    };
    vms = larger(control_->vms, vms_.room, kMostVms);
    slots = larger(control_->slots, slots_.room, kMostSlots);
    tables = larger(control_->tables, tables_.room, kMostTables);
    if (vms <= vms_.room && slots <= slots_.room && tables <= tables_.room) break;
  }
  TableWalk walk;
  const auto* records = static_cast<const bpf::vm_record*>(vms_.memory);
  walk.vms_.assign(records, records + std::min(control_->vms, vms_.room));
  walk.control_ = control_;
  walk.slots_ = static_cast<const bpf::slot_record*>(slots_.memory);
  walk.tables_ = static_cast<const bpf::table_record*>(tables_.memory);
  walk.slot_room_ = slots_.room;
  walk.table_room_ = tables_.room;
  // Slots for which there was no room were not copied: the VM's number of slots is cut to those that can be read.
  for (bpf::vm_record& vm : walk.vms_) {
    vm.mmio_mask = MmioMask(vm);
    if (vm.first_slot + vm.slots > slots_.room) vm.slots = vm.first_slot < slots_.room ? slots_.room - vm.first_slot : 0, vm.failed_reads++;
  }
  visit(walk);
  return true;
}

void TableWalk::FillSlots(const bpf::vm_record& vm, const SlotColumns& columns) const {
  const bpf::slot_record* first = slots_ + vm.first_slot;
  struct Key {
    uint64_t gfn;
    uint32_t space, index;
  };
  std::vector<Key> order(vm.slots);
  for (uint32_t index = 0; index < vm.slots; index++)
    order[index] = {At<uint64_t>(first[index], control_->base_gfn_at), At<uint16_t>(first[index], control_->as_id_at), index};
  std::sort(order.begin(), order.end(),
            [](const Key& left, const Key& right) { return left.space != right.space ? left.space < right.space : left.gfn < right.gfn; });
  for (uint32_t row = 0; row < vm.slots; row++) {
    const bpf::slot_record& slot = first[order[row].index];
    columns.gpa[row] = static_cast<double>(order[row].gfn << 12);
    columns.size[row] = static_cast<double>(At<uint64_t>(slot, control_->npages_at) << 12);
    columns.hva[row] = static_cast<double>(At<uint64_t>(slot, control_->userspace_addr_at));
    columns.flags[row] = At<uint32_t>(slot, control_->flags_at);
    columns.id[row] = At<int16_t>(slot, control_->id_at);
    columns.address_space[row] = static_cast<uint8_t>(order[row].space);
    columns.guest_memfd[row] = control_->gmem_file_at != 0 && At<uint64_t>(slot, control_->gmem_file_at) != 0;
  }
}

// Counts the entries that are not empty: there are at most so many leaves.
size_t TableWalk::CountSet(uint32_t first, uint32_t end) const {
  size_t set = 0;
  for (uint32_t number = first; number < end; number++)
    if (tables_[number].kind != bpf::TABLE_TRANSLATIONS)
      set += static_cast<size_t>(TABLE_ENTRIES - std::count(tables_[number].entries, tables_[number].entries + TABLE_ENTRIES, 0));
  return set;
}

std::vector<Leaf> TableWalk::Leaves(const bpf::vm_record& vm, uint32_t* lost) const {
  const uint32_t end = std::min(vm.first_table + vm.tables, table_room_);
  *lost = vm.first_table + vm.tables - end;
  std::vector<Leaf> leaves;
  leaves.reserve(CountSet(vm.first_table, end));
  for (uint32_t number = vm.first_table; number < end; number++) {
    const bpf::table_record& table = tables_[number];
    if (table.kind == bpf::TABLE_TRANSLATIONS) continue;
    const bool indirect = table.kind == bpf::TABLE_SHADOW_INDIRECT;
    if (table.changed || table.level < 1 || table.level > 5 || (indirect && number + 1 >= end)) {
      ++*lost;
      continue;
    }
    const auto kind = static_cast<uint8_t>(indirect ? kLeafIndirect : table.kind == bpf::TABLE_TDP ? kLeafTdp : kLeafShadow);
    const auto space = static_cast<uint8_t>(table.role >> kSmmShift ? 1 : 0);
    const unsigned shift = (table.level - 1) * 9;
    for (unsigned entry = 0; entry < TABLE_ENTRIES; entry++) {
      const uint64_t spte = table.entries[entry];
      const bool leaf = (spte & kPresent) && (table.level == 1 || (spte & kHuge));
      const bool mmio = !leaf && spte != 0 && !(spte & kPresent) && vm.mmio_mask != 0 && (spte & vm.mmio_mask) == vm.mmio_value;
      if (!leaf && !mmio) continue;
      // The gfns of an indirect page are in the record after it, with the guest's access bits in their low 12 bits
      // (kvm_mmu_page_get_gfn()).
      const uint64_t gfn = indirect && !mmio ? tables_[number + 1].entries[entry] >> 12 : table.gfn + (uint64_t{entry} << shift);
      leaves.push_back({gfn & kGfnMask, spte, table.role, table.level, space, mmio ? static_cast<uint8_t>(kLeafMmio) : kind});
    }
  }
  if (!std::is_sorted(leaves.begin(), leaves.end(), Before)) std::sort(leaves.begin(), leaves.end(), Before);
  return leaves;
}

void TableWalk::FillLeaves(const bpf::vm_record& vm, const std::vector<Leaf>& leaves, const LeafColumns& columns) {
  const uint64_t mask = kFrameMask & ~vm.me_mask;
  for (size_t row = 0; row < leaves.size(); row++) {
    const Leaf& leaf = leaves[row];
    columns.gpa[row] = static_cast<double>(leaf.gfn << 12);
    // The lowest bits of a huge page's frame hold other things (the PAT bit) and are not part of the address.
    const uint64_t within = (uint64_t{1} << (12 + (leaf.level - 1) * 9)) - 1;
    columns.hpa[row] = leaf.kind == kLeafMmio ? 0 : static_cast<double>(leaf.spte & mask & ~within);
    columns.spte[row] = leaf.spte;
    columns.role[row] = leaf.role;
    columns.level[row] = leaf.level;
    columns.address_space[row] = leaf.address_space;
    columns.kind[row] = leaf.kind;
  }
}

}  // namespace node_kvm
