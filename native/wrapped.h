// The base of every object that TypeScript holds. It sees to three things for all of them:
//   - What C++ throws where memory or threads have run out becomes a KvmError, in every method that is defined through it.
//   - An object that JavaScript has lost lets go of what it holds when others are made, before its finalizer's turn in the event loop,
//   which
//     a loop that makes many never comes to.
//   - V8 knows what an object costs outside its heap, so that lost ones are collected in time.
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

namespace node_kvm {

// For a catch block: throws on what is JavaScript's, and a KvmError for std::bad_alloc, std::length_error and std::system_error.
[[noreturn]] void ThrowOn(Napi::Env env);

// A function of the module, guarded as methods are.
template <Napi::Value (*call)(const Napi::CallbackInfo&)>
Napi::Value Guarded(const Napi::CallbackInfo& info) {
  try {
    return call(info);
  } catch (...) {
    ThrowOn(info.Env());
  }
}

template <Napi::Value (*call)(const Napi::CallbackInfo&)>
void SetFunction(Napi::Object exports, const char* name) {
  exports.Set(name, Napi::Function::New(exports.Env(), Guarded<call>, name));
}

// What V8 is told. It collects when external memory has grown by kCollectionStep: a kDescriptorCost for each of the 1,024 descriptors that
// a process usually may have comes to that.
constexpr int64_t kCollectionStep = 64 << 20;
constexpr int64_t kDescriptorCost = kCollectionStep / 1024;

// The wrapped objects of one environment.
class Wraps {
 public:
  // In a list of its own links: to become one allocates nothing, and so cannot fail.
  class Member {
   public:
    explicit Member(std::shared_ptr<Wraps> wraps) : wraps_(std::move(wraps)), next_(std::exchange(wraps_->first_, this)) {
      ++wraps_->count_;
      if (next_ != nullptr) next_->previous_ = this;
    }
    Member(const Member&) = delete;
    Member& operator=(const Member&) = delete;

   protected:
    Wraps& wraps() const { return *wraps_; }
    ~Member() {
      --wraps_->count_;
      (previous_ == nullptr ? wraps_->first_ : previous_->next_) = next_;
      if (next_ != nullptr) next_->previous_ = previous_;
    }

   private:
    friend class Wraps;
    virtual bool IsLost() const = 0;
    virtual void Reclaim() = 0;

    const std::shared_ptr<Wraps> wraps_;
    Member* next_;
    Member* previous_ = nullptr;
  };
  int64_t count() const { return count_; }
  // Lets go of what lost ones hold; how many there were.
  size_t Reclaim(Napi::Env env);
  // The same, if anything was collected since the last time.
  void AfterCollection(Napi::Env env);

 private:
  int64_t count_ = 0;
  Member* first_ = nullptr;
  // Held by nobody: gone once V8 has collected.
  Napi::ObjectReference sentinel_;
};
std::shared_ptr<Wraps> WrapsOf(Napi::Env env);

template <class Derived>
class Wrapped : public Napi::ObjectWrap<Derived>, private Wraps::Member {
 public:
  explicit Wrapped(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Derived>(info), Wraps::Member(WrapsOf(info.Env())) {
    wraps().AfterCollection(info.Env());
  }
  ~Wrapped() override { Costs(0); }

 protected:
  // Lets go of what the object holds, as its destructor would; the object itself stays until its finalizer runs.
  virtual void Drop() = 0;
  // Bytes outside V8's heap from now on.
  void Costs(int64_t bytes) {
    int64_t total;
    if (bytes != cost_) napi_adjust_external_memory(this->Env(), bytes - cost_, &total);
    cost_ = bytes;
  }

  // These hide those of Napi::ObjectWrap, which are not guarded.
  template <auto method>
  static Napi::ClassPropertyDescriptor<Derived> InstanceMethod(const char* name) {
    return Base::InstanceMethod(name, Method(&Wrapped::Call<method>));
  }
  // For what is called beside an ioctl a hundred thousand times: node-addon-api's wrappers and a returned number would be seen there. The
  // method is void, takes one argument (null where the caller gave none), and answers in memory that it shares with its caller.
  template <auto method>
  static Napi::ClassPropertyDescriptor<Derived> BareMethod(const char* name) {
    return napi_property_descriptor{name, nullptr, CallBare<method>, nullptr, nullptr, nullptr, napi_default, nullptr};
  }
  template <auto method>
  static Napi::ClassPropertyDescriptor<Derived> InstanceAccessor(const char* name) {
    return Base::InstanceAccessor(name, Method(&Wrapped::Call<method>), nullptr);
  }

 private:
  using Base = Napi::ObjectWrap<Derived>;
  using Method = Napi::Value (Derived::*)(const Napi::CallbackInfo&);

  template <auto method>
  Napi::Value Call(const Napi::CallbackInfo& info) {
    Derived* self = static_cast<Derived*>(this);
    try {
      if constexpr (std::is_void_v<decltype((self->*method)(info))>)
        return (self->*method)(info), info.Env().Undefined();
      else
        return (self->*method)(info);
    } catch (...) {
      ThrowOn(info.Env());
    }
  }
  template <auto method>
  static napi_value CallBare(napi_env env, napi_callback_info info) {
    size_t count = 1;
    napi_value argument, receiver;
    void* self;
    try {
      try {
        if (napi_get_cb_info(env, info, &count, &argument, &receiver, nullptr) != napi_ok || napi_unwrap(env, receiver, &self) != napi_ok)
          throw Napi::Error::New(env);
        (static_cast<Derived*>(self)->*method)(env, count == 0 ? nullptr : argument);
      } catch (...) {
        ThrowOn(env);
      }
    } catch (const Napi::Error& error) {
      error.ThrowAsJavaScriptException();
    }
    return nullptr;
  }
  bool IsLost() const final { return this->Value().IsEmpty(); }
  void Reclaim() final {
    Drop();
    Costs(0);
  }

  int64_t cost_ = 0;
};

}  // namespace node_kvm
