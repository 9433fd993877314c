// The instance that answers: mode, lag, dependencies, settings.

import { call } from "../api.js";
import { cli, curl } from "../commands.js";
import { html, useEvery, useLoad } from "../html.js";
import { session } from "../session.js";
import { count, exactTime, percent, plural, span } from "../time.js";
import { Commands, Loaded, Notice, shown } from "../ui.js";
import { MODES } from "./overview.js";

export function Instances() {
  const status = useLoad((signal) => call("adminGetStatus", { signal }), []);
  useEvery(3000, () => status.refresh());
  return html`<div class="page">
    <div class="head"><div><h1>Instance</h1><p>The one that answers this page${session.network ? html`, for network <b>${shown(session.network)}</b>` : ""}. Behind a load balancer each request may meet another.</p></div></div>
    <${Loaded} of=${status} what="the state">${(data) => html`<${State} of=${data} />`}<//>
    <${Networks} />
    <${Commands} forms=${{ talos: cli.status(), curl: curl("adminGetStatus") }} />
  </div>`;
}

function State({ of: status }) {
  const mode = MODES[status.mode] ?? { tone: "info", words: status.mode };
  return html`
    ${status.problems.length ? html`<${Notice} tone="bad" title=${plural(status.problems.length, "problem")}><ul>${status.problems.map((problem) => html`<li>${shown(problem)}</li>`)}</ul><//>` : html`<${Notice} tone=${mode.tone} title=${`Mode ${status.mode}, no problem`}><p>${mode.words}.</p><//>`}
    <div class="stats">
      <${Stat} label="Revocations count within" value=${span(status.bound_seconds)} note=${`lease ${span(status.lease.seconds)}, grace ${span(status.lease.grace_seconds)}`} />
      <${Stat} label="Changes not known here" value=${status.log.lag ?? "unknown"} note=${`known up to ${count(status.epoch)}`} tone=${status.log.lag > 0 ? "warn" : ""} />
      <${Stat} label="Last poll" value=${status.lease.age_seconds === undefined ? "none yet" : `${span(status.lease.age_seconds)} ago`} note=${`took ${span(status.poll.seconds)}, ${plural(status.poll.failures, "failure")}`} />
      <${Stat} label="Checks from memory" value=${status.cache.hit_ratio === undefined ? "none yet" : percent(status.cache.hit_ratio, 1)} note=${`${plural(status.cache.keys, "key")} in memory`} />
      <${Stat} label="Runs since" value=${span(status.uptime_seconds)} note=${`version ${status.version}`} />
    </div>
    <div class="columns even">
      <${Facts} title="Database" facts=${{
        Answers: status.database.answers ? "yes" : "no",
        Server: status.poll.server,
        Role: status.poll.role,
        "Connections open": `${status.database.connections} of ${status.database.max_connections}, ${status.database.idle_connections} idle`,
        "Clock ahead by": status.database.clock_skew_seconds === undefined ? undefined : `${span(Math.abs(status.database.clock_skew_seconds))}${status.database.clock_is_off ? ", worth a look" : ""}`,
        "Last failure": status.poll.last_failure,
      }} />
      <${Facts} title="Settings" facts=${{
        Generation: status.settings.generation,
        "All that was read is in force": status.settings.current ? "yes" : "no: the log says what is wrong with the file",
        Planes: status.planes.join(", "),
        Certificates: status.certificates?.map((one) => `${one.plane} ${one.expired ? "EXPIRED AT" : "until"} ${exactTime(one.expire_time)}`).join("; "),
        "Redis": status.breaker === "none" ? "not used" : `breaker ${status.breaker}`,
        "Deny list": plural(status.deny_list.keys, "key"),
        "Secrets of keys": status.signing?.secrets?.map((one) => `${one.secret_id} (${one.state}): ${plural(one.keys, "key")}`).join("; "),
      }} />
    </div>
    <${Facts} title="Token exposure" facts=${{
      "A revoked key passes for": span(status.exposure.key_seconds),
      "Tokens sent upstream": span(status.exposure.upstream_token_seconds),
      "Tokens derived through the API": span(status.exposure.derived_token_seconds),
    }} wide />`;
}

function Stat({ label, value, note, tone = "" }) {
  return html`<div class="card stat"><span class="label">${label}</span><span class="value ${tone}">${value}</span><span class="note">${note}</span></div>`;
}

function Facts({ title, facts, wide = false }) {
  const known = Object.entries(facts).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return html`<section class="card" aria-label=${title}><header><h2>${title}</h2></header><div class="card-body"><dl class="facts ${wide ? "wide" : ""}">
    ${known.map(([name, value]) => html`<div><dt>${name}</dt><dd>${shown(String(value))}</dd></div>`)}</dl></div></section>`;
}

function Networks() {
  const { networks } = session;
  return html`<section class="card" aria-label="Networks"><header><h2>Networks</h2></header><div class="card-body">
    ${networks.length > 0 ? html`<ul>${networks.map((one) => html`<li>${one.network_id === session.network ? html`<b>${shown(one.hostname)}</b>, this one` : html`<a href=${consoleOf(one.hostname)} rel="noreferrer">${shown(one.hostname)}</a>`} <span class="muted mono small">${one.network_id}</span></li>`)}</ul>` : html`<p>This page shows the network of the host <b class="mono">${location.host}</b>. Others are reached under their own hosts (multitenancy), each with its own console.</p>`}</div></section>`;
}

/** The console of another network: the same server by another host. */
function consoleOf(hostname) {
  return `${location.protocol}//${hostname}${location.port ? `:${location.port}` : ""}/console/`;
}
