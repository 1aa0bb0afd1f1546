// Fills the page.

const bold = (text) => el("b", {}, text);
const lead = (id, ...parts) => append(at(id), parts);
/** A loss that is not finite is none. */
const loss = (value) => (value === null ? "not finite" : value.toFixed(4));

/** Without a step nothing was measured, and what was predicted stands alone. */
const taken = data.measured !== null;

function keyFigures() {
  const held = data.held_out;
  const [before, after] = [held[0][1], held.at(-1)[1]];
  const most = (key) => data.devices.reduce((a, b) => (b.memory[key] > a.memory[key] ? b : a));
  const highest = most(taken ? "measured" : "predicted");
  const predicted = bytes(highest.memory.predicted - highest.memory.parcels);
  const rows = [
    ["Held-out loss", loss(after), "", "nats per character" + (taken ? `, ${loss(before)} before` : "")],
    ...(taken ? [["Speed", grouped(run.tokens_per_second), "tokens/s",
      `${seconds(data.measured.seconds)} in the median step`]] : []),
    taken
      ? ["Step bubble", percent(run.bubble.step), "", `${percent(run.bubble.predicted_step)} predicted, `
          + `${percent(run.bubble.expected_step)} from measured costs`]
      : ["Step bubble", percent(run.bubble.predicted_step), "", "predicted"],
    ["Peak memory", ...(taken ? bytes(highest.memory.measured) : predicted).split("\u00a0"),
      `of device ${highest.device}, ${taken ? `${predicted} ` : ""}predicted`],
  ];
  at("key").append(...rows.map(([name, figure, unit, beside]) => el("div", {},
    el("dt", {}, name),
    el("dd", {}, el("span", { class: "figure" }, figure, unit ? el("small", {}, ` ${unit}`) : null),
      el("span", { class: "beside" }, beside)))));
}

function learning() {
  const held = data.held_out.filter(([, loss]) => loss !== null);
  if (!taken) {
    lead("learning-lead", `All ${counted(run.steps_before, "step")} were done before this run.`);
    for (const id of ["loss", "speed"]) at(id).hidden = true;
    return;
  }
  lead("learning-lead",
    run.steps_before ? `After ${counted(run.steps_before, "step")} of an earlier run, ` : "",
    `${counted(run.losses.length, "step")} of ${counted(data.tokens_per_step, "token")}. The curve is the loss `
    + "of each step’s batch", run.losses.length > 60 ? ", pale, and its running mean" : "",
    "; the points are the loss on text that was not trained on.");
  const losses = run.losses.map((loss, k) => [k + 1, loss]).filter(([, loss]) => loss !== null);
  const mean = new Map(smooth(losses).map(([step, loss]) => [step, loss]));
  if (losses.length) {
    curve(at("loss"), { points: losses, held,
      what: (p) => p ? `step ${grouped(p[0])}: ${p[1].toFixed(4)}, mean ${mean.get(p[0]).toFixed(4)}`
        : `held out ${loss(data.held_out.at(-1)[1])}` });
  } else {
    at("loss").hidden = true;
  }
  if (run.gradient_norms?.length) {
    at("norm").hidden = false;
    const norms = run.gradient_norms.map((norm, k) => [k + 1, norm]).filter(([, norm]) => norm !== null);
    if (norms.length) curve(at("norm"), { points: norms, held: [], from: 0,
      what: (p) => p ? `step ${grouped(p[0])}: ${short(p[1])}` : "" });
  }
  const speeds = run.step_seconds.map((time, k) => [k + 1, data.tokens_per_step / time]);
  curve(at("speed"), { points: speeds, held: [], from: 0,
    what: (p) => p ? `step ${grouped(p[0])}: ${grouped(p[1])} in ${seconds(run.step_seconds[p[0] - 1])}`
      : `${grouped(run.tokens_per_second)} over all steps` });
}

function meter(fraction, kind) {
  const bar = el("i");
  bar.style.width = `${100 * Math.min(1, Math.max(0, fraction))}%`;
  return el("span", { class: `meter ${kind}` }, bar);
}

/** A column that only a run with steps has. */
const ifTaken = (column) => (taken ? [column] : []);

function step() {
  const unit = data.balance === "measured"
    ? "Both are drawn to one scale."
    : "The plan counts operations, so it is drawn as long as the measured step.";
  lead("step-lead", bold(data.schedule), ` over ${counted(data.devices.length, "device")} and `,
    `${counted(data.microbatches, "microbatch", "microbatches")}. `,
    taken ? `Measured is step ${grouped(data.figures_of)}, the one that took the median time of the `
      + `last ${counted(data.recent, "step")}. ${unit}` : "No step was taken, so none was measured.");
  at("measured").hidden = !taken;
  timetables();
  const columns = [
    { name: "Device", kind: "name", of: (d) => [`${d.device} `, el("small", {}, d.id)] },
    { name: "Holds", of: (d) => (d.stages.length > 1 ? "stages " : "stage ") + d.stages.join(", ") },
    { name: "Idle, predicted", number: true, of: (d) => percent(d.idle.predicted) },
    ...ifTaken({ name: "measured", number: true, of: (d) => percent(d.idle.measured) }),
    { name: "Idle in its span, predicted", number: true, of: (d) => percent(d.span_idle.predicted) },
    ...ifTaken({ name: "measured", number: true, of: (d) => percent(d.span_idle.measured) }),
    { name: "", kind: "bars",
      of: (d) => [meter(d.idle.predicted, "planned"), taken ? meter(d.idle.measured, "") : null] },
  ];
  at("bubble").append(table(columns, data.devices));
  at("bubble").after(el("p", { class: "lead", style: "margin-top:.8rem" },
    "Idle is the bubble of the step: time from the first to the last action of all devices in which "
    + "a device computes nothing. Its span is from its own first to its own last action. Bars: ",
    el("span", { class: "swatch-line planned" }), "predicted, ",
    el("span", { class: "swatch-line" }), "measured."));
}

function memory() {
  lead("memory-lead", "Grey is what a device holds throughout: parameters, their gradients and the "
    + "optimizer’s state. Blue is what microbatches leave there between their actions, and what an "
    + "action needs while it runs, as predicted from the plan; time runs from its start to its end. "
    + "The dashed line is the most that was measured. A device needs memory for parcels on their "
    + "way besides.");
  const highest = most(data.devices.flatMap((d) => [d.memory.predicted, d.memory.measured ?? 0]));
  for (const device of data.devices) {
    const place = el("figure", {}, el("figcaption", {}, `Device ${device.device}`));
    at("memory-curves").append(place);
    memoryCurve(place, device, highest);
  }
  const columns = [
    { name: "Device", kind: "name", of: (d) => [`${d.device} `, el("small", {}, d.id)] },
    { name: "Throughout", number: true, of: (d) => bytes(d.memory.standing) },
    { name: "For parcels", number: true, of: (d) => bytes(d.memory.parcels) },
    { name: "Stash, at most", number: true, of: (d) => bytes(d.memory.stash) },
    { name: "Microbatches", number: true, of: (d) => short(d.memory.microbatches) },
    { name: "Peak at", kind: "name", of: (d) => d.memory.peak_at },
    ...ifTaken({ name: "Measured peak", number: true, of: (d) => bytes(d.memory.measured) }),
    { name: "Needed in all", number: true, of: (d) => bytes(d.memory.predicted) },
  ];
  at("memory-table").append(table(columns, data.devices));
}

/** The first module of the first block and the last of the last. */
function fromTo([first, last]) {
  const [from, to] = [first.split(" .. ")[0], last.split(" .. ").at(-1)];
  return from === to ? from : `${from} … ${to}`;
}

function cut() {
  const totals = data.stages.map((stage) => sum(stage.cost));
  const loads = data.devices.map((device) => sum(device.stages.map((stage) => totals[stage])));
  const fullest = loads.indexOf(most(loads));
  const by = data.balance === "measured"
    ? "the time that every block took on its device"
    : "counted floating point operations";
  const how = data.searched
    ? "Where to cut, the placement and the order were searched for together, by "
    : data.marked
      ? "Cut only where the model is marked, so that the slowest stage is as fast as can be by "
      : "Cut so that the slowest stage is as fast as can be, by ";
  lead("cut-lead", `${counted(data.blocks.length, "block")} in ${counted(data.stages.length, "stage")}. `,
    how, bold(by), ". ",
    loads.length > 1
      ? `Device ${fullest} has the most work, `
        + `${(loads[fullest] * loads.length / sum(loads)).toFixed(2)} times the mean.`
      : "",
    data.searched ? ` ${data.searched[0].toUpperCase()}${data.searched.slice(1)}.` : "");
  blockColumns(at("blocks"));
  const columns = [
    { name: "Stage", of: (s) => `${s.stage}` },
    { name: "On", kind: "name", of: (s) => run.devices[s.device] },
    { name: "From, to", of: (s) => fromTo(s.modules) },
    ...["F", "B", "W"].map((name, k) => ({ name, number: true, of: (s) => cost(s.cost[k]) })),
    { name: "Share", number: true, of: (s) => percent(sum(s.cost) / sum(totals)) },
    { name: "Sends on", number: true, of: (s) => (s.sends ? bytes(s.sends) : "") },
  ];
  at("stages").append(table(columns, data.stages));
}

function communication() {
  const { links, shared_bytes: shared, total_bytes: total, all_reduce_bytes: all } = run.communication;
  const parts = [total ? ["A step moves ", bold(bytes(total)), " between devices"] : "Nothing moves between devices",
    shared ? `, ${bytes(shared)} of it for parameters that several devices use` : "", ". ",
    all ? `Data parallelism on these devices would all-reduce ${bytes(all)}.` : ""];
  lead("communication-lead", parts);
  if (links.length) {
    const largest = most(links.map((link) => link.bytes));
    const arrow = (link) => { const [from, to] = link.link.split(">"); return `stage ${from} → stage ${to}`; };
    const isForward = (link) => { const [from, to] = link.link.split(">"); return +from < +to; };
    at("links").append(table([
      { name: "Link", kind: "name", of: arrow },
      { name: "Carries", of: (link) => (isForward(link) ? "activations" : "gradients") },
      { name: "Bytes a step", number: true, of: (link) => bytes(link.bytes) },
      { name: "", kind: "bars", of: (link) => meter(link.bytes / largest, "") },
    ], links));
  }
  const moving = data.devices.filter((device) => device.transfers.moves > 0);
  if (moving.length) {
    at("links").append(table([
      { name: "Device", kind: "name", of: (d) => [`${d.device} `, el("small", {}, d.id)] },
      { name: "Moves between it and the host", number: true, of: (d) => grouped(d.transfers.moves) },
      { name: "Time in a step", number: true, of: (d) => seconds(d.transfers.seconds) },
    ], moving));
  }
}

function facts(id, rows) {
  at(id).append(...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, spaced(value))]));
}

function setup() {
  facts("settings", [...data.settings, ["Weights hash", run.weights_hash ?? "none yet: the run goes on"]]);
  facts("machine", data.machine);
  at("command").textContent = data.command;
  at("sample").textContent = data.sample ?? "The run goes on: there is none yet.";
  const copy = at("copy");
  if (navigator.clipboard) {
    copy.hidden = false;
    copy.addEventListener("click", () => navigator.clipboard.writeText(data.command)
      .then(() => { copy.textContent = "Copied"; }, () => { copy.hidden = true; }));
  }
}

at("finished").textContent = new Date(1000 * data.finished).toISOString().slice(0, 16).replace("T", " ") + " UTC"
  + (data.ended ? "" : ", while the run went on");
at("subject").textContent = spaced(data.subject);
at("title").textContent = spaced(at("title").textContent);
keyFigures();
learning();
step();
memory();
cut();
communication();
setup();
