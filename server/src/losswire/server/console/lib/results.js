// What Evaluate and Compare show of many rows: linked drawings, filters, and what is taken along.
import { number } from "./api.js";
import { ECDF, Figure, Forest, Histogram } from "./charts.js";
import { html, Segments, toast, useEffect, useRef, useState } from "./dom.js";
import { anytimeInterval, ask, headline, start } from "./evaluation.js";
import { compact, count, percent, short, withInterval } from "./numbers.js";
import { list, plural } from "./words.js";

/** What is looked at, as the address has it; screens add their own. */
export const LOOK = { scale: "log", drawn: "bars", by: "", brush: "", pick: [], slices: [] };

/** Return the brush of the address: a range, or null. */
const rangeOf = (text) => (/^[^:]+:[^:]+$/.test(text) ? text.split(":").map(Number) : null);

/** Return the chosen slices of the address by column. */
function chosenOf(slices) {
  const found = {};
  for (const each of slices) {
    const [column, label = ""] = each.split(":").map(decodeURIComponent);
    found[column] = [...(found[column] ?? []), label];
  }
  return found;
}

const keyOf = (column, label) => `${encodeURIComponent(column)}:${encodeURIComponent(label)}`;

/**
 * Return what to ask the worker for.
 * @param {typeof LOOK} state
 * @param {number | [number, number]} source
 * @returns {import("./worker.js").Look}
 */
export const lookOf = (state, source) => ({
  source,
  scale: state.scale,
  brush: rangeOf(state.brush),
  slices: chosenOf(state.slices),
  rows: state.pick.map(Number),
  top: 20,
});

/** Whether a look leaves rows out. @param {import("./worker.js").Look} look @returns {boolean} */
export const filters = (look) => Boolean(look.brush || look.rows.length || Object.keys(look.slices).length);

/**
 * Ask the worker for a view whenever the look or the data changes: one question at a time, the latest one
 * next.
 * @param {import("./worker.js").Look | null} look
 * @param {any} version
 * @returns {any}
 */
export function useView(look, version) {
  const [found, set] = useState(null);
  const state = useRef({ busy: false, next: null, last: "" });
  const key = JSON.stringify([look, version]);
  useEffect(() => {
    const work = state.current;
    const run = async () => {
      work.busy = true;
      while (work.next) {
        const wanted = work.next;
        work.next = null;
        const view = await ask("view", wanted).catch(() => null);
        if (view) set({ ...view, look: wanted });
      }
      work.busy = false;
    };
    work.next = look;
    if (look && !work.busy) run();
  }, [key]);
  return found;
}

/**
 * Return the state with a brush that follows the pointer, and its `set`. The address is written when
 * the brush rests: browsers refuse more than some 200 entries in ten seconds.
 * @template T @param {T} state @param {(patch: any, push?: boolean) => void} set @returns {[T, (patch: any, push?: boolean) => void]}
 */
export function useLive(state, set) {
  const [brush, setBrush] = useState(null);
  const timer = useRef(0);
  const put = (patch, push) => {
    clearTimeout(timer.current);
    const write = () => {
      set(patch, push);
      setBrush(null);
    };
    if (patch.brush === undefined || push) return write();
    setBrush(patch.brush);
    timer.current = setTimeout(write, 250);
    return undefined;
  };
  useEffect(() => () => clearTimeout(timer.current), []);
  return [brush === null ? state : { ...state, brush }, put];
}

const bars = (name, edges, weights) => ({
  name,
  low: Array.from(edges.slice(0, -1)),
  high: Array.from(edges.slice(1)),
  weight: Array.from(weights),
});

/**
 * The filters that are set, each with a button that takes it away.
 * @param {{look: any, view: any, state: any, set: (patch: any, push?: boolean) => void, noun?: string}}
 *   props
 */
export function Filters({ look, view, state, set, noun = "mean" }) {
  if (!filters(look)) return null;
  const { count: rows, mean, error } = view?.total ?? { count: 0, mean: NaN, error: NaN };
  const chip = (text, patch) =>
    html`<button type="button" class="button small" key=${text} onClick=${() => set(patch, true)}
      aria-label="Take away the filter ${text}">${text} ✕</button>`;
  return html`<div class="note stack tight" data-filters>
    <p><b>${plural(rows, "row")}</b> pass${rows === 1 ? "es" : ""}${rows > 1 && html`: ${noun} <b>
      ${withInterval(mean, mean - 1.96 * error, mean + 1.96 * error)}
      </b>`}. <span class="quiet">From the rows kept in this page, not from the server's summary.</span></p>
    <div class="row">
      ${look.brush && chip(`${noun === "mean" ? "loss" : "difference"} ${short(look.brush[0], 3)} to ${short(look.brush[1], 3)}`, { brush: "" })}
      ${state.slices.map((each) => chip(each.split(":").map(decodeURIComponent).join(" = "), { slices: state.slices.filter((other) => other !== each) }))}
      ${look.rows.length > 0 && chip(`${plural(look.rows.length, "row")} picked`, { pick: [] })}
      <button type="button" class="button small plain"
        onClick=${() => set({ brush: "", slices: [], pick: [] }, true)}>Show all rows</button>
    </div></div>`;
}

/** Return the value that a share of the weight does not exceed. */
function quantileOf({ high, weight }, share) {
  const wanted = share * weight.reduce((sum, each) => sum + each, 0);
  let below = 0;
  return high[weight.findIndex((each) => (below += each) >= wanted)] ?? NaN;
}

/**
 * Return series whose outermost 0.5 % is moved to the edge: a few rows far out would press all others
 * together.
 */
function trimmed(series, scale) {
  const every = series.flatMap(({ low, high }) => [...low, ...high]).filter(Number.isFinite);
  const [least, most] = [
    every.reduce((one, other) => Math.min(one, other), Infinity),
    every.reduce((one, other) => Math.max(one, other), -Infinity),
  ];
  const [from, to] = [
    Math.min(...series.map((each) => quantileOf(each, 0.005))),
    Math.max(...series.map((each) => quantileOf(each, 0.995))),
  ];
  // Both sides of zero get the same room, so that a difference in one direction is seen.
  const reach = Math.max(-from, to);
  const wanted = from < 0 && to > 0 ? [-reach, reach] : [from, to];
  const ends =
    scale === "log" || !(wanted[1] > wanted[0])
      ? [least, most]
      : [
          wanted[0] > least + 0.2 * (wanted[1] - wanted[0]) || wanted[0] < least ? wanted[0] : least,
          wanted[1] < most - 0.2 * (wanted[1] - wanted[0]) || wanted[1] > most ? wanted[1] : most,
        ];
  // The outermost bars stand for these, too.
  const { low, high, weight } = series[0];
  const [total, beyond] = weight.reduce(
    ([all, out], each, at) => [all + each, out + (high[at] <= ends[0] || low[at] >= ends[1] ? each : 0)],
    [0, 0],
  );
  const within = (values) => values.map((value) => Math.min(ends[1], Math.max(ends[0], value)));
  return { ends, beyond: beyond / total, all: series.map((each) => ({ ...each, low: within(each.low), high: within(each.high) })) };
}

/**
 * The distribution of losses or differences, with a brush.
 * @param {{title: string, sentence: string, series: any[], view: any, look: any, state: any, set: any,
 *   marks?: any[], xLabel: string, scaleKey?: string}} props `series`: those of the server; without `look`
 *   there is no brush
 */
export function Distribution({
  title,
  sentence,
  series,
  view,
  look,
  state,
  set,
  marks = [],
  xLabel,
  scaleKey = "scale",
}) {
  // The bars show what the other filters let pass: the brush itself is drawn over them.
  const shown =
    view && filters({ ...look, brush: null }) ? [bars("rows that pass", view.edges, view.passing)] : [];
  const { all, ends, beyond } = trimmed([...series, ...shown], state[scaleKey]);
  const edge =
    beyond > 0 && state.drawn !== "ecdf" ? ` The bars at the ends hold the ${percent(beyond)} of rows beyond.` : "";
  const Drawing = state.drawn === "ecdf" ? ECDF : Histogram;
  // A brush that touches an end has what is beyond it too.
  const brushed = (range) =>
    set({
      brush: range
        ? range
            .map((each, at) =>
              at
                ? each < ends[1]
                  ? Number(each.toPrecision(6))
                  : Infinity
                : each > ends[0]
                  ? Number(each.toPrecision(6))
                  : -Infinity,
            )
            .join(":")
        : "",
    });
  const brush = look?.brush && [Math.max(ends[0], look.brush[0]), Math.min(ends[1], look.brush[1])];
  return html`<${Drawing} title=${title} sentence=${sentence + edge} series=${all} share=${series.length > 1}
    scale=${state[scaleKey]} height=${240}
    brush=${brush && brush[1] > brush[0] ? brush : null} onBrush=${look && brushed} marks=${marks} xLabel=${xLabel}
    actions=${[
      html`<${Segments} key="scale" small label="Scale of the axis" value=${state[scaleKey]}
        options=${["log", "linear"]} onChange=${(scale) => set({ [scaleKey]: scale })} />`,
      html`<${Segments} key="drawn" small label="Drawing" value=${state.drawn} options=${[
        ["bars", "bars"],
        ["ecdf", "ECDF"],
      ]} onChange=${(drawn) => set({ drawn })} />`,
    ]} />`;
}

/** Return a difference from all rows in words. */
function liftWords(each, mean, small) {
  const lift = number(each.lift);
  const part =
    Math.abs(mean) > 0 && Number.isFinite(lift)
      ? `${lift > 0 ? "+" : ""}${percent(lift / Math.abs(mean))} `
      : "";
  if (small) return { note: `${part}few rows`, tone: "" };
  if (!(number(each.p_adjusted) < 0.05)) return { note: "no difference seen", tone: "" };
  return lift > 0
    ? { note: `${part}clearly worse`, tone: "bad" }
    : { note: `${part}clearly better`, tone: "good" };
}

const nowrap = ({ note, tone }) => ({ note: html`<span class="nowrap">${note}</span>`, tone });

/**
 * Return the rows of a forest plot from the server's slices, the largest first.
 * @param {any[]} slices
 * @param {number} mean of all rows
 */
export const liftRows = (slices, mean) =>
  slices
    .map((each) => ({
      key: each.label,
      name: each.label ?? "all others",
      mean: number(each.finite_mean ?? each.mean),
      low: number(each.interval[0]),
      high: number(each.interval[1]),
      n: each.count,
      lift: number(each.lift),
      ...nowrap(liftWords(each, mean, each.small)),
    }))
    .sort((one, other) => Number.isNaN(one.lift) - Number.isNaN(other.lift) || other.lift - one.lift);

const FEW = 12;

/**
 * Means by slice with their intervals; choosing one filters everything else.
 * @param {{title: string, sentence: string, tables: Record<string, any[]>, view: any, look: any, state: any,
 *   set: any, reference: number, referenceLabel: string, noteHead: string, telling?: string}} props `tables`:
 *   rows of a forest plot by column; `telling`: the column that is shown until another is chosen
 */
export function Slices({
  title,
  sentence,
  tables,
  view,
  look,
  state,
  set,
  reference,
  referenceLabel,
  noteHead,
  telling,
}) {
  const [more, setMore] = useState(false);
  const names = Object.keys(tables);
  if (!names.length)
    return html`<${Figure} title=${title}
      sentence="No columns of slices were chosen: change the columns to see where the loss is high." />`;
  const by = names.includes(state.by) ? state.by : (telling ?? names[0]);
  const others =
    look && (look.brush || look.rows.length || Object.keys(look.slices).some((each) => each !== by));
  // Under other filters, slices are those of the rows that pass; alone they are the server's.
  const passing = others && view ? new Map(view.slices[by]?.map((each) => [each.label, each])) : null;
  const rows = tables[by]
    .map((each) => {
      const own = passing?.get(each.key);
      return own
        ? {
            ...each,
            n: own.count,
            mean: own.mean,
            low: own.mean - 1.96 * own.error,
            high: own.mean + 1.96 * own.error,
            note: own.count < 30 ? "few rows" : "",
            tone: "",
            index: undefined,
          }
        : each;
    })
    .filter((each) => !passing || each.n > 0);
  const chosen = look?.slices[by] ?? [];
  const pick = (label) => {
    const key = keyOf(by, label);
    const rest = state.slices.filter((each) => each !== key);
    set({ slices: rest.length < state.slices.length ? rest : [...rest, key] }, true);
  };
  const few = more || rows.length <= FEW ? rows : [...rows.slice(0, FEW - 4), ...rows.slice(-4)];
  return html`<div class="stack tight"><${Forest} title=${title}
    sentence=${passing ? "Means of the rows that pass the other filters." : sentence} nameHead=${by} rows=${few}
    reference=${reference} referenceLabel=${referenceLabel} noteHead=${noteHead}
      onPick=${look && pick} picked=${chosen[chosen.length - 1]}
      actions=${names.length > 1 && html`<${Segments} small label="Slices by" value=${by} options=${names}
        onChange=${(name) => set({ by: name })} />`} />
    ${rows.length > FEW && html`<button type="button" class="button small"
      onClick=${() => setMore(!more)} data-no-export>${more ? "Fewer" : `All ${count(rows.length)} slices`}
      </button>`}</div>`;
}

/** What may be said of an evaluation that was stopped. @param {{session: any, summary: any}} props */
export function Stopped({ session, summary }) {
  const figures = headline(summary);
  const [low, high] = anytimeInterval(figures, session.data.rows);
  const what = summary.differences ? `the difference ${figures.first} minus ${figures.second}` : "the mean";
  return html`<div class="note warning"><p>
    <b>Stopped after ${count(session.done)} of ${plural(session.data.rows, "row")}.</b> The pieces came
    in drawn order, so that they are like the rest. Whoever watches and stops when it looks good needs a
    wider interval: ${what} is ${withInterval(figures.mean, low, high)} however often one looked.</p>
    <p class="row"><button type="button" class="button small" onClick=${() => start()}>Evaluate all rows</button>
      </p></div>`;
}

/**
 * The buttons that take a result along.
 * @param {{element: () => HTMLElement, title: string, name: string, value: any, table: () => {head:
 *   string[], rows: any[][]}, rows?: () => Promise<void>}} props
 */
export function Exports({ element, title, name, value, table, rows }) {
  const [busy, setBusy] = useState(false);
  const doing = (work) => async () => {
    setBusy(true);
    try {
      // Loaded when it is first asked for.
      await work(await import("./export.js"));
    } catch (error) {
      toast(error.message);
    }
    setBusy(false);
  };
  const kinds = [
    ["HTML page", ({ exportPage }) => exportPage(element(), title, name)],
    ["PNG", ({ exportPicture }) => exportPicture(element(), title, name)],
    ["JSON", ({ exportJson }) => exportJson(value, name)],
    ["CSV of slices", ({ exportCsv }) => exportCsv(table().head, table().rows, `${name}-slices`)],
    ...(rows ? [["CSV of rows", rows]] : []),
  ];
  return html`<div class="row" role="group" aria-label="Take it along" data-no-export>
    <span class="quiet small">Take it along:</span>
    ${kinds.map(([text, work]) => html`<button type="button" class="button small" key=${text} disabled=${busy}
      onClick=${doing(work)}>${text}</button>`)}</div>`;
}

/** Buttons and tables of two columns side by side; one below the other where there is no room. */
export const WIDE = { gridTemplateColumns: "repeat(auto-fit, minmax(min(100%, 440px), 1fr))" };

/**
 * Say which slices stand out.
 * @param {any[]} rows of a forest plot
 * @param {string} column
 * @param {string} tone
 * @param {string} word
 */
export function standing(rows, column, tone, word) {
  const found = rows.filter((each) => each.tone === tone);
  if (!found.length) return "";
  const named = found.slice(0, 3).map((each) => `${column} = ${each.name}`);
  return `${list(named)} ${found.length > 1 ? "are" : "is"} clearly ${word}${found.length > 3 ? `, and ${plural(found.length - 3, "other slice")}` : ""}.`;
}

/** Write a short count of rows a second. @param {number} rows @param {number} seconds */
export const rate = (rows, seconds) => `${compact(rows / Math.max(seconds, 1e-3))} rows/s`;
