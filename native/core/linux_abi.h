// Made by npm run generate:abi from linux-libc-dev 7.3.4-1~bpo13+1 and linux-headers-7.3.4+deb13-common 7.3.4-1~bpo13+1. Do not edit.
// Generator: sha256 63bdc1efdcbbbd16f2d3dd8d71e08978759be12a73f0a9e403baec1ca21c2395
// Below: sha256 91c19b0a1f90e701706429d3e06e683a07513e51cbf8e57f94676253b03c9aad
// clang-format off
#pragma once

#include <cstddef>
#include <cstdint>

namespace node_kvm {

struct page_region {
  uint64_t start;
  uint64_t end;
  uint64_t categories;
};
static_assert(sizeof(page_region) == 24);
static_assert(offsetof(page_region, start) == 0);
static_assert(offsetof(page_region, end) == 8);
static_assert(offsetof(page_region, categories) == 16);

struct pm_scan_arg {
  uint64_t size;
  uint64_t flags;
  uint64_t start;
  uint64_t end;
  uint64_t walk_end;
  uint64_t vec;
  uint64_t vec_len;
  uint64_t max_pages;
  uint64_t category_inverted;
  uint64_t category_mask;
  uint64_t category_anyof_mask;
  uint64_t return_mask;
};
static_assert(sizeof(pm_scan_arg) == 96);
static_assert(offsetof(pm_scan_arg, size) == 0);
static_assert(offsetof(pm_scan_arg, flags) == 8);
static_assert(offsetof(pm_scan_arg, start) == 16);
static_assert(offsetof(pm_scan_arg, end) == 24);
static_assert(offsetof(pm_scan_arg, walk_end) == 32);
static_assert(offsetof(pm_scan_arg, vec) == 40);
static_assert(offsetof(pm_scan_arg, vec_len) == 48);
static_assert(offsetof(pm_scan_arg, max_pages) == 56);
static_assert(offsetof(pm_scan_arg, category_inverted) == 64);
static_assert(offsetof(pm_scan_arg, category_mask) == 72);
static_assert(offsetof(pm_scan_arg, category_anyof_mask) == 80);
static_assert(offsetof(pm_scan_arg, return_mask) == 88);

inline constexpr int kMadvCold = 0x14;
inline constexpr int kMadvPageout = 0x15;
inline constexpr int kMadvPopulateRead = 0x16;
inline constexpr int kMadvPopulateWrite = 0x17;
inline constexpr int kMadvCollapse = 0x19;
inline constexpr int kMapFixedNoreplace = 0x100000;
inline constexpr int kPageIsPresent = 0x8;
inline constexpr int kPageIsSwapped = 0x10;
inline constexpr int kPageIsPfnzero = 0x20;
inline constexpr int kPageIsHuge = 0x40;
inline constexpr uint32_t kPagemapScan = 0xc0606610;
inline constexpr int kPerfFormatLost = 0x10;
inline constexpr int kUserfaultfdIocNew = 0xaa00;

}  // namespace node_kvm
