// Curves over steps, and memory over a step.

/** Points as a path. Where there are more than pixels, a pixel shows the mean of its points. */
function path(points, x, y, width) {
  const group = Math.max(1, Math.floor(points.length / Math.max(width, 1)));
  const means = [];
  for (let k = 0; k < points.length; k += group) {
    const some = points.slice(k, k + group);
    means.push([sum(some.map((p) => p[0])) / some.length, sum(some.map((p) => p[1])) / some.length]);
  }
  return "M" + means.map((p) => `${px(x(p[0]))} ${px(y(p[1]))}`).join("L");
}

/** The mean of every point and its neighbours on both sides, of more where there are many points. */
function smooth(points) {
  const reach = Math.ceil(points.length / 60);
  const sums = [0];
  for (const [, y] of points) sums.push(sums.at(-1) + y);
  return points.map(([x], k) => {
    const side = Math.min(reach, k, points.length - 1 - k);
    return [x, (sums[k + side + 1] - sums[k - side]) / (2 * side + 1)];
  });
}

/** A plot's frame: axes with ticks, and where a point is in pixels. */
function frame(width, height, domain, format = tickText) {
  const [x0, x1, y0, y1] = domain;
  const rows = ticks(y0, y1, 6);
  const labels = rows.map((value) => format(value, rows));
  const left = 12 + 6.2 * most(labels.map((label) => label.replace("\u202f", "").length));
  const [right, top, bottom] = [width - 8, 8, height - 22];
  const x = (value) => left + ((value - x0) / (x1 - x0 || 1)) * (right - left);
  const y = (value) => bottom - ((value - y0) / (y1 - y0 || 1)) * (bottom - top);
  const picture = svg("svg", {
    class: "plot", viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
  });
  rows.forEach((value, k) => picture.append(
    svg("path", { class: "grid", d: `M${left} ${px(y(value))}H${right}` }),
    svg("text", { class: "end", x: left - 8, y: px(y(value)) + 4 }, labels[k])));
  picture.append(svg("path", { class: "axis", d: `M${left} ${bottom}H${right}` }));
  return { picture, x, y, left, right, top, bottom };
}

function stepAxis({ picture, x, bottom, right, left }, from, to) {
  const columns = ticks(from, to, Math.max(2, Math.floor((right - left) / 80)));
  for (const value of columns.filter(Number.isInteger)) {
    picture.append(
      svg("path", { class: "axis", d: `M${px(x(value))} ${bottom}v4` }),
      svg("text", { class: "mid", x: px(x(value)), y: bottom + 17 }, grouped(value)));
  }
}

/** A curve over steps with what is held at the pointer's step written above it. */
function curve(place, { points, held, from, what }) {
  const caption = place.querySelector("figcaption");
  const reading = el("small");
  caption.append(reading);
  const all = [...points, ...held];
  const [first, last] = [held.length ? held[0][0] : points[0][0], points.at(-1)[0]];
  const high = most(all.map((p) => p[1]));
  const low = from ?? least(all.map((p) => p[1]));
  const margin = (high - low || Math.abs(high) || 1) * 0.06;
  const domain = [first, Math.max(last, first + 1), from ?? low - margin, high + margin];
  const rest = () => { reading.textContent = what(null); };
  rest();
  drawn(place, (width) => {
    const plot = frame(width, Math.min(250, Math.max(180, width * 0.52)), domain);
    const { picture, x, y, top, bottom } = plot;
    stepAxis(plot, domain[0], domain[1]);
    if (points.length > 60) {
      picture.append(
        svg("path", { class: "raw", d: path(points, x, y, width) }),
        svg("path", { class: "curve", d: path(smooth(points), x, y, width) }));
    } else {
      picture.append(svg("path", { class: "curve", d: path(points, x, y, width) }));
      picture.append(...points.map((p) =>
        svg("circle", { class: "dot", cx: px(x(p[0])), cy: px(y(p[1])), r: 2.5 })));
    }
    if (held.length) {
      // Two points, before and after, are no curve.
      if (held.length > 2) picture.append(svg("path", { class: "held", d: path(held, x, y, width) }));
      picture.append(...held.map((p) =>
        svg("circle", { class: "point", cx: px(x(p[0])), cy: px(y(p[1])), r: 4 })));
    }
    const cross = svg("path", { class: "cross" });
    picture.append(cross);
    picture.addEventListener("pointermove", (event) => {
      const box = picture.getBoundingClientRect();
      const step = domain[0] + ((event.clientX - box.left) * width / box.width - plot.left)
        / (plot.right - plot.left) * (domain[1] - domain[0]);
      const near = Math.min(points.length - 1, Math.max(0, Math.round(step - points[0][0])));
      cross.setAttribute("d", `M${px(x(points[near][0]))} ${top}V${bottom}`);
      reading.textContent = what(points[near]);
    });
    picture.addEventListener("pointerleave", () => { cross.removeAttribute("d"); rest(); });
    return picture;
  });
}

/** What a device holds over a step: what it holds throughout, and the stash on top. */
function memoryCurve(place, device, highest) {
  const { standing, parcels, curve: steps, predicted, measured } = device.memory;
  const end = data.planned.end;
  const { factor, name } = scaled(highest, BYTES);
  place.querySelector("figcaption").append(
    el("small", {}, `peak ${bytes(predicted - parcels)} predicted`
      + (measured === null ? "" : `, ${bytes(measured)} measured`)));
  const format = (value, all) => tickText(value, all) + (value === all.at(-1) ? `\u2009${name}` : "");
  drawn(place, (width) => {
    const plot = frame(width, 150, [0, end, 0, 1.08 * highest / factor], format);
    const { picture, left, right, bottom } = plot;
    const [x, y] = [plot.x, (value) => plot.y(value / factor)];
    let line = `M${left} ${px(y(standing))}`;
    for (const [time, value] of steps) line += `H${px(x(time))}V${px(y(standing + value))}`;
    line += `H${px(right)}`;
    picture.append(
      svg("rect", { class: "base", x: left, y: px(y(standing)), width: px(right - left),
        height: px(bottom - y(standing)) }),
      svg("path", { class: "area", d: `${line}V${px(y(standing))}Z` }),
      svg("path", { class: "outline", d: line }));
    if (measured !== null) {
      picture.append(svg("path", { class: "limit", d: `M${left} ${px(y(measured))}H${right}`,
        "stroke-dasharray": "5 3" }));
    }
    return picture;
  });
}

/** Blocks as columns of F, B and W, with the cuts between them. */
function blockColumns(place) {
  const blocks = data.blocks;
  const work = blocks.map((block) => sum(block.flops));
  const { factor, name } = scaled(most(work), FLOP);
  place.querySelector("figcaption").append(el("small", {}, name));
  drawn(place, (width) => {
    const plot = frame(width, 210, [0, blocks.length, 0, 1.22 * most(work) / factor]);
    const { picture, x, y, top, bottom } = plot;
    blocks.forEach((block, k) => {
      const gap = Math.min(4, (x(1) - x(0)) * 0.15);
      let from = 0;
      const stack = ["F", "B", "W"].map((kind, part) => {
        const to = from + block.flops[part] / factor;
        const rect = svg("rect", { class: "part", fill: paint(kind).fill,
          x: px(x(k) + gap / 2), width: px(x(1) - x(0) - gap), y: px(y(to)), height: px(y(from) - y(to)) });
        from = to;
        return rect;
      });
      picture.append(svg("g", {}, stack,
        svg("title", {}, `block ${k}: ${block.modules}\n${quantity(work[k], FLOP)}`)));
    });
    data.stages.forEach(({ stage, blocks: [from, to] }) => {
      if (from > 0) picture.append(svg("path", { class: "cut", d: `M${px(x(from))} ${top}V${bottom}` }));
      const label = x(to) - x(from) > 56 ? `stage ${stage}` : `${stage}`;
      picture.append(svg("text", { class: "mid strong", x: px((x(from) + x(to)) / 2), y: top + 8 }, label));
      picture.append(svg("text", { class: "mid", x: px((x(from) + x(to)) / 2), y: bottom + 17 },
        x(to) - x(from) > 90 && to - from > 1 ? `blocks ${from} to ${to - 1}` : to - from > 1 ? `${from}–${to - 1}` : `${from}`));
    });
    return picture;
  });
}
