// Making elements. Text always goes in as text: an item's id may be anything.

const SVG = "http://www.w3.org/2000/svg";

/** An element; `on*` are listeners, true and false make bare attributes come and go. */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for drawings. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Change a text only where it is another: a screen reader is told of every change. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** `act` at most every so many ms, and never within the task that asks for it. */
export function calmly(ms, act) {
  let [timer, at] = [0, -Infinity];
  return () => {
    timer ||= setTimeout(
      () => {
        [timer, at] = [0, performance.now()];
        act();
      },
      Math.max(0, at + ms - performance.now()),
    );
  };
}

/** What a view starts ends with it: listeners, timers, requests. */
export class Life {
  #ends = [];
  #aborting = new AbortController();

  get signal() {
    return this.#aborting.signal;
  }

  get isOver() {
    return this.#aborting.signal.aborted;
  }

  also(end) {
    this.#ends.push(end);
  }

  /** Now, and every so many ms; a question that fails is asked again at the next turn. */
  every(ms, ask) {
    let timer = 0;
    const turn = async () => {
      if (!document.hidden) await Promise.resolve(ask()).catch(() => {});
      if (!this.isOver) timer = setTimeout(turn, ms);
    };
    turn();
    this.also(() => clearTimeout(timer));
  }

  end() {
    this.#aborting.abort();
    for (const end of this.#ends.splice(0)) end();
  }
}
