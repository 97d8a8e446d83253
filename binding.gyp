{
  "targets": [
    {
      "target_name": "node_kvm",
      "sources": [
        "native/addon.cc",
        "native/coalesced_ring.cc",
        "native/descriptor.cc",
        "native/dirty_rings.cc",
        "native/eventfds.cc",
        "native/fault_service.cc",
        "native/ioeventfd.cc",
        "native/loop_watch.cc",
        "native/map_budget.cc",
        "native/mapping.cc",
        "native/memslots.cc",
        "native/page_ranges.cc",
        "native/page_rows.cc",
        "native/region.cc",
        "native/run.cc",
        "native/table_reader.cc",
        "native/tables.cc",
        "native/thread_place.cc",
        "native/tokens.cc",
        "native/trace_ring.cc",
        "native/tracer.cc",
        "native/userfaults.cc",
        "native/vcpu.cc",
        "native/vcpu_calls.cc",
        "native/vcpu_runner.cc",
        "native/vcpu_thread.cc",
        "native/vm.cc",
        "native/vm_memslots.cc",
        "native/vm_state.cc",
        "native/watcher.cc",
        "native/wrapped.cc",
        "native/write_log.cc",
        "native/write_recorder.cc"
      ],
      "include_dirs": ["<!@(node -p \"require('node-addon-api').include\")"],
      "defines": ["NAPI_VERSION=9", "NAPI_CPP_EXCEPTIONS", "NODE_ADDON_API_CPP_EXCEPTIONS_ALL", "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS"],
      "cflags": ["-Wall", "-Wextra", "-fvisibility=hidden"],
      "cflags_cc!": ["-fno-exceptions", "-fno-rtti"],
      "cflags_cc": ["-std=c++20", "-fexceptions"],
      "libraries": ["-lrt", "-ldl"]
    }
  ]
}
