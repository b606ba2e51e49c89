#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

#include "losswire/v1/tensor_service.grpc.pb.h"

// Memory that a server on this machine shares, and the connection that leases it; see "Same-host
// regions" in docs/protocol.md. Linux only. For one thread at a time.
class Region {
 public:
  struct Answer {
    uint32_t code;
    std::string body;
  };

  // The server cannot share memory with this process, or refuses to.
  struct Unreachable : std::runtime_error {
    using std::runtime_error::runtime_error;
  };

  Region(losswire::v1::TensorService::Stub& stub, size_t size);

  uint64_t id() const { return id_; }
  char* memory() const { return static_cast<char*>(memory_.get()); }

  // Sends an EvaluateRequest. After an exception make no more calls: its answer may still arrive.
  Answer call(const std::string& request);

 private:
  // A file descriptor that its destructor closes. Closing the connection ends the lease.
  class Descriptor {
   public:
    explicit Descriptor(int number) : number_(number) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor();
    int number() const { return number_; }

   private:
    int number_;
  };
  struct Unmap {
    size_t size;
    void operator()(void* memory) const;
  };
  using Memory = std::unique_ptr<void, Unmap>;

  explicit Region(const losswire::v1::CreateRegionResponse& made);
  static int connected(const std::string& path);
  static Memory fetch(int lease, const std::string& token, size_t size);

  uint64_t id_;
  size_t longest_;
  Descriptor lease_;
  Memory memory_;
};
