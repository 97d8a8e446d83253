// A VM's memslots, for TypeScript. A change is asked for in eight numbers (lib/memory/memslot-words.ts), most of which stay the same
// objects from call to call. When there are many changes, each cost beside the ioctl shows (npm run bench, slot).
#include <errno.h>
#include <fcntl.h>

#include <map>

#include "napi/mapping.h"
#include "napi/vm.h"

namespace node_kvm {
namespace {

struct Record {
  double id;             // -1: a new slot
  double computed_from;  // the number of the change that left the slot as the caller knew it
  double gpa;
  double size;  // 0: the slot goes
  double offset;
  double flags;
  double guest_memfd;  // for a new slot: a descriptor, or -1
  double guest_memfd_offset;
};
constexpr size_t kNumbers = sizeof(Record) / sizeof(double);

uint64_t Whole(Napi::Env env, double number, double most = 0x1p53) {
  if (!(number >= 0 && number <= most) || static_cast<double>(static_cast<int64_t>(number)) != number)
    throw Napi::RangeError::New(env, "a number of the change is out of range");
  return static_cast<uint64_t>(number);
}

// Returns zero or a negative errno. Without a region, the slot keeps the region that it has.
int ReadChange(Napi::Env env, const Record& record, napi_value region, Memslots::Change* change) {
  change->id = record.id == -1 ? Memslots::kNew : static_cast<uint32_t>(Whole(env, record.id, Memslots::kNew - 1));
  change->computed_from = Whole(env, record.computed_from);
  Memslots::Slot& after = change->after;
  after.gpa = Whole(env, record.gpa);
  after.size = Whole(env, record.size);
  after.offset = Whole(env, record.offset);
  after.flags = static_cast<uint32_t>(Whole(env, record.flags, UINT32_MAX));
  if (region != nullptr && (after.region = Mapping::Of(env, region)->region()) == nullptr) return -EBADF;
  if (change->id != Memslots::kNew || record.guest_memfd == -1) return 0;
  after.guest_memfd_offset = Whole(env, record.guest_memfd_offset);
  const int own = fcntl(static_cast<int>(Whole(env, record.guest_memfd, INT32_MAX)), F_DUPFD_CLOEXEC, 3);
  if (own < 0) return -errno;
  after.guest_memfd = std::make_shared<OwnedFd>(own);
  return 0;
}

void Answer(const Memslots::Change& change, Record* record) {
  record->id = change.id;
  record->computed_from = static_cast<double>(change.computed_from);
}

// Writes the number of the change, and the slot in its way (-1 if none).
void Answer(const Memslots::Refusal& refusal, Record* record) {
  record->id = refusal.id == Memslots::kNew ? -1.0 : refusal.id;
  record->computed_from = static_cast<double>(refusal.change);
  record->gpa = static_cast<double>(refusal.gpa);
  record->size = static_cast<double>(refusal.size);
}

Record* RecordsOf(const Napi::Value& value, size_t* count) {
  void* data = nullptr;
  napi_typedarray_type type;
  if (napi_get_typedarray_info(value.Env(), value, &type, count, &data, nullptr, nullptr) != napi_ok || type != napi_float64_array)
    throw Napi::TypeError::New(value.Env(), "the argument must be a Float64Array");
  *count /= kNumbers;
  return static_cast<Record*>(data);
}

// The members of an array of regions; a null in it stands for no region.
std::vector<napi_value> RegionsOf(const Napi::Value& value) {
  if (!value.IsArray()) throw Napi::TypeError::New(value.Env(), "the regions must be an array");
  const auto array = value.As<Napi::Array>();
  std::vector<napi_value> regions;
  for (uint32_t index = 0; index < array.Length(); ++index) {
    const Napi::Value region = array.Get(index);
    regions.push_back(region.IsNull() ? nullptr : static_cast<napi_value>(region));
  }
  return regions;
}

}  // namespace

// For ChangeMemslot(): the request, and the answer.
struct Vm::Words {
  Record record;
  double result;
};

Napi::Value Vm::MemslotWords(const Napi::CallbackInfo& info) {
  if (words_ == nullptr) {
    words_memory_.emplace(info.Env(), sizeof(Words));
    words_ = reinterpret_cast<Words*>(words_memory_->data());
  }
  return words_memory_->Value();
}

// Arguments (region, or none): makes one change, which the words ask for and answer.
void Vm::ChangeMemslot(Napi::Env env, napi_value region) {
  if (words_ == nullptr) throw Napi::TypeError::New(env, "memslotWords() must be called first");
  Memslots::Change change;
  Memslots::Refusal refusal;
  int error = fd() < 0 ? -EBADF : ReadChange(env, words_->record, region, &change);
  if (error == 0) error = state_->ChangeMemslot(&change, &refusal);
  error == 0 ? Answer(change, &words_->record) : Answer(refusal, &words_->record);
  words_->result = error;
}

// Arguments (records, regions): makes all changes or none and answers in the records, with a refusal in the first. The regions are taken
// out of their array before anything else is looked at: a getter there may close the VM, or take the memory of the records away.
Napi::Value Vm::ChangeMemslots(const Napi::CallbackInfo& info) {
  const std::vector<napi_value> regions = RegionsOf(info[1]);
  size_t count = 0;
  Record* records = RecordsOf(info[0], &count);
  if (count == 0 || count > regions.size()) throw Napi::TypeError::New(info.Env(), "there must be a record for each region");
  std::vector<Memslots::Change> changes(count);
  Memslots::Refusal refusal;
  int error = fd() < 0 ? -EBADF : 0;
  for (uint32_t index = 0; index < count && error == 0; ++index) {
    error = ReadChange(info.Env(), records[index], regions[index], &changes[index]);
    refusal.change = index;
  }
  if (error == 0) error = state_->ChangeMemslots(&changes, &refusal);
  if (error == 0)
    for (size_t index = 0; index < count; ++index) Answer(changes[index], &records[index]);
  else
    Answer(refusal, &records[0]);
  return Napi::Number::New(info.Env(), error);
}

Napi::Value Vm::Generation(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), fd() < 0 ? -1 : static_cast<double>(state_->generation()));
}

// Arguments (since): returns the rows that changed after that change, each as eight numbers: id, the change that created it (0 if there is
// no slot), the change that last changed it, gpa, size, offset, flags, and the index of its region.
Napi::Value Vm::MemslotsSince(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  uint64_t generation = WholeNumber(info[0], "since");
  const auto rows = state_ == nullptr ? std::vector<Memslots::Row>() : state_->MemslotsSince(&generation);
  const auto regions = Napi::Array::New(env);
  std::map<Region*, uint32_t> known;
  const size_t count = rows.size() * kNumbers;
  auto numbers = Napi::Float64Array::New(env, count, NewBuffer(env, count * sizeof(double)), 0);
  double* next = numbers.Data();
  for (const auto& [id, slot] : rows) {
    const auto [region, is_new] = known.try_emplace(slot.region.get(), static_cast<uint32_t>(known.size()));
    if (is_new) regions.Set(region->second, slot.region == nullptr ? env.Null() : Mapping::Wrap(env, slot.region));
    for (const double number : {static_cast<double>(id), static_cast<double>(slot.created), static_cast<double>(slot.changed),
                                static_cast<double>(slot.gpa), static_cast<double>(slot.size), static_cast<double>(slot.offset),
                                static_cast<double>(slot.flags), static_cast<double>(region->second)})
      *next++ = number;
  }
  const auto result = Napi::Object::New(env);
  result.Set("generation", static_cast<double>(generation));
  result.Set("rows", numbers);
  result.Set("regions", regions);
  return result;
}

// Arguments (slot, computedFrom, bitmap).
Napi::Value Vm::GetDirtyLog(const Napi::CallbackInfo& info) {
  const auto slot = static_cast<uint32_t>(WholeNumber(info[0], "slot", UINT32_MAX));
  const uint64_t computed_from = WholeNumber(info[1], "computedFrom");
  const ByteSpan bitmap = BytesOf(info[2]);
  return Napi::Number::New(info.Env(), fd() < 0 ? -EBADF : state_->GetDirtyLog(slot, computed_from, bitmap.data, bitmap.length));
}

// Arguments (slot, computedFrom, first, pages, bitmap).
Napi::Value Vm::ClearDirtyLog(const Napi::CallbackInfo& info) {
  const auto slot = static_cast<uint32_t>(WholeNumber(info[0], "slot", UINT32_MAX));
  const uint64_t computed_from = WholeNumber(info[1], "computedFrom");
  const uint64_t first = WholeNumber(info[2], "first");
  const auto pages = static_cast<uint32_t>(WholeNumber(info[3], "pages", UINT32_MAX));
  const ByteSpan bitmap = BytesOf(info[4]);
  return Napi::Number::New(info.Env(),
                           fd() < 0 ? -EBADF : state_->ClearDirtyLog(slot, computed_from, first, pages, bitmap.data, bitmap.length));
}

}  // namespace node_kvm
