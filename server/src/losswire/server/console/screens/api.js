/** API: the server's OpenAPI page, readable, with requests to try. */
import { html } from "../lib/dom.js";

export default function Api() {
  return html`<div class="screen"><header><h1>API</h1></header></div>`;
}
