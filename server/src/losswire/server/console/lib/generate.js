/** Seeded examples for every loss, made from its record: the right shapes, types and ranges. */
import { sizeOf, tensor } from "./tensors.js";

/** Return a generator of numbers in [0, 1) that a seed decides (mulberry32). @param {number} seed @returns {() => number} */
export function random(seed) {
  let state = Math.imul(seed + 1, 0x9e3779b9) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

const PREFERRED = ["batched", "padded", "full", "rows", "elementwise", "any"];

/**
 * Return the layout that an example is made for.
 * @param {any} loss its record
 * @param {string} name "" for the usual one
 * @returns {any}
 */
export function layoutOf(loss, name = "") {
  const named = (wanted) => loss.layouts.find((each) => each.name === wanted);
  return named(name) ?? PREFERRED.map(named).find(Boolean) ?? loss.layouts[0];
}

const LENGTHS = { D: 4, K: 3, F: 4, T: 8, S: 3, 2: 2 };

/** Return the lengths of a shape such as "N C *D"; `free` stands for "*S". */
function lengths(text, axes, free) {
  return text
    .split(" ")
    .filter(Boolean)
    .flatMap((part) => {
      if (part === "#1") return [];
      if (part.includes("*S")) return free;
      if (part.includes("*")) return [];
      return [axes[part] ?? LENGTHS[part] ?? 3];
    });
}

function normal(draw) {
  return Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw());
}
const round = (value, digits = 2) => Number(value.toFixed(digits));

/** Normalize along an axis: `finish` turns the logits of a group and their log-sum-exp into values. */
function along(shape, axis, logits, finish) {
  const stride = sizeOf(shape.slice(axis + 1));
  const length = shape[axis] ?? 1;
  const result = new Array(logits.length);
  for (let at = 0; at < logits.length; at += 1) {
    const start = at - (Math.floor(at / stride) % length) * stride;
    let sum = 0;
    for (let index = 0; index < length; index += 1) sum += Math.exp(logits[start + index * stride]);
    result[at] = finish(logits[at], Math.log(sum));
  }
  return result;
}

/** How the values of an input are drawn: the first rule whose words are in the input's record. */
const DRAWS = [
  [
    /then -1; only these/,
    ({ draw, shape }) => {
      const [length, rows] = [shape[shape.length - 1], sizeOf(shape.slice(0, -1))];
      return Array.from({ length: rows }, () => {
        const order = Array.from({ length }, (_, index) => [draw(), index])
          .sort((one, two) => one[0] - two[0])
          .map((each) => each[1]);
        const some = 1 + Math.floor(draw() * (length - 1));
        return order.map((each, index) => (index < some ? each : -1));
      }).flat();
    },
  ],
  [/class indices/, ({ draw, size, axes }) => Array.from({ length: size }, () => Math.floor(draw() * axes.C))],
  [
    /labels in/,
    ({ draw, size, axes }) => Array.from({ length: size }, () => 1 + Math.floor(draw() * Math.max(1, axes.C - 1))),
  ],
  [/lengths in \[0, T\]/, ({ size }) => Array(size).fill(LENGTHS.T)],
  [/lengths in/, ({ size, axes }) => Array(size).fill(axes.L ? Math.floor(axes.L / size) : LENGTHS.S)],
  [/1 or -1/, ({ draw, size }) => Array.from({ length: size }, () => (draw() < 0.5 ? -1 : 1))],
  [
    /log-probabilities/,
    ({ draw, shape, size, axis }) =>
      along(
        shape,
        axis,
        Array.from({ length: size }, () => 1.5 * normal(draw)),
        (logit, sum) => round(logit - sum, 3),
      ),
  ],
  [
    /probabilities/,
    (way) =>
      way.distribution
        ? along(
            way.shape,
            way.axis,
            Array.from({ length: way.size }, () => normal(way.draw)),
            (logit, sum) => round(Math.exp(logit - sum), 3),
          )
        : Array.from({ length: way.size }, () =>
            way.name === "target" ? Math.round(way.draw()) : round(0.05 + 0.9 * way.draw()),
          ),
  ],
  [/variances/, ({ draw, size }) => Array.from({ length: size }, () => round(0.25 + 2 * draw()))],
  [/counts/, ({ draw, size }) => Array.from({ length: size }, () => Math.floor(draw() * 6))],
  [/at least 0 without/, ({ draw, size }) => Array.from({ length: size }, () => round(0.6 * normal(draw)))],
];
const WEIGHTS = /weight$/;
const plain = ({ name, draw, size }) =>
  Array.from({ length: size }, () =>
    WEIGHTS.test(name) && name !== "linear_weight" ? round(0.5 + 1.5 * draw()) : round(1.5 * normal(draw)),
  );

/** Return the words on an input's values that hold in a layout: floats of a class loss are probabilities. */
function rulesOf(info, types) {
  const [rules, hints] = [info.value_rules.join(" "), info.value_hints.join(" ")];
  if (rules && hints) return types.some((each) => each.includes("float")) ? hints : rules;
  return rules || hints;
}

/**
 * Return the data type that plain numbers of an input are taken for.
 * @param {any} loss @param {any} info the input's record @param {boolean} integers all are whole numbers @param {number[]} shape @param {Record<string, number[]>} shapes of all inputs
 */
export function typeOf(loss, info, integers, shape, shapes = {}) {
  const whole =
    info.data_types.includes("int64") && /class indices|labels in|lengths in/.test(info.value_rules.join(" "));
  // One target for each logit is probabilities, also where they are all 0 or 1.
  const likeInput =
    info.value_hints.some((each) => each.includes("probabilities")) &&
    shapes.input &&
    shape.length > 0 &&
    String(shapes.input) === String(shape);
  if (whole && integers && !likeInput) return "int64";
  return info.data_types.includes("float32") ? "float32" : info.data_types[0];
}

/** Return the axes of a layout: as wished, or as the inputs have them that are there already. */
function axesOf(chosen, { rows, classes }, shapes) {
  const texts = Object.values(chosen.inputs).join(" | ");
  const axes = { N: rows, C: classes, L: /\bN\b/.test(texts) ? rows * 2 : LENGTHS.S, D: LENGTHS.D };
  // "*S" alone is rows and columns; before a named axis it is the rows.
  let free = /\*S [A-Z]/.test(texts) ? [rows] : [rows, classes];
  for (const [name, shape] of Object.entries(shapes)) {
    const parts = (chosen.inputs[name] ?? "").split(" ").filter(Boolean);
    if (parts[0] === "*S") free = shape.slice(0, shape.length - (parts.length - 1));
    if (parts.some((each) => each === "#1" || each.startsWith("#*"))) continue;
    parts.forEach((part, index) => {
      const length = part.includes("*")
        ? undefined
        : parts[0] === "*S"
          ? shape[shape.length - parts.length + index]
          : shape[index];
      if (length !== undefined && !part.includes("*")) axes[part] = length;
    });
  }
  return { axes, free };
}

/**
 * Return a weight for each row of a layout's values.
 * @param {any} loss
 * @param {any} wish as of exampleOf
 * @param {Record<string, number[]>} shapes
 * @returns {import("./tensors.js").Tensor}
 */
export function rowWeights(loss, wish, shapes) {
  const chosen = layoutOf(loss, wish.layout);
  const { axes, free } = axesOf(chosen, wish, shapes);
  const shape = lengths(chosen.values, axes, free).slice(0, 1);
  return tensor(
    Array.from({ length: sizeOf(shape) }, (_, row) => [1, 2, 0.5][row % 3]),
    shape,
    "float32",
  );
}

/**
 * Make one input of an example.
 * @param {any} loss @param {any} info @param {{seed: number, rows: number, classes: number, layout: string}} wish @param {Record<string, number[]>} shapes of inputs that are there already
 * @returns {import("./tensors.js").Tensor}
 */
export function exampleOf(loss, info, wish, shapes = {}) {
  const { seed } = wish;
  const chosen = layoutOf(loss, wish.layout);
  const { axes, free } = axesOf(chosen, wish, shapes);
  const shape = lengths(chosen.inputs[info.name] ?? "", axes, free);
  const types = chosen.data_types[info.name] ?? info.data_types;
  const words = rulesOf(info, types);
  const index = loss.inputs.findIndex((each) => each.name === info.name);
  const classAxis = (chosen.inputs[info.name] ?? "").split(" ").indexOf("C");
  const distribution =
    loss.name === "kl_div" ||
    (loss.inputs.some((each) => each.name === "target") && classAxis >= 0 && !/multilabel/.test(loss.name));
  const way = {
    name: info.name,
    draw: random(seed * 101 + index),
    shape,
    size: sizeOf(shape),
    axes,
    axis: Math.max(0, classAxis < 0 ? shape.length - 1 : classAxis),
    distribution,
  };
  const numbers = (DRAWS.find(([rule]) => rule.test(words))?.[1] ?? plain)(way);
  const type =
    types.includes("int64") && (!types.includes("float32") || /class indices|labels|lengths/.test(words))
      ? "int64"
      : types.includes("float32")
        ? "float32"
        : types[0];
  return tensor(numbers, shape, type);
}
