/** Tensors of the contract, to and from JavaScript numbers: row-major, little-endian. */

import type { DataType } from './generated/losswire/v1/DataType.js';
import type { Tensor, Tensor__Output } from './generated/losswire/v1/Tensor.js';

/** For each type, the size of an element and how to read one. */
const READERS: Partial<Record<DataType, [size: number, read: (view: DataView, offset: number) => number]>> = {
  DATA_TYPE_FLOAT16: [2, (view, offset) => widenFloat16(view.getUint16(offset, true))],
  DATA_TYPE_BFLOAT16: [2, (view, offset) => widenBfloat16(view.getUint16(offset, true))],
  DATA_TYPE_FLOAT32: [4, (view, offset) => view.getFloat32(offset, true)],
  DATA_TYPE_FLOAT64: [8, (view, offset) => view.getFloat64(offset, true)],
};

/** Makes a float32 tensor. */
export function float32(values: ArrayLike<number>, shape: number[]): Tensor {
  const data = Buffer.alloc(values.length * 4);
  for (let i = 0; i < values.length; i++) data.writeFloatLE(values[i]!, i * 4);
  return { data_type: 'DATA_TYPE_FLOAT32', shape, data };
}

/** Makes an int64 tensor. */
export function int64(values: ArrayLike<number>, shape: number[]): Tensor {
  const data = Buffer.alloc(values.length * 8);
  for (let i = 0; i < values.length; i++) data.writeBigInt64LE(BigInt(values[i]!), i * 8);
  return { data_type: 'DATA_TYPE_INT64', shape, data };
}

/** Reads a floating-point tensor of any type. */
export function read(tensor: Tensor__Output | null): number[] {
  const reader = tensor && READERS[tensor.data_type];
  if (!tensor?.data || !reader) throw new TypeError(`not a floating tensor with data: ${tensor?.data_type}`);
  const [size, at] = reader;
  const { buffer, byteOffset, byteLength } = tensor.data;
  const view = new DataView(buffer, byteOffset, byteLength);
  return Array.from({ length: byteLength / size }, (_, i) => at(view, i * size));
}

function widenBfloat16(bits: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint16(0, bits);
  return view.getFloat32(0);
}

function widenFloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
