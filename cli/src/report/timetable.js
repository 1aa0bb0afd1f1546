// One step as planned and as measured, under one another in one scale.

const MEANINGS = { F: "forward", B: "input gradient", W: "weight gradient", BW: "full backward",
  U: "optimizer update", T: "transfer" };
const paint = (kind) => data.paints.find((paint) => paint.kind === kind);

/** `[label, start, end]` as a span; the label is an action such as `2F0`, `U`, `T`, or `2F0>1`: the
 *  parcel of an action on its way to a device. */
function span([label, start, end], device) {
  const [, of, to] = /^(\w+)>(\d+)$/.exec(label) ?? [];
  if (of) return { label, start, end, device, of, to, kind: "T" };
  const [, stage, work, microbatch] = /^(\d+)([A-Z]+)(\d+)$/.exec(label) ?? [];
  return { label, start, end, device, stage, microbatch, kind: work ?? label };
}

/** Gives each transfer the first row that is free when it begins, or the one that is free first. */
function inRows(transfers) {
  const ends = [];
  for (const s of transfers) {
    s.row = ends.findIndex((end) => end <= s.start);
    if (s.row < 0) s.row = ends.length < MOST_ROWS ? ends.length : ends.indexOf(least(ends));
    ends[s.row] = Math.max(ends[s.row] ?? s.end, s.end);
  }
  return transfers;
}

/** A timeline in makespans from its first action, so that two can be laid over one another. */
function timeline(name, { lanes, transfers, start, makespan }, scale, units) {
  const spans = lanes.map((lane, device) => lane.map((entry) => span(entry, device)));
  const beside = transfers.map((lane, device) => inRows(lane.map((entry) => span(entry, device))));
  const all = [...spans, ...beside].flat();
  const to = (time) => (time - start) / scale;
  const line = {
    name, spans, beside, units, scale, makespan, to,
    time: (of) => quantity(of - start, units),
    first: Math.min(0, least(all.map((s) => to(s.start)))),
    last: Math.max(1e-9, most(all.map((s) => to(s.end)))),
    byLabel: new Map(spans.flat().filter((s) => s.stage).map((s) => [s.label, s])),
  };
  all.forEach((s) => { s.line = line; });
  return line;
}

const LANE = 36;
const PITCH = 46;
const PARCEL = 5;
const MOST_ROWS = 3;

function timetables() {
  // Seconds share a scale. Counted work has none, and is drawn as long as the measured step.
  const timed = data.balance === "measured";
  const planned = timeline("planned", data.planned,
    timed && data.measured ? data.measured.makespan : data.planned.makespan, COST);
  const both = [planned];
  if (data.measured) both.push(timeline("measured", data.measured, data.measured.makespan, SECONDS));
  const whole = [least(both.map((t) => t.first)), most(both.map((t) => t.last))];
  let view = [...whole];
  let selected = null;
  const charts = both.map((line) => lanes(line, () => view, select));

  function select(found) {
    if (found === selected) return;
    selected = found;
    charts.forEach((chart) => chart.mark(found));
    read(found);
  }
  function read(found) {
    const place = at("reading");
    if (!found) {
      place.replaceChildren(el("p", { class: "hint" },
        "Point at a bar, or use the arrow keys in a timetable: what it is and when it ran stands here."));
      return;
    }
    const { stage, kind, microbatch, device, label, of, to } = found;
    const what = of ? `transfer of ${of} to device ${to},` : stage === undefined ? MEANINGS[kind]
      : `${MEANINGS[kind]} of stage ${stage}, microbatch ${microbatch}`;
    const times = both.flatMap((line) => {
      const own = stage === undefined ? (line === found.line ? found : null) : line.byLabel.get(label);
      return own ? [`${line.name} ${line.time(own.start)} to ${line.time(own.end)}`
        + ` (${quantity(own.end - own.start, line.units)})`] : [];
    });
    place.replaceChildren(
      el("span", { class: "name" }, stage === undefined ? kind : label),
      el("p", {}, el("b", {}, what), ` on device ${device}, ${run.devices[device]}`, el("br"),
        times.join("; ")));
  }
  function show(from, to) {
    const least = Math.max((whole[1] - whole[0]) / 2000, 1e-9);
    const length = Math.min(whole[1] - whole[0], Math.max(least, to - from));
    const start = Math.min(Math.max(from, whole[0]), whole[1] - length);
    view = [start, start + length];
    charts.forEach((chart) => chart.draw());
    charts.forEach((chart) => chart.mark(selected));
    buttons();
  }
  /** Zooms by a factor around a moment. */
  function zoom(factor, moment = (view[0] + view[1]) / 2) {
    show(moment - (moment - view[0]) * factor, moment + (view[1] - moment) * factor);
  }
  const pan = (by) => show(view[0] + by, view[1] + by);
  const isWhole = () => view[1] - view[0] >= (whole[1] - whole[0]) * (1 - 1e-9);

  const button = (text, name, press) => {
    const made = el("button", { type: "button", "aria-label": name, title: name }, text);
    made.addEventListener("click", press);
    return made;
  };
  const closer = button("+", "Zoom in", () => zoom(0.5));
  const farther = button("−", "Zoom out", () => zoom(2));
  const left = button("←", "Earlier", () => pan(-0.5 * (view[1] - view[0])));
  const right = button("→", "Later", () => pan(0.5 * (view[1] - view[0])));
  const all = button("Whole step", "Show the whole step", () => show(...whole));
  function buttons() {
    [farther, left, right, all].forEach((button) => { button.disabled = isWhole(); });
    charts.forEach((chart) => chart.picture.classList.toggle("zoomed", !isWhole()));
  }
  at("tools").append(closer, farther, left, right, all,
    el("span", {}, "Drag to move, Ctrl and wheel or two fingers to zoom."));
  for (const id of ["tools", "reading"]) at(id).hidden = false;

  charts.forEach((chart) => {
    const place = at(chart.line.name);
    place.querySelector(".still").replaceWith(chart.picture);
    steer(chart, { view: () => view, zoom, pan, isWhole, show, whole, select });
    new ResizeObserver(() => chart.resize(place.clientWidth) && buttons()).observe(place);
    chart.resize(place.clientWidth);
  });
  read(null);
  buttons();
  legend(both);
}

function legend(both) {
  const used = new Set(both.flatMap((t) => [...t.spans, ...t.beside].flat()).map((s) => s.kind));
  const items = data.paints.filter(({ kind }) => used.has(kind)).map(({ kind, fill, ink }) => [
    el("span", { class: "swatch", style: `background:${fill};color:${ink}` }, kind === "T" ? ">" : kind),
    MEANINGS[kind]]);
  items.push([el("span", { class: "swatch idle" }), "idle"]);
  at("legend").append(...items.map((item) => el("li", {}, item)));
}

/** The lanes of one timeline, drawn for what is in view. */
function lanes(line, view, select) {
  const rows = most([0, ...line.beside.flat().map((s) => s.row + 1)]);
  const pitch = PITCH + (rows ? rows * (PARCEL + 1) - 1 : 0);
  const below = (s) => pitch * s.device + LANE + 2 + s.row * (PARCEL + 1);
  const bottom = pitch * line.spans.length - (PITCH - LANE) + 4;
  const stages = line.spans.map((lane) =>
    [...new Set(lane.filter((s) => s.stage).map((s) => +s.stage))].sort((a, b) => a - b));
  const picture = svg("svg", { class: "lanes", role: "group", tabindex: 0,
    "aria-label": `The step as ${line.name}: arrow keys go from action to action` });
  const chart = { line, picture, draw, mark, resize, moment, stages };
  let width = 0;
  let left = 0;

  function resize(now) {
    if (now === 0 || now === width) return false;
    width = now;
    left = width < 560 ? 26 : 92;
    picture.setAttribute("viewBox", `0 0 ${width} ${bottom + 20}`);
    draw();
    return true;
  }
  const right = () => width - 1;
  const x = (u) => left + ((u - view()[0]) / (view()[1] - view()[0])) * (right() - left);
  /** The moment at a position on the screen, in makespans. */
  function moment(clientX) {
    const box = picture.getBoundingClientRect();
    const at = ((clientX - box.left) * width) / box.width;
    return view()[0] + ((at - left) / (right() - left)) * (view()[1] - view()[0]);
  }
  function draw() {
    if (width === 0) return;
    const narrow = left < 60;
    const parts = line.spans.map((lane, device) => {
      const top = pitch * device;
      const name = narrow
        ? [svg("text", { class: "device", x: 0, y: top + 23 }, `${device}`)]
        : [svg("text", { class: "device", x: 0, y: top + 16 }, `device ${device}`),
          svg("text", { x: 0, y: top + 30 }, run.devices[device])];
      const idle = svg("rect", { class: "idle", x: left, y: top, width: px(right() - left), height: LANE });
      return [name, idle];
    });
    picture.replaceChildren(...parts.flat(2), ...axis());
    for (const lane of line.spans) lane.forEach((s) => append(picture, [bar(s)]));
    for (const lane of line.beside) lane.forEach((s) => append(picture, [parcel(s)]));
  }
  function axis() {
    const scale = line.scale;
    const [from, to] = view().map((u) => u * scale);
    const { factor, name } = scaled(Math.max(Math.abs(from), Math.abs(to)), line.units);
    const times = ticks(from / factor, to / factor, Math.max(2, Math.floor((right() - left) / 78)));
    return times.flatMap((time, k) => {
      const where = px(x((time * factor) / scale));
      const end = where > right() - 34;
      const text = tickText(time, times) + (k === times.length - 1 ? ` ${name}` : "");
      return [svg("path", { class: "tick", d: `M${where} 0V${bottom}` }),
        svg("text", { class: end ? "end" : "mid", x: end ? right() : where, y: bottom + 14 }, text)];
    });
  }
  /** Where a span is, as far as it is in view. */
  function extent(s) {
    const [from, to] = [Math.max(left, x(line.to(s.start))), Math.min(right(), x(line.to(s.end)))];
    return to > left && from < right() ? [from, to] : null;
  }
  function bar(s) {
    const where = extent(s);
    if (!where) return null;
    const [from, to] = where;
    const [top, textWidth, { fill, ink }] = [pitch * s.device, to - from - 2, paint(s.kind)];
    const edge = Math.min(1, (to - from) / 12);
    const group = svg("g", { class: `bar ${s.kind}`, style: `--edge:${px(edge)}` },
      svg("rect", { x: px(from), y: top, width: px(Math.max(to - from, 0.1)), height: LANE, fill }));
    group.span = s;
    const several = stages[s.device].length > 1 && s.stage !== undefined;
    // What does not fit is left out: a part of a number would be another number.
    const fit = (texts, size) => texts.find((text) => 0.64 * size * text.length <= textWidth);
    const work = fit(several ? [s.stage + s.kind, s.kind] : [s.kind], 9);
    const middle = px((from + to) / 2);
    if (work) group.append(svg("text", { class: "work", x: middle,
      y: top + (s.microbatch ? 13 : 21), style: `fill:${ink}` }, work));
    const size = [12, 10, 8.5].find((size) => fit([s.microbatch ?? ""], size) !== undefined);
    if (s.microbatch && size) group.append(svg("text", { x: middle, y: top + 27,
      style: `fill:${ink};font-size:${size}px` }, s.microbatch));
    const before = stages[s.device].indexOf(+s.stage);
    if (several && before > 0) {
      const gap = Math.min(3.5, 9 / stages[s.device].length);
      const foot = Array.from({ length: before }, (_, k) =>
        `M${px(from)} ${px(top + LANE - 2.5 - gap * k)}H${px(to)}`);
      group.append(svg("path", { d: foot.join(""), stroke: ink }));
    }
    return group;
  }
  function parcel(s) {
    const where = extent(s);
    if (!where) return null;
    const group = svg("g", { class: "bar T", style: "--edge:0" }, svg("rect", {
      x: px(where[0]), y: below(s), height: PARCEL,
      width: px(Math.max(where[1] - where[0], 0.5)), fill: paint("T").fill }));
    group.span = s;
    return group;
  }
  /** Outlines the action and shows its time with a line through all lanes. */
  function mark(found) {
    picture.querySelectorAll(".mark").forEach((node) => node.remove());
    if (!found) return;
    const own = found.line === line ? found : found.stage && line.byLabel.get(found.label);
    const where = own && extent(own);
    if (!where) return;
    const [from, to] = where;
    const parcel = own.kind === "T";
    const top = parcel ? below(own) : pitch * own.device;
    picture.append(
      svg("path", { class: "mark through", d: `M${px(from)} 0V${bottom}` }),
      svg("rect", { class: "mark", x: px(from), width: px(Math.max(to - from, 1)), y: top,
        height: parcel ? PARCEL : LANE }));
  }
  picture.addEventListener("pointerover", (event) => {
    const found = event.target.closest?.(".bar")?.span;
    if (found) select(found);
  });
  picture.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse") select(null);
  });
  return chart;
}

/** Moves and zooms the view by pointer, wheel and keys. */
function steer(chart, { view, zoom, pan, isWhole, show, whole, select }) {
  const { picture, line } = chart;
  const fingers = new Map();
  const perPixel = () => (view()[1] - view()[0]) / picture.getBoundingClientRect().width;
  picture.addEventListener("pointerdown", (event) => fingers.set(event.pointerId, event.clientX));
  picture.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return;
    const before = fingers.get(event.pointerId);
    if (fingers.size === 2) {
      const [other] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      const [was, is] = [Math.abs(before - other), Math.abs(event.clientX - other)];
      if (was > 8 && is > 8) zoom(was / is, chart.moment((event.clientX + other) / 2));
    } else if (!isWhole()) {
      pan((before - event.clientX) * perPixel());
    }
    fingers.set(event.pointerId, event.clientX);
  });
  for (const kind of ["pointerup", "pointercancel", "pointerleave"]) {
    picture.addEventListener(kind, (event) => fingers.delete(event.pointerId));
  }
  picture.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.metaKey) {
      zoom(Math.exp(event.deltaY / 200), chart.moment(event.clientX));
    } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY) && !isWhole()) {
      pan(event.deltaX * perPixel());
    } else {
      return;
    }
    event.preventDefault();
  }, { passive: false });
  let held = null;
  picture.addEventListener("keydown", (event) => {
    const lane = () => line.spans[held.device];
    const steps = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
    if (event.key === "+" || event.key === "=") zoom(0.5);
    else if (event.key === "-") zoom(2);
    else if (event.key === "0") show(...whole);
    else if (event.key in steps) {
      const [along, across] = steps[event.key];
      if (!held) {
        held = line.spans[0][0];
      } else if (along) {
        held = lane()[lane().indexOf(held) + along] ?? held;
      } else {
        const next = line.spans[held.device + across] ?? lane();
        held = next.find((s) => s.end > held.start) ?? next.at(-1) ?? held;
      }
      if (held) {
        const [from, to] = [line.to(held.start), line.to(held.end)];
        if (from < view()[0] || to > view()[1]) pan((from + to - view()[0] - view()[1]) / 2);
        select(held);
      }
    } else return;
    event.preventDefault();
  });
}
