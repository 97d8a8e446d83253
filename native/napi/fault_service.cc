#include "napi/fault_service.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "napi/descriptor.h"

namespace node_kvm {
namespace {

int CopyOfBytes(const ByteSpan& content, OwnedFd* source) {
  OwnedFd fd(memfd_create("node-kvm-source", MFD_CLOEXEC));
  if (fd.get() < 0) return -errno;
  for (size_t done = 0; done < content.length;) {
    const ssize_t count = write(fd.get(), content.data + done, content.length - done);
    if (count < 0) return -errno;
    done += static_cast<size_t>(count);
  }
  *source = std::move(fd);
  return 0;
}

int SourceOf(const Napi::Object& options, UserFaultsRequest* request) {
  const Napi::Value fd = options.Get("fd");
  const Napi::Value content = options.Get("content");
  if (!content.IsUndefined()) return CopyOfBytes(BytesOf(content), &request->source);
  if (fd.IsUndefined()) return 0;
  request->source = OwnedFd(fcntl(static_cast<int>(WholeNumber(fd, "fd", INT32_MAX)), F_DUPFD_CLOEXEC, 3));
  request->source_offset = static_cast<off_t>(WholeNumber(options.Get("offset"), "offset"));
  return request->source.get() < 0 ? -errno : 0;
}

}  // namespace

Napi::Function FaultService::Define(Napi::Env env) {
  return DefineClass(env, "FaultService",
                     {
                         InstanceMethod<&FaultService::Take>("take"),
                         InstanceMethod<&FaultService::Serve>("serve"),
                         InstanceMethod<&FaultService::Fail>("fail"),
                         InstanceMethod<&FaultService::Missing>("missing"),
                         InstanceMethod<&FaultService::MakePresent>("makePresent"),
                         InstanceMethod<&FaultService::Abandon>("abandon"),
                         InstanceMethod<&FaultService::Subscribe>("subscribe"),
                         InstanceMethod<&FaultService::Served>("served"),
                         InstanceMethod<&FaultService::Close>("close"),
                     });
}

Napi::Value FaultService::Begin(const Napi::CallbackInfo& info, std::shared_ptr<Region> region) {
  const auto options = OptionsOf(info[0]);
  UserFaultsRequest request;
  request.minor = options.Get("minor").ToBoolean();
  if (const int error = SourceOf(options, &request); error != 0) return Napi::Number::New(info.Env(), error);
  if (request.source.get() < 0) request.server = ServingThread::OfThisThread();
  Parts parts{nullptr, region};
  if (const int error = region->ServeFaults(std::move(request), &parts.faults); error != 0) return Napi::Number::New(info.Env(), error);
  const UserFaults* begun = parts.faults.get();
  try {
    return Make(info.Env().GetInstanceData<AddonData>()->fault_service, std::move(parts));
  } catch (...) {
    // The caller gets no object with which it could end the service, so the service ends here.
    region->EndFaults(begun);
    throw;
  }
}

FaultService::FaultService(const Napi::CallbackInfo& info) : Wrapped(info), parts_(Taken<Parts>(info)) {
  // A service has a thread and three descriptors.
  Costs(4 * kDescriptorCost);
}

void FaultService::Drop() {
  if (parts_.faults && !parts_.faults->native()) parts_.faults->Abandon();
  parts_ = {};
}

// Returns pairs: the page's offset, and whether it is written.
Napi::Value FaultService::Take(const Napi::CallbackInfo& info) {
  std::vector<UserFaults::Fault> faults;
  if (parts_.faults) faults = parts_.faults->Take();
  auto pairs = Napi::Float64Array::New(info.Env(), faults.size() * 2);
  for (size_t index = 0; index < faults.size(); ++index) {
    pairs[index * 2] = static_cast<double>(faults[index].offset);
    pairs[index * 2 + 1] = faults[index].write;
  }
  return pairs;
}

Napi::Value FaultService::Serve(const Napi::CallbackInfo& info) {
  const uint64_t offset = WholeNumber(info[0], "offset");
  const uint64_t length = WholeNumber(info[1], "length");
  const ByteSpan content = info[2].IsNull() ? ByteSpan{nullptr, 0} : BytesOf(info[2]);
  if (!parts_.faults) return Napi::Number::New(info.Env(), -EBADF);
  if (content.data != nullptr && content.length < length) return Napi::Number::New(info.Env(), -E2BIG);
  return Napi::Number::New(info.Env(), parts_.faults->Serve(offset, content.data, length));
}

Napi::Value FaultService::Fail(const Napi::CallbackInfo& info) {
  const uint64_t offset = WholeNumber(info[0], "offset");
  return Napi::Number::New(info.Env(), parts_.faults ? parts_.faults->Fail(offset) : -EBADF);
}

// Returns pairs: a run's offset and its length.
Napi::Value FaultService::Missing(const Napi::CallbackInfo& info) {
  const uint64_t offset = WholeNumber(info[0], "offset");
  const uint64_t length = WholeNumber(info[1], "length");
  std::vector<UserFaults::Run> missing;
  if (parts_.faults) missing = parts_.faults->Missing(offset, length);
  auto pairs = Napi::Float64Array::New(info.Env(), missing.size() * 2);
  for (size_t index = 0; index < missing.size(); ++index) {
    pairs[index * 2] = static_cast<double>(missing[index].offset);
    pairs[index * 2 + 1] = static_cast<double>(missing[index].length);
  }
  return pairs;
}

Napi::Value FaultService::MakePresent(const Napi::CallbackInfo& info) {
  const uint64_t offset = WholeNumber(info[0], "offset");
  const uint64_t length = WholeNumber(info[1], "length");
  return Napi::Number::New(info.Env(), parts_.faults ? parts_.faults->MakePresent(offset, length) : -EBADF);
}

void FaultService::Abandon(const Napi::CallbackInfo&) {
  if (parts_.faults) parts_.faults->Abandon();
}

Napi::Value FaultService::Subscribe(const Napi::CallbackInfo& info) {
  return GiveListener(info.Env(), parts_.faults ? parts_.faults->Subscribe() : -EBADF);
}

Napi::Value FaultService::Served(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), parts_.faults ? static_cast<double>(parts_.faults->served()) : 0);
}

void FaultService::Close(const Napi::CallbackInfo&) {
  if (parts_.region) parts_.region->EndFaults(parts_.faults.get());
  parts_ = {};
  Costs(0);
}

}  // namespace node_kvm
