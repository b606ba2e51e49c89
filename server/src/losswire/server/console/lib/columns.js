// Columns: how they grow while a file is read, and their bytes as the server takes them.

/**
 * A value of each row: numbers, or codes into labels. Whole numbers have the type int64 whatever
 * array holds them. `missing` counts empty cells, which are NaN (numbers) or "" (texts).
 * @typedef {object} Column
 * @property {string} name
 * @property {"float32" | "float64" | "int64" | "text"} type
 * @property {number[]} shape
 * @property {Float32Array | Float64Array | Int32Array} data
 * @property {string[]} [labels]
 * @property {{count: number, row: number}} [missing]
 * @property {{text: string, row: number}} [stray] what makes a column of numbers one of texts
 * @property {string[]} [members] the columns that a group is made of
 */

/** Cells without a value. */
export const EMPTY = new Set(["", "NA", "N/A", "null", "NULL", "None"]);
/** Numbers that are written as words. */
export const SPECIAL = new Map([
  ["nan", NaN],
  ["inf", Infinity],
  ["+inf", Infinity],
  ["infinity", Infinity],
  ["-inf", -Infinity],
  ["-infinity", -Infinity],
]);

/** Return the number that a cell has, or null where it has none. */
export function numberOf(cell) {
  const value = Number(cell);
  if (!Number.isNaN(value)) return value;
  return SPECIAL.get(cell.trim().toLowerCase()) ?? null;
}

/** An array of numbers that grows. */
class Numbers {
  constructor() {
    this.data = new Float64Array(4096);
    this.length = 0;
  }

  push(value) {
    if (this.length === this.data.length) {
      const grown = new Float64Array(this.length * 2);
      grown.set(this.data);
      this.data = grown;
    }
    this.data[this.length] = value;
    this.length += 1;
  }

  taken() {
    return this.data.slice(0, this.length);
  }
}

/** Thrown when a column of numbers meets a text: the file is then read again with it as text. */
export class NotNumbers extends Error {
  constructor(column) {
    super(`column ${column} is text`);
    this.column = column;
  }
}

/** Collects a column of numbers, or of rows of `width` numbers. */
export class NumberBuilder {
  constructor(name, width = 0) {
    this.name = name;
    this.width = width;
    this.values = new Numbers();
    this.whole = true;
    this.missing = null;
  }

  cell(cell, row) {
    if (EMPTY.has(cell)) this.empty(row);
    else {
      const value = numberOf(cell);
      if (value === null) throw new NotNumbers(this.name);
      this.number(value);
    }
  }

  number(value) {
    if (this.whole && !Number.isSafeInteger(value)) this.whole = false;
    this.values.push(value);
  }

  empty(row) {
    this.missing ??= { count: 0, row };
    this.missing.count += 1;
    this.whole = false;
    for (let i = 0; i < (this.width || 1); i += 1) this.values.push(NaN);
  }

  column() {
    const data = this.values.taken();
    const rows = data.length / (this.width || 1);
    const shape = this.width ? [rows, this.width] : [rows];
    const type = this.whole && data.length && !this.width ? "int64" : "float64";
    return { name: this.name, type, shape, data, ...(this.missing && { missing: this.missing }) };
  }
}

/** Return the first text of a column that is numbers otherwise, most likely by mistake, and its row. */
function strayOf(labels, data) {
  const odd = labels.filter((each) => !EMPTY.has(each) && numberOf(each) === null);
  if (!odd.length || odd.length > 3 || labels.length < 20) return undefined;
  return { text: odd[0], row: data.indexOf(labels.indexOf(odd[0])) + 1 };
}

/** Collects a column of texts. */
export class TextBuilder {
  constructor(name) {
    this.name = name;
    this.codes = new Numbers();
    this.known = new Map();
    this.missing = null;
  }

  cell(cell, row) {
    if (cell === "") {
      this.missing ??= { count: 0, row };
      this.missing.count += 1;
    }
    let code = this.known.get(cell);
    if (code === undefined) {
      code = this.known.size;
      this.known.set(cell, code);
    }
    this.codes.push(code);
  }

  empty(row) {
    this.cell("", row);
  }

  column() {
    const data = Int32Array.from(this.codes.taken());
    const labels = [...this.known.keys()];
    const { name } = this;
    const shape = [data.length];
    // Classes that are written as true and false are 1 and 0.
    if (labels.every((each) => /^(true|false)$/i.test(each)))
      return { name, type: "int64", shape, data: data.map((code) => (/^t/i.test(labels[code]) ? 1 : 0)) };
    const missing = this.missing && { missing: this.missing };
    return { name, type: "text", shape, data, labels, stray: strayOf(labels, data), ...missing };
  }
}

const NUMBERED = /^(.*?)[_.[ -]?(\d+)\]?$/;

/** Return columns with those that are numbered, as logits_0 to logits_9, as matrices in front. */
export function grouped(columns) {
  const families = new Map();
  for (const each of columns) {
    const match = each.type !== "text" && each.shape.length === 1 && NUMBERED.exec(each.name);
    if (!match || match[1] === "" || match[1] === "column") continue;
    families.set(match[1], [...(families.get(match[1]) ?? []), [Number(match[2]), each]]);
  }
  const groups = [];
  for (const [name, family] of families) {
    family.sort(([one], [other]) => one - other);
    const begin = family[0][0];
    const complete = family.every(([number], at) => number === begin + at);
    // Two columns, such as score_1 and score_2, are as likely two models as one matrix.
    if (family.length > 2 && complete && begin <= 1)
      groups.push(
        matrixOf(
          name,
          family.map(([, each]) => each),
        ),
      );
  }
  const hidden = new Set(groups.flatMap((each) => each.members));
  return [...groups, ...columns.filter((each) => !hidden.has(each.name))];
}

/** Return the matrix of some columns. */
function matrixOf(name, parts) {
  const rows = parts[0].shape[0];
  const width = parts.length;
  const data = new Float64Array(rows * width);
  parts.forEach((part, at) => {
    for (let row = 0; row < rows; row += 1) data[row * width + at] = part.data[row];
  });
  const missing = parts.find((each) => each.missing)?.missing;
  const members = parts.map((each) => each.name);
  return { name, type: "float64", shape: [rows, width], data, members, ...(missing && { missing }) };
}

/** Bytes of an element. */
export const BYTES = { float32: 4, float64: 8, int64: 8 };
const DESCRIPTIONS = { float32: "<f4", float64: "<f8", int64: "<i8" };

/** Return the .npy bytes of some rows; `pick` gives the place of the i-th of them. */
export function npy(column, as, length, pick) {
  const width = column.data.length / column.shape[0];
  const shape = [length, ...column.shape.slice(1)];
  const text = `{'descr': '${DESCRIPTIONS[as]}', 'fortran_order': False, 'shape': (${shape.join(", ")},), }`;
  const header = text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11) + "\n";
  const bytes = new Uint8Array(10 + header.length + length * width * BYTES[as]);
  bytes.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length & 255, header.length >> 8]);
  bytes.set(new TextEncoder().encode(header), 10);
  const values = as === "float32" ? new Float32Array(length * width) : new Float64Array(length * width);
  for (let i = 0; i < length; i += 1) {
    const from = pick(i) * width;
    for (let j = 0; j < width; j += 1) values[i * width + j] = column.data[from + j];
  }
  const target = as === "int64" ? wholeNumbers(values) : values;
  bytes.set(new Uint8Array(target.buffer), 10 + header.length);
  return bytes.buffer;
}

/** Return 64-bit integers as pairs of 32 bits: BigInt would take ten times as long. */
function wholeNumbers(values) {
  const pairs = new Int32Array(values.length * 2);
  for (let i = 0; i < values.length; i += 1) {
    pairs[2 * i] = values[i] % 2 ** 32;
    pairs[2 * i + 1] = Math.floor(values[i] / 2 ** 32);
  }
  return pairs;
}

/** Return the type in which a column is kept. @param {Column} column @returns {string} */
export const naturalType = (column) => {
  if (column.type === "text" || column.type === "int64") return column.type;
  return column.data instanceof Float32Array ? "float32" : "float64";
};

/** Write a cell of CSV. A text that a spreadsheet would take for a formula gets a quote in front. */
function csvCell(value) {
  if (typeof value === "number" || value === null || value === undefined) return String(value ?? "");
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Write a line of CSV. @param {any[]} cells @returns {string} */
export const csvLine = (cells) => `${cells.map(csvCell).join(",")}\r\n`;
