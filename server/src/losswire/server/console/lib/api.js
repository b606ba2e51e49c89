/** The server's HTTP API: problems become typed errors, lines become an async iterator. */
import { useEffect, useState } from "./dom.js";

/** The address of the server, which also works behind a prefix. */
export const ROOT = new URL("../../", import.meta.url);

const HINTS = {
  RESOURCE_EXHAUSTED: "The server is busy or the data too large: wait a moment, or send less at once.",
  UNAVAILABLE: "The server is starting or stopping: try again in a moment.",
  DEADLINE_EXCEEDED: "Send less data, or allow more time.",
  NOT_FOUND: "Check the name: it may have been deleted.",
  UNAUTHENTICATED: "The server asks for credentials that this page does not have.",
};

/** What the server answered instead of a result (RFC 9457). */
export class Problem extends Error {
  /** @param {any} body @param {number} status @param {string} requestId */
  constructor(body, status, requestId = "") {
    super(body.detail || body.title || `The server answered ${status}.`);
    this.name = "Problem";
    this.status = status;
    this.title = body.title || `The server answered ${status}`;
    this.code = body.code ?? "";
    this.reason = body.reason ?? "";
    /** @type {{field: string, description: string}[]} */
    this.violations = body.violations ?? [];
    this.requestId = body.request_id ?? requestId;
    this.retryAfterMs = body.retry_after_ms ?? null;
    this.hint = HINTS[this.code] ?? "";
  }
}

/** The server did not answer at all. */
export class Unreachable extends Error {
  constructor() {
    super("The server did not answer.");
    this.name = "Unreachable";
    this.title = "No connection";
    this.hint = "Check that the server runs and that this page comes from it.";
  }
}

async function problemOf(response) {
  const text = await response.text().catch(() => "");
  let body = {};
  try {
    body = JSON.parse(text);
  } catch {
    body = { title: response.statusText, detail: text.slice(0, 400) };
  }
  return new Problem(body, response.status, response.headers.get("x-request-id") ?? "");
}

/**
 * Send a request and return the response if it succeeded. Raises Problem, Unreachable, or AbortError.
 * @param {string} path such as "/v1/losses"
 * @param {{method?: string, body?: any, query?: Record<string, any>, accept?: string, type?: string, timeoutMs?: number, signal?: AbortSignal}} options
 *   `body`: FormData, Blob, ArrayBuffer or typed array are sent as they are, everything else as JSON
 * @returns {Promise<Response>}
 */
export async function send(path, { method, body, query, accept, type, timeoutMs, signal } = {}) {
  const url = new URL(path.replace(/^\//, ""), ROOT);
  for (const [key, value] of Object.entries(query ?? {})) {
    for (const each of [value].flat())
      if (each !== null && each !== undefined && each !== "") url.searchParams.append(key, each);
  }
  const raw =
    body instanceof FormData ||
    body instanceof Blob ||
    body instanceof ArrayBuffer ||
    ArrayBuffer.isView(body) ||
    typeof body === "string";
  const headers = { Accept: accept ?? "application/json" };
  if (type) headers["Content-Type"] = type;
  else if (body !== undefined && !raw) headers["Content-Type"] = "application/json";
  if (timeoutMs) headers["Losswire-Timeout-Ms"] = String(timeoutMs);
  const init = {
    method: method ?? (body === undefined ? "GET" : "POST"),
    headers,
    signal,
    body: body === undefined || raw ? body : JSON.stringify(body),
  };
  let response;
  try {
    response = await fetch(url, init);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Unreachable();
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

/** GET a JSON answer. @param {string} path @param {Parameters<typeof send>[1]} [options] @returns {Promise<any>} */
export const get = async (path, options) => (await send(path, options)).json();

/**
 * POST a body and return the JSON answer.
 * @param {string} path
 * @param {any} body
 * @param {Parameters<typeof send>[1]} [options]
 * @returns {Promise<any>}
 */
export const post = async (path, body, options) => (await send(path, { ...options, body })).json();

/** DELETE. @param {string} path @param {Parameters<typeof send>[1]} [options] */
export const remove = (path, options) => send(path, { ...options, method: "DELETE" });

/**
 * Send a request and yield the answer's JSON lines as they come. A line {"error": problem} is raised.
 * @param {string} path
 * @param {Parameters<typeof send>[1]} [options]
 * @returns {AsyncGenerator<any>}
 */
export async function* lines(path, options) {
  const response = await send(path, { accept: "application/x-ndjson", ...options });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      const parts = (rest + (value ?? "")).split("\n");
      rest = done ? "" : parts.pop();
      for (const part of parts) if (part.trim()) yield checked(JSON.parse(part));
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function checked(line) {
  if (line.error) throw new Problem(line.error, line.error.status ?? 500);
  return line;
}

/**
 * Build a multipart body: the request as JSON and one part for each tensor or column.
 * @param {any} request
 * @param {Record<string, Uint8Array|ArrayBuffer|any[]>} parts .npy bytes, or lists which are sent as JSON
 * @returns {FormData}
 */
export function multipart(request, parts) {
  const form = new FormData();
  form.append("request", new Blob([JSON.stringify(request)], { type: "application/json" }));
  for (const [name, content] of Object.entries(parts)) {
    if (Array.isArray(content))
      form.append(name, new Blob([JSON.stringify(content)], { type: "application/json" }), `${name}.json`);
    else form.append(name, new Blob([content], { type: "application/x-npy" }), `${name}.npy`);
  }
  return form;
}

/** Read a multipart answer. @param {Response} response @returns {Promise<{result: any, parts: Record<string, ArrayBuffer>}>} */
export async function readMultipart(response) {
  const form = await response.formData();
  const parts = {};
  let result = {};
  for (const [name, content] of form) {
    const blob = typeof content === "string" ? new Blob([content]) : content;
    if (name === "result") result = JSON.parse(await blob.text());
    else parts[name] = await blob.arrayBuffer();
  }
  return { result, parts };
}

/** Return the number that JSON's text stands for: "NaN", "Infinity" and "-Infinity" too. @param {any} value @returns {number} */
export const number = (value) => (value === null || value === undefined ? NaN : Number(value));

const kept = new Map();

/**
 * Ask once for something that does not change, such as the losses. A failure is not kept.
 * @param {string} path
 * @returns {Promise<any>}
 */
export function once(path) {
  if (!kept.has(path))
    kept.set(
      path,
      get(path).catch((error) => {
        kept.delete(path);
        throw error;
      }),
    );
  return kept.get(path);
}

/** Return every loss's record, ordered by name. @returns {Promise<any[]>} */
export const losses = async () => (await once("/v1/losses")).losses;

/** Return what the server says about itself. @returns {Promise<any>} */
export const server = () => once("/v1/server");

function useOnce(read) {
  const [state, set] = useState({ value: undefined, error: null });
  useEffect(() => {
    let here = true;
    read().then(
      (value) => here && set({ value, error: null }),
      (error) => here && set({ value: undefined, error }),
    );
    return () => {
      here = false;
    };
  }, []);
  return state;
}

/** Return the losses: `value` is undefined until they are there. @returns {{value: any[]|undefined, error: Error|null}} */
export const useLosses = () => useOnce(losses);

/** Return what the server says about itself. @returns {{value: any, error: Error|null}} */
export const useServer = () => useOnce(server);
