// Numbers of many rows, fast: where the bars of a drawing end, the rows in order, means of groups.

/** How many bars there are. */
export const BINS = 96;

/** Return finite values of some rows in ascending order, enough of them to place the edges. */
export function sampleOf(values) {
  const step = Math.max(1, Math.floor(values.length / 20000));
  const found = [];
  for (let row = 0; row < values.length; row += step)
    if (Number.isFinite(values[row])) found.push(values[row]);
  return Float64Array.from(found).sort();
}

/** Return the least and the largest finite value, and the least above zero. */
function extremesOf(values) {
  let [low, high, least] = [Infinity, -Infinity, Infinity];
  for (let row = 0; row < values.length; row += 1) {
    const value = values[row];
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
    if (value > 0 && value < least) least = value;
  }
  return { low, high, least };
}

/** Return the edges of the bars. The outer ones also have what is beyond them. */
export function edgesOf(values, scale) {
  const { low, high, least } = extremesOf(values);
  if (!(high >= low)) return null;
  const sample = sampleOf(values);
  const at = (share) => sample[Math.floor(share * (sample.length - 1))];
  const edges = new Float64Array(BINS + 1);
  if (scale === "log" && low >= 0 && high > 0) {
    const begin = Math.log(Math.max(least, Math.min(at(0.002) || least, high) || least, high * 1e-12));
    const step = (Math.log(high) - begin || 1) / BINS;
    for (let i = 0; i <= BINS; i += 1) edges[i] = Math.exp(begin + i * step);
    return { edges, place: (value) => (Math.log(value) - begin) / step, log: true };
  }
  // A few rows far out would press all others into one bar.
  let [from, to] = [low, high];
  if (to > at(0.995) + (at(0.995) - at(0.005))) to = at(0.995);
  if (from < at(0.005) - (at(0.995) - at(0.005))) from = at(0.005);
  if (low < 0 && high > 0) [from, to] = [-Math.max(-from, to), Math.max(-from, to)];
  const step = (to - from || Math.abs(to) || 1) / BINS;
  for (let i = 0; i <= BINS; i += 1) edges[i] = from + i * step;
  return { edges, place: (value) => (value - from) / step, log: false };
}

/**
 * Return the rows by value, the largest first, NaN last.
 * @param {Float64Array} values
 * @param {boolean} bySize whether by magnitude
 * @returns {Uint32Array}
 */
export function sortedRows(values, bySize) {
  const rows = values.length;
  const keys = new BigUint64Array(rows);
  const words = new Uint32Array(keys.buffer);
  const float = new Float32Array(1);
  const bits = new Uint32Array(float.buffer);
  for (let row = 0; row < rows; row += 1) {
    // Bits of a float in the order of its values, so that the browser's own sort can be used.
    [float[0]] = [bySize ? Math.abs(values[row]) : values[row]];
    const key = bits[0] >> 31 ? ~bits[0] : bits[0] | 0x80000000;
    words[2 * row] = rows - 1 - row;
    words[2 * row + 1] = Number.isNaN(float[0]) ? 0 : key;
  }
  keys.sort();
  const order = new Uint32Array(rows);
  for (let i = 0; i < rows; i += 1) order[i] = rows - 1 - words[2 * (rows - 1 - i)];
  return order;
}

/** Return an estimate for each group of `groupBy`. */
export function estimates([counts, sums, squares, firsts, crosses, seconds], origin) {
  return Array.from(counts, (count, at) => {
    const mean = firsts[at] / sums[at];
    const spread = Math.max(0, seconds[at] - 2 * mean * crosses[at] + mean * mean * squares[at]);
    const error = count > 1 ? Math.sqrt((count / (count - 1)) * spread) / sums[at] : NaN;
    return { count, mean: mean + origin, error };
  });
}

/** Return the sums of all groups. */
export const together = (groups) => groups.map((each) => [each.reduce((sum, value) => sum + value, 0)]);
