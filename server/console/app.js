// The console: which view is shown, of which router, and when it is asked for anew.

import * as api from "./api.js";
import { colourNumbers } from "./colours.js";
import { h, morphChildren } from "./dom.js";
import { idOf } from "./format.js";
import { askForKey, startKeys } from "./keys.js";
import { overview } from "./overview.js";
import { startTheme } from "./theme.js";

const POLL_MS = 3000;
const VIEWS = {
  overview: { title: "Overview", load: loadOverview, render: overview },
};
const HEALTH_SERVICES = { learner: "", evaluation: "pointsman.v1.evaluation", live: "pointsman.v1.live_policy" };

const at = (id) => document.getElementById(id);
let turn = 0;
let timer = 0;
let lastAnswer = null;

/** What the address says: "#/support/overview". */
function place() {
  const [router = "", view = "", ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  return { router, view: VIEWS[view] ? view : "overview", rest: rest.join("/") };
}

async function refresh() {
  clearTimeout(timer);
  const mine = ++turn;
  const shown = place();
  try {
    const routers = await api.listRouters();
    const name = routers.some((each) => each.name === `routers/${shown.router}`) ? `routers/${shown.router}` : pick(routers);
    const view = VIEWS[shown.view];
    const data = await view.load(name, shown.rest);
    if (mine !== turn) return;
    showBar(routers, name, shown.view);
    morphChildren(at("main"), view.render(data));
    succeeded();
  } catch (error) {
    if (mine !== turn) return;
    failed(error);
    if (error.status === 401) return; // Asked again once there is another key.
  }
  if (!document.hidden) timer = setTimeout(refresh, POLL_MS);
}

/** The router to begin with: the busiest. */
function pick(routers) {
  const decided = (each) => Number(each.statistics?.decisionCount ?? 0);
  return routers.reduce((one, other) => (decided(other) > decided(one) ? other : one)).name;
}

async function loadOverview(name) {
  const [{ router }, models, told, ...health] = await Promise.all([
    api.getRouter({ name }),
    loadModels(name),
    loadEvaluation(name),
    ...Object.values(HEALTH_SERVICES).map((service) => api.checkHealth(service)),
  ]);
  const named = Object.keys(HEALTH_SERVICES).map((id, index) => [id, health[index].status]);
  return { router, models, ...told, colours: colourNumbers(models), health: Object.fromEntries(named) };
}

async function loadModels(name) {
  const models = await api.listModels(name);
  return models.map((each) => ({ ...each, id: idOf(each.name) }));
}

/** The evaluation, or why there is none: that alone leaves the rest as it is. */
async function loadEvaluation(router) {
  try {
    return { evaluation: (await api.getEvaluation({ router })).evaluation, evaluationError: "" };
  } catch (error) {
    if (error.code !== "unavailable" || error.status === 0) throw error;
    return { evaluation: null, evaluationError: "the evaluation has yet to reach this router" };
  }
}

function showBar(routers, name, view) {
  const select = at("router");
  const ids = routers.map((each) => [idOf(each.name), each.displayName]);
  morphChildren(select, ids.map(([id, shown]) => h("option", { value: id }, shown ? `${shown} (${id})` : id)));
  select.disabled = false;
  select.value = idOf(name);
  const links = Object.entries(VIEWS).map(([id, { title }]) =>
    h("a", { href: `#/${encodeURIComponent(idOf(name))}/${id}`, "aria-current": id === view ? "page" : null }, title));
  morphChildren(at("views"), links);
  document.title = `${idOf(name)} · ${VIEWS[view].title} · Pointsman`;
}

function succeeded() {
  lastAnswer = new Date();
  at("live").className = "live on";
  at("live").textContent = "live";
  at("live").title = `as of ${lastAnswer.toLocaleTimeString("en-GB")}`;
  morphChildren(at("notice"), []);
}

function failed(error) {
  at("live").className = "live";
  at("live").textContent = "not live";
  if (error.status === 401) askForKey(error.message);
  const since = lastAnswer ? ` The numbers are those of ${lastAnswer.toLocaleTimeString("en-GB")}.` : "";
  const told = error.status === 403 ? "The key does not reach this: the console needs one with the scope administer." : "";
  if (!(error instanceof api.CallError)) console.error(error);
  morphChildren(at("notice"), [h("p", {}, `${error.message || "something failed"}. ${told}${since}`)]);
}

at("router").addEventListener("change", (event) => {
  location.hash = `#/${encodeURIComponent(event.target.value)}/${place().view}`;
});
addEventListener("hashchange", refresh);
document.addEventListener("visibilitychange", () => !document.hidden && refresh());
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-action='copy']");
  if (!button) return;
  navigator.clipboard?.writeText(button.dataset.text);
  button.textContent = "Copied";
});
startTheme(at("theme"), () => {});
startKeys(at("key"), at("dialog"), refresh);
refresh();
