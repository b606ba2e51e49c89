// Trains a small model with losses and gradients from a Losswire server, replays the conformance
// vectors, and evaluates in memory shared with the server. Usage: losswire-example HOST:PORT VECTORS.
// Exits with 1 if an answer differs.
package main

import (
	"context"
	"fmt"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	losswire "losswire/v1"
)

// codec serializes with the current protobuf module. Debian 12 builds grpc-go with another protobuf
// module than grpc-go itself requires, and that one cannot write the messages of the current generator.
// With grpc-go as published this type is not needed.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(message interface{}) ([]byte, error) {
	return proto.Marshal(message.(proto.Message))
}

func (codec) Unmarshal(data []byte, message interface{}) error {
	return proto.Unmarshal(data, message.(proto.Message))
}

func run(target, vectors string) (int, error) {
	ctx := context.Background()
	connection, err := grpc.Dial(
		target, grpc.WithInsecure(), grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{})))
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	client := losswire.NewLossServiceClient(connection)
	if err := train(ctx, client); err != nil {
		return 0, fmt.Errorf("training: %w", err)
	}
	wrong, err := replay(ctx, client, vectors)
	if err != nil {
		return wrong, fmt.Errorf("replaying: %w", err)
	}
	differing, err := local(ctx, connection)
	return wrong + differing, err
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintf(os.Stderr, "usage: %s HOST:PORT VECTORS\n", os.Args[0])
		os.Exit(2)
	}
	wrong, err := run(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if err != nil || wrong > 0 {
		os.Exit(1)
	}
}
