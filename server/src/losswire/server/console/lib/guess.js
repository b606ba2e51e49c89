// Which column of a file is which input of a loss: guessed, checked, and made into a plan.

import { plural } from "./words.js";

/** @typedef {import("./worker.js").Plan} Plan */

/**
 * What was chosen. `candidates` are the columns of the first input; several are compared.
 * @typedef {object} Form
 * @property {string} loss
 * @property {string[]} candidates
 * @property {Record<string, string>} inputs the columns of the other inputs
 * @property {string[]} slices
 * @property {string} ids
 * @property {string} weights
 * @property {string} clusters
 * @property {Record<string, number | boolean | string>} options
 */

/** Return the layouts of a loss whose inputs have a row each. */
const rowLayouts = (info) =>
  info.layouts.filter(({ inputs }) =>
    info.inputs.every(({ name, required }) => !required || /^(N( |$)|#?\*S|#1 \*S)/.test(inputs[name] ?? "")),
  );

/**
 * Return the inputs of a loss that a file has: those with a value of each row.
 * @param {any} info
 * @returns {any[]}
 */
export const rowInputs = (info) =>
  info.inputs.filter(
    ({ name, required }) =>
      required || rowLayouts(info).some(({ inputs }) => /^(N( |$)|\*S)/.test(inputs[name] ?? "")),
  );

/** Whether a file of rows can be evaluated by a loss. @param {any} info @returns {boolean} */
export const takesRows = (info) => info.kind === "loss" && rowLayouts(info).length > 0;

/** Whether a column has a shape's rank and one of its types. */
function fitsLayout(column, shape, types) {
  const [first, ...rest] = shape.replace(/^#1 /, "").split(" ");
  const open = first !== "N" || rest.some((axis) => axis.startsWith("*"));
  const extra = rest.filter((axis) => !axis.startsWith("*")).length;
  const own = column.shape.length - 1;
  if (open ? own < extra : own !== extra) return false;
  return types.some((each) => (each === "int64" ? column.type === "int64" : each === "float32"));
}

/**
 * Whether an input can be a column.
 * @param {any} info
 * @param {string} input
 * @param {any} column
 * @returns {boolean}
 */
export const fits = (info, input, column) =>
  column.type !== "text" &&
  rowLayouts(info).some(
    ({ inputs, data_types: types }) =>
      inputs[input] !== undefined && fitsLayout(column, inputs[input], types[input]),
  );

const NAMES = {
  input: /logit|score|pred|output|input|prob|hat|^p$/i,
  target: /target|label|class|truth|true|actual|^y$|digit|gold/i,
};
const IDS = /^(id|idx|index|row|row_?id|uuid|key|name)$|_id$/i;
const WEIGHTS = /^(sample_?)?weights?$/i;
const CLUSTERS = /cluster|user|document|doc_|group|session|patient|speaker|writer/i;

function score(info, input, column, rows) {
  if (!fits(info, input, column)) return -1;
  const unlikely =
    IDS.test(column.name) ||
    WEIGHTS.test(column.name) ||
    (column.distinct === rows && rows > 20 && column.type === "int64") ||
    /picture|image|pixel/i.test(column.name);
  return (
    (column.name === input ? 10 : 0) +
    ((NAMES[input] ?? new RegExp(input, "i")).test(column.name) ? 5 : 0) +
    (input === "target" && column.type === "int64" ? 1 : 0) +
    (unlikely ? 0 : 2)
  );
}

/**
 * Guess which loss a file is for: one whose inputs are all there by name, such as anchor and positive, or by
 * kind.
 */
function guessLoss(columns, known) {
  const named = known.find(
    (info) =>
      info.inputs[0].name !== "input" &&
      rowInputs(info).every(({ name, required }) => !required || columns.some((each) => each.name === name)),
  );
  if (named) return named.name;
  const whole = columns.filter(
    (each) => each.type === "int64" && each.shape.length === 1 && !IDS.test(each.name),
  );
  if (columns.some((each) => each.shape.length === 2 && each.type !== "text") && whole.length)
    return "cross_entropy";
  const share = columns.find((each) => NAMES.input.test(each.name) && each.range);
  if (!whole.some((each) => each.distinct <= 2 && each.smallest === 0) || !share) return "mse_loss";
  return share.range[0] >= 0 && share.range[1] <= 1
    ? "binary_cross_entropy"
    : "binary_cross_entropy_with_logits";
}

/**
 * Guess what each column is.
 * @param {any[]} columns
 * @param {any[]} losses
 * @param {string} [loss]
 * @returns {Form}
 */
export function guess(columns, losses, loss) {
  const known = losses.filter(takesRows);
  const info =
    known.find((each) => each.name === loss) ??
    known.find((each) => each.name === guessLoss(columns, known)) ??
    known[0];
  const rows = columns[0].shape[0];
  const taken = new Set();
  const best = (input, required) => {
    const ranked = columns
      .filter((each) => !taken.has(each.name))
      .map((column) => ({ column, points: score(info, input, column, rows) }))
      .sort((one, other) => other.points - one.points);
    if (!ranked.length || ranked[0].points < (required ? 0 : 10)) return "";
    taken.add(ranked[0].column.name);
    return ranked[0].column.name;
  };
  const wanted = rowInputs(info);
  // Labels are the easier ones to tell: whole numbers of few values.
  const inputs = {};
  for (const { name, required } of [...wanted].reverse()) inputs[name] = best(name, required);
  const varying = wanted[0].name;
  const first = inputs[varying];
  delete inputs[varying];
  const alike = columns.filter(
    (each) =>
      each.name === first ||
      (!taken.has(each.name) &&
        sameKind(
          each,
          columns.find(({ name }) => name === first),
        ) &&
        score(info, varying, each, rows) >= 5),
  );
  const free = (test) =>
    columns.find((each) => test(each) && !taken.has(each.name) && each.shape.length === 1)?.name ?? "";
  const ids = free((each) => IDS.test(each.name));
  const weights = free((each) => WEIGHTS.test(each.name) && each.type !== "text");
  const clusters = free((each) => CLUSTERS.test(each.name) && each.distinct > 50);
  const slices = columns
    .filter(
      (each) => each.distinct > 1 && each.distinct <= 50 && ![ids, weights, clusters].includes(each.name),
    )
    .map((each) => each.name);
  return {
    loss: info.name,
    candidates: alike.map((each) => each.name).slice(0, 8),
    inputs,
    slices: slices.slice(0, 6),
    ids,
    weights,
    clusters,
    options: {},
  };
}

const sameKind = (one, other) =>
  other && one.type === other.type && one.shape.length === other.shape.length && one.width === other.width;

/**
 * Return short names of candidates: what their columns do not have in common.
 * @param {string[]} columns
 * @returns {string[]}
 */
export function candidateNames(columns) {
  if (columns.length < 2) return columns;
  const shared = (texts) => {
    let length = 0;
    while (texts.every((each) => each.length > length + 1 && each[length] === texts[0][length])) length += 1;
    return length;
  };
  // Whole words only: "small" and "smart" keep their beginning.
  const head = columns[0].slice(0, shared(columns)).replace(/[^_.\- ]*$/, "").length;
  const tails = columns.map((each) => [...each.slice(head)].reverse().join(""));
  const tail = tails[0].slice(0, shared(tails)).replace(/[^_.\- ]*$/, "").length;
  return columns.map((each) => each.slice(head, each.length - tail) || each);
}

const SCORES = {
  cross_entropy: "logits",
  nll_loss: "log_probabilities",
  binary_cross_entropy_with_logits: "logit",
  binary_cross_entropy: "probability",
};

/**
 * Return what is wrong with some choices, by the name of an input, or nothing.
 * @param {Form} form
 * @param {any} info
 * @param {any} data
 * @returns {Record<string, string>}
 */
export function faults(form, info, data) {
  const found = {};
  const column = (name) => data.columns.find((each) => each.name === name);
  const check = (input, name, required) => {
    if (!name) {
      const able = data.columns.some((each) => fits(info, input, each));
      if (required)
        found[input] = able
          ? "Choose a column."
          : "No column of this file can be it: it takes numbers of a fitting shape, not text.";
      return;
    }
    const { missing } = column(name);
    if (!fits(info, input, column(name)))
      found[input] =
        `${name} cannot be ${input}: ${info.inputs.find((each) => each.name === input).description}`;
    else if (missing)
      found[input] = `${name} has ${plural(missing.count, "empty cell")}, the first in row ${missing.row}.`;
  };
  const [varying, ...others] = rowInputs(info);
  if (!form.candidates.length) check(varying.name, "", true);
  form.candidates.forEach((name) => check(varying.name, name, true));
  others.forEach((each) => check(each.name, form.inputs[each.name], each.required));
  return found;
}

/**
 * Return the plan for the worker.
 * @param {Form} form
 * @param {any} info
 * @param {any[]} columns
 * @returns {Plan}
 */
export function planOf(form, info, columns) {
  const column = (name) => columns.find((each) => each.name === name);
  const chosen = [...form.candidates, ...Object.values(form.inputs).filter(Boolean)];
  const float = chosen.some((name) => column(name).floats === "float64") ? "float64" : "float32";
  const typed = (input, name) => {
    const types = rowLayouts(info)
      .filter(
        ({ inputs, data_types: all }) =>
          inputs[input] !== undefined && fitsLayout(column(name), inputs[input], all[input]),
      )
      .flatMap(({ data_types: all }) => all[input]);
    return {
      input,
      column: name,
      as: column(name).type === "int64" && types.includes("int64") ? "int64" : float,
    };
  };
  const [varying, ...others] = rowInputs(info);
  const names = candidateNames(form.candidates);
  const label = column(form.inputs.target);
  const classifies =
    SCORES[info.name] &&
    label?.type === "int64" &&
    label.shape.length === 1 &&
    column(form.candidates[0]).shape.length ===
      (SCORES[info.name].startsWith("log") && SCORES[info.name] !== "logit" ? 2 : 1);
  return {
    inputs: others.filter(({ name }) => form.inputs[name]).map(({ name }) => typed(name, form.inputs[name])),
    candidates: form.candidates.map((each, at) => ({ name: names[at], inputs: [typed(varying.name, each)] })),
    slices: form.slices,
    weights: form.weights || null,
    clusters: form.clusters || null,
    ids: form.ids || null,
    label: classifies ? form.inputs.target : null,
    scores: classifies ? SCORES[info.name] : null,
    ignore: info.options.some(({ name }) => name === "ignore_index")
      ? (form.options.ignore_index ?? -100)
      : null,
  };
}
