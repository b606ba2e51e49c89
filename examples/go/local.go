package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	losswire "losswire/v1"
)

// Evaluates without gRPC where the server shares memory with this process: requests go over the
// connection that leases the memory, and tensors may be in it.

const calls = 1000

// local compares calls over a lease with the same calls by gRPC, and returns the number that differ.
func local(ctx context.Context, connection *grpc.ClientConn) (int, error) {
	client := losswire.NewLossServiceClient(connection)
	info, err := client.GetServerInfo(ctx, &losswire.GetServerInfoRequest{})
	if err != nil {
		return 0, err
	}
	if info.GetTransports().GetRegionSocket() == "" {
		fmt.Println("no local calls: the server shares no memory")
		return 0, nil
	}
	m := newModel()
	m.forward()
	sent := &losswire.EvaluateRequest{
		Evaluation: question(m.logits, int64Tensor(m.classes, points)),
	}
	size := len(sent.Evaluation.Inputs["input"].GetData())
	shared, err := newRegion(ctx, losswire.NewTensorServiceClient(connection), 2*size)
	var failed *net.OpError
	if errors.As(err, &failed) {
		// The server is in a container, on another machine, or another user's.
		fmt.Printf("no local calls: %v\n", err)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer shared.close()
	placed := place(sent, shared)
	if err := compareRefusals(ctx, client, shared, placed); err != nil {
		return 0, err
	}

	var expected *losswire.EvaluateResponse
	remote, err := microseconds(func() (err error) {
		expected, err = client.Evaluate(ctx, sent)
		return err
	})
	if err != nil {
		return 0, err
	}
	wrong, times := 0, []float64{}
	for _, request := range []*losswire.EvaluateRequest{sent, placed} {
		differing, each, err := compareCalls(shared, request, expected.GetResult())
		if err != nil {
			return 0, fmt.Errorf("a local call: %w", err)
		}
		wrong, times = wrong+differing, append(times, each)
	}
	fmt.Printf("%d of %d local calls agree\n", 2*calls-wrong, 2*calls)
	fmt.Printf("microseconds a call: %.0f by gRPC, %.0f local, %.0f local and in place\n",
		remote, times[0], times[1])
	return wrong, nil
}

// place copies the logits to the start of a region, and requests the gradient after them.
func place(sent *losswire.EvaluateRequest, shared *region) *losswire.EvaluateRequest {
	placed := proto.Clone(sent).(*losswire.EvaluateRequest)
	logits := placed.Evaluation.Inputs["input"]
	behind := copy(shared.memory, logits.GetData())
	logits.Source = &losswire.Tensor_Region{Region: &losswire.Region{RegionId: shared.id}}
	placed.Evaluation.GradientDestinations = map[string]*losswire.Region{
		"input": {RegionId: shared.id, Offset: uint64(behind)},
	}
	return placed
}

// compareCalls makes all calls over the lease; returns the number of answers that differ, and the
// microseconds of one call.
func compareCalls(
	shared *region, asked *losswire.EvaluateRequest, want *losswire.EvaluationResult,
) (int, float64, error) {
	// With tensors in place, the next step would send the same bytes again.
	request, err := proto.Marshal(asked)
	if err != nil {
		return 0, 0, err
	}
	loss, gradient := want.GetLoss().GetData(), want.GetGradients()["input"].GetData()
	wrong := 0
	each, err := microseconds(func() error {
		copy(shared.memory[len(gradient):], make([]byte, len(gradient)))
		code, answer, err := shared.call(request)
		if err != nil {
			return err
		}
		if code != 0 {
			return fmt.Errorf("code %d", code)
		}
		var response losswire.EvaluateResponse
		if err := proto.Unmarshal(answer, &response); err != nil {
			return err
		}
		got := response.GetResult()
		found := shared.elements(got.GetGradients()["input"], len(gradient))
		if !bytes.Equal(got.GetLoss().GetData(), loss) || !bytes.Equal(found, gradient) {
			wrong++
		}
		return nil
	})
	return wrong, each, err
}

// compareRefusals sends an invalid request both ways; the statuses must be equal.
func compareRefusals(
	ctx context.Context, client losswire.LossServiceClient, shared *region,
	right *losswire.EvaluateRequest,
) error {
	wrong := proto.Clone(right).(*losswire.EvaluateRequest)
	wrong.Evaluation.Inputs["input"].GetRegion().Offset = 1
	_, failure := client.Evaluate(ctx, wrong)
	request, err := proto.Marshal(wrong)
	if err != nil {
		return err
	}
	code, answer, err := shared.call(request)
	if err != nil {
		return err
	}
	problems, err := compareStatuses(failure, answer)
	if err != nil {
		return err
	}
	problems = append(problems, differ("code", status.Code(failure), codes.Code(code))...)
	if failure == nil || len(problems) > 0 {
		return fmt.Errorf("a wrong request, by gRPC and locally: %v", problems)
	}
	return nil
}

// microseconds makes all calls and returns the time of one.
func microseconds(call func() error) (float64, error) {
	begun := time.Now()
	for i := 0; i < calls; i++ {
		if err := call(); err != nil {
			return 0, err
		}
	}
	return float64(time.Since(begun).Microseconds()) / calls, nil
}
