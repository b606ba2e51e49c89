/** One run with everything that it kept, and the parts that the list of runs shares. */

import { get, number, remove } from "../lib/api.js";
import { ECDF, Forest, Histogram, hue } from "../lib/charts.js";
import {
  copy,
  cx,
  Dialog,
  Empty,
  Failure,
  html,
  Segments,
  Skeleton,
  toast,
  useAsync,
  useEffect,
  useState,
} from "../lib/dom.js";
import { exportJson } from "../lib/export.js";
import { count, exact, percent, short, when, withInterval } from "../lib/numbers.js";
import { liftRows } from "../lib/results.js";
import { href, navigate } from "../lib/state.js";
import { plural, words } from "../lib/words.js";

/** Return what a run is called. @param {any} run @returns {string} */
export const titleOf = (run) => run.name || run.run_id;

/** What a server without runs says. */
export const NoStore = () =>
  html`<${Empty}>This server keeps no runs. Start it with a place to keep them: <code>losswire-server serve --store FOLDER --http 127.0.0.1:8080</code>. Evaluate and the other screens work without.</${Empty}>`;

/** Labels that filter when chosen. @param {{labels: Record<string, string>, chosen: string[], onToggle: (label: string) => void}} props */
export function Chips({ labels, chosen, onToggle }) {
  return html`<span class="row" style=${{ gap: "4px" }}>${Object.entries(labels).map(([key, value]) => {
    const text = `${key}=${value}`;
    const isOn = chosen.includes(text);
    return html`<button type="button" key=${text} class=${cx("button small", isOn && "primary")}
      aria-pressed=${String(isOn)} title="Only runs with this label" onClick=${() => onToggle(text)}>${key} ${value}
      </button>`;
  })}</span>`;
}

/** Asks before a run is gone for good. @param {{run: any, onClose: () => void, onDeleted: () => void}} props */
export function Deletion({ run, onClose, onDeleted }) {
  const [error, setError] = useState(null);
  const act = () =>
    remove(`/v1/runs/${encodeURIComponent(run.run_id)}`).then(() => {
      toast(`${titleOf(run)} is deleted.`);
      onDeleted();
    }, setError);
  return html`<${Dialog} title="Delete a run" onClose=${onClose}><p>Delete <b>${titleOf(run)}
    </b> (${run.loss}, saved ${when(run.saved)}) for good? Nothing brings it back.</p>
    ${error && html`<${Failure} error=${error} />`}
    <div class="row"><button type="button" class="button danger" onClick=${act}>Delete for good</button></div>
      </${Dialog}>`;
}

const MARKS = [
  ["0.5", "p50"],
  ["0.99", "p99"],
];

/** The distribution of a run, or of the candidates of a comparison. */
function Distribution({ parts }) {
  const [kind, setKind] = useState("histogram");
  // Where a few rows lose most, linear axes show one bar.
  const [scale, setScale] = useState(
    parts.some(({ figures }) => number(figures.quantiles["0.99"]) > 20 * number(figures.quantiles["0.5"]))
      ? "log"
      : "linear",
  );
  const series = parts.map(({ name, figures }) => ({
    name: name || "rows",
    low: figures.histogram.low.map(number),
    high: figures.histogram.high.map(number),
    weight: figures.histogram.weight.map(number),
  }));
  const marks =
    parts.length > 1 ? [] : MARKS.map(([share, label]) => ({ x: number(parts[0].figures.quantiles?.[share]), label }));
  const Drawing = kind === "histogram" ? Histogram : ECDF;
  return html`<${Drawing} title="Distribution" series=${series} scale=${scale} marks=${marks} xLabel="loss of a row"
    actions=${html`<${Segments} small label="Kind" value=${kind}
      options=${[
        ["histogram", "Histogram"],
        ["ecdf", "ECDF"],
      ]} onChange=${setKind} />
      <${Segments} small label="Scale" value=${scale} options=${["linear", "log"]} onChange=${setScale} />`} />`;
}

/** The slices of one table, by lift. */
function SliceTables({ figures, of }) {
  const names = Object.keys(figures.slices ?? {});
  const [chosen, choose] = useState("");
  if (!names.length) return null;
  const mean = number(figures.finite_mean ?? figures.mean);
  const rows = Object.fromEntries(names.map((name) => [name, liftRows(figures.slices[name], mean)]));
  // Until another is chosen, the first where a slice is clearly worse.
  const telling = names.find((name) => rows[name].some(({ tone }) => tone === "bad"));
  const by = names.includes(chosen) ? chosen : (telling ?? names[0]);
  return html`<${Forest} title=${of ? `Slices of ${of} by lift` : "Slices by lift"}
    sentence="Lift is how far a slice's mean is from that of all rows; verdicts after Holm's correction." nameHead=${by}
    rows=${rows[by]} reference=${mean} referenceLabel="all rows" noteHead="lift"
    actions=${
      names.length > 1 &&
      html`<${Segments} small label="Slices by" value=${by} options=${names}
      onChange=${choose} />`
    } />`;
}

/** Beside a number that ends at the right. */
const APART = { paddingLeft: "24px" };

/** The rows that lose most. */
function Worst({ rows, names, of }) {
  if (!rows?.length) return null;
  const columns = Object.keys(rows[0].labels ?? {});
  return html`<section class="figure"><header><h3>Worst rows</h3></header>
    <div class="table-wrap" tabindex="0" role="region" aria-label=${of ? `Worst rows of ${of}` : "Worst rows"}><table>
    <thead><tr><th scope="col">id</th><th scope="col">partition</th><th class="num" scope="col">row</th>
    ${names.map((name) => html`<th class="num" scope="col" key=${name}>${name || "loss"}</th>`)}
      ${columns.map((each) => html`<th scope="col" key=${each} style=${APART}>${each}</th>`)}</tr></thead>
    <tbody>${rows.map(
      (each) => html`<tr key=${`${each.partition} ${each.row}`}><td>${each.id ?? "–"}</td><td>
      ${each.partition || "–"}</td><td class="num">${each.row}</td>
      ${names.map(
        (name, i) => html`<td class="num" key=${name} title=${exact(number(each.values[i]))}>
        ${short(number(each.values[i]), 5)}</td>`,
      )}${columns.map(
        (name) => html`<td key=${name} style=${APART}>
        ${each.labels[name]}</td>`,
      )}</tr>`,
    )}</tbody></table></div></section>`;
}

const Fact = ({ name, children, title }) => html`<div><dt>${name}</dt><dd title=${title}>${children}</dd></div>`;

/** The figures of one candidate. */
function Facts({ figures, name }) {
  const bad = number(figures.nan_count) + number(figures.infinite_count);
  return html`<dl class="facts">${name && html`<${Fact} name="candidate"><b>${name}</b></${Fact}>`}
    <${Fact} name="mean [95 %]" title=${exact(number(figures.mean))}><b>
      ${withInterval(number(figures.mean), ...figures.interval.map(number))}</b></${Fact}><${Fact} name="n">
      ${count(figures.count)}</${Fact}>
    <${Fact} name="ignored">${count(figures.ignored_count)}</${Fact}><${Fact} name="NaN or infinite">${count(bad)}
      </${Fact}><${Fact} name="std">${short(number(figures.std), 4)}</${Fact}>
    ${["perplexity", "rmse", "bits_per_dimension"]
      .filter((each) => figures[each] !== undefined && figures[each] !== null)
      .map(
        (each) => html`<${Fact}
      key=${each} name=${words(each)}>${short(number(figures[each]), 5)}</${Fact}>`,
      )}
    ${Object.entries(figures.quantiles ?? {}).map(
      ([share, value]) => html`<${Fact} key=${share}
      name=${`p${short(Number(share) * 100, 4)}`}>${short(number(value), 4)}</${Fact}>`,
    )}
    <${Fact} name="largest">${short(number(figures.maximum), 4)}</${Fact}></dl>`;
}

/** Where the numbers come from. */
function Origin({ run, summary }) {
  return html`<section class="card"><header><h2>Where it comes from</h2></header>
    <dl class="facts"><${Fact} name="id"><code>${run.run_id}</code></${Fact}><${Fact} name="started">
      ${run.started ? when(run.started) : "–"}</${Fact}><${Fact} name="ended">${run.ended ? when(run.ended) : "–"}
      </${Fact}><${Fact} name="saved">${when(run.saved)}</${Fact}><${Fact} name="by">${run.creator || "–"}</${Fact}>
      <${Fact} name="rows covered">
        ${count(summary.rows)} in ${plural(Object.keys(summary.included ?? {}).length, "partition")}</${Fact}>
        <${Fact} name="quantiles within">${percent(number(summary.accuracy))}</${Fact}><${Fact} name="rows">
        ${summary.clustered ? "in clusters: intervals allow for that" : "independent"}</${Fact}></dl>
    ${summary.receipts.map(
      (each, i) => html`<p class="small quiet"
      key=${i}>Receipt: ${each.device} · ${words(each.engine)} · ${each.compute_dtype ?? each.compute_data_type} · server ${each.server_version} · torch ${each.torch_version}
      </p>`,
    )}
    ${
      run.header &&
      html`<details><summary>The request that made it</summary><pre class="twin" tabindex="0">
      ${JSON.stringify(run.header, null, 2)}</pre></details>`
    }</section>`;
}

/** One run, whole. @param {{id: string}} props */
export function Detail({ id }) {
  const {
    value: run,
    error,
    again,
  } = useAsync((signal) => get(`/v1/runs/${encodeURIComponent(id)}`, { signal }), [id]);
  const [isDeleting, setDeleting] = useState(false);
  useEffect(() => {
    if (run) document.title = `${titleOf(run)} · Losswire`;
  }, [run]);
  if (error?.status === 501) return html`<${NoStore} />`;
  if (error) return html`<${Failure} error=${error} onRetry=${again} />`;
  if (!run || run.run_id !== id)
    return html`<${Skeleton} height=${20} /><${Skeleton} height=${48} />
    <${Skeleton} height=${240} />`;
  const { summary } = run;
  const names = summary.candidate_names ?? [""];
  const side = (name) => `${encodeURIComponent(run.run_id)}:${encodeURIComponent(name)}`;
  const parts = names.map((name) => ({ name, figures: name ? summary.candidates[name] : summary }));
  return html`<div class="row apart"><h2 class="big">${titleOf(run)}</h2><div class="row">
      <a class="button small" href=${href("compare", names.length > 1 ? { a: side(names[0]), b: side(names[1]) } : { a: run.run_id })}>Compare</a>
        <button type="button" class="button small" onClick=${() => copy(location.href, "The link")}>Copy link</button>
        <button type="button" class="button small" onClick=${() => exportJson(run, run.run_id)}>JSON</button>
      <button type="button" class="button small danger" onClick=${() => setDeleting(true)}>Delete</button></div></div>
    ${
      Object.keys(run.labels).length > 0 &&
      html`<${Chips} labels=${run.labels} chosen=${[]}
      onToggle=${(label) => navigate("runs", { labels: label })} />`
    }
    <p class="sentence">${summary.sentence}</p>
    <p class="sentence quiet">${(summary.notes ?? []).join(" ")}</p>
    ${parts.map(({ name, figures }) => html`<${Facts} key=${name} name=${name} figures=${figures} />`)}
    ${(summary.differences ?? [])
      .filter(({ sentence }) => sentence !== summary.sentence)
      .map(
        (each) => html`<p
      class="sentence" key=${each.first + each.second}>${each.sentence}</p>`,
      )}
    <${Distribution} parts=${parts} />
    ${parts.map(
      ({ name, figures }, i) => html`<div class="stack" key=${name}>${
        name &&
        html`<h2>
      <span aria-hidden="true" style=${{ color: hue(i).color }}>${hue(i).marker} </span>${name}</h2>`
      }
      <${SliceTables} figures=${figures} of=${name} /><${Worst} rows=${figures.worst} names=${names} of=${name} /></div>`,
    )}
    <${Origin} run=${run} summary=${summary} />
    ${
      isDeleting &&
      html`<${Deletion} run=${run} onClose=${() => setDeleting(false)}
      onDeleted=${() => navigate("runs")} />`
    }`;
}
