/** What an answer says: the share of each row, the interval of the mean, and one sentence. */
import { percent, short } from "./numbers.js";
import { capital, list, plural } from "./words.js";
import { isFloat, sizeOf, ulps, valueAt, values } from "./tensors.js";

/** Return the indices of the n-th element of a shape. @param {number} at @param {number[]} shape @returns {number[]} */
export function indexOf(at, shape) {
  const index = [];
  for (let axis = shape.length - 1, rest = at; axis >= 0; axis -= 1) {
    index.unshift(rest % shape[axis]);
    rest = Math.floor(rest / shape[axis]);
  }
  return index;
}

/** Return each value's part of the mean's denominator, or null where the page does not know how it is formed. */
function denominators({ model, values: one }) {
  const { loss, inputs, weight, options } = model;
  const size = sizeOf(one.shape);
  const rule = loss.mean_denominator;
  const parts = new Float64Array(size).fill(1);
  const target = inputs.target && !isFloat(inputs.target.dtype) ? values(inputs.target) : null;
  if (rule.includes("weight[target]") && target) {
    const classes = inputs.weight ? values(inputs.weight) : null;
    const ignored = options.ignore_index ?? -100;
    target.forEach((index, at) => {
      parts[at] = index === ignored ? 0 : classes ? classes[index] : 1;
    });
  } else if (rule.startsWith("the sum of the weight") && inputs.weight) {
    const weights = values(inputs.weight);
    if (weights.length !== size) return null;
    parts.set(weights);
  }
  if (weight) {
    const factors = values(weight);
    const repeat = size / (factors.length || 1);
    parts.forEach((part, at) => {
      parts[at] = part * factors[factors.length === size ? at : Math.floor(at / repeat)];
    });
  }
  return parts;
}

/** Return each value's part of the mean's numerator: ctc_loss divides by the length of the target. */
function numerators({ model, values: one }) {
  const numbers = values(one);
  if (!model.loss.mean_denominator.includes("target_length")) return numbers;
  const lengths = values(model.inputs.target_lengths);
  return numbers.map((each, row) => each / Math.max(1, lengths[row]));
}

/**
 * Return the mean's 95 % interval over rows (delta method), or null where there is none.
 * @param {any} answer
 * @returns {{low: number, high: number, rows: number}|null}
 */
export function intervalOf(answer) {
  const { result, values: one, model } = answer;
  const rows = one.shape[0] ?? 1;
  const reduction = model.reduction || model.loss.default_reduction;
  if (reduction !== "mean" || rows < 2) return null;
  const numbers = numerators(answer);
  const parts = denominators(answer);
  const close = (a, b) => Math.abs(a - b) <= 1e-4 * Math.max(1e-12, Math.abs(b));
  const total = parts && parts.reduce((sum, each) => sum + each, 0);
  // Where the page forms the mean in another way than the server, no interval is better than a wrong one.
  if (
    !parts ||
    !close(total, result.mean_denominator) ||
    !close(
      numbers.reduce((sum, each) => sum + each, 0),
      Number(result.mean_numerator),
    )
  )
    return null;
  const mean = Number(result.mean_numerator) / total;
  const width = numbers.length / rows;
  let squares = 0;
  for (let row = 0; row < rows; row += 1) {
    let rest = 0;
    for (let at = row * width; at < (row + 1) * width; at += 1) rest += numbers[at] - mean * parts[at];
    squares += rest * rest;
  }
  const half = (1.959964 * Math.sqrt((rows / (rows - 1)) * squares)) / total;
  return Number.isFinite(half) ? { low: mean - half, high: mean + half, rows } : null;
}

/** Return the distribution of an input's classes at one row: softmax of logits, or exp of log-probabilities. */
function classesAt(answer, at) {
  const { inputs } = answer.model;
  const logits = inputs.input;
  const axis = logits.shape.length > 1 ? 1 : 0;
  const stride = sizeOf(logits.shape.slice(axis + 1));
  const start = axis ? Math.floor(at / stride) * logits.shape[1] * stride + (at % stride) : 0;
  const row = Array.from({ length: logits.shape[axis] }, (_, index) => valueAt(logits, start + index * stride));
  const most = Math.max(...row);
  const sum = row.reduce((total, each) => total + Math.exp(each - most), 0);
  return row.map((each) => Math.exp(each - most) / sum);
}

const at = (one, index) => (one ? valueAt(one, one.data.length === 1 ? 0 : index) : NaN);
const sigmoid = (value) => 1 / (1 + Math.exp(-value));

function classReason(answer, index) {
  const { inputs } = answer.model;
  if (isFloat(inputs.target.dtype)) return "";
  const chances = classesAt(answer, index);
  const target = at(inputs.target, index);
  const best = chances.indexOf(Math.max(...chances));
  return `its class ${target} has probability ${short(chances[target], 2)}${best === target ? "" : `, class ${best} ${short(chances[best], 2)}`}`;
}
const difference = ({ model: { inputs } }, index) =>
  `${short(at(inputs.input, index), 3)} against a target of ${short(at(inputs.target, index), 3)}, off by ${short(Math.abs(at(inputs.input, index) - at(inputs.target, index)), 3)}`;
const bernoulli =
  (probability) =>
  ({ model: { inputs } }, index) =>
    `its target is ${short(at(inputs.target, index), 2)}, its probability ${short(probability(at(inputs.input, index)), 2)}`;

/** Why a value is large, in words, by loss. */
const REASONS = {
  cross_entropy: classReason,
  nll_loss: classReason,
  multi_margin_loss: ({ model: { inputs } }, index) => `its class is ${at(inputs.target, index)}`,
  binary_cross_entropy: bernoulli((value) => value),
  binary_cross_entropy_with_logits: bernoulli(sigmoid),
  mse_loss: difference,
  l1_loss: difference,
  huber_loss: difference,
  smooth_l1_loss: difference,
  soft_margin_loss: ({ model: { inputs } }, index) =>
    `its target is ${at(inputs.target, index)}, its score ${short(at(inputs.input, index), 3)}`,
  gaussian_nll_loss: ({ model: { inputs } }, index) =>
    inputs.var.data.length === inputs.input.data.length
      ? `it is ${short(Math.abs(at(inputs.input, index) - at(inputs.target, index)) / Math.sqrt(at(inputs.var, index)), 2)} standard deviations off`
      : "",
  poisson_nll_loss: ({ model: { inputs, options } }, index) =>
    `${at(inputs.target, index)} were counted, ${short(options.log_input === false ? at(inputs.input, index) : Math.exp(at(inputs.input, index)), 2)} expected`,
};

/**
 * Name an element: "row 1", or "[0, 2]" where a row has several.
 * @param {number} index
 * @param {number[]} shape
 * @returns {string}
 */
export const nameOf = (index, shape) =>
  shape.length === 1 ? `row ${index}` : shape.length === 0 ? "the value" : `[${indexOf(index, shape).join(", ")}]`;

function oddSentence(numbers, shape, inputs) {
  const odd = numbers.findIndex((each) => !Number.isFinite(each));
  const count = numbers.filter((each) => !Number.isFinite(each)).length;
  const sources = Object.entries(inputs)
    .filter(([, one]) => isFloat(one.dtype) && values(one).some((each) => !Number.isFinite(each)))
    .map(([name]) => name);
  const why = sources.length
    ? ` ${capital(list(sources))} ${sources.length > 1 ? "hold" : "holds"} NaN or infinity.`
    : "";
  return `${plural(count, "value")} of ${numbers.length} ${count === 1 ? "is" : "are"} not finite, the first ${short(numbers[odd])} at ${nameOf(odd, shape)}.${why}`;
}

/** Say in one sentence what stands out. @param {any} answer @returns {string} */
export function sentenceOf(answer) {
  const { model, values: one } = answer;
  const numbers = Array.from(values(one));
  const { shape } = one;
  if (numbers.length === 0) return "There are no values.";
  if (numbers.some((each) => !Number.isFinite(each))) return oddSentence(numbers, shape, model.inputs);
  const top = numbers.reduce((best, each, index) => (each > numbers[best] ? index : best), 0);
  const least = numbers.reduce((best, each) => Math.min(best, each), Infinity);
  if (model.loss.kind === "activation")
    return `The outputs lie between ${short(least)} and ${short(numbers[top])}; the largest is at ${nameOf(top, shape)}.`;
  const total = numbers.reduce((sum, each) => sum + each, 0);
  let reason = "";
  try {
    reason = REASONS[model.loss.name]?.(answer, top) ?? "";
  } catch {
    // A layout that the sentence does not know: the share alone is still true.
  }
  const because = reason && `; ${reason}`;
  const name = capital(shape.length > 1 ? `the value at ${nameOf(top, shape)}` : nameOf(top, shape));
  if (numbers.length === 1) return `The value is ${short(numbers[0])}${because}.`;
  if (numbers.every((each) => each === 0)) return "Every value is 0: nothing is left to improve here.";
  if (numbers.every((each) => each >= 0))
    return `${name} carries ${percent(numbers[top] / total)} of the loss${because}.`;
  return `${name} has the largest value, ${short(numbers[top])}${because}.`;
}

/**
 * Return the largest distance of a result from its float64 evaluation, in units in the last place.
 * @param {any} answer
 * @returns {number|null}
 */
export function distanceOf({ result, wide }) {
  if (!wide || result.loss.dtype === "float64") return null;
  const [near, far] = [values(result.loss), values(wide)];
  let most = null;
  for (let index = 0; index < near.length; index += 1)
    if (Number.isFinite(far[index])) most = Math.max(most ?? 0, ulps(near[index], far[index], result.loss.dtype));
  return most;
}
