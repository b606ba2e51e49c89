#include "region.h"

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <system_error>

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

namespace v1 = losswire::v1;

namespace {

constexpr int kSeconds = 10;
constexpr size_t kHeader = 8;

// The two numbers before a request and an answer are little-endian on any machine.
void put(std::string& data, uint32_t number) {
  for (int i = 0; i < 4; ++i) data.push_back(static_cast<char>(number >> (8 * i)));
}

uint32_t take(const char* data) {
  uint32_t number = 0;
  for (int i = 0; i < 4; ++i) number |= uint32_t{static_cast<unsigned char>(data[i])} << (8 * i);
  return number;
}

// Returns the result of a system call; throws if it failed.
ssize_t checked(ssize_t result, const char* what) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), what);
  return result;
}

void send_all(int socket, const std::string& data) {
  for (size_t sent = 0; sent < data.size();) {
    sent += checked(send(socket, data.data() + sent, data.size() - sent, MSG_NOSIGNAL), "send");
  }
}

void receive_all(int socket, char* data, size_t size) {
  for (size_t received = 0; received < size;) {
    const ssize_t part = checked(recv(socket, data + received, size - received, 0), "recv");
    if (part == 0) throw std::runtime_error("the server has ended the lease");
    received += part;
  }
}

v1::CreateRegionResponse create(v1::TensorService::Stub& stub, size_t size) {
  v1::CreateRegionRequest request;
  request.set_size_bytes(size);
  v1::CreateRegionResponse made;
  grpc::ClientContext context;
  const grpc::Status status = stub.CreateRegion(&context, request, &made);
  if (!status.ok()) throw std::runtime_error("no region: " + status.error_message());
  return made;
}

}  // namespace

Region::Descriptor::~Descriptor() { close(number_); }

void Region::Unmap::operator()(void* memory) const { munmap(memory, size); }

Region::Region(v1::TensorService::Stub& stub, size_t size) : Region(create(stub, size)) {}

Region::Region(const v1::CreateRegionResponse& made)
    : id_(made.region_id()), longest_(made.max_request_bytes()),
      lease_(connected(made.socket_path())),
      memory_(fetch(lease_.number(), made.token(), made.size_bytes())) {}

int Region::connected(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) throw Unreachable(path + " is too long");
  path.copy(address.sun_path, path.size());
  const int lease = static_cast<int>(checked(socket(AF_UNIX, SOCK_STREAM, 0), "socket"));
  if (connect(lease, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    const std::string reason = std::strerror(errno);
    close(lease);
    throw Unreachable(path + ": " + reason);
  }
  return lease;
}

// Sends the token, and maps the memory whose descriptor comes back.
Region::Memory Region::fetch(int lease, const std::string& token, size_t size) {
  const timeval patience{kSeconds, 0};
  checked(setsockopt(lease, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), "setsockopt");
  send_all(lease, token);
  char granted = 0;
  iovec part{&granted, 1};
  alignas(cmsghdr) char beside[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = beside;
  message.msg_controllen = sizeof(beside);
  checked(recvmsg(lease, &message, MSG_CMSG_CLOEXEC), "recvmsg");
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (granted != 1 || !header || header->cmsg_type != SCM_RIGHTS) {
    throw Unreachable("the server does not hand out the region");
  }
  int number;
  std::memcpy(&number, CMSG_DATA(header), sizeof(number));
  const Descriptor descriptor(number);
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, number, 0);
  if (memory == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap");
  return Memory(memory, Unmap{size});
}

Region::Answer Region::call(const std::string& request) {
  if (request.size() > longest_) {
    throw std::runtime_error("a request may have " + std::to_string(longest_) + " bytes");
  }
  std::string framed;
  framed.reserve(kHeader + request.size());
  put(framed, static_cast<uint32_t>(request.size()));
  put(framed, kSeconds * 1000);
  send_all(lease_.number(), framed += request);
  char header[kHeader];
  receive_all(lease_.number(), header, sizeof(header));
  Answer answer{take(header + 4), std::string(take(header), '\0')};
  receive_all(lease_.number(), answer.body.data(), answer.body.size());
  return answer;
}
