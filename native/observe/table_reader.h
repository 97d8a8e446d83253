// Loads bpf/tables.bpf.c and reads what it stores, with bare bpf(2). This file uses no N-API, so that the benchmark in C drives the same
// code. It has no policy: TypeScript decides what to read, when to read again and what to say about it.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "core/owned_fd.h"
#include "observe/bpf/layout.h"

namespace node_kvm {

// The step that failed, and how: `error` is a negative errno.
struct TableFailure {
  const char* step = nullptr;
  int error = 0;
  uint32_t missing_fields = 0;
  std::string log;  // the verifier's log, if it wrote one
};

struct TableRequest {
  uint32_t pid = 0;  // 0: every process
  int32_t fd = -1;   // -1: every descriptor
  bool tables = true;
  uint64_t page_offset_base = 0;
  uint64_t mmio_mask_address = 0, mmio_value_address = 0, me_mask_address = 0;
};

// Columns of equal length, which the caller provides.
struct SlotColumns {
  double *gpa, *size, *hva;
  uint32_t* flags;
  int16_t* id;
  uint8_t *address_space, *guest_memfd;
};
struct LeafColumns {
  double *gpa, *hpa;
  uint64_t* spte;
  uint32_t* role;
  uint8_t *level, *address_space, *kind;
};

enum LeafKind : uint8_t { kLeafTdp = 1, kLeafShadow = 2, kLeafIndirect = 3, kLeafMmio = 4 };

struct Leaf {
  uint64_t gfn, spte;
  uint32_t role;
  uint8_t level, address_space, kind;
};

// The result of one walk. It is valid only inside the visitor.
class TableWalk {
 public:
  const std::vector<bpf::vm_record>& vms() const { return vms_; }
  // Fills in the slots, ordered by address space and GPA.
  void FillSlots(const bpf::vm_record& vm, const SlotColumns& columns) const;
  // Returns the leaves, ordered by address space, GPA and level. `lost` counts the tables for which there was no room or that KVM freed
  // while they were copied.
  std::vector<Leaf> Leaves(const bpf::vm_record& vm, uint32_t* lost) const;
  static void FillLeaves(const bpf::vm_record& vm, const std::vector<Leaf>& leaves, const LeafColumns& columns);

 private:
  friend class TableReader;
  size_t CountSet(uint32_t first, uint32_t end) const;
  std::vector<bpf::vm_record> vms_;
  const bpf::control* control_ = nullptr;
  const bpf::slot_record* slots_ = nullptr;
  const bpf::table_record* tables_ = nullptr;
  uint32_t slot_room_ = 0, table_room_ = 0;
};

class TableReader {
 public:
  // The process has one reader: the program is loaded once, at the first walk.
  static TableReader& Instance();
  // Returns false, and the failure, if the kernel refused something. There is one walk at a time: the visitor runs under the reader's lock.
  bool Walk(const TableRequest& request, const std::function<void(const TableWalk&)>& visit, TableFailure* failure);
  // Loads the program, unless it is loaded.
  bool Load(TableFailure* failure);

 private:
  // A map that user space sees as memory.
  struct Output {
    OwnedFd fd;
    void* memory = nullptr;
    size_t bytes = 0;
    uint32_t room = 0;
  };
  bool LoadLocked(TableFailure* failure);
  bool Reserve(Output* output, int outer, size_t record, uint32_t room, TableFailure* failure);
  bool Run(const TableRequest& request, TableFailure* failure);

  std::mutex mutex_;
  bool loaded_ = false;
  std::vector<OwnedFd> maps_;
  OwnedFd program_;
  bpf::control* control_ = nullptr;
  Output vms_, slots_, tables_;
  uint32_t pass_ = 0;
};

}  // namespace node_kvm
