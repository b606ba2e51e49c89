package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	losswire "losswire/v1"
)

const patience = 10 * time.Second

// region is memory that a server on this machine shares, and the connection that leases it; see
// "Same-host regions" in docs/protocol.md. For one goroutine at a time.
type region struct {
	id      uint64
	memory  []byte
	lease   *net.UnixConn
	answers *bufio.Reader
	longest int
}

func newRegion(
	ctx context.Context, client losswire.TensorServiceClient, size int,
) (*region, error) {
	made, err := client.CreateRegion(ctx, &losswire.CreateRegionRequest{SizeBytes: uint64(size)})
	if err != nil {
		return nil, err
	}
	lease, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: made.GetSocketPath(), Net: "unix"})
	if err != nil {
		return nil, err
	}
	memory, err := fetch(lease, made.GetToken(), int(made.GetSizeBytes()))
	if err != nil {
		lease.Close()
		return nil, err
	}
	return &region{
		id:      made.GetRegionId(),
		memory:  memory,
		lease:   lease,
		answers: bufio.NewReader(lease),
		longest: int(made.GetMaxRequestBytes()),
	}, nil
}

// fetch sends the token, and maps the memory whose descriptor comes back.
func fetch(lease *net.UnixConn, token []byte, size int) ([]byte, error) {
	if err := lease.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := lease.Write(token); err != nil {
		return nil, err
	}
	granted, beside := make([]byte, 1), make([]byte, syscall.CmsgSpace(4))
	_, length, _, _, err := lease.ReadMsgUnix(granted, beside)
	if err != nil {
		return nil, err
	}
	messages, err := syscall.ParseSocketControlMessage(beside[:length])
	if err != nil {
		return nil, err
	}
	if granted[0] != 1 || len(messages) != 1 {
		return nil, errors.New("the server does not hand out the region")
	}
	descriptors, err := syscall.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	defer syscall.Close(descriptors[0])
	return syscall.Mmap(
		descriptors[0], 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
}

// call sends an EvaluateRequest and returns the code and the body of the answer. After an error make no
// more calls: the answer to this one may still arrive.
func (r *region) call(request []byte) (uint32, []byte, error) {
	if len(request) > r.longest {
		return 0, nil, fmt.Errorf("%d bytes; a request may have %d", len(request), r.longest)
	}
	if err := r.lease.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, nil, err
	}
	framed := make([]byte, 8, 8+len(request))
	binary.LittleEndian.PutUint32(framed, uint32(len(request)))
	binary.LittleEndian.PutUint32(framed[4:], uint32(patience.Milliseconds()))
	if _, err := r.lease.Write(append(framed, request...)); err != nil {
		return 0, nil, err
	}
	var header [8]byte
	if _, err := io.ReadFull(r.answers, header[:]); err != nil {
		return 0, nil, err
	}
	answer := make([]byte, binary.LittleEndian.Uint32(header[:]))
	_, err := io.ReadFull(r.answers, answer)
	return binary.LittleEndian.Uint32(header[4:]), answer, err
}

// elements returns the elements of a tensor in an answer, whether it is in the message or in the region.
func (r *region) elements(tensor *losswire.Tensor, size int) []byte {
	if place := tensor.GetRegion(); place != nil {
		return r.memory[place.GetOffset():][:size]
	}
	return tensor.GetData()
}

// close ends the lease; the server forgets the region.
func (r *region) close() {
	r.lease.Close()
	syscall.Munmap(r.memory)
}
