/**
 * A sweep: one evaluation of a loss over the values of one coordinate, planned from the loss's record. Nothing here draws.
 *
 * A template says what each input holds at one point: `x` is the coordinate, `x, 0, 0` a row of three logits, `1; 0` a
 * matrix, an empty text an input that is not sent. Exactly one `x` stands in one input, so that the derivative along the
 * coordinate is one element of that input's gradient and needs no arithmetic of ours.
 */

/**
 * @typedef {{loss: string, options: Object<string, number|boolean|string>, fixed: Object<string, string>}} Curve
 * @typedef {{rows: (number|"x")[][], rank: number}} Template
 * @typedef {{values: number[], derivative: number[]|null}} Traced
 */

/** The coordinates that losses share, by the name used in the address. */
export const COORDINATES = {
  error: { title: "an error: the input minus the target", axis: "error: input − target" },
  input: { title: "the input", axis: "input" },
  logit: { title: "the logit of one class, the others stay", axis: "logit of the first class" },
};

/** What is drawn when nothing was chosen: losses that people hesitate between. */
export const STARTERS = {
  error: ["mse_loss", "l1_loss", "huber_loss"],
  input: ["binary_cross_entropy_with_logits", "soft_margin_loss", "hinge_embedding_loss"],
  logit: ["cross_entropy", "multi_margin_loss", "multilabel_soft_margin_loss"],
};

const INDICES = "class indices";
const FLOAT = "float64";
const INT = "int64";

// Where a record's words leave several sensible values, the ones that make a telling curve.
const TEMPLATES = {
  "kl_div.target": "0.5",
  "hinge_embedding_loss.target": "-1",
  "cosine_embedding_loss.input1": "x, 1",
  "cosine_embedding_loss.input2": "1, 0",
  "triplet_margin_loss.positive": "1, 0",
  "triplet_margin_loss.negative": "-1, 0",
  "triplet_margin_with_distance_loss.positive": "1, 0",
  "triplet_margin_with_distance_loss.negative": "-1, 0",
  "linear_cross_entropy.linear_weight": "1; 0; 0",
  "ctc_loss.log_probs": "-1.1, x, -1.1; -1.1, -1.1, -1.1",
  "ctc_loss.targets": "1",
  "ctc_loss.input_lengths": "2",
  "ctc_loss.target_lengths": "1",
};

/** What a reader of a curve must know beside its record. */
export const NOTES = {
  ctc_loss: "torch gives the derivative by the logits in front of log_softmax: it is not the slope of this curve.",
};

// The first of these that an input's rules or hints contain says what it holds. A list stands where there are classes.
const BY_RULE = [
  ["then -1", "0, -1, -1"],
  [INDICES, "0"],
  ["1 or -1", "1"],
  ["probabilities in [0, 1]", "1", "1, 0, 0"],
  ["variances", "1"],
  ["counts", "2"],
];

/** Return the words of an input's record that say what its values are. */
function wordsOf(input) {
  return [...(input.value_rules ?? []), ...(input.value_hints ?? [])].join("; ");
}

/** Return the axes of an input in a layout, without those that are left empty here. */
function axesOf(layout, name) {
  const text = layout.inputs[name];
  if (text === undefined) return null;
  return text.split(" ").filter((axis) => axis && axis !== "#1" && axis !== "*D");
}

const isBatch = (axis) => axis === "N" || axis.endsWith("*S");

/** Return the layout in which many points are one batch. */
function batchedLayout(info) {
  const swept = info.inputs[0].name;
  return info.layouts.find((layout) => axesOf(layout, swept)?.some(isBatch));
}

/**
 * Return which coordinates suit a loss, the best one first; none where its record has no batch of points.
 * @param {any} info
 * @returns {string[]}
 */
export function coordinatesOf(info) {
  const layout = batchedLayout(info);
  if (!layout) return [];
  const axes = axesOf(layout, info.inputs[0].name);
  if (axes.includes("C") || info.options.some((each) => each.name === "dim")) return ["logit"];
  const target = info.inputs.find((each) => each.name === "target");
  const isError = info.inputs[0].name === "input" && target && !wordsOf(target) && axes.length === 1;
  return isError ? ["error", "input"] : ["input"];
}

/** Return the template of an input that is not swept, or `""` where it may be left out. */
function fixedTemplate(info, input, layout, isLogit) {
  const own = TEMPLATES[`${info.name}.${input.name}`];
  if (own !== undefined) return own;
  if (!input.required) return "";
  const words = wordsOf(input);
  const rule = BY_RULE.find(([part]) => words.includes(part));
  const wide = isLogit && (axesOf(layout, input.name) ?? []).includes("C");
  if (rule) return (wide && rule[2]) || rule[1];
  return wide ? "0, 0, 0" : "0";
}

/**
 * Return the template of every input of a loss.
 * @param {any} info
 * @returns {Object<string, string>}
 */
export function defaultTemplates(info) {
  const layout = batchedLayout(info);
  const isLogit = coordinatesOf(info)[0] === "logit";
  const [swept, ...others] = info.inputs;
  const letters = axesOf(layout, swept.name).filter((axis) => !isBatch(axis));
  const row = isLogit ? "x, 0, 0" : letters.includes("D") ? "x, 0" : "x";
  const found = { [swept.name]: TEMPLATES[`${info.name}.${swept.name}`] ?? row };
  for (const each of others) found[each.name] = fixedTemplate(info, each, layout, isLogit);
  return found;
}

/**
 * Return the numbers of a template, or what is wrong with it in words.
 * @param {string} text
 * @returns {Template|string}
 */
export function parseTemplate(text) {
  const rows = text.split(";").map((row) => row.split(",").map((part) => part.trim()));
  if (rows.some((row) => row.length !== rows[0].length)) return "its rows have different lengths";
  const special = { x: "x", inf: Infinity, "-inf": -Infinity, nan: NaN };
  const read = (part) => special[part.toLowerCase()] ?? (part === "" ? undefined : Number(part));
  const numbers = rows.map((row) => row.map(read));
  for (const [i, row] of numbers.entries()) {
    const bad = row.findIndex(
      (n) => n === undefined || (Number.isNaN(n) && rows[i][row.indexOf(n)]?.toLowerCase() !== "nan"),
    );
    if (bad >= 0) return `"${rows[i][bad]}" is neither a number nor x`;
  }
  return { rows: numbers, rank: rows.length > 1 ? 2 : rows[0].length > 1 ? 1 : 0 };
}

/** Return the shape of an input: its template's, with the points along the batch axis. */
function shapeOf(axes, template, count, extra) {
  const sizes = template.rank === 2 ? [template.rows.length, template.rows[0].length] : [template.rows[0].length];
  const own = axes.filter((axis) => !isBatch(axis)).length + extra;
  if (template.rank > own || (template.rank === 0 ? own > 1 : template.rank !== own)) return null;
  const rest = own ? sizes.slice(-own) : [];
  if (!axes.some(isBatch)) return { shape: rest, batch: -1 };
  const batch = axes.findIndex(isBatch);
  return { shape: [...rest.slice(0, batch), count, ...rest.slice(batch)], batch };
}

/** Return a flat list as nested ones of a shape. */
function nest(flat, shape) {
  if (!shape.length) return flat[0];
  let level = flat;
  for (const size of shape.slice(1).reverse()) {
    level = Array.from({ length: level.length / size }, (_, i) => level.slice(i * size, (i + 1) * size));
  }
  return level;
}

/** Return a number as JSON can hold it. */
const jsonNumber = (n) => (Number.isFinite(n) ? n : Number.isNaN(n) ? "NaN" : n > 0 ? "Infinity" : "-Infinity");

/** Return where element `k` of the template lies for each point. */
function placeOf(shape, batch) {
  if (batch < 0) return (_, k) => k;
  const inner = shape.slice(batch + 1).reduce((a, b) => a * b, 1);
  const count = shape[batch];
  return (point, k) => (Math.floor(k / inner) * count + point) * inner + (k % inner);
}

/** Return the tensor of an input for all points, and where the coordinate lies in it. */
function tensorOf(input, template, placed, xs, shift) {
  const elements = template.rows.flat();
  const place = placeOf(placed.shape, placed.batch);
  const flat = new Array(placed.shape.reduce((a, b) => a * b, 1));
  for (let point = 0; point < (placed.batch < 0 ? 1 : xs.length); point += 1) {
    elements.forEach((n, k) => {
      flat[place(point, k)] = jsonNumber(n === "x" ? xs[point] + shift : n);
    });
  }
  const isInt =
    !input.data_types.includes(FLOAT) ||
    (input.data_types.includes(INT) && wordsOf(input).includes(INDICES) && template.rank === 0);
  const at = elements.indexOf("x");
  return {
    tensor: { data_type: isInt ? INT : FLOAT, values: nest(flat, placed.shape) },
    at: at < 0 ? null : (point) => place(point, at),
    count: flat.length,
    shape: placed.shape,
  };
}

/** Return the interval in which an input's values make sense, from the words of its record. */
function domainOf(input) {
  const found = /in \[(-?inf|-?[\d.]+), (-?inf|-?[\d.]+)\]/.exec(wordsOf(input));
  const read = (text) => Number(text.replace("inf", "Infinity"));
  return found ? [read(found[1]), read(found[2])] : [-Infinity, Infinity];
}

// Where the interesting part of a coordinate lies when nothing else is said.
const RANGES = { error: [-3, 3], input: [-6, 6], logit: [-6, 6] };

/**
 * Return the range of a coordinate that suits some losses: the usual one, cut to where their inputs make sense.
 * @param {any[]} infos
 * @param {string} coordinate
 * @returns {[number, number]}
 */
export function rangeFor(infos, coordinate) {
  const [low, high] = RANGES[coordinate];
  const domains = infos.map((info) => domainOf(info.inputs[0]));
  if (!domains.length) return [low, high];
  return [
    Math.max(low, Math.min(...domains.map(([from]) => from))),
    Math.min(high, Math.max(...domains.map(([, to]) => to))),
  ];
}

/** Return the templates of a curve that are sent, or the first problem. */
function templatesOf(info, curve) {
  const texts = { ...defaultTemplates(info), ...curve.fixed };
  const templates = {};
  for (const input of info.inputs) {
    const text = (texts[input.name] ?? "").trim();
    if (!text && !input.required) continue;
    const parsed = parseTemplate(text);
    if (typeof parsed === "string") return { problem: { input: input.name, text: parsed } };
    templates[input.name] = parsed;
  }
  const places = Object.entries(templates).flatMap(([name, each]) =>
    each.rows
      .flat()
      .filter((n) => n === "x")
      .map(() => name),
  );
  const name = places[0] ?? info.inputs[0].name;
  if (places.length !== 1) return { problem: { input: name, text: "x must stand in exactly one place of the inputs" } };
  return { templates, swept: info.inputs.find((each) => each.name === name) };
}

/** Return the first layout that the templates fit, with the shape of each input. */
function fit(info, templates, swept, count) {
  for (const layout of info.layouts) {
    // An axis `*S` takes what a template has beyond the other axes, so that activations work on rows, too.
    for (const extra of [0, 1]) {
      const placed = {};
      const fits = Object.entries(templates).every(([name, template]) => {
        const axes = axesOf(layout, name);
        const wide = axes?.some((axis) => axis.endsWith("*S")) ? extra : 0;
        placed[name] = axes && shapeOf(axes, template, count, wide);
        return placed[name];
      });
      if (fits && placed[swept.name].batch >= 0) return { layout, placed, extra };
    }
  }
  return null;
}

/** Return the shape of the values: one for each point, or one for each element where the loss is elementwise. */
function valuesOf(layout, swept, extra) {
  const perElement =
    layout.values.split(" ").some((axis) => axis && !isBatch(axis) && axis !== "*D") ||
    (extra && layout.values.includes("*S"));
  return perElement
    ? { shape: swept.shape, at: swept.at }
    : { shape: [swept.shape[swept.batch]], at: (point) => point };
}

/** Return the points of a coordinate that a curve is drawn over. */
function pointsOf(info, swept, xs) {
  const [low, high] = domainOf(swept);
  return xs.flatMap((x, i) => (x >= low && x <= high ? [i] : []));
}

/** Return the options that are sent: the curve's, and the required ones of the record. */
function optionsOf(info, curve) {
  const options = { ...curve.options };
  // Points are rows, so that the elements of one lie along the last axis.
  if (info.options.some((each) => each.name === "dim" && each.required)) options.dim ??= -1;
  return options;
}

/**
 * Return the request of a curve over some points and how its answer is read, or what is wrong in words.
 * @param {any} info the record of the loss
 * @param {Curve} curve
 * @param {number[]} xs ascending
 * @param {string} coordinate
 * @returns {{request: any, read: (answer: any) => Traced, derivativeOf: string|null} | {problem: {input: string, text: string}}}
 */
export function plan(info, curve, xs, coordinate) {
  const { templates, swept, problem } = templatesOf(info, curve);
  if (problem) return { problem };
  const indices = pointsOf(info, swept, xs);
  if (!indices.length)
    return { problem: { input: swept.name, text: `no point of this range is among its values: ${wordsOf(swept)}` } };
  const found = fit(info, templates, swept, indices.length);
  if (!found) return { problem: { input: swept.name, text: `these shapes fit no layout of ${info.name}` } };
  const points = indices.map((i) => xs[i]);
  const target = templates.target;
  const shift = coordinate === "error" && target?.rank === 0 && swept.name === "input" ? target.rows[0][0] : 0;
  const tensors = Object.fromEntries(
    info.inputs
      .filter((each) => templates[each.name])
      .map((each) => [each.name, tensorOf(each, templates[each.name], found.placed[each.name], points, shift)]),
  );
  const moved = { ...tensors[swept.name], batch: found.placed[swept.name].batch };
  const drawn = valuesOf(found.layout, moved, found.extra);
  const size = drawn.shape.reduce((a, b) => a * b, 1);
  const upstream = new Array(size).fill(0);
  points.forEach((_, point) => (upstream[drawn.at(point)] = 1));
  const differentiable =
    (swept.differentiable_in ?? []).includes(found.layout.name) && tensors[swept.name].tensor.data_type === FLOAT;
  const request = {
    loss: info.name,
    inputs: Object.fromEntries(Object.entries(tensors).map(([name, each]) => [name, each.tensor])),
    options: optionsOf(info, curve),
    reduction: "none",
    ...(differentiable
      ? { gradients_for: [swept.name], grad_output: { data_type: FLOAT, values: nest(upstream, drawn.shape) } }
      : {}),
  };
  const read = (answer) => ({
    values: spread(answer.loss, drawn.at, indices, xs.length),
    derivative: differentiable ? spread(answer.gradients[swept.name], moved.at, indices, xs.length) : null,
  });
  return { request, read, derivativeOf: differentiable ? swept.name : null };
}

/** Return the elements of a nested answer at all points; null where a curve has none. */
function spread(nested, at, indices, length) {
  const flat = [nested].flat(Infinity).map(Number);
  const found = new Array(length).fill(null);
  indices.forEach((i, point) => (found[i] = flat[at(point)]));
  return found;
}

/**
 * Return some 400 points of a range, with 0, 1 and the ends among them: on a grid that people write down, if the ends are.
 * @param {number} low
 * @param {number} high
 * @returns {number[]}
 */
export function pointsBetween(low, high) {
  const most = (high - low) / 300;
  const power = 10 ** Math.floor(Math.log10(most));
  const round = power * [5, 2.5, 2, 1].find((each) => each * power <= most);
  const isOnGrid = [low, high].every((end) => Math.abs(end / round - Math.round(end / round)) < 1e-9);
  const step = isOnGrid ? round : (high - low) / 400;
  const xs = Array.from({ length: Math.round((high - low) / step) }, (_, i) => low + i * step);
  // Rounding must not put a point beside a bound or a kink that it means to hit.
  const tidy = xs.map((x) => Number(x.toPrecision(12))).map((x) => (Math.abs(x) < step * 1e-6 ? 0 : x));
  return [...new Set([...tidy, high, ...[0, 1].filter((x) => x > low && x < high)])].sort((a, b) => a - b);
}

/**
 * @typedef {{kind: "kink"|"bend"|"saturated"|"flat"|"infinite"|"undefined", from: number, to: number}} Finding
 */

/** What each finding is called beside its place. */
export const WORDS = {
  kink: "kink",
  bend: "curvature jumps",
  saturated: "saturated",
  flat: "flat",
  infinite: "infinite",
  undefined: "NaN",
};

/** What each word means. */
export const MEANINGS = {
  kink: "the derivative jumps",
  bend: "the derivative has a corner: the formula changes there",
  saturated: "the derivative is below 2 % of its usual largest",
  flat: "the derivative is exactly 0: nothing is learnt there",
  infinite: "the value is infinite",
  undefined: "the value is not a number",
};

// A stretch shorter than this share of the range is a point that a minimum passes through.
const LEAST_STRETCH = 0.05;
const SATURATED = 0.02;
// A jump counts when it stands out from the steps beside it, which shrink with the distance of the points; a kink does not.
const STANDS_OUT = 8;
const BESIDE = 3;

/** Return the 95th percentile of magnitudes: a pole at an end must not hide everything else. */
function usualLargest(numbers) {
  const sizes = numbers
    .filter((n) => n !== null && Number.isFinite(n))
    .map(Math.abs)
    .sort((a, b) => a - b);
  return sizes[Math.floor(0.95 * (sizes.length - 1))] || sizes.at(-1) || 0;
}

/** Return where `f` with slopes `g` jumps in slope: stretches of neighbouring intervals, joined. */
function jumpsIn(g, least) {
  const steps = g.slice(1).map((n, i) => Math.abs(n - g[i]));
  const found = [];
  for (let i = BESIDE; i < steps.length - BESIDE; i += 1) {
    const beside = Math.max(steps[i - BESIDE], steps[i + BESIDE]);
    if (!(steps[i] > least && steps[i] > STANDS_OUT * beside)) continue;
    const last = found.at(-1);
    if (last && i - last[1] <= 2) last[1] = i + 1;
    else found.push([i, i + 1]);
  }
  return found;
}

/** Return where the line through point `a` meets the one through `b`, between them. */
function meeting(x, f, slope, a, b) {
  const at = (f[b] - slope[b] * x[b] - f[a] + slope[a] * x[a]) / (slope[a] - slope[b]);
  return Math.min(Math.max(Number.isFinite(at) ? at : (x[a] + x[b]) / 2, x[a]), x[b]);
}

/** Return the kinks and the jumps of curvature in a stretch of finite points. */
function corners(x, f, g, scale) {
  const kinks = jumpsIn(g, 0.02 * scale);
  const at = (kind, place) => ({ kind, from: place, to: place });
  const found = kinks.map(([a, b]) => at("kink", meeting(x, f, g, a, b)));
  const curvature = g.slice(1).map((n, i) => (n - g[i]) / (x[i + 1] - x[i]));
  const least = 0.2 * usualLargest(curvature);
  if (!(least > 1e-6 * scale)) return found;
  for (const [a, b] of jumpsIn(curvature, least)) {
    if (kinks.some(([from, to]) => a <= to + 2 && b >= from - 2)) continue;
    // The curvature of the outer intervals belongs to one piece each.
    const [left, right] = [Math.max(a, 0), Math.min(b + 1, g.length - 1)];
    const slopes = { [left]: curvature[Math.max(a - 1, 0)], [right]: curvature[Math.min(b + 1, curvature.length - 1)] };
    found.push(at("bend", meeting(x, g, slopes, left, right)));
  }
  return found;
}

/** Return the stretches in which a test holds at each point. */
function stretches(x, holds) {
  const found = [];
  x.forEach((_, i) => {
    if (!holds(i)) return;
    if (found.length && found.at(-1)[1] === i - 1) found.at(-1)[1] = i;
    else found.push([i, i]);
  });
  return found;
}

/**
 * Return what is remarkable about a curve, found from its numbers.
 * @param {number[]} xs
 * @param {Traced} traced
 * @returns {Finding[]} by place
 */
export function findings(xs, { values, derivative }) {
  const named = (kind, pairs) => pairs.map(([a, b]) => ({ kind, from: xs[a], to: xs[b] }));
  const found = [
    ...named(
      "infinite",
      stretches(xs, (i) => values[i] !== null && Math.abs(values[i]) === Infinity),
    ),
    ...named(
      "undefined",
      stretches(xs, (i) => Number.isNaN(values[i])),
    ),
  ];
  if (derivative) {
    const scale = usualLargest(derivative);
    const isFinite = (i) => Number.isFinite(values[i]) && Number.isFinite(derivative[i]) && values[i] !== null;
    for (const [a, b] of stretches(xs, isFinite)) {
      const cut = (list) => list.slice(a, b + 1);
      if (scale > 0) found.push(...corners(cut(xs), cut(values), cut(derivative), scale));
    }
    const least = LEAST_STRETCH * (xs.at(-1) - xs[0]);
    const long = (pairs) => pairs.filter(([a, b]) => xs[b] - xs[a] >= least);
    // Around a minimum the derivative is small, too, but changes its sign.
    const keepsSign = ([a, b]) => derivative[a] * derivative[b] > 0;
    const isLow = (i) => derivative[i] !== 0 && Math.abs(derivative[i]) <= SATURATED * scale;
    found.push(...named("flat", long(stretches(xs, (i) => isFinite(i) && derivative[i] === 0))));
    found.push(...named("saturated", long(stretches(xs, (i) => isFinite(i) && isLow(i))).filter(keepsSign)));
  }
  return snapped(found, xs).sort((a, b) => a.from - b.from);
}

/** Let stretches begin and end at the corner beside them, which is known better than to a point's distance. */
function snapped(found, xs) {
  const near = 1.5 * ((xs.at(-1) - xs[0]) / (xs.length - 1));
  const places = found.filter(({ from, to }) => from === to).map(({ from }) => from);
  const snap = (x) => places.find((place) => Math.abs(place - x) <= near) ?? x;
  return found.map((each) => (each.from === each.to ? each : { ...each, from: snap(each.from), to: snap(each.to) }));
}
