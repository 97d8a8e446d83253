#include "napi/ioeventfd.h"

#include <errno.h>
#include <fcntl.h>

#include <cstring>

#include "napi/descriptor.h"

namespace node_kvm {

Napi::Function IoEventfd::Define(Napi::Env env) {
  return DefineClass(env, "IoEventfd", {InstanceAccessor<&IoEventfd::Fd>("fd"), InstanceMethod<&IoEventfd::Close>("close")});
}

Napi::Value IoEventfd::Assign(Napi::Env env, const std::shared_ptr<VmState>& vm, const Napi::Value& request) {
  Parts parts;
  const ByteSpan bytes = BytesOf(request);
  if (vm == nullptr || vm->ended()) return Napi::Number::New(env, -EBADF);
  if (bytes.length < sizeof parts.request) return Napi::Number::New(env, -E2BIG);
  memcpy(&parts.request, bytes.data, sizeof parts.request);
  parts.eventfd = OwnedFd(fcntl(parts.request.fd, F_DUPFD_CLOEXEC, 3));
  if (parts.eventfd.get() < 0) return Napi::Number::New(env, -errno);
  parts.request.fd = parts.eventfd.get();
  parts.vm = vm;
  // This comes before KVM is asked, so that nothing can fail afterwards and leave a registration to undo.
  const Napi::Object made = Make(env.GetInstanceData<AddonData>()->ioeventfd, std::move(parts));
  IoEventfd* const self = Unwrap(made);
  if (IoctlUninterrupted(vm->fd(), KVM_IOEVENTFD, &self->parts_.request) == 0) return made;
  const int error = -errno;
  self->parts_ = {};
  return Napi::Number::New(env, error);
}

IoEventfd::IoEventfd(const Napi::CallbackInfo& info) : Wrapped(info), parts_(Taken<Parts>(info)) {}

void IoEventfd::LetGo() {
  // A VM that was ended has forgotten the registration.
  if (const auto vm = parts_.vm.lock(); vm != nullptr && !vm->ended()) {
    const VcpuBarrier barrier;
    parts_.request.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
    IoctlUninterrupted(vm->fd(), KVM_IOEVENTFD, &parts_.request);
  }
  parts_ = {};
}

}  // namespace node_kvm
