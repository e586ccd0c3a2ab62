#include "archive.h"

#include "model_error.h"

#include <caffe2/serialize/inline_container.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>

using rareal::Archive;
using rareal::ModelError;

namespace {

// The checksum of zip archives: reflected polynomial 0x04C11DB7.
std::uint32_t crc32(const void *data, std::size_t size)
{
  static const auto table = [] {
    std::array<std::uint32_t, 256> entries{};
    for (std::uint32_t byte = 0; byte < entries.size(); ++byte) {
      std::uint32_t value = byte;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0xEDB88320U : 0U);
      entries[byte] = value;
    }
    return entries;
  }();
  std::uint32_t crc = 0xFFFFFFFFU;
  const auto *bytes = static_cast<const unsigned char *>(data);
  for (std::size_t k = 0; k < size; ++k) crc = (crc >> 8) ^ table[(crc ^ bytes[k]) & 0xFFU];
  return ~crc;
}

struct Entry {
  std::string name;
  std::uint32_t crc;
};

/** The list of records at the end of a zip archive; empty where there is none. */
class Directory {
 public:
  explicit Directory(const std::string &path)
  {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const auto size = static_cast<std::int64_t>(file.tellg());
    if (size < end_size) return;
    // The record of the end is followed by a comment of at most 64 kB.
    tail_.resize(std::min<std::int64_t>(size, end_size + 65535));
    file.seekg(size - static_cast<std::int64_t>(tail_.size()));
    file.read(tail_.data(), static_cast<std::streamsize>(tail_.size()));
    std::size_t end = tail_.size() - end_size;
    while (end > 0 && number(tail_, end, 4) != 0x06054b50U) --end;
    if (number(tail_, end, 4) != 0x06054b50U) return;

    const std::int64_t length = number(tail_, end + 12, 4), start = number(tail_, end + 16, 4);
    if (start + length > size) return;
    std::string list(length, '\0');
    file.seekg(start);
    file.read(list.data(), length);
    if (!file) return;
    for (std::size_t at = 0; at + header_size <= list.size() && number(list, at, 4) == 0x02014b50U;) {
      const std::size_t name = number(list, at + 28, 2);
      if (at + header_size + name > list.size()) break;
      entries.push_back({list.substr(at + header_size, name), number(list, at + 16, 4)});
      at += header_size + name + number(list, at + 30, 2) + number(list, at + 32, 2);
    }
  }

  std::vector<Entry> entries;

 private:
  static constexpr std::int64_t end_size = 22;
  static constexpr std::size_t header_size = 46;
  std::string tail_;

  static std::uint32_t number(const std::string &bytes, std::size_t at, int count)
  {
    std::uint32_t value = 0;
    for (int k = count - 1; k >= 0; --k) value = (value << 8) | static_cast<unsigned char>(bytes[at + k]);
    return value;
  }
};

}    // namespace

Archive::Archive(const std::string &path) : path_(path)
{
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) throw ModelError("Model file '" + path + "' is a folder");
  if (!std::ifstream(path)) throw ModelError("Cannot open model file '" + path + "'");
  const Directory directory(path);
  if (directory.entries.empty()) throw ModelError("Model file '" + path + "' is no archive of PyTorch, or is cut off");
  std::string record;
  try {
    reader_ = std::make_unique<caffe2::serialize::PyTorchStreamReader>(path);
    for (const auto &entry : directory.entries) {
      record = entry.name;
      const auto name = entry.name.substr(entry.name.find('/') + 1);    // all records lie in one folder
      const auto [data, size] = reader_->getRecord(name);
      if (crc32(data.get(), size) != entry.crc) throw std::runtime_error("checksum");
      records_.push_back(name);
    }
  } catch (const std::exception &) {
    throw ModelError("Model file '" + path + "' is no archive of PyTorch, or is damaged" +
                     (record.empty() ? "" : ": its record '" + record + "' cannot be read"));
  }
}

Archive::~Archive() = default;

bool Archive::has(const std::string &record) const
{
  return std::find(records_.begin(), records_.end(), record) != records_.end();
}

bool Archive::has_folder(const std::string &folder) const
{
  return std::any_of(records_.begin(), records_.end(),
                     [&folder](const std::string &record) { return record.rfind(folder + "/", 0) == 0; });
}

std::string Archive::text(const std::string &record) const
{
  const auto [data, size] = reader_->getRecord(record);
  return std::string(static_cast<const char *>(data.get()), size);
}
