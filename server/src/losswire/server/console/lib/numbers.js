/** Numbers as text. Digits: as many as an interval justifies. */

const group = (text) => text.replace(/\B(?=(\d{3})+(?!\d))/g, ",");
const minus = (text) => text.replace(/^-/, "−");

/** Write NaN and infinities as people read them. @param {number} value @returns {string|null} null for finite numbers */
const special = (value) => (Number.isNaN(value) ? "NaN" : value === Infinity ? "∞" : value === -Infinity ? "−∞" : null);

/**
 * Write a number with a fixed count of decimals, thousands grouped.
 * @param {number} value
 * @param {number} decimals
 * @returns {string}
 */
export function fixed(value, decimals) {
  const text = special(value);
  if (text) return text;
  const [whole, rest] = Math.abs(value)
    .toFixed(Math.min(20, Math.max(0, decimals)))
    .split(".");
  const digits = group(whole) + (rest ? `.${rest}` : "");
  return value < 0 && /[1-9]/.test(digits) ? `−${digits}` : digits;
}

/**
 * Write a number with some significant digits; very large and small ones with a power of ten.
 * @param {number} value
 * @param {number} digits
 * @returns {string}
 */
export function short(value, digits = 4) {
  const text = special(value);
  if (text) return text;
  if (value === 0) return "0";
  const exponent = Math.floor(Math.log10(Math.abs(value)));
  if (exponent < -4 || exponent > 8) return minus(value.toExponential(Math.max(0, digits - 2)).replace(/(\.\d*?)0+e/, "$1e").replace(".e", "e").replace("e+", "e"));
  return fixed(Number(value.toPrecision(digits)), Math.max(0, digits - 1 - exponent))
    .replace(/(\.\d*?)0+$/, "$1")
    .replace(/\.$/, "");
}

/** Write every digit of a number. @param {number} value @returns {string} */
export const exact = (value) => special(value) ?? minus(String(value));

/** Return how many decimals the half width of an interval justifies: two digits of it. @param {number} half @returns {number} */
export const decimalsOf = (half) =>
  half > 0 && Number.isFinite(half) ? Math.min(12, Math.max(0, 1 - Math.floor(Math.log10(half)))) : 4;

/** Write a mean as its interval justifies. @param {number} mean @param {number} low @param {number} high @returns {string} */
export function byInterval(mean, low, high) {
  const half = (high - low) / 2;
  return half > 0 && Number.isFinite(half) && Math.abs(mean) < 1e9 && half > 1e-9
    ? fixed(mean, decimalsOf(half))
    : short(mean, 5);
}

/**
 * Write a mean with its interval: "0.3127 [0.3089, 0.3165]".
 * @param {number} mean
 * @param {number} low
 * @param {number} high
 * @returns {string}
 */
export function withInterval(mean, low, high) {
  if (!Number.isFinite(low) || !Number.isFinite(high)) return `${short(mean, 5)} [no interval]`;
  const half = (high - low) / 2;
  const write =
    half > 1e-9 && Math.abs(mean) < 1e9 ? (value) => fixed(value, decimalsOf(half)) : (value) => short(value, 5);
  return `${write(mean)} [${write(low)}, ${write(high)}]`;
}

/** Write a count: 12,004. @param {number} value @returns {string} */
export const count = (value) => special(Number(value)) ?? minus(group(String(Math.round(Number(value)))));

/** Write a large number briefly: 1.2 M. @param {number} value @returns {string} */
export function compact(value) {
  const text = special(value);
  if (text) return text;
  // Up to 9,999 every digit is written.
  for (const [from, size, name] of [
    [1e12, 1e12, "T"],
    [1e9, 1e9, "G"],
    [1e6, 1e6, "M"],
    [1e4, 1e3, "k"],
  ]) {
    if (Math.abs(value) >= from) return `${short(value / size, 3)} ${name}`;
  }
  return Number.isInteger(value) ? count(value) : short(value, 3);
}

/** Write a share: 41 %. @param {number} value 0.41 @param {number} digits significant ones @returns {string} */
export function percent(value, digits = 2) {
  // Nobody reads 6e-5 %.
  if (value > 0 && value < 1e-4) return "< 0.01\u00a0%";
  return special(value) ?? `${short(value * 100, Math.abs(value) >= 0.995 ? 3 : digits)}\u00a0%`;
}

/** Write a number with its sign: +0.012. @param {number} value @param {(value: number) => string} write @returns {string} */
export const signed = (value, write = short) => (value > 0 ? `+${write(value)}` : write(value));

/** Write seconds: 340 µs, 12 ms, 3.4 s, 2 min 5 s, 3 h 20 min. @param {number} seconds @returns {string} */
export function duration(seconds) {
  const text = special(seconds);
  if (text) return text;
  const size = Math.abs(seconds);
  if (size === 0) return "0 s";
  if (size < 1e-6) return `${short(seconds * 1e9, 3)} ns`;
  if (size < 1e-3) return `${short(seconds * 1e6, 3)} µs`;
  if (size < 1) return `${short(seconds * 1e3, 3)} ms`;
  if (size < 60) return `${short(seconds, 3)} s`;
  if (size < 3600) return `${Math.floor(size / 60)} min ${Math.round(size % 60)} s`;
  if (size < 172800) return `${Math.floor(size / 3600)} h ${Math.round((size % 3600) / 60)} min`;
  return `${Math.floor(size / 86400)} d ${Math.round((size % 86400) / 3600)} h`;
}

/** Write bytes: 1.5 MiB. @param {number} value @returns {string} */
export function bytes(value) {
  let [size, unit] = [Number(value), 0];
  while (Math.abs(size) >= 1024 && unit < 4) [size, unit] = [size / 1024, unit + 1];
  return `${short(size, 3)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

/** Write a p value: "p < 0.001", "p = 0.03". @param {number} value @returns {string} */
export const pValue = (value) =>
  Number.isNaN(value) ? "no p value" : value < 0.001 ? "p < 0.001" : `p = ${short(value, value < 0.1 ? 1 : 2)}`;

/** Write a time of day, with the date unless it is today. @param {string|number|Date} time @returns {string} */
export function when(time) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return "";
  const pad = (value) => String(value).padStart(2, "0");
  const clock = `${pad(date.getHours())}:${pad(date.getMinutes())}`;
  const day = `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
  return date.toDateString() === new Date().toDateString() ? clock : `${day} ${clock}`;
}
