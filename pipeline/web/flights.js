// Items on their way from cluster to cluster. A busy stream moves more items than anyone can see:
// so many fly at a time, the others only count.

import { colour, lookOf } from "./look.js";
import { bow } from "./paint.js";

const MAX_FLYING = 500;
const MAX_A_FRAME = 60; // of one frame of the stream
const ROUND = 120; // so many fly as discs
const FLIGHT_MS = 900;
const OUTSIDE = 34; // px: from where new items come, and where removed ones go

export class Flights {
  #flying = [];

  get count() {
    return this.#flying.length;
  }

  /** Let changes of a frame fly; spread over the time until the next frame comes. */
  add(changes, now) {
    const moving = changes.filter((change) => change.from !== change.to);
    const step = Math.max(1, moving.length / MAX_A_FRAME);
    for (let i = 0; i < moving.length && this.#flying.length < MAX_FLYING; i += step) {
      const { from, to } = moving[Math.floor(i)];
      this.#flying.push({ from, to, at: now + (250 * i) / moving.length, seed: i * 2.4 });
    }
  }

  clear() {
    this.#flying = [];
  }

  draw(context, at, now) {
    const { hues } = colour();
    this.#flying = this.#flying.filter((one) => now < one.at + FLIGHT_MS);
    const isCrowd = this.#flying.length > ROUND; // squares are quicker
    for (const one of this.#flying) {
      const share = (now - one.at) / FLIGHT_MS;
      if (share < 0) continue;
      const from = at.get(one.from) ?? beside(at.get(one.to), one.seed);
      const to = at.get(one.to) ?? beside(at.get(one.from), one.seed);
      if (!from || !to) continue;
      const eased = share * share * (3 - 2 * share);
      const back = 1 - eased;
      const bend = bow(from, to);
      const x = back * back * from.x + 2 * back * eased * bend.x + eased * eased * to.x;
      const y = back * back * from.y + 2 * back * eased * bend.y + eased * eased * to.y;
      context.globalAlpha = Math.min(1, 4 * share, 4 * (1 - share));
      context.fillStyle = hues[lookOf(one.to ?? one.from).hue];
      if (isCrowd) {
        context.fillRect(x - 2, y - 2, 4, 4);
        continue;
      }
      context.beginPath();
      context.arc(x, y, 3, 0, 2 * Math.PI);
      context.fill();
    }
    context.globalAlpha = 1;
  }
}

function beside(spot, seed) {
  if (!spot) return null;
  const far = spot.r + OUTSIDE;
  return { x: spot.x + far * Math.cos(seed), y: spot.y + far * Math.sin(seed) };
}
