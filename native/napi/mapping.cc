#include "napi/mapping.h"

#include <dlfcn.h>
#include <errno.h>
#include <sys/mman.h>

#include <algorithm>
#include <mutex>
#include <string>
#include <unordered_map>

#include "core/linux_abi.h"
#include "napi/descriptor.h"
#include "napi/fault_service.h"
#include "napi/write_recorder.h"

namespace node_kvm {
namespace {

// The cost that V8 is told for memory that exists only once it is touched. Nobody knows how much of it is touched, and its size may be many
// times the host's memory. The limit makes V8 collect at most after each sixteen further objects while there are few, and at most after
// each quarter more when there are many: a caller that keeps them all does not wait for one collection after the other.
int64_t UntouchedCost(int64_t size, int64_t objects) { return std::min(size, kCollectionStep / std::max<int64_t>(16, objects / 4)); }

uint64_t NumberOption(const Napi::Object& options, const char* name) {
  const Napi::Value value = options.Get(name);
  return value.IsUndefined() ? 0 : WholeNumber(value, name);
}

// In the order of RegionKind.
constexpr const char* kKinds[] = {"anonymous", "memfd", "hugetlb", "file"};

RegionKind KindOf(const Napi::Object& options) {
  const Napi::Value kind = options.Get("kind");
  for (size_t index = 0; index < std::size(kKinds); index++)
    if (kind.IsString() && kind.As<Napi::String>().Utf8Value() == kKinds[index]) return static_cast<RegionKind>(index);
  throw Napi::TypeError::New(options.Env(), "kind is unknown");
}

// Returns the advice for madvise(2), if it leaves memory what it is. Other advice poisons pages, or makes an access to them a signal.
int AdviceOf(const Napi::Value& value) {
  constexpr int kAllowed[] = {MADV_NORMAL,  MADV_RANDOM,       MADV_SEQUENTIAL,    MADV_WILLNEED, MADV_DONTNEED,   MADV_FREE,
                              MADV_REMOVE,  MADV_MERGEABLE,    MADV_UNMERGEABLE,   MADV_HUGEPAGE, MADV_NOHUGEPAGE, kMadvCold,
                              kMadvPageout, kMadvPopulateRead, kMadvPopulateWrite, kMadvCollapse};
  const auto advice = static_cast<int>(WholeNumber(value, "advice", INT32_MAX));
  if (std::find(std::begin(kAllowed), std::end(kAllowed), advice) == std::end(kAllowed))
    throw Napi::RangeError::New(value.Env(), "advice is unknown");
  return advice;
}

using Hold = std::shared_ptr<Region>;

// The regions that the process's live buffers hold, by numbers that are never reused. When making a buffer fails, Node may call its
// finalizer at once (26), in a later turn of the event loop (20), or not at all. So a number may be released at any time and by more than
// one caller; only the first release has an effect. The collector may outlive the environment, so the finalizer of a shared buffer gets no
// environment.
class BufferHolds {
 public:
  // Returns the number in the form in which Node hands it to the finalizer; or null and a negative errno if the region cannot give a
  // buffer.
  void* Add(const Hold& region, int* error) {
    const std::lock_guard lock(mutex_);
    const auto [hold, added] = holds_.try_emplace(++last_, region);
    *error = region->HoldForBuffer();
    if (*error == 0) return reinterpret_cast<void*>(last_);
    holds_.erase(hold);
    return nullptr;
  }
  void Release(void* number) {
    // Unmapping takes a while, so it happens after the lock is released.
    Hold last;
    const std::lock_guard lock(mutex_);
    const auto found = holds_.find(reinterpret_cast<uintptr_t>(number));
    if (found == holds_.end()) return;
    found->second->ReleaseBuffer();
    last = std::move(found->second);
    holds_.erase(found);
  }
  // This is never destroyed: the collector may be in it when the process ends.
  static BufferHolds& OfProcess() {
    static auto* holds = new BufferHolds;
    return *holds;
  }

 private:
  std::mutex mutex_;
  std::unordered_map<uintptr_t, Hold> holds_;
  uintptr_t last_ = 0;
};
void ReleaseHold(void*, void* number) { BufferHolds::OfProcess().Release(number); }
void ReleaseHoldIn(napi_env, void* data, void* number) { ReleaseHold(data, number); }

// Node 22.23, 24.21 and 26 have this function, Node 20 does not. It is looked up at run time, so that one binary serves all.
using CreateShared = napi_status (*)(napi_env, void*, size_t, void (*)(void*, void*), void*, napi_value*);
CreateShared FindCreateShared() {
  static const auto found = reinterpret_cast<CreateShared>(dlsym(RTLD_DEFAULT, "node_api_create_external_sharedarraybuffer"));
  return found;
}

}  // namespace

Napi::Function Mapping::Define(Napi::Env env) {
  return DefineClass(env, "Region",
                     {
                         InstanceAccessor<&Mapping::Address>("address"),
                         InstanceAccessor<&Mapping::Size>("size"),
                         InstanceAccessor<&Mapping::Kind>("kind"),
                         InstanceAccessor<&Mapping::Memory>("memory"),
                         InstanceAccessor<&Mapping::Slots>("slots"),
                         InstanceAccessor<&Mapping::Buffered>("buffered"),
                         InstanceMethod<&Mapping::Read>("read"),
                         InstanceMethod<&Mapping::Write>("write"),
                         InstanceMethod<&Mapping::Fill>("fill"),
                         InstanceMethod<&Mapping::Remap>("remap"),
                         InstanceMethod<&Mapping::PunchHole>("punchHole"),
                         InstanceMethod<&Mapping::Advise>("advise"),
                         InstanceMethod<&Mapping::Protect>("protect"),
                         InstanceMethod<&Mapping::Buffer>("buffer"),
                         InstanceMethod<&Mapping::RecordWrites>("recordWrites"),
                         InstanceMethod<&Mapping::ServeFaults>("serveFaults"),
                         InstanceMethod<&Mapping::Release>("release"),
                     });
}

Napi::Value Mapping::Map(const Napi::CallbackInfo& info) {
  const auto options = OptionsOf(info[0]);
  RegionRequest request;
  request.kind = KindOf(options);
  request.size = NumberOption(options, "size");
  request.huge_page_size = NumberOption(options, "hugePageSize");
  request.address = NumberOption(options, "address");
  request.fixed = options.Get("fixed").ToBoolean();
  if (const Napi::Value advice = options.Get("advice"); !advice.IsUndefined()) request.advice = AdviceOf(advice);
  request.no_reserve = options.Get("noReserve").ToBoolean();
  request.populate = options.Get("populate").ToBoolean();
  request.shared = options.Get("shared").ToBoolean();
  request.readonly = options.Get("readonly").ToBoolean();
  request.offset = static_cast<off_t>(NumberOption(options, "offset"));
  if (request.kind == RegionKind::kFile) request.fd = static_cast<int>(NumberOption(options, "fd"));
  const size_t page = request.kind == RegionKind::kHugetlb ? request.huge_page_size : 4096;
  if (page < 4096 || (page & (page - 1)) != 0 || request.size == 0 || request.size % page != 0)
    return Napi::Number::New(info.Env(), -EINVAL);
  Hold region;
  if (const int error = Region::Map(request, &region); error != 0) return Napi::Number::New(info.Env(), error);
  const bool descriptor = request.kind == RegionKind::kMemfd || request.kind == RegionKind::kFile;
  const bool whole = request.populate || request.kind == RegionKind::kHugetlb;
  const auto size = static_cast<int64_t>(request.size);
  const Napi::Object made = Wrap(info.Env(), std::move(region));
  Unwrap(made)->Costs((whole ? size : UntouchedCost(size, WrapsOf(info.Env())->count())) + (descriptor ? kDescriptorCost : 0));
  return made;
}

Napi::Object Mapping::Wrap(Napi::Env env, Hold region) { return Make(env.GetInstanceData<AddonData>()->region, std::move(region)); }

Mapping::Mapping(const Napi::CallbackInfo& info) : Wrapped(info), region_(Taken<Hold>(info)) {}

Napi::Value Mapping::Address(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), region_ ? static_cast<double>(reinterpret_cast<uintptr_t>(region_->base())) : 0);
}
Napi::Value Mapping::Size(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), region_ ? static_cast<double>(region_->size()) : 0);
}
Napi::Value Mapping::Kind(const Napi::CallbackInfo& info) {
  return region_ ? Napi::Value(Napi::String::New(info.Env(), kKinds[static_cast<size_t>(region_->kind())])) : info.Env().Undefined();
}
// Returns the number of the memory, and where in it the region begins.
Napi::Value Mapping::Memory(const Napi::CallbackInfo& info) {
  auto memory = Napi::Array::New(info.Env(), 2);
  memory.Set(0u, region_ ? static_cast<double>(region_->writes()->id()) : 0);
  memory.Set(1u, region_ ? static_cast<double>(region_->memory_offset()) : 0);
  return memory;
}
Napi::Value Mapping::Slots(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), region_ ? region_->slots.load() : 0); }
Napi::Value Mapping::Buffered(const Napi::CallbackInfo& info) { return Napi::Boolean::New(info.Env(), region_ && region_->buffers() > 0); }

Napi::Value Mapping::Read(const Napi::CallbackInfo& info) {
  const uint64_t offset = WholeNumber(info[0], "offset");
  const ByteSpan target = BytesOf(info[1]);
  return Napi::Number::New(info.Env(), region_ ? region_->Read(offset, target.data, target.length) : -EBADF);
}

Napi::Value Mapping::Write(const Napi::CallbackInfo& info) {
  const uint64_t offset = WholeNumber(info[0], "offset");
  const ByteSpan source = BytesOf(info[1]);
  return Napi::Number::New(info.Env(), region_ ? region_->Write(offset, source.data, source.length) : -EBADF);
}

Napi::Value Mapping::Fill(const Napi::CallbackInfo& info) {
  const uint64_t offset = WholeNumber(info[0], "offset");
  const uint64_t length = WholeNumber(info[1], "length");
  const auto value = static_cast<uint8_t>(WholeNumber(info[2], "value", 255));
  return Napi::Number::New(info.Env(), region_ ? region_->Fill(offset, length, value) : -EBADF);
}

Napi::Value Mapping::Remap(const Napi::CallbackInfo& info) {
  const uint64_t offset = WholeNumber(info[0], "offset");
  const uint64_t length = WholeNumber(info[1], "length");
  const ByteSpan content = info[2].IsNull() ? ByteSpan{nullptr, 0} : BytesOf(info[2]);
  if (content.data != nullptr && content.length != length) return Napi::Number::New(info.Env(), -EINVAL);
  return Napi::Number::New(info.Env(), region_ ? region_->Remap(offset, length, content.data) : -EBADF);
}

Napi::Value Mapping::Advise(const Napi::CallbackInfo& info) {
  const uint64_t offset = WholeNumber(info[0], "offset");
  const uint64_t length = WholeNumber(info[1], "length");
  const int advice = AdviceOf(info[2]);
  return Napi::Number::New(info.Env(), region_ ? region_->Advise(offset, length, advice) : -EBADF);
}

Napi::Value Mapping::PunchHole(const Napi::CallbackInfo& info) {
  const uint64_t offset = WholeNumber(info[0], "offset");
  const uint64_t length = WholeNumber(info[1], "length");
  return Napi::Number::New(info.Env(), region_ ? region_->PunchHole(offset, length) : -EBADF);
}

Napi::Value Mapping::Protect(const Napi::CallbackInfo& info) {
  const uint64_t offset = WholeNumber(info[0], "offset");
  const uint64_t length = WholeNumber(info[1], "length");
  const auto protection = static_cast<int>(WholeNumber(info[2], "protection", 7));
  return Napi::Number::New(info.Env(), region_ ? region_->Protect(offset, length, protection) : -EBADF);
}

Napi::Value Mapping::Buffer(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!region_) return Napi::Number::New(env, -EBADF);
  if (!buffer_.IsEmpty()) {
    const Napi::Value alive = buffer_.Value();
    if (!alive.IsEmpty() && alive.IsObject()) return alive;
  }
  int error = 0;
  void* hold = BufferHolds::OfProcess().Add(region_, &error);
  if (error != 0) return Napi::Number::New(env, error);
  napi_value buffer = nullptr;
  const CreateShared create_shared = FindCreateShared();
  const napi_status status = create_shared != nullptr
                                 ? create_shared(env, region_->base(), region_->size(), ReleaseHold, hold, &buffer)
                                 : napi_create_external_arraybuffer(env, region_->base(), region_->size(), ReleaseHoldIn, hold, &buffer);
  if (status != napi_ok) {
    ReleaseHold(nullptr, hold);
    // Node 20 throws in addition to the error status.
    napi_value thrown;
    napi_get_and_clear_last_exception(env, &thrown);
    return Napi::Number::New(env, -EFBIG);
  }
  buffer_ = Napi::Weak(Napi::Object(env, buffer));
  return Napi::Value(env, buffer);
}

Napi::Value Mapping::RecordWrites(const Napi::CallbackInfo& info) {
  if (!region_) return Napi::Number::New(info.Env(), -EBADF);
  return WriteRecorder::Begin(info.Env(), region_);
}

Napi::Value Mapping::ServeFaults(const Napi::CallbackInfo& info) {
  if (!region_) return Napi::Number::New(info.Env(), -EBADF);
  return FaultService::Begin(info, region_);
}

void Mapping::Release(const Napi::CallbackInfo&) {
  Drop();
  Costs(0);
  buffer_.Reset();
}

}  // namespace node_kvm
