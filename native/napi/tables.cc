#include "napi/tables.h"

#include <errno.h>
#include <fcntl.h>

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "core/owned_fd.h"
#include "napi/descriptor.h"
#include "observe/page_rows.h"
#include "observe/table_reader.h"

namespace node_kvm {
namespace {

Napi::Object FailureOf(Napi::Env env, const TableFailure& failure) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("step", failure.step == nullptr ? "" : failure.step);
  result.Set("error", failure.error);
  result.Set("missingFields", failure.missing_fields);
  result.Set("log", failure.log);
  return result;
}

uint64_t Word(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  bool lossless = false;
  return value.IsBigInt() ? value.As<Napi::BigInt>().Uint64Value(&lossless) : 0;
}

TableRequest RequestOf(const Napi::Value& value) {
  const auto options = OptionsOf(value);
  TableRequest request;
  request.pid = static_cast<uint32_t>(WholeNumber(options.Get("pid"), "pid", INT32_MAX));
  if (const Napi::Value fd = options.Get("fd"); fd.IsNumber()) request.fd = fd.As<Napi::Number>().Int32Value();
  request.tables = options.Get("tables").ToBoolean();
  request.page_offset_base = Word(options, "pageOffsetBase");
  request.mmio_mask_address = Word(options, "mmioMaskAddress");
  request.mmio_value_address = Word(options, "mmioValueAddress");
  request.me_mask_address = Word(options, "meMaskAddress");
  return request;
}

// Defines a typed array as a property, and returns the address of its elements.
template <typename Element, typename Array>
Element* Column(Napi::Object object, const char* name, size_t length) {
  Array array = Array::New(object.Env(), length, NewBuffer(object.Env(), length * sizeof(Element)), 0);
  object.Set(name, array);
  return reinterpret_cast<Element*>(array.Data());
}

Napi::Object SlotsOf(Napi::Env env, const TableWalk& walk, const bpf::vm_record& vm) {
  Napi::Object slots = Napi::Object::New(env);
  SlotColumns columns;
  columns.gpa = Column<double, Napi::Float64Array>(slots, "gpa", vm.slots);
  columns.size = Column<double, Napi::Float64Array>(slots, "size", vm.slots);
  columns.hva = Column<double, Napi::Float64Array>(slots, "hva", vm.slots);
  columns.flags = Column<uint32_t, Napi::Uint32Array>(slots, "flags", vm.slots);
  columns.id = Column<int16_t, Napi::Int16Array>(slots, "id", vm.slots);
  columns.address_space = Column<uint8_t, Napi::Uint8Array>(slots, "addressSpace", vm.slots);
  columns.guest_memfd = Column<uint8_t, Napi::Uint8Array>(slots, "guestMemfd", vm.slots);
  walk.FillSlots(vm, columns);
  return slots;
}

Napi::Object LeavesOf(Napi::Env env, const bpf::vm_record& vm, const std::vector<Leaf>& found) {
  Napi::Object leaves = Napi::Object::New(env);
  LeafColumns columns;
  columns.gpa = Column<double, Napi::Float64Array>(leaves, "gpa", found.size());
  columns.hpa = Column<double, Napi::Float64Array>(leaves, "hpa", found.size());
  columns.spte = Column<uint64_t, Napi::BigUint64Array>(leaves, "spte", found.size());
  columns.role = Column<uint32_t, Napi::Uint32Array>(leaves, "role", found.size());
  columns.level = Column<uint8_t, Napi::Uint8Array>(leaves, "level", found.size());
  columns.address_space = Column<uint8_t, Napi::Uint8Array>(leaves, "addressSpace", found.size());
  columns.kind = Column<uint8_t, Napi::Uint8Array>(leaves, "kind", found.size());
  TableWalk::FillLeaves(vm, found, columns);
  return leaves;
}

Napi::Object VmOf(Napi::Env env, const TableWalk& walk, const bpf::vm_record& vm) {
  Napi::Object result = Napi::Object::New(env);
  const auto number = [&](const char* name, double value) { result.Set(name, Napi::Number::New(env, value)); };
  result.Set("kvm", Napi::BigInt::New(env, static_cast<uint64_t>(vm.kvm)));
  result.Set("command", std::string(vm.command, strnlen(vm.command, sizeof vm.command)));
  number("pid", vm.pid);
  number("fd", vm.fd);
  number("vcpus", vm.vcpus);
  number("flags", vm.flags);
  number("addressSpaces", vm.address_spaces);
  number("failedReads", vm.failed_reads);
  number("invalidationsBefore", static_cast<double>(vm.invalidations_before));
  number("invalidationsAfter", static_cast<double>(vm.invalidations_after));
  uint64_t* generations = Column<uint64_t, Napi::BigUint64Array>(result, "generations", 2 * MOST_ADDRESS_SPACES);
  std::copy_n(vm.generation_before, MOST_ADDRESS_SPACES, generations);
  std::copy_n(vm.generation_after, MOST_ADDRESS_SPACES, generations + MOST_ADDRESS_SPACES);
  number("setSwapped", vm.set_swapped);
  result.Set("mmioMask", Napi::BigInt::New(env, static_cast<uint64_t>(vm.mmio_mask)));
  uint32_t lost = 0;
  const std::vector<Leaf> leaves = walk.Leaves(vm, &lost);
  number("lost", lost);
  result.Set("slots", SlotsOf(env, walk, vm));
  result.Set("leaves", LeavesOf(env, vm, leaves));
  return result;
}

Napi::Value Load(const Napi::CallbackInfo& info) {
  TableFailure failure;
  if (TableReader::Instance().Load(&failure)) return info.Env().Null();
  return FailureOf(info.Env(), failure);
}

Napi::Value Read(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Array vms = Napi::Array::New(env);
  TableFailure failure;
  const auto take = [&](const TableWalk& walk) {
    for (const bpf::vm_record& vm : walk.vms()) vms.Set(vms.Length(), VmOf(env, walk, vm));
  };
  if (!TableReader::Instance().Walk(RequestOf(info[0]), take, &failure)) return FailureOf(env, failure);
  return vms;
}

// The columns of one object, all of one length. They are looked up first and read afterwards: a look-up may run a caller's code, and no
// such code may run between the question where the elements lie and their last use.
class Columns {
 public:
  Columns(const Napi::Value& value, std::initializer_list<const char*> names) : env_(value.Env()) {
    if (!value.IsObject()) throw Napi::TypeError::New(env_, "the columns must be an object");
    for (const char* name : names) values_.emplace_back(name, value.As<Napi::Object>().Get(name));
    length_ = Look(0).length;
  }
  size_t length() const { return length_; }

  template <typename Element>
  const Element* At(size_t number, napi_typedarray_type type) const {
    const Array array = Look(number);
    if (array.type != type || array.length != length_)
      throw Napi::TypeError::New(env_, std::string("the column ") + values_[number].first + " has the wrong type or length");
    return static_cast<const Element*>(array.data);
  }

 private:
  struct Array {
    napi_typedarray_type type = napi_int8_array;
    size_t length = 0;
    void* data = nullptr;
  };
  Array Look(size_t number) const {
    const auto& [name, value] = values_[number];
    if (!value.IsTypedArray()) throw Napi::TypeError::New(env_, std::string("the column ") + name + " must be a typed array");
    Array array;
    if (napi_get_typedarray_info(env_, value, &array.type, &array.length, &array.data, nullptr, nullptr) != napi_ok)
      throw Napi::Error::New(env_);
    return array;
  }

  Napi::Env env_;
  std::vector<std::pair<const char*, Napi::Value>> values_;
  size_t length_ = 0;
};

std::vector<SlotRange> SlotRanges(const Napi::Value& value) {
  const Columns columns(value, {"gpa", "size", "hva", "addressSpace"});
  const auto* gpa = columns.At<double>(0, napi_float64_array);
  const auto* size = columns.At<double>(1, napi_float64_array);
  const auto* hva = columns.At<double>(2, napi_float64_array);
  const auto* space = columns.At<uint8_t>(3, napi_uint8_array);
  std::vector<SlotRange> slots(columns.length());
  for (size_t row = 0; row < slots.size(); row++) slots[row] = {gpa[row], size[row], hva[row], space[row]};
  return slots;
}

LeafView LeavesIn(const Columns& columns) {
  return {columns.length(),
          columns.At<double>(0, napi_float64_array),
          columns.At<double>(1, napi_float64_array),
          columns.At<uint64_t>(2, napi_biguint64_array),
          columns.At<uint8_t>(3, napi_uint8_array),
          columns.At<uint8_t>(4, napi_uint8_array),
          columns.At<uint8_t>(5, napi_uint8_array)};
}

Napi::Object RowsOf(Napi::Env env, const PageRows& pages) {
  Napi::Object result = Napi::Object::New(env);
  const size_t length = pages.rows.size();
  auto* gpa = Column<double, Napi::Float64Array>(result, "gpa", length);
  auto* hva = Column<double, Napi::Float64Array>(result, "hva", length);
  auto* hpa = Column<double, Napi::Float64Array>(result, "hpa", length);
  auto* second = Column<double, Napi::Float64Array>(result, "secondHpa", length);
  auto* spte = Column<uint64_t, Napi::BigUint64Array>(result, "spte", length);
  auto* slot = Column<uint32_t, Napi::Uint32Array>(result, "slot", length);
  auto* host = Column<uint16_t, Napi::Uint16Array>(result, "host", length);
  auto* level = Column<uint8_t, Napi::Uint8Array>(result, "level", length);
  auto* kind = Column<uint8_t, Napi::Uint8Array>(result, "kind", length);
  for (size_t index = 0; index < length; index++) {
    const PageRow& row = pages.rows[index];
    gpa[index] = row.gpa;
    hva[index] = row.hva;
    hpa[index] = row.hpa;
    second[index] = row.second_hpa;
    spte[index] = row.spte;
    slot[index] = row.slot;
    host[index] = row.host;
    level[index] = row.level;
    kind[index] = row.kind;
  }
  result.Set("framesHidden", pages.frames_hidden);
  result.Set("scanned", pages.scanned);
  result.Set("passedOver", pages.passed_over);
  result.Set("impossibleSlots", static_cast<double>(pages.impossible_slots));
  result.Set("compared", static_cast<double>(pages.compared));
  result.Set("disagreeing", static_cast<double>(pages.disagreeing));
  return result;
}

// Arguments (the process's folder or null, slots, leaves, from, to). Returns rows, or a negative errno.
Napi::Value Join(const Napi::CallbackInfo& info) {
  if (!info[0].IsNull() && !info[0].IsString()) throw Napi::TypeError::New(info.Env(), "the folder must be a string or null");
  PageRanges host(info[0].IsNull() ? "" : info[0].As<Napi::String>().Utf8Value());
  if (const int error = host.Open(); error != 0) return Napi::Number::New(info.Env(), error);
  const auto from = static_cast<double>(WholeNumber(info[3], "from")), to = static_cast<double>(WholeNumber(info[4], "to"));
  const std::vector<SlotRange> slots = SlotRanges(info[1]);
  const Columns leaves(info[2], {"gpa", "hpa", "spte", "level", "addressSpace", "kind"});
  PageRows pages;
  const int error = JoinPages(&host, slots, LeavesIn(leaves), from, to, &pages);
  return error < 0 ? Napi::Value(Napi::Number::New(info.Env(), error)) : RowsOf(info.Env(), pages);
}

}  // namespace

void DefineTables(Napi::Object exports) {
  SetFunction<Load>(exports, "loadTables");
  SetFunction<Read>(exports, "readTables");
  SetFunction<Join>(exports, "joinTables");
}

}  // namespace node_kvm
