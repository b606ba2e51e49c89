// Keeps the rows of an evaluation off the page's thread: reads files, cuts them into pieces for the
// server, and answers every brush and click from typed arrays. Its operations are the functions of
// OPERATIONS; lib/evaluation.js calls them.

import { BINS, edgesOf, estimates, sampleOf, sortedRows, together } from "./bins.js";
import { BYTES, csvLine, naturalType, npy } from "./columns.js";

/** @typedef {import("./columns.js").Column} Column */

/**
 * What is evaluated. `as` is the data type that an input is sent in.
 * @typedef {object} Plan
 * @property {{input: string, column: string, as: string}[]} inputs those that all candidates share
 * @property {{name: string, inputs: {input: string, column: string, as: string}[]}[]} candidates
 * @property {string[]} slices
 * @property {string | null} weights
 * @property {string | null} clusters
 * @property {string | null} ids
 * @property {string | null} label the column of class indices, of a classifier
 * @property {"logits" | "log_probabilities" | "logit" | "probability" | null} scores what the input is
 * @property {number | null} ignore the label of rows that take no part
 */

const PIECE_BYTES = 2 ** 21;
const NO_BIN = 255;
const CONFIDENCE_BINS = 10;
const MOST_CODES = 4096;

/** @type {Map<string, Column>} */
let columns = new Map();
let rows = 0;
/** @type {Plan | null} */
let plan = null;
/** Of each candidate: `losses` of rows (NaN: none, or not finite), `predicted`, `confidence`. */
let candidates = [];
/** Of each slice column: `codes` of rows and `labels` of codes. */
let sliced = new Map();
let weights = null;
let labels = null;
/** What was derived from the losses; emptied when there are more of them. */
let derived = new Map();

/** Return the name of the part that has a column in a data type. */
const partName = (name, as) => (as === naturalType(columns.get(name)) ? name : `${name} as ${as}`);

/** Return every column that the server needs: its part's name, its name, and its type there. */
function wantedParts() {
  const found = new Map();
  const add = (column, as) => column && found.set(partName(column, as), { column, as });
  for (const { column, as } of [...plan.inputs, ...plan.candidates.flatMap((each) => each.inputs)])
    add(column, as);
  for (const name of [...plan.slices, plan.clusters, plan.ids]) {
    if (name) add(name, naturalType(columns.get(name)));
  }
  add(plan.weights, "float64");
  return found;
}

/** Return the parts of some rows: .npy bytes, or texts. */
function partsOf(length, pick) {
  const parts = {};
  for (const [part, { column: name, as }] of wantedParts()) {
    const column = columns.get(name);
    if (as === "text") parts[part] = Array.from({ length }, (_, i) => column.labels[column.data[pick(i)]]);
    else parts[part] = npy(column, as, length, pick);
  }
  return parts;
}

/** Return what the page needs to know of a column. */
function described(column) {
  const { name, type, shape, missing, stray, members } = column;
  const width = shape.slice(1).reduce((one, other) => one * other, 1);
  const found = { name, type, shape, width, missing, stray, members, floats: naturalType(column) };
  if (shape.length === 1 && (type === "int64" || type === "text")) {
    const seen = new Set();
    for (let row = 0; row < rows && seen.size <= MOST_CODES; row += 1) seen.add(column.data[row]);
    Object.assign(found, { distinct: seen.size, smallest: type === "int64" ? Math.min(...seen) : 0 });
  } else if (shape.length === 1)
    found.range = column.data.reduce(
      ([low, high], each) => [Math.min(low, each), Math.max(high, each)],
      [Infinity, -Infinity],
    );
  found.preview = Array.from(
    column.data.slice(0, Math.min(3, width > 1 ? width : 3)),
    (value) => column.labels?.[value] ?? value,
  );
  return found;
}

function keep(found) {
  columns = new Map(found.map((each) => [each.name, each]));
  rows = found[0].shape[0];
  return { rows, columns: found.map(described) };
}

/** Return codes and labels of a column of slices. Codes of 16 bits are read in half the time. */
function coded(name) {
  const column = columns.get(name);
  const few = (codes, labels) => ({ codes: labels.length < 65536 ? Uint16Array.from(codes) : codes, labels });
  if (column.type === "text") return few(column.data, column.labels);
  const known = new Map();
  const codes = new Int32Array(rows);
  for (let row = 0; row < rows; row += 1) {
    const value = column.data[row];
    if (!known.has(value)) known.set(value, known.size);
    codes[row] = known.get(value);
  }
  return few(codes, [...known.keys()].map(String));
}

/** Prepare an evaluation, and return the rows of each piece. */
function prepare(wanted) {
  plan = wanted;
  derived = new Map();
  sliced = new Map(plan.slices.map((name) => [name, coded(name)]));
  weights = plan.weights ? columns.get(plan.weights).data : null;
  labels = plan.label ? columns.get(plan.label).data : null;
  candidates = plan.candidates.map(() => ({
    losses: new Float64Array(rows).fill(NaN),
    predicted: plan.scores && labels ? new Int32Array(rows).fill(-1) : null,
    confidence: plan.scores && labels ? new Float32Array(rows) : null,
  }));
  const bytes = [...wantedParts().values()].reduce((sum, { column, as }) => {
    const { data, shape } = columns.get(column);
    return sum + (data.length / shape[0]) * (BYTES[as] ?? 12);
  }, 0);
  // At least eight pieces, as long as they are worth a request: the interval is seen to shrink.
  const most = Math.max(256, Math.min(Math.floor(PIECE_BYTES / bytes), Math.ceil(rows / 8)));
  const pieces = [];
  for (let first = 0; first < rows; first += most) pieces.push([first, Math.min(most, rows - first)]);
  return {
    pieces,
    parts: Object.fromEntries([...wantedParts()].map(([part, { column }]) => [part, column])),
  };
}

/** Note what the candidates predict for some rows. */
function predict(first, length) {
  if (!candidates[0].predicted) return;
  for (const [at, { predicted, confidence }] of candidates.entries()) {
    const own = [...plan.candidates[at].inputs, ...plan.inputs].find((each) => each.input === "input");
    const { data, shape } = columns.get(own.column);
    if (plan.scores === "logit" || plan.scores === "probability") {
      for (let row = first; row < first + length; row += 1) {
        const share = plan.scores === "logit" ? 1 / (1 + Math.exp(-data[row])) : data[row];
        predicted[row] = share > 0.5 ? 1 : 0;
        confidence[row] = Math.max(share, 1 - share);
      }
    } else predictClass(data, shape[1], first, length, predicted, confidence);
  }
}

/** The class with the largest score, and its probability by softmax: of log-probabilities, itself. */
function predictClass(data, width, first, length, predicted, confidence) {
  for (let row = first; row < first + length; row += 1) {
    const from = row * width;
    let best = 0;
    for (let j = 1; j < width; j += 1) if (data[from + j] > data[from + best]) best = j;
    let sum = 0;
    for (let j = 0; j < width; j += 1) sum += Math.exp(data[from + j] - data[from + best]);
    predicted[row] = best;
    confidence[row] = 1 / sum;
  }
}

/** Keep the losses of some rows; those of several values a row are averaged. */
function keepLosses({ candidate, first, values, length }) {
  const { losses } = candidates[candidate];
  const width = values.length / length;
  for (let i = 0; i < length; i += 1) {
    const row = first + i;
    if (labels && plan.ignore !== null && labels[row] === plan.ignore) continue;
    if (weights && weights[row] === 0) continue;
    let sum = 0;
    for (let j = 0; j < width; j += 1) sum += values[i * width + j];
    losses[row] = sum / width;
  }
  derived = new Map();
}

/** Return the numbers that are looked at: losses of a candidate, or first minus second. */
function valuesOf(source) {
  if (!Array.isArray(source)) return candidates[source].losses;
  return cached(`values ${source}`, () => {
    const [one, other] = source.map((each) => candidates[each].losses);
    return one.map((value, row) => value - other[row]);
  });
}

function cached(key, make) {
  if (!derived.has(key)) derived.set(key, make());
  return derived.get(key);
}

/** Return the edges and the bar of each row. */
function binsOf(source, scale) {
  return cached(`bins ${source} ${scale}`, () => {
    const values = valuesOf(source);
    const found = edgesOf(values, scale);
    const index = new Uint8Array(rows).fill(NO_BIN);
    if (!found) return { edges: new Float64Array(2), index, log: false };
    for (let row = 0; row < rows; row += 1) {
      const value = values[row];
      if (value > -Infinity && value < Infinity)
        index[row] = Math.max(0, Math.min(BINS - 1, found.place(value)));
    }
    return { edges: found.edges, index, log: found.log };
  });
}

/** Return the rows by value, the largest first: of differences, by magnitude. */
const orderOf = (source) =>
  cached(`order ${source}`, () => sortedRows(valuesOf(source), Array.isArray(source)));

/**
 * What is looked at. Slices are labels by column; rows of one column are any of its labels.
 * @typedef {object} Look
 * @property {number | [number, number]} source a candidate, or first minus second
 * @property {"log" | "linear"} scale
 * @property {[number, number] | null} brush
 * @property {Record<string, string[]>} slices
 * @property {number[]} rows those that were picked
 * @property {number} top how many rows to list
 */

const BRUSH = 1;
const PICKED = 2;
/** The mark of rows without a finite loss, which nothing takes off. */
const NO_LOSS = 4;
/** The filter of the i-th column of slices, of which there are at most 12. */
const sliceFilter = (i) => 8 << i;

/** Of each row, the filters that it fails; kept between looks. */
let fails = new Uint16Array(0);

/** Mark which filters each row fails. A filter that is not set costs nothing. */
function mark(look, values, index) {
  fails = cached("fails", () => new Uint16Array(rows));
  fails.set(
    cached(`without ${look.source}`, () => {
      const without = new Uint16Array(rows);
      for (let row = 0; row < rows; row += 1) if (index[row] === NO_BIN) without[row] = NO_LOSS;
      return without;
    }),
  );
  if (look.brush) {
    const [low, high] = look.brush;
    for (let row = 0; row < rows; row += 1)
      if (!(values[row] >= low && values[row] <= high)) fails[row] |= BRUSH;
  }
  if (look.rows.length) {
    for (let row = 0; row < rows; row += 1) fails[row] |= PICKED;
    for (const row of look.rows) fails[row] &= ~PICKED;
  }
  [...sliced].forEach(([name, { codes, labels: texts }], i) => {
    const chosen = look.slices[name];
    if (!chosen?.length) return;
    const passes = Uint8Array.from(texts, (each) => (chosen.includes(each) ? 1 : 0));
    for (let row = 0; row < rows; row += 1) if (passes[codes[row]] === 0) fails[row] |= sliceFilter(i);
  });
}

/** Whether a row passes; one with an infinite loss has no bar and no part in means, and passes too. */
const passes = (row, values) => fails[row] === 0 || (fails[row] === NO_LOSS && values[row] === Infinity);

/** Count the rows in each bar that fail no filter but those of `except`. */
function countBars(index, except) {
  const counts = new Float64Array(NO_BIN + 1);
  for (let row = 0; row < rows; row += 1) if ((fails[row] & ~except) === 0) counts[index[row]] += 1;
  return counts.slice(0, BINS);
}

/**
 * Return by code the sums from which a weighted mean and its standard error (delta method) follow,
 * of the rows that fail no filter but `except`. Values are measured from `origin`: large ones keep
 * their spread.
 */
function groupBy(codes, size, values, origin, except) {
  const [counts, sums, squares, firsts, seconds, crosses] = Array.from(
    { length: 6 },
    () => new Float64Array(size),
  );
  for (let row = 0; row < rows; row += 1) {
    if ((fails[row] & ~except) !== 0) continue;
    const code = codes === null ? 0 : codes[row];
    const value = values[row] - origin;
    counts[code] += 1;
    if (weights === null) {
      firsts[code] += value;
      seconds[code] += value * value;
      continue;
    }
    const weight = weights[row];
    sums[code] += weight;
    squares[code] += weight * weight;
    firsts[code] += weight * value;
    crosses[code] += weight * weight * value;
    seconds[code] += weight * weight * value * value;
  }
  return weights === null
    ? [counts, counts, counts, firsts, firsts, seconds]
    : [counts, sums, squares, firsts, crosses, seconds];
}

/** Return how many rows the first of two candidates wins, and how many are equal. */
function outcomes(values) {
  let [wins, ties] = [0, 0];
  for (let row = 0; row < rows; row += 1) {
    if (fails[row] !== 0) continue;
    if (values[row] < 0) wins += 1;
    else if (values[row] === 0) ties += 1;
  }
  return { wins, ties };
}

/** Return by confidence: how many rows, the sum of their confidence, and how many are right. */
function calibrate(source) {
  const { losses, predicted, confidence } = candidates[source];
  const cells = cached(`cells ${source}`, () => {
    const found = new Uint8Array(rows);
    for (let row = 0; row < rows; row += 1) {
      const bin = Math.min(CONFIDENCE_BINS - 1, Math.floor(confidence[row] * CONFIDENCE_BINS));
      found[row] = 2 * bin + (predicted[row] === labels[row] ? 1 : 0);
    }
    return found;
  });
  const counts = new Float64Array(2 * CONFIDENCE_BINS);
  const sums = new Float64Array(2 * CONFIDENCE_BINS);
  for (let row = 0; row < rows; row += 1) {
    if (!passes(row, losses)) continue;
    counts[cells[row]] += 1;
    sums[cells[row]] += confidence[row];
  }
  return Array.from({ length: CONFIDENCE_BINS }, (_, bin) => ({
    count: counts[2 * bin] + counts[2 * bin + 1],
    confidence: sums[2 * bin] + sums[2 * bin + 1],
    right: counts[2 * bin + 1],
  }));
}

/** Return the sums of all rows that pass: those of a table of slices that filters nothing, if any. */
function totalOf(look, groups, values, origin) {
  const free = [...sliced.keys()].findIndex((name) => !look.slices[name]?.length);
  return together(free < 0 ? groupBy(null, 1, values, origin, 0) : groups[free]);
}

/** Answer a look: bars, totals, slices, calibration and rows, each under the filters of the others. */
function view(look) {
  const pair = Array.isArray(look.source);
  const { edges, index, log } = binsOf(look.source, look.scale);
  const values = valuesOf(look.source);
  const origin = cached(`origin ${look.source}`, () =>
    sampleOf(values).reduce((sum, each, _, { length }) => sum + each / length, 0),
  );
  mark(look, values, index);
  const all = cached(`all ${look.source} ${look.scale}`, () => countBars(index, -1));
  const groups = [...sliced.values()].map(({ codes, labels: { length } }, i) =>
    groupBy(codes, length, values, origin, sliceFilter(i)),
  );
  const slices = [...sliced].map(([name, { labels: texts }], i) => [
    name,
    estimates(groups[i], origin).map((each, at) => ({ label: texts[at], ...each })),
  ]);
  // Dragging a brush leaves the bars as they are: they show what passes the other filters.
  const bars = JSON.stringify(["passing", look.source, look.scale, look.slices, look.rows]);
  return {
    edges,
    log,
    all,
    passing: cached(bars, () => countBars(index, BRUSH)),
    total: estimates(totalOf(look, groups, values, origin), origin)[0],
    slices: Object.fromEntries(slices),
    ...(pair && outcomes(values)),
    calibration: !pair && candidates[look.source].predicted ? calibrate(look.source) : null,
    rows: look.top ? topRows(look.source, look.top) : [],
  };
}

/** Return the first rows, by value, that pass. */
function topRows(source, most) {
  const found = [];
  const values = valuesOf(source);
  for (const row of orderOf(source)) {
    if (passes(row, values)) found.push(rowFacts(row));
    if (found.length === most) break;
  }
  return found;
}

/** Return what is known of a row. */
function rowFacts(row) {
  const id = plan.ids ? textAt(columns.get(plan.ids), row) : row;
  return {
    row,
    id,
    losses: candidates.map(({ losses }) => losses[row]),
    predicted: candidates.map(({ predicted }) => (predicted ? predicted[row] : null)),
    confidence: candidates.map(({ confidence }) => (confidence ? confidence[row] : null)),
    label: labels ? labels[row] : null,
    slices: Object.fromEntries(
      [...sliced].map(([name, { codes, labels: texts }]) => [name, texts[codes[row]]]),
    ),
    weight: weights ? weights[row] : 1,
  };
}

const textAt = (column, row) => column.labels?.[column.data[row]] ?? column.data[row];

/** Return rows that pass whose label the candidate is sure to be another, the largest loss first. */
function suspicious({ look, confidence: least, most }) {
  const { losses, predicted, confidence } = candidates[look.source];
  if (!predicted) return [];
  mark(look, valuesOf(look.source), binsOf(look.source, look.scale).index);
  const found = [];
  for (const row of orderOf(look.source)) {
    if (passes(row, losses) && predicted[row] !== labels[row] && confidence[row] >= least)
      found.push(rowFacts(row));
    if (found.length === most) break;
  }
  return found;
}

/** Return the values of some rows in each column: numbers, lists of them, or texts. */
function rowValues({ rows: wanted, names }) {
  return wanted.map((row) =>
    Object.fromEntries(
      names.map((name) => {
        const column = columns.get(name);
        const width = column.data.length / column.shape[0];
        const value =
          column.shape.length > 1
            ? Array.from(column.data.slice(row * width, (row + 1) * width))
            : textAt(column, row);
        return [name, value];
      }),
    ),
  );
}

/** Return the rows that pass as CSV, in the order of the file; also those whose loss is NaN. */
function csvOf({ look, names }) {
  mark(look, valuesOf(look.source), binsOf(look.source, look.scale).index);
  const of = (what) => names.map((each) => `${what} ${each}`.trim());
  const head = ["row", "id", ...of("loss"), "label", ...of("predicted"), ...of("confidence")];
  const more = [...sliced.keys()].filter((each) => each !== plan.label || !head.includes(each));
  const lines = [csvLine([...head, ...more])];
  for (let row = 0; row < rows; row += 1) {
    if ((fails[row] & ~NO_LOSS) !== 0) continue;
    const { id, losses, predicted, confidence, label, slices } = rowFacts(row);
    lines.push(csvLine([row, id, ...losses, label, ...predicted, ...confidence, ...more.map((each) => slices[each])]));
  }
  return new Blob(lines, { type: "text/csv" });
}

const OPERATIONS = {
  open: async ({ files }, progress) => {
    const { readFiles } = await import("./files.js");
    return keep(await readFiles(files, progress));
  },
  take: ({ columns: given }) => keep(given),
  prepare: ({ plan: wanted }) => prepare(wanted),
  piece: ({ first, length }) => {
    predict(first, length);
    return partsOf(length, (i) => first + i);
  },
  parts: ({ rows: wanted }) => partsOf(wanted.length, (i) => wanted[i]),
  losses: keepLosses,
  view,
  suspicious,
  rowValues,
  facts: ({ rows: wanted }) => wanted.map(rowFacts),
  csv: csvOf,
  table: ({ head, rows: lines }) => new Blob([head, ...lines].map(csvLine), { type: "text/csv" }),
};

self.onmessage = async ({ data: { id, operation, input } }) => {
  const progress = (share) => self.postMessage({ id, progress: share });
  try {
    const result = await OPERATIONS[operation](input, progress);
    const buffers =
      result && operation === "piece"
        ? Object.values(result).filter((each) => each instanceof ArrayBuffer)
        : [];
    self.postMessage({ id, result }, buffers);
  } catch (error) {
    self.postMessage({ id, error: error.message });
  }
};
