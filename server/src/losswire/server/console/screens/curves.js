/** Curves: up to six losses over one coordinate, the loss above and its derivative below. All numbers are the server's. */

import { post, useLosses } from "../lib/api.js";
import { hue } from "../lib/charts.js";
import {
  copy,
  cx,
  Failure,
  html,
  Segments,
  Select,
  Skeleton,
  toast,
  useEffect,
  useMemo,
  useRef,
  useState,
  useWidth,
} from "../lib/dom.js";
import { exportCsv, exportPicture } from "../lib/export.js";
import { fixed, short } from "../lib/numbers.js";
import { useQuery } from "../lib/state.js";
import { list } from "../lib/words.js";
import { Card, labelOf, writeFindings } from "./curve-card.js";
import { LazyTwin, LineKey, LinePlot } from "./plot.js";
import { COORDINATES, coordinatesOf, findings, plan, pointsBetween, rangeFor, STARTERS, WORDS } from "./sweep.js";

const MOST = 6;
const DEFAULTS = { on: null, losses: [], from: null, to: null, x: null };
const URL_REST_MS = 250;
const HEIGHTS = { loss: 280, derivative: 200 };

/** Read curves from the address: `huber_loss:delta=0.5:target=1`, each a text. */
function parseCurves(texts, byName) {
  return texts.slice(0, MOST).flatMap((text) => {
    const [loss, ...parts] = text.split(":");
    const info = byName.get(loss);
    if (!info) return [];
    const curve = { loss, options: {}, fixed: {} };
    for (const part of parts) {
      const [name, value] = part.split(/=(.*)/s);
      const option = info.options.find((each) => each.name === name);
      if (option)
        curve.options[name] =
          option.type === "bool" ? value === "true" : option.type === "string" ? value : Number(value);
      else if (info.inputs.some((each) => each.name === name)) curve.fixed[name] = value;
    }
    return [curve];
  });
}

const writeCurve = ({ loss, options, fixed: held }) =>
  [loss, ...Object.entries({ ...options, ...held }).map(([name, value]) => `${name}=${value}`)].join(":");

const kept = new Map();

/** Ask the server for one curve; the same question is asked once. */
async function trace(info, curve, xs, coordinate) {
  const key = JSON.stringify([curve, xs[0], xs.at(-1), coordinate]);
  if (kept.has(key)) return kept.get(key);
  const planned = plan(info, curve, xs, coordinate);
  if (planned.problem) return { problem: planned.problem };
  try {
    const traced = planned.read(await post("/v1/evaluate", planned.request));
    const found = { ...traced, findings: findings(xs, traced), derivativeOf: planned.derivativeOf };
    if (kept.size > 200) kept.clear();
    kept.set(key, found);
    return found;
  } catch (error) {
    return { error };
  }
}

/** Trace the newest curves, one round at a time: a slider that moves sees every answer that comes, and no queue grows. */
function useTraces(curves, xs, coordinate, byName) {
  const [shown, show] = useState(null);
  const running = useRef(false);
  const wanted = useRef(null);
  const run = async () => {
    if (running.current) return;
    running.current = true;
    while (wanted.current) {
      const now = wanted.current;
      wanted.current = null;
      const traces = await Promise.all(
        now.curves.map((curve) => trace(byName.get(curve.loss), curve, now.xs, now.coordinate)),
      );
      show({ ...now, traces });
    }
    running.current = false;
  };
  const key = JSON.stringify([curves, xs[0], xs.at(-1), coordinate]);
  useEffect(() => {
    if (!byName.size) return;
    wanted.current = { curves, xs, coordinate };
    run();
  }, [key, byName]);
  return [
    shown,
    () => {
      wanted.current = { curves, xs, coordinate };
      run();
    },
  ];
}

/** Keep the curves: what is being changed at once, the address once it rests. */
function useCurves(texts, set, byName, fallback) {
  const [draft, setDraft] = useState(null);
  const timer = useRef(0);
  const written = texts.join("~");
  useEffect(() => setDraft(null), [written]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const inAddress = useMemo(() => parseCurves(texts, byName), [written, byName]);
  const curves = draft ?? (inAddress.length ? inAddress : fallback);
  const change = (next, patch = {}, isChoice = false) => {
    setDraft(next);
    clearTimeout(timer.current);
    const write = () => set({ losses: next.map(writeCurve), ...patch }, isChoice);
    if (isChoice) write();
    else timer.current = setTimeout(write, URL_REST_MS);
  };
  return [curves, change];
}

/** Return a range of the vertical axis that a pole does not stretch, and whether something is cut. */
function verticalRange(lines, hasWords) {
  const all = lines
    .flatMap((each) => each.values)
    .filter((n) => Number.isFinite(n))
    .sort((a, b) => a - b);
  if (!all.length) return { range: [0, 1], cut: [] };
  const at = (share) => all[Math.round(share * (all.length - 1))];
  const spread = Math.max(at(0.95) - at(0.05), 1e-9);
  const high = Math.min(all.at(-1), at(0.97) + 3 * spread);
  const low = Math.max(all[0], at(0.03) - 3 * spread);
  const pad = (high - low || Math.abs(high) || 1) * 0.06;
  return {
    range: [low - pad, high + pad * (hasWords ? 3 : 1)],
    cut: [
      ...(low > all[0] ? [`below ${short(low, 3)}`] : []),
      ...(high < all.at(-1) ? [`above ${short(high, 3)}`] : []),
    ],
  };
}

/** Say what the curves show. */
function sentenceOf(labels, traces, xs) {
  const range = `from ${short(xs[0])} to ${short(xs.at(-1))}`;
  const told = traces
    .map((each, i) => [labels[i], (each.findings ?? []).filter(({ kind }) => kind !== "saturated")])
    .filter(([, found]) => found.length);
  const drawn = traces.flatMap((each, i) => (each.values ? [[i, each]] : []));
  if (!drawn.length) return "Nothing can be drawn yet: see what is marked.";
  const phrases = told.slice(0, 3).map(([label, found]) => `${label}: ${list(writeFindings(found))}`);
  if (!phrases.length) return `${drawn.length === 1 ? `${labels[drawn[0][0]]} is` : "All curves are"} smooth ${range}.`;
  const smooth = drawn
    .filter(([i, each]) => !each.findings.some(({ kind }) => kind !== "saturated") && labels[i])
    .map(([i]) => labels[i]);
  return `${phrases.join("; ")}.${smooth.length ? ` ${list(smooth)} ${smooth.length === 1 ? "is" : "are"} smooth ${range}.` : ""}`;
}

const DASHES = ["solid", "dashed", "dotted", "dash-dotted", "long dashes", "short dashes"];

const cell = (n) => (n === null || n === undefined ? "–" : short(n, 5));

/** The numbers under the cursor. */
function Readout({ labels, traces, xs, at }) {
  const here = (each) =>
    (each.findings ?? [])
      .filter(({ from, to }) => xs[at] >= from - 1e-9 && xs[at] <= to + 1e-9)
      .map(({ kind }) => WORDS[kind])
      .join(", ");
  return html`<div class="table-wrap" tabindex="0" role="region" aria-label="Values under the cursor"
    style=${{ position: "relative" }}><table><caption class="visually-hidden">Values at x = ${short(xs[at])}</caption>
    <thead><tr><th scope="col">at x = ${fixed(xs[at], 3)}</th><th class="num" scope="col">loss</th>
      <th class="num" scope="col">derivative</th><th scope="col" style=${{ paddingLeft: "24px" }}>here</th></tr></thead>
    <tbody>${traces.map(
      (each, i) => html`<tr key=${i}><td><span class="row" style=${{ flexWrap: "nowrap" }}>
      <${LineKey} index=${i} />${labels[i]}</span></td>
      <td class="num" title=${each.values?.[at]}>${cell(each.values?.[at])}</td>
        <td class="num" title=${each.derivative?.[at]}>${cell(each.derivative?.[at])}</td>
        <td class="small quiet" style=${{ paddingLeft: "24px" }}>${here(each)}</td></tr>`,
    )}</tbody></table></div>`;
}

/** Both charts, the cursor and the tables. */
function Pictures({ shown, byName, picked, at, setAt, onSettle }) {
  const { curves, xs, traces, coordinate } = shown;
  const root = useRef(null);
  const labels = curves.map((curve) => labelOf(curve, byName.get(curve.loss)));
  const lines = (name) => traces.map((each) => ({ values: each[name] ?? [] }));
  const [values, derivatives] = useMemo(() => [lines("values"), lines("derivative")], [shown]);
  const shades = useMemo(
    () =>
      traces
        .flatMap((each, i) =>
          picked === null || picked === i
            ? (each.findings ?? []).map(({ kind, ...place }) => ({ ...place, color: hue(i).color, word: WORDS[kind] }))
            : [],
        )
        .sort((a, b) => a.from - b.from),
    [shown, picked],
  );
  const [top, bottom] = useMemo(
    () => [verticalRange(values, shades.length > 0), verticalRange(derivatives, false)],
    [shown, shades.length > 0],
  );
  const sentence = sentenceOf(labels, traces, xs);
  const { axis } = COORDINATES[coordinate];
  const write = (n) => short(n, 3);
  const say = (index) =>
    `x = ${short(xs[index])}: ${traces.map((each, i) => `${labels[i]} ${cell(each.values?.[index])}, derivative ${cell(each.derivative?.[index])}`).join("; ")}`;
  const common = {
    xs,
    xRange: [xs[0], xs.at(-1)],
    formatX: write,
    formatY: write,
    cursor: at,
    onCursor: (i) => i !== null && setAt(i),
    say,
  };
  const cuts = [
    ["loss", top.cut],
    ["derivative", bottom.cut],
  ].flatMap(([what, cut]) => (cut.length ? [`${what} ${list(cut)}`] : []));
  const name = `curves-${coordinate}`;
  const head = ["x", ...labels, ...labels.map((label) => `derivative of ${label}`)];
  const rows = (show) =>
    xs.map((x, i) => [
      x,
      ...traces.map((each) => show(each.values?.[i])),
      ...traces.map((each) => show(each.derivative?.[i])),
    ]);
  return html`<div class="stack" ref=${root}>
    <h2 class="visually-hidden">What is drawn</h2>
    <p class="sentence">${sentence}</p>
    <figure class="figure"><header><h3>Loss</h3><div class="row">
      <button type="button" class="button small" onClick=${() => copy(location.href, "The link")}>Copy link</button>
      <button type="button" class="button small"
        onClick=${() => copy([head, ...rows((n) => n ?? "")].map((row) => row.join("\t")).join("\n"), "The table")}>Copy table</button>
      <button type="button" class="button small"
        onClick=${() =>
          exportCsv(
            head,
            rows((n) => n ?? ""),
            name,
          )}>CSV</button>
      <button type="button" class="button small"
        onClick=${() => exportPicture(root.current, labels.map((label, i) => `${label} (${DASHES[i]})`).join(", "), name)}>PNG</button>
        </div></header>
      <${LinePlot} ...${common} lines=${values} shades=${shades} height=${HEIGHTS.loss} yRange=${top.range}
        label="Loss over ${axis}. ${sentence}" /></figure>
    <figure class="figure"><header><h3>Derivative</h3><span class="small quiet">${axis}</span></header>
      <${LinePlot} ...${common} lines=${derivatives} shades=${shades.map((each) => ({ ...each, word: "" }))}
        height=${HEIGHTS.derivative} yRange=${bottom.range} label="Derivative over ${axis}." /></figure>
    <label class="row" style=${{ flexWrap: "nowrap" }}><b>x</b>
      <input type="range" class="grow" min="0" max=${xs.length - 1} step="1" value=${at} aria-valuetext=${say(at)}
        onInput=${(event) => setAt(Number(event.target.value))} onChange=${onSettle} /></label>
    ${cuts.length > 0 && html`<p class="hint">Outside of the picture: ${list(cuts)}. The tables have every value.</p>`}
    <${Readout} labels=${labels} traces=${traces} xs=${xs} at=${at} />
    <${LazyTwin} head=${head} rows=${() => rows(cell).map(([x, ...rest]) => [short(x, 4), ...rest])} />
  </div>`;
}

/** The range of the coordinate. */
function Range({ from, to, onChange }) {
  const [texts, setTexts] = useState([String(from), String(to)]);
  useEffect(() => setTexts([String(from), String(to)]), [from, to]);
  const [low, high] = texts.map(Number);
  const wrong = !(texts.every((each) => each.trim() !== "" && Number.isFinite(Number(each))) && low < high);
  const type = (i) => (event) => {
    const next = texts.map((each, k) => (k === i ? event.target.value : each));
    setTexts(next);
    const [a, b] = next.map(Number);
    if (next.every((each) => each.trim() !== "") && a < b && Number.isFinite(b - a)) onChange(a, b);
  };
  return html`<div class="field"><div class="row"><label class="row">x from <input class="input short num"
    inputmode="decimal" aria-invalid=${String(wrong)} value=${texts[0]} onInput=${type(0)} /></label>
    <label class="row">to <input class="input short num" inputmode="decimal" aria-invalid=${String(wrong)}
      value=${texts[1]} onInput=${type(1)} /></label></div>
    ${wrong && html`<p class="wrong">Two numbers, the smaller one first.</p>`}</div>`;
}

/** The screen. */
export default function Curves() {
  const { value: catalogue, error } = useLosses();
  const [query, set] = useQuery(DEFAULTS);
  const byName = useMemo(
    () => new Map((catalogue ?? []).filter((each) => coordinatesOf(each).length).map((each) => [each.name, each])),
    [catalogue],
  );
  const first = byName.get(query.losses[0]?.split(":")[0]);
  const coordinate = COORDINATES[query.on] ? query.on : ((first && coordinatesOf(first)[0]) ?? "error");
  const fallback = useMemo(
    () => STARTERS[coordinate].filter((name) => byName.has(name)).map((loss) => ({ loss, options: {}, fixed: {} })),
    [coordinate, byName],
  );
  const [curves, change] = useCurves(query.losses, set, byName, fallback);
  const standard = rangeFor(
    curves.map((each) => byName.get(each.loss)),
    coordinate,
  );
  const asked = [query.from ?? standard[0], query.to ?? standard[1]].map(Number);
  // An address that somebody typed may hold anything.
  const [from, to] = Number.isFinite(asked[1] - asked[0]) && asked[0] < asked[1] ? asked : standard;
  const xs = useMemo(() => pointsBetween(from, to), [from, to]);
  const [shown, again] = useTraces(curves, xs, coordinate, byName);
  const [picked, pick] = useState(null);
  const [box, width] = useWidth(1000);
  // Where there is one column, a slider must not move a picture that is out of sight below it.
  const isNarrow = width < 800;
  const [cursor, setCursor] = useState(null);
  useEffect(() => pick(null), [curves.length]);

  const nearest = (x) => xs.reduce((best, each, i) => (Math.abs(each - x) < Math.abs(xs[best] - x) ? i : best), 0);
  const at = Math.min(
    cursor ?? nearest(query.x === null ? Math.min(1, to) : Number(query.x)),
    (shown?.xs ?? xs).length - 1,
  );
  const replace = (i, curve) => change(curves.map((each, k) => (k === i ? curve : each)));
  const switchTo = (on) => {
    // What somebody chose stays where it fits; the first picture gives way to that of the other coordinate.
    const stay = query.losses.length ? curves.filter((each) => coordinatesOf(byName.get(each.loss)).includes(on)) : [];
    const next = stay.length
      ? stay
      : STARTERS[on].filter((name) => byName.has(name)).map((loss) => ({ loss, options: {}, fixed: {} }));
    setCursor(null);
    change(next, { on, from: null, to: null, x: null }, true);
  };
  const add = (loss) => change([...curves, { loss, options: {}, fixed: {} }], { on: coordinate }, true);
  const choices = [...byName.values()].filter((each) => coordinatesOf(each).includes(coordinate));
  const failed =
    shown?.traces.length && shown.traces.every((each) => each.error && !each.error.violations?.length)
      ? shown.traces[0].error
      : error;

  const form = html`<div class="stack" key="form">
    <div class="stack tight"><div><${Segments} label="Coordinate" value=${coordinate}
      options=${[
        ["error", "error"],
        ["input", "input"],
        ["logit", "logit of several"],
      ]} onChange=${switchTo} /></div>
      <p class="hint">x is ${COORDINATES[coordinate].title}</p></div>
    <${Range} from=${from} to=${to}
      onChange=${(a, b) => {
        setCursor(null);
        set({ from: String(a), to: String(b) });
      }} />
    ${
      catalogue
        ? curves.map(
            (curve, i) => html`<${Card} key=${`${i}${curve.loss}`} curve=${curve}
      info=${byName.get(curve.loss)} index=${i} traced=${shown?.curves[i]?.loss === curve.loss ? shown.traces[i] : null}
        isQuiet=${Boolean(failed)} isPicked=${picked === i} onPick=${() => pick(picked === i ? null : i)}
          onChange=${(next) => replace(i, next)}
        onRemove=${() =>
          curves.length > 1
            ? change(
                curves.filter((_, k) => k !== i),
                { on: coordinate },
                true,
              )
            : toast("One curve stays.")} />`,
          )
        : [0, 1, 2].map((i) => html`<${Skeleton} key=${i} height=${88} />`)
    }
    ${
      catalogue &&
      html`<${Select} aria-label="Add a loss" value="" disabled=${curves.length >= MOST}
      onChange=${(loss) => loss && add(loss)}
      options=${[["", curves.length >= MOST ? "Six at most" : "Add a loss…"], ...choices.map((each) => [each.name, each.name])]} />`
    }
  </div>`;
  const pictures = shown
    ? html`<div key="pictures" class=${cx(shown.xs !== xs && "quiet")}
    style=${isNarrow ? null : { position: "sticky", top: "64px" }}>
    <${Pictures} shown=${shown} byName=${byName} picked=${picked} at=${at} setAt=${setCursor}
    onSettle=${() => set({ x: String(xs[at]) })} /></div>`
    : html`<div key="pictures" class="stack"><${Skeleton} height=${20} /><${Skeleton} height=${HEIGHTS.loss + 32} />
          <${Skeleton} height=${HEIGHTS.derivative + 32} /></div>`;
  return html`<div class="screen">
    <header><h1>Curves</h1></header>
    ${failed && html`<${Failure} error=${failed} onRetry=${catalogue ? again : () => location.reload()} />`}
    <div class="two" ref=${box}>${isNarrow ? [pictures, form] : [form, pictures]}</div>
  </div>`;
}
