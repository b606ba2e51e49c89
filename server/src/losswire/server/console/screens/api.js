/** API: the server's OpenAPI document, readable, with requests to try. */
import { once, ROOT, send } from "../lib/api.js";
import { pretty } from "../lib/code.js";
import { copy, cx, Failure, html, Skeleton, useAsync, useMemo, useRef, useState } from "../lib/dom.js";
import { bytes, duration } from "../lib/numbers.js";
import { useQuery } from "../lib/state.js";
import { capital } from "../lib/words.js";

const DEFAULTS = { open: "", find: "" };
const ROWS = [
  '{"input": [2.0, 1.0, 0.0], "target": 0, "country": "DE"}',
  '{"input": [0.0, 1.0, 2.0], "target": 0, "country": "JP"}',
  '{"input": [0.5, 2.5, 0.1], "target": 1, "country": "DE"}',
];
const PAIRS = [
  '{"a": 1.0, "b": 1.5, "target": 1.2}',
  '{"a": 0.1, "b": 0.4, "target": 0.5}',
  '{"a": 2.0, "b": 1.1, "target": 1.0}',
];

/** Requests that work as they are, by operation. */
const EXAMPLES = {
  getLoss: { values: { name: "cross_entropy" } },
  listRuns: { values: { page_size: "20" } },
  query: { values: { select: "runs" } },
  evaluate: {
    type: "application/json",
    body: pretty({
      loss: "cross_entropy",
      inputs: {
        input: [
          [2.0, 1.0, 0.0],
          [0.0, 1.0, 2.0],
        ],
        target: [0, 0],
      },
      options: { label_smoothing: 0.1 },
      gradients_for: ["input"],
    }),
  },
  summarize: {
    type: "application/x-ndjson",
    body: [JSON.stringify({ loss: "cross_entropy", slices: ["country"] }), ...ROWS].join("\n"),
  },
  compare: {
    type: "application/x-ndjson",
    body: [JSON.stringify({ loss: "mse_loss", candidates: { a: { input: "a" }, b: { input: "b" } } }), ...PAIRS].join(
      "\n",
    ),
  },
};

const METHOD = { get: "good", post: "warn", put: "warn", delete: "bad" };

/** Follow a reference inside of the document. */
const resolve = (document, schema) =>
  (schema?.$ref
    ? schema.$ref
        .slice(2)
        .split("/")
        .reduce((at, key) => at?.[key], document)
    : schema) ?? {};
const nameOf = (schema) => schema?.$ref?.split("/").pop() ?? "";

function typeText(schema) {
  if (!schema) return "";
  if (schema.$ref) return nameOf(schema);
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  const several = schema.oneOf ?? schema.anyOf;
  if (several) return several.map(typeText).join(" | ");
  if (schema.type === "array") return `list of ${typeText(schema.items) || "anything"}`;
  if (schema.type === "object" && typeof schema.additionalProperties === "object")
    return `{name: ${typeText(schema.additionalProperties)}}`;
  return [schema.type].flat().join(" | ") || "anything";
}

/** Show a text of the document; what stands in backquotes is code. */
const prose = (text) =>
  String(text)
    .split("`")
    .map((part, index) => (index % 2 ? html`<code key=${index}>${part}</code>` : part));

function Fields({ document, schema }) {
  const { properties, required = [], description } = resolve(document, schema);
  if (!properties) return html`<p class="small quiet">${description ?? typeText(schema)}</p>`;
  return html`<div class="table-wrap"><table><thead>
    <tr><th scope="col">Field</th><th scope="col">Type</th><th scope="col">Meaning</th></tr></thead><tbody>
    ${Object.entries(properties).map(
      ([
        name,
        each,
      ]) => html`<tr key=${name}><td class="nowrap">
        <code>${name}</code>${required.includes(name) && html` <span class="small quiet">required</span>`}</td>
      <td class="small">${typeText(each)}</td><td class="small">${prose(each.description ?? resolve(document, each).description ?? "")}${each.default !== undefined ? ` Default ${JSON.stringify(each.default)}.` : ""}</td></tr>`,
    )}</tbody></table></div>`;
}

/** Fill the path and the query with what was typed. */
function target(path, parameters, filled) {
  const query = {};
  let place = path;
  for (const { name, in: where } of parameters) {
    if (where === "path") place = place.replace(`{${name}}`, encodeURIComponent(filled[name] ?? ""));
    else if (where === "query" && filled[name]) query[name] = filled[name];
  }
  const url = new URL(place.slice(1), ROOT);
  Object.entries(query).forEach(([name, value]) => url.searchParams.set(name, value));
  return { place, query, url: url.href };
}

function Try({ method, path, operation }) {
  const example = EXAMPLES[operation.operationId] ?? {};
  const parameters = (operation.parameters ?? []).filter(
    (each) => each.in !== "header" && !(each.in === "query" && operation.requestBody),
  );
  const [filled, fill] = useState(example.values ?? {});
  const [body, setBody] = useState(example.body ?? "");
  const [answer, set] = useState(null);
  const running = useRef(null);
  if (operation.requestBody && !example.body)
    return html`<p class="small quiet">This request carries ${Object.keys(operation.requestBody.content).join(" or ")}; the other screens of this console send it.</p>`;
  const { place, query, url } = target(path, parameters, filled);
  const command = [
    `curl ${method === "get" ? "" : `--request ${method.toUpperCase()} `}'${url}'`,
    example.body && `--header 'Content-Type: ${example.type}'`,
    example.body && `--data-binary '${body}'`,
  ]
    .filter(Boolean)
    .join(" \\\n  ");
  const run = async () => {
    running.current?.abort();
    running.current = new AbortController();
    const begun = performance.now();
    try {
      const response = await send(place, {
        method: method.toUpperCase(),
        query,
        body: example.body ? body : undefined,
        type: example.body && example.type,
        signal: running.current.signal,
      });
      const text = await response.text();
      const seconds = (performance.now() - begun) / 1000;
      set({
        status: response.status,
        seconds,
        size: text.length,
        text: /json/.test(response.headers.get("content-type") ?? "") ? shown(text) : text,
      });
    } catch (error) {
      if (error.name !== "AbortError") set({ error });
    }
  };
  const sure = method !== "delete" || Object.values(filled).every(Boolean);
  return html`<form class="stack tight" onSubmit=${(event) => {
    event.preventDefault();
    run();
  }}>
    ${parameters.map((each) => html`<label key=${each.name} class="row small">
      <code class="parameter">${each.name}</code><input class="input grow" value=${filled[each.name] ?? ""}
      required=${each.required} onInput=${(event) => fill({ ...filled, [each.name]: event.target.value })}
      placeholder=${each.description ?? ""} /></label>`)}
    ${example.body && html`<textarea class="input" rows=${Math.min(12, body.split("\n").length + 1)} spellcheck="false"
      aria-label="Body" value=${body} onInput=${(event) => setBody(event.target.value)}></textarea>`}
    <div class="row"><button class=${cx("button", method === "delete" && "danger")} disabled=${!sure}>Send</button>
      <button type="button" class="button plain" onClick=${() => copy(command, "The command")}>Copy as curl</button>
      ${answer && !answer.error && html`<span class="small quiet"
        role="status">${answer.status} · ${duration(answer.seconds)} · ${bytes(answer.size)}</span>`}</div>
    ${answer?.error && html`<${Failure} error=${answer.error} />`}
    ${answer?.text !== undefined && html`<pre class="code" tabindex="0" aria-label="Answer">${answer.text}</pre>`}
  </form>`;
}

/** Write an answer readably, and only as much of it as a person reads. */
function shown(text) {
  const written = pretty(JSON.parse(text));
  return written.length > 20_000
    ? `${written.slice(0, 20_000)}\n… and ${bytes(written.length - 20_000)} more`
    : written;
}

function Operation({ document, method, path, operation, open, onToggle }) {
  const body = Object.entries(operation.requestBody?.content ?? {});
  const answers = Object.entries(operation.responses).filter(([status]) => status.startsWith("2"));
  const problems = Object.keys(operation.responses).filter((status) => !status.startsWith("2") && status !== "default");
  const parameters = operation.parameters ?? [];
  return html`<details class="operation" open=${open}
    onToggle=${(event) => event.target.open !== open && onToggle(event.target.open)}>
    <summary><span class=${cx("badge", METHOD[method])}>${method.toUpperCase()}</span><code>${path}</code>
      <span>${operation.summary}</span></summary>
    ${
      open &&
      html`<div class="stack inside">${operation.description && html`<p class="sentence">${prose(operation.description)}</p>`}
      <${Try} method=${method} path=${path} operation=${operation} />
      ${parameters.length > 0 && html`<div><h3>Parameters</h3><${Fields} document=${document}
        schema=${{ properties: Object.fromEntries(parameters.map((each) => [each.name, { ...each.schema, description: `${each.description ?? ""} (${each.in})` }])), required: parameters.filter((each) => each.required).map((each) => each.name) }} /></div>`}
      ${body.length > 0 && html`<div><h3>Body</h3><p class="small quiet">${body.map(([type]) => type).join(" or ")}</p>
        <${Fields} document=${document}
        schema=${(body.find(([, each]) => each.schema?.$ref) ?? body[0])[1].schema} /></div>`}
      ${answers.map(([status, answer]) => html`<div key=${status}><h3>Answer ${status}</h3>
        <p class="small quiet">${Object.keys(answer.content ?? {}).join(" or ")}</p>
        <${Fields} document=${document} schema=${Object.values(answer.content ?? {})[0]?.schema} /></div>`)}
      ${problems.length > 0 && html`<p class="small quiet">Problems, as application/problem+json: ${problems.map((status) => `${status} ${operation.responses[status].description}`).join(" · ")}</p>`}</div>`
    }
  </details>`;
}

/** Group the operations by their first tag, in the order of the document. */
function groupsOf(document, find) {
  const groups = new Map();
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      if (!METHOD[method]) continue;
      if (find && !`${method} ${path} ${operation.summary}`.toLowerCase().includes(find.toLowerCase())) continue;
      const tag = operation.tags?.[0] ?? "other";
      groups.set(tag, [...(groups.get(tag) ?? []), { path, method, operation }]);
    }
  }
  return [...groups];
}

export default function Api() {
  const [state, set] = useQuery(DEFAULTS);
  const { value: document, error, again } = useAsync(() => once("/openapi.json"), []);
  const groups = useMemo(() => (document ? groupsOf(document, state.find) : []), [document, state.find]);
  return html`<div class="screen"><header><h1>API</h1><a class="button" href=${new URL("openapi.json", ROOT).href}
    download="losswire-openapi.json">Download openapi.json</a>
      <p class="quiet">Everything that this console does goes over these requests. Open one to see its fields and to send it.</p></header>
    <input class="input" type="search" aria-label="Find a request" placeholder="Find a request" value=${state.find}
      onInput=${(event) => set({ find: event.target.value })} />
    ${
      error
        ? html`<${Failure} error=${error} onRetry=${again} />`
        : !document
          ? html`<${Skeleton} height=${320} />`
          : groups.length === 0
            ? html`<p class="empty">No request is named like that.</p>`
            : groups.map(
                ([tag, all]) =>
                  html`<section key=${tag} class="stack tight"><h2>${capital(tag)}</h2>${all.map(
                    ({ path, method, operation }) => html`
      <${Operation} key=${operation.operationId} ...${{ document, method, path, operation }}
        open=${state.open === operation.operationId}
        onToggle=${(open) => set({ open: open ? operation.operationId : "" }, open)} />`,
                  )}</section>`,
              )
    }
  </div>`;
}
