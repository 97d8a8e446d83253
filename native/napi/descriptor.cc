#include "napi/descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>

#include <cmath>
#include <cstring>
#include <new>
#include <vector>

#include "core/kvm_abi.h"
#include "core/requests.h"
#include "core/tokens.h"
#include "napi/vm.h"

namespace node_kvm {

AddonData::~AddonData() { Tokens::OfProcess().EndSharer(this); }

ByteSpan BytesOf(const Napi::Value& value) {
  // Napi::TypedArray is not used, because it refuses views of a SharedArrayBuffer.
  void* data = nullptr;
  size_t length = 0;
  napi_typedarray_type type;
  if (napi_get_typedarray_info(value.Env(), value, &type, &length, &data, nullptr, nullptr) != napi_ok || type != napi_uint8_array)
    throw Napi::TypeError::New(value.Env(), "the argument must be a Uint8Array");
  return {static_cast<char*>(data), length};
}

Napi::ArrayBuffer NewBuffer(Napi::Env env, size_t bytes) {
  constexpr size_t kSmall = 1 << 16;
  if (bytes <= kSmall) return Napi::ArrayBuffer::New(env, bytes);
  try {
    const Napi::Value made = env.GetInstanceData<AddonData>()->array_buffer.New({Napi::Number::New(env, static_cast<double>(bytes))});
    // This check catches a foreign constructor that stood in place of ArrayBuffer when the add-on was loaded.
    if (made.IsArrayBuffer() && made.As<Napi::ArrayBuffer>().ByteLength() == bytes) return made.As<Napi::ArrayBuffer>();
  } catch (const Napi::Error&) {
  }
  throw std::bad_alloc();
}

bool IsResizable(const Napi::Value& buffer) {
  return buffer.IsArrayBuffer() && buffer.Env().GetInstanceData<AddonData>()->resizable.Call(buffer, {}).ToBoolean();
}

Napi::Object OptionsOf(const Napi::Value& value) {
  if (!value.IsObject()) throw Napi::TypeError::New(value.Env(), "the options must be an object");
  return value.As<Napi::Object>();
}

SharedMemory::SharedMemory(Napi::Env env, size_t bytes) {
  const AddonData& data = *env.GetInstanceData<AddonData>();
  const Napi::Object buffer = data.shared_array_buffer.New({Napi::Number::New(env, static_cast<double>(bytes))});
  const ByteSpan span = BytesOf(data.uint8_array.New({buffer}));
  if (span.length != bytes) throw std::bad_alloc();
  buffer_ = Napi::Persistent(buffer);
  data_ = span.data;
}

uint64_t WholeNumber(const Napi::Value& value, const char* name, uint64_t most) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : NAN;
  if (!(number >= 0 && number <= static_cast<double>(most)) || std::floor(number) != number)
    throw Napi::RangeError::New(value.Env(), std::string(name) + " is out of range");
  return static_cast<uint64_t>(number);
}

Napi::Value GiveListener(Napi::Env env, int fd) { return Napi::Number::New(env, env.GetInstanceData<AddonData>()->listeners.Give(fd)); }

namespace {

// Reads an argument that is not a structure: a number, or nothing. Returns false for anything else.
bool NumberOf(napi_env env, napi_value argument, unsigned long* number) {
  napi_valuetype type;
  double value = 0;
  if (napi_typeof(env, argument, &type) != napi_ok) return false;
  if (type != napi_undefined && napi_get_value_double(env, argument, &value) != napi_ok) return false;
  if (!(value >= 0 && value <= 0x1p53) || std::floor(value) != value) return false;
  *number = static_cast<unsigned long>(value);
  return true;
}

int EnableCapability(int fd, const void* argument) {
  kvm_enable_cap enabled;
  memcpy(&enabled, argument, sizeof enabled);
  if (TakesAddress(enabled)) return -EOPNOTSUPP;
  const int result = IoctlUninterrupted(fd, KVM_ENABLE_CAP, &enabled);
  return result < 0 ? -errno : result;
}

}  // namespace

int CheckedIoctl(int fd, napi_env env, unsigned long request, napi_value argument) {
  if (fd < 0) return -EBADF;
  if (LayoutOf(request).kind != RequestLayout::kPlain) return -EOPNOTSUPP;
  const size_t size = _IOC_SIZE(request);
  int result;
  if (size == 0) {
    unsigned long number;
    if (!NumberOf(env, argument, &number)) return -EINVAL;
    result = IoctlUninterrupted(fd, request, number);
  } else {
    void* data = nullptr;
    size_t length = 0;
    napi_typedarray_type type;
    if (napi_get_typedarray_info(env, argument, &type, &length, &data, nullptr, nullptr) != napi_ok || type != napi_uint8_array)
      return -EINVAL;
    if (length < size) return -E2BIG;
    if (request == KVM_ENABLE_CAP) return EnableCapability(fd, data);
    result = IoctlUninterrupted(fd, request, data);
  }
  return result < 0 ? -errno : result;
}

// The kernel reads the count once more by itself. So both this check and the kernel look at a copy, which no other thread can change in
// between (the buffer may be shared).
int CheckedCountedIoctl(int fd, unsigned long request, const ByteSpan& argument) {
  if (fd < 0) return -EBADF;
  const RequestLayout layout = LayoutOf(request);
  if (layout.kind != RequestLayout::kCounted) return -EOPNOTSUPP;
  const size_t header = _IOC_SIZE(request);
  if (argument.length < header) return -E2BIG;
  uint32_t count;
  memcpy(&count, argument.data, sizeof count);
  if ((argument.length - header) / layout.entry < count) return -E2BIG;
  std::vector<char> copy(argument.data, argument.data + header + count * layout.entry);
  memcpy(copy.data(), &count, sizeof count);
  const int result = IoctlUninterrupted(fd, request, copy.data());
  if (result < 0 && errno != E2BIG) return -errno;
  memcpy(argument.data, copy.data(), copy.size());
  return result < 0 ? -E2BIG : result;
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
  return Descriptor::Wrap(env, OwnedFd(fd));
}

Napi::Function Descriptor::Define(Napi::Env env) {
  auto methods = SharedMethods();
  methods.push_back(InstanceMethod<&Descriptor::CreateVm>("createVm"));
  methods.push_back(InstanceMethod<&Descriptor::Allocate>("allocate"));
  return DefineClass(env, "Descriptor", methods);
}

Descriptor::Descriptor(const Napi::CallbackInfo& info) : DescriptorWrap(info), fd_(Taken<OwnedFd>(info)) { Costs(kDescriptorCost); }

Napi::Object Descriptor::Wrap(Napi::Env env, OwnedFd fd) { return Make(env.GetInstanceData<AddonData>()->descriptor, std::move(fd)); }

// Arguments (punch, offset, length): allocates in a guest_memfd, or punches a hole in it.
Napi::Value Descriptor::Allocate(const Napi::CallbackInfo& info) {
  const int mode = FALLOC_FL_KEEP_SIZE | (info[0].ToBoolean() ? FALLOC_FL_PUNCH_HOLE : 0);
  const auto offset = static_cast<off_t>(WholeNumber(info[1], "offset"));
  const auto length = static_cast<off_t>(WholeNumber(info[2], "length"));
  if (fd() < 0) return Napi::Number::New(info.Env(), -EBADF);
  return Napi::Number::New(info.Env(), fallocate(fd(), mode, offset, length) < 0 ? -errno : 0);
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
