// A leaked credential: whose it is, where it was used, what it can still do, and how to stop it.

import { call } from "../api.js";
import { cli, curl } from "../commands.js";
import { html, useAction, useEffect, useLoad, useState } from "../html.js";
import { Icon } from "../icons.js";
import { isActive, outcomeWords, sentence } from "../keystate.js";
import { keyLink } from "../router.js";
import { may } from "../session.js";
import { count, span } from "../time.js";
import { Badge, Commands, Failure, Field, Loaded, Notice, Time, shown } from "../ui.js";
import { Revoke, Suspend, operationOf } from "./change.js";
import { Usage, getKey } from "./key.js";

const ERRORS = {
  VERIFICATION_ERROR_NOT_FOUND: "No key of this network has this secret.",
  VERIFICATION_ERROR_INVALID_FORMAT: "That isn't a key: it has another form, or a part of it is missing.",
  VERIFICATION_ERROR_SIGNATURE_INVALID: "It looks like a key, but its checksum is wrong: it was mistyped or made up.",
};

export function Leak() {
  const [text, setText] = useState("");
  // The pasted credential is forgotten with the screen.
  useEffect(() => () => setText(""), []);
  const { run, busy, problem, answer } = useAction(async () => {
    const found = await call("adminVerifyApiKey", { query: { charge: "false" }, body: { credential: text.trim() } });
    setText("");
    return found;
  });
  return html`<div class="page">
    <div class="head"><div><h1>Leaked key</h1><p>Found a key in a chat, a log or a repository? See whose it is and stop it. It is checked, not used: no limit is charged, and nothing of it is logged.</p></div></div>
    <form class="card" onSubmit=${run} autocomplete="off"><div class="card-body stack">
      <${Field} id="credential" label="Key or token" hint="Sent to this server only, and forgotten with this page">${(props) => html`<input class="input mono" type="password" ...${props} value=${text} autofocus autocomplete="off" spellcheck=${false} maxlength="16384" onInput=${(event) => setText(event.target.value)} />`}<//>
      <div class="actions"><button class="button primary" disabled=${!text.trim() || busy}><${Icon} name="search" />${busy ? "Looking" : "Look it up"}</button></div>
      <${Commands} forms=${{ talos: cli.verify(), curl: curl("adminVerifyApiKey", { query: { charge: "false" }, body: { credential: "$SECRET" } }) }} />
    </div></form>
    ${problem && html`<${Failure} problem=${problem} />`}
    ${answer && !answer.key_id && html`<${Notice} tone="info" title=${ERRORS[answer.error_code] ?? shown(answer.error_message ?? "It isn't valid.")}><p>Nothing has to be stopped here. Another network or environment may know it.</p><//>`}
    ${answer?.key_id && html`<${Found} id=${answer.key_id} answer=${answer} />`}
  </div>`;
}

function Found({ id, answer }) {
  const [dialog, setDialog] = useState("");
  const key = useLoad((signal) => getKey(id, signal), [id]);
  const status = useLoad((signal) => call("adminGetStatus", { signal }), []);
  const where = useLoad(async (signal) => {
    const query = { filter: `key_id = ${id}`, start_time: new Date(Date.now() - 30 * 86_400_000).toISOString() };
    const [routes, uses] = await Promise.all([
      call("adminGetUsage", { query: { ...query, group_by: "route,outcome" }, signal }),
      call("adminGetUsage", { query: { ...query, group_by: "key" }, signal }),
    ]);
    return { routes: routes.rows, used: uses.rows[0] ?? {} };
  }, [id]);
  const close = (done) => {
    setDialog("");
    if (done) key.reload();
  };
  return html`<${Loaded} of=${key} what="the key">${(data) => html`
    <section class="card" aria-label="The key"><header><h2><a href=${keyLink(id)}>${shown(data.name)}</a> <${Badge} of=${data} /></h2>
      ${isActive(data) && html`<div class="actions">${!data.suspension && may(operationOf("Suspend", data)) && html`<button class="button" onClick=${() => setDialog("suspend")}><${Icon} name="pause" />Suspend</button>`}
        ${may(operationOf("Revoke", data)) && html`<button class="button danger fill" onClick=${() => setDialog("revoke")}><${Icon} name="ban" />Revoke</button>`}</div>`}</header>
      <div class="card-body stack"><p class="strong">${shown(sentence(data))}</p>
        <dl class="facts wide">
          <div><dt>Actor</dt><dd><a href=${`#/actors/${encodeURIComponent(data.actor_id)}`}>${shown(data.actor_id)}</a></dd></div>
          <div><dt>Scopes</dt><dd>${data.scopes.map(shown).join(", ") || "none"}</dd></div>
          <div><dt>Last used</dt><dd><${Time} at=${where.data?.used.last_used_time ?? data.last_used_time} />${data.last_used_address ? ` from ${data.last_used_address}` : ""}</dd></div>
          <div><dt>Verdict now</dt><dd>${answer.is_valid ? "valid" : shown(answer.error_message ?? "not valid")}</dd></div>
        </dl></div></section>
    ${status.data && html`<${Exposure} of=${status.data.exposure} />`}
    <div class="columns even"><${Usage} filter=${`key_id = ${id}`} title="When it was used" />
      <section class="card" aria-label="Where it was used"><header><h2>Where it was used, 30 days</h2></header><div class="card-body"><${Loaded} of=${where} what="usage">${({ routes }) => (routes.length === 0 ? html`<p class="muted">Nowhere that was counted.</p>` : html`<ul class="bars">${routes.map((row) => html`<li><span class="clip">${shown(row.route ?? "no rule")}: ${outcomeWords(row.outcome)}</span>
        <meter class=${row.outcome === "allow" ? "" : "refuse"} min="0" max=${routes[0].count} value=${row.count} aria-label=${`${row.count} requests`}></meter><span class="small">${count(row.count)}</span></li>`)}</ul>`)}<//></div></section></div>
    ${dialog === "suspend" && html`<${Suspend} of=${data} onClose=${close} />`}
    ${dialog === "revoke" && html`<${Revoke} of=${data} reason="REVOCATION_REASON_KEY_COMPROMISE" onClose=${close} />`}`}<//>`;
}

/** Time for which the key, and tokens made from it, are of use after it is stopped. */
function Exposure({ of: exposure }) {
  return html`<section class="card" aria-label="After it is stopped"><header><h2>After it is stopped</h2></header><div class="card-body"><dl class="facts wide">
    <div><dt>The key itself passes for at most</dt><dd class="strong">${span(exposure.key_seconds)}</dd></div>
    <div><dt>Tokens sent upstream stay valid for</dt><dd class="strong">${span(exposure.upstream_token_seconds)}</dd></div>
    <div><dt>Tokens derived from it through the API</dt><dd class="strong">${span(exposure.derived_token_seconds)}</dd></div></dl></div>
    <footer>Upstreams verify tokens by themselves: shorter lifetimes (authz.token_ttl, credentials.derived_tokens.max_ttl) shorten this.</footer></section>`;
}
