// Columns from files: CSV, TSV, JSON lines, .npy and Parquet. The worker reads them, so that a large
// file does not stop the page.

import { EMPTY, grouped, NotNumbers, NumberBuilder, numberOf, SPECIAL, TextBuilder } from "./columns.js";

/** @typedef {import("./columns.js").Column} Column */

/** @typedef {(share: number) => void} Progress */

const plural = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

/** What is wrong with a file, in words for the person who chose it. */
export class FileError extends Error {}

/** Yield the text of a file in parts, and say how much of it was read. */
async function* textOf(file, progress) {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const reader = file.stream().getReader();
  let read = 0;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      yield decoder.decode(value ?? new Uint8Array(), { stream: !done });
      if (done) return;
      read += value.length;
      progress(read / file.size);
    }
  } catch (error) {
    if (error instanceof TypeError) throw new FileError(`${file.name} is not UTF-8 text`);
    throw error;
  }
}

/** Parse one record with quotes; null where the text ends before the record does. */
function quotedRecord(text, from, delimiter, last) {
  const fields = [];
  let at = from;
  for (;;) {
    let field = "";
    if (text[at] === '"') {
      at += 1;
      for (;;) {
        const end = text.indexOf('"', at);
        if (end < 0 || (end + 1 === text.length && !last)) return null;
        field += text.slice(at, end);
        at = end + 1;
        if (text[at] !== '"') break;
        field += '"';
        at += 1;
      }
    }
    const start = at;
    while (at < text.length && text[at] !== delimiter && text[at] !== "\n") at += 1;
    if (at === text.length && !last) return null;
    fields.push(field + text.slice(start, text[at - 1] === "\r" && text[at] !== delimiter ? at - 1 : at));
    if (text[at] !== delimiter) return { fields, next: at + 1 };
    at += 1;
  }
}

/** Yield the records of each part of a CSV file: lists of cells. Lines without quotes are merely split. */
async function* recordsOf(file, progress) {
  let rest = "";
  let delimiter = file.name.toLowerCase().endsWith(".tsv") ? "\t" : null;
  const cut = (last) => {
    const records = [];
    let at = 0;
    let quote = rest.indexOf('"');
    while (at < rest.length) {
      let end = rest.indexOf("\n", at);
      if (end < 0 && !last) break;
      if (end < 0) end = rest.length;
      if (quote >= 0 && quote < at) quote = rest.indexOf('"', at);
      if (quote >= 0 && quote < end) {
        const found = quotedRecord(rest, at, delimiter, last);
        if (!found && last) throw new FileError(`${file.name}: a quote is not closed`);
        if (!found) break;
        records.push(found.fields);
        at = found.next;
        continue;
      }
      const line = rest.slice(at, rest[end - 1] === "\r" ? end - 1 : end);
      if (line !== "") records.push(line.split(delimiter));
      at = end + 1;
    }
    rest = rest.slice(at);
    return records;
  };
  for await (const part of textOf(file, progress)) {
    rest += part;
    if (delimiter === null) {
      if (!rest.includes("\n")) continue;
      delimiter = sniffed(rest);
    }
    yield cut(false);
  }
  delimiter ??= sniffed(rest);
  yield cut(true);
}

/** Return what separates the cells of a first line. */
function sniffed(text) {
  const line = text.slice(0, text.indexOf("\n") + 1 || text.length).replace(/^\ufeff/, "");
  const count = (each) => line.split(each).length;
  return ["\t", ";"].reduce((best, each) => (count(each) > count(best) ? each : best), ",");
}

const SNIFFED_ROWS = 200;

/** Read a CSV or TSV file; a column is numbers if all its cells are. */
async function readCsv(file, progress, texts = new Set()) {
  let names = null;
  let builders = null;
  let rows = 0;
  const first = [];
  const begin = () => {
    builders = names.map((name, at) => {
      const numeric = first.every((each) => EMPTY.has(each[at]) || numberOf(each[at]) !== null);
      return numeric && !texts.has(name) ? new NumberBuilder(name) : new TextBuilder(name);
    });
    for (const each of first) add(each);
  };
  const check = (fields, row) => {
    if (fields.length === names.length) return;
    throw new FileError(
      `${file.name}, row ${row}: ${plural(fields.length, "cell")}, the first line has ${names.length}`,
    );
  };
  const add = (fields) => {
    rows += 1;
    for (let i = 0; i < fields.length; i += 1) builders[i].cell(fields[i], rows);
  };
  const take = (fields) => {
    if (names === null) {
      fields[0] = fields[0].replace(/^\ufeff/, "");
      const headed = fields.every((each) => numberOf(each) === null || each === "");
      names = headed ? unique(fields) : fields.map((_, at) => `column_${at + 1}`);
      if (headed) return;
    }
    check(fields, builders ? rows + 1 : first.length + 1);
    if (builders) add(fields);
    else if (first.push(fields) === SNIFFED_ROWS) begin();
  };
  try {
    for await (const records of recordsOf(file, progress)) records.forEach(take);
  } catch (error) {
    if (!(error instanceof NotNumbers)) throw error;
    return readCsv(file, progress, texts.add(error.column));
  }
  if (!first.length) throw new FileError(`${file.name} has no rows`);
  if (!builders) begin();
  return grouped(builders.map((each) => each.column()));
}

/** Return names that are all different and none empty. */
function unique(names) {
  const seen = new Map();
  return names.map((given, at) => {
    const name = given.trim() || `column_${at + 1}`;
    const times = (seen.get(name) ?? 0) + 1;
    seen.set(name, times);
    return times > 1 ? `${name}_${times}` : name;
  });
}

/** Read JSON lines: an object a line, whose lists of numbers become matrices. */
async function readJsonLines(file, progress) {
  const builders = new Map();
  let rows = 0;
  const add = (line) => {
    if (!line.trim()) return;
    rows += 1;
    const where = `${file.name}, line ${rows}`;
    let record;
    try {
      record = JSON.parse(line);
    } catch {
      throw new FileError(`${where}: this is no JSON`);
    }
    if (typeof record !== "object" || record === null || Array.isArray(record)) {
      throw new FileError(`${where}: expected an object with a value for each column`);
    }
    for (const [name, value] of Object.entries(record)) {
      if (!builders.has(name)) builders.set(name, started(name, value, rows, where));
      put(builders.get(name), value, rows, where);
    }
    for (const [name, builder] of builders) if (!(name in record)) builder.empty(rows);
  };
  let rest = "";
  for await (const part of textOf(file, progress)) {
    const lines = (rest + part).split("\n");
    rest = lines.pop();
    lines.forEach(add);
  }
  add(rest);
  if (!rows) throw new FileError(`${file.name} has no rows`);
  return grouped([...builders.values()].map((each) => each.column()));
}

/** Return the builder for a column whose first value is this. */
function started(name, value, row, where) {
  const flat = Array.isArray(value) ? value.flat(Infinity) : null;
  if (flat && !flat.length) throw new FileError(`${where}: ${name} is an empty list`);
  const number = typeof value === "number" || flat || SPECIAL.has(String(value).toLowerCase());
  const builder = number ? new NumberBuilder(name, flat?.length) : new TextBuilder(name);
  for (let i = 1; i < row; i += 1) builder.empty(i);
  return builder;
}

/** Append a value of JSON to a column. */
function put(builder, value, row, where) {
  if (value === null) builder.empty(row);
  else if (builder instanceof TextBuilder) builder.cell(String(value), row);
  else {
    const flat = Array.isArray(value) ? value.flat(Infinity) : [value];
    if (flat.length !== (builder.width || 1)) {
      const wanted = builder.width || 1;
      throw new FileError(`${where}: ${builder.name} has ${flat.length} numbers, before it had ${wanted}`);
    }
    for (const each of flat) {
      const number = typeof each === "number" ? each : numberOf(String(each));
      if (number === null)
        throw new FileError(`${where}: ${builder.name} is ${JSON.stringify(each)}, no number`);
      builder.number(number);
    }
  }
}

/** Read a Parquet file, one group of rows after the other. */
async function readParquet(file, progress) {
  const { parquetMetadataAsync, parquetRead, parquetSchema } = await import("../vendor/hyparquet.js");
  const source = { byteLength: file.size, slice: (from, to) => file.slice(from, to).arrayBuffer() };
  const builders = new Map();
  let row = 0;
  let singles;
  try {
    const metadata = await parquetMetadataAsync(source);
    singles = new Set(
      parquetSchema(metadata)
        .children.filter(isSingle)
        .map((each) => each.element.name),
    );
    for (const group of metadata.row_groups) {
      const rowEnd = row + Number(group.num_rows);
      const onComplete = (records) =>
        records.forEach((each, at) => addRecord(builders, each, row + at + 1, file.name));
      await parquetRead({ file: source, metadata, rowStart: row, rowEnd, rowFormat: "object", onComplete });
      row = rowEnd;
      progress(row / Number(metadata.num_rows));
    }
  } catch (error) {
    if (error instanceof FileError) throw error;
    throw new FileError(`${file.name} cannot be read as Parquet: ${error.message}`);
  }
  if (!row) throw new FileError(`${file.name} has no rows`);
  const columns = [...builders.values()].map((each) => each.column());
  for (const each of columns) {
    if (singles.has(each.name)) Object.assign(each, { type: "float32", data: Float32Array.from(each.data) });
  }
  return grouped(columns);
}

/** Whether a Parquet column, or its lists, are of float32. */
const isSingle = ({ element, children }) =>
  children.length ? children.some(isSingle) : element.type === "FLOAT";

/** Append a row of a Parquet file, whose 64-bit integers are BigInt. */
function addRecord(builders, record, row, name) {
  const where = `${name}, row ${row}`;
  for (const [key, value] of Object.entries(record)) {
    const plain = plainOf(value);
    if (!builders.has(key)) {
      if (plain === null) throw new FileError(`${where}: ${key} is null; fill or leave out such rows`);
      builders.set(key, started(key, plain, row, where));
    }
    put(builders.get(key), plain, row, where);
  }
}

const plainOf = (value) => {
  if (typeof value === "bigint") return Number(value);
  if (Array.isArray(value) || ArrayBuffer.isView(value)) return Array.from(value, plainOf);
  return value instanceof Date ? value.toISOString() : (value ?? null);
};

/** Read a .npy file: one column, named like the file. */
async function readNumpy(file, progress) {
  const { readNpy, values } = await import("./tensors.js");
  let tensor;
  try {
    tensor = readNpy(await file.arrayBuffer());
  } catch (error) {
    throw new FileError(`${file.name}: ${error.message}`);
  }
  progress(1);
  if (!tensor.shape.length) throw new FileError(`${file.name} is a single number, not one for each row`);
  if (!tensor.shape[0]) throw new FileError(`${file.name} has no rows`);
  const type =
    { float64: "float64", float32: "float32", float16: "float32", bfloat16: "float32" }[tensor.dtype] ??
    "int64";
  const numbers = tensor.dtype === "float32" ? tensor.data : values(tensor);
  const data = type === "float32" ? Float32Array.from(numbers) : numbers;
  return [{ name: stemOf(file.name), type, shape: tensor.shape, data }];
}

const stemOf = (name) => name.replace(/\.[^.]*$/, "");

const READERS = {
  csv: readCsv,
  tsv: readCsv,
  txt: readCsv,
  ndjson: readJsonLines,
  jsonl: readJsonLines,
  json: readJsonLines,
  npy: readNumpy,
  parquet: readParquet,
};

/**
 * Read files of the same rows. Columns of the same name in several files are named file.column.
 * @param {File[]} files
 * @param {Progress} progress
 * @returns {Promise<Column[]>}
 */
export async function readFiles(files, progress) {
  const found = [];
  for (const [at, file] of files.entries()) {
    const reader = READERS[file.name.split(".").pop().toLowerCase()];
    if (!reader) throw new FileError(`${file.name}: a file ends in ${Object.keys(READERS).join(", ")}`);
    if (!file.size) throw new FileError(`${file.name} is empty`);
    const columns = await reader(file, (share) => progress((at + share) / files.length));
    found.push({ file: file.name, columns });
  }
  const [first] = found;
  const rows = first.columns[0].shape[0];
  for (const { file, columns } of found) {
    const own = columns[0].shape[0];
    if (own !== rows) throw new FileError(`${file} has ${plural(own, "row")}, ${first.file} has ${rows}`);
  }
  return joined(found);
}

/**
 * Read one file as tensors and texts by the name of the column.
 * @param {File} file
 * @returns {Promise<{columns: Record<string, import("./tensors.js").Tensor | string[]>, rows: number}>}
 */
export async function readFile(file) {
  const { tensor } = await import("./tensors.js");
  const found = await readFiles([file], () => {});
  const plain = ({ type, shape, data, labels }) =>
    type === "text" ? Array.from(data, (code) => labels[code]) : tensor(data, shape, type);
  return {
    columns: Object.fromEntries(found.map((each) => [each.name, plain(each)])),
    rows: found[0].shape[0],
  };
}

function joined(found) {
  const times = new Map();
  for (const { columns } of found) {
    for (const { name } of columns) times.set(name, (times.get(name) ?? 0) + 1);
  }
  return found.flatMap(({ file, columns }, at) =>
    columns.flatMap((each) => {
      if (times.get(each.name) === 1) return [each];
      // The label of two files of predictions is the same column: one of them is enough.
      if (
        at > 0 &&
        same(
          each,
          found[0].columns.find(({ name }) => name === each.name),
        )
      )
        return [];
      const again =
        at === 0 &&
        found.slice(1).every(({ columns: others }) =>
          same(
            each,
            others.find(({ name }) => name === each.name),
          ),
        );
      return [again ? each : { ...each, name: `${stemOf(file)}.${each.name}` }];
    }),
  );
}

function same(one, other) {
  if (!one || !other) return true;
  const equal = one.type === other.type && String(one.shape) === String(other.shape);
  return (
    equal &&
    String(one.labels) === String(other.labels) &&
    one.data.every((value, at) => Object.is(value, other.data[at]))
  );
}
