// The first screen: problems, how fast revocations count, traffic, and keys that need attention.

import { call } from "../api.js";
import { Legend, UsageChart } from "../chart.js";
import { cli, curl } from "../commands.js";
import { html, useEvery, useLoad, useState } from "../html.js";
import { endOf } from "../keystate.js";
import { CONCERNS, attention } from "../listing.js";
import { keyLink, link } from "../router.js";
import { may, session } from "../session.js";
import { count, percent, shortCount, span } from "../time.js";
import { Commands, Empty, Failure, Loaded, Notice, Time, shown } from "../ui.js";
import { RANGES, deletedKey, getKey, usageOf } from "./key.js";

/** Modes of an instance: what each means for revocations. */
export const MODES = {
  fresh: { tone: "good", words: "Every change is known within the bound" },
  relayed: { tone: "warn", words: "Changes come from another instance, as the database can't be reached" },
  static: { tone: "warn", words: "The database can't be reached: known keys keep working for a while" },
  closed: { tone: "bad", words: "What is known is too old: every request is refused with 503" },
};

export function Overview() {
  const status = useLoad((signal) => call("adminGetStatus", { signal }), []);
  const [range, setRange] = useState("24h");
  const usage = useLoad((signal) => usageOf("", range, signal), [range]);
  const concerns = useLoad(attention, []);
  useEvery(5000, () => {
    status.refresh();
    if (range === "24h") usage.refresh();
  });
  return html`<div class="page">
    <div class="head"><div><h1>Overview</h1><p>${session.network ? `Network ${session.network}` : "Keys, their use, and how soon a change counts"}</p></div>
      <div class="actions">${may("adminIssueApiKey") && html`<a class="button primary" href="#/issue">Issue a key <kbd>n</kbd></a>`}</div></div>
    <${Problems} of=${status} />
    <div class="stats"><${Bound} of=${status.data} failed=${Boolean(status.error)} /><${Rates} of=${usage.data} range=${range} />
      ${Object.entries(CONCERNS).map(([name, label]) => html`<${Concern} name=${name} label=${label} of=${concerns.data?.[name]} />`)}</div>
    <section class="card" aria-label="Requests"><header><h2>Requests that Envoy asked about</h2>
      <span class="tabs" role="group" aria-label="Range">${Object.entries(RANGES).map(([name, one]) => html`<button aria-pressed=${name === range ? "true" : "false"} onClick=${() => setRange(name)}>${one.label}</button>`)}</span></header>
      <div class="card-body stack"><${Loaded} of=${usage} what="usage">${(data) => (data.total === 0
        ? html`<${Empty} icon="pulse" title="No request in this time"><p>Envoy asks Talos about each request; once it does, they are counted here.</p><//>`
        : html`<${UsageChart} data=${data} height=${240} label=${`Requests, ${RANGES[range].label}`} /><${Legend} data=${data} />`)}<//></div></section>
    <div class="columns even"><${Busiest} /><${Soon} of=${concerns} /></div>
    <${Commands} forms=${{ talos: cli.status(), curl: curl("adminGetStatus") }} />
  </div>`;
}

function Problems({ of: status }) {
  if (status.error) return status.error.isUnknown ? null : html`<${Failure} problem=${status.error} retry=${status.reload} />`;
  const problems = status.data?.problems ?? [];
  if (!problems.length) return null;
  return html`<${Notice} tone="bad" title=${problems.length === 1 ? "A problem" : `${problems.length} problems, the worst first`} action=${html`<a class="button small" href="#/instances">Details</a>`}>
    <ul>${problems.map((problem) => html`<li>${shown(problem)}</li>`)}</ul><//>`;
}

function Bound({ of: status, failed }) {
  if (!status) return html`<div class="card stat"><span class="label">Revocations count within</span><span class="value">${failed ? "unknown" : "\u2026"}</span><span class="note">${failed ? "The state can't be read" : "Reading the state"}</span></div>`;
  const mode = MODES[status.mode] ?? { tone: "", words: status.mode };
  return html`<a class="card stat" href="#/instances"><span class="label">Revocations count within</span>
    <span class="value ${mode.tone}">${span(status.bound_seconds)}</span><span class="note">Mode ${status.mode}: ${mode.words.toLowerCase()}</span></a>`;
}

function Rates({ of: usage, range }) {
  const refused = usage ? usage.refused.reduce((sum, number) => sum + number, 0) : 0;
  return html`<div class="card stat"><span class="label">Refused, ${RANGES[range].label}</span>
    <span class="value">${usage ? percent(refused, usage.total) : "\u2026"}</span><span class="note">${usage ? `${count(refused)} of ${shortCount(usage.total)} requests` : "Adding up"}</span></div>`;
}

function Concern({ name, label, of: page }) {
  const total = page?.total?.number ?? page?.keys.length;
  const value = page ? `${page.total?.isEstimate ? "about " : ""}${count(total)}${page.next && !page.total ? "+" : ""}` : "\u2026";
  return html`<a class="card stat" href=${link(["keys", "issued"], { concern: name, sort: name === "expiring" ? "expires" : "" })}>
    <span class="label">${label}</span><span class="value ${total > 0 && name !== "forever" ? "warn" : ""}">${value}</span><span class="note">Look at them</span></a>`;
}

function Busiest() {
  const usage = useLoad(async (signal) => {
    const query = { group_by: "key,actor", page_size: 6, start_time: new Date(Date.now() - 86_400_000).toISOString() };
    const { rows } = await call("adminGetUsage", { query, signal });
    const known = rows.filter((row) => row.key_id && row.key_id !== "other");
    const names = await Promise.all(known.map((row) => getKey(row.key_id, signal).catch(deletedKey(row.key_id))));
    return known.map((row, index) => ({ ...row, name: names[index].name }));
  }, []);
  return html`<section class="card" aria-label="Busiest keys"><header><h2>Busiest keys, 24 hours</h2></header><div class="card-body">
    <${Loaded} of=${usage} what="usage">${(rows) => (rows.length === 0 ? html`<p class="muted">No key was used.</p>` : html`<ul class="bars">${rows.map((row) => html`<li>
      <a class="clip" href=${keyLink(row.key_id)} title=${shown(row.name)}>${shown(row.name)}</a><meter min="0" max=${rows[0].count} value=${row.count} aria-label=${`${shown(row.name)}: ${row.count} requests`}></meter><span class="small nowrap">${count(row.count)}</span></li>`)}</ul>`)}<//></div></section>`;
}

function Soon({ of: concerns }) {
  return html`<section class="card" aria-label="Expiring keys"><header><h2>Ending next</h2></header><div class="card-body">
    <${Loaded} of=${concerns} what="keys">${(all) => (all.expiring.keys.length === 0 ? html`<p class="muted">No key expires within 7 days.</p>` : html`<ol class="timeline">${[...all.expiring.keys].sort((one, other) => endOf(one) - endOf(other)).slice(0, 6).map((key) => html`<li class="warn">
      <p><a href=${keyLink(key.key_id)}>${shown(key.name)}</a> <span class="muted small">${shown(key.actor_id)}</span></p><span class="when"><${Time} at=${new Date(endOf(key)).toISOString()} /></span></li>`)}</ol>`)}<//></div></section>`;
}
