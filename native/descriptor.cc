#include "descriptor.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include <cmath>
#include <new>

#include "tokens.h"
#include "vm.h"

#ifndef KVM_GET_STATS_FD
#define KVM_GET_STATS_FD _IO(KVMIO, 0xce)
#endif

namespace node_kvm {

AddonData::~AddonData() { Tokens::OfProcess().EndSharer(this); }

ByteSpan BytesOf(const Napi::Value& value) {
  // Not through Napi::TypedArray: that one refuses views of a SharedArrayBuffer.
  void* data = nullptr;
  size_t length = 0;
  napi_typedarray_type type;
  if (napi_get_typedarray_info(value.Env(), value, &type, &length, &data, nullptr, nullptr) != napi_ok || type != napi_uint8_array)
    throw Napi::TypeError::New(value.Env(), "a Uint8Array is needed");
  return {static_cast<char*>(data), length};
}

Napi::ArrayBuffer NewBuffer(Napi::Env env, size_t bytes) {
  constexpr size_t kSmall = 1 << 16;
  if (bytes <= kSmall) return Napi::ArrayBuffer::New(env, bytes);
  try {
    const Napi::Value made = env.GetInstanceData<AddonData>()->array_buffer.New({Napi::Number::New(env, static_cast<double>(bytes))});
    // Not of somebody's own constructor that stood in its place when the add-on was loaded.
    if (made.IsArrayBuffer() && made.As<Napi::ArrayBuffer>().ByteLength() == bytes) return made.As<Napi::ArrayBuffer>();
  } catch (const Napi::Error&) {
  }
  throw std::bad_alloc();
}

uint64_t WholeNumber(const Napi::Value& value, const char* name, uint64_t most) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : NAN;
  if (!(number >= 0 && number <= static_cast<double>(most)) || std::floor(number) != number)
    throw Napi::RangeError::New(value.Env(), std::string(name) + " is out of range");
  return static_cast<uint64_t>(number);
}

Napi::Value GiveListener(Napi::Env env, int fd) { return Napi::Number::New(env, env.GetInstanceData<AddonData>()->listeners.Give(fd)); }

int CheckedIoctl(int fd, napi_env env, unsigned long request, napi_value argument) {
  if (fd < 0) return -EBADF;
  void* data = nullptr;
  size_t length = 0;
  napi_typedarray_type type = napi_int8_array;
  int result;
  if (napi_get_typedarray_info(env, argument, &type, &length, &data, nullptr, nullptr) == napi_ok) {
    if (type != napi_uint8_array || length < _IOC_SIZE(request) || _IOC_SIZE(request) == 0) return -E2BIG;
    result = IoctlUninterrupted(fd, request, data);
  } else {
    // A request that takes a structure must not be handed a number for an address.
    if (_IOC_SIZE(request) != 0) return -EFAULT;
    double number = 0;
    if (napi_get_value_double(env, argument, &number) == napi_ok && !(number >= 0 && number <= 0x1p53)) return -EINVAL;
    result = IoctlUninterrupted(fd, request, static_cast<unsigned long>(number));
  }
  return result < 0 ? -errno : result;
}

int CheckedCountedIoctl(int fd, const Napi::CallbackInfo& info) {
  const auto request = static_cast<unsigned long>(WholeNumber(info[0], "request", UINT32_MAX));
  const ByteSpan argument = BytesOf(info[1]);
  const uint64_t header = WholeNumber(info[2], "headerSize", 4096);
  const uint64_t entry = WholeNumber(info[3], "entrySize", 4096);
  if (fd < 0) return -EBADF;
  if (header < sizeof(uint32_t) || header < _IOC_SIZE(request) || argument.length < header) return -E2BIG;
  uint32_t count;
  memcpy(&count, argument.data, sizeof count);
  if (argument.length - header < count * entry) return -E2BIG;
  const int result = IoctlUninterrupted(fd, request, argument.data);
  return result < 0 ? -errno : result;
}

int ReadDescriptor(int fd, const Napi::CallbackInfo& info) {
  const ByteSpan target = BytesOf(info[0]);
  const uint64_t position = WholeNumber(info[1], "position");
  if (fd < 0) return -EBADF;
  const ssize_t count = pread(fd, target.data, target.length, static_cast<off_t>(position));
  return count < 0 ? -errno : static_cast<int>(count);
}

int OpenStatistics(int fd) {
  if (fd < 0) return -EBADF;
  const int result = IoctlUninterrupted(fd, KVM_GET_STATS_FD, 0);
  return result < 0 ? -errno : result;
}

Napi::Value WrapDescriptor(Napi::Env env, int fd) {
  if (fd < 0) return Napi::Number::New(env, fd);
  OwnedFd owner(fd);
  return env.GetInstanceData<AddonData>()->descriptor.New({Napi::External<OwnedFd>::New(env, &owner)});
}

Napi::Function Descriptor::Define(Napi::Env env) {
  auto methods = SharedMethods();
  methods.push_back(InstanceMethod<&Descriptor::CreateVm>("createVm"));
  return DefineClass(env, "Descriptor", methods);
}

Descriptor::Descriptor(const Napi::CallbackInfo& info) : DescriptorWrap(info) {
  if (!info[0].IsExternal()) throw Napi::TypeError::New(info.Env(), "not constructible");
  fd_ = std::move(*info[0].As<Napi::External<OwnedFd>>().Data());
  Costs(kDescriptorCost);
}

Napi::Value Descriptor::CreateVm(const Napi::CallbackInfo& info) {
  const uint64_t type = WholeNumber(info[0], "type");
  if (fd() < 0) return Napi::Number::New(info.Env(), -EBADF);
  const int vm = IoctlUninterrupted(fd(), KVM_CREATE_VM, type);
  if (vm < 0) return Napi::Number::New(info.Env(), -errno);
  OwnedFd owner(vm);
  const int run_page_size = IoctlUninterrupted(fd(), KVM_GET_VCPU_MMAP_SIZE, 0);
  if (run_page_size < 0) return Napi::Number::New(info.Env(), -errno);
  return Vm::Wrap(info.Env(), std::make_shared<VmState>(std::move(owner), run_page_size), true);
}

}  // namespace node_kvm
