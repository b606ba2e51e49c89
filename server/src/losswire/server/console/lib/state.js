/** The address: which screen is shown and the screen's state, both in the hash. */
import { useEffect, useMemo, useState } from "./dom.js";

// Browsers limit how often a page may replace its address, and a slider moves more often than that.
const EVERY = 100;
let pending = null;
let timer = 0;
let written = 0;

function flush() {
  clearTimeout(timer);
  if (pending === null) return;
  try {
    if (pending !== location.hash) history.replaceState(null, "", pending);
  } catch {
    // The browser says that this was too often: the next change, or the next second, writes it.
    timer = setTimeout(flush, 1000);
    return;
  }
  pending = null;
  written = Date.now();
}
addEventListener("hashchange", () => {
  pending = null;
});
addEventListener("popstate", () => {
  pending = null;
});
addEventListener("pagehide", flush);

/** Return the whole address of what is shown, for a link. @returns {string} */
export function address() {
  flush();
  return location.href;
}

/** Read the address. @returns {{screen: string, query: URLSearchParams}} */
export function route() {
  const [path, query = ""] = (pending ?? location.hash).replace(/^#\/?/, "").split("?", 2);
  return { screen: path || "explore", query: new URLSearchParams(query) };
}

/**
 * Return the address of a screen; values that are null, undefined or "" are left out.
 * @param {string} screen
 * @param {Record<string, any>} values
 * @returns {string}
 */
export function href(screen, values = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(values)) {
    if (value !== null && value !== undefined && value !== "") query.set(key, String(value));
  }
  const text = query.toString();
  return `#/${screen}${text && `?${text}`}`;
}

/** Go to a screen. @param {string} screen @param {Record<string, any>} values */
export function navigate(screen, values = {}) {
  flush();
  location.hash = href(screen, values);
}

/** Return the address, and again whenever it changes. @returns {{screen: string, query: URLSearchParams}} */
export function useRoute() {
  const [now, set] = useState(route);
  useEffect(() => {
    const read = () => set(route());
    addEventListener("hashchange", read);
    addEventListener("popstate", read);
    addEventListener("losswire:replaced", read);
    return () => ["hashchange", "popstate", "losswire:replaced"].forEach((name) => removeEventListener(name, read));
  }, []);
  return now;
}

const READ = {
  boolean: (text) => text === "true",
  number: (text) => Number(text),
  string: (text) => text,
  object: (text) => (text === "" ? [] : text.split("~")),
};

function read(query, defaults) {
  const values = {};
  for (const [key, standard] of Object.entries(defaults)) {
    const text = query.get(key);
    if (text === null) values[key] = standard;
    else values[key] = READ[standard === null ? "string" : typeof standard](text);
  }
  return values;
}

const textOf = (value) => (Array.isArray(value) ? value.join("~") : String(value));

/** Change some values of a screen's state; a value equal to its default leaves the address. */
function write(screen, query, defaults, patch, push) {
  const next = new URLSearchParams(query);
  for (const [key, value] of Object.entries(patch)) {
    const standard = defaults[key];
    const isDefault =
      value === null ||
      value === undefined ||
      (standard !== undefined && standard !== null && textOf(value) === textOf(standard));
    if (isDefault) next.delete(key);
    else next.set(key, textOf(value));
  }
  const text = next.toString();
  const url = `#/${screen}${text && `?${text}`}`;
  if (url === (pending ?? location.hash)) return;
  if (push) {
    flush();
    history.pushState(null, "", url);
  } else {
    pending = url;
    clearTimeout(timer);
    timer = setTimeout(flush, Math.max(0, written + EVERY - Date.now()));
  }
  dispatchEvent(new Event("losswire:replaced"));
}

/**
 * Keep a screen's state in the address. The type of a default (string, number, boolean, list of
 * strings; null is a string that may be absent) says how a value is read. Keys without a default are
 * kept as they are and read through `query`.
 * `set(patch)` replaces the entry of the history (typing, dragging); `set(patch, true)` adds one (a choice that "back" should undo).
 * @template {Record<string, any>} T
 * @param {T} defaults a constant of the module
 * @returns {[T, (patch: Partial<T> & Record<string, any>, push?: boolean) => void, URLSearchParams]}
 */
export function useQuery(defaults) {
  const { screen, query } = useRoute();
  const text = query.toString();
  const values = useMemo(() => read(query, defaults), [text]);
  // Reads the address again: several changes may come before the next drawing.
  const set = useMemo(
    () =>
      (patch, push = false) => {
        const now = route();
        if (now.screen === screen) write(screen, now.query, defaults, patch, push);
      },
    [screen],
  );
  return [values, set, query];
}

/**
 * Keep a value in this browser, such as the theme.
 * @param {string} key
 * @param {any} standard
 * @returns {[any, (value: any) => void]}
 */
export function useStored(key, standard) {
  const [value, set] = useState(() => stored(key) ?? standard);
  return [
    value,
    (next) => {
      store(key, next);
      set(next);
    },
  ];
}

/** Read what this browser keeps. @param {string} key @returns {any} */
export function stored(key) {
  try {
    return JSON.parse(localStorage.getItem(`losswire:${key}`));
  } catch {
    return null;
  }
}

/** Keep a value in this browser where it allows that. @param {string} key @param {any} value */
export function store(key, value) {
  try {
    localStorage.setItem(`losswire:${key}`, JSON.stringify(value));
  } catch {
    // Private windows may refuse: the value then lives as long as the page.
  }
}
