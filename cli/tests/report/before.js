// Notes whatever goes wrong from the first script on.
const problems = [];
addEventListener("error", (event) => problems.push(String(event.message)));
addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => problems.push(event.violatedDirective));
for (const kind of ["error", "warn"]) console[kind] = (...texts) => problems.push(texts.join(" "));
