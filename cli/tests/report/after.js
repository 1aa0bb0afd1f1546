// Uses the page as a reader would, and writes what it found into the page.
const found = { problems, bars: {}, read: {}, lanes: {}, filled: {} };

function use() {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const text = (id) => document.getElementById(id)?.textContent ?? "";
  const point = (node, kind) => node.dispatchEvent(
    new PointerEvent(kind, { bubbles: true, pointerType: "mouse", pointerId: 1 }));
  const bars = (which) => all(`#${which} .lanes .bar`);
  const counted = (nodes) => nodes.reduce((counts, node) => {
    const kind = node.classList[1];
    return { ...counts, [kind]: (counts[kind] ?? 0) + 1 };
  }, {});

  for (const which of ["planned", "measured"]) {
    found.bars[which] = counted(bars(which));
    found.lanes[which] = all(`#${which} .lanes .idle`).length;
    found.read[which] = bars(which).filter((bar) => {
      point(bar, "pointerover");
      const name = all("#reading .name")[0]?.textContent;
      const says = text("reading");
      return name === bar.span.label && says.includes(`device ${bar.span.device}`)
        && says.includes(which);
    }).length;
  }
  // Names are in their bars.
  found.legible = all(".lanes .bar").every((bar) => {
    const box = bar.querySelector("rect").getBoundingClientRect();
    return all("text", bar).every((name) => {
      const inner = name.getBoundingClientRect();
      return inner.left >= box.left - 1 && inner.right <= box.right + 1;
    });
  });
  const press = (name) => all("#tools button").find((b) => b.title === name).click();
  const before = bars("planned").length;
  for (let times = 0; times < 3; times += 1) press("Zoom in");
  found.zoomed = bars("planned").length;
  press("Show the whole step");
  found.restored = bars("planned").length === before;
  const inside = ["key", "loss", "speed", "legend", "memory-curves", "blocks", "stages", "links"];
  for (const id of inside) {
    found.filled[id] = all("svg.plot *, td, dd, li", document.getElementById(id)).length;
  }
  found.command = text("command");
  found.settings = text("settings");
  const root = document.documentElement;
  found.width = { page: root.scrollWidth, visible: root.clientWidth, window: innerWidth };
}

try {
  use();
} catch (error) {
  problems.push(String(error));
}
const output = document.createElement("output");
output.id = "found";
output.textContent = JSON.stringify(found);
document.body.append(output);
