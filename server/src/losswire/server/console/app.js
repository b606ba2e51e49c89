/** The frame: header, rail, router, command palette, keys and theme. Screens are loaded when shown. */
import { get, losses, server, useServer } from "./lib/api.js";
import {
  cx,
  Dialog,
  Failure,
  html,
  render,
  Skeleton,
  useEffect,
  useErrorBoundary,
  useRef,
  useState,
  useWindow,
} from "./lib/dom.js";
import { href, navigate, route, store, stored, useRoute } from "./lib/state.js";

const SCREENS = [
  {
    name: "explore",
    text: "Explore",
    load: () => import("./screens/explore.js"),
    icon: "M7 2a5 5 0 1 0 0 10A5 5 0 0 0 7 2M11 11l3.5 3.5",
  },
  { name: "curves", text: "Curves", load: () => import("./screens/curves.js"), icon: "M1 2c2 9 6 12 14 12M1 14L15 5" },
  {
    name: "evaluate",
    text: "Evaluate",
    load: () => import("./screens/evaluate.js"),
    icon: "M2 14V9h3v5M6.5 14V3h3v11M11 14V7h3v7",
  },
  {
    name: "compare",
    text: "Compare",
    load: () => import("./screens/compare.js"),
    icon: "M8 2v12M2 5h9M5 11h9M4 3v4M12 9v4",
  },
  { name: "runs", text: "Runs", load: () => import("./screens/runs.js"), icon: "M2 3h12M2 8h12M2 13h8" },
  { name: "live", text: "Live", late: true, load: () => import("./screens/live.js"), icon: "M1 9h3l2-6 4 11 2-5h3" },
  { name: "api", text: "API", late: true, load: () => import("./screens/api.js"), icon: "M5 3L1 8l4 5M11 3l4 5-4 5" },
];
const KEYS = [
  ["Ctrl K or /", "search losses, screens and runs"],
  ["?", "show these keys"],
  ["t", "switch between light and dark"],
  ["g then e, c, v, m, r, l, a", "go to Explore, Curves, Evaluate, Compare, Runs, Live, API"],
  ["arrow keys", "move through bars, cells and points of a drawing"],
  ["Enter", "choose what is marked"],
  ["Esc", "close, or clear a choice"],
];
const GO = { e: "explore", c: "curves", v: "evaluate", m: "compare", r: "runs", l: "live", a: "api" };

const dark = matchMedia("(prefers-color-scheme: dark)");
function applyTheme() {
  const theme = stored("theme") ?? (dark.matches ? "dark" : "light");
  document.documentElement.dataset.theme = theme;
  dispatchEvent(new Event("themechange"));
}
applyTheme();
dark.addEventListener("change", applyTheme);

function switchTheme() {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  store("theme", next === (dark.matches ? "dark" : "light") ? null : next);
  applyTheme();
}

const Icon = ({ path }) =>
  html`<svg width="16" height="16" viewBox="0 0 16 16" aria-hidden="true"><path d=${path} /></svg>`;

/** READY or not, asked every ten seconds while the page is seen. */
function useReady() {
  const [ready, set] = useState(null);
  useEffect(() => {
    const ask = () =>
      document.hidden ||
      fetch(new URL("../readyz", import.meta.url)).then(
        (answer) => set(answer.ok ? "READY" : "NOT READY"),
        () => set("NO CONNECTION"),
      );
    ask();
    const timer = setInterval(ask, 10_000);
    return () => clearInterval(timer);
  }, []);
  return ready;
}

function Header({ onSearch }) {
  const { value: about } = useServer();
  const ready = useReady();
  return html`<header class="head">
    <a class="name" href="#/explore"><svg width="16" height="16" viewBox="0 0 16 16" aria-hidden="true">
      <path d="M1 2c2 9 6 12 14 12" fill="none" stroke="var(--accent)" stroke-width="2.5"
      stroke-linecap="round" /></svg>Losswire</a>
    <div class="server small"><span class="wide clip">${location.host}</span>
      ${about && html`<span class="wide">·</span><span class="clip">${about.device_name || about.device}</span>
        <span class="wide">·</span><span class="wide">${about.server_version}</span>`}
      ${ready && html`<span class=${cx("badge", ready === "READY" ? "good" : "bad")}>${ready}</span>`}</div>
    <button type="button" class="search" onClick=${onSearch} aria-keyshortcuts="Control+K">
      <span>Search<span class="wide"> losses, screens, runs</span></span><kbd>Ctrl K</kbd></button>
  </header>`;
}

function Rail({ screen, onKeys }) {
  const [open, setOpen] = useState(false);
  useEffect(() => setOpen(false), [screen]);
  return html`<nav class=${cx("rail", open && "open")} aria-label="Screens">
    ${SCREENS.map(
      (
        each,
        index,
      ) => html`<a key=${each.name} class=${cx((each.late || index > 3) && "late")} href="#/${each.name}"
        aria-current=${each.name === screen ? "page" : null}>
      <${Icon} path=${each.icon} />${each.text}</a>`,
    )}
    <button type="button" class="more" aria-expanded=${String(open)} onClick=${() => setOpen(!open)}>
      <${Icon} path="M2 8h1M7.5 8h1M13 8h1" />More</button>
    <button type="button" class="end" onClick=${switchTheme}>
      <${Icon} path="M8 2a6 6 0 1 0 0 12V2M8 2a6 6 0 0 1 0 12" />Light or dark</button>
    <button type="button" class="late" onClick=${onKeys}><${Icon} path="M2 4h12v8H2zM5 10h6M5 7h.5M8 7h.5M11 7h.5" />Keys</button>
  </nav>`;
}

function Keys({ onClose }) {
  return html`<${Dialog} title="Keys" onClose=${onClose}><table><tbody>
    ${KEYS.map(([key, what]) => html`<tr key=${key}><td class="nowrap"><kbd>${key}</kbd></td><td>${what}</td></tr>`)}
  </tbody></table></${Dialog}>`;
}

/** Everything that can be gone to; losses and runs come when they are there. */
function usePlaces() {
  const [found, set] = useState({ losses: [], runs: [] });
  useEffect(() => {
    losses().then(
      (all) => set((old) => ({ ...old, losses: all })),
      () => {},
    );
    server()
      .then(
        (about) =>
          about.runs &&
          get("/v1/runs", { query: { page_size: 100 } }).then((all) => set((old) => ({ ...old, runs: all.runs }))),
      )
      .catch(() => {});
  }, []);
  return [
    ...SCREENS.map((each) => ({ text: each.text, aside: "screen", to: href(each.name) })),
    ...found.losses.map((each) => ({ text: each.name, aside: each.summary, to: href("explore", { loss: each.name }) })),
    ...found.losses
      .filter((each) => each.kind === "loss")
      .map((each) => ({ text: `${each.name} curve`, aside: "Curves", to: href("curves", { losses: each.name }) })),
    ...found.runs.map((each) => ({
      text: each.name || each.run_id,
      aside: `run · ${each.loss}`,
      to: href("runs", { run: each.run_id }),
    })),
  ];
}

/** Places whose text has all words that were typed; those that begin with them first. */
function matching(places, text) {
  const words = text.toLowerCase().replaceAll("_", " ").split(/\s+/).filter(Boolean);
  const plain = (each) => `${each.text} ${each.aside}`.toLowerCase().replaceAll("_", " ");
  const rank = (each) =>
    each.text
      .toLowerCase()
      .replaceAll("_", " ")
      .startsWith(words[0] ?? "")
      ? 0
      : 1;
  return places
    .filter((each) => words.every((word) => plain(each).includes(word)))
    .sort((one, two) => rank(one) - rank(two))
    .slice(0, 50);
}

function Palette({ onClose }) {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const list = useRef(null);
  const places = matching(usePlaces(), text);
  const go = (place) => {
    list.current.closest("dialog").close();
    location.hash = place.to;
  };
  const onKeyDown = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) setAt((at + step + places.length) % (places.length || 1));
    else if (event.key === "Enter" && places[at]) go(places[at]);
    else return;
    event.preventDefault();
  };
  useEffect(() => list.current.children[at]?.scrollIntoView({ block: "nearest" }), [at]);
  return html`<${Dialog} title="Search" class="palette" bare onClose=${onClose}>
    <input placeholder="Search losses, screens, runs" aria-label="Search losses, screens, runs" role="combobox"
      aria-expanded="true" aria-controls="places" aria-activedescendant="place-${at}"
      value=${text} onInput=${(event) => {
        setText(event.target.value);
        setAt(0);
      }} onKeyDown=${onKeyDown} />
    <ul id="places" role="listbox" aria-label="Found" ref=${list}>${places.map(
      (each, index) => html`
      <li id="place-${index}" key=${each.to + each.text} role="option" aria-selected=${String(index === at)}
        onMouseMove=${() => setAt(index)} onClick=${() => go(each)}>
        <span class="nowrap">${each.text}</span><span class="quiet small clip">${each.aside}</span></li>`,
    )}
    </ul>
    ${places.length === 0 && html`<p class="empty">Nothing is named like that.</p>`}
  </${Dialog}>`;
}

/** Show a screen; an error inside of it leaves the frame alone. */
function Guarded({ screen: Screen }) {
  const [error, reset] = useErrorBoundary((problem) => console.error(problem));
  if (error)
    return html`<${Failure} error=${Object.assign(error, { title: "This screen failed", hint: "The rest of the console still works." })} onRetry=${reset} />`;
  return html`<${Screen} />`;
}

function Main({ name }) {
  const [loaded, set] = useState({});
  const main = useRef(null);
  const entry = SCREENS.find((each) => each.name === name);
  useEffect(() => {
    document.title = `${entry?.text ?? "Not found"} · Losswire`;
    if (!entry) return;
    entry.load().then(
      (module) => set({ name, screen: module.default }),
      (error) => set({ name, error }),
    );
  }, [name]);
  useEffect(() => scrollTo(0, 0), [name]);
  const shown = loaded.name === name ? loaded : {};
  return html`<main id="main" tabindex="-1" ref=${main} aria-busy=${String(Boolean(entry) && !shown.name)}>
    ${
      !entry
        ? html`<div class="empty"><p>There is no screen named "${name}".</p>
          <a class="button primary" href="#/explore">Go to Explore</a></div>`
        : shown.error
          ? html`<${Failure} error=${Object.assign(shown.error, { title: "This screen did not load", hint: "Reload the page." })} />`
          : shown.screen
            ? html`<${Guarded} key=${name} screen=${shown.screen} />`
            : html`<div class="stack"><${Skeleton} height=${24} /><${Skeleton} height=${320} /></div>`
    }
  </main>`;
}

const typing = (target) => target.closest?.("input, textarea, select, [contenteditable], dialog");

function App() {
  const { screen } = useRoute();
  const [open, setOpen] = useState(null);
  const prefix = useRef(0);
  useWindow("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      return setOpen("palette");
    }
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return undefined;
    if (Date.now() - prefix.current < 1500 && GO[event.key]) {
      prefix.current = 0;
      return navigate(GO[event.key]);
    }
    if (event.key === "g") prefix.current = Date.now();
    else if (event.key === "?") setOpen("keys");
    else if (event.key === "t") switchTheme();
    else if (event.key === "/") {
      event.preventDefault();
      setOpen("palette");
    }
    return undefined;
  });
  return html`<div class="frame">
    <${Header} onSearch=${() => setOpen("palette")} />
    <${Rail} screen=${screen} onKeys=${() => setOpen("keys")} />
    <${Main} name=${screen} />
    ${open === "palette" && html`<${Palette} onClose=${() => setOpen(null)} />`}
    ${open === "keys" && html`<${Keys} onClose=${() => setOpen(null)} />`}
  </div>`;
}

// Both are needed at once; neither waits for the first drawing. Failures are shown where they are used.
losses().catch(() => {});
SCREENS.find((each) => each.name === route().screen)
  ?.load()
  .catch(() => {});

// The skip link goes to the content and not to a screen of that name.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main").focus();
});
render(html`<${App} />`, document.getElementById("app"));
