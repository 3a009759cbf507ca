// The console: which view is shown, of which router, and when it is asked for anew.

import * as api from "./api.js";
import { colourNumbers } from "./colours.js";
import { decisionView } from "./decision.js";
import { h, morphChildren } from "./dom.js";
import { idOf } from "./format.js";
import { chartCards, drawCharts, lateReports, RANGES, resizeCharts } from "./history.js";
import { askForKey, startKeys } from "./keys.js";
import { league } from "./league.js";
import { editModel, modelsView, removeModel, switchModel } from "./models.js";
import { noRouter } from "./newcomer.js";
import { overview } from "./overview.js";
import { editGate } from "./gate.js";
import { createCandidate, promote, restore, retire, takeBack } from "./promotion.js";
import { editRouter, removeRouter } from "./routers.js";
import { startTheme } from "./theme.js";

const POLL_MS = 3000;
const VIEWS = {
  overview: { title: "Overview", load: loadOverview, render: overview },
  league: { title: "Candidates", load: loadLeague, render: league },
  models: { title: "Models", load: loadModelsView, render: modelsView },
  decision: { title: "Decision", load: loadDecision, render: decisionView },
};
const HEALTH_SERVICES = { learner: "", evaluation: "pointsman.v1.evaluation", live: "pointsman.v1.live_policy" };

const ACTIONS = {
  copy(button) {
    navigator.clipboard?.writeText(button.dataset.text);
    button.textContent = "Copied";
  },
  range({ dataset }) {
    range = dataset.range;
    refresh();
  },
  "add-router": () => editRouter(at("dialog"), null, [], go),
  "edit-router": () => editRouter(at("dialog"), shownData.router, shownData.models, refresh),
  "remove-router": () => removeRouter(at("dialog"), shownData.router, () => go("routers/default")),
  "add-model": () => editModel(at("dialog"), shownData.router, null, refresh),
  "edit-model": ({ dataset }) => editModel(at("dialog"), shownData.router, model(dataset), refresh),
  "switch-model": ({ dataset }) => switchModel(at("dialog"), model(dataset), refresh),
  "remove-model": ({ dataset }) => removeModel(at("dialog"), model(dataset), refresh),
  "add-candidate": () => createCandidate(at("dialog"), shownData.router, shownData.models, refresh),
  "edit-gate": () => editGate(at("dialog"), shownData.gate, refresh),
  promote: ({ dataset }) => promote(at("dialog"), policy(dataset), evaluated(dataset), refresh),
  "take-back": ({ dataset }) => takeBack(at("dialog"), policy(dataset), refresh),
  retire: ({ dataset }) => retire(at("dialog"), policy(dataset), refresh),
  restore: ({ dataset }) =>
    restore(at("dialog"), shownData.router, shownData.snapshots.find((each) => idOf(each.name) === dataset.snapshot), refresh),
};

const at = (id) => document.getElementById(id);
const model = (dataset) => shownData.models.find((each) => each.id === dataset.model);
const policy = (dataset) => shownData.policies.find((each) => idOf(each.name) === dataset.policy);
const evaluated = (dataset) => shownData.evaluation?.candidates?.find((each) => each.candidate === dataset.policy);
let turn = 0;
let timer = 0;
let lastAnswer = null;
let shownData = null;
let range = "24 h";

/** What the address says: "#/support/overview". */
function place() {
  const [router = "", view = "", ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  return { router, view: VIEWS[view] ? view : "overview", rest: rest.join("/") };
}

/** Shows another router, whose name this is. */
function go(name) {
  const wanted = `#/${encodeURIComponent(idOf(name))}/overview`;
  if (location.hash === wanted) refresh();
  else location.hash = wanted;
}

async function refresh() {
  clearTimeout(timer);
  const mine = ++turn;
  const shown = place();
  try {
    const routers = await loadRouters(shown.view);
    const name = routers.some((each) => each.name === `routers/${shown.router}`) ? `routers/${shown.router}` : pick(routers);
    const view = VIEWS[shown.view];
    const nothing = !name && shown.view !== "decision";
    const data = nothing ? {} : await view.load(name, shown.rest);
    if (mine !== turn) return;
    showBar(routers, name, shown.view);
    morphChildren(at("main"), nothing ? noRouter() : view.render(data));
    shownData = data;
    if (data.history) drawCharts(data.history, data.colours);
    succeeded();
  } catch (error) {
    if (mine !== turn) return;
    failed(error);
    if (error.status === 401) return; // Asked again once there is another key.
  }
  if (!document.hidden) timer = setTimeout(refresh, POLL_MS);
}

/** The routers. A key that may not list them can look up decisions all the same. */
async function loadRouters(view) {
  try {
    return await api.listRouters();
  } catch (error) {
    if (error.status === 403 && view === "decision") return [];
    throw error;
  }
}

/** The router to begin with: the busiest. */
function pick(routers) {
  const decided = (each) => Number(each?.statistics?.decisionCount ?? 0);
  return routers.reduce((one, other) => (decided(other) > decided(one) ? other : one), routers[0])?.name ?? "";
}

async function loadOverview(name) {
  const start = new Date(Date.now() - RANGES[range] * 1000).toISOString();
  const [{ router }, models, told, { history }, ...health] = await Promise.all([
    api.getRouter({ name }),
    loadModels(name),
    loadEvaluation(name),
    api.getHistory({ name, startTime: start }),
    ...Object.values(HEALTH_SERVICES).map((service) => api.checkHealth(service)),
  ]);
  const named = Object.keys(HEALTH_SERVICES).map((id, index) => [id, health[index].status]);
  const colours = colourNumbers(models);
  const charts = models.length ? chartCards(history, range, colours) : null;
  const late = lateReports(history);
  return { router, models, ...told, colours, history: models.length ? history : null, charts, late, range, health: Object.fromEntries(named) };
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

async function loadLeague(name) {
  const [{ router }, models, told, policies, transitions, snapshots, { promotionSettings: gate }] = await Promise.all([
    api.getRouter({ name }),
    loadModels(name),
    loadEvaluation(name),
    api.listPolicies(name),
    api.listTransitions(name),
    api.listSnapshots(name),
    api.getPromotionSettings({ name: `${name}/promotionSettings` }),
  ]);
  return { router, models, policies, transitions, snapshots, gate, ...told };
}

async function loadModelsView(name) {
  const [{ router }, models] = await Promise.all([api.getRouter({ name }), loadModels(name)]);
  return { router, models, colours: colourNumbers(models) };
}

/** The decision of the address, with the colours that its models have in their router. */
async function loadDecision(name, wanted) {
  if (!wanted) return { wanted, decision: null, told: "", colours: new Map() };
  try {
    const { decision } = await api.getDecision(wanted);
    const models = await loadModels(decision.router).catch(() => []);
    return { wanted, decision, told: "", colours: colourNumbers(models) };
  } catch (error) {
    if (!["not_found", "invalid_argument"].includes(error.code)) throw error;
    return { wanted, decision: null, told: error.message, colours: new Map() };
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
  const button = event.target.closest("[data-action]");
  if (button) ACTIONS[button.dataset.action](button);
});
document.addEventListener("submit", (event) => {
  if (event.target.dataset.form !== "look-up") return;
  event.preventDefault();
  const id = new FormData(event.target).get("id").trim();
  location.hash = `#/${encodeURIComponent(place().router)}/decision/${encodeURIComponent(id)}`;
});
addEventListener("resize", resizeCharts);
startTheme(at("theme"), () => shownData?.history && drawCharts(shownData.history, shownData.colours));
startKeys(at("key"), at("dialog"), refresh);
refresh();
