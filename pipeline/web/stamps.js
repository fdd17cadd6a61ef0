// Shapes as stamps. Without a graphics card a path is filled point by point, for each frame anew:
// a thousand small ones take longer than a frame may last. So where many move at a time each form
// is painted once, and its picture is copied to where it is wanted.

const MAX_KEPT = 6000; // pictures of some hundred points each
const STEP = 0.5; // device pixels of radius, below which forms are one
const EDGE = 2; // pixels around a form, for its stroke

/** Paints each form where it is wanted: exact, for a few. */
export const brush = {
  form: (name, goal, reach, paint) => ({ picture: null, paint }),
  isDone: () => true,
  put: (context, { paint }, x, y, r) => paint(context, x, y, r),
};

/** Paints each form once. Whoever changes colours or the ratio begins with new stamps. */
export class Stamps {
  #kept = new Map(); // name and radius -> stamp
  #ratio;
  #allowed = Infinity;

  constructor(ratio) {
    this.#ratio = ratio;
  }

  /** So many more may be made; beyond, forms are painted as by a brush. */
  allow(n) {
    this.#allowed = n;
  }

  /**
   * The stamp of the form `name`, which `paint(context, x, y, r)` paints no further out than
   * `reach` times its radius. `goal` is the radius that it grows to: stamps for each step on the
   * way would be made for nothing.
   */
  form(name, goal, reach, paint) {
    const steps = Math.max(1, Math.round((goal * this.#ratio) / STEP));
    const key = `${name} ${steps}`;
    let found = this.#kept.get(key);
    if (found) return found;
    if (--this.#allowed < 0) return { picture: null, paint };
    if (this.#kept.size >= MAX_KEPT) this.#kept.clear();
    found = this.#made((steps * STEP) / this.#ratio, reach, paint);
    this.#kept.set(key, found);
    return found;
  }

  #made(r, reach, paint) {
    const half = Math.ceil((reach * r + EDGE) * this.#ratio);
    const canvas = new OffscreenCanvas(2 * half, 2 * half);
    const context = canvas.getContext("2d");
    context.scale(this.#ratio, this.#ratio);
    paint(context, half / this.#ratio, half / this.#ratio, r);
    return { picture: canvas.transferToImageBitmap(), r, half: half / this.#ratio };
  }

  isDone({ picture }) {
    return picture !== null;
  }

  /** Copy a stamp to where it is now, as large as it is now. */
  put(context, { picture, paint, r: own, half }, x, y, r) {
    if (!picture) return paint(context, x, y, r);
    const ratio = this.#ratio;
    if (Math.abs(r - own) * ratio < STEP) {
      // point to point: quicker, and nothing is blurred
      const [left, top] = [Math.round((x - half) * ratio) / ratio, Math.round((y - half) * ratio) / ratio];
      context.drawImage(picture, left, top, 2 * half, 2 * half);
    } else {
      const far = (half * r) / own;
      context.drawImage(picture, x - far, y - far, 2 * far, 2 * far);
    }
  }
}
