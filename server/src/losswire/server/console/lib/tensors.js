/**
 * Tensors in the page: typed numbers, .npy files, base64 and nested lists, of every data type.
 * @typedef {{dtype: string, shape: number[], data: any}} Tensor
 *   `data` is a typed array in row-major order: BigInt64Array for int64, and the raw bits (Uint16Array) for float16 and bfloat16.
 */

const KINDS = {
  bool: { array: Uint8Array, npy: "|b1" },
  uint8: { array: Uint8Array, npy: "|u1" },
  int8: { array: Int8Array, npy: "|i1" },
  int16: { array: Int16Array, npy: "<i2" },
  int32: { array: Int32Array, npy: "<i4" },
  int64: { array: BigInt64Array, npy: "<i8" },
  float16: { array: Uint16Array, npy: "<f2" },
  bfloat16: { array: Uint16Array, npy: "<V2" },
  float32: { array: Float32Array, npy: "<f4" },
  float64: { array: Float64Array, npy: "<f8" },
};
/** The names of the data types. */
export const DATA_TYPES = Object.keys(KINDS);
/** Bytes of an element. @param {string} dtype @returns {number} */
export const itemSize = (dtype) => KINDS[dtype].array.BYTES_PER_ELEMENT;
/** @param {string} dtype @returns {boolean} */
export const isFloat = (dtype) => dtype.includes("float");
/** Bits of the significand, without the hidden one. */
export const SIGNIFICAND = { float16: 10, bfloat16: 7, float32: 23, float64: 52 };

/** A text that is no tensor; `index` is the number of the value at fault, where there is one. */
export class ParseError extends Error {
  /** @param {string} message @param {number} index @param {number} line */
  constructor(message, index = -1, line = -1) {
    super(message);
    this.name = "ParseError";
    this.title = "These are no numbers";
    this.index = index;
    this.line = line;
  }
}

const wide = new Float64Array(1);
const wideBits = new BigUint64Array(wide.buffer);
const single = new Float32Array(1);
const singleBits = new Uint32Array(single.buffer);

/**
 * Round a number to bfloat16 or float16 and return its bits: to nearest, ties to even.
 * @param {number} value
 * @param {string} dtype
 * @returns {number}
 */
export function halfBits(value, dtype) {
  const [width, bias] = dtype === "float16" ? [10, 15] : [7, 127];
  const top = (2 ** (15 - width) - 1) << width;
  if (Number.isNaN(value)) return top | (1 << (width - 1));
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (size === 0) return sign;
  if (!Number.isFinite(size)) return sign | top;
  wide[0] = size;
  const exponent = Math.max(Number((wideBits[0] >> 52n) & 0x7ffn) - 1023, 1 - bias);
  const scaled = size * 2 ** (width - exponent > 900 ? 900 : width - exponent);
  const floor = Math.floor(scaled);
  const rest = scaled - floor;
  const rounded = floor + (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? 1 : 0);
  // A carry out of the significand raises the exponent, because the fields lie side by side.
  const bits = rounded + (exponent + bias - 1) * 2 ** width;
  return sign | Math.min(bits, top);
}

/** Return the number that the bits of a half stand for. @param {number} bits @param {string} dtype @returns {number} */
export function fromHalf(bits, dtype) {
  if (dtype === "bfloat16") {
    singleBits[0] = bits << 16;
    return single[0];
  }
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const rest = bits & 1023;
  if (exponent === 31) return rest ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + rest / 1024) * 2 ** (exponent - 15) : rest * 2 ** -24);
}

/** Return the product of the axes. @param {number[]} shape @returns {number} */
export const sizeOf = (shape) => shape.reduce((product, axis) => product * axis, 1);

/**
 * Make a tensor of numbers.
 * @param {ArrayLike<number|bigint>} numbers
 * @param {number[]} shape
 * @param {string} dtype
 * @returns {Tensor}
 */
export function tensor(numbers, shape, dtype = "float32") {
  const { array } = KINDS[dtype];
  const data = new array(numbers.length);
  const convert =
    dtype === "int64"
      ? (value) => (typeof value === "bigint" ? value : BigInt(Math.trunc(Number.isFinite(value) ? value : 0)))
      : dtype.endsWith("float16")
        ? (value) => halfBits(Number(value), dtype)
        : dtype === "bool"
          ? (value) => (value ? 1 : 0)
          : Number;
  for (let index = 0; index < numbers.length; index += 1) data[index] = convert(numbers[index]);
  return { dtype, shape: [...shape], data };
}

/** Return a tensor's values as numbers. @param {Tensor} tensor @returns {Float64Array} */
export function values({ dtype, data }) {
  if (dtype.endsWith("float16")) return Float64Array.from(data, (bits) => fromHalf(bits, dtype));
  return dtype === "int64" ? Float64Array.from(data, Number) : new Float64Array(data);
}

/** Return one value of a tensor as a number. @param {Tensor} tensor @param {number} index @returns {number} */
export const valueAt = ({ dtype, data }, index) =>
  dtype.endsWith("float16") ? fromHalf(data[index], dtype) : Number(data[index]);

/** Convert a tensor to another data type. @param {Tensor} from @param {string} dtype @returns {Tensor} */
export const cast = (from, dtype) =>
  from.dtype === dtype ? from : tensor(from.dtype === "int64" ? from.data : values(from), from.shape, dtype);

/** Return a tensor's bytes. @param {Tensor} tensor @returns {Uint8Array} */
export const bytesOf = ({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/** Say a tensor's type and shape: "float32 2 × 3". @param {Tensor} tensor @returns {string} */
export const describe = ({ dtype, shape }) => `${dtype} ${shape.length ? shape.join(" × ") : "scalar"}`;

/**
 * Return a nested list of numbers (int64 too) as JSON writes it: NaN and infinities are texts.
 * @param {Tensor} from
 * @returns {any}
 */
export function toNested(from) {
  const flat = values(from);
  const one = (value) => (from.dtype === "bool" ? Boolean(value) : Number.isFinite(value) ? value : String(value));
  let at = 0;
  const build = (axis) =>
    axis === from.shape.length
      ? one(shortest(flat[at++], from.dtype))
      : Array.from({ length: from.shape[axis] }, () => build(axis + 1));
  return build(0);
}

/** Return the number of fewest digits that rounds to the same value of a type. */
function shortest(value, dtype) {
  if (dtype === "float64" || !isFloat(dtype) || !Number.isFinite(value)) return value;
  for (let digits = 1; digits < 10; digits += 1) {
    const brief = Number(value.toPrecision(digits));
    if (dtype === "float32" ? Math.fround(brief) === value : fromHalf(halfBits(brief, dtype), dtype) === value)
      return brief;
  }
  return value;
}

function flatten(nested) {
  const shape = [];
  for (let level = nested; Array.isArray(level); level = level[0]) shape.push(level.length);
  const numbers = [];
  const walk = (level, depth) => {
    if (depth === shape.length) {
      if (Array.isArray(level)) throw new ParseError("The rows have different depths.", numbers.length);
      numbers.push(toNumber(level, numbers.length));
    } else if (!Array.isArray(level) || level.length !== shape[depth]) {
      throw new ParseError(`Every row must have ${shape[depth]} values like the first.`, numbers.length);
    } else level.forEach((each) => walk(each, depth + 1));
  };
  walk(nested, 0);
  return { numbers, shape };
}

const NAMES = {
  nan: NaN,
  inf: Infinity,
  "+inf": Infinity,
  "-inf": -Infinity,
  infinity: Infinity,
  "+infinity": Infinity,
  "-infinity": -Infinity,
  "∞": Infinity,
  "-∞": -Infinity,
  true: 1,
  false: 0,
};

/** What stands for a cell that is empty. */
export const EMPTY = "·";

/** Read one number; NaN, inf, true and false too. @param {any} text @param {number} index for the error @returns {number} */
export function toNumber(text, index = -1) {
  if (typeof text === "number" || typeof text === "boolean") return Number(text);
  const word = String(text).trim().replace("−", "-");
  const named = NAMES[word.toLowerCase()];
  if (named !== undefined) return named;
  const value = word === "" ? NaN : Number(word);
  if (word === EMPTY) throw new ParseError("A number is missing.", index);
  if (word === "" || Number.isNaN(value)) throw new ParseError(`"${word.slice(0, 24)}" is no number.`, index);
  return value;
}

/**
 * Read typed or pasted numbers: JSON, or rows by lines or ";" of values by spaces, commas or tabs. A header of words is skipped.
 * One row gives one axis, several rows two, one number a scalar.
 * @param {string} text @returns {{numbers: number[], shape: number[], integers: boolean}} `integers`: all are written as whole numbers
 */
export function parse(text) {
  const trimmed = text.trim();
  if (trimmed === "") throw new ParseError("There are no numbers yet.");
  if (trimmed.startsWith("[")) return parseJson(trimmed);
  const rows = trimmed
    .split(/[\n;]/)
    .map((line) => line.trim())
    .filter(Boolean)
    .map((line) => line.split(/\s*[,\t]\s*|\s+/).filter(Boolean));
  if (rows.length > 1 && rows[0].every((word) => /^["A-Za-z_]/.test(word) && !(word.toLowerCase() in NAMES)))
    rows.shift();
  const numbers = [];
  rows.forEach((row, line) => {
    if (row.length !== rows[0].length)
      throw new ParseError(
        `Row ${line} has ${row.length} values, the first has ${rows[0].length}.`,
        numbers.length,
        line,
      );
    row.forEach((word) => numbers.push(toNumber(word, numbers.length)));
  });
  const shape =
    rows.length > 1
      ? rows[0].length > 1
        ? [rows.length, rows[0].length]
        : [rows.length]
      : numbers.length > 1
        ? [numbers.length]
        : [];
  return { numbers, shape, integers: !/[.e]|nan|inf|∞/i.test(trimmed) };
}

function parseJson(text) {
  let nested;
  try {
    nested = JSON.parse(text.replace(/(?<!["\w])[-+]?(?:NaN|nan|Infinity|inf)(?!["\w])/g, (word) => `"${word}"`));
  } catch {
    throw new ParseError("This is no JSON list: check the brackets and commas.");
  }
  return { ...flatten(nested), integers: !/[.e]|nan|inf/i.test(text) };
}

/**
 * Write a tensor as people type it: rows by lines, JSON beyond two axes.
 * @param {Tensor} from
 * @param {string} between rows
 * @returns {string}
 */
export function toText(from, between = "\n") {
  const nested = toNested(from);
  if (sizeOf(from.shape) === 0) return JSON.stringify(nested);
  if (from.shape.length > 2) return `[${nested.map((each) => JSON.stringify(each)).join(",\n")}]`;
  if (from.shape.length < 2) {
    // One value of one axis would read as a scalar.
    return from.shape[0] === 1 ? JSON.stringify(nested) : [nested].flat().map(toWord).join(" ");
  }
  return from.shape[0] === 1 || from.shape[1] === 1
    ? JSON.stringify(nested)
    : nested.map((row) => row.map(toWord).join(" ")).join(between);
}
const toWord = (value) => (value === "Infinity" ? "inf" : value === "-Infinity" ? "-inf" : String(value));

/**
 * Return the tensor as JSON takes it, its elements in base64.
 * @param {Tensor} from
 * @returns {{data_type: string, shape: number[], data: string}}
 */
export function toBase64(from) {
  const bytes = bytesOf(from);
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return { data_type: from.dtype, shape: from.shape, data: btoa(text) };
}

/** Read a tensor of an answer in base64. @param {{data_type: string, shape: number[], data: string}} from @returns {Tensor} */
export function fromBase64({ data_type: dtype, shape, data }) {
  const text = atob(data);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = text.charCodeAt(at);
  return { dtype, shape: shape.map(Number), data: new KINDS[dtype].array(bytes.buffer) };
}

const NPY = {
  "|b1": "bool",
  "|u1": "uint8",
  "|i1": "int8",
  "<i2": "int16",
  "<i4": "int32",
  "<i8": "int64",
  "<f2": "float16",
  "<f4": "float32",
  "<f8": "float64",
  "<V2": "bfloat16",
  "|V2": "bfloat16",
  "<u2": Uint16Array,
  "<u4": Uint32Array,
  "<u8": BigUint64Array,
};

/** Read a .npy file; unsigned types that the server lacks become int64. @param {ArrayBuffer} buffer @returns {Tensor} */
export function readNpy(buffer) {
  const head = new Uint8Array(buffer, 0, Math.min(12, buffer.byteLength));
  if (head.length < 10 || String.fromCharCode(...head.subarray(1, 6)) !== "NUMPY")
    throw new ParseError("This is no .npy file.");
  const view = new DataView(buffer);
  const [length, from] = head[6] === 1 ? [view.getUint16(8, true), 10] : [view.getUint32(8, true), 12];
  const header = new TextDecoder().decode(new Uint8Array(buffer, from, length));
  const descr = /'descr':\s*'([^']+)'/.exec(header)?.[1] ?? "";
  const shape = (/'shape':\s*\(([^)]*)\)/.exec(header)?.[1] ?? "")
    .split(",")
    .map((each) => each.trim())
    .filter(Boolean)
    .map(Number);
  const kind = NPY[descr];
  if (!kind) throw new ParseError(`The data type "${descr}" is not supported: use a little-endian number type.`);
  const bytes = buffer.slice(from + length);
  const data = new (typeof kind === "string" ? KINDS[kind].array : kind)(bytes, 0, sizeOf(shape));
  const read = typeof kind === "string" ? { dtype: kind, shape, data } : tensor(Array.from(data), shape, "int64");
  return /'fortran_order':\s*True/.test(header) ? rowMajor(read) : read;
}

/** Reorder a tensor whose first axis varies fastest. */
function rowMajor(from) {
  const data = from.data.slice();
  const steps = from.shape.map((_, axis) => sizeOf(from.shape.slice(0, axis)));
  const index = from.shape.map(() => 0);
  for (let at = 0; at < data.length; at += 1) {
    data[at] = from.data[index.reduce((sum, each, axis) => sum + each * steps[axis], 0)];
    for (let axis = index.length - 1; axis >= 0 && ++index[axis] === from.shape[axis]; axis -= 1) index[axis] = 0;
  }
  return { ...from, data };
}

/** Write a .npy file. @param {Tensor} from @returns {Uint8Array} */
export function writeNpy(from) {
  const shape = from.shape.length === 1 ? `${from.shape[0]},` : from.shape.join(", ");
  const plain = `{'descr': '${KINDS[from.dtype].npy}', 'fortran_order': False, 'shape': (${shape}), }`;
  const header = `${plain.padEnd(Math.ceil((plain.length + 11) / 64) * 64 - 11)}\n`;
  const result = new Uint8Array(10 + header.length + from.data.byteLength);
  result.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length & 255, header.length >> 8]);
  result.set(new TextEncoder().encode(header), 10);
  result.set(bytesOf(from), 10 + header.length);
  return result;
}

/**
 * Return how many units in the last place two results differ by.
 * @param {number} value
 * @param {number} reference
 * @param {string} dtype of the value
 * @returns {number}
 */
export function ulps(value, reference, dtype) {
  if (Object.is(value, reference) || value === reference) return 0;
  const size = Math.abs(reference);
  const floor = { float16: -14, bfloat16: -126, float32: -126, float64: -1022 }[dtype];
  const exponent = size > 0 && Number.isFinite(size) ? Math.max(floor, Math.floor(Math.log2(size))) : floor;
  return Math.abs(value - reference) / 2 ** (exponent - SIGNIFICAND[dtype]);
}
