// A model file as an archive of records (zip): is it whole, and what is in a record.

#ifndef RAREAL_ARCHIVE_H
#define RAREAL_ARCHIVE_H

#include <memory>
#include <string>
#include <vector>

namespace caffe2::serialize {
class PyTorchStreamReader;
}

namespace rareal {

class Archive {
 public:
  /** Reads every record once and compares its checksum, which PyTorch's own reader does not.
   *
   * Raises ModelError where the file is none, is damaged, or is no archive.
   */
  explicit Archive(const std::string &path);
  ~Archive();

  bool has(const std::string &record) const;
  bool has_folder(const std::string &folder) const;
  std::string text(const std::string &record) const;

 private:
  std::string path_;
  std::vector<std::string> records_;
  std::unique_ptr<caffe2::serialize::PyTorchStreamReader> reader_;
};

}    // namespace rareal

#endif
