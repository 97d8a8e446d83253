// The methods that every object around a KVM descriptor offers to TypeScript. A result below 0 is a negative errno; TypeScript makes the
// message.
#pragma once

#include <napi.h>

#include <memory>
#include <string>

#include "core/doorbell.h"
#include "core/owned_fd.h"
#include "core/run.h"
#include "napi/wrapped.h"

namespace node_kvm {

class VcpuCalls;

// Each environment has its own data: the main thread and each Worker load the add-on for themselves.
struct AddonData {
  ~AddonData();
  Napi::FunctionReference descriptor;
  Napi::FunctionReference region;
  Napi::FunctionReference vm;
  Napi::FunctionReference vcpu;
  Napi::FunctionReference runner;
  Napi::FunctionReference tracer;
  Napi::FunctionReference watcher;
  Napi::FunctionReference ioeventfd;
  Napi::FunctionReference write_recorder;
  Napi::FunctionReference fault_service;
  Napi::FunctionReference array_buffer;  // JavaScript's own constructors
  Napi::FunctionReference shared_array_buffer;
  Napi::FunctionReference uint8_array;
  Napi::FunctionReference resizable;  // the getter of ArrayBuffer.prototype
  Napi::FunctionReference exhausted;  // takes the name of the resource and returns the KvmError
  std::shared_ptr<Wraps> wraps = std::make_shared<Wraps>();
  Listeners listeners;
  std::shared_ptr<VcpuCalls> vcpu_calls;
  bool watches_loop = false;
};

// The bytes of a Uint8Array argument. Throws a TypeError for anything else.
struct ByteSpan {
  char* data;
  size_t length;
};
ByteSpan BytesOf(const Napi::Value& value);

// Zeroed memory that JavaScript allocates. Throws std::bad_alloc where there is none; if Node-API allocated it, V8 would end the process.
Napi::ArrayBuffer NewBuffer(Napi::Env env, size_t bytes);

// Whether a buffer may be made smaller while native code holds its address.
bool IsResizable(const Napi::Value& buffer);

// An argument with options. Throws a TypeError if it is not an object.
Napi::Object OptionsOf(const Napi::Value& value);

// Memory that native code keeps and JavaScript sees. It is a SharedArrayBuffer because nobody can take the memory of one away (an
// ArrayBuffer could be transferred to a Worker, and collected there).
class SharedMemory {
 public:
  SharedMemory(Napi::Env env, size_t bytes);
  char* data() const { return data_; }
  Napi::Value Value() const { return buffer_.Value(); }

 private:
  Napi::ObjectReference buffer_;
  char* data_ = nullptr;
};

// A whole number from 0 to `most`. Throws a RangeError for anything else.
uint64_t WholeNumber(const Napi::Value& value, const char* name, uint64_t most = uint64_t{1} << 53);

// Returns the end of a doorbell at which to listen, or a negative errno.
Napi::Value GiveListener(Napi::Env env, int fd);

// Calls ioctl(2) for a request that requests.h lists, with a buffer as large as the request needs, a number, or undefined. Returns
// -EOPNOTSUPP for a request that is not listed, -EINVAL for an argument of the wrong type, -E2BIG for a buffer that is too small.
int CheckedIoctl(int fd, napi_env env, unsigned long request, napi_value argument);
int CheckedCountedIoctl(int fd, unsigned long request, const ByteSpan& argument);
int ReadDescriptor(int fd, const Napi::CallbackInfo& info);
// Returns a new descriptor object around `fd`, or `fd` itself as a number if it is a negative errno.
Napi::Value WrapDescriptor(Napi::Env env, int fd);
int OpenStatistics(int fd);

// The methods that all wraps share. Derived has `int fd() const` (-1 once closed) and `void CloseHandle()`. A class that must not make an
// ioctl at any moment has a WithFd() of its own.
template <class Derived>
class DescriptorWrap : public Wrapped<Derived> {
 public:
  explicit DescriptorWrap(const Napi::CallbackInfo& info) : Wrapped<Derived>(info) {}

  Napi::Value Fd(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), self()->fd()); }
  Napi::Value Ioctl(const Napi::CallbackInfo& info) {
    const VcpuBarrier barrier;
    const uint64_t request = WholeNumber(info[0], "request", UINT32_MAX);
    return Napi::Number::New(info.Env(), self()->WithFd([&](int fd) { return CheckedIoctl(fd, info.Env(), request, info[1]); }));
  }
  Napi::Value IoctlCounted(const Napi::CallbackInfo& info) {
    const VcpuBarrier barrier;
    const uint64_t request = WholeNumber(info[0], "request", UINT32_MAX);
    const ByteSpan argument = BytesOf(info[1]);
    return Napi::Number::New(info.Env(), self()->WithFd([&](int fd) { return CheckedCountedIoctl(fd, request, argument); }));
  }
  Napi::Value Read(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), ReadDescriptor(self()->fd(), info)); }
  Napi::Value Statistics(const Napi::CallbackInfo& info) { return WrapDescriptor(info.Env(), self()->WithFd(OpenStatistics)); }
  Napi::Value Close(const Napi::CallbackInfo& info) {
    self()->CloseHandle();
    this->Costs(0);
    return info.Env().Undefined();
  }
  template <typename Call>
  int WithFd(Call call) {
    return call(self()->fd());
  }

 protected:
  using Wrap = Wrapped<Derived>;
  static std::vector<Napi::ClassPropertyDescriptor<Derived>> SharedMethods() {
    return {
        Wrap::template InstanceAccessor<&Derived::Fd>("fd"),
        Wrap::template InstanceMethod<&Derived::Ioctl>("ioctl"),
        Wrap::template InstanceMethod<&Derived::IoctlCounted>("ioctlCounted"),
        Wrap::template InstanceMethod<&Derived::Read>("read"),
        Wrap::template InstanceMethod<&Derived::Statistics>("openStatistics"),
        Wrap::template InstanceMethod<&Derived::Close>("close"),
    };
  }

 private:
  Derived* self() { return static_cast<Derived*>(this); }
};

// /dev/kvm, the statistics descriptors, and guest_memfds.
class Descriptor : public DescriptorWrap<Descriptor> {
 public:
  static Napi::Function Define(Napi::Env env);
  static Napi::Object Wrap(Napi::Env env, OwnedFd fd);
  explicit Descriptor(const Napi::CallbackInfo& info);
  int fd() const { return fd_.get(); }
  void CloseHandle() { fd_.Reset(); }

 private:
  void Drop() override { CloseHandle(); }
  Napi::Value Allocate(const Napi::CallbackInfo& info);
  Napi::Value CreateVm(const Napi::CallbackInfo& info);
  OwnedFd fd_;
};

}  // namespace node_kvm
