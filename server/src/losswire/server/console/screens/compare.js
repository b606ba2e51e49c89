/**
 * Compare: two candidates of one file, or two runs. The verdict first, then where, by how much, and in which
 * rows.
 */
import { get, number, server, useLosses } from "../lib/api.js";
import { Forest, Sparkline, StackedBar } from "../lib/charts.js";
import {
  announce,
  Empty,
  Failure,
  Field,
  html,
  Select,
  Skeleton,
  useAsync,
  useEffect,
  useRef,
} from "../lib/dom.js";
import { openSample, start, useSession } from "../lib/evaluation.js";
import { count, exact, percent, pValue, short, when, withInterval } from "../lib/numbers.js";
import { Distribution, Exports, Filters, filters, LOOK, lookOf, Slices } from "../lib/results.js";
import { Stopped, useLive, useView, WIDE } from "../lib/results.js";
import { Rows, useFacts } from "../lib/rows.js";
import { href, useQuery } from "../lib/state.js";
import { list, plural } from "../lib/words.js";

const DEFAULTS = { ...LOOK, scale: "linear", losses: "log", a: "", b: "", from: "", data: "" };
const LEVEL = 0.05;
const TEACHING = "Two models over the same rows, in one pass: which is better, by how much, and where not.";
const FEW_ROWS = " Too few rows for the normal law: the interval is narrower than it should be.";

/**
 * One side of a comparison: a candidate of the evaluation of this page, or of a run.
 * @typedef {{key: string, name: string, page: boolean, run: string, candidate: string, loss: string, label: string,
 *   labels?: Record<string, string>, saved?: string}} Side
 */

const sideKey = (...parts) => parts.map(encodeURIComponent).join(":");

/** Write the first labels of a run: names alone do not tell the runs of a pipeline apart. */
const labelled = ({ labels }) =>
  Object.entries(labels ?? {})
    .slice(0, 2)
    .map(([key, value]) => `${key} ${value}`);

/** Return every side that can be chosen. */
function sidesOf(session, runs) {
  const own = session.result
    ? session.names.map((name) => ({
        key: sideKey("page", name),
        name,
        page: true,
        run: "",
        candidate: name,
        loss: session.form.loss,
        label: `${session.data.name}, this page: ${name}`,
      }))
    : [];
  const kept = runs.flatMap((run) =>
    run.figures.map(({ candidate }) => ({
      key: candidate ? sideKey(run.run_id, candidate) : encodeURIComponent(run.run_id),
      name: candidate || run.name || run.run_id,
      page: false,
      run: run.run_id,
      candidate,
      loss: run.loss,
      labels: run.labels,
      saved: run.saved,
      label: `${run.name || run.run_id}${candidate ? `: ${candidate}` : ""} (${[run.loss, ...labelled(run), when(run.saved)].join(", ")})`,
    })),
  );
  return [...own, ...kept];
}

/** Return the last runs, and those that the address names, however old; none of a server that keeps none. */
async function loadRuns(keys, signal) {
  const named = keys
    .filter((key) => key && !key.startsWith("page:"))
    .map((key) => decodeURIComponent(key.split(":")[0]));
  if (!named.length && !(await server()).runs) return [];
  const { runs } = await get("/v1/runs", { query: { page_size: 100 }, signal });
  const missing = [...new Set(named)].filter((id) => !runs.some((each) => each.run_id === id));
  return [
    ...runs,
    ...(await Promise.all(missing.map((id) => get(`/v1/runs/${encodeURIComponent(id)}`, { signal })))),
  ];
}

/** Return the sides that the address names; without names, the first two of this page's evaluation. */
function chosenSides(sides, state) {
  const find = (key) =>
    sides.find((each) => each.key === key) ??
    sides.find((each) => key && encodeURIComponent(each.run) === key);
  const own = sides.filter((each) => each.page);
  const a = find(state.a) ?? own[0];
  const partner = (each) => a && each !== a && each.page === a.page && each.run === a.run;
  return toldApart(a, find(state.b) ?? sides.find(partner));
}

/** Return both sides with names that differ: by a label of theirs, or by when they were saved. */
function toldApart(a, b) {
  if (!a || !b || a.name !== b.name) return { a, b };
  const label = Object.keys({ ...a.labels, ...b.labels }).find((key) => a.labels?.[key] !== b.labels?.[key]);
  const more = (side) =>
    side.page ? "this page" : label ? `${label} ${side.labels?.[label] ?? "none"}` : when(side.saved);
  const [first, second] = [more(a), more(b)];
  return {
    a: { ...a, name: `${a.name}, ${first}` },
    b: { ...b, name: `${b.name}, ${first === second ? b.run.slice(0, 8) : second}` },
  };
}

export default function Compare() {
  const [state, set] = useLive(...useQuery(DEFAULTS));
  const session = useSession();
  const { value: losses } = useLosses();
  const runs = useAsync((signal) => loadRuns([state.a, state.b], signal), [state.a, state.b]);
  const sides = sidesOf(session, runs.value ?? []);
  const { a, b } = chosenSides(sides, state);
  const example = async () => {
    set({ a: "", b: "", brush: "", slices: [], pick: [] });
    await openSample(losses);
    start();
  };
  const tried = useRef(false);
  useEffect(() => {
    // A link to the example, opened in a new page.
    if (!losses || tried.current || session.data || state.data !== "digits") return;
    tried.current = true;
    example();
  }, [losses]);
  if (runs.busy && !runs.value && !session.result)
    return html`<div class="screen"><header><h1>Compare</h1></header><${Skeleton} height=${240} /></div>`;
  const choose = (key) => (value) => set({ [key]: value, brush: "", slices: [], pick: [], by: "" }, true);
  // A server without a store has no runs, which is no mistake unless one is asked for.
  const failed = runs.error && [state.a, state.b].some((key) => key && !key.startsWith("page:"));
  if (failed)
    return html`<div class="screen"><header><h1>Compare</h1></header>
      <${Failure} error=${runs.error} onRetry=${runs.again} /></div>`;
  const swap = () => set({ a: b.key, b: a.key, brush: "", slices: [] }, true);
  const busy = session.status === "running" || session.status === "reading";
  return html`<div class="screen"><header><h1>Compare</h1>
      ${a && b && html`<button type="button" class="button" onClick=${swap}>Swap</button>`}</header>
    ${sides.length > 1 && html`<div class="grid" data-no-export>
      <${SideField} label="a" side=${a} other=${b} sides=${sides} onChange=${choose("a")} />
      <${SideField} label="b" side=${b} other=${a} sides=${sides} onChange=${choose("b")} /></div>`}
    ${
      a && b
        ? html`<${Loaded} a=${a} b=${b} session=${session} state=${state} set=${set} />`
        : html`<${Nothing} alone=${a ?? b} onExample=${losses && example} busy=${busy} />`
    }
  </div>`;
}

const SideField = ({ label, side, other, sides, onChange }) => {
  const options = sides.filter(({ key }) => key !== other?.key).map((each) => [each.key, each.label]);
  return html`<${Field} label=${label}>${(own) => html`<${Select} ...${own} value=${side?.key ?? ""}
    options=${side ? options : [["", "choose"], ...options]} onChange=${onChange} />`}</${Field}>`;
};

const Nothing = ({ alone, onExample, busy }) =>
  busy
    ? html`<${Skeleton} height=${320} label="Evaluating" />`
    : html`<${Empty} action="Try with digits" onAction=${onExample}>
  ${alone ? `There is one candidate so far, ${alone.name}.` : TEACHING}${" "}
  Choose two columns of predictions on <a href="#/evaluate">Evaluate</a>, or two runs.</${Empty}>`;

/** Load what the sides are made of. */
function Loaded({ a, b, session, state, set }) {
  const load = async (side, signal) =>
    side.page ? null : (await get(`/v1/runs/${encodeURIComponent(side.run)}`, { signal })).summary;
  const { value, error, busy, again } = useAsync(
    async (signal) => {
      const first = await load(a, signal);
      return { for: `${a.key} ${b.key}`, first, second: b.run === a.run ? first : await load(b, signal) };
    },
    [a.key, b.key],
  );
  if (error) return html`<${Failure} error=${error} onRetry=${again} />`;
  if (!value || value.for !== `${a.key} ${b.key}`) return busy ? html`<${Skeleton} height=${320} />` : null;
  const summaryOf = (side, kept) => (side.page ? session.result.summary : kept);
  const first = { ...a, summary: summaryOf(a, value.first) };
  const second = { ...b, summary: summaryOf(b, value.second) };
  if (first.summary.loss !== second.summary.loss)
    return html`<p class="note warning">
      ${first.name} has losses of ${first.summary.loss}, ${second.name} of ${second.summary.loss}: their difference means nothing. Choose two of one loss.</p>`;
  return html`<${Result} first=${first} second=${second} session=${session} state=${state} set=${set} />`;
}

const figuresOf = ({ summary, candidate }) => (summary.differences ? summary.candidates[candidate] : summary);

/** Return the mirror image of buckets. */
const mirrored = ({ low, high, weight }) => ({
  low: high.map((each) => -each).reverse(),
  high: low.map((each) => -each).reverse(),
  weight: [...weight].reverse(),
});

/** Return figures of a difference with numbers, turned where the sides are. */
function plain(each, turned) {
  const sign = turned ? -1 : 1;
  const [low, high] = each.interval.map(number);
  return {
    count: each.count,
    mean: sign * number(each.mean),
    error: number(each.standard_error),
    low: turned ? -high : low,
    high: turned ? -low : high,
    p: number(each.p_value),
    small: each.small,
    wins: turned ? each.losses : each.wins,
    ties: each.ties,
    losses: turned ? each.wins : each.losses,
  };
}

/** Return the difference that the server made of the same rows in one pass, or null. */
function paired(first, second) {
  if (first.page !== second.page || first.run !== second.run) return null;
  const found = first.summary.differences?.find(
    (each) =>
      [each.first, each.second].includes(first.candidate) &&
      [each.first, each.second].includes(second.candidate),
  );
  if (!found) return null;
  const turned = found.first !== first.candidate;
  return {
    ...plain(found, turned),
    paired: true,
    clustered: found.clustered,
    histogram: turned ? mirrored(found.histogram) : found.histogram,
    tables: Object.fromEntries(
      Object.entries(found.slices).map(([name, rows]) => [
        name,
        rows.map((each) => ({
          label: each.label,
          adjusted: number(each.p_adjusted),
          ...plain(each, turned),
        })),
      ]),
    ),
    rows: found.most_different,
  };
}

/** The probability of a normal variable farther from 0 than this (Abramowitz and Stegun 7.1.26). */
function twoSided(z) {
  const x = Math.abs(z) / Math.SQRT2;
  const t = 1 / (1 + 0.3275911 * x);
  return (
    t *
    (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))) *
    Math.exp(-x * x)
  );
}

/** Return the difference of two means of which only each one's own error is known. */
function unpairedOf(one, other) {
  const mean = number(one.mean) - number(other.mean);
  const error = Math.hypot(number(one.standard_error), number(other.standard_error));
  return {
    count: Math.min(one.count, other.count),
    mean,
    error,
    low: mean - 1.959964 * error,
    high: mean + 1.959964 * error,
    p: twoSided(mean / error),
    small: one.small || other.small,
  };
}

/** Correct p values for their number (Holm 1979). */
function holm(values) {
  const order = values
    .map((_, at) => at)
    .filter((at) => Number.isFinite(values[at]))
    .sort((one, two) => values[one] - values[two]);
  const found = values.map(() => NaN);
  let least = 0;
  order.forEach((at, rank) => {
    least = Math.max(least, Math.min(1, values[at] * (order.length - rank)));
    found[at] = least;
  });
  return found;
}

function unpaired(first, second) {
  const [one, other] = [figuresOf(first), figuresOf(second)];
  const tables = {};
  for (const [name, rows] of Object.entries(one.slices ?? {})) {
    const partners = new Map((other.slices?.[name] ?? []).map((each) => [each.label, each]));
    const found = rows
      .filter((each) => partners.has(each.label))
      .map((each) => ({ label: each.label, ...unpairedOf(each, partners.get(each.label)) }));
    const adjusted = holm(found.map((each) => each.p));
    if (found.length) tables[name] = found.map((each, at) => ({ ...each, adjusted: adjusted[at] }));
  }
  return { ...unpairedOf(one, other), paired: false, clustered: one.clustered || other.clustered, tables };
}

/** Say which is better: "" where no difference is seen. */
const better = ({ low, high }, first, second) => (high < 0 ? first.name : low > 0 ? second.name : "");

/** The verdict in a sentence. */
function verdict(of, first, second, exceptions) {
  if (!Number.isFinite(of.low))
    return `${first.name} and ${second.name} cannot be compared: how far they differ is not known.`;
  const winner = better(of, first, second);
  const others = list(exceptions);
  if (!winner) {
    const interval = withInterval(of.mean, of.low, of.high);
    const but = others && `; but ${others}`;
    return `No difference seen between ${first.name} and ${second.name}: ${interval}${but}.`;
  }
  const loser = winner === first.name ? second.name : first.name;
  const [low, high] = [Math.abs(of.low), Math.abs(of.high)].sort((one, two) => one - two);
  const by = withInterval(Math.abs(of.mean), low, high);
  return `${winner} is better than ${loser} by ${by}${others && `; ${others}`}.`;
}

/** Return the rows of the forest plot, the ones where a is worst first. */
function forestRows(rows, first, second) {
  return rows
    .map((each) => {
      const clear = each.adjusted < LEVEL && !each.small;
      const winner = clear ? better(each, first, second) : "";
      return {
        key: each.label,
        name: each.label ?? "all others",
        mean: each.mean,
        low: each.low,
        high: each.high,
        n: each.count,
        winner,
        note: each.small ? "few rows" : winner ? `${winner} better` : "no difference seen",
        index: winner ? (winner === first.name ? 0 : 1) : undefined,
      };
    })
    .sort((one, two) => Number.isNaN(one.mean) - Number.isNaN(two.mean) || two.mean - one.mean);
}

function Result({ first, second, session, state, set }) {
  const of = paired(first, second) ?? unpaired(first, second);
  const tables = Object.fromEntries(
    Object.entries(of.tables).map(([name, rows]) => [name, forestRows(rows, first, second)]),
  );
  const winner = better(of, first, second);
  // Where the other one is better; where neither is, every slice in which one is.
  const exceptions = Object.entries(tables)
    .flatMap(([name, rows]) =>
      rows
        .filter((each) => each.winner && each.winner !== winner)
        .map((each) =>
          winner ? `worse in ${name} = ${each.name}` : `${each.winner} is better in ${name} = ${each.name}`,
        ),
    )
    .slice(0, 4);
  const sentence = verdict(of, first, second, exceptions);
  const element = useRef(null);
  const linked = of.paired && first.page;
  const source = [session.names.indexOf(first.candidate), session.names.indexOf(second.candidate)];
  const look = linked ? lookOf(state, source) : null;
  const view = useView(look, `${session.turn} ${session.done}`);
  useEffect(() => announce(sentence), [sentence]);
  const title = `${first.name} and ${second.name}, ${first.summary.loss}`;
  const table = () => ({
    head: ["column", "slice", "rows", `${first.name} minus ${second.name}`, "low", "high", "p_adjusted"],
    rows: [
      ["", "all rows", of.count, of.mean, of.low, of.high, of.p],
      ...Object.entries(of.tables).flatMap(([name, rows]) =>
        rows.map((each) => [name, each.label, each.count, each.mean, each.low, each.high, each.adjusted]),
      ),
    ],
  });
  const minus = `${first.name} minus ${second.name}`;
  const overlay = [first, second].map((side) => ({ name: side.name, ...figuresOf(side).histogram }));
  const both = html`<${Distribution} title="Both distributions" sentence="Shares of rows by loss." series=${overlay}
    state=${state} set=${set} xLabel="loss of a row" scaleKey="losses" />`;
  // Below the slices where they leave room.
  const left = of.histogram && Object.values(tables).every((rows) => rows.length < 6);
  return html`<div class="stack" style=${{ gap: "24px" }} ref=${element}>
    <h2 class="visually-hidden">Verdict</h2>
    <section class="stack tight"><p class="big sentence">${sentence}</p>
      <p class="quiet" title=${exact(of.mean)}>
        ${first.summary.loss}, ${minus} over ${plural(of.count, "row")}; 95 % interval${of.clustered ? " by clusters" : ""}; ${pValue(of.p)}.${of.small ? FEW_ROWS : ""}
        </p>
      ${linked && session.history.length > 1 && session.names.length === 2 && html`<div
        class="row small quiet">Interval as rows came <${Sparkline}
        values=${session.history.map((each) => each.mean)} low=${session.history.map((each) => each.low)}
        high=${session.history.map((each) => each.high)} label="How the interval of the difference shrank" />
        </div>`}
      <${Pairing} of=${of} first=${first} second=${second} /></section>
    ${linked && session.status === "stopped" && html`<${Stopped} session=${session} summary=${first.summary} />`}
    ${linked && session.status === "running" && html`<p
      class="note">So far ${count(session.done)} of ${plural(session.data.rows, "row")}.</p>`}
    ${linked && html`<${Filters} look=${look} view=${view} state=${state} set=${set} noun="difference" />`}
    <div class="grid" style=${WIDE}><${Means} first=${first} second=${second} />
      <${Outcomes} of=${of} view=${look && filters(look) ? view : null} first=${first} second=${second} /></div>
    <div class="grid" style=${WIDE}><div class="stack" style=${{ gap: "24px" }}>
      <${Slices} title="Difference by slice"
        sentence=${Object.keys(tables).length ? `Left of the line ${first.name} is better, right of it ${second.name}. Corrected for the number of slices (Holm).` : ""}
        tables=${tables} view=${view} look=${look} state=${state} set=${set} reference=${0}
        referenceLabel="equal" noteHead="verdict"
        telling=${Object.keys(tables).find((name) => tables[name].some((each) => each.winner && each.winner !== winner))} />
        ${left && both}</div>
      <div class="stack" style=${{ gap: "24px" }}>
        ${of.histogram && html`<${Distribution} title="Distribution of differences"
          sentence=${`A row left of zero is one that ${first.name} does better.${linked ? " Drag to choose rows." : ""}`}
          series=${[{ name: minus, ...of.histogram }]} view=${view} look=${look} state=${state} set=${set}
          marks=${[{ x: 0, label: "" }]} xLabel=${minus} />`}
        ${!left && both}</div>
    </div>
    ${of.paired && html`<${Different} of=${of} linked=${linked} look=${look} view=${view} source=${source}
      first=${first} second=${second} session=${session} state=${state} set=${set} />`}
    <${Exports} element=${() => element.current} title=${title}
      name=${`compare-${first.name}-${second.name}`.replace(/[^\w-]+/g, "-")}
      value=${{ a: first.label, b: second.label, verdict: sentence, ...of }} table=${table} />
  </div>`;
}

/** Say whether the sides were compared row by row, and what it costs where they were not. */
function Pairing({ of, first, second }) {
  const apart = unpairedOf(figuresOf(first), figuresOf(second));
  if (of.paired) {
    const gain = apart.error / of.error;
    return html`<p class="small quiet">Paired: both were evaluated on the same rows in one pass.${Number.isFinite(gain) && gain > 1.05 ? ` Apart, the interval would be ${short(gain, 2)} times as wide.` : ""}
      </p>`;
  }
  const same = JSON.stringify(first.summary.included) === JSON.stringify(second.summary.included);
  const advice = same
    ? "Evaluate both columns in one file: compared row by row, the interval is often several times narrower."
    : "Put both models' predictions of the same rows into one file to compare row by row.";
  return html`<p class="note warning">
    <b>Not paired.</b> These are two evaluations, each with its own error, and both errors count: the interval is as wide as
    that of two samples${same ? ", although the rows are the same" : ""}.
    A difference that is the same in every row is lost in how much rows differ. ${advice} <a
      href=${href("evaluate")}>Evaluate</a></p>`;
}

const Means = ({ first, second }) => html`<${Forest} title="Both means" nameHead="candidate" noteHead=${null}
  rows=${[first, second].map((side, index) => {
    const of = figuresOf(side);
    return {
      key: side.key,
      name: side.name,
      mean: number(of.mean),
      low: number(of.interval[0]),
      high: number(of.interval[1]),
      n: of.count,
      index,
    };
  })} />`;

/** How many rows each one does better. */
function Outcomes({ of, view, first, second }) {
  if (!of.paired) return null;
  const counts = view
    ? {
        wins: view.wins,
        ties: view.ties,
        losses: view.total.count - view.wins - view.ties,
        count: view.total.count,
      }
    : of;
  const against = Math.sign(counts.losses - counts.wins) * of.mean < 0;
  const [most, name] =
    counts.wins >= counts.losses ? [counts.wins, first.name] : [counts.losses, second.name];
  return html`<section class="figure"><header><h3>Row by row</h3></header>
    <p class="small quiet">
      ${name} has the lower loss in ${percent(most / counts.count)} of ${plural(counts.count, "row")}${view ? " that pass" : ""}.${against ? " The mean says the other way: few rows decide it." : ""}
      </p>
    <${StackedBar} label="Rows by which one has the lower loss" parts=${[
      { name: `${first.name} lower`, value: counts.wins, color: "var(--c0)" },
      { name: "equal", value: counts.ties, color: "var(--mark)" },
      { name: `${second.name} lower`, value: counts.losses, color: "var(--c1)" },
    ]} /></section>`;
}

/** The rows that differ most: with their gradients where this page has them. */
function Different({ of, linked, look, view, source, first, second, session, state, set }) {
  const filtered = look && filters(look);
  const rows = (of.rows ?? []).map((each) => Number(each.row));
  const kept = useFacts(
    rows,
    linked && !filtered && rows.length ? `${session.turn} ${session.done} ${rows.join(" ")}` : "",
  );
  const title = "Rows that differ most";
  if (linked) {
    const facts = filtered ? (view?.rows ?? []) : kept;
    return html`<${Rows} title=${title} difference
      sentence=${filtered ? "Of the rows that pass." : "The largest differences first, either way."} facts=${facts}
      session=${session} candidates=${source} state=${state} set=${set} />`;
  }
  if (!rows.length) return null;
  const names = first.summary.candidate_names;
  const values = (each) =>
    [first, second].map(({ candidate }) => number(each.values[names.indexOf(candidate)]));
  const columns = Object.keys(of.rows[0].labels ?? {});
  return html`<section class="figure"><header><h3>${title}</h3></header>
    <p class="small quiet">The largest differences first, either way. A run keeps no inputs: evaluate the file to see gradients.</p>
    <div class="table-wrap" tabindex="0" role="region" aria-label=${title}><table><thead><tr><th scope="col">id</th><th scope="col" class="num">difference</th>
      ${[first, second].map((side) => html`<th scope="col" class="num" key=${side.key}>loss ${side.name}
      </th>`)}${columns.map((each) => html`<th scope="col" key=${each}>${each}</th>`)}</tr></thead>
    <tbody>${of.rows.map((each) => {
      const [one, other] = values(each);
      return html`<tr key=${each.row}><td>${each.id ?? count(each.row)}</td>
        <td class="num" title=${exact(one - other)}>${short(one - other, 4)}</td><td class="num">${short(one, 4)}
        </td><td class="num">${short(other, 4)}</td>${columns.map((column) => html`<td key=${column}>
        ${each.labels[column]}</td>`)}</tr>`;
    })}</tbody></table></div></section>`;
}
