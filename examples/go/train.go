package main

import (
	"context"
	"fmt"
	"io"

	losswire "losswire/v1"
)

// A two-layer network on points in three rings. The model, its data and its weights are those of
// examples/languages.md, so that every language reaches the same loss.

const (
	points  = 256
	hidden  = 16
	classes = 3
	steps   = 300
	rate    = 0.5
)

// generator is a linear congruential generator of numbers in [0, 1), the same in every language.
type generator uint32

func (g *generator) next() float64 {
	*g = 1664525**g + 1013904223
	return float64(*g) / (1 << 32)
}

type model struct {
	points         []float64
	classes        []int64
	w1, b1, w2, b2 []float64
	hidden, logits []float64
}

func newModel() *model {
	random := generator(1)
	signed := func() float64 { return 2*random.next() - 1 }
	half := func() float64 { return random.next() - 0.5 }
	m := &model{
		points: fill(2*points, signed),
		w1:     fill(2*hidden, signed),
		b1:     fill(hidden, half),
		w2:     fill(hidden*classes, half),
		b2:     make([]float64, classes),
		hidden: make([]float64, points*hidden),
		logits: make([]float64, points*classes),
	}
	for i := 0; i < points; i++ {
		m.classes = append(m.classes, ring(m.points[2*i], m.points[2*i+1]))
	}
	return m
}

func fill(length int, make func() float64) []float64 {
	var values []float64
	for len(values) < length {
		values = append(values, make())
	}
	return values
}

func ring(x, y float64) int64 {
	switch square := float64(x*x) + float64(y*y); {
	case square < 0.25:
		return 0
	case square < 0.75:
		return 1
	}
	return 2
}

// The conversions to float64 keep Go from fusing a product and a sum into one operation, which on
// some machines would round differently from the same program in other languages.

func (m *model) forward() {
	for i := 0; i < points; i++ {
		x, y := m.points[2*i], m.points[2*i+1]
		for j := 0; j < hidden; j++ {
			sum := m.b1[j] + float64(x*m.w1[j]) + float64(y*m.w1[hidden+j])
			if sum < 0 {
				sum = 0
			}
			m.hidden[i*hidden+j] = sum
		}
		for k := 0; k < classes; k++ {
			sum := m.b2[k]
			for j := 0; j < hidden; j++ {
				sum += float64(m.hidden[i*hidden+j] * m.w2[j*classes+k])
			}
			m.logits[i*classes+k] = sum
		}
	}
}

// backward propagates the gradient of the logits back to the weights, and takes one step.
func (m *model) backward(gradient []float64) {
	dw1, db1 := make([]float64, len(m.w1)), make([]float64, len(m.b1))
	dw2, db2 := make([]float64, len(m.w2)), make([]float64, len(m.b2))
	for i := 0; i < points; i++ {
		outer := gradient[i*classes : (i+1)*classes]
		for k := range outer {
			db2[k] += outer[k]
		}
		for j := 0; j < hidden; j++ {
			active := m.hidden[i*hidden+j]
			if active <= 0 {
				continue
			}
			inner := 0.0
			for k := range outer {
				dw2[j*classes+k] += float64(active * outer[k])
				inner += float64(outer[k] * m.w2[j*classes+k])
			}
			dw1[j] += float64(m.points[2*i] * inner)
			dw1[hidden+j] += float64(m.points[2*i+1] * inner)
			db1[j] += inner
		}
	}
	descend(m.w1, dw1)
	descend(m.b1, db1)
	descend(m.w2, dw2)
	descend(m.b2, db2)
}

func descend(weights, gradient []float64) {
	for i := range weights {
		weights[i] -= float64(rate * gradient[i])
	}
}

// right counts the points whose class has the largest logit.
func (m *model) right() int {
	count := 0
	for i := 0; i < points; i++ {
		best := 0
		for k := 1; k < classes; k++ {
			if m.logits[i*classes+k] > m.logits[i*classes+best] {
				best = k
			}
		}
		if int64(best) == m.classes[i] {
			count++
		}
	}
	return count
}

// question returns the request for the loss of logits and for its gradient.
func question(logits []float64, target *losswire.Tensor) *losswire.Evaluation {
	return &losswire.Evaluation{
		Loss: "cross_entropy",
		Inputs: map[string]*losswire.Tensor{
			"input": float32Tensor(logits, points, classes), "target": target,
		},
		Reduction:    losswire.Reduction_REDUCTION_MEAN,
		GradientsFor: []string{"input"},
	}
}

func train(ctx context.Context, client losswire.LossServiceClient) error {
	m := newModel()
	target := int64Tensor(m.classes, points)
	// One call for the whole training: a request and a response for each step.
	call, err := client.EvaluateStream(ctx)
	if err != nil {
		return err
	}
	var loss float64
	for step := 0; step < steps; step++ {
		m.forward()
		request := &losswire.EvaluateStreamRequest{
			Id: uint64(step), Evaluation: question(m.logits, target),
		}
		if err := call.Send(request); err != nil && err != io.EOF {
			return err // io.EOF says only that Recv has the reason
		}
		response, err := call.Recv()
		if err != nil {
			return err
		}
		result := response.GetOutcome().GetResult()
		if result == nil {
			return fmt.Errorf("step %d: %v", step, response.GetOutcome().GetError())
		}
		value, err := read(result.GetLoss())
		if err != nil {
			return err
		}
		gradient, err := read(result.GetGradients()["input"])
		if err != nil {
			return err
		}
		loss = value[0]
		if step%50 == 0 {
			fmt.Printf("step %d loss %.9g\n", step, loss)
		}
		m.backward(gradient)
	}
	if err := call.CloseSend(); err != nil {
		return err
	}
	if _, err := call.Recv(); err != io.EOF {
		return fmt.Errorf("the stream did not end well: %v", err)
	}
	m.forward()
	fmt.Printf("final loss %.9g\naccuracy %d of %d\n", loss, m.right(), points)
	return nil
}
