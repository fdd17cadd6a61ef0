// From the server's places to pixels. The server decides where clusters are; here they get room:
// the picture fills the stage, and bubbles that would cover each other step aside a little. It is
// arithmetic on what came before, without chance: the same rows give the same picture.

const filled = (width) => (width < 560 ? 0.27 : 0.2); // of the stage, by all bubbles together
const MIN_R = 3.5;
const MAX_SHARE = 0.15; // of the shorter side, by the largest radius
const MAX_STRETCH = 1.7; // of one axis against the other
const MARGIN = 14;
const GAP = 3;
const SLACK = 1.08; // corners stand out beyond the radius
export const foot = (width) => (width < 560 ? 44 : 26); // below: the legend
const PULL = 0.06; // back to the own place, each round
const FIRST_ROUNDS = 90;
const ROUNDS = 6;
const GOLDEN = 2.399963;
export const MAX_BUBBLES = 2000;

/** The rows that get a bubble, the largest first; those beyond the limit become one. */
export function chosen(rows) {
  const live = [...rows.values()].filter((row) => row.size > 0);
  live.sort((a, b) => b.size - a.size || (a.cluster < b.cluster ? -1 : 1));
  if (live.length <= MAX_BUBBLES) return { rows: live, others: null };
  const rest = live.splice(MAX_BUBBLES - 1);
  const size = rest.reduce((sum, row) => sum + row.size, 0);
  const mean = (axis) => rest.reduce((sum, row) => sum + row.size * (row[axis] ?? 0), 0) / size;
  const others = { cluster: "", label: `${rest.length} smaller`, size, x: mean("x"), y: mean("y") };
  return { rows: live, others };
}

/** Where each row belongs in pixels, and how large it is: [{id, row, x, y, r}]. */
export function placed(rows, width, height) {
  const total = rows.reduce((sum, row) => sum + row.size, 0) || 1;
  const unit = Math.sqrt((filled(width) * width * height) / (Math.PI * total));
  const most = MAX_SHARE * Math.min(width, height);
  const spots = rows.map((row, i) => {
    const r = Math.min(most, Math.max(MIN_R, unit * Math.sqrt(row.size)));
    if (row.x != null && row.y != null) return { id: row.cluster, row, r, u: row.x, v: row.y };
    // no place yet: a spiral, the largest in the middle
    const far = Math.sqrt((i + 0.5) / rows.length);
    return { id: row.cluster, row, r, u: far * Math.cos(i * GOLDEN), v: far * Math.sin(i * GOLDEN) };
  });
  fit(spots, width, height);
  return spots;
}

function fit(spots, width, height) {
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  let largest = 0;
  for (const { u, v, r } of spots) {
    left = Math.min(left, u);
    right = Math.max(right, u);
    low = Math.min(low, v);
    high = Math.max(high, v);
    largest = Math.max(largest, r);
  }
  const edge = MARGIN + 0.75 * largest;
  const wide = Math.max(1, width - 2 * edge);
  const tall = Math.max(1, height - 2 * edge - foot(width));
  let kx = wide / Math.max(right - left, 1e-6);
  let ky = tall / Math.max(high - low, 1e-6);
  kx = Math.min(kx, MAX_STRETCH * ky);
  ky = Math.min(ky, MAX_STRETCH * kx);
  if (spots.length < 2) kx = ky = 0;
  for (const spot of spots) {
    spot.x = width / 2 + (spot.u - (left + right) / 2) * kx;
    spot.y = (height - foot(width)) / 2 - (spot.v - (low + high) / 2) * ky; // y grows upwards on a map
  }
}

/**
 * Let bubbles step aside. `before` is id -> {x, y, ax, ay}: where each was, and its own place then;
 * who stepped aside before stays aside, so nothing jumps.
 */
export function spread(spots, before, width, height) {
  const isNew = !before.size;
  for (const spot of spots) {
    spot.ax = spot.x;
    spot.ay = spot.y;
    const was = before.get(spot.id);
    if (was) {
      spot.x += was.x - was.ax;
      spot.y += was.y - was.ay;
    }
  }
  const rounds = isNew ? FIRST_ROUNDS : ROUNDS;
  const order = [...spots];
  for (let round = 0; round < rounds; round++) {
    const pull = round < rounds - 4 ? PULL : 0; // at the end only room counts
    for (const spot of spots) {
      spot.x += pull * (spot.ax - spot.x);
      spot.y += pull * (spot.ay - spot.y);
    }
    separate(order);
    for (const spot of spots) {
      const edge = spot.r + 8;
      spot.x = Math.min(width - edge, Math.max(edge, spot.x));
      spot.y = Math.min(height - edge - foot(width), Math.max(edge, spot.y));
    }
  }
  return spots;
}

/** One round: who touches is pushed apart, the smaller one more. Sorts `order`, quick if it nearly is. */
function separate(order) {
  order.sort((a, b) => a.x - b.x || (a.id < b.id ? -1 : 1));
  const widest = order.reduce((most, spot) => Math.max(most, spot.r), 0);
  for (let i = 0; i < order.length; i++) {
    const a = order[i];
    for (let j = i + 1; j < order.length; j++) {
      const b = order[j];
      if (b.x - a.x > SLACK * (a.r + widest) + GAP) break;
      const dx = b.x - a.x;
      const dy = b.y - a.y;
      const need = SLACK * (a.r + b.r) + GAP;
      const far2 = dx * dx + dy * dy;
      if (far2 >= need * need) continue;
      const far = Math.sqrt(far2);
      const [ux, uy] = far > 1e-6 ? [dx / far, dy / far] : [Math.cos(i), Math.sin(i)];
      const step = 0.5 * (need - far);
      const share = (b.r * b.r) / (a.r * a.r + b.r * b.r);
      a.x -= 2 * step * share * ux;
      a.y -= 2 * step * share * uy;
      b.x += 2 * step * (1 - share) * ux;
      b.y += 2 * step * (1 - share) * uy;
    }
  }
}
