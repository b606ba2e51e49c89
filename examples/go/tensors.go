package main

import (
	"encoding/binary"
	"fmt"
	"math"

	losswire "losswire/v1"
)

// Tensors of the contract are row-major and little-endian.

func float32Tensor(values []float64, shape ...int64) *losswire.Tensor {
	data := make([]byte, 4*len(values))
	for i, value := range values {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(float32(value)))
	}
	return tensor(losswire.DataType_DATA_TYPE_FLOAT32, data, shape)
}

func int64Tensor(values []int64, shape ...int64) *losswire.Tensor {
	data := make([]byte, 8*len(values))
	for i, value := range values {
		binary.LittleEndian.PutUint64(data[8*i:], uint64(value))
	}
	return tensor(losswire.DataType_DATA_TYPE_INT64, data, shape)
}

func tensor(dataType losswire.DataType, data []byte, shape []int64) *losswire.Tensor {
	return &losswire.Tensor{
		DataType: dataType, Shape: shape, Source: &losswire.Tensor_Data{Data: data},
	}
}

type reader struct {
	size int
	read func([]byte) float64
}

// One line for each floating type.
var readers = map[losswire.DataType]reader{
	losswire.DataType_DATA_TYPE_FLOAT16: {2, func(b []byte) float64 {
		return widenFloat16(binary.LittleEndian.Uint16(b))
	}},
	losswire.DataType_DATA_TYPE_BFLOAT16: {2, func(b []byte) float64 {
		return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16))
	}},
	losswire.DataType_DATA_TYPE_FLOAT32: {4, func(b []byte) float64 {
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}},
	losswire.DataType_DATA_TYPE_FLOAT64: {8, func(b []byte) float64 {
		return math.Float64frombits(binary.LittleEndian.Uint64(b))
	}},
}

// read returns the elements of a floating-point tensor of any type.
func read(tensor *losswire.Tensor) ([]float64, error) {
	reader, known := readers[tensor.GetDataType()]
	if !known {
		return nil, fmt.Errorf("not a floating tensor: %v", tensor.GetDataType())
	}
	data := tensor.GetData()
	values := make([]float64, len(data)/reader.size)
	for i := range values {
		values[i] = reader.read(data[i*reader.size:])
	}
	return values, nil
}

func widenFloat16(bits uint16) float64 {
	sign := 1.0
	if bits&0x8000 != 0 {
		sign = -1
	}
	exponent, fraction := int(bits>>10&0x1f), float64(bits&0x3ff)
	switch {
	case exponent == 0x1f && fraction != 0:
		return math.NaN()
	case exponent == 0x1f:
		return math.Inf(int(sign))
	case exponent == 0:
		return sign * math.Ldexp(fraction, -24)
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}
