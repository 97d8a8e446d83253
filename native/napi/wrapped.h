// The base of every object that TypeScript holds. It guarantees for all of them:
//   - When memory or threads run out and C++ throws, every method that is defined through this class throws a KvmError.
//   - An object that JavaScript has lost releases its resources when other objects are made. Its finalizer would come later, in a turn of
//     the event loop, which a loop that makes many objects never reaches.
//   - V8 knows what an object costs outside its heap, so that lost objects are collected in time.
//   - No object is taken for one of another class, and JavaScript cannot make one by itself: a method must expect any value as its
//     argument.
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

namespace node_kvm {

// For a catch block: throws JavaScript's exceptions on, and a KvmError for std::bad_alloc, std::length_error and std::system_error.
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

// The cost that V8 is told. V8 collects when external memory has grown by kCollectionStep; 1,024 descriptors, which is a process's usual
// limit, cost exactly that at kDescriptorCost each.
constexpr int64_t kCollectionStep = 64 << 20;
constexpr int64_t kDescriptorCost = kCollectionStep / 1024;

// The wrapped objects of one environment.
class Wraps {
 public:
  // A member of a list that consists of the members' own links: joining it allocates nothing, and so cannot fail.
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
  // Releases the resources of lost objects, and returns the number of those objects.
  size_t Reclaim(Napi::Env env);
  // Does the same, if anything was collected since the last time.
  void AfterCollection(Napi::Env env);

  // The parts that a constructor takes over while Wrapped::Make() calls it. They are not an argument from JavaScript, where anyone could
  // pass one: sockets of Node have an External, too.
  class Passing {
   public:
    Passing(std::shared_ptr<Wraps> wraps, void* parts) : wraps_(std::move(wraps)) { wraps_->passed_ = parts; }
    ~Passing() { wraps_->passed_ = nullptr; }
    Passing(const Passing&) = delete;
    Passing& operator=(const Passing&) = delete;

   private:
    const std::shared_ptr<Wraps> wraps_;
  };
  // Null where JavaScript called the constructor.
  void* TakePassed() { return std::exchange(passed_, nullptr); }

 private:
  void* passed_ = nullptr;
  int64_t count_ = 0;
  Member* first_ = nullptr;
  // Nothing holds this object, so it is gone once V8 has collected.
  Napi::ObjectReference sentinel_;
};
std::shared_ptr<Wraps> WrapsOf(Napi::Env env);

// Returns a type tag that no other call in this process returns, not even in another copy of the add-on.
napi_type_tag NewTypeTag();

template <class Derived>
class Wrapped : public Napi::ObjectWrap<Derived>, private Wraps::Member {
 public:
  explicit Wrapped(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Derived>(info), Wraps::Member(WrapsOf(info.Env())) {
    if (napi_type_tag_object(info.Env(), info.This(), &TypeTag()) != napi_ok) throw Napi::Error::New(info.Env());
    wraps().AfterCollection(info.Env());
  }
  ~Wrapped() override {
    if (known_ == static_cast<Derived*>(this)) known_ = nullptr;
    Costs(0);
  }

  // Returns the object behind a value. Throws a TypeError if the value is not an object of this class: napi_unwrap() gives any class's
  // pointer. An object that was checked just before is recognized by its address, which no other object has while it lives: to check the
  // tag takes some fifty nanoseconds.
  static Derived* Of(napi_env env, napi_value value) {
    void* self = nullptr;
    if (napi_unwrap(env, value, &self) != napi_ok || (self != known_ && !IsTagged(env, value)))
      throw Napi::TypeError::New(env, "this is an object of another class");
    return known_ = static_cast<Derived*>(self);
  }

 protected:
  // Makes a new object, whose constructor gets the parts by Taken().
  template <class Parts>
  static Napi::Object Make(const Napi::FunctionReference& constructor, Parts parts) {
    const Wraps::Passing passing(WrapsOf(constructor.Env()), &parts);
    return constructor.New({});
  }
  template <class Parts>
  Parts Taken(const Napi::CallbackInfo& info) {
    auto* parts = static_cast<Parts*>(wraps().TakePassed());
    if (parts == nullptr) throw Napi::TypeError::New(info.Env(), "not constructible");
    return std::move(*parts);
  }

  // Releases the object's resources, as its destructor would; the object itself stays until its finalizer runs.
  virtual void Drop() = 0;
  // Sets the number of bytes outside V8's heap from now on.
  void Costs(int64_t bytes) {
    int64_t total;
    if (bytes != cost_) napi_adjust_external_memory(this->Env(), bytes - cost_, &total);
    cost_ = bytes;
  }

  // These hide the methods of Napi::ObjectWrap, which are not guarded and take any object for their own.
  template <auto method>
  static Napi::ClassPropertyDescriptor<Derived> InstanceMethod(const char* name) {
    return napi_property_descriptor{name, nullptr, Call<method>, nullptr, nullptr, nullptr, napi_default, nullptr};
  }
  template <auto method>
  static Napi::ClassPropertyDescriptor<Derived> InstanceAccessor(const char* name) {
    return napi_property_descriptor{name, nullptr, nullptr, Call<method>, nullptr, nullptr, napi_default, nullptr};
  }
  // For methods that are called beside an ioctl a hundred thousand times, where the cost of node-addon-api's wrappers and of a returned
  // number would show. The method is void, takes one argument (null where the caller gave none), and answers in memory that it shares with
  // its caller. V8 itself checks a method's signature, and so that `this` is of the class (napi_define_class); it makes no such check for
  // accessors.
  template <auto method>
  static Napi::ClassPropertyDescriptor<Derived> BareMethod(const char* name) {
    return napi_property_descriptor{name, nullptr, CallBare<method>, nullptr, nullptr, nullptr, napi_default, nullptr};
  }

 private:
  static const napi_type_tag& TypeTag() {
    static const napi_type_tag tag = NewTypeTag();
    return tag;
  }

  static bool IsTagged(napi_env env, napi_value value) {
    bool ours = false;
    return napi_check_object_type_tag(env, value, &TypeTag(), &ours) == napi_ok && ours;
  }

  // Turns C++ exceptions into exceptions of JavaScript.
  template <class Work>
  static napi_value Throwing(napi_env env, Work work) {
    try {
      try {
        return work();
      } catch (...) {
        ThrowOn(env);
      }
    } catch (const Napi::Error& error) {
      error.ThrowAsJavaScriptException();
    }
    return nullptr;
  }
  template <auto method>
  static napi_value Call(napi_env env, napi_callback_info given) {
    return Throwing(env, [&]() -> napi_value {
      const Napi::CallbackInfo info(env, given);
      Derived* const self = Of(env, info.This());
      if constexpr (std::is_void_v<decltype((self->*method)(info))>)
        return (self->*method)(info), nullptr;
      else
        return (self->*method)(info);
    });
  }
  template <auto method>
  static napi_value CallBare(napi_env env, napi_callback_info given) {
    return Throwing(env, [&]() -> napi_value {
      size_t count = 1;
      napi_value argument, receiver;
      void* self;
      if (napi_get_cb_info(env, given, &count, &argument, &receiver, nullptr) != napi_ok || napi_unwrap(env, receiver, &self) != napi_ok)
        throw Napi::Error::New(env);
      (static_cast<Derived*>(self)->*method)(env, count == 0 ? nullptr : argument);
      return nullptr;
    });
  }
  bool IsLost() const final { return this->Value().IsEmpty(); }
  void Reclaim() final {
    Drop();
    Costs(0);
  }

  // The object that was checked last, in the thread's environment.
  static inline thread_local Derived* known_ = nullptr;
  int64_t cost_ = 0;
};

}  // namespace node_kvm
